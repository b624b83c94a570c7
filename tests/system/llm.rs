//! The recipe in `conf/llm`: machines with a language model, one request at a time each.

use crate::support::http::get;
use crate::support::pegasus::{program, Redirect};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::{free_port, until};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const MACHINES: usize = 3;
const CLIENTS: usize = 20;
const REQUESTS: usize = 5;

/// The program with a sample, and what a test must replace in it.
fn command(name: &str, sample: &str, settings: &[String]) -> Command {
    let mut command = program();
    let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/llm");
    command.args([name, "-c", &format!("{conf}/{sample}")]);
    settings.iter().for_each(|setting| {
        command.args(["-o", setting]);
    });
    command
}

/// What a server has seen.
#[derive(Default)]
struct Seen {
    at_once: AtomicUsize,
    most: AtomicUsize,
    paths: Mutex<Vec<String>>,
}

/// A model server with one slot, as far as a client can tell. Health is asked at any time.
fn model(seen: Arc<Seen>) -> Provider {
    Provider::start(move |mut stream: TcpStream| {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        let path = first.split(' ').nth(1).unwrap_or("").to_string();
        // The head ends; what only connects says nothing.
        if lines.find(String::is_empty).is_none() {
            return;
        }
        if path != "/health" {
            let now = seen.at_once.fetch_add(1, SeqCst) + 1;
            seen.most.fetch_max(now, SeqCst);
            thread::sleep(Duration::from_millis(20));
            seen.paths.lock().unwrap().push(path.clone());
            seen.at_once.fetch_sub(1, SeqCst);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", path.len());
        let _ = stream.write_all(format!("{head}{path}").as_bytes());
    })
}

#[test]
fn machines_with_one_slot_serve_twenty_clients_of_two_balancers() {
    let ports: [u16; 2] = [free_port(), free_port()];
    let queues = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let balancers = queues.map(|queue| {
        let settings =
            [format!("queue_listen={queue}"), "service_llm_listen=127.0.0.1:0".to_string()];
        Redirect::of(&mut command("redirect", "balancer.conf", &settings))
    });
    let seen: Vec<Arc<Seen>> = (0..MACHINES).map(|_| Arc::default()).collect();
    let models: Vec<Provider> = seen.iter().map(|seen| model(seen.clone())).collect();
    let names = queues.map(|queue| queue.to_string()).join(" ");
    let _monitors: Vec<Process> = models
        .iter()
        .map(|model| {
            let settings = [
                format!("monitor_balancers={names}"),
                format!("service_llm_provider={}", model.address),
            ];
            let mut process =
                Process::start("monitor", &mut command("monitor", "machine.conf", &settings));
            process.says(&["[monitor] ready "]);
            process
        })
        .collect();
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (balancers, answers) = (&balancers, &answers);
            scope.spawn(move || {
                for request in 0..REQUESTS {
                    let path = format!("/v1/completions/{client}-{request}");
                    let visit = get(balancers[(client + request) % 2].address, &path);
                    let answer = visit.and_then(|visit| visit.body);
                    answers.lock().unwrap().push((path, answer));
                }
            });
        }
    });
    for (path, answer) in answers.into_inner().unwrap() {
        assert_eq!(answer.unwrap_or_else(|why| panic!("{path}: {why}")), path);
    }
    until("all have ended", || seen.iter().all(|seen| seen.at_once.load(SeqCst) == 0));
    let came: Vec<String> =
        seen.iter().flat_map(|seen| seen.paths.lock().unwrap().clone()).collect();
    let distinct: HashSet<&String> = came.iter().collect();
    assert_eq!((came.len(), distinct.len()), (CLIENTS * REQUESTS, CLIENTS * REQUESTS));
    for seen in &seen {
        assert_eq!(seen.most.load(SeqCst), 1, "requests at once on a machine");
        assert!(!seen.paths.lock().unwrap().is_empty(), "a machine had nothing to do");
    }
}
