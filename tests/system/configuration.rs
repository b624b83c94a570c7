//! The configuration: read, tested and reloaded; and where the log goes.

use crate::support::pegasus::{closed_address, command, pegasus, program, Balancer, Queue};
use crate::support::process::{run, Process};
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, listen_v6_only};
use crate::support::{unknown_name, until, Directory};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};

#[test]
fn a_good_configuration_is_called_good() {
    let directory = Directory::new();
    let conf = directory.write(
        "good.conf",
        "# everything at once\nqueue_listen=\"127.0.0.1:0 [::1]:0\"\nqueue_lease=1m\n\n\
         service_web_listen='*:8080'\nservice_web_provider=:80\nlog_level=warn\n",
    );
    for name in ["queue", "redirect", "monitor"] {
        let (status, out, err) = pegasus(&[name, "-t", "-c", &conf]);
        assert_eq!((status, err.as_str()), (0, ""), "{out}");
    }
}

#[test]
fn without_a_command_it_is_tested_for_all() {
    let directory = Directory::new();
    let conf = directory.write(
        "pegasus.conf",
        "queue_listen=:0\nSERVICE_MY_APP_LISTEN='8080 :8081/udp'\nservice_db_provider=db1:5432\n",
    );
    let (status, out, err) = pegasus(&["-t", "-c", &conf]);
    assert_eq!((status, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines,
        [
            "the configuration is good",
            "queue listens on *:0",
            "redirect serves my-app on *:8080 *:8081/udp",
            "monitor offers db to 127.0.0.1:7347",
        ]
    );
    let (status, out, err) = pegasus(&["--config", &conf, "--test", "-o", "queue_lease=soon"]);
    assert_eq!((status, out.as_str()), (78, ""));
    assert!(err.contains("-o queue_lease=soon: "), "{err}");
    assert_eq!(pegasus(&["-c", &conf]).0, 64, "a command is missing");
}

#[test]
fn included_files_are_read_and_mistakes_in_them_are_placed() {
    let directory = Directory::new();
    fs::create_dir(directory.file("conf.d")).unwrap();
    let conf = directory.write(
        "pegasus.conf",
        "include=conf.d\ninclude=\"one more\"\nqueue_lease=1m\ninclude=nowhere\n",
    );
    directory.write("conf.d/.hidden.conf", "what\n");
    directory.write("conf.d/note.txt", "what\n");
    let second = directory.write("conf.d/20.conf", "queue_lesae=1m\nservice_b_listen=81\n");
    let first = directory.write("conf.d/10.conf", "include=../deep\nservice_a_listen=80\n");
    let deep = directory.write("deep", "include=deeper\ninclude=conf.d\nqueue_wait_max=soon\n");
    let other = directory.write("one more", "queue_lease=2m\nservice_b_listen=82\n");
    let (status, out, err) = pegasus(&["-t", "-c", &conf]);
    assert_eq!((status, out.as_str()), (78, ""));
    let folder = directory.file("nowhere");
    let expected = [
        format!("{deep}:1: include=deeper: too deep: "),
        format!("{deep}:2: include=conf.d: too deep: "),
        format!("{deep}:3: queue_wait_max=soon: "),
        format!("{second}:1: queue_lesae=1m: no such key; did you mean queue_lease?"),
        format!("{other}:2: service_b_listen is already set in {second}:2"),
        format!("{conf}:3: queue_lease is already set in {other}:1"),
        format!("{conf}:4: include=nowhere: {folder}: "),
    ];
    // The path of a relative include is as it is written.
    let plain = |err: String| err.replace('\\', "/").replace("conf.d/../", "");
    let err = plain(err);
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{err}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with(&format!("pegasus: {expected}")), "{line}\n{expected}");
    }
    directory.write("conf.d/20.conf", "include=../pegasus.conf\ninclude=10.conf\n");
    let err = plain(pegasus(&["-t", "-c", &conf]).2);
    assert!(err.contains("this is the configuration that includes it"), "{err}");
    assert!(err.contains(&format!("{first}: already included at {conf}:1")), "{err}");
    let (status, _, err) = pegasus(&["-t", "-o", &format!("include={other}")]);
    assert_eq!(status, 78);
    assert!(err.contains("only a file can include others"), "{err}");
}

#[test]
fn hup_reads_included_files_again() {
    let directory = Directory::new();
    fs::create_dir(directory.file("conf.d")).unwrap();
    let queue = configured(&directory, "include=conf.d\n");
    queue.offer("10.0.0.7", 5);
    assert_eq!(scheduler(&queue), "competitive");
    directory.write("conf.d/a.conf", "queue_scheduler=fifo\n");
    queue.signal(libc::SIGHUP);
    until("the scheduler changes", || scheduler(&queue) == "fifo");
}

