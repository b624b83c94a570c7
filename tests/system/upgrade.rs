//! USR2: a new process takes over, and no client notices.

use super::cluster::PATIENT;
use super::reload::Configured;
use crate::support::control_connection::ControlConnection;
use crate::support::datagram::{ask, client as sender, hear, Sink};
use crate::support::pegasus::{closed_address, monitor, path, program, Redirect};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, End};
use crate::support::visits::{running, visit, Visits};
use crate::support::{free_ports, until, until_some, PATIENCE};
use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::{mpsc, Mutex};

/// Processes that are not children of the test, ended when dropped.
#[derive(Default)]
pub struct Successors(Vec<i32>);

impl Successors {
    /// One more that is ended with the test.
    pub fn add(&mut self, id: i32) {
        self.0.push(id);
    }

    /// Waits until the successor of a process, which writes to the same log, serves.
    #[track_caller]
    pub fn upgrade(&mut self, process: &Process) -> i32 {
        let of = self.0.last().copied().unwrap_or(process.id() as i32);
        let lines = || process.log_with(&["is about to take over"]);
        let before = lines().len();
        // SAFETY: plain numbers; the process is the test's own or its successor.
        unsafe { libc::kill(of, libc::SIGUSR2) };
        let started = until_some("a new process is started", || lines().into_iter().nth(before));
        let id =
            started.split("process ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        self.0.push(id);
        until("it serves", || {
            process.log_with(&[&format!("process {id} serves from now on")]).len() == 1
        });
        id
    }
}

impl Drop for Successors {
    fn drop(&mut self) {
        for id in &self.0 {
            // SAFETY: plain numbers; the process was started by this test's own.
            unsafe { libc::kill(*id, libc::SIGKILL) };
        }
    }
}

fn places(count: u16) -> Vec<SocketAddr> {
    free_ports(count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

fn alive(id: i32) -> bool {
    // A process that its parent does not wait for is a zombie at its end.
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Its loops have ended. It stays for its starter, which knows no other process.
fn serves_nothing(process: &Process) -> bool {
    process.open("anon_inode:[eventpoll]") == 0
}

#[test]
fn the_first_process_stays_passes_signals_on_and_ends_with_the_last() {
    let provider = Provider::echo();
    let places = places(2);
    let mut configured =
        Configured::start(&[provider.address], &format!("service_web_listen={}\n", places[0]));
    let mut successors = Successors::default();
    for _ in 0..3 {
        successors.upgrade(&configured.redirect);
    }
    until("only the first and the last are left", || {
        successors.0.iter().filter(|id| alive(**id)).count() == 1
            && serves_nothing(&configured.redirect)
    });
    configured.write(&format!("service_web_listen='{} {}'\n", places[0], places[1]));
    configured.redirect.signal(libc::SIGHUP);
    until("the new place is there", || visit(places[1], "x").is_ok());
    configured.redirect.signal(libc::SIGUSR2);
    until("a further one serves", || {
        configured.redirect.log_with(&["serves from now on"]).len() == 4
    });
    configured.redirect.signal(libc::SIGTERM);
    assert_eq!(configured.redirect.ends(), 0);
    until("all are gone", || TcpStream::connect(places[0]).is_err());
}

#[test]
fn the_pid_file_names_the_process_that_serves_and_is_gone_at_the_end() {
    let provider = Provider::echo();
    let places = places(1);
    let directory = crate::support::Directory::new();
    let file = directory.file("pid");
    let text = format!("service_web_listen={}\npid_file={file}\n", places[0]);
    let mut configured = Configured::start(&[provider.address], &text);
    let holds = |id: String| fs::read_to_string(&file).is_ok_and(|text| text.trim_end() == id);
    until("it names the first", || holds(configured.redirect.id().to_string()));
    let mut successors = Successors::default();
    for _ in 0..2 {
        let id = successors.upgrade(&configured.redirect);
        until("it names the successor", || holds(id.to_string()));
    }
    until("the others serve nothing", || serves_nothing(&configured.redirect));
    configured.redirect.signal(libc::SIGTERM);
    assert_eq!(configured.redirect.ends(), 0);
    assert!(fs::metadata(&file).is_err(), "it is gone");
}

#[test]
fn a_starter_sees_that_the_last_process_was_killed() {
    let provider = Provider::echo();
    let places = places(1);
    let mut configured =
        Configured::start(&[provider.address], &format!("service_web_listen={}\n", places[0]));
    let mut successors = Successors::default();
    successors.upgrade(&configured.redirect);
    let last = successors.upgrade(&configured.redirect);
    until("the others serve nothing", || {
        !alive(successors.0[0]) && serves_nothing(&configured.redirect)
    });
    // SAFETY: plain numbers; the process was started by this test's own.
    unsafe { libc::kill(last, libc::SIGKILL) };
    assert_eq!(configured.redirect.ends(), 128 + libc::SIGKILL);
}

#[test]
fn ten_upgrades_fail_nobody() {
    let provider = Provider::echo();
    let places = places(1);
    let configured =
        Configured::start(&[provider.address], &format!("service_web_listen={}\n", places[0]));
    let visits = Visits::start(places[0], 8);
    let mut successors = Successors::default();
    for round in 1..=10 {
        until("clients come", || visits.count() > 10 * round);
        successors.upgrade(&configured.redirect);
    }
    assert_eq!(visits.end(), Vec::<String>::new());
    assert_eq!(visit(places[0], "still there"), Ok(()));
    until("the old one serves nothing", || serves_nothing(&configured.redirect));
    until("only the last one is left", || {
        successors.0.iter().filter(|id| alive(**id)).count() == 1
    });
}

#[test]
fn who_is_here_stays_and_who_waits_is_served_by_the_new_one() {
    let provider = Provider::echo();
    let places = places(3);
    let few = "redirect_connections_max=1\n";
    let text = format!("{few}service_web_listen='{} {}'\n", places[0], places[1]);
    let mut configured = Configured::start(&[provider.address], &text);
    let mut old = running(places[0]);
    let mut waiting: Vec<TcpStream> = [0, 0, 1, 1].map(|number| connect(places[number])).into();
    // The configuration is read again: one address goes, one comes.
    configured.write(&format!("{few}service_web_listen='{} {}'\n", places[0], places[2]));
    let mut successors = Successors::default();
    let id = successors.upgrade(&configured.redirect);
    for client in &mut waiting {
        client.write_all(b"waited").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(client), (b"waited".to_vec(), End::Fin));
    }
    assert_eq!(visit(places[2], "new place"), Ok(()));
    assert!(configured.redirect.runs(), "it has a client");
    old.write_all(b"goes on").unwrap();
    old.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut old), (b"goes on".to_vec(), End::Fin));
    until("the old one serves nothing", || serves_nothing(&configured.redirect));
    until("the old place is closed", || TcpStream::connect(places[1]).is_err());
    // The new process can do all that the old one could.
    configured.write(&format!("service_web_listen={}\n", places[1]));
    // SAFETY: plain numbers; the process was started by this test's own.
    unsafe { libc::kill(id, libc::SIGHUP) };
    until("its places can be changed", || visit(places[1], "and back").is_ok());
    until("the others are closed", || TcpStream::connect(places[0]).is_err());
}

#[test]
fn a_new_process_that_does_not_serve_changes_nothing() {
    let provider = Provider::echo();
    let places = places(2);
    let text = format!("service_web_listen={}\n", places[0]);
    let configured = Configured::start(&[provider.address], &text);
    let failed = |count: usize, why: &str| {
        configured.redirect.signal(libc::SIGUSR2);
        until("it says why", || {
            configured.redirect.log_with(&["ERROR", "no upgrade"]).len() == count
        });
        let line = configured.redirect.log_with(&["no upgrade"]).pop().unwrap();
        assert!(line.contains(why), "{line}");
        assert_eq!(visit(places[0], "as if nothing had happened"), Ok(()));
    };
    configured.write("service_web_listen=nonsense\n");
    failed(1, "pegasus.conf:2: service_web_listen=nonsense: ");
    let taken = std::net::TcpListener::bind(places[1]).unwrap();
    configured.write(&format!("service_web_listen='{} {}'\n", places[0], places[1]));
    failed(2, &format!("cannot listen on {}", places[1]));
    drop(taken);
    configured.write(&text);
    Successors::default().upgrade(&configured.redirect);
}

#[test]
fn the_program_is_the_one_that_is_there_now() {
    let provider = Provider::echo();
    let places = places(1);
    let directory = crate::support::Directory::new();
    let program = directory.file("pegasus");
    let replace = |with: &str| {
        // By another process: a child that another test starts just now would inherit a
        // descriptor of this one that is open for writing, and such a file cannot be run.
        assert!(Command::new("cp")
            .arg(with)
            .arg(directory.file("new"))
            .status()
            .unwrap()
            .success());
        fs::rename(directory.file("new"), &program).unwrap();
    };
    replace(path());
    let text = format!("service_web_listen={}\n", places[0]);
    let configured = Configured::by(&program, &[provider.address], &text);
    replace("/bin/false");
    configured.redirect.signal(libc::SIGUSR2);
    until("another program is no successor", || {
        configured.redirect.log_with(&["no upgrade", "status: 1"]).len() == 1
    });
    assert_eq!(visit(places[0], "as if nothing had happened"), Ok(()));
    fs::remove_file(&program).unwrap();
    configured.redirect.signal(libc::SIGUSR2);
    until("nor is none", || configured.redirect.log_with(&["no upgrade"]).len() == 2);
    replace(path());
    let mut successors = Successors::default();
    let id = successors.upgrade(&configured.redirect);
    assert_eq!(fs::read_link(format!("/proc/{id}/exe")).unwrap(), Path::new(&program));
    assert_eq!(visit(places[0], "by the new one"), Ok(()));
}

#[test]
fn who_is_told_to_end_takes_its_successor_along() {
    let provider = Provider::echo();
    let places = places(1);
    let directory = crate::support::Directory::new();
    let program = directory.file("pegasus");
    let copy = |from: &str| {
        // By another process, for the reason above.
        assert!(Command::new("cp")
            .arg(from)
            .arg(directory.file("new"))
            .status()
            .unwrap()
            .success());
        fs::rename(directory.file("new"), &program).unwrap();
    };
    copy(path());
    let text = format!("service_web_listen={}\n", places[0]);
    let mut configured = Configured::by(&program, &[provider.address], &text);
    // A process that is never ready, and does not end by itself within the test.
    let slow = directory.write("slow", "#!/bin/sh\nexec sleep 300\n");
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    copy(&slow);
    configured.redirect.signal(libc::SIGUSR2);
    let started = until_some("it is started", || {
        configured.redirect.log_with(&["is about to take over"]).pop()
    });
    let id = started.split("process ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let _ended = Successors(vec![id]);
    configured.redirect.signal(libc::SIGTERM);
    assert_eq!(configured.redirect.ends(), 0);
    until("the new one is gone, too", || !alive(id));
    assert!(configured.redirect.log_with(&["no upgrade"]).is_empty());
}

#[test]
fn a_queue_in_the_process_goes_along() {
    let provider = Provider::echo();
    let places = places(2);
    let directory = crate::support::Directory::new();
    let conf = directory.write(
        "pegasus.conf",
        &format!("queue_listen={}\nservice_web_listen={}\n", places[0], places[1]),
    );
    let redirect = Redirect::of(program().args(["redirect", "-c", &conf, "-o", PATIENT]));
    let _monitor = monitor(places[0], provider.address, &["monitor_interval=1s"]);
    let mut old = running(places[1]);
    let visits = Visits::start(places[1], 4);
    let mut successors = Successors::default();
    for round in 1..=3 {
        until("clients come", || visits.count() > 10 * round);
        successors.upgrade(&redirect);
        until("the new queue has its provider", || {
            ControlConnection::to(places[0]).status().tickets(provider.address) > 0
        });
    }
    until("clients come", || visits.count() > 50);
    assert_eq!(visits.end(), Vec::<String>::new());
    old.write_all(b"goes on").unwrap();
    old.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut old), (b"goes on".to_vec(), End::Fin));
    until("the old one serves nothing", || serves_nothing(&redirect));
}

