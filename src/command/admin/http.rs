//! As much HTTP as an admin address speaks: one GET or HEAD a connection.
//!
//! Owns the reading of a request and the head of an answer. Knows no socket.

/// Bytes of a request's head at the most.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A request, as far as it matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Without what follows a question mark.
    pub path: String,
    /// The answer has no body.
    pub head_only: bool,
}

/// An error answer: status, and a sentence for people.
pub type Refusal = (&'static str, &'static str);

/// Reads what has arrived so far: a request, nothing yet, or the refusal of it.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, Refusal> {
    let Some(length) = head_length(bytes) else {
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(("431 Request Header Fields Too Large", "the head is longer than 8 KiB"));
        }
        return Ok(None);
    };
    let bad = ("400 Bad Request", "not a request of HTTP/1.1");
    let head = std::str::from_utf8(&bytes[..length]).map_err(|_| bad)?;
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or("").split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad);
    };
    match version {
        "HTTP/1.1" => {
            let names_host = |line: &str| {
                line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("host"))
            };
            if lines.filter(|line| names_host(line)).count() != 1 {
                return Err(("400 Bad Request", "one Host header is needed"));
            }
        }
        "HTTP/1.0" => {}
        _ if version.starts_with("HTTP/") => {
            return Err(("505 HTTP Version Not Supported", "HTTP/1.1 is spoken here"))
        }
        _ => return Err(bad),
    }
    if !["GET", "HEAD"].contains(&method) {
        return Err(("405 Method Not Allowed", "GET and HEAD are the only methods here"));
    }
    // A target with scheme and host is what a proxy is asked; every server takes it.
    let local = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    if !local.starts_with('/') || local.bytes().any(|c| !c.is_ascii_graphic()) {
        return Err(bad);
    }
    let path = local.split(['?', '#']).next().unwrap_or("/").to_string();
    Ok(Some(Request { path, head_only: method == "HEAD" }))
}

/// How long the head is, with the empty line at its end, if that has arrived. A line
/// may end without CR.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let bytes = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let mut line_start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' {
            let line = &bytes[line_start..at];
            if line.is_empty() || line == b"\r" {
                return Some(at + 1);
            }
            line_start = at + 1;
        }
    }
    None
}

/// The head of an answer with a body of this length.
pub fn head(status: &str, content_type: &str, length: usize) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{allow}\
         Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> &'static str {
        parse(text.as_bytes()).expect_err(text).0.split(' ').next().unwrap()
    }

    #[test]
    fn a_request_is_read_when_its_head_is_whole() {
        let text = "GET /metrics?x=1 HTTP/1.1\r\nUser-Agent: x\r\nhost: b\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..length]), Ok(None), "{length}");
        }
        let expected = Request { path: "/metrics".into(), head_only: false };
        assert_eq!(parse(text.as_bytes()), Ok(Some(expected.clone())));
        assert_eq!(parse(b"GET http://b:1/metrics HTTP/1.0\n\n"), Ok(Some(expected)));
        let head = parse(b"HEAD / HTTP/1.1\r\nHost: b\r\n\r\nGET /next").unwrap().unwrap();
        assert!(head.head_only && head.path == "/");
    }

    #[test]
    fn what_is_no_request_has_its_status() {
        assert_eq!(status("POST / HTTP/1.1\r\nHost: b\r\n\r\n"), "405");
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "400");
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), "400");
        assert_eq!(status("PRI * HTTP/2.0\r\n\r\n"), "505");
        assert_eq!(status("GET /\r\n\r\n"), "400");
        assert_eq!(status("GET  / HTTP/1.1\r\nHost: b\r\n\r\n"), "400");
        assert_eq!(status("GET \u{7f}/ HTTP/1.0\r\n\r\n"), "400");
        assert_eq!(status("\r\n\r\n"), "400");
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(HEAD_BYTES_MAX))), "431");
        assert!(parse(&[0xff; 100]).unwrap().is_none());
    }
}