#[test]
fn a_service_may_be_typed_as_in_its_key() {
    let queue = Queue::start(&["service_my_app_scheduler=fifo"]);
    let url = |rest: &str| format!("pegasus://{}/{rest}", queue.address);
    let offer = url("ticket?service=MY_APP&provider=10.0.0.7&tickets=1&capacity=1");
    assert_eq!(pegasus(&["send", &offer]).0, 0);
    let (status, out, _) = pegasus(&["send", &url("next?service=my_app")]);
    assert_eq!((status, out.as_str()), (0, "10.0.0.7\n"));
    let (status, out, _) = pegasus(&["status", "-s", "my_app", &queue.address.to_string()]);
    assert!(status == 0 && out.contains("my-app") && out.contains("fifo"), "{out}");
}

#[test]
fn a_monitor_looks_the_name_of_a_provider_up() {
    let queue = Queue::start(&[]);
    let settings = [
        format!("monitor_balancers={}", queue.address),
        "monitor_interval=200ms".into(),
        "service_web_provider=localhost:80".into(),
        "service_web_check=off".into(),
        format!("service_db_provider={}:81", unknown_name()),
        "service_db_check=off".into(),
    ];
    let mut command = command("monitor", &settings.each_ref().map(String::as_str));
    let mut monitor = Process::start("monitor", &mut command);
    monitor.says(&["ready", "web=localhost:80", &format!("db={}:81", unknown_name())]);
    monitor.says(&["WARN", &format!("{}: the name does not resolve", unknown_name())]);
    let offered = || {
        let status = queue.status();
        ["127.0.0.1:80", "[::1]:80"].iter().map(|at| status.tickets(at)).sum::<u64>()
    };
    until("an address is offered", || offered() > 0);
    assert!(queue.status().service("db").is_none(), "what has no address is not offered");
}

#[test]
fn the_sample_is_good() {
    let (status, sample, _) = pegasus(&["help", "config"]);
    assert_eq!(status, 0);
    let directory = Directory::new();
    let all: String = sample
        .lines()
        .filter(|line| {
            line.starts_with('#')
                && line.contains('=')
                && !line.contains(' ')
                && !line.ends_with('=')
        })
        .map(|line| line.trim_start_matches('#').replace("NAME", "web") + "\n")
        .filter(|line| !line.starts_with("service_web_check="))
        .collect();
    assert!(all.lines().count() > 20, "{all}");
    for text in [sample, all] {
        let conf = directory.write("pegasus.conf", &text);
        assert_eq!(pegasus(&["queue", "-t", "-c", &conf]).0, 0, "{text}");
    }
}

#[test]
fn whom_this_host_does_not_know_nobody_can_become() {
    let directory = Directory::new();
    for (user, mistake) in [
        ("nobody-knows", "no such user: nobody-knows"),
        ("root:nobody-knows", "no such group: nobody-knows"),
        ("4000000000", "no such group for user: 4000000000"),
    ] {
        let conf = directory.write("pegasus.conf", &format!("log_level=warn\nuser={user}\n"));
        for name in ["queue", "redirect", "monitor"] {
            for arguments in [&[name, "-t", "-c", &conf][..], &[name, "-c", &conf]] {
                let (status, _, err) = pegasus(arguments);
                assert_eq!(
                    (status, err),
                    (78, format!("pegasus: {conf}:2: user={user}: {mistake}\n"))
                );
            }
        }
    }
    let known = directory.write("pegasus.conf", "user=root:0\n");
    assert_eq!(pegasus(&["queue", "-t", "-c", &known]).0, 0);
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let directory = Directory::new();
    let conf = directory.write(
        "bad.conf",
        "queue_lesae=1m\nqueue_lease=soon\nlog_level=warn\nredirect_tries=0\nwhat\n",
    );
    for name in ["queue", "redirect", "monitor"] {
        let (status, out, err) = pegasus(&[name, "-t", "-c", &conf, "-o", "queue_scheduler=best"]);
        assert_eq!((status, out.as_str()), (78, ""));
        let places: Vec<String> =
            [1, 2, 4, 5].iter().map(|line| format!("{conf}:{line}: ")).collect();
        for place in &places {
            assert!(err.contains(place), "{err}");
        }
        assert_eq!(err.lines().count(), 5, "{err}");
        assert!(
            err.contains("did you mean queue_lease?") && err.contains("-o queue_scheduler=best"),
            "{err}"
        );
        let (status, _, without_test) = pegasus(&[name, "-c", &conf, "-o", "queue_scheduler=best"]);
        assert_eq!((status, without_test), (78, err), "the same when it should start");
    }
}

