//! The manual agrees with the program.

use super::*;
use std::collections::BTreeSet;

#[test]
fn pages_fit_a_terminal() {
    for page in PAGES {
        let (name, text) = (page.name, page.text());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{name}: longer than 80 columns: {line}");
            assert_eq!(line, line.trim_end(), "{name}: trailing blanks");
            assert!(!line.contains('\t'), "{name}: a tab: {line}");
        }
        let ends = text.ends_with('\n') && !text.ends_with("\n\n");
        assert!(ends, "{name}: one newline ends a page");
        assert!(page.summary.len() <= 60, "{name}: a long summary");
    }
    assert!(schedulers().lines().count() <= 24);
}

/// The words of a text that look like names: letters, digits, `_` and `-`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
}

/// All programs have these pages; a smaller one lacks some.
#[cfg(feature = "demo")]
#[test]
fn the_first_page_names_every_page_and_every_text_is_a_page() {
    let overview: BTreeSet<String> =
        words(&PAGES[0].text()).map(str::to_string).collect::<BTreeSet<_>>();
    for page in &PAGES[1..] {
        assert!(overview.contains(page.name), "{} is not in the overview", page.name);
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/command/help");
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".txt") else { continue };
        let known = name == "overview" || find(name).is_some();
        assert!(known, "{file} is no page");
    }
}

/// Words of the pages that begin as a key does are keys.
#[test]
fn keys_in_the_manual_exist() {
    let keys: BTreeSet<&str> = crate::config::keys::all().map(|key| key.name).collect();
    let of_service = |word: &str| {
        let rest = word.strip_prefix("service_")?;
        let known =
            |key: &&&str| key.strip_prefix("service_NAME").is_some_and(|end| rest.ends_with(end));
        keys.iter().find(known).map(drop)
    };
    for page in PAGES {
        for word in words(&page.text()) {
            let begins = ["queue_", "redirect_", "monitor_", "service_", "drain_", "metrics_"];
            if begins.iter().any(|begin| word.starts_with(begin)) {
                // `queue_allow_*` is all of them.
                let several = word.ends_with('_') && keys.iter().any(|key| key.starts_with(word));
                let known = several || keys.contains(word) || of_service(word).is_some();
                // A program without a part has no keys of that, but says what others have.
                assert!(known || !cfg!(feature = "demo"), "{}: no key {word}", page.name);
            }
        }
    }
}

#[cfg(feature = "operate")]
#[test]
fn options_and_their_pages_agree() {
    use crate::command::options::commands;
    for command in commands() {
        let page = find(command).or_else(|| find("")).unwrap();
        let overview = PAGES[0].text();
        let text = page.text();
        let options = complete::options(command);
        assert!(options.len() > 1, "{command} has no options");
        for option in &options {
            let told = option
                .names
                .iter()
                .any(|name| words(&text).chain(words(&overview)).any(|word| word == name));
            assert!(told, "{command}: {:?} is in no page", option.names);
        }
        // The other way round: its page promises none that the command lacks.
        let others = |line: &&str| {
            line.starts_with("pegasus ") && line.split_whitespace().nth(1) != Some(command)
        };
        let usage = text.lines().take_while(|line| !line.is_empty()).filter(|line| !others(line));
        for word in usage.flat_map(words).filter(|word| word.starts_with("--")) {
            let known = options.iter().any(|option| option.names.iter().any(|name| name == word));
            assert!(known, "{command} has no {word}");
        }
    }
}

#[cfg(feature = "operate")]
#[test]
fn every_page_is_one_for_man_too() {
    for page in PAGES {
        let source = man::write(page, &["pegasus(8)".to_string()], 0);
        let begin = format!(".TH {} {} 1970-01-01 ", page.man_name().to_uppercase(), page.section);
        assert!(source.starts_with(&begin), "{source}");
        assert!(source.is_ascii(), "{}", page.name);
        // No word of a text is lost.
        if page.name != "config" {
            let count = |text: &str| text.matches("pegasus").count();
            assert!(count(&source) > count(&page.text()), "{}", page.name);
        }
    }
}
