//! `pegasus demo`: what a newcomer sees first.

use crate::support::pegasus::{pegasus, program};
use crate::support::pty::Terminal;
use crate::support::until;

/// The requests of a provider in the last table.
#[track_caller]
fn requests(out: &str, name: &str) -> u64 {
    let line = out.lines().rev().find(|line| line.starts_with(&format!("{name} ")));
    let line = line.unwrap_or_else(|| panic!("no {name}:\n{out}"));
    line.split_whitespace()
        .nth(4)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn three_seconds_show_that_all_are_used_and_the_slow_one_less() {
    let (status, out, err) = pegasus(&["demo", "--seconds", "3"]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let [one, two, slow] = ["quick-1", "quick-2", "slow"].map(|name| requests(&out, name));
    assert!(slow > 0 && slow < one && slow < two, "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.ends_with(", 0 failed"), "{last}");
    let answered: u64 = last.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(one + two + slow, answered, "{out}");
}

/// A terminal with the demo, once its table moves.
#[track_caller]
fn at_terminal() -> Terminal {
    let mut program = program();
    program.arg("demo").env("LC_ALL", "C.UTF-8");
    let terminal = Terminal::start("demo", &mut program, 100, 40);
    terminal.shows("clients: answered ");
    assert!(terminal.is_raw());
    terminal
}

/// The last number behind a word on the screen.
fn last(terminal: &Terminal, word: &str) -> u64 {
    let shown = terminal.shown();
    let Some((_, rest)) = shown.rsplit_once(word) else { return 0 };
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

#[test]
fn at_a_terminal_keys_break_things_and_no_client_notices() {
    let mut terminal = at_terminal();
    terminal.shows("In a browser, live:\r\n  http://127.0.0.1:");
    until("clients came by themselves", || last(&terminal, "answered ") > 20);
    terminal.shows("█");
    terminal.types("1");
    terminal.shows("  dead");
    terminal.types("1");
    terminal.forget();
    until("it is back", || terminal.shown().matches("quick-1").count() > 2);
    assert!(!terminal.shown().rsplit_once("quick-1").unwrap().1.contains("dead"));
    terminal.types("s");
    terminal.shows(" slow\r\n");
    terminal.types("+");
    terminal.shows("14 clients: ");
    terminal.types("c");
    terminal.shows(" 0 clients: ");
    terminal.types("c");
    terminal.shows("14 clients: ");
    terminal.types("q");
    terminal.shows("The longest".to_lowercase().as_str());
    assert_eq!(terminal.process.ends(), 0);
    assert!(!terminal.is_raw());
    assert!(terminal.shown().contains(", 0 failed;"), "{}", terminal.shown());
}

#[test]
fn the_terminal_is_put_back_however_the_demo_ends() {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        let mut terminal = at_terminal();
        terminal.process.signal(signal);
        assert_ne!(terminal.process.ends(), 0, "signal {signal}");
        assert!(!terminal.is_raw(), "signal {signal}");
    }
    // Ctrl-C is a key.
    let mut terminal = at_terminal();
    terminal.types("\u{3}");
    terminal.shows(", 0 failed;");
    assert_eq!(terminal.process.ends(), 0);
    assert!(!terminal.is_raw());
}
