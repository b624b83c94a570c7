//! What of a request its redirect needs, and the answers.
//!
//! Owns the bounds of a head, and the form of answers. `httparse` reads the head. Knows no
//! socket.

use std::net::SocketAddr;

/// The longest head, in bytes.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Lines of a head.
const HEADERS_MAX: usize = 100;

/// A request, as far as it matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Path and query, as they came.
    pub target: String,
    /// The answer has no body (HEAD).
    pub head_only: bool,
}

/// Why a request is not redirected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    BadRequest,
    Timeout,
    TooLong,
    /// There is no provider now.
    NoProvider,
}

impl Refusal {
    const fn status(self) -> &'static str {
        match self {
            Refusal::BadRequest => "400 Bad Request",
            Refusal::Timeout => "408 Request Timeout",
            Refusal::TooLong => "431 Request Header Fields Too Large",
            Refusal::NoProvider => "503 Service Unavailable",
        }
    }

    /// The whole answer. The connection ends with it.
    pub fn answer(self, head_only: bool) -> Vec<u8> {
        let status = self.status();
        let retry = if self == Refusal::NoProvider { "Retry-After: 1\r\n" } else { "" };
        let body = if head_only { String::new() } else { format!("{}\n", &status[4..]) };
        let length = status.len() - 3;
        let text = format!(
            "HTTP/1.1 {status}\r\n{retry}Content-Type: text/plain\r\n\
             Content-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
        );
        text.into_bytes()
    }
}

/// Reads the head of a request; none while it is not whole.
///
/// # Errors
/// It is none, or longer than allowed.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::TooLong)
        }
        Err(_) => return Err(Refusal::BadRequest),
    }
    // RFC 9112, 3.2: exactly one since HTTP/1.1.
    let is_host = |header: &&httparse::Header| header.name.eq_ignore_ascii_case("host");
    let hosts = request.headers.iter().filter(is_host).count();
    if hosts > 1 || (hosts == 0 && request.version != Some(0)) {
        return Err(Refusal::BadRequest);
    }
    let target = request.path.and_then(origin_form).ok_or(Refusal::BadRequest)?;
    Ok(Some(Request { target, head_only: request.method == Some("HEAD") }))
}

/// Path and query of a target that is a path or a URL (RFC 9112, 3.2.1 and 3.2.2).
fn origin_form(target: &str) -> Option<String> {
    // What is no letter of a URL has no place in a header either.
    if !target.bytes().all(|c| c.is_ascii_graphic()) {
        return None;
    }
    if target.starts_with('/') {
        return Some(target.to_string());
    }
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    match path.as_bytes().first() {
        _ if host.is_empty() => None,
        Some(b'/') => Some(path.to_string()),
        _ => Some(format!("/{path}")),
    }
}

/// The answer that leads a client to a provider. The connection ends with it.
pub fn redirect(to: SocketAddr, request: &Request) -> Vec<u8> {
    let text = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{to}{}\r\n\
         Content-Length: 0\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        request.target
    );
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &str) -> Result<Option<Request>, Refusal> {
        parse(head.as_bytes())
    }

    fn target(target: &str) -> Option<String> {
        let parsed = of(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        parsed.ok().flatten().map(|request| request.target)
    }

    #[test]
    fn path_and_query_are_kept_as_they_came() {
        for (asked, kept) in [
            ("/", "/"),
            ("/a/b.html?x=1&y=%0d%0aZ:", "/a/b.html?x=1&y=%0d%0aZ:"),
            ("//other.example/x", "//other.example/x"),
            ("http://web.example:80/a?b", "/a?b"),
            ("HTTP://web.example", "/"),
            ("https://web.example?b", "/?b"),
        ] {
            assert_eq!(target(asked).as_deref(), Some(kept), "{asked}");
        }
        for bad in ["*", "web.example:443", "x", "ftp://web.example/", "http:///x", "http://?x"] {
            assert_eq!(target(bad), None, "{bad}");
        }
        for bad in ["/a\u{e4}", "/a\x7f", "/a\0", "/a\rb", "/a\nLocation: x"] {
            assert_eq!(target(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_head_is_whole_or_waited_for_or_refused() {
        let whole = "HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(of(whole), Ok(Some(Request { target: "/x".into(), head_only: true })));
        for length in 0..whole.len() {
            assert_eq!(of(&whole[..length]), Ok(None), "{length}");
        }
        assert!(of("GET / HTTP/1.0\r\n\r\n").unwrap().is_some(), "without a host");
        assert_eq!(of("GET / HTTP/1.1\r\n\r\n"), Err(Refusal::BadRequest));
        assert_eq!(of("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"), Err(Refusal::BadRequest));
        assert_eq!(of("GET / HTTP/2.0\r\n\r\n"), Err(Refusal::BadRequest));
        assert_eq!(of("\u{16}\u{3}\u{1}"), Err(Refusal::BadRequest));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(of(&many), Err(Refusal::TooLong));
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(of(&long), Err(Refusal::TooLong));
    }

    #[test]
    fn answers_are_whole() {
        let request = Request { target: "/a?b".into(), head_only: false };
        let to = "[2001:db8::1]:80".parse().unwrap();
        let text = String::from_utf8(redirect(to, &request)).unwrap();
        assert!(text.contains("\r\nLocation: http://[2001:db8::1]:80/a?b\r\n"), "{text}");
        let text = String::from_utf8(Refusal::NoProvider.answer(false)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nRetry-After: 1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
        let head_only = Refusal::NoProvider.answer(true);
        assert_eq!(String::from_utf8(head_only).unwrap(), format!("{head}\r\n\r\n"));
    }
}
