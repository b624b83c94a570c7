//! The table of a queue's status, as wide as there is room.
//!
//! Owns columns and alignment. Knows no queue and no terminal.

use crate::command::status_report::{Peers, Record, Report, ServiceReport, NO_CEILING};
use std::fmt::Write;

/// What a table may use.
#[derive(Clone, Copy)]
pub struct Style {
    /// Whether the reader shows more than ASCII.
    pub unicode: bool,
    /// Columns of the bar; 0: no bar.
    pub bar: usize,
    /// Columns of the table.
    pub columns: usize,
}

const HEADINGS: [&str; 9] =
    ["provider", "state", "tickets", "free", "active", "most", "granted", "share", "failures"];
/// These columns are text; numbers stand on the right.
const TEXT_COLUMNS: usize = 2;

/// What a narrow table does without, first the first: `why` says most of it in words.
const DISPENSABLE: [&str; 6] = ["failures", "granted", "most", "share", "free", "state"];

/// Columns that are kept for `why`, so that the others do not come and go with its words.
const WHY: usize = 43;

/// Which columns are shown.
type Shown = [bool; HEADINGS.len()];

/// Appends the lines of a queue.
pub fn write_report(report: &Report, title: &str, style: Style, out: &mut Vec<String>) {
    let queue = |key| report.queue.number(key);
    out.push(format!(
        "{title} {} connections, {} waiting, {} asked, {} granted, {} refused",
        queue("connections"),
        queue("waiting"),
        queue("asked"),
        queue("granted"),
        queue("refused"),
    ));
    if report.services.is_empty() {
        out.push("  no service yet: no monitor has sent tickets".into());
    }
    for service in &report.services {
        write_service(service, style, out);
    }
}

fn write_service(service: &ServiceReport, style: Style, out: &mut Vec<String>) {
    let record = &service.record;
    out.push(String::new());
    out.push(format!(
        "{} ({})  {} providers, {} of {} tickets free, {} active, {} waiting, {} refused",
        record.text("name"),
        record.text("scheduler"),
        service.providers.len(),
        record.number("free"),
        record.number("tickets"),
        record.number("active"),
        record.number("waiting"),
        record.number("refused"),
    ));
    if service.providers.is_empty() {
        return;
    }
    let peers = Peers::of(service);
    let rows: Vec<[String; HEADINGS.len()]> =
        service.providers.iter().map(|provider| row(provider, &peers)).collect();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].len());
            cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let most = service.providers.iter().map(scale).max().unwrap_or(1).max(1);
    let headings = HEADINGS.map(|heading| heading.to_uppercase());
    let blank = " ".repeat(if style.bar == 0 { 0 } else { style.bar + 2 });
    let whys: Vec<String> =
        service.providers.iter().map(|provider| peers.why_and_key(provider)).collect();
    let why = whys.iter().map(|why| why.chars().count()).fold(WHY, usize::max);
    let shown = shown(&widths, blank.len() + 2 + why, style.columns);
    out.push(format!("  {}{blank}  WHY", line(&headings, &widths, &shown)));
    for ((row, provider), why) in rows.iter().zip(&service.providers).zip(whys) {
        let mut text = format!("  {}", line(row, &widths, &shown));
        if style.bar > 0 {
            let _ = write!(text, "  {}", bar(provider, most, style));
        }
        let _ = write!(text, "  {why}");
        out.push(text);
    }
}

fn row(provider: &Record, peers: &Peers) -> [String; HEADINGS.len()] {
    let share = peers.share(provider);
    let capacity = provider.number("capacity");
    [
        provider.text("address").into(),
        provider.text("state").into(),
        provider.text("tickets").into(),
        provider.text("free").into(),
        provider.text("active").into(),
        if capacity >= NO_CEILING { "-".into() } else { capacity.to_string() },
        provider.text("granted").into(),
        format!("{}%", (share + 5) / 10),
        provider.text("failures").into(),
    ]
}

