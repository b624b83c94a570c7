//! `pegasus help`: the manual, which is part of the program.
//!
//! Owns the table of pages. The pages are the text files in `help/`; the tables of keys
//! and schedulers are generated. Pages for man(1) and completions of shells are made from
//! the same texts and tables.

#[cfg(feature = "operate")]
mod complete;
#[cfg(feature = "operate")]
mod man;
mod page;

use super::exit;
use super::terminal::{print_error, print_text};
use crate::config::keys;
use getopts::Matches;
use page::Content::Made;
use page::Page;
#[cfg(feature = "queue")]
use pegasus_core::scheduler;

/// A page from its file.
macro_rules! page {
    ($name:literal, $section:literal, $summary:literal) => {
        Page::text_of($name, $section, $summary, include_str!(concat!("help/", $name, ".txt")))
    };
}

/// All pages of this program, which has only those of its own commands.
const PAGES: &[Page] = &[
    Page::text_of("", 8, "competitive load balancing", include_str!("help/overview.txt")),
    #[cfg(feature = "queue")]
    page!("queue", 8, "keep the tickets, answer redirectors"),
    #[cfg(feature = "redirect")]
    page!("redirect", 8, "connect each client to a provider"),
    #[cfg(feature = "monitor")]
    page!("monitor", 8, "measure the load of a provider, send tickets"),
    page!("send", 8, "send control messages, print the replies"),
    #[cfg(feature = "operate")]
    page!("status", 8, "show what queues hold"),
    #[cfg(feature = "operate")]
    page!("top", 8, "show what queues hold, live"),
    #[cfg(feature = "operate")]
    page!("drain", 8, "keep new clients from a provider"),
    #[cfg(feature = "export")]
    page!("export", 8, "print providers for nft, ipvsadm, haproxy or nginx"),
    #[cfg(feature = "operate")]
    page!("check", 8, "find out whether a configuration would work"),
    #[cfg(feature = "demo")]
    page!("demo", 8, "run a whole cluster on loopback"),
    Page {
        name: "config",
        section: 5,
        summary: "the configuration of pegasus",
        content: Made(keys::sample),
    },
    #[cfg(feature = "admin")]
    page!("admin", 7, "metrics, status and a page over HTTP"),
    page!("protocol", 7, "control messages"),
    #[cfg(feature = "queue")]
    Page {
        name: "schedulers",
        section: 7,
        summary: "how a provider is chosen",
        content: Made(schedulers),
    },
    #[cfg(feature = "queue")]
    page!("plugins", 7, "schedulers of your own"),
    #[cfg(feature = "redirect")]
    page!("superservers", 7, "inetd, xinetd, systemd and others"),
    #[cfg(feature = "redirect")]
    page!("udp", 7, "services over datagrams"),
    #[cfg(feature = "dns")]
    page!("dns", 7, "answers to DNS questions instead of relaying"),
    #[cfg(feature = "http")]
    page!("http", 7, "redirects of HTTP requests instead of relaying"),
    #[cfg(feature = "export")]
    page!("scale", 7, "which way to lead clients, and when"),
    #[cfg(feature = "redirect")]
    page!("balancers", 7, "more than one balancer"),
    page!("security", 7, "keys, roles and encryption"),
    #[cfg(feature = "operate")]
    page!("trouble", 7, "what a symptom means, and what mends it"),
];

fn find(name: &str) -> Option<&'static Page> {
    let name = match name {
        "resume" => "drain",
        "key" => "security",
        "pegasus" => "",
        name => name,
    };
    PAGES.iter().find(|page| page.name == name)
}

/// Runs the command; the result is its exit status.
pub fn run(matches: &Matches) -> i32 {
    #[cfg(feature = "operate")]
    if let Some(made) = made(matches) {
        return made;
    }
    print(&matches.free)
}

/// What is made of the pages, if that is asked for.
#[cfg(feature = "operate")]
fn made(matches: &Matches) -> Option<i32> {
    if let Some(shell) = matches.opt_str("complete") {
        let Some(script) = complete::script(&shell, PAGES) else {
            print_error(format_args!(
                "pegasus: help: no completion for `{shell}`; there are {}",
                complete::SHELLS.join(" ")
            ));
            return Some(exit::USAGE);
        };
        print_text(script);
        return Some(exit::OK);
    }
    if matches.opt_present("topics") {
        for page in PAGES {
            let name = format!("{}.{}", page.man_name(), page.section);
            let topic = if page.name.is_empty() { "pegasus" } else { page.name };
            print_text(format_args!("{name:<24}{topic:<14}{}\n", page.summary));
        }
        return Some(exit::OK);
    }
    if !matches.opt_present("man") {
        return None;
    }
    let name = matches.free.first().map_or("", String::as_str);
    let page = find(name)?;
    let reference = |page: &Page| format!("{}({})", page.man_name(), page.section);
    let others: Vec<String> =
        PAGES.iter().filter(|other| other.name != page.name).map(reference).collect();
    // A release dates its pages as all of its files.
    let dated = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    };
    print_text(man::write(page, &others, dated.unwrap_or_else(now)));
    Some(exit::OK)
}

/// Prints a page of the manual and returns the exit status.
pub fn print(words: &[String]) -> i32 {
    let name = words.first().map_or("", String::as_str);
    let Some(page) = find(name) else {
        print_error(format_args!("pegasus: no help on `{name}`"));
        print_error(PAGES[0].text().trim_end());
        return exit::USAGE;
    };
    print_text(page.text());
    exit::OK
}

/// Returns the table of schedulers and the advice on choosing one.
#[cfg(feature = "queue")]
fn schedulers() -> String {
    let mut text =
        String::from("queue_scheduler=NAME, or service_NAME_scheduler=NAME for one service:\n\n");
    for entry in scheduler::definitions() {
        let name = entry.names[0];
        let aliases = entry.names[1..].join(" ");
        let line = if aliases.is_empty() {
            entry.summary.to_string()
        } else {
            format!("{} ({aliases})", entry.summary)
        };
        text.push_str(&format!("  {name:<16}{line}\n"));
    }
    text.push_str(include_str!("help/schedulers.txt"));
    text
}

#[cfg(test)]
mod tests;
