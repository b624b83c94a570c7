//! `pegasus demo`: what a newcomer sees first.

use crate::support::pegasus::pegasus;

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
