//! The log: whatever becomes of its reader, clients are served, and missing lines are counted.

use super::reload::Configured;
use super::upgrade::Successors;
use crate::support::pegasus::{command, Balancer, Queue};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::connect;
use crate::support::{free_port, until, Directory, PATIENCE};
use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::thread;

/// A line of the access log takes a good hundred bytes, and a megabyte of them may wait.
const MORE_CLIENTS_THAN_LINES_WAIT: usize = 10_000;

/// A redirector whose standard error is a socket, as with the journal.
struct Redirect {
    child: Child,
    stderr: UnixStream,
    address: SocketAddr,
    provider: Provider,
    _queue: Queue,
}

impl Redirect {
    /// `variable`: makes an environment variable of the device and inode of the socket.
    fn start(settings: &[&str], variable: impl Fn(u64, u64) -> String) -> Redirect {
        let provider = Provider::named("x");
        let queue = Queue::start(&["queue_scheduler=fifo"]);
        queue.offer(provider.address, 1000);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let own = [
            format!("redirect_queue={}", queue.address),
            format!("service_web_listen={address}"),
            "drain_timeout=1s".into(),
        ];
        let settings: Vec<&str> =
            own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        let (stderr, theirs) = UnixStream::pair().unwrap();
        let theirs = fs::File::from(OwnedFd::from(theirs));
        let meta = theirs.metadata().unwrap();
        let child = command("redirect", &settings)
            .env("JOURNAL_STREAM", variable(meta.dev(), meta.ino()))
            .stdin(Stdio::null())
            .stderr(theirs)
            .spawn()
            .unwrap();
        let redirect = Redirect { child, stderr, address, provider, _queue: queue };
        until("it listens", || std::net::TcpStream::connect(address).is_ok());
        redirect
    }

    /// Clients that are all served, from several threads.
    fn serves(&self, clients: usize) {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..clients / 4 {
                        let mut answer = String::new();
                        connect(self.address).read_to_string(&mut answer).unwrap();
                        assert_eq!(answer, "x");
                    }
                });
            }
        });
    }

    fn terminate(&self) {
        // SAFETY: plain numbers; the child is not reaped yet, so the id is its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
    }

    /// Reads lines until one holds this word.
    fn lines_until(&self, word: &str) -> Vec<String> {
        self.stderr.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(&self.stderr).lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap().contains(word) {
                return lines;
            }
        }
        panic!("no line with {word}");
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_line_names_a_client_as_its_provider_does() {
    let (seen, peers) = channel();
    let provider = Provider::start(move |client| {
        seen.send(client.peer_addr().unwrap()).unwrap();
    });
    let mut balancer = Balancer::before(&[provider.address], &[]);
    drop(connect(balancer.address()));
    let peer = peers.recv_timeout(PATIENCE).unwrap();
    balancer.redirect.closed(&[&format!(" local={peer} provider={} ", provider.address)]);
}

#[test]
fn a_reader_that_stops_costs_lines_which_are_counted() {
    let redirect = Redirect::start(&[], |_, _| String::new());
    redirect.serves(MORE_CLIENTS_THAN_LINES_WAIT);
    assert!(redirect.provider.clients() >= MORE_CLIENTS_THAN_LINES_WAIT);
    let lines = redirect.lines_until("lines lost");
    let lost: usize = lines
        .last()
        .unwrap()
        .rsplit("] ")
        .next()
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let closed = lines.iter().filter(|line| line.contains(" outcome=complete ")).count();
    assert!(lost > 0 && closed + lost >= MORE_CLIENTS_THAN_LINES_WAIT, "{closed} + {lost}");
    redirect.serves(4);
    redirect.lines_until("closed service=web");
}

#[test]
fn a_reader_that_stops_does_not_keep_the_process_from_ending() {
    let mut redirect = Redirect::start(&[], |_, _| String::new());
    redirect.serves(MORE_CLIENTS_THAN_LINES_WAIT);
    redirect.terminate();
    until("it has ended", || redirect.child.try_wait().unwrap().is_some());
}

#[test]
fn a_line_has_a_time_unless_the_journal_adds_one() {
    let journal = Redirect::start(&[], |device, inode| format!("{device}:{inode}"));
    let lines = journal.lines_until("ready");
    assert!(lines.last().unwrap().starts_with("<6>redirect: ready "), "{lines:?}");
    // The variable of a service whose child has another standard error.
    let other = Redirect::start(&[], |device, inode| format!("{device}:{}", inode + 1));
    let lines = other.lines_until("ready");
    let (time, rest) = lines.last().unwrap().split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{lines:?}");
    assert!(rest.starts_with("INFO  [redirect] ready "), "{lines:?}");
}

#[test]
fn json_has_one_object_a_line_with_the_keys_of_the_text() {
    let provider = Provider::named("x");
    let mut balancer = Balancer::before(&[provider.address], &["log_format=text"]);
    connect(balancer.address()).read_to_string(&mut String::new()).unwrap();
    let text = balancer.redirect.closed(&["outcome=complete"]);
    let redirect = Redirect::start(&["log_format=json"], |_, _| String::new());
    redirect.serves(4);
    let lines = redirect.lines_until("\"outcome\":\"complete\"");
    let object = lines.last().unwrap();
    assert!(object.starts_with("{\"time\":\"20") && object.ends_with("\"}"), "{object}");
    for key in text.split(' ').filter_map(|word| word.split_once('=')).map(|(key, _)| key) {
        assert!(object.contains(&format!(",\"{key}\":\"")), "{key}: {object}");
    }
}