#[test]
fn what_its_queue_was_offered_goes_along() {
    let provider = Provider::echo();
    let places = places(2);
    let directory = crate::support::Directory::new();
    let conf = directory.write(
        "pegasus.conf",
        &format!(
            "redirect_queue=embedded\nqueue_listen={}\nservice_web_listen={}\n",
            places[0], places[1]
        ),
    );
    // No request waits, and no monitor connects to the new process.
    let redirect =
        Redirect::of(Command::new(path()).args(["redirect", "-c", &conf, "-o", "redirect_wait=0"]));
    let offer = |tickets: u32, provider: SocketAddr| {
        format!("ticket?service=web&provider={provider}&tickets={tickets}&capacity=2000&lease=10m")
    };
    let dead = closed_address();
    let mut line = ControlConnection::to(places[0]);
    for message in [
        &offer(1000, provider.address),
        &offer(1000, dead),
        &format!("failure?service=web&provider={dead}"),
    ] {
        assert!(line.ask(message).starts_with("ok"));
    }
    let visits = Visits::start(places[1], 4);
    let mut successors = Successors::default();
    for round in 1..=3 {
        until("clients come", || visits.count() > 10 * round);
        successors.upgrade(&redirect);
        let registered =
            |provider| redirect.log_with(&["registered", &format!("provider={provider}")]).len();
        until("it is registered again", || registered(provider.address) == 1 + round);
        assert_eq!(registered(dead), 1);
    }
    until("clients come", || visits.count() > 50);
    assert_eq!(visits.end(), Vec::<String>::new());
}

