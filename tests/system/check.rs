//! `pegasus check`: what will go wrong on a host, and how to mend it.

use crate::support::pegasus::{closed_address, path, pegasus, Queue};
use crate::support::process::run;
use crate::support::provider::Provider;
use crate::support::{unknown_name, Directory};
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const KEY: &str = "8c1f2d4a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";

/// A folder that stands for the root of a host with this file.
fn host(directory: &Directory, file: &str, text: &str) -> String {
    let path = directory.file(&format!("root/{file}"));
    fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    directory.file("root")
}

#[test]
fn five_faults_of_a_host_are_named_with_what_mends_them() {
    let directory = Directory::new();
    let line = "8080 stream tcp nowait nobody /usr/sbin/pegasus pegasus redirect -s web";
    let root = host(&directory, "etc/inetd.conf", &format!("# a comment\n{line}\n"));
    let keys = directory.write("keys", &format!("me=\"observer {KEY}\"\n"));
    fs::set_permissions(&keys, Permissions::from_mode(0o644)).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap();
    let conf = directory.write(
        "pegasus.conf",
        &format!(
            "key_file={keys}\nqueue_listen=127.0.0.1:0\nmonitor_balancers={}\n\
             service_web_listen={place}\nservice_web_provider={place}\n",
            closed_address()
        ),
    );
    let check = |more: &str| {
        let script = format!("ulimit -n 256; exec \"$0\" check -c {conf} --root {root}{more}");
        run(Command::new("sh").args(["-c", &script, path()]), b"")
    };
    let (status, text, errors) = check("");
    assert_eq!((status, errors.as_str()), (78, ""), "{text}");
    let inetd = format!("{root}/etc/inetd.conf:2: openbsd-inetd starts this at most 256 times");
    let expected = [
        (inetd, line.replace("nowait", "nowait.6000")),
        ("redirect_connections_max=10000: a process started".into(), "LimitNOFILE=".into()),
        (format!("key_file={keys}: its mode is 0644"), format!("chmod 0640 {keys}")),
        (format!("service_web_listen={place}: {place} is in use by"), "another port".into()),
        (
            "the monitor would offer service web at an address where redirect listens".into(),
            "set service_web_provider to the server's own port or address".into(),
        ),
    ];
    for (what, mend) in &expected {
        let at = text.find(what.as_str()).unwrap_or_else(|| panic!("{what}\n{text}"));
        let next = text[at..].lines().take_while(|line| !line.is_empty()).take(3);
        let finding: Vec<&str> = next.collect();
        assert!(finding.join("\n").contains(mend.as_str()), "{mend}\n{text}");
    }
    let process = std::process::id();
    assert!(text.contains(&format!("(process {process})")), "{text}");
    let (status, json, _) = check(" --json");
    assert_eq!(status, 78);
    for check in ["configuration", "inetd", "descriptors", "addresses", "own addresses"] {
        assert!(json.contains(&format!("\"check\":\"{check}\"")), "{json}");
    }
    assert!(json.ends_with(",\"status\":78}\n"), "{json}");
}

#[test]
fn a_host_without_faults_has_no_findings() {
    let directory = Directory::new();
    let provider = Provider::echo();
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 1);
    let sample = include_str!("../../conf/inetd.conf").replace("/usr/local", "/usr");
    let root = host(&directory, "etc/inetd.conf", &sample);
    for (file, text) in [
        ("etc/xinetd.d/pegasus", include_str!("../../conf/xinetd/pegasus")),
        (
            "etc/systemd/system/pegasus-client.socket",
            include_str!("../../conf/systemd/pegasus-client.socket"),
        ),
        (
            "etc/systemd/system/pegasus-client@.service",
            include_str!("../../conf/systemd/pegasus-client@.service"),
        ),
    ] {
        host(&directory, file, text);
    }
    let conf = directory.write(
        "pegasus.conf",
        &format!(
            "redirect_queue={0}\nmonitor_balancers={0}\nredirect_connections_max=100\n\
             service_web_listen=127.0.0.1:0\nservice_web_provider={1}\n",
            queue.address, provider.address
        ),
    );
    let (status, text, errors) = pegasus(&["check", "-c", &conf, "--root", &root]);
    assert_eq!((status, errors.as_str()), (0, ""), "{text}");
    assert!(text.ends_with("nothing found that will go wrong\n"), "{text}");
    assert!(text.contains("note: redirect: threads="), "{text}");
    let status = queue.status();
    let service = status.service("pegasus-check").expect("the round trip");
    assert_eq!(service.number("tickets"), 0);
    assert!(service.number("granted") > 0, "the ticket was given");
    // Stock units lose clients.
    host(
        &directory,
        "etc/systemd/system/pegasus-client.socket.d/own.conf",
        "[Socket]\nMaxConnections=64\n",
    );
    let (status, text, _) = pegasus(&["check", "-c", &conf, "--root", &root]);
    assert_eq!(status, 78, "{text}");
    assert!(text.contains("-> MaxConnections=1024"), "{text}");
}

#[test]
fn who_cannot_be_reached_or_refuses_is_named() {
    let directory = Directory::new();
    let root = directory.file("nothing");
    let check = |settings: &[String]| {
        let mut words = vec!["check", "-c", "/dev/null", "--root", &root];
        settings.iter().for_each(|setting| words.extend(["-o", setting]));
        pegasus(&words)
    };
    let (away, dead) = (closed_address(), closed_address());
    let queue = Queue::start(&[]);
    queue.offer(dead, 1);
    let (status, text, _) = check(&[
        format!("redirect_queue={}", queue.address),
        format!("monitor_balancers={away} {}", unknown_name()),
        "service_web_provider=:80".into(),
        format!("service_web_fallback={}", closed_address()),
    ]);
    assert_eq!(status, 69, "{text}");
    for what in [
        &format!("monitor_balancers: the name {} does not resolve", unknown_name()),
        &format!("monitor_balancers={away}: this queue cannot be reached"),
    ] {
        assert!(text.contains(what), "{what}\n{text}");
    }
    let (status, text, _) = check(&[
        format!("redirect_queue={}", queue.address),
        "service_web_listen=127.0.0.1:0".into(),
        "redirect_connections_max=100".into(),
    ]);
    assert_eq!(status, 69, "{text}");
    assert!(text.contains(&format!("provider of web: {dead} cannot be reached")), "{text}");
    let offers =
        [format!("monitor_balancers={}", queue.address), format!("service_a_provider={dead}")];
    let (status, text, _) = check(&offers);
    assert_eq!(status, 69, "{text}");
    assert!(text.contains(&format!("service_a_provider: {dead} cannot be reached")), "{text}");
    let closed = Queue::start(&["queue_allow_ticket=192.0.2.0/24"]);
    let offers = [format!("monitor_balancers={}", closed.address), "service_a_provider=:80".into()];
    let (status, text, _) = check(&offers);
    assert_eq!(status, 78, "{text}");
    assert!(text.contains("refuses `ticket`: error denied"), "{text}");
    assert!(text.contains("-> queue_allow_ticket=\"127.0.0.0/8 ::1 NETWORK\""), "{text}");
    assert_eq!(pegasus(&["check", "what"]).0, 64);
}