#[test]
fn a_file_that_is_not_there_is_a_mistake() {
    let (status, _, err) = pegasus(&["queue", "-t", "-c", "/nowhere/pegasus.conf"]);
    assert_eq!(status, 78);
    assert!(err.contains("/nowhere/pegasus.conf: "), "{err}");
}

#[test]
fn wrong_usage_is_told_with_its_status() {
    for arguments in [
        vec![],
        vec!["nonsense"],
        vec!["queue", "--nonsense"],
        vec!["queue", "nonsense"],
        vec!["queue", "-s", "web"],
        vec!["redirect", "-s", "-"],
        vec!["redirect", "-c", "/dev/null", "-s", "web"],
        vec!["demo", "--seconds", "0"],
        vec!["help", "nonsense"],
    ] {
        let (status, out, err) = pegasus(&arguments);
        assert_eq!((status, out.as_str()), (64, ""), "{arguments:?}");
        assert!(err.starts_with("pegasus: "), "{err}");
    }
    for arguments in [
        ["help"].as_slice(),
        &["--help"],
        &["--version"],
        &["queue", "--help"],
        &["help", "protocol"],
    ] {
        let (status, out, err) = pegasus(arguments);
        assert_eq!((status, err.as_str()), (0, ""), "{arguments:?}");
        assert!(!out.is_empty());
    }
}

#[test]
fn nothing_to_serve_or_offer_is_a_configuration_error() {
    assert_eq!(run(&mut command("redirect", &[]), b"").0, 78);
    assert_eq!(run(&mut command("monitor", &[]), b"").0, 78);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let directory = Directory::new();
    let conf = directory.write("pegasus.conf", "queue_listen=127.0.0.1:0\nqueue_scheduler=fifo\n");
    let queue =
        Queue::of(program().args(["queue", "-c", &conf, "-o", "queue_scheduler=round-robin"]));
    queue.offer("10.0.0.7", 1);
    assert_eq!(queue.status().service("web").unwrap().text("scheduler"), "round-robin");
}

/// A queue with a configuration file with this content.
fn configured(directory: &Directory, text: &str) -> Queue {
    let conf = directory.write("pegasus.conf", &format!("queue_listen=127.0.0.1:0\n{text}"));
    Queue::of(program().args(["queue", "-c", &conf]))
}

fn scheduler(queue: &Queue) -> String {
    queue.status().service("web").map_or(String::new(), |row| row.text("scheduler").to_string())
}

#[test]
fn hup_reads_the_configuration_again() {
    let directory = Directory::new();
    let mut queue = configured(&directory, "");
    queue.offer("10.0.0.7", 5);
    let mut line = queue.connect();
    assert_eq!(line.ask("next?service=web&id=1"), "10.0.0.7 id=1");
    assert_eq!(scheduler(&queue), "competitive");
    directory.write("pegasus.conf", "queue_listen=127.0.0.1:0\nqueue_scheduler=fifo\n");
    queue.signal(libc::SIGHUP);
    until("the scheduler changes", || scheduler(&queue) == "fifo");
    queue.says(&["INFO", "[config] configuration reloaded"]);
    let status = queue.status();
    assert_eq!((status.tickets("10.0.0.7"), status.active("10.0.0.7")), (5, 1), "tickets survive");
    assert_eq!(line.ask("done?id=1"), "ok", "and connections");
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let directory = Directory::new();
    let mut queue = configured(&directory, "queue_scheduler=fifo\n");
    queue.offer("10.0.0.7", 5);
    let conf = directory
        .write("pegasus.conf", "queue_listen=127.0.0.1:0\nqueue_scheduler=rr\nqueue_lease=soon\n");
    queue.signal(libc::SIGHUP);
    queue.says(&["ERROR", &format!("{conf}:3: queue_lease=soon: ")]);
    queue.says(&["ERROR", "keeping the running configuration"]);
    assert_eq!(scheduler(&queue), "fifo");
    directory.write("pegasus.conf", "queue_listen=127.0.0.1:0\nqueue_scheduler=rr\n");
    queue.signal(libc::SIGHUP);
    until("a good one is taken", || scheduler(&queue) == "round-robin");
}

#[test]
fn hup_of_a_redirector_keeps_its_connections() {
    use std::io::{Read, Write};
    let provider = Provider::echo();
    let mut balancer = Balancer::before(&[provider.address], &[]);
    let mut client = connect(balancer.address());
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    balancer.redirect.signal(libc::SIGHUP);
    balancer.redirect.says(&["[config] configuration reloaded"]);
    client.write_all(b"y").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client).0, b"y");
}

