//! Systems that lack a call, or refuse it now and then: clients notice nothing.
//!
//! `strace` makes the redirector's calls fail. Where it may trace nobody these
//! tests say so, and are skipped.

use crate::support::pegasus::{nobody, path, Queue, Redirect, SERVICE};
use crate::support::process::run;
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::socket::{connect, drain, End};
use crate::support::{tool, until};
use std::io::Write;
use std::net::Shutdown;
use std::thread;

/// Bytes there and back: enough to be spliced, where that can be.
const MUCH: usize = 1 << 20;
const CLIENTS: usize = 6;

/// Whether a process may be traced here.
fn can_trace() -> bool {
    let (status, _, errors) = run(tool("strace").args(["-e", "inject=getppid:error=EPERM", "true"]), b"");
    if status != 0 {
        eprintln!("SKIPPED: strace cannot trace here: {errors}");
    }
    status == 0
}

/// All that a relay does, with calls that fail as told. Pipes that the
/// redirector had in the end, beyond those of its start.
#[track_caller]
fn relays_although(faults: &[&str]) -> usize {
    let (queue, echo, dead) = (Queue::start(&["queue_scheduler=fifo"]), Provider::echo(), nobody());
    queue.offer(dead, 1);
    queue.offer(echo.address, 1000);
    let mut strace = tool("strace");
    // The tracer is no parent: what the test holds is the redirector itself.
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    for fault in faults {
        strace.args(["-e", &format!("inject={fault}")]);
    }
    strace.args([path(), "redirect", "-c", "/dev/null", "-o", "redirect_threads=1"]);
    strace.args(["-o", &format!("redirect_queue={}", queue.address)]);
    let redirect = Redirect::of(strace.args(["-o", &format!("service_{SERVICE}_listen=127.0.0.1:0")]));
    let pipes = redirect.open("pipe:");
    let bytes = Random::new(1).bytes(MUCH);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = connect(redirect.address);
                let mut sender = client.try_clone().unwrap();
                let sent = &bytes;
                scope.spawn(move || {
                    sender.write_all(sent).unwrap();
                    sender.shutdown(Shutdown::Write).unwrap();
                });
                let (answer, end) = drain(&mut client);
                assert!(answer == bytes && end == End::Fin, "{} bytes, {end:?}, {faults:?}", answer.len());
            });
        }
    });
    until("all are complete", || redirect.log_with(&["outcome=complete"]).len() == CLIENTS);
    until("nothing in progress", || queue.status().active(echo.address) == 0);
    assert_eq!(redirect.log_with(&["failure service=", "why=refused"]).len(), 1, "{:#?}", redirect.log());
    redirect.open("pipe:") - pipes
}

#[test]
fn without_a_fault_it_splices() {
    if can_trace() {
        assert!(relays_although(&[]) > 0);
    }
}

#[test]
fn a_system_that_does_not_splice_copies() {
    if can_trace() {
        for error in ["ENOSYS", "EINVAL", "EPERM"] {
            assert_eq!(relays_although(&[&format!("splice:error={error}")]), 0, "{error}");
        }
        // The first pipe is that of the signals.
        assert_eq!(relays_although(&["pipe2:error=EMFILE:when=2+"]), 0);
    }
}

#[test]
fn a_system_with_small_pipes_splices_all_the_same() {
    if can_trace() {
        // The first ones are of the start, and duplicate descriptors.
        assert!(relays_although(&["fcntl:error=EPERM:when=3+"]) > 0);
    }
}

#[test]
fn a_system_that_accepts_in_the_old_way_only() {
    if can_trace() {
        relays_although(&["accept4:error=ENOSYS"]);
    }
}

#[test]
fn calls_that_are_interrupted_or_fail_now_and_then() {
    if can_trace() {
        let calls = ["recvfrom", "sendto", "splice", "epoll_wait", "accept4"];
        let faults = calls.map(|call| format!("{call}:error=EINTR:when=2+3"));
        relays_although(&faults.each_ref().map(String::as_str));
        relays_although(&["accept4:error=ECONNABORTED:when=1+2"]);
        relays_although(&["accept4:error=EMFILE:when=1+3"]);
    }
}

#[test]
fn options_that_the_system_does_not_know() {
    if can_trace() {
        // Without the first one, of the standard library, nobody listens.
        relays_although(&["setsockopt:error=ENOPROTOOPT:when=2+"]);
    }
}
