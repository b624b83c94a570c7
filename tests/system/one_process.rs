//! A standalone redirector embeds its queue by default; under a superserver it asks a
//! queue in another process.

use super::reload::Configured;
use super::upgrade::Successors;
use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::{command, monitor, program, Queue, Redirect};
use crate::support::process::{run, Process};
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, pair};
use crate::support::visits::visit;
use crate::support::{free_ports, tool, until, Directory};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

fn places(count: u16) -> Vec<SocketAddr> {
    free_ports(count).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect()
}

#[test]
fn a_balancer_is_one_process_and_a_provider_another() {
    let provider = Provider::echo();
    let settings = ["queue_listen=127.0.0.1:0", "service_web_listen=127.0.0.1:0"];
    let mut balancer = Process::start("redirect", &mut command("redirect", &settings));
    let address =
        |line: String| -> SocketAddr { line.rsplit([' ', '=']).next().unwrap().parse().unwrap() };
    let queue = address(balancer.says(&["[queue] ready"]));
    let place = address(balancer.says(&["[redirect] ready"]));
    let mut monitor = monitor(queue, provider.address, &[]);
    until("the queue has its provider", || {
        ControlConnection::to(queue).status().tickets(provider.address) > 0
    });
    assert_eq!(visit(place, "through one process"), Ok(()));
    for process in [&mut monitor, &mut balancer] {
        process.signal(libc::SIGTERM);
        assert_eq!(process.ends(), 0);
    }
}

#[test]
fn a_control_address_that_is_taken_is_explained() {
    let queue = Queue::start(&[]);
    let provider = Provider::echo();
    queue.offer(provider.address, 1000);
    let key = format!("redirect_queue={}", queue.address);
    for host in ["127.0.0.1", "*", "0.0.0.0"] {
        let listen = format!("queue_listen={host}:{}", queue.address.port());
        let (status, _, errors) =
            run(&mut command("redirect", &[&listen, "service_web_listen=127.0.0.1:0"]), b"");
        assert_eq!(status, 71, "{errors}");
        let advice =
            format!("if that is a pegasus queue, set {key}; otherwise another queue_listen");
        assert!(errors.contains("cannot listen on ") && errors.contains(&advice), "{errors}");
        let (status, _, errors) = run(&mut command("queue", &[&listen]), b"");
        assert!(
            status == 71 && !errors.contains("redirect_queue"),
            "a queue cannot ask another one: {errors}"
        );
    }
    let advised = Redirect::start(queue.address, &[&format!("queue_listen={}", queue.address)]);
    assert_eq!(visit(advised.address, "as advised"), Ok(()));
}

/// The program under strace, which makes every connect of it fail.
fn without_connections(trace: &str, redirect: &Command) -> Command {
    let mut strace = tool("strace");
    // strace -D: the test's child is the program itself.
    strace.args([
        "-D",
        "-f",
        "-qq",
        "-e",
        "trace=connect",
        "-e",
        "inject=connect:error=ECONNREFUSED",
        "-o",
        trace,
    ]);
    strace.arg(redirect.get_program()).args(redirect.get_args());
    strace
}

/// Starts it with this socket; it must connect to this host's queue only.
#[track_caller]
fn asks(directory: &Directory, stdin: OwnedFd, variables: &str, redirect: &Command) {
    let trace = directory.file("trace");
    let traced = without_connections(&trace, redirect);
    let mut shell = Command::new("/bin/sh");
    let script = format!("{variables} exec \"$@\"");
    shell.args(["-c", &script, "sh"]).arg(traced.get_program()).args(traced.get_args());
    shell.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
    let _process = Process::start_as_is("redirect", &mut shell);
    drop(shell);
    let called = || std::fs::read_to_string(&trace).unwrap_or_default();
    // strace writes the result at the end of the line.
    let calls = || -> Vec<String> {
        let whole = |line: &&str| line.contains("AF_INET") && line.contains("INJECTED");
        called().lines().filter(whole).map(str::to_string).collect()
    };
    until("it calls a queue", || !calls().is_empty());
    let this_host = |line: &String| {
        line.contains("sin_port=htons(7347)") && line.contains("sin_addr=inet_addr(\"127.0.0.1\")")
    };
    let others = calls().into_iter().find(|line| !this_host(line));
    assert_eq!(others, None);
}

