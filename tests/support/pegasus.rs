//! The program itself, as a user starts it.

use super::control_connection::{ControlConnection, Status};
use super::process::{run, Process};
use super::{free_port, until, Directory};
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::LazyLock;

/// The service that most tests use.
pub const SERVICE: &str = "web";

/// The command for another build of the program, words separated by spaces, as `wine64
/// /place/pegasus.exe`. The tests then run that one.
const RUN: &str = "PEGASUS_RUN";

/// Returns the words of [`RUN`]; none if it is not set.
fn foreign() -> Vec<String> {
    std::env::var(RUN).unwrap_or_default().split_whitespace().map(str::to_string).collect()
}

/// Returns the program's file, for superservers and tools that start it.
#[track_caller]
pub fn path() -> &'static str {
    assert!(foreign().is_empty(), "only the native program can be started so, without {RUN}");
    env!("CARGO_BIN_EXE_pegasus")
}

/// Returns the program without arguments.
pub fn program() -> Command {
    let words = foreign();
    let Some((first, rest)) = words.split_first() else { return Command::new(path()) };
    let mut command = Command::new(first);
    command.args(rest);
    command
}

/// Whether the command starts a [foreign](RUN) program, which receives no signal but
/// Ctrl-C.
pub fn is_foreign(command: &Command) -> bool {
    foreign().first().is_some_and(|first| command.get_program() == first.as_str())
}

/// An empty configuration. Wine does not read devices.
fn nothing() -> &'static str {
    static EMPTY: LazyLock<String> = LazyLock::new(|| {
        let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/empty.conf");
        std::fs::write(path, "").unwrap();
        path.into()
    });
    if foreign().is_empty() {
        "/dev/null"
    } else {
        &EMPTY
    }
}

/// Returns the command with these settings and none of this host's.
pub fn command(name: &str, settings: &[&str]) -> Command {
    command_of(program(), name, settings)
}

/// The same of another program.
pub fn command_of(mut command: Command, name: &str, settings: &[&str]) -> Command {
    command.args([name, "-c", nothing()]);
    for setting in settings {
        command.args(["-o", setting]);
    }
    command
}

/// Runs it with these arguments until it ends.
#[track_caller]
pub fn pegasus(arguments: &[&str]) -> (i32, String, String) {
    run(program().args(arguments), b"")
}

/// Returns the path of a configuration with these lines, for `-c`.
pub fn configuration(directory: &Directory, settings: &[&str]) -> String {
    let lines: String = settings
        .iter()
        .map(|setting| {
            let (key, value) = setting.split_once('=').unwrap();
            format!("{key}=\"{value}\"\n")
        })
        .collect();
    directory.write("pegasus.conf", &lines)
}

/// The same for a redirector of this queue, which logs to the file `log` in the directory.
pub fn redirect_configuration(
    directory: &Directory,
    queue: SocketAddr,
    settings: &[&str],
) -> String {
    let own = [format!("redirect_queue={queue}"), format!("log={}", directory.file("log"))];
    let settings = settings.iter().copied().chain(own.iter().map(String::as_str));
    configuration(directory, &settings.collect::<Vec<_>>())
}

/// Waits until this part of a process is ready; returns the last address of that line. A
/// redirector with an embedded queue logs two such lines.
#[track_caller]
fn ready(process: &mut Process, part: &str) -> SocketAddr {
    let line = process.says(&[&format!("[{part}] ready ")]);
    let place = line.split_whitespace().last().unwrap();
    let place = place.rsplit('=').next().unwrap().trim_end_matches("/udp");
    place.parse().unwrap_or_else(|_| panic!("no address: {line}"))
}

/// A queue that listens.
pub struct Queue {
    process: Process,
    pub address: SocketAddr,
}

impl Queue {
    #[track_caller]
    pub fn start(settings: &[&str]) -> Queue {
        Queue::listening("127.0.0.1:0", settings)
    }

    /// A queue that can be started again at the same address.
    #[track_caller]
    pub fn at(port: u16, settings: &[&str]) -> Queue {
        Queue::listening(&format!("127.0.0.1:{port}"), settings)
    }

    #[track_caller]
    pub fn listening(place: &str, settings: &[&str]) -> Queue {
        let listen = format!("queue_listen={place}");
        let settings: Vec<&str> = settings.iter().copied().chain([listen.as_str()]).collect();
        Queue::of(&mut command("queue", &settings))
    }

