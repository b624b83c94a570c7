//! Text of others for a terminal or a log: printable ASCII and nothing else.

/// The text with a question mark for every character that is not printable ASCII: what
/// another host sent must not move a cursor, change a title or break a line.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_printable_ascii_is_left() {
        assert_eq!(printable("ok ~a=\"b\"\u{1b}[2J\r\n\u{9b}é\0\u{7f}"), "ok ~a=\"b\"?[2J??????");
        assert_eq!(printable(""), "");
    }
}