#[test]
fn flows_of_the_old_process_have_their_answers() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let sink = Sink::start("127.0.0.1:0", move |bytes| {
        if bytes == b"slow" {
            let _ = gone.lock().unwrap().recv_timeout(PATIENCE);
        }
        Some(bytes.to_vec())
    });
    let places = places(1);
    let text = format!("service_web_listen={}/udp\nservice_web_udp_idle=1s\n", places[0]);
    let configured = Configured::start(&[sink.address], &text);
    let slow = sender(places[0]);
    let other = sender(places[0]);
    slow.send(b"slow").unwrap();
    until("it is there", || !sink.taken().is_empty());
    let mut successors = Successors::default();
    successors.upgrade(&configured.redirect);
    go.send(()).unwrap();
    assert_eq!(hear(&slow), b"slow");
    assert_eq!(ask(&other, b"by the new one"), b"by the new one");
    until("the old one serves nothing", || serves_nothing(&configured.redirect));
    assert_eq!(ask(&slow, b"by the new one, too"), b"by the new one, too");
}

/// The providers answer as the test says, so that each sees where a flow comes from.
#[test]
fn flows_keep_their_provider_and_their_socket() {
    let providers = [0; 3].map(|_| {
        let provider = UdpSocket::bind("127.0.0.1:0").unwrap();
        provider.set_read_timeout(Some(PATIENCE)).unwrap();
        provider
    });
    let places = places(1);
    let text = format!("service_web_listen={}/udp\nredirect_threads=2\n", places[0]);
    let addresses: Vec<_> = providers.iter().map(|own| own.local_addr().unwrap()).collect();
    let configured = Configured::start(&addresses, &text);
    let mut buffer = [0; 100];
    let clients: Vec<_> = (0..12).map(|_| sender(places[0])).collect();
    let flows: Vec<_> = clients
        .iter()
        .map(|client| {
            client.send(b"invite").unwrap();
            let met = until_some("a provider is asked", || {
                providers.iter().find_map(|own| {
                    own.set_nonblocking(true).unwrap();
                    let (_, upstream) = own.recv_from(&mut [0; 100]).ok()?;
                    Some((own, upstream))
                })
            });
            met.0.set_nonblocking(false).unwrap();
            met
        })
        .collect();
    // One transfer goes on at a port of its own, as TFTP does.
    let transfer = sender(places[0]);
    transfer.send(b"\0\x01file\0octet\0").unwrap();
    let upstream = until_some("it is asked", || {
        providers.iter().find_map(|own| {
            own.set_nonblocking(true).unwrap();
            own.recv_from(&mut [0; 100]).ok().map(|(_, upstream)| upstream)
        })
    });
    let block = UdpSocket::bind("127.0.0.1:0").unwrap();
    block.set_read_timeout(Some(PATIENCE)).unwrap();
    block.send_to(b"block 1", upstream).unwrap();
    assert_eq!(hear(&transfer), b"block 1");
    let mut successors = Successors::default();
    for _ in 0..2 {
        successors.upgrade(&configured.redirect);
        for (client, (provider, upstream)) in clients.iter().zip(&flows) {
            provider.set_nonblocking(false).unwrap();
            provider.send_to(b"ringing", upstream).unwrap();
            assert_eq!(hear(client), b"ringing");
            client.send(b"ack").unwrap();
            let (count, from) = provider.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..count], from), (&b"ack"[..], *upstream));
        }
        transfer.send(b"ack 1").unwrap();
        let (count, from) = block.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], from), (&b"ack 1"[..], upstream));
        block.send_to(b"block 2", upstream).unwrap();
        assert_eq!(hear(&transfer), b"block 2");
    }
    // No flow holds the process between them.
    until("it is gone", || !alive(successors.0[0]));
}