#[test]
fn a_fifo_may_get_its_reader_later() {
    let directory = Directory::new();
    let path = directory.file("fifo");
    let name = CString::new(path.clone()).unwrap();
    // SAFETY: the name is a text that lives for the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let redirect = Redirect::start(&[&format!("log={path}")], |_, _| String::new());
    redirect.serves(4);
    let mut lines = BufReader::new(fs::File::open(&path).unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("] ready ")));
    drop(lines);
    // Its reader has left: the next one finds the log again.
    redirect.serves(4);
    let lines = BufReader::new(fs::File::open(&path).unwrap()).lines();
    let closed = lines.map_while(Result::ok).find(|line| line.contains("closed service=web"));
    assert!(closed.is_some());
}

#[test]
fn after_a_full_disk_lines_are_whole_again() {
    let directory = Directory::new();
    let path = directory.file("log");
    let limit = |bytes| libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    let provider = Provider::named("x");
    let balancer = Queue::start(&["queue_scheduler=fifo"]);
    balancer.offer(provider.address, 1000);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut start = command(
        "redirect",
        &[
            &format!("log={path}"),
            &format!("redirect_queue={}", balancer.address),
            &format!("service_web_listen={address}"),
        ],
    );
    // A file that may not grow is like a full disk: its last line is cut short.
    let small = limit(1000);
    // SAFETY: both are async-signal-safe, and nothing else runs between fork and exec.
    unsafe {
        start.pre_exec(move || {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &small);
            Ok(())
        });
    }
    let redirect = Process::start("redirect", &mut start);
    until("it listens", || std::net::TcpStream::connect(address).is_ok());
    let visit = || {
        let mut answer = String::new();
        connect(address).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "x");
    };
    (0..20).for_each(|_| visit());
    until("it is full", || fs::read(&path).is_ok_and(|text| text.len() == 1000));
    (0..20).for_each(|_| visit());
    let large = limit(libc::RLIM_INFINITY);
    // SAFETY: plain numbers, and a structure that lives for the call.
    unsafe {
        libc::prlimit(redirect.id() as i32, libc::RLIMIT_FSIZE, &large, std::ptr::null_mut());
    }
    until("the loss is reported", || {
        visit();
        fs::read_to_string(&path).is_ok_and(|text| text.contains(" lines lost"))
    });
    let text = fs::read_to_string(&path).unwrap();
    for line in text.lines() {
        // One line was cut short, perhaps before its level.
        assert!(line.matches("Z INFO ").count() + line.matches("Z WARN ").count() <= 1, "{line}");
        assert!(line.starts_with("20"), "{line}");
    }
}

/// A redirector with its log in a folder, which then moves away.
fn with_moved_log(directory: &Directory) -> (Configured, Provider, String) {
    let folder = directory.file("folder");
    fs::create_dir(&folder).unwrap();
    let provider = Provider::named("x");
    let place = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let configured =
        Configured::start(&[provider.address], &format!("service_web_listen={place}\n"));
    configured.write(&format!("service_web_listen={place}\nlog={folder}/log\n"));
    configured.redirect.signal(libc::SIGHUP);
    until("the file has the log", || fs::metadata(format!("{folder}/log")).is_ok());
    let moved = directory.file("moved");
    fs::rename(&folder, &moved).unwrap();
    (configured, provider, format!("{moved}/log"))
}

#[test]
fn a_log_that_cannot_be_opened_again_stays_open_and_says_so() {
    let directory = Directory::new();
    let (configured, _provider, log) = with_moved_log(&directory);
    configured.redirect.signal(libc::SIGUSR1);
    until("it says so", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("ERROR [log] log="))
    });
    configured.redirect.signal(libc::SIGHUP);
    until("it goes on", || {
        let text = fs::read_to_string(&log).unwrap();
        text.matches("ERROR [log] log=").count() == 2
            && text.ends_with("[config] configuration reloaded\n")
    });
}

#[test]
fn a_successor_gets_the_log_that_it_cannot_open() {
    let directory = Directory::new();
    let (configured, _provider, log) = with_moved_log(&directory);
    let mut successors = Successors::default();
    configured.redirect.signal(libc::SIGUSR2);
    until("the new process writes to it", || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains("the previous process's file stays open")
            && text.contains("] ready ")
            && text.contains("[redirect] process ")
    });
    let text = fs::read_to_string(&log).unwrap();
    let started = text.split("[redirect] process ").nth(1).unwrap();
    successors.add(started.split(' ').next().unwrap().parse().unwrap());
}

#[test]
fn clients_that_are_refused_write_a_few_lines_a_second() {
    let mut redirect = Balancer::before(&[], &["redirect_wait=0"]);
    let clients = 500;
    for _ in 0..clients {
        let _ = connect(redirect.address()).read_to_string(&mut String::new());
    }
    until("the others are counted", || {
        let _ = connect(redirect.address()).read_to_string(&mut String::new());
        !redirect.redirect.log_with(&["lines like the next one were left out"]).is_empty()
    });
    assert!(redirect.redirect.log_with(&["outcome=no-ticket"]).len() < clients / 2);
    redirect.redirect.closed(&["outcome=no-ticket"]);
}
