//! A client of a superserver receives its provider's bytes, or nothing.

use crate::support::inetd::Inetd;
use crate::support::pegasus::{closed_address, command, path, program, Queue};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, pair, End};
use crate::support::{free_port, tool, until, Directory};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Starts a command as inetd does, with the connection on descriptors 0, 1 and 2.
#[track_caller]
fn serve(command: &mut Command) -> (TcpStream, Process) {
    let (client, server) = pair();
    let descriptor = || Stdio::from(OwnedFd::from(server.try_clone().unwrap()));
    command.stdin(descriptor()).stdout(descriptor()).stderr(descriptor());
    let process = Process::start_as_is("redirect", command);
    // The command holds copies of the descriptors, which must not outlive it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    (client, process)
}

/// Asserts that nothing arrives and the connection is closed.
#[track_caller]
fn hears_nothing(command: &mut Command) -> i32 {
    let (mut client, mut process) = serve(command);
    let (bytes, _) = drain(&mut client);
    assert!(bytes.is_empty(), "{command:?}: the client heard: {}", String::from_utf8_lossy(&bytes));
    process.ends()
}

#[test]
fn a_client_on_descriptor_0_is_joined_to_its_provider() {
    let queue = Queue::start(&[]);
    let provider = Provider::echo();
    queue.offer(provider.address, 1);
    let at = format!("redirect_queue={}", queue.address);
    let (mut client, mut process) = serve(command("redirect", &[&at]).args(["-s", "web"]));
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client), (b"hello".to_vec(), End::Fin));
    assert_eq!(process.ends(), 0);
    until("its place is free", || queue.status().active(provider.address) == 0);
}

#[test]
fn the_service_is_found_by_the_port_or_is_the_default() {
    let queue = Queue::start(&[]);
    let provider = Provider::named("default");
    queue.ask(&format!("ticket?provider={}&tickets=1&capacity=1", provider.address));
    let at = format!("redirect_queue={}", queue.address);
    let (mut client, _process) = serve(&mut command("redirect", &[&at]));
    assert_eq!(drain(&mut client).0, b"default");

    let provider = Provider::named("by port");
    queue.offer(provider.address, 1);
    let (mut client, server) = pair();
    let listen = format!("service_web_listen=127.0.0.1:{}", server.local_addr().unwrap().port());
    let descriptor = || Stdio::from(OwnedFd::from(server.try_clone().unwrap()));
    let mut redirect = command("redirect", &[&at, &listen]);
    let _process = Process::start_as_is(
        "redirect",
        redirect.stdin(descriptor()).stdout(descriptor()).stderr(descriptor()),
    );
    drop((redirect, server));
    assert_eq!(drain(&mut client).0, b"by port");
}

#[test]
fn names_of_the_program_choose_the_command() {
    use std::os::unix::process::CommandExt;
    let queue = Queue::start(&[]);
    for name in
        ["pegasus-redirect", "pegasus.inetd", "redirect", "/usr/local/sbin/pegasus-redirect"]
    {
        let provider = Provider::named("served");
        queue.ask(&format!("ticket?provider={}&tickets=1&capacity=1", provider.address));
        let mut redirect = program();
        redirect.arg0(name).args([
            "-c",
            "/dev/null",
            "-o",
            &format!("redirect_queue={}", queue.address),
        ]);
        let (mut client, mut process) = serve(&mut redirect);
        assert_eq!(drain(&mut client).0, b"served", "{name}");
        drop(client);
        assert_eq!(process.ends(), 0);
    }
}

#[test]
fn a_logger_on_descriptor_2_gets_the_log_and_the_client_does_not() {
    let queue = Queue::start(&[]);
    let (mut client, server) = pair();
    let descriptor = || Stdio::from(OwnedFd::from(server.try_clone().unwrap()));
    let mut redirect =
        command("redirect", &["redirect_wait=0", &format!("redirect_queue={}", queue.address)]);
    redirect.stdin(descriptor()).stdout(descriptor()).stderr(Stdio::piped());
    let mut process = Process::start_as_is("redirect", &mut redirect);
    drop((redirect, server));
    assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
    process.says(&["WARN", "closed service=default", "outcome=no-ticket"]);
}

#[test]
fn nothing_when_the_queue_is_away() {
    let at = format!("redirect_queue={}", closed_address());
    let mut redirect = command("redirect", &[&at, "redirect_queue_timeout=200ms"]);
    assert_eq!(hears_nothing(&mut redirect), 69, "a superserver may log it");
}

#[test]
fn nothing_when_there_is_no_ticket() {
    let queue = Queue::start(&[]);
    let at = format!("redirect_queue={}", queue.address);
    let mut redirect = command("redirect", &[&at, "redirect_wait=50ms", "log_level=trace"]);
    assert_eq!(hears_nothing(&mut redirect), 69);
}

#[test]
fn nothing_when_all_providers_are_dead() {
    let queue = Queue::start(&[]);
    queue.offer(closed_address(), 1);
    let at = format!("redirect_queue={}", queue.address);
    let mut redirect = command("redirect", &[&at, "redirect_wait=50ms"]);
    assert_eq!(hears_nothing(redirect.args(["-s", "web", "-vv"])), 69);
}

#[test]
fn a_log_that_cannot_be_written_keeps_nobody_from_being_served() {
    let queue = Queue::start(&[]);
    let provider = Provider::named("served");
    queue.ask(&format!("ticket?provider={}&tickets=1&capacity=1", provider.address));
    let (mut client, _process) = serve(&mut command(
        "redirect",
        &["log=/nowhere/log", &format!("redirect_queue={}", queue.address)],
    ));
    assert_eq!(drain(&mut client).0, b"served");
}

