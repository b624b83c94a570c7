//! Pages of the manual for man(1), made from the texts of `pegasus help`.
//!
//! Owns the markup: what is a heading, a list and a text in a page that people wrote for a
//! terminal. Whatever is none of these, such as a table, keeps its lines as they are.
//! The macros are those of man(7), which every formatter knows.

use super::page::Page;
use crate::config::keys;

/// Columns of a line of the source.
const COLUMNS: usize = 78;

/// A section is a heading followed by blocks; a block is lines without an empty one.
enum Block<'a> {
    Text(Vec<&'a str>),
    List(Vec<(&'a str, Vec<&'a str>)>),
    Literal(Vec<&'a str>),
}

/// Returns the page as source for man(1). `seconds` since 1970 date it.
pub fn write(page: &Page, others: &[String], seconds: u64) -> String {
    let title = page.man_name();
    let mut out = format!(
        ".TH {} {} {} \"pegasus {}\"\n.SH NAME\n{} \\- {}\n",
        title.to_uppercase(),
        page.section,
        date(seconds),
        env!("CARGO_PKG_VERSION"),
        escaped(&title),
        escaped(page.summary)
    );
    if page.name == "config" {
        write_keys(&mut out);
    } else {
        write_text(&page.text(), &mut out);
    }
    out.push_str(".SH SEE ALSO\n");
    out.push_str(&others.iter().map(|name| escaped(name)).collect::<Vec<_>>().join(",\n"));
    out.push('\n');
    out
}

fn write_text(text: &str, out: &mut String) {
    let mut block: Vec<&str> = Vec::new();
    let mut fresh = true;
    if text.starts_with("pegasus ") {
        heading("SYNOPSIS", out);
    } else if !text.lines().next().is_some_and(is_heading) {
        heading("DESCRIPTION", out);
    }
    let mut synopsis = text.starts_with("pegasus ");
    for line in text.lines().chain([""]) {
        if !line.is_empty() && !is_heading(line) {
            block.push(line);
            continue;
        }
        if synopsis && !block.is_empty() {
            write_block(&Block::Literal(std::mem::take(&mut block)), true, out);
            // A page without a heading of its own goes on with what it describes.
            heading("DESCRIPTION", out);
            (synopsis, fresh) = (false, true);
        }
        for part in blocks(&std::mem::take(&mut block)) {
            write_block(&part, fresh, out);
            fresh = false;
        }
        if is_heading(line) {
            heading(line, out);
            fresh = true;
        }
    }
}

/// Capitals only, as `HOW MANY TICKETS`; perhaps with a remark, as `STOP: kill PID`.
fn is_heading(line: &str) -> bool {
    let words = line.split(':').next().unwrap_or("");
    let capitals = words.chars().filter(char::is_ascii_uppercase).count();
    let whole = !line.chars().any(|c| c.is_ascii_lowercase());
    let marked = line.contains(':') && !words.contains(|c: char| !c.is_ascii_uppercase());
    !line.starts_with(' ') && capitals > 1 && (whole || (marked && words != "PEGASUS"))
}

fn heading(line: &str, out: &mut String) {
    out.push_str(&format!(".SH \"{}\"\n", escaped(line).replace('"', "\\(dq")));
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Takes a block apart: a list, else text and what is indented in turns.
fn blocks<'a>(lines: &[&'a str]) -> Vec<Block<'a>> {
    if let Some(list) = list(lines) {
        return vec![Block::List(list)];
    }
    let is_table = |line: &&str| indent(line) == 0 && line.contains("   ");
    if lines.iter().any(is_table) {
        return vec![Block::Literal(lines.to_vec())];
    }
    lines
        .chunk_by(|one, next| (indent(one) == 0) == (indent(next) == 0))
        .map(|part| match list(part) {
            _ if indent(part[0]) == 0 => Block::Text(part.to_vec()),
            Some(list) => Block::List(list),
            None => Block::Literal(part.to_vec()),
        })
        .collect()
}