#[test]
fn a_superserver_starts_what_asks_the_queue_of_this_host() {
    let (status, _, errors) =
        run(tool("strace").args(["-e", "inject=getppid:error=EPERM", "true"]), b"");
    if status != 0 {
        crate::support::skip(&format!("strace cannot trace here: {errors}"));
        return;
    }
    let directory = Directory::new();
    let redirect = command(
        "redirect",
        &["redirect_queue_timeout=100ms", "redirect_linger=30s", "drain_timeout=0"],
    );
    // inetd nowait.
    let (_client, server) = pair();
    asks(&directory, server.into(), "", &redirect);
    // inetd wait, and systemd.
    for variables in ["", "3<&0 0</dev/null LISTEN_PID=$$ LISTEN_FDS=1"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let _client = connect(listener.local_addr().unwrap());
        let directory = Directory::new();
        asks(&directory, listener.into(), variables, &redirect);
    }
}

#[test]
fn a_queue_for_one_client_is_refused_and_the_reason_told() {
    let directory = Directory::new();
    let log = directory.file("log");
    let (mut client, server) = pair();
    let mut redirect = command("redirect", &["redirect_queue=embedded", &format!("log={log}")]);
    let mut process = Process::start_as_is(
        "redirect",
        redirect.stdin(OwnedFd::from(server)).stdout(Stdio::null()),
    );
    drop(redirect);
    assert_eq!(process.ends(), 78);
    assert_eq!(drain(&mut client).0, b"");
    let said = std::fs::read_to_string(log).unwrap();
    assert!(
        said.contains("redirect_queue=embedded: ") && said.contains("would end with that client"),
        "{said}"
    );
}

#[test]
fn an_upgrade_of_a_redirector_that_asked_a_queue_beside_it_succeeds() {
    let provider = Provider::echo();
    let places = places(1);
    let listen = format!("service_web_listen={}\n", places[0]);
    let mut configured = Configured::start(&[provider.address], &listen);
    // Its default was different before the upgrade.
    configured
        .directory
        .write("pegasus.conf", &format!("queue_listen={}\n{listen}", configured.queue.address));
    let mut successors = Successors::default();
    successors.upgrade(&configured.redirect);
    let told = format!("set redirect_queue={}", configured.queue.address);
    configured.redirect.says(&["WARN", &told, "until the next start"]);
    assert_eq!(visit(places[0], "as before"), Ok(()));
}

#[test]
fn a_running_process_keeps_its_queue_and_says_so() {
    let directory = Directory::new();
    let places = places(2);
    let beside = Queue::start(&[]);
    let write = |text: &str| {
        let common = format!("queue_listen={}\nservice_web_listen={}\n", places[0], places[1]);
        directory.write("pegasus.conf", &format!("{common}{text}"))
    };
    let conf = write("");
    let redirect = Redirect::of(program().args(["redirect", "-c", &conf]));
    let mut rounds = 0;
    let mut told = |text: &str| {
        write(text);
        redirect.signal(libc::SIGHUP);
        rounds += 1;
        until("it is reloaded", || redirect.log_with(&["configuration reloaded"]).len() == rounds);
        redirect.log_with(&["WARN", "redirect_queue takes effect at the next start"]).len()
    };
    told("redirect_queue=embedded\n");
    // The lines of the first reload are complete when the second is done.
    assert_eq!(told("redirect_queue=embedded\n"), 0, "it is the same");
    let another = format!("redirect_queue={}\n", beside.address);
    told(&another);
    assert!(told(&another) >= 1, "it says what stays");
    told("");
    assert_eq!(told(""), 2, "each time, until it is what it was");
    assert!(
        ControlConnection::to(places[0]).ask("next?service=web").starts_with("error no-ticket"),
        "its queue is still there"
    );
}
