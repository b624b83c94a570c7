//! `pegasus help`: the manual, which is part of the program.
//!
//! Owns the choice of a page. The pages are the text files in `help/`; the
//! tables of keys and schedulers are generated.

use super::exit;
use super::terminal::{print_error, print_text};
use crate::config::keys;
use pegasus_core::scheduler;

const OVERVIEW: &str = include_str!("help/overview.txt");
const QUEUE: &str = include_str!("help/queue.txt");
const REDIRECT: &str = include_str!("help/redirect.txt");
const MONITOR: &str = include_str!("help/monitor.txt");
const SEND: &str = include_str!("help/send.txt");
const STATUS: &str = include_str!("help/status.txt");
const TOP: &str = include_str!("help/top.txt");
const DRAIN: &str = include_str!("help/drain.txt");
const EXPORT: &str = include_str!("help/export.txt");
const CHECK: &str = include_str!("help/check.txt");
const ADMIN: &str = include_str!("help/admin.txt");
const DEMO: &str = include_str!("help/demo.txt");
const PROTOCOL: &str = include_str!("help/protocol.txt");
const SCHEDULERS: &str = include_str!("help/schedulers.txt");
const PLUGINS: &str = include_str!("help/plugins.txt");
const SUPERSERVERS: &str = include_str!("help/superservers.txt");
const DNS: &str = include_str!("help/dns.txt");
const HTTP: &str = include_str!("help/http.txt");
const UDP: &str = include_str!("help/udp.txt");
const SECURITY: &str = include_str!("help/security.txt");

/// Prints a page of the manual and returns the exit status. A program contains only the
/// pages of its own commands.
pub fn print(words: &[String]) -> i32 {
    let page = match words.first().map_or("", String::as_str) {
        "" => OVERVIEW.to_string(),
        "queue" if cfg!(feature = "queue") => QUEUE.to_string(),
        "redirect" if cfg!(feature = "redirect") => REDIRECT.to_string(),
        "monitor" if cfg!(feature = "monitor") => MONITOR.to_string(),
        "send" => SEND.to_string(),
        "status" if cfg!(feature = "operate") => STATUS.to_string(),
        "top" if cfg!(feature = "operate") => TOP.to_string(),
        "drain" | "resume" if cfg!(feature = "operate") => DRAIN.to_string(),
        "export" if cfg!(feature = "export") => EXPORT.to_string(),
        "check" if cfg!(feature = "operate") => CHECK.to_string(),
        "admin" if cfg!(feature = "admin") => ADMIN.to_string(),
        "demo" if cfg!(feature = "demo") => DEMO.to_string(),
        "config" => keys::sample(),
        "protocol" => PROTOCOL.to_string(),
        "schedulers" if cfg!(feature = "queue") => schedulers(),
        "plugins" if cfg!(feature = "queue") => PLUGINS.to_string(),
        "superservers" if cfg!(feature = "redirect") => SUPERSERVERS.to_string(),
        "dns" if cfg!(feature = "dns") => DNS.to_string(),
        "http" if cfg!(feature = "http") => HTTP.to_string(),
        "udp" if cfg!(feature = "redirect") => UDP.to_string(),
        "security" | "key" => SECURITY.to_string(),
        other => {
            print_error(format_args!("pegasus: no help on `{other}`"));
            print_error(OVERVIEW.trim_end());
            return exit::USAGE;
        }
    };
    print_text(page);
    exit::OK
}

/// Returns the table of schedulers and the advice on choosing one.
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
    text.push_str(SCHEDULERS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_fit_a_terminal() {
        for (name, page) in [
            ("overview", OVERVIEW),
            ("queue", QUEUE),
            ("redirect", REDIRECT),
            ("monitor", MONITOR),
            ("send", SEND),
            ("status", STATUS),
            ("top", TOP),
            ("drain", DRAIN),
            ("export", EXPORT),
            ("admin", ADMIN),
            ("demo", DEMO),
            ("config", &keys::sample()),
            ("protocol", PROTOCOL),
            ("schedulers", &schedulers()),
            ("plugins", PLUGINS),
            ("superservers", SUPERSERVERS),
            ("udp", UDP),
            ("dns", DNS),
            ("http", HTTP),
            ("security", SECURITY),
        ] {
            for line in page.lines() {
                assert!(line.chars().count() <= 80, "{name}: longer than 80 columns: {line}");
                assert_eq!(line, line.trim_end(), "{name}: trailing blanks");
                assert!(!line.contains('\t'), "{name}: a tab: {line}");
            }
            assert!(
                page.ends_with('\n') && !page.ends_with("\n\n"),
                "{name}: one newline ends a page"
            );
        }
        assert!(schedulers().lines().count() <= 24);
    }
}
