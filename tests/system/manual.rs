//! The manual for man(1), and completions in real shells.

use crate::support::pegasus::{path, pegasus};
use crate::support::process::run;
use crate::support::pty::Terminal;
use crate::support::{output, tool, Directory};
use std::path::Path;
use std::process::Command;

/// What `pegasus help` prints with these options.
#[track_caller]
fn help(options: &[&str]) -> String {
    let (status, text, errors) = pegasus(&[&["help"], options].concat());
    assert_eq!((status, errors.as_str()), (0, ""), "{options:?}");
    text
}

#[test]
fn mandoc_finds_nothing_wrong_with_any_page() {
    let topics = help(&["--topics"]);
    assert!(topics.lines().count() > 20, "{topics}");
    for line in topics.lines() {
        let (file, rest) = line.split_once(' ').unwrap();
        let topic = rest.split_whitespace().next().unwrap();
        let page = help(&["--man", topic]);
        let (status, out, errors) = run(tool("mandoc").arg("-Tlint"), page.as_bytes());
        assert_eq!((status, out.as_str(), errors.as_str()), (0, "", ""), "{topic}");
        // The words of the page, as a reader of man(1) sees them.
        let (_, read, _) = run(tool("mandoc").args(["-Tutf8", "-O", "width=200"]), page.as_bytes());
        let name = file.split_once('.').map_or(file, |_| file.rsplit_once('.').unwrap().0);
        assert!(read.to_lowercase().contains(&format!("{name}(")), "{read}");
    }
    // The date is that of the release, if there is one.
    let mut dated = Command::new(path());
    dated.args(["help", "--man", "queue"]).env("SOURCE_DATE_EPOCH", "951782400");
    assert!(output(&mut dated).starts_with(".TH PEGASUS-QUEUE 8 2000-02-29 "));
}

#[test]
fn mistakes_are_named() {
    for (arguments, why) in [
        (vec!["help", "--man", "nothing"], "no help on `nothing`"),
        (vec!["help", "--complete", "tcsh"], "no completion for `tcsh`; there are bash zsh fish"),
    ] {
        let (status, _, errors) = pegasus(&arguments);
        assert!(status == 64 && errors.contains(why), "{errors}");
    }
}

/// What the shells are asked to complete, and what must and must not come of it.
const LINES: [(&str, &[&str], &str); 5] = [
    ("pegasus re", &["redirect", "resume"], "queue"),
    ("pegasus help tr", &["trouble"], "queue"),
    ("pegasus monitor -o monitor_lo", &["monitor_load="], "monitor_interval="),
    ("pegasus export ngi", &["nginx"], "nft"),
    ("pegasus drain --fo", &["--for"], "--json"),
];

#[test]
fn bash_completes() {
    let directory = Directory::new();
    let script = directory.write("pegasus", &help(&["--complete", "bash"]));
    for (line, wanted, unwanted) in LINES {
        let words: Vec<&str> = line.split(' ').collect();
        let ask = format!(
            ". {script}; COMP_WORDS=({line}); COMP_CWORD={}; _pegasus; printf '%s\\n' \
             \"${{COMPREPLY[@]}}\"; complete -p pegasus",
            words.len() - 1
        );
        let told = output(tool("bash").args(["--norc", "-c", &ask]));
        let told: Vec<&str> = told.lines().collect();
        assert!(wanted.iter().all(|word| told.contains(word)), "{line}: {told:?}");
        assert!(!told.contains(&unwanted), "{line}: {told:?}");
        assert_eq!(told.last(), Some(&"complete -F _pegasus pegasus"));
    }
}

#[test]
fn fish_completes() {
    let directory = Directory::new();
    let script = directory.write("pegasus.fish", &help(&["--complete", "fish"]));
    for (line, wanted, unwanted) in LINES {
        let ask = format!("source {script}; complete -C '{line}'");
        let told =
            output(tool("fish").args(["--no-config", "-c", &ask]).env("HOME", directory.path()));
        let told: Vec<&str> = told.lines().filter_map(|line| line.split('\t').next()).collect();
        assert!(wanted.iter().all(|word| told.contains(word)), "{line}: {told:?}");
        assert!(!told.contains(&unwanted), "{line}: {told:?}");
    }
}

#[test]
fn zsh_completes() {
    let directory = Directory::new();
    directory.write("_pegasus", &help(&["--complete", "zsh"]));
    let place: &Path = directory.path();
    let mut shell = tool("zsh");
    shell.args(["-f", "-i"]).env("TERM", "dumb").env("HOME", place).env("PS1", "");
    let mut zsh = Terminal::start("zsh", &mut shell, 200, 50);
    zsh.types(&format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; LISTMAX=1000; PS1='rea''dy> '\n",
        place.display()
    ));
    zsh.shows("ready> ");
    for (line, wanted, _) in LINES {
        zsh.forget();
        zsh.types(&format!("{line}\t"));
        match wanted {
            // A single word is put in the line, several are listed.
            [word] => {
                let (begin, _) = line.rsplit_once(' ').unwrap();
                zsh.shows(&format!("{begin} {word}"));
            }
            words => words.iter().for_each(|word| zsh.shows(word)),
        }
        zsh.forget();
        zsh.types("\u{3}");
        zsh.shows("ready> ");
    }
}