/// Words with their explanations, all in one column; what goes on stands in that column.
fn list<'a>(lines: &[&'a str]) -> Option<Vec<(&'a str, Vec<&'a str>)>> {
    let base = indent(lines.first()?);
    let mut items: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut column = None;
    for line in lines {
        if indent(line) > base {
            let (_, text) = items.last_mut()?;
            (Some(indent(line)) == column).then(|| text.push(line.trim_start()))?;
            continue;
        }
        let (word, rest) = line[base..].split_once("  ")?;
        let text = rest.trim_start();
        let at = line.len() - text.len();
        // A third column makes it a table.
        if indent(line) < base || text.contains("   ") || *column.get_or_insert(at) != at {
            return None;
        }
        items.push((word, vec![text]));
    }
    Some(items)
}

fn write_block(block: &Block, fresh: bool, out: &mut String) {
    match block {
        Block::Text(lines) => {
            if !fresh {
                out.push_str(".PP\n");
            }
            push_text(lines, out);
        }
        Block::List(items) => {
            for (word, text) in items {
                out.push_str(&format!(".TP\n\\fB{}\\fR\n", escaped(word)));
                push_text(text, out);
            }
        }
        Block::Literal(lines) => {
            if !fresh {
                out.push_str(".PP\n");
            }
            out.push_str(".nf\n");
            lines.iter().for_each(|line| push_line(line, out));
            out.push_str(".fi\n");
        }
    }
}

/// The keys by section, each with its default.
fn write_keys(out: &mut String) {
    heading("DESCRIPTION", out);
    push_text(&keys::INTRODUCTION.lines().collect::<Vec<_>>(), out);
    for section in keys::SECTIONS {
        heading(&section.title.to_uppercase(), out);
        for key in section.keys {
            let default = if key.default.is_empty() { "(unset)" } else { key.default };
            out.push_str(&format!(".TP\n\\fB{}\\fR={}\n", escaped(key.name), escaped(default)));
            push_line(key.summary, out);
        }
    }
}

/// Text whose lines are filled: they are made anew, since markup makes some too long.
fn push_text(lines: &[&str], out: &mut String) {
    let mut line = String::new();
    for word in lines.iter().flat_map(|line| line.split_whitespace()) {
        if escaped(&line).len() + escaped(word).len() >= COLUMNS {
            push_line(&std::mem::take(&mut line), out);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    push_line(&line, out);
}

/// A line of text: one that begins as a macro is none.
fn push_line(line: &str, out: &mut String) {
    if line.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    out.push_str(&escaped(line));
    out.push('\n');
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '`' => out.push_str("\\(ga"),
            '\'' => out.push_str("\\(aq"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            c if c.is_ascii() => out.push(c),
            c => out.push_str(&format!("\\[u{:04X}]", u32::from(c))),
        }
    }
    out
}

/// The day of a moment: civil from days, after H. Hinnant.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_704_067_199, "2023-12-31"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(seconds), day);
        }
    }

    fn made(text: &str) -> String {
        let mut out = String::new();
        write_text(text, &mut out);
        out
    }

    #[test]
    fn headings_lists_tables_and_examples_are_told_apart() {
        let text = "pegasus x [-t]\n\nReads\nall of it.\n\nHOW IT ENDS\nSo:\n  --one   first\n\
                    \x20         and more\n  --two   second\n  pegasus x -v\n\nhosts    5/6   \
                    7/8\n";
        assert_eq!(
            made(text),
            ".SH \"SYNOPSIS\"\n.nf\npegasus x [\\-t]\n.fi\n.SH \"DESCRIPTION\"\nReads all of it.\n\
             .SH \"HOW IT ENDS\"\nSo:\n.PP\n.nf\n  \\-\\-one   first\n          and more\n\
             \x20 \\-\\-two   second\n  pegasus x \\-v\n.fi\n.PP\n.nf\nhosts    5/6   7/8\n.fi\n"
        );
        let list = "A\n\n  a   one\n      two\n  bb  three\n";
        assert!(made(list).ends_with(".TP\n\\fBa\\fR\none two\n.TP\n\\fBbb\\fR\nthree\n"));
        assert!(!is_heading("GET and HEAD are answered") && !is_heading("PEGASUS: competitive"));
        assert!(is_heading("STOP: kill PID") && is_heading("IN FIGURES"));
    }

    #[test]
    fn nothing_in_a_text_is_taken_for_markup() {
        assert_eq!(
            made("a   b\n.b\n'c\\d…\n"),
            ".SH \"DESCRIPTION\"\n.nf\na   b\n\\&.b\n\\&\\(aqc\\ed\\[u2026]\n.fi\n"
        );
    }
}
