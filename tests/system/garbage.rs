//! A queue that receives garbage: it replies, bounds what it keeps, and serves others
//! meanwhile.

use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::Queue;
use crate::support::random::Random;
use crate::support::{until, PATIENCE};
use std::thread;
use std::time::{Duration, Instant};

/// Most memory of a queue in a debug build, in KiB.
const MEMORY_MAX: u64 = 64 * 1024;
/// Bad lines in a row end a connection: after two comes a good one.
const BAD_IN_ROW: usize = 2;
const LINES: usize = 10_000;
const BATCH: usize = 30;

/// The words that a reply may begin with, besides an address.
fn is_answer(line: &str) -> bool {
    let word = line.split(' ').next().unwrap_or("");
    let address = word.starts_with(|c: char| c.is_ascii_digit() || c == '[' || c == ':');
    address || matches!(word, "ok" | "error" | "queue" | "service" | "provider" | ".")
}

fn random_line(random: &mut Random) -> Vec<u8> {
    let mut line = match random.below(4) {
        0 => {
            let length = 1 + random.below(200) as usize;
            random.bytes(length)
        }
        1 => {
            let length = 1 + random.below(100) as usize;
            (0..length).map(|_| b' ' + (random.below(95) as u8)).collect()
        }
        2 => plausible(random).into_bytes(),
        _ => {
            let mut line = plausible(random).into_bytes();
            for _ in 0..1 + random.below(3) {
                let place = random.below(line.len() as u64) as usize;
                match random.below(3) {
                    0 => line[place] = random.next() as u8,
                    1 => line.truncate(place.max(1)),
                    _ => line.insert(place, random.next() as u8),
                }
            }
            line
        }
    };
    line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b'?');
    line.truncate(1000);
    line
}

fn plausible(random: &mut Random) -> String {
    let mut text = String::from(random.pick(&[
        "pegasus://b/",
        "PEGASUS://[::1]:9/",
        "pegasus://",
        "http://b/",
    ]));
    text +=
        random.pick(&["ticket", "next", "failure", "done", "withdraw", "status", "", "..", "%00"]);
    for number in 0..random.below(5) {
        text += if number == 0 { "?" } else { "&" };
        text += random.pick(&[
            "provider", "tickets", "capacity", "service", "lease", "wait", "id", "client", "avoid",
        ]);
        text += "=";
        text += random.pick(&[
            "10.0.0.7",
            "10.0.0.7:80",
            "[::1]:80",
            ":80",
            "0",
            "1",
            "7",
            "1000000",
            "4294967295",
            "99999999999999999999",
            "-1",
            "web",
            "a-b",
            "A",
            "50ms",
            "1h",
            "%",
            "%zz",
            "%31",
            "10.0.0.1,10.0.0.2",
            "",
        ]);
    }
    text
}

#[test]
fn ten_thousand_random_lines_get_an_answer_each() {
    let mut random = Random::told();
    let queue = Queue::start(&["queue_wait_max=10ms"]);
    let before = queue.descriptors();
    for _ in 0..LINES / BATCH {
        let mut line = queue.connect();
        let mut text = Vec::new();
        let mut lines = 0;
        while lines < BATCH {
            for _ in 0..BAD_IN_ROW {
                text.extend(random_line(&mut random));
                text.push(b'\n');
            }
            text.extend(b"pegasus://b/done?id=9\n");
            lines += BAD_IN_ROW + 1;
        }
        line.write(&text).unwrap();
        line.end();
        assert_eq!(answers(&mut line), lines, "{}", String::from_utf8_lossy(&text));
    }
    assert!(queue.ask("ticket?service=last&tickets=1&capacity=1").starts_with("ok "));
    assert_eq!(queue.ask("next?service=last"), "127.0.0.1");
    until("all descriptors are closed", || queue.descriptors() == before);
    assert!(queue.memory() < MEMORY_MAX, "{} KiB", queue.memory());
}

/// Counts the replies until the connection ends; those of `status` are many lines.
fn answers(line: &mut ControlConnection) -> usize {
    let mut count = 0;
    let mut within_status = false;
    loop {
        let text = line.hear();
        if text.is_empty() {
            return count;
        }
        assert!(is_answer(&text), "{text}");
        within_status = text != "." && (within_status || text.starts_with("queue "));
        count += usize::from(!within_status);
    }
}

#[test]
fn a_mebibyte_without_an_end_gets_too_long_and_the_end() {
    let queue = Queue::start(&[]);
    for _ in 0..8 {
        let mut line = queue.connect();
        line.write(&vec![b'x'; 1 << 20]).unwrap();
        assert!(line.hear().starts_with("error too-long"));
        assert_eq!(line.hear(), "");
    }
    assert!(queue.memory() < MEMORY_MAX, "{} KiB", queue.memory());
}

#[test]
fn who_types_slowly_is_answered_and_stops_nobody() {
    let queue = Queue::start(&[]);
    queue.ask("ticket?provider=10.0.0.7&tickets=100&capacity=100");
    let mut slow = queue.connect();
    let mut quick = queue.connect();
    for byte in b"pegasus://b/next?service=default" {
        slow.write(&[*byte]).unwrap();
        assert_eq!(quick.ask("next"), "10.0.0.7");
        thread::sleep(Duration::from_millis(10));
    }
    slow.write(b"\n").unwrap();
    assert_eq!(slow.hear(), "10.0.0.7");
}

#[test]
fn who_never_reads_stops_nobody_and_fills_nothing() {
    let queue = Queue::start(&[]);
    for number in 0..200 {
        queue.ask(&format!("ticket?provider=10.0.0.{number}&tickets=1&capacity=1"));
    }
    // Each reply would have some 30 KB.
    let deaf: Vec<_> = (0..20)
        .map(|_| {
            let mut line = queue.connect();
            thread::spawn(move || {
                let start = Instant::now();
                let text = "pegasus://b/status\n".repeat(2000);
                let _ = line.write(text.as_bytes());
                (line, start.elapsed())
            })
        })
        .collect();
    let mut quick = queue.connect();
    for _ in 0..100 {
        assert_eq!(quick.ask("done?id=1").split(' ').nth(1), Some("bad-parameter"));
    }
    assert!(queue.memory() < MEMORY_MAX, "{} KiB", queue.memory());
    for deaf in deaf {
        let (line, took) = deaf.join().unwrap();
        assert!(took < PATIENCE);
        drop(line);
    }
    until("all are gone", || queue.status().queue().number("connections") <= 2);
}
