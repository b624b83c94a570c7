//! Checks that ask a service over HTTP.

use crate::support::pegasus::{command, monitor, Queue};
use crate::support::process::run;
use crate::support::provider::Provider;
use crate::support::until;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An HTTP server whose status can be changed; 0: it accepts and says nothing.
fn server(status: &Arc<AtomicU16>, paths: &Arc<Mutex<Vec<String>>>) -> Provider {
    let (status, paths) = (status.clone(), paths.clone());
    Provider::start(move |mut stream| {
        let mut buffer = [0; 1024];
        let Ok(count) = stream.read(&mut buffer) else { return };
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        paths.lock().unwrap().push(text.lines().next().unwrap_or("").to_string());
        match status.load(Ordering::SeqCst) {
            0 => std::thread::sleep(Duration::from_secs(20)),
            status => {
                // In two parts: a status line need not come at once.
                let _ = stream.write_all(format!("HTTP/1.1 {status}").as_bytes());
                let _ = stream.write_all(b" X\r\nContent-Length: 0\r\n\r\n");
            }
        }
    })
}

#[test]
fn a_service_that_answers_badly_or_not_at_all_gets_no_clients() {
    let (status, paths) = (Arc::new(AtomicU16::new(204)), Arc::default());
    let provider = server(&status, &paths);
    let queue = Queue::start(&[]);
    let settings = ["service_web_check=http:/health?deep=1", "service_web_check_rise=1"];
    let mut monitor = monitor(queue.address, provider.address, &settings);
    queue.has(&[provider.address]);
    assert_eq!(paths.lock().unwrap()[0], "GET /health?deep=1 HTTP/1.1");
    for (bad, why) in [(503, "HTTP status 503"), (0, "no answer in time")] {
        status.store(bad, Ordering::SeqCst);
        monitor.says(&["service web fails its check", why]);
        until("nothing is offered", || queue.status().tickets(provider.address) == 0);
        status.store(302, Ordering::SeqCst);
        until("it is offered again", || queue.status().tickets(provider.address) > 0);
    }
}

#[test]
fn a_single_look_asks_too_and_mistakes_are_named() {
    let (status, paths) = (Arc::new(AtomicU16::new(200)), Arc::default());
    let server = server(&status, &paths);
    let port = server.address.port();
    let look = |check: &str| {
        let settings = ["service_web_provider=127.0.0.1:1", check];
        run(command("monitor", &settings).arg("--once"), b"")
    };
    let check = format!("service_web_check=http:{port}/ok");
    let (_, out, errors) = look(&check);
    assert!(out.contains("check service=web well=yes"), "{out}{errors}");
    status.store(404, Ordering::SeqCst);
    let (_, out, _) = look(&check);
    assert!(out.contains("well=no why=\"HTTP status 404\""), "{out}");
    for (wrong, why) in [
        ("http:health", "not a port from 1 to 65535"),
        ("http:0/", "not a port from 1 to 65535"),
        ("http:80", "not a path (http:/PATH or http:PORT/PATH)"),
        ("http:/a b", "not a path"),
    ] {
        let (exit, _, errors) = look(&format!("service_web_check={wrong}"));
        assert!(exit == 78 && errors.contains(why), "{wrong}: {errors}");
    }
}