#[test]
fn nothing_when_the_configuration_is_wrong() {
    let directory = Directory::new();
    let conf = directory.write("bad.conf", "redirect_quue=1\nnonsense\n");
    let missing = directory.file("missing.conf");
    for arguments in [
        vec!["redirect", "-o", "nonsense=1"],
        vec!["redirect", "-c", conf.as_str()],
        vec!["redirect", "-c", missing.as_str()],
        vec!["redirect", "-c", conf.as_str(), "-t"],
        vec!["redirect", "-c", "/dev/null", "-o", "redirect_queue=embedded"],
    ] {
        assert_ne!(hears_nothing(program().args(&arguments)), 0, "{arguments:?}");
    }
}

#[test]
fn a_queue_for_one_client_is_a_mistake_that_the_terminal_shows() {
    let (mut client, server) = pair();
    let descriptor = || Stdio::from(OwnedFd::from(server.try_clone().unwrap()));
    // The log is elsewhere.
    let mut redirect = command("redirect", &["redirect_queue=embedded", "log=none"]);
    redirect.stdin(descriptor()).stdout(descriptor()).stderr(Stdio::piped());
    let mut process = Process::start_as_is("redirect", &mut redirect);
    drop((redirect, server));
    assert!(drain(&mut client).0.is_empty());
    process.says(&["redirect_queue=embedded", "run `pegasus queue`"]);
    assert_eq!(process.ends(), 78);
}

#[test]
fn nothing_when_the_usage_is_wrong() {
    for arguments in [
        vec!["redirect", "--nonsense"],
        vec!["redirect", "nonsense"],
        vec!["redirect", "-s", "No Name"],
        vec!["redirect", "-c"],
        vec!["nonsense"],
        vec![],
    ] {
        assert_eq!(hears_nothing(program().args(&arguments)), 64, "{arguments:?}");
    }
}

#[test]
fn nothing_when_an_option_stands_where_the_command_should() {
    assert_eq!(hears_nothing(program().args(["--nonsense"])), 64);
}

#[test]
fn nothing_when_another_command_is_started_for_a_client() {
    assert_eq!(hears_nothing(program().args(["queue", "--nonsense"])), 64);
    assert_eq!(
        hears_nothing(program().args(["monitor", "-c", "/dev/null", "-o", "nonsense=1"])),
        78
    );
}

#[test]
fn nothing_through_inetd_either() {
    let away = Inetd::redirect(closed_address(), &["redirect_queue_timeout=200ms"]);
    let wrong = Inetd::start("redirect --nonsense");
    let unset = Inetd::start("redirect -o nonsense=1");
    for inetd in [&away, &wrong, &unset] {
        for _ in 0..3 {
            let mut client = connect(inetd.address);
            let _ = client.write_all(b"GET / HTTP/1.0\r\n\r\n");
            assert_eq!(drain(&mut client).0, b"");
        }
    }
    until("all three are in the log", || {
        away.log().matches("outcome=queue-unreachable").count() == 3
    });
}

#[test]
fn the_system_calls_show_that_only_the_provider_speaks() {
    const ANSWER: &[u8] = b"what the provider says, and nothing else\n";
    let provider = Provider::start(|mut stream| {
        let _ = stream.read_exact(&mut [0; 5]);
        let _ = stream.write_all(ANSWER);
    });
    let queue = Queue::start(&[]);
    let directory = Directory::new();
    queue.offer(closed_address(), 1);
    queue.offer(provider.address, 1);
    let at = format!("redirect_queue={}", queue.address);
    let trace = directory.file("trace");
    let mut strace = tool("strace");
    strace.args([
        "-f",
        "-yy",
        "-x",
        "-s",
        "9999",
        "-e",
        "trace=write,writev,sendto,sendmsg,sendmmsg,splice",
        "-o",
        &trace,
    ]);
    strace.arg(path()).args(["redirect", "-c", "/dev/null", "-o", &at, "-s", "web", "-vvv"]);
    let (mut client, mut process) = serve(&mut strace);
    let here = client.local_addr().unwrap();
    let there = client.peer_addr().unwrap();
    client.write_all(b"hello").unwrap();
    let heard = drain(&mut client).0;
    drop(client);
    assert_eq!(process.ends(), 0);
    assert_eq!(heard, ANSWER);

    let text = std::fs::read_to_string(&trace).unwrap();
    let socket = format!("<TCP:[{there}->{here}]>");
    let to_client: Vec<&str> = text
        .lines()
        .filter(|line| line.split_once(", ").is_some_and(|(call, _)| call.contains(&socket)))
        .collect();
    assert_eq!(to_client.len(), 1, "one piece, in one call:\n{text}");
    let answer = String::from_utf8_lossy(ANSWER);
    assert!(
        to_client[0].contains(&format!("\"{}\"", answer.trim_end().to_string() + "\\n")),
        "{}",
        to_client[0]
    );
    assert!(text.contains("hello"), "the others were traced as well:\n{text}");
}

#[test]
fn ten_clients_of_inetd_at_once_are_strangers_to_each_other() {
    let queue = Queue::at(free_port(), &[]);
    let provider = Provider::echo();
    queue.offer(provider.address, 100);
    let inetd = Inetd::redirect(queue.address, &["redirect_wait=20s"]);
    let clients: Vec<TcpStream> = (0..10).map(|_| connect(inetd.address)).collect();
    for (number, mut client) in clients.iter().enumerate() {
        client.write_all(format!("I am {number}").as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        assert_eq!(drain(&mut client), (format!("I am {number}").into_bytes(), End::Fin));
    }
}