    #[track_caller]
    pub fn of(command: &mut Command) -> Queue {
        let mut process = Process::start("queue", command);
        let address = ready(&mut process, "queue");
        Queue { process, address }
    }

    #[track_caller]
    pub fn connect(&self) -> ControlConnection {
        ControlConnection::to(self.address)
    }

    /// Sends one message on a connection of its own, given without `pegasus://B/`.
    #[track_caller]
    pub fn ask(&self, message: &str) -> String {
        self.connect().ask(message)
    }

    #[track_caller]
    pub fn status(&self) -> Status {
        let status = self.connect().status();
        status.check();
        status
    }

    /// Offers tickets of a provider, for as long as a test may take.
    #[track_caller]
    pub fn offer(&self, provider: impl Display, tickets: u32) {
        let answer = self.ask(&format!(
            "ticket?provider={provider}&service={SERVICE}&tickets={tickets}&capacity={tickets}\
             &lease=10m"
        ));
        assert!(answer.starts_with("ok "), "{answer}");
    }

    /// Waits until all these providers have offered.
    #[track_caller]
    pub fn has(&self, providers: &[SocketAddr]) {
        until(&format!("tickets of {providers:?}"), || {
            let status = self.status();
            providers.iter().all(|provider| status.tickets(provider) > 0)
        });
    }
}

/// A standalone redirector that is ready.
pub struct Redirect {
    process: Process,
    pub address: SocketAddr,
}

impl Redirect {
    #[track_caller]
    pub fn start(queue: SocketAddr, settings: &[&str]) -> Redirect {
        let queue = format!("redirect_queue={queue}");
        let listen = format!("service_{SERVICE}_listen=127.0.0.1:0");
        let settings: Vec<&str> =
            settings.iter().copied().chain([queue.as_str(), listen.as_str()]).collect();
        Redirect::of(&mut command("redirect", &settings))
    }

    #[track_caller]
    pub fn of(command: &mut Command) -> Redirect {
        let mut process = Process::start("redirect", command);
        let address = ready(&mut process, "redirect");
        Redirect { process, address }
    }

    /// Waits for the log line of a finished connection with these words.
    #[track_caller]
    pub fn closed(&mut self, words: &[&str]) -> String {
        let words: Vec<&str> = words.iter().copied().chain(["closed service="]).collect();
        self.process.says(&words)
    }
}

/// A queue and a redirector in front of providers that hold many tickets.
pub struct Balancer {
    pub queue: Queue,
    pub redirect: Redirect,
}

impl Balancer {
    /// The first provider with a free ticket is chosen.
    #[track_caller]
    pub fn before(providers: &[SocketAddr], settings: &[&str]) -> Balancer {
        let queue = Queue::start(&["queue_scheduler=fifo"]);
        for provider in providers {
            queue.offer(provider, 1000);
        }
        let redirect = Redirect::start(queue.address, settings);
        Balancer { queue, redirect }
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.redirect.address
    }

    /// Waits until no request is in progress.
    #[track_caller]
    pub fn settles(&self) {
        until("nothing in progress", || {
            let status = self.queue.status();
            let idle = status.providers().all(|row| row.number("active") == 0);
            idle && status.queue().number("waiting") == 0
        });
    }
}

/// Starts a monitor of a provider, with frequent checks and offers.
#[track_caller]
pub fn monitor(queue: SocketAddr, provider: SocketAddr, settings: &[&str]) -> Process {
    let own = ["monitor_interval=200ms", "drain_timeout=5s"];
    let settings: Vec<&str> = own.into_iter().chain(settings.iter().copied()).collect();
    monitor_of(SERVICE, queue, provider, &settings)
}

/// Starts a monitor of any service, whose provider may have no port. Longer intervals
/// tolerate a busy machine better.
#[track_caller]
pub fn monitor_of(
    service: &str,
    queue: SocketAddr,
    provider: impl Display,
    settings: &[&str],
) -> Process {
    let balancer = format!("monitor_balancers={queue}");
    let place = format!("service_{service}_provider={provider}");
    let settings: Vec<&str> =
        settings.iter().copied().chain([balancer.as_str(), place.as_str()]).collect();
    let mut process = Process::start("monitor", &mut command("monitor", &settings));
    process.says(&["[monitor] ready "]);
    process
}

/// Returns an address on which nothing listens.
pub fn closed_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

impl Deref for Queue {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Queue {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Deref for Redirect {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Redirect {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