/// As many columns as fit before the rest of the line.
fn shown(widths: &[usize], rest: usize, columns: usize) -> Shown {
    let mut shown = [true; HEADINGS.len()];
    for name in DISPENSABLE {
        let cells = widths.iter().zip(shown).filter(|(_, shown)| *shown);
        if cells.map(|(width, _)| width + 2).sum::<usize>() + rest <= columns {
            break;
        }
        for (heading, shown) in HEADINGS.iter().zip(&mut shown) {
            *shown &= *heading != name;
        }
    }
    shown
}

fn line(cells: &[String; HEADINGS.len()], widths: &[usize], shown: &Shown) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if !shown[column] {
            continue;
        }
        let gap = if column == 0 { "" } else { "  " };
        let _ = if column < TEXT_COLUMNS {
            write!(line, "{gap}{cell:<width$}")
        } else {
            write!(line, "{gap}{cell:>width$}")
        };
    }
    line
}

/// What the whole bar of a provider stands for.
fn scale(provider: &Record) -> u64 {
    provider.number("tickets").max(provider.number("active"))
}

/// Active requests, then free tickets, on the scale of the largest provider.
fn bar(provider: &Record, most: u64, style: Style) -> String {
    let width = |value: u64| (value * style.bar as u64).div_ceil(most) as usize;
    let active = width(provider.number("active")).min(style.bar);
    let free = width(scale(provider)).clamp(active, style.bar) - active;
    let (full, empty) = if style.unicode { ('█', '░') } else { ('#', '.') };
    let mut bar: String = std::iter::repeat_n(full, active).collect();
    bar.extend(std::iter::repeat_n(empty, free));
    bar.extend(std::iter::repeat_n(' ', style.bar - active - free));
    bar
}

/// Cuts a line at the right edge.
pub fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "queue connections=2 waiting=0 asked=40 granted=30 refused=1\n\
        service name=web scheduler=fifo providers=2 tickets=6 free=4 active=2 waiting=0 refused=1\n\
        provider address=10.0.0.1:80 tickets=4 capacity=1000000 free=2 active=2 granted=20 \
        failures=0 state=free\n\
        provider address=10.0.0.22:8080 tickets=2 capacity=8 free=2 active=0 granted=10 \
        failures=0 state=free\n";

    fn lines(bar: usize, columns: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let style = Style { unicode: false, bar, columns };
        write_report(&Report::parse(STATUS), "b1:7347 ", style, &mut lines);
        lines
    }

    #[test]
    fn a_narrow_table_says_why_and_does_without_numbers() {
        let all = lines(0, usize::MAX);
        let longest = all[3].find("WHY").unwrap() + WHY;
        assert_eq!(lines(0, longest), all);
        let narrow = lines(0, longest - 1);
        assert!(!narrow[3].contains("FAILURES") && narrow[3].contains("GRANTED"), "{narrow:#?}");
        let least = lines(0, 50);
        let words: Vec<&str> = least[3].split_whitespace().collect();
        assert_eq!(words, ["PROVIDER", "TICKETS", "ACTIVE", "WHY"]);
        for (line, whole) in least[4..].iter().zip(&all[4..]) {
            let why = whole.rsplit("  ").next().unwrap();
            assert!(line.len() <= longest && line.ends_with(why), "{least:#?}");
        }
    }

    #[test]
    fn columns_are_aligned_and_no_ceiling_is_no_number() {
        let lines = lines(4, usize::MAX);
        assert_eq!(lines[0], "b1:7347  2 connections, 0 waiting, 40 asked, 30 granted, 1 refused");
        let at = |line: &str, word: &str| line.find(word).unwrap();
        let heading = &lines[3];
        assert_eq!(at(heading, "WHY"), at(&lines[4], "2 of 4 tickets free"), "{lines:#?}");
        assert_eq!(at(heading, "STATE"), at(&lines[5], "free"), "{lines:#?}");
        assert!(lines[4].contains("  -  ") && lines[4].contains("##..  2 of 4"), "{lines:#?}");
        assert!(lines[5].contains("67%") || lines[5].contains("33%"), "{lines:#?}");
    }

    #[test]
    fn a_line_is_cut_by_characters() {
        assert_eq!(cut("█░é", 2), "█░");
    }
}
