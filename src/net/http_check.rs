//! Checks that ask a service over HTTP.
//!
//! Owns the request and the judgement of what comes back. Knows no socket: who checks
//! brings the bytes.

use std::fmt::Display;

/// Bytes of an answer that are looked at: a status line fits.
pub const ANSWER_BYTES_MAX: usize = 256;

/// The bytes that ask for `path` at `to`.
pub fn request(to: impl Display, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: pegasus-monitor\r\nConnection: \
         close\r\n\r\n"
    )
    .into_bytes()
}

/// Whether the path can stand in a request.
pub fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|c| c.is_ascii_graphic())
}

/// Judges what has arrived so far; `ended`: no more will come. Returns nothing while
/// the status line is incomplete. Any 2xx or 3xx is healthy.
pub fn judge(answer: &[u8], ended: bool) -> Option<Result<(), String>> {
    let line = match answer.iter().position(|byte| *byte == b'\n') {
        Some(end) => &answer[..end],
        None if ended || answer.len() >= ANSWER_BYTES_MAX => answer,
        None => return None,
    };
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_end().split(' ');
    let version = words.next().unwrap_or("");
    let code =
        words.next().filter(|word| word.len() == 3).and_then(|word| word.parse::<u16>().ok());
    Some(match code.filter(|_| version.starts_with("HTTP/1.")) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("HTTP status {code}")),
        None if line.is_empty() => Err("no answer to HTTP".into()),
        None => Err("the answer is not HTTP/1".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_2xx_or_3xx_is_healthy_as_soon_as_its_line_is_there() {
        let judged = |text: &str| judge(text.as_bytes(), false);
        assert_eq!(judged("HTTP/1.1 200 OK"), None, "the line may go on");
        assert_eq!(judged("HTTP/1.1 200 OK\r\n"), Some(Ok(())));
        assert_eq!(judged("HTTP/1.0 302\n"), Some(Ok(())));
        for (text, why) in [
            ("HTTP/1.1 503 Service Unavailable\r\n", "HTTP status 503"),
            ("HTTP/1.1 2000 x\r\n", "the answer is not HTTP/1"),
            ("SSH-2.0-OpenSSH\r\n", "the answer is not HTTP/1"),
        ] {
            assert_eq!(judged(text), Some(Err(why.to_string())), "{text}");
        }
        assert_eq!(judge(b"", true), Some(Err("no answer to HTTP".into())));
        assert_eq!(judge(b"HTTP/1.1 204", true), Some(Ok(())));
        assert!(judge(&[b'x'; ANSWER_BYTES_MAX], false).unwrap().is_err(), "bounded");
    }

    #[test]
    fn a_path_has_no_blanks() {
        assert!(is_path("/health?x=1"));
        assert!(!is_path("health") && !is_path("/a b") && !is_path("/\r\nX: y") && !is_path("/ä"));
    }
}
