//! Keeps lines of one kind to a few a second, and counts the others.
//!
//! A kind is a place in the program and a level, so the table is as large as the program
//! at most. A peer that provokes lines must not fill the disk, nor hide other lines.

use super::line::Line;
use log::{Level, Record};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Lines of a kind that may come at once.
const BURST: u32 = 50;
/// After that one line of the kind each time.
const PACE: Duration = Duration::from_millis(200);
/// Besides warnings and errors, peers provoke the lines of this target.
const QUEUE: &str = "queue";

type Kind = (&'static str, u32, Level);

struct Pace {
    /// Lines that may come now.
    allowance: u32,
    since: Instant,
    /// Lines left out since the last one that came.
    left_out: u32,
}

/// The kinds of lines that came so far.
#[derive(Default)]
pub struct FloodGuard(HashMap<Kind, Pace>);

impl FloodGuard {
    /// Whether a record may become a line now; before it comes what was left out of its kind.
    pub fn admit(&mut self, record: &Record, now: Instant) -> Option<Option<Line>> {
        let level = record.level();
        let provoked = level <= Level::Warn || level == Level::Info && record.target() == QUEUE;
        let (Some(file), Some(line)) = (record.file_static(), record.line()) else {
            return Some(None);
        };
        if !provoked {
            return Some(None);
        }
        let full = || Pace { allowance: BURST, since: now, left_out: 0 };
        let pace = self.0.entry((file, line, level)).or_insert_with(full);
        let earned = now.saturating_duration_since(pace.since).as_millis() / PACE.as_millis();
        if earned > 0 {
            pace.allowance = pace.allowance.saturating_add(earned as u32).min(BURST);
            pace.since = now;
        }
        if pace.allowance == 0 {
            pace.left_out = pace.left_out.saturating_add(1);
            return None;
        }
        pace.allowance -= 1;
        let left_out = std::mem::take(&mut pace.left_out);
        let notice = format!("{left_out} lines like the next one were left out");
        Some((left_out > 0).then(|| Line::new(level, record.target(), &notice)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_thinned_and_counted_and_leaves_other_kinds_alone() {
        let mut guard = FloodGuard::default();
        let start = Instant::now();
        let at = |line, level| {
            let mut record = Record::builder();
            record.level(level).file_static(Some("x.rs")).line(Some(line));
            record
        };
        let flood = at(1, Level::Warn).args(format_args!("flood")).build();
        let admitted = (0..1000).filter(|_| guard.admit(&flood, start).is_some()).count();
        assert_eq!(admitted, BURST as usize);
        let other = at(2, Level::Warn).args(format_args!("other")).build();
        assert!(matches!(guard.admit(&other, start), Some(None)));
        let notice = guard.admit(&flood, start + PACE).unwrap().unwrap();
        assert!(format!("{notice:?}").contains("950 lines like the next one were left out"));
        assert!(guard.admit(&flood, start + PACE).is_none());
        assert!(matches!(guard.admit(&flood, start + PACE * 3), Some(Some(_))));
    }
}
