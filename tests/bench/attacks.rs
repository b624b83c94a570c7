//! How long an honest asker waits for its answers while one peer does its worst.
//!
//! ```text
//! cargo test --release --test main bench_attacks -- --ignored --nocapture
//! ```
//! Owns the attacks: each runs against a queue of its own, for `PEGASUS_BENCH_SECONDS`
//! (default 3), and `PEGASUS_BENCH_ATTACKS` names those that run. The honest asker is of
//! another address. A tenth of a millisecond after each answer it asks for a provider, or
//! says that the request is done. The row `nobody` says what the machine adds.

use super::host::{chosen, describe, parameter};
use crate::support::control_connection::ControlConnection;
use crate::support::keyed::{framed, opening, Keys};
use crate::support::pegasus::{Queue, SERVICE};
use crate::support::random::Random;
use crate::support::socket::{connect_from, raise_descriptors};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The addresses that may ask and offer: the honest asker's, and that of an attacker.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const KNOWN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// The address of a stranger.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
/// How long an attacker waits for a socket before it looks whether the time is over.
const LOOK: Duration = Duration::from_millis(100);
/// Connections that an attacker of many keeps.
const HELD: usize = 200;
/// Between two requests of the honest asker.
const PAUSE: Duration = Duration::from_micros(100);

/// What an attack has to work with.
struct Site {
    queue: SocketAddrV4,
    over: AtomicBool,
    /// What it got through: lines that were answered, or connections.
    acts: AtomicU64,
    /// The secret of a key.
    secret: [u8; 32],
}

impl Site {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn acted(&self, count: usize) {
        self.acts.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn connect(&self, from: Ipv4Addr) -> TcpStream {
        let stream = connect_from(from, self.queue);
        stream.set_read_timeout(Some(LOOK)).unwrap();
        stream.set_write_timeout(Some(LOOK)).unwrap();
        stream
    }