/// More than the line between the processes takes at once. The second one to hand over
/// keeps no other process, so that it ends when its clients are gone.
#[test]
fn a_process_ends_only_when_all_its_flows_have_moved() {
    const FLOWS: usize = 600;
    let provider = UdpSocket::bind("127.0.0.1:0").unwrap();
    provider.set_read_timeout(Some(PATIENCE)).unwrap();
    let places = places(1);
    let text = format!("service_web_listen={}/udp\n", places[0]);
    let configured = Configured::start(&[provider.local_addr().unwrap()], &text);
    let flows: Vec<_> = (0..FLOWS)
        .map(|_| {
            let client = sender(places[0]);
            client.send(b"invite").unwrap();
            (client, provider.recv_from(&mut [0; 100]).unwrap().1)
        })
        .collect();
    let mut successors = Successors::default();
    for _ in 0..2 {
        successors.upgrade(&configured.redirect);
        for (client, upstream) in &flows {
            provider.send_to(b"ringing", upstream).unwrap();
            assert_eq!(hear(client), b"ringing");
        }
    }
}

#[test]
fn no_datagram_waits_at_a_socket_that_nobody_reads() {
    let sink = Sink::echo();
    let places = places(1);
    let text = |threads: usize| {
        format!("service_web_listen={}/udp\nredirect_threads={threads}\n", places[0])
    };
    let configured = Configured::start(&[sink.address], &text(4));
    let mut successors = Successors::default();
    let clients: Vec<_> = (0..40).map(|_| sender(places[0])).collect();
    for threads in [4, 1, 3, 6] {
        configured.write(&text(threads));
        successors.upgrade(&configured.redirect);
        for client in &clients {
            assert_eq!(ask(client, b"hello"), b"hello", "{threads} threads");
        }
    }
}

#[test]
fn systemd_is_told_which_process_matters() {
    let directory = crate::support::Directory::new();
    let path_of = directory.file("notify");
    let socket = UnixDatagram::bind(&path_of).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let place = places(1)[0];
    let mut command = program();
    command.args(["redirect", "-c", "/dev/null", "-o", "queue_listen=127.0.0.1:0"]);
    command.args(["-o", &format!("service_web_listen={place}")]);
    let process = Process::start("redirect", command.env("NOTIFY_SOCKET", &path_of));
    assert_eq!(told(), format!("MAINPID={}\nREADY=1", process.id()));
    let id = Successors::default().upgrade(&process);
    assert_eq!(told(), format!("MAINPID={id}\nREADY=1"));
}
