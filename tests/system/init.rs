//! As process 1 of a container: orphans are reaped, and signals arrive.

use crate::support::pegasus::{path, Queue};
use crate::support::process::Process;
use crate::support::{until, until_some, Directory};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// The program as process 1 of a namespace, with an empty environment.
fn contained(directory: &Directory, arguments: &[&str]) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]);
    command.arg(path()).args(arguments).env_clear().current_dir(directory.path());
    command.env("PATH", "/usr/bin:/bin");
    Process::start("contained", &mut command)
}

/// Children of a process, and theirs, in the order of their birth.
fn descendants(id: u32) -> Vec<u32> {
    let children = |id: u32| -> Vec<u32> {
        fs::read_to_string(format!("/proc/{id}/task/{id}/children"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|id| id.parse().ok())
            .collect()
    };
    let direct = children(id);
    direct.iter().flat_map(|id| [vec![*id], descendants(*id)].concat()).collect()
}

fn is_zombie(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn as_process_1_it_reaps_orphans_and_passes_signals_on() {
    let directory = Directory::new();
    let queue = Queue::start(&[]);
    let provider: SocketAddr = "10.0.0.7:80".parse().unwrap();
    let count = directory.file("count");
    // Each check leaves an orphan that ends a little later.
    let check = format!("service_web_check=exec:setsid sleep 0.1 & echo x >>{count}");
    let balancer = format!("monitor_balancers={}", queue.address);
    let mut monitor = contained(
        &directory,
        &[
            "monitor",
            "-c",
            "/dev/null",
            "-o",
            &balancer,
            "-o",
            "service_web_provider=10.0.0.7:80",
            "-o",
            "monitor_interval=200ms",
            "-o",
            &check,
        ],
    );
    monitor.says(&["] ready "]);
    let init = until_some("its first process", || descendants(monitor.id()).first().copied());
    assert!(Path::new(&format!("/proc/{init}")).exists());
    until("it offers", || queue.status().tickets(provider) > 0);
    until("many checks have run", || fs::read_to_string(&count).is_ok_and(|text| text.len() >= 20));
    until("no orphan is left over", || !descendants(monitor.id()).into_iter().any(is_zombie));
    // SAFETY: plain numbers; the process lives in the namespace of this test's own child.
    unsafe { libc::kill(init as i32, libc::SIGTERM) };
    assert_eq!(monitor.ends(), 0);
    assert_eq!(queue.status().tickets(provider), 0, "it withdrew");
}