#[test]
fn hup_of_a_monitor_withdraws_what_is_no_longer_offered() {
    let queue = Queue::start(&[]);
    let directory = Directory::new();
    let text = |service: &str| {
        format!(
            "monitor_balancers={}\nmonitor_interval=200ms\nservice_{service}_provider=10.0.0.7:80\n\
             service_{service}_check=off\n",
            queue.address
        )
    };
    let conf = directory.write("pegasus.conf", &text("old"));
    let monitor = Process::start("monitor", program().args(["monitor", "-c", &conf]));
    let offers =
        |service: &str| queue.status().service(service).map_or(0, |row| row.number("tickets"));
    until("the old service", || offers("old") > 0);
    directory.write("pegasus.conf", &text("new"));
    monitor.signal(libc::SIGHUP);
    until("the new service instead", || offers("new") > 0 && offers("old") == 0);
}

#[test]
fn the_log_may_be_a_file_that_is_moved_away() {
    let directory = Directory::new();
    let log = directory.file("log");
    let moved = directory.file("log.1");
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let place = format!("127.0.0.1:{}", crate::support::free_port());
    let settings = [format!("log={log}"), format!("queue_listen={place}")];
    let mut command = command("queue", &settings.each_ref().map(String::as_str));
    let mut process = Process::start("queue", &mut command);
    until("it is ready", || read(&log).contains("ready"));
    let ask = |message: &str| {
        let url = format!("pegasus://{place}/{message}");
        assert_eq!(pegasus(&["send", &url]).0, 0);
    };
    ask("ticket?provider=10.0.0.1&tickets=1&capacity=1");
    until("the first line", || read(&log).contains("registered service=default provider=10.0.0.1"));
    fs::rename(&log, &moved).unwrap();
    ask("ticket?provider=10.0.0.2&tickets=1&capacity=1");
    until("the old file is still written to", || read(&moved).contains("10.0.0.2"));
    process.signal(libc::SIGUSR1);
    until("there is a new file", || fs::exists(&log).unwrap());
    ask("ticket?provider=10.0.0.3&tickets=1&capacity=1");
    until("the new file is written to", || read(&log).contains("10.0.0.3"));
    assert!(!read(&moved).contains("10.0.0.3"));
    process.signal(libc::SIGTERM);
    assert_eq!(process.ends(), 0);
    assert_eq!(process.log(), Vec::<String>::new(), "nothing went elsewhere");
}

#[test]
fn a_port_in_use_is_what_the_system_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap();
    for (name, setting) in [("queue", "queue_listen"), ("redirect", "service_web_listen")] {
        let (status, _, err) = run(&mut command(name, &[&format!("{setting}={place}")]), b"");
        assert_eq!(status, 71, "{err}");
        assert!(err.contains(&place.to_string()), "{err}");
    }
}

#[test]
fn quieter_and_louder() {
    let queue = |options: &[&str]| {
        let mut command = command("queue", &["queue_listen=127.0.0.1:0"]);
        Process::start("queue", command.args(options))
    };
    queue(&[]).says(&["INFO", "ready"]);
    queue(&["-v"]).says(&["INFO", "ready"]);
    let place = format!("127.0.0.1:{}", crate::support::free_port());
    let mut quiet =
        Process::start("queue", command("queue", &[&format!("queue_listen={place}")]).arg("-q"));
    until("it listens", || pegasus(&["send", &format!("pegasus://{place}/status")]).0 == 0);
    quiet.signal(libc::SIGTERM);
    assert_eq!(quiet.ends(), 0);
    assert_eq!(quiet.log_with(&["INFO"]), Vec::<String>::new());
}

#[test]
fn one_look_prints_what_would_be_sent_and_sends_nothing() {
    let queue = Queue::start(&[]);
    let settings = [
        format!("monitor_balancers={}", queue.address),
        format!("service_web_provider={}", closed_address()),
        "monitor_interval=100ms".into(),
    ];
    let mut command = command("monitor", &settings.each_ref().map(String::as_str));
    let (status, out, _) = run(command.arg("--once"), b"");
    assert_eq!(status, 0);
    assert!(out.contains("sample cpus=") && out.contains("check service=web well=no"), "{out}");
    assert!(out.contains("/ticket?"), "{out}");
    assert_eq!(queue.status().providers().count(), 0);
}

#[test]
fn an_address_of_both_families_that_got_only_one_is_reported() {
    let Some(taken) = listen_v6_only() else { return };
    let port = taken.local_addr().unwrap().port();
    let listen = format!("service_web_listen=*:{port}");
    let queue = format!("redirect_queue={}", closed_address());
    let mut redirect = Process::start("redirect", &mut command("redirect", &[&listen, &queue]));
    redirect.says(&["WARN", &format!("*:{port}: IPv4 only")]);
    drop(connect((Ipv4Addr::LOCALHOST, port).into()));
}