    /// Sends these bytes again and again, and reads what comes.
    fn flood(&self, from: Ipv4Addr, bytes: &[u8]) {
        while !self.is_over() {
            let stream = self.connect(from);
            thread::scope(|scope| {
                scope.spawn(|| self.read(&stream));
                while self.write(&stream, bytes) {}
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
        }
    }

    fn read(&self, mut stream: &TcpStream) {
        let mut buffer = [0; 1 << 16];
        while !self.is_over() {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    self.acted(buffer[..count].iter().filter(|byte| **byte == b'\n').count());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Returns whether all was sent, and there is time for more.
    fn write(&self, mut stream: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.is_over() {
            match stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        !self.is_over()
    }

    /// Opens connections that send these bytes, and keeps the latest.
    fn crowd(&self, from: Ipv4Addr, bytes: impl Fn(u64) -> Vec<u8>) {
        let mut held = Vec::new();
        for number in 0.. {
            if self.is_over() {
                break;
            }
            let stream = self.connect(from);
            let _ = (&stream).write(&bytes(number));
            held.push(stream);
            self.acted(1);
            if held.len() > 2 * HELD {
                held.drain(..HELD);
            }
        }
    }
}

struct Attack {
    name: &'static str,
    what: &'static str,
    run: fn(&Site),
}

const ATTACKS: [Attack; 15] = [
    Attack {
        name: "nobody",
        what: "the machine alone",
        run: |site| {
            while !site.is_over() {
                thread::sleep(LOOK);
            }
        },
    },
    Attack {
        name: "strangers",
        what: "strangers hold connections, silent or within a line",
        run: |site| {
            site.crowd(STRANGER, |number| match number % 2 {
                0 => Vec::new(),
                _ => b"pegasus://b/ne".to_vec(),
            });
        },
    },
    Attack {
        name: "garbage",
        what: "a stranger sends 64 KiB of anything",
        run: |site| {
            let mut random = Random::new(7);
            let bytes: Vec<u8> = (0..1 << 16).map(|_| random.next() as u8).collect();
            site.crowd(STRANGER, |_| bytes.clone());
        },
    },
    Attack {
        name: "http",
        what: "a stranger sends HTTP requests",
        run: |site| {
            let request = "POST / HTTP/1.1\r\nHost: b\r\n\r\npegasus://b/withdraw\n".repeat(1000);
            site.crowd(STRANGER, |_| request.clone().into_bytes());
        },
    },
    Attack {
        name: "handshakes",
        what: "a stranger begins handshakes, and ends none",
        run: |site| {
            let (line, message, _) = opening("lb1", &site.secret);
            let bytes = [line.as_bytes(), b"\n", &framed(&message)].concat();
            site.crowd(STRANGER, |number| match number % 2 {
                0 => bytes.clone(),
                _ => bytes[..bytes.len() - 9].to_vec(),
            });
        },
    },
    Attack {
        name: "secrets",
        what: "a stranger tries wrong secrets",
        run: |site| {
            let (line, message, _) = opening("lb1", &[7; 32]);
            let bytes = [line.as_bytes(), b"\n", &framed(&message)].concat();
            site.crowd(STRANGER, |_| bytes.clone());
        },
    },
    Attack {
        name: "picky",
        what: "an asker pipelines 8,000 next that avoid 64 providers",
        run: |site| {
            let avoided: Vec<String> = (1..=64).map(|number| format!("10.0.0.{number}")).collect();
            let line = format!(
                "pegasus://b/next?service={SERVICE}&wait=1ms&avoid={}\n",
                avoided.join(",")
            );
            site.flood(KNOWN, line.repeat(8000).as_bytes());
        },
    },
    Attack {
        name: "plenty",
        what: "an asker pipelines next and done",
        run: |site| {
            let lines = format!("pegasus://b/next?service={SERVICE}&id=1\npegasus://b/done?id=1\n");
            site.flood(KNOWN, lines.repeat(8000).as_bytes());
        },
    },
    Attack {
        name: "unknown",
        what: "waits for unknown services that time out together",
        run: |site| site.flood(KNOWN, waits("s").as_bytes()),
    },
    Attack {
        name: "waits",
        what: "waits for a service without tickets that time out together",
        run: |site| site.flood(KNOWN, waits("").as_bytes()),
    },
    Attack {
        name: "leaver",
        what: "an asker leaves with 10,000 requests that wait or run",
        run: |site| {
            let lines: String = (1..=10_000)
                .map(|id| {
                    let service = ["empty", SERVICE][id % 2];
                    format!("pegasus://b/next?service={service}&wait=30s&id={id}\n")
                })
                .collect();
            while !site.is_over() {
                let mut stream = site.connect(KNOWN);
                site.write(&stream, lines.as_bytes());
                let _ = stream.read(&mut [0; 1 << 16]);
                site.acted(10_000);
            }
        },
    },
    Attack {
        name: "providers",
        what: "a provider offers 4,096 addresses, and all of them again",
        run: |site| {
            let lines: String = (0..4096)
                .map(|number| {
                    format!(
                        "pegasus://b/ticket?service={SERVICE}&provider=10.1.{}.{}:80&tickets=1\
                         &capacity={}&lease=1s\n",
                        number / 256,
                        number % 256,
                        1 + number % 3
                    )
                })
                .collect();
            site.flood(KNOWN, lines.as_bytes());
        },
    },
    Attack {
        name: "failures",
        what: "an asker reports a failure of all that it gets",
        run: |site| {
            let lines = format!(
                "pegasus://b/next?service={SERVICE}&id=1\n\
                 pegasus://b/failure?service={SERVICE}&provider=10.0.0.1&id=1\n\
                 pegasus://b/failure?service={SERVICE}&provider=10.0.0.2\n"
            );
            site.flood(KNOWN, lines.repeat(3000).as_bytes());
        },
    },
    Attack {
        name: "curious",
        what: "a peer asks for the status without end",
        run: |site| site.flood(KNOWN, "pegasus://b/status\n".repeat(1000).as_bytes()),
    },
    Attack {
        name: "deaf",
        what: "peers ask for the status and read nothing",
        run: |site| site.crowd(KNOWN, |_| "pegasus://b/status\n".repeat(1000).into_bytes()),
    },
];

/// Requests that wait for a second: for one service that has no tickets, or for services
/// whose names begin so.
fn waits(services: &str) -> String {
    let service = |number: usize| match services {
        "" => "empty".to_string(),
        name => format!("{name}{number}"),
    };
    let line = |number| {
        format!("pegasus://b/next?service={}&wait=1s&id={}\n", service(number), number + 1)
    };
    (0..20_000).map(line).collect()
}

fn queue(keys: &Keys) -> Queue {
    let list = format!("{HONEST} {KNOWN}");
    let mut settings: Vec<String> =
        ["ticket", "next", "status"].iter().map(|of| format!("queue_allow_{of}={list}")).collect();
    settings.push(keys.setting("keys"));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Queue::start(&settings)
}

fn connect(from: Ipv4Addr, queue: SocketAddrV4) -> ControlConnection {
    ControlConnection::over(connect_from(from, queue))
}

/// Asks until the time is over; returns how long each answer took.
fn honest(queue: SocketAddrV4, seconds: f64) -> (Vec<Duration>, usize) {
    let mut line = connect(HONEST, queue);
    let (start, mut took, mut refused) = (Instant::now(), Vec::new(), 0);
    for id in 1.. {
        if start.elapsed().as_secs_f64() > seconds {
            break;
        }
        for message in [format!("next?service={SERVICE}&id={id}"), format!("done?id={id}")] {
            let asked = Instant::now();
            let answer = line.ask(&message);
            took.push(asked.elapsed());
            refused += usize::from(answer.starts_with("error no-ticket"));
            thread::sleep(PAUSE);
        }
    }
    took.sort();
    (took, refused)
}

#[test]
#[ignore = "a bench"]
fn bench_attacks() {
    raise_descriptors();
    let seconds: f64 = parameter("PEGASUS_BENCH_SECONDS", 3.0);
    let names = chosen("PEGASUS_BENCH_ATTACKS", &ATTACKS.map(|attack| attack.name));
    let keys = Keys::of(&[&["balancer", "lb1"]]);
    println!("\n{}; ms until the honest asker has its answer", describe());
    println!(
        "{:<11}{:>9}{:>9}{:>9}{:>9}{:>9}{:>11}",
        "attack", "answers", "median", "p99", "max", "refused", "acts"
    );
    for attack in ATTACKS.iter().filter(|attack| names.contains(&attack.name)) {
        let queue = queue(&keys);
        let SocketAddr::V4(address) = queue.address else { unreachable!() };
        let mut provider = connect(HONEST, address);
        for number in 1..=64 {
            let offer = format!(
                "ticket?service={SERVICE}&provider=10.0.0.{number}&tickets=100&capacity=100\
                 &lease=10m"
            );
            assert!(provider.ask(&offer).starts_with("ok "));
        }
        assert!(provider.ask("ticket?service=empty&tickets=0&capacity=1").starts_with("ok "));
        let site = Site {
            queue: address,
            over: AtomicBool::new(false),
            acts: AtomicU64::new(0),
            secret: keys.secret("lb1"),
        };
        let (took, refused) = thread::scope(|scope| {
            scope.spawn(|| (attack.run)(&site));
            let told = honest(address, seconds);
            site.over.store(true, Ordering::Relaxed);
            told
        });
        let ms = |share: f64| {
            let place = (took.len() as f64 * share) as usize;
            took[place.min(took.len() - 1)].as_secs_f64() * 1e3
        };
        println!(
            "{:<11}{:>9}{:>9.2}{:>9.2}{:>9.2}{:>9}{:>11}  {}",
            attack.name,
            took.len(),
            ms(0.5),
            ms(0.99),
            ms(1.0),
            refused,
            site.acts.load(Ordering::Relaxed),
            attack.what
        );
    }
}
