//! `sandbox=on`: what a daemon cannot reach any more, and what goes on all the same.

use super::upgrade::Successors;
use crate::support::pegasus::{monitor, path, program, Queue, Redirect};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::visits::visit;
use crate::support::{until, Directory};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Whether the kernel has it here; it says so itself if not.
fn is_in_sandbox(process: &Process) -> bool {
    until("it tells", || !process.log_with(&["[privileges]", "sandbox:"]).is_empty());
    let has = Path::new("/sys/kernel/security/lsm");
    let has = !fs::read_to_string(has).is_ok_and(|list| !list.contains("landlock"));
    has || {
        println!("SKIPPED: this kernel has no Landlock");
        false
    }
}

#[track_caller]
fn reload(process: &Process, said: &[&str]) {
    let before = process.log_with(said).len();
    process.signal(libc::SIGHUP);
    until("it is told", || process.log_with(said).len() > before);
}

/// Puts a file in the place of another one, as editors and package managers do.
fn replace(directory: &Directory, name: &str, text: &str) {
    let new = directory.write("new", text);
    fs::rename(new, directory.file(name)).unwrap();
}

const GOOD: [&str; 1] = ["configuration reloaded"];
const KEPT: [&str; 1] = ["keeping the running configuration"];

#[test]
fn what_the_configuration_names_is_reached_and_nothing_else() {
    let (own, other) = (Directory::new(), Directory::new());
    fs::create_dir(own.file("more")).unwrap();
    let text = format!(
        "sandbox=on\nqueue_listen=127.0.0.1:0\npid_file={}\nlog={}\ninclude=more\n",
        own.file("pid"),
        own.file("log")
    );
    let conf = own.write("pegasus.conf", &text);
    let log = || fs::read_to_string(own.file("log")).unwrap_or_default();
    let start = || Process::start_as_is("queue", program().args(["queue", "-c", &conf]));
    let mut queue = start();
    until("it is ready", || {
        log().contains("[queue] ready ") && Path::new(&own.file("pid")).exists()
    });
    if !log().contains("[privileges] sandbox: no file") {
        return println!("SKIPPED: this kernel has no Landlock");
    }
    let signal = |signal: i32, said: &str, count: usize| {
        queue.signal(signal);
        until(said, || log().matches(said).count() == count);
    };
    // The file is another one now, and the folder is not empty any more.
    replace(&own, "pegasus.conf", &text);
    own.write("more/one.conf", "queue_lease=20s\n");
    signal(libc::SIGHUP, "configuration reloaded", 1);
    // Another folder, and a command, need a restart: nothing of these is taken over.
    let secret = other.write("secret.conf", "queue_lease=10s\n");
    let refused = [
        format!("include={secret}\n"),
        format!("key_file={secret}\n"),
        "queue_scheduler=exec:/bin/cat\n".into(),
    ];
    for (number, more) in refused.iter().enumerate() {
        replace(&own, "pegasus.conf", &format!("{text}{more}"));
        signal(libc::SIGHUP, "keeping the running configuration", number + 1);
    }
    assert!(log().contains("Permission denied"), "root may read it otherwise: {}", log());
    assert_eq!(log().matches("needs a restart (sandbox=on)").count(), 3, "{}", log());
    // The log moves away, as logrotate does it.
    fs::rename(own.file("log"), own.file("log.1")).unwrap();
    replace(&own, "pegasus.conf", &text);
    queue.signal(libc::SIGUSR1);
    until("a new file is there", || Path::new(&own.file("log")).exists());
    signal(libc::SIGHUP, "configuration reloaded", 1);
    queue.signal(libc::SIGTERM);
    assert_eq!(queue.ends(), 0);
    assert!(!Path::new(&own.file("pid")).exists(), "it is removed");
}

#[test]
fn names_load_and_providers_are_found() {
    let provider = Provider::echo();
    let queue = Queue::start(&["sandbox=on"]);
    let mut monitor = monitor(
        queue.address,
        provider.address,
        &["sandbox=on", "monitor_load=cpu", "service_web_check=tcp"],
    );
    let address = format!("redirect_queue=localhost:{}", queue.address.port());
    let redirect = Redirect::start(queue.address, &["sandbox=on", &address]);
    if is_in_sandbox(&redirect) {
        queue.has(&[provider.address]);
        assert_eq!(visit(redirect.address, "through it"), Ok(()));
        assert!(monitor.runs() && monitor.log_with(&["WARN"]).is_empty(), "{:?}", monitor.log());
    }
}

#[test]
fn a_successor_is_the_program_that_is_there_now_and_may_no_more() {
    let provider = Provider::echo();
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 1000);
    let (directory, other) = (Directory::new(), Directory::new());
    let own = directory.file("pegasus");
    let copy = || {
        // By another process: a child of another test would hold the file open.
        let new = directory.file("new");
        assert!(Command::new("cp").args([path(), &new]).status().unwrap().success());
        fs::rename(new, &own).unwrap();
    };
    copy();
    let text =
        format!("sandbox=on\nredirect_queue={}\nservice_web_listen=127.0.0.1:0\n", queue.address);
    let conf = directory.write("pegasus.conf", &text);
    let mut command = Command::new(&own);
    let redirect = Redirect::of(command.args(["redirect", "-c", &conf]));
    if !is_in_sandbox(&redirect) {
        return;
    }
    let mut successors = Successors::default();
    for round in 0..2 {
        copy();
        successors.upgrade(&redirect);
        assert_eq!(visit(redirect.address, &format!("round {round}")), Ok(()));
    }
    // The newest one cannot leave the sandbox, and says so, and the one before goes on.
    let log = format!("log={}\n", other.file("log"));
    directory.write("pegasus.conf", &format!("{text}{log}"));
    reload(&redirect, &KEPT);
    redirect.signal(libc::SIGUSR2);
    until("it is refused", || {
        !redirect.log_with(&["no upgrade", "needs a restart (sandbox=on)"]).is_empty()
    });
    directory.write("pegasus.conf", &text);
    reload(&redirect, &GOOD);
    assert_eq!(visit(redirect.address, "as before"), Ok(()));
}
