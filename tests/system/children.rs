//! What the daemons keep from the programs that they start.

use crate::support::pegasus::{monitor, Balancer, Queue};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::connect;
use crate::support::{until, until_some, Directory};
use std::fs;
use std::io::{Read, Write};

/// Returns the descriptors of a process beyond the standard ones that an exec would keep, and
/// how many it has in all.
fn kept(process: u32) -> (Vec<(i32, String)>, usize) {
    let place = format!("/proc/{process}");
    let (mut kept, mut all) = (Vec::new(), 0);
    for entry in fs::read_dir(format!("{place}/fd")).unwrap().flatten() {
        let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        // One may be closed while they are listed.
        let Ok(text) = fs::read_to_string(format!("{place}/fdinfo/{number}")) else { continue };
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        if number > 2 && flags & libc::O_CLOEXEC == 0 {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            kept.push((number, target.display().to_string()));
        }
        all += 1;
    }
    (kept, all)
}

/// Those that the test has itself from whatever started it, and that all its children have.
fn inherited() -> Vec<(i32, String)> {
    kept(std::process::id()).0
}

#[test]
fn every_descriptor_of_a_daemon_is_closed_at_an_exec() {
    let provider = Provider::echo();
    let admin = "redirect_admin=127.0.0.1:0";
    let balancer = Balancer::before(&[provider.address], &["redirect_threads=2", admin]);
    let monitor = monitor(balancer.queue.address, provider.address, &[]);
    let mut client = connect(balancer.address());
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    // Their connections are there by then.
    until("the monitor offers", || balancer.queue.status().queue().number("connections") >= 3);
    let daemons: [(&Process, usize); 3] =
        [(&balancer.queue, 8), (&balancer.redirect, 10), (&monitor, 6)];
    for (process, least) in daemons {
        let (mut kept, all) = kept(process.id());
        kept.retain(|descriptor| !inherited().contains(descriptor));
        assert!(kept.is_empty(), "{kept:?}");
        assert!(all >= least, "{all} descriptors");
    }
}

#[test]
fn programs_of_others_see_the_standard_descriptors_only() {
    let directory = Directory::new();
    // The shell's own: `ls` would show the directory that it reads, too.
    let list = |name: &str| {
        let file = directory.file(name);
        format!("(cd /proc/$$/fd; echo * >{file}.new; mv {file}.new {file})")
    };
    let provider = Provider::echo();
    // A shell has its script open, and the shell after it has none.
    let list_and_stay = format!("exec sh -c '{}; exec cat >/dev/null'", list("scheduler"));
    let scheduler = directory.write("scheduler.sh", &list_and_stay);
    let queue = Queue::start(&[&format!("queue_scheduler=exec:sh {scheduler}")]);
    let load = format!("monitor_load=exec:{}; echo 0", list("load"));
    let check = format!("service_web_check=exec:{}", list("check"));
    let _monitor = monitor(queue.address, provider.address, &[&load, &check]);
    for name in ["scheduler", "load", "check"] {
        let seen = until_some(name, || fs::read_to_string(directory.file(name)).ok());
        let numbers = seen.split_whitespace().map(|word| word.parse::<i32>().unwrap());
        let is_known =
            |number: i32| number <= 2 || inherited().iter().any(|(known, _)| *known == number);
        assert!(numbers.clone().count() >= 3 && numbers.clone().all(is_known), "{name}: {seen}");
    }
}
