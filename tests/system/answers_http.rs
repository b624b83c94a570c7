//! HTTP requests that are answered with a redirect to the provider.

use super::upgrade::Successors;
use crate::support::pegasus::{closed_address, Balancer, Queue, Redirect};
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::socket::connect;
use crate::support::{output, tool, until, Directory, PATIENCE};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

const ON: &str = "service_web_http=redirect";

/// Sends these bytes and returns all that comes back.
#[track_caller]
fn talk(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(to);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
fn get(to: SocketAddr, target: &str) -> String {
    talk(to, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

fn location(answer: &str) -> &str {
    let line = answer.lines().find_map(|line| line.strip_prefix("Location: "));
    line.unwrap_or_else(|| panic!("{answer}"))
}

/// A server that says what it was asked, as an HTTP answer.
fn mirror() -> Provider {
    Provider::start(|mut stream: TcpStream| {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..count]);
        let line = text.lines().next().unwrap_or_default().to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", line.len());
        let _ = stream.write_all(format!("{head}{line}").as_bytes());
    })
}

#[test]
fn a_client_goes_where_it_is_led_with_its_method_path_and_query() {
    let provider = mirror();
    let mut balancer = Balancer::before(&[provider.address], &[ON]);
    let url = format!("http://{}/a%20b/c?d=e&f=%0d%0aX:1", balancer.address());
    let asks = |arguments: &[&str]| output(tool("curl").args(["-sSL"]).args(arguments).arg(&url));
    assert_eq!(asks(&[]), "GET /a%20b/c?d=e&f=%0d%0aX:1 HTTP/1.1");
    assert_eq!(asks(&["-d", "body"]), "POST /a%20b/c?d=e&f=%0d%0aX:1 HTTP/1.1");
    assert_eq!(asks(&["-X", "DELETE"]), "DELETE /a%20b/c?d=e&f=%0d%0aX:1 HTTP/1.1");
    let head = output(tool("curl").args(["-sSI", &url]));
    assert!(head.starts_with("HTTP/1.1 307 Temporary Redirect\r\n"), "{head}");
    assert_eq!(location(&head), format!("http://{}/a%20b/c?d=e&f=%0d%0aX:1", provider.address));
    let status = balancer.queue.status();
    let row = status.provider(provider.address).unwrap();
    assert_eq!((row.number("spent"), row.number("active")), (4, 0), "one ticket an answer");
    let line = balancer.redirect.closed(&["outcome=complete", "sent="]);
    assert!(line.contains(&format!("provider={}", provider.address)), "{line}");
    // A body that is still on its way does not destroy the answer.
    let directory = Directory::new();
    let body = directory.write("body", &"x".repeat(1 << 20));
    let big = tool("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary"])
        .args([&format!("@{body}"), &url, "-H", "Expect:"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&big.stdout).starts_with("307"), "{big:?}");
}

#[test]
fn a_provider_is_written_as_an_address_with_its_port_or_the_clients() {
    let queue = Queue::start(&["queue_scheduler=fifo"]);
    let redirect = Redirect::start(queue.address, &[ON]);
    queue.offer("[2001:db8::1]:8080", 1);
    queue.offer("127.0.0.2", 1);
    let port = redirect.address.port();
    let answer = get(redirect.address, "http://x/y");
    assert_eq!(location(&answer), "http://[2001:db8::1]:8080/y");
    assert_eq!(location(&get(redirect.address, "/")), format!("http://127.0.0.2:{port}/"));
}

#[test]
fn without_a_provider_a_client_is_told_to_come_again() {
    let mut balancer = Balancer::before(&[closed_address()], &[ON, "redirect_wait=100ms"]);
    let address = balancer.address();
    assert!(get(address, "/").starts_with("HTTP/1.1 307 "), "nobody calls it");
    let row = balancer.queue.status().rows().to_vec();
    let provider = row.iter().find(|row| row.kind == "provider").unwrap().text("address");
    balancer.queue.ask(&format!("drain?service=web&provider={provider}"));
    let answer = get(address, "/");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    balancer.redirect.closed(&["outcome=no-ticket", "provider=-"]);
    balancer.queue.ask(&format!("resume?service=web&provider={provider}"));
    assert!(get(address, "/").starts_with("HTTP/1.1 307 "));
    let away = Redirect::start(closed_address(), &[ON, "redirect_queue_timeout=100ms"]);
    assert!(get(away.address, "/").starts_with("HTTP/1.1 503 "));
    let fallback = "service_web_fallback=127.0.0.9:81";
    let away = Redirect::start(closed_address(), &[ON, fallback]);
    assert_eq!(location(&get(away.address, "/x")), "http://127.0.0.9:81/x");
}

#[test]
fn what_is_no_request_is_told_so_and_what_is_slow_ends() {
    let balancer = Balancer::before(&[closed_address()], &[ON]);
    let address = balancer.address();
    for (status, request) in [
        ("400", &b"\x16\x03\x01\x02\x00\x01"[..]),
        ("400", b"GET / HTTP/1.1\r\n\r\n"),
        ("400", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("400", b"GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("400", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("400", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("307", b"GET / HTTP/1.0\r\n\r\n"),
        ("307", b"\r\nOPTIONS / HTTP/1.1\nHost: a\n\n"),
    ] {
        let answer = talk(address, request);
        let text = String::from_utf8_lossy(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{text:?}: {answer}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(20_000));
    assert!(talk(address, long.as_bytes()).starts_with("HTTP/1.1 431 "));
    let granted = balancer.queue.status().queue().number("granted");
    assert_eq!(granted, 2, "only requests cost a ticket");
    // Byte by byte, and never to an end.
    let mut slow = connect(address);
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    let mut silent = connect(address);
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut late, mut nothing) = (String::new(), String::new());
    slow.read_to_string(&mut late).unwrap();
    assert!(late.starts_with("HTTP/1.1 408 "), "{late}");
    let _ = silent.read_to_string(&mut nothing);
    assert_eq!(nothing, "");
}

#[test]
fn pieces_and_garbage_of_any_form_are_borne() {
    let balancer = Balancer::before(&[closed_address()], &[ON]);
    let address = balancer.address();
    let request = b"GET /x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
    let mut stream = connect(address);
    for byte in request {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
    let mut random = Random::told();
    for _ in 0..500 {
        let mut bytes = request.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        let mut stream = connect(address);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let lines = answer.matches("\r\nLocation: ").count();
        assert!(lines <= 1 && answer.matches("HTTP/1.1 ").count() <= 1, "{bytes:?}: {answer}");
    }
    until("all are gone", || balancer.redirect.open("socket:[") < 20);
    balancer.redirect.idles();
}

#[test]
fn thousands_are_led_evenly_and_an_upgrade_disturbs_none() {
    let queue = Queue::start(&["queue_scheduler=round-robin"]);
    let providers = [closed_address(), closed_address()];
    providers.iter().for_each(|provider| queue.offer(provider, 100_000));
    let redirect = Redirect::start(queue.address, &[ON, "redirect_threads=2"]);
    let mut successors = Successors::default();
    let mut counts = [0; 2];
    for number in 0..1000 {
        if number == 500 {
            successors.upgrade(&redirect);
        }
        let answer = get(redirect.address, "/");
        let to = location(&answer);
        let led = providers.iter().position(|provider| to == format!("http://{provider}/"));
        counts[led.unwrap()] += 1;
    }
    assert_eq!(counts, [500, 500]);
}
