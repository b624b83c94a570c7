//! The notation of stories about state machines: a line is `TIME EVENT`, then perhaps
//! `=> RESULT | RESULT`. Each machine has words of its own for events and results.

use crate::base::time::Moment;

/// A line of a story.
pub struct Step<'a> {
    /// All of it, to say which one failed.
    pub line: &'a str,
    /// When it happens.
    pub at: Moment,
    /// What happens.
    pub event: &'a str,
    /// All that must come of it and of the time before it, in this order.
    pub expected: Vec<&'a str>,
}

/// The lines of a story.
pub fn steps(script: &str) -> impl Iterator<Item = Step<'_>> {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| {
        let (event, expected) = line.split_once("=>").unwrap_or((line, ""));
        let (time, event) = event.trim().split_once(' ').expect("a time and an event");
        let expected = expected.split(" | ").map(str::trim);
        Step {
            line,
            at: Moment::after_start(time.parse().unwrap()),
            event,
            expected: expected.filter(|text| !text.is_empty()).collect(),
        }
    })
}
