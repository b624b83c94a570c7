//! The descriptors that a superserver leaves open: no log line reaches a client through
//! them, and no foreign one stays open.

use crate::support::datagram::client;
use crate::support::pegasus::{closed_address, command, configuration, program, Queue};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, pair, End};
use crate::support::{tool, Directory};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

/// Starts the program by a shell, with the socket on descriptor 0 and, until the shell
/// moves them, another file on 1. Standard error is kept unless it is moved.
#[track_caller]
fn start(
    socket: impl Into<OwnedFd>,
    other: impl Into<OwnedFd>,
    moves: &str,
    program: &Command,
) -> Process {
    start_with("", socket, other, moves, program)
}

/// As [`start`], with environment variables.
#[track_caller]
fn start_with(
    variables: &str,
    socket: impl Into<OwnedFd>,
    other: impl Into<OwnedFd>,
    moves: &str,
    program: &Command,
) -> Process {
    let mut shell = tool("sh");
    shell
        .args(["-c", &format!("{variables} exec \"$@\" {moves}"), "sh"])
        .arg(program.get_program())
        .args(program.get_args());
    shell
        .stdin(Stdio::from(socket.into()))
        .stdout(Stdio::from(other.into()))
        .stderr(Stdio::piped());
    Process::start_as_is("redirect", &mut shell)
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

/// Everything that a superserver can do wrong with 1 and 2, at the highest log level.
#[test]
fn descriptors_that_were_closed_do_not_become_a_client() {
    let queue = Queue::start(&[]);
    let provider = Provider::echo();
    queue.offer(provider.address, 100);
    let at = format!("redirect_queue={}", queue.address);
    let mut redirect =
        command("redirect", &[&at, "redirect_linger=0", "log_level=trace", "log=stderr"]);
    redirect.args(["-s", "web", "-vvv"]);
    for moves in ["1>&-", "2>&-", "1>&- 2>&-", "1>&0 2>&-", "1>&- 2>&0", "1>&0 2>&0"] {
        let (mut client, server) = pair();
        let mut process = start(server, null(), moves, &redirect);
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut client), (b"hello".to_vec(), End::Fin), "{moves}");
        assert_eq!(process.ends(), 0, "{moves}");

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = connect(listener.local_addr().unwrap());
        let mut process = start(listener, null(), moves, &redirect);
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut client), (b"hello".to_vec(), End::Fin), "a listener, {moves}");
        assert_eq!(process.ends(), 0, "a listener, {moves}");
    }
}

/// Returns how many descriptors of a process refer to this file.
fn leading_to(process: &Process, file: &impl AsRawFd) -> usize {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().flatten();
    descriptors
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link == target))
        .count()
}

/// As under udpsvd, which leaves the next client's socket open.
#[test]
fn sockets_of_others_are_closed_and_the_null_device_stands_where_the_client_was() {
    let queue = Queue::start(&[]);
    let provider = Provider::echo();
    queue.offer(provider.address, 100);
    let mut redirect = command("redirect", &[&format!("redirect_queue={}", queue.address)]);
    redirect.args(["-s", "web"]);
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for (variables, moves) in [
        ("", "3<&1 4<&1 9<&1 1<&0"),
        ("", "7<&1 1<&0 2<&0"),
        // Under systemd, whose connection is 3.
        ("LISTEN_PID=$$ LISTEN_FDS=1", "3<&0 4<&1 9<&1 0</dev/null 1>&0"),
        ("LISTEN_PID=$$ LISTEN_FDS=1", "3<&0 4<&1 1>&0 2>&0"),
    ] {
        let (mut client, server) = pair();
        let mut process = start_with(
            variables,
            server.try_clone().unwrap(),
            stranger.try_clone().unwrap(),
            moves,
            &redirect,
        );
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(leading_to(&process, &stranger), 0, "{moves}");
        assert_eq!(leading_to(&process, &server), 1, "{moves}");
        drop(server);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut client), (Vec::new(), End::Fin), "{moves}");
        assert_eq!(process.ends(), 0);
    }
}

/// The program under strace, which makes one of its calls fail.
fn faulty(directory: &Directory, options: &[&str], redirect: &Command) -> Command {
    let mut strace = tool("strace");
    strace.args(["-f", "-o", &directory.file("trace")]).args(options);
    strace.arg(redirect.get_program()).args(redirect.get_args());
    strace
}

#[test]
fn a_panic_is_a_line_for_the_logger_and_nothing_for_the_client() {
    let directory = Directory::new();
    let redirect = command("redirect", &[&format!("redirect_queue={}", closed_address())]);
    let strace = faulty(&directory, &["-e", "inject=getrandom:error=EIO"], &redirect);
    for (moves, log) in [("1>&0 2>&0", 0), ("1>&0", 1)] {
        let (mut client, server) = pair();
        let mut process = start(server, null(), moves, &strace);
        assert_eq!(drain(&mut client).0, b"", "{moves}");
        assert_ne!(process.ends(), 0, "it panicked");
        assert_eq!(process.log_with(&["ERROR [panic]", "panicked at"]).len(), log, "{moves}");
    }
}

#[test]
fn usage_and_configuration_errors_reach_the_logger_on_descriptor_2() {
    for (arguments, word) in
        [(vec!["--nonsense"], "nonsense"), (vec!["-o", "redirect_quue=1"], "redirect_queue")]
    {
        let (mut client, server) = pair();
        let mut redirect = command("redirect", &[]);
        let mut process = start(server, null(), "1>&0", redirect.args(&arguments));
        assert_eq!(drain(&mut client).0, b"");
        process.says(&[word]);
        assert_ne!(process.ends(), 0);
    }
}

/// As busybox inetd starts a service with `udp nowait`.
#[test]
fn a_client_of_datagrams_gets_no_line_either() {
    let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = client(ours.local_addr().unwrap());
    ours.connect(client.local_addr().unwrap()).unwrap();
    let away = format!("redirect_queue={}", closed_address());
    for arguments in
        [["--nonsense", "-vvv"], ["-o", "redirect_quue=1"], ["-o", "redirect_queue_timeout=100ms"]]
    {
        client.send(b"hello").unwrap();
        let mut redirect =
            command("redirect", &[&away, "service_web_udp_idle=100ms", "redirect_linger=0"]);
        let mut process = start(
            ours.try_clone().unwrap(),
            null(),
            "1>&0 2>&0",
            redirect.args(["-s", "web"]).args(arguments),
        );
        process.ends();
        client.set_nonblocking(true).unwrap();
        assert_eq!(
            client.recv(&mut [0; 1]).unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "{arguments:?}"
        );
    }
}

/// In a chroot there may be no null device.
#[test]
fn without_a_null_device_the_client_hears_its_provider_only() {
    let queue = Queue::start(&[]);
    let provider = Provider::echo();
    let directory = Directory::new();
    queue.offer(provider.address, 1);
    let at = format!("redirect_queue={}", queue.address);
    let conf = configuration(&directory, &[&at, "log=stderr", "log_level=trace"]);
    let mut redirect = program();
    redirect.args(["redirect", "-c", &conf, "-s", "web", "-vvv"]);
    let strace = faulty(
        &directory,
        &["-P", "/dev/null", "-e", "inject=open,openat:error=ENOENT"],
        &redirect,
    );
    let (mut client, server) = pair();
    let mut process = start(server, null(), "1>&0 2>&0", &strace);
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client), (b"hello".to_vec(), End::Fin));
    assert_eq!(process.ends(), 0);
    let trace = std::fs::read_to_string(directory.file("trace")).unwrap();
    assert!(trace.contains("INJECTED"), "{trace}");
}
