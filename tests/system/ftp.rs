//! FTP: a session is a control connection and, for each file, another connection to a
//! port that only the server of this session knows. All must reach the same server, which
//! is what affinity is for.

use crate::support::pegasus::{command, monitor_of, Queue, Redirect};
use crate::support::process::{run, Process};
use crate::support::random::Random;
use crate::support::vsftpd::Vsftpd;
use crate::support::{free_port, free_ports, tool, until, Directory};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::{fs, thread};

const NAMES: [&str; 3] = ["alpha", "bravo", "carol"];
/// Passive ports: more than there are transfers at once.
const PASSIVE: u16 = 40;
const DATA_BYTES: usize = 300_000;
const CLIENTS: u8 = 10;
const SESSIONS: usize = 10;

/// Three servers with the same ports at different addresses, and a redirector with these
/// ports at one address.
struct Ftp {
    queue: Queue,
    redirect: Redirect,
    servers: Vec<Vsftpd>,
    control: u16,
    data: Vec<u8>,
}

impl Ftp {
    #[track_caller]
    fn start(settings: &[&str]) -> Ftp {
        let control = free_port();
        let passive = free_ports(PASSIVE);
        let data = Random::told().bytes(DATA_BYTES);
        let server = |(name, last)| {
            Vsftpd::start(name, Ipv4Addr::new(127, 0, 0, last), control, &passive, &data)
        };
        let servers: Vec<Vsftpd> = NAMES.into_iter().zip(2..).map(server).collect();
        let own = settings.iter().copied().filter(|setting| setting.starts_with("service_"));
        let queue = Queue::start(&own.collect::<Vec<_>>());
        let at = format!("redirect_queue={}", queue.address);
        let listen = format!(
            "service_ftp_listen=127.0.0.1:{control} 127.0.0.1:{}-{}",
            passive.start,
            passive.end - 1
        );
        let settings: Vec<&str> =
            settings.iter().copied().chain([at.as_str(), listen.as_str()]).collect();
        let redirect = Redirect::of(&mut command("redirect", &settings));
        Ftp { queue, redirect, servers, control, data }
    }

    /// A session of a client with this address that fetches both files: returns the name
    /// of the server, or what went wrong.
    fn session(&self, client: Ipv4Addr, options: &[&str]) -> Result<String, String> {
        let directory = Directory::new();
        let file = directory.file("data");
        let root = format!("ftp://127.0.0.1:{}", self.control);
        let mut curl = tool("curl");
        curl.args(["-sS", "--fail-early", "--max-time", "25", "--interface", &client.to_string()])
            .args(options);
        curl.args(["-o", &file, &format!("{root}/data"), "-o", "-", &format!("{root}/name")]);
        let (status, name, err) = run(&mut curl, b"");
        if status != 0 {
            return Err(format!("{client}: curl ended with {status}: {err}"));
        }
        assert!(fs::read(&file).unwrap() == self.data, "{client}: other bytes than the server has");
        Ok(name.trim_end().to_string())
    }
}

fn client(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

#[test]
fn a_hundred_sessions_of_ten_clients_stay_whole() {
    let mut ftp = Ftp::start(&["service_ftp_affinity=source"]);
    // Without a port: connections go to the port that the client used.
    let check = format!("service_ftp_check=tcp:{}", ftp.control);
    // Enough tickets on a busy machine: a full server would send its clients to another
    // one.
    let settings = [check.as_str(), "monitor_load=exec:echo c=25", "monitor_interval=4s"];
    let monitors =
        ftp.servers.iter().map(|server| monitor_of("ftp", ftp.queue.address, server.ip, &settings));
    let _monitors: Vec<Process> = monitors.collect();
    let offered = |ftp: &Ftp| {
        let status = ftp.queue.status();
        ftp.servers.iter().filter(|server| status.tickets(server.ip) > 0).count()
    };
    until("all three have offered", || offered(&ftp) == 3);

    let met = |number| {
        let session = |turn| {
            // Half of them open the data connection in the old way.
            let way: &[&str] = if turn % 2 == 0 { &[] } else { &["--disable-epsv"] };
            ftp.session(client(number), way).unwrap_or_else(|error| panic!("{error}"))
        };
        (0..SESSIONS).map(session).collect::<Vec<String>>()
    };
    let all: BTreeMap<u8, Vec<String>> = thread::scope(|scope| {
        let clients: Vec<_> =
            (1..=CLIENTS).map(|number| (number, scope.spawn(move || met(number)))).collect();
        clients.into_iter().map(|(number, client)| (number, client.join().unwrap())).collect()
    });
    for (number, met) in &all {
        assert!(
            met.iter().all(|name| *name == met[0]),
            "client {number} keeps its server: {met:?}"
        );
    }
    for name in NAMES {
        assert!(all.values().any(|met| met[0] == name), "all three are used: {all:?}");
    }
    assert_eq!(
        ftp.redirect.log_with(&["failure service="]),
        Vec::<String>::new(),
        "every connection reached the right server"
    );

    // Clients of a server that died move, control and data together.
    let lost = all[&1][0].clone();
    let server = ftp.servers.iter_mut().find(|server| server.name == lost).unwrap();
    server.kill();
    let dead = server.ip;
    for number in 1..=CLIENTS {
        let name = ftp.session(client(number), &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(name, lost);
        assert!(all[&number][0] == lost || all[&number][0] == name, "only who has to moves");
    }
    until("its tickets are gone", || ftp.queue.status().tickets(dead) == 0);
}

#[test]
fn without_affinity_sessions_break() {
    // One try: with more tries the right server may be found, at the cost of the others,
    // which then count as dead.
    let ftp = Ftp::start(&["redirect_tries=1"]);
    for server in &ftp.servers {
        let answer = ftp.queue.ask(&format!(
            "ticket?provider={}&service=ftp&tickets=100&capacity=100&lease=10m",
            server.ip
        ));
        assert!(answer.starts_with("ok "), "{answer}");
    }
    let broken = (1..=10).find_map(|number| ftp.session(client(number), &[]).err());
    assert!(broken.is_some(), "without affinity connections go to the server with most room");
}
