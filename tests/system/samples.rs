//! The samples in `conf`, used as intended. Only addresses, paths and users are replaced,
//! and a test's configuration is named.

use crate::support::datagram::{ask, client, Sink};
use crate::support::inetd::entry;
use crate::support::pegasus::{configuration, path, Queue, Redirect};
use crate::support::process::{run, Process};
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, End};
use crate::support::superserver::{busybox_has, skipped, user, xinetd, Imitated, Imitation};
use crate::support::{free_port, installed, output, tool, until, Directory};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

const PROGRAM: &str = "/usr/local/sbin/pegasus";

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What every sample needs: a queue, and a provider of each service.
struct Setting {
    directory: Directory,
    conf: String,
    _others: (Queue, Provider, Sink),
}

impl Setting {
    fn new() -> Setting {
        let queue = Queue::start(&[]);
        let streams = Provider::echo();
        let datagrams = Sink::echo();
        let directory = Directory::new();
        for (service, address) in
            [("web", streams.address), ("shop", streams.address), ("dns", datagrams.address)]
        {
            queue.ask(&format!(
                "ticket?service={service}&provider={address}&tickets=1000&capacity=1000&lease=10m"
            ));
        }
        let at = format!("redirect_queue={}", queue.address);
        let conf =
            configuration(&directory, &[&at, "redirect_linger=200ms", "service_dns_udp_replies=1"]);
        Setting { directory, conf, _others: (queue, streams, datagrams) }
    }

    /// Returns the sample with this binary, user and configuration. No process may
    /// outlive the test.
    fn adapt(&self, text: &str) -> String {
        let named = format!("redirect -c {} -s ", self.conf);
        let text = text
            .replace(PROGRAM, path())
            .replace("nobody", &user())
            .replace("redirect -s ", &named);
        text.replace("redirect_linger=1h", "redirect_linger=200ms")
    }
}

/// Asserts that a client gets its bytes back.
#[track_caller]
fn serves(place: SocketAddr, datagrams: bool) {
    if datagrams {
        assert_eq!(ask(&client(place), b"hello"), b"hello", "{place}");
        return;
    }
    let mut client = connect(place);
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client), (b"hello".to_vec(), End::Fin), "{place}");
}

/// Waits until a socket listens there, without connecting.
#[track_caller]
fn until_listens(process: &mut Process, port: u16, datagrams: bool) {
    until("it listens", || {
        assert!(process.runs(), "{:#?}", process.log());
        entry(port, datagrams).is_some()
    });
}

/// Returns the lines of conf/inetd.conf, including those in comments.
fn inetd_lines() -> Vec<String> {
    let is_line = |line: &str| {
        line.split_whitespace().nth(1).is_some_and(|word| word == "stream" || word == "dgram")
    };
    sample("inetd.conf")
        .lines()
        .map(|line| line.trim_start_matches('#').to_string())
        .filter(|line| is_line(line))
        .collect()
}

/// One inetd with all lines that it understands.
fn lines_of_inetd_conf(program: &str, options: &[&str]) {
    let Some(inetd) = installed(program).filter(|_| program != "busybox" || busybox_has("inetd"))
    else {
        return skipped(&format!("inetd of {program}"));
    };
    let setting = Setting::new();
    let mut text = String::new();
    let mut places = Vec::new();
    for line in inetd_lines() {
        let (first, rest) = line.split_once(' ').unwrap();
        // The others have no syntax for an IPv6 address with its port.
        if first.starts_with('[') && program != "inetd" {
            continue;
        }
        let rest = if program == "busybox" { rest.replace(".6000", "") } else { rest.to_string() };
        let ip = if first.starts_with('[') {
            Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        };
        let place = SocketAddr::new(ip, free_port());
        text += &setting.adapt(&format!("{place} {rest}\n"));
        places.push((place, rest.trim_start().starts_with("dgram")));
    }
    assert!(places.len() >= 3);
    let conf = setting.directory.write("inetd.conf", &text);
    let mut process = Process::start(program, Command::new(inetd).args(options).arg(conf));
    for (place, datagrams) in places {
        if place.is_ipv4() {
            until_listens(&mut process, place.port(), datagrams);
        }
        serves(place, datagrams);
    }
}

#[test]
fn every_line_of_inetd_conf() {
    let inetds: [(&str, &[&str]); 3] = [
        ("inetd", &["-d", "-i"]),
        ("inetutils-inetd", &["-d", "-R", "60000"]),
        ("busybox", &["inetd", "-f", "-e"]),
    ];
    let threads = inetds
        .map(|(program, options)| thread::spawn(move || lines_of_inetd_conf(program, options)));
    threads.into_iter().for_each(|thread| thread.join().expect("what went wrong is above"));
}

#[test]
fn every_service_of_the_sample_for_xinetd() {
    let Some(program) = installed("xinetd") else { return skipped("xinetd") };
    let setting = Setting::new();
    let mut text = String::new();
    let mut places = Vec::new();
    for line in setting.adapt(&sample("xinetd/pegasus")).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["port", "=", port] = words[..] {
            let place: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
            places.push((place, port == "53"));
            text += &format!("\tbind = 127.0.0.1\n\tport = {}\n", place.port());
        } else {
            text += &format!("{line}\n");
        }
    }
    assert_eq!(places.len(), 3);
    let conf = setting.directory.write("xinetd.conf", &text);
    let mut process = Process::start("xinetd", &mut xinetd(program, &setting.directory, &conf));
    for (place, datagrams) in places {
        until_listens(&mut process, place.port(), datagrams);
        serves(place, datagrams);
    }
}

const UNITS: [&str; 7] = [
    "pegasus-export.service",
    "pegasus-queue.service",
    "pegasus-redirect.service",
    "pegasus-redirect.socket",
    "pegasus-monitor.service",
    "pegasus-client.socket",
    "pegasus-client@.service",
];

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_their_sandbox() {
    if installed("systemd-analyze").is_none() {
        return skipped("systemd-analyze");
    }
    let directory = Directory::new();
    let files = UNITS.map(|name| {
        directory.write(name, &sample(&format!("systemd/{name}")).replace(PROGRAM, path()))
    });
    let (status, _, said) =
        run(tool("systemd-analyze").args(["verify", "--man=no"]).args(&files), b"");
    let said: Vec<&str> = said.lines().filter(|line| line.contains("pegasus")).collect();
    assert!(status == 0 && said.is_empty(), "{status}: {said:#?}");
    if !output(tool("systemd-analyze").arg("--help")).contains("--offline") {
        return skipped("systemd-analyze of systemd 250");
    }
    for file in files.iter().filter(|file| file.ends_with(".service")) {
        // systemd's exposure level is at most 2.0 of 10.
        let arguments = ["security", "--offline=true", "--threshold=20", file];
        let (status, table, _) = run(tool("systemd-analyze").args(arguments), b"");
        assert_eq!(status, 0, "{table}");
    }
}

/// Returns the words of a line of a unit.
fn unit(name: &str, key: &str) -> String {
    let text = sample(&format!("systemd/{name}"));
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("{name} has no {key}")).to_string()
}

#[test]
fn what_the_units_start_serves_the_sockets_that_the_units_open() {
    if installed("systemd-socket-activate").is_none() {
        return skipped("systemd-socket-activate");
    }
    let setting = Setting::new();
    // The sockets of the one are listeners with a name, of the other connections.
    let name = format!("--fdname={}", unit("pegasus-redirect.socket", "FileDescriptorName"));
    for (service, options) in [
        ("pegasus-redirect", vec![name.as_str()]),
        ("pegasus-client@", vec!["--inetd", "--accept"]),
    ] {
        let start = unit(&format!("{service}.service"), "ExecStart").replace(PROGRAM, path());
        let place: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let mut activate = tool("systemd-socket-activate");
        activate
            .arg(format!("--listen={place}"))
            .args(options)
            .args(start.split(' '))
            .args(["-c", &setting.conf]);
        let mut process = Process::start("systemd-socket-activate", &mut activate);
        until_listens(&mut process, place.port(), false);
        serves(place, false);
    }
    for service in ["pegasus-queue", "pegasus-monitor"] {
        let start = unit(&format!("{service}.service"), "ExecStart").replace(PROGRAM, path());
        let mut words = start.split(' ');
        let mut command = Command::new(words.next().unwrap());
        output(command.args(words).args([
            "-t",
            "-c",
            &setting.conf,
            "-o",
            "service_web_provider=:80",
        ]));
    }
}

/// A client that stays is served meanwhile, and no client is turned away.
#[test]
fn a_restart_of_the_unit_of_the_monitor_keeps_its_provider_away_for_a_moment_only() {
    let (queue, provider) = (Queue::start(&[]), Provider::echo());
    let redirect = Redirect::start(queue.address, &["redirect_wait=20s"]);
    let directory = Directory::new();
    let balancer = format!("monitor_balancers={}", queue.address);
    let place = format!("service_web_provider={}", provider.address);
    // Without the option of the unit it would stay.
    let conf = configuration(&directory, &[&balancer, &place, "drain_timeout=5m"]);
    let line = unit("pegasus-monitor.service", "ExecStart").replace(PROGRAM, path());
    let start = || {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        Process::start("monitor", command.args(words).args(["-c", &conf]))
    };
    let mut old = start();
    queue.has(&[provider.address]);
    let mut stays = connect(redirect.address);
    let mut echo = |text: &[u8; 2]| {
        let mut answer = [0; 2];
        stays.write_all(text).unwrap();
        stays.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, text);
    };
    echo(b"hi");
    old.signal(libc::SIGTERM);
    assert_eq!(old.ends(), 0, "although a client stays");
    until("it has withdrawn", || queue.status().tickets(provider.address) == 0);
    let waits = thread::spawn(move || serves(redirect.address, false));
    until("a client waits", || queue.status().queue().number("waiting") == 1);
    let _new = start();
    waits.join().unwrap();
    echo(b"yo");
}

#[test]
fn the_property_list_of_launchd() {
    let text = sample("launchd/net.pegasus.web.plist");
    if installed("xmllint").is_some() {
        let (status, _, said) =
            run(tool("xmllint").args(["--noout", "--nonet", "-"]), text.as_bytes());
        assert_eq!((status, said.as_str()), (0, ""));
    } else {
        skipped("xmllint");
    }
    // What launchd would start, with Wait true.
    assert!(text.replace(char::is_whitespace, "").contains("<key>Wait</key><true/>"));
    let array =
        text.split_once("<key>ProgramArguments</key>").unwrap().1.split_once("</array>").unwrap().0;
    let words = array.split("<string>").skip(1).map(|word| word.split_once("</string>").unwrap().0);
    let setting = Setting::new();
    let mut words: Vec<String> = words.map(|word| setting.adapt(word)).collect();
    words.extend(["-c", &setting.conf].map(str::to_string));
    let port = free_port();
    let _launchd = Imitation::start(port, Imitated::Listener, [true; 3], words);
    serves((Ipv4Addr::LOCALHOST, port).into(), false);
}

/// Stand-ins for procd and for the reader of /etc/config: an instance is tested instead of
/// started.
const OPENWRT: &str = r#"
procd_open_instance() { echo "open $1"; }
procd_close_instance() { :; }
procd_append_param() { echo "unexpected $*"; exit 1; }
procd_add_reload_trigger() { echo "trigger $1"; }
procd_set_param() {
	[ "$1" = command ] || return 0
	shift
	"$@" -t >/dev/null
	echo "$*"
}
logger() { echo "log $*"; }
config() { section=$2; sections="$sections $2"; eval "${2}_TYPE=$1"; }
option() { eval "${section}_$1=\$2"; }
config_load() { . "$UCI"; }
config_foreach() { local s; for s in $sections; do eval "[ \$${s}_TYPE = $2 ]" && $1 $s; done; }
config_get() { eval "$1=\${${2}_$3:-$4}"; }
config_get_bool() { config_get "$@"; }
"#;

#[test]
fn the_init_script_of_openwrt_starts_what_its_configuration_enables() {
    let setting = Setting::new();
    let script = sample("openwrt/pegasus").replace(PROGRAM, path());
    let stubs = setting.directory.write("stubs", OPENWRT);
    let script = setting.directory.write("pegasus", &script);
    // As shipped, with other values of some options.
    let heard = |changes: &[(&str, &str)]| {
        let mut uci = sample("openwrt/pegasus.config")
            .replace("/etc/pegasus.conf", &setting.conf)
            .replace("'pegasus'", &format!("'{}'", user()));
        for (from, to) in changes {
            assert!(uci.contains(from), "{from}");
            uci = uci.replace(from, to);
        }
        let uci = setting.directory.write("uci", &uci);
        let mut sh = tool("sh");
        let script = format!(". {stubs}\n. {script}\nstart_service\nservice_triggers");
        output(sh.args(["-euc", &script]).env("UCI", uci).env("sections", ""))
    };
    assert_eq!(heard(&[]), "trigger pegasus\n", "nothing runs as shipped");
    let enable = |command: &str| {
        let to = format!("config command '{command}'\n\toption enabled '1'");
        (to.replace("'1'", "'0'"), to)
    };
    let [redirect, monitor] = ["redirect", "monitor"].map(enable);
    let (conf, user) = (&setting.conf, user());
    let empty = setting.directory.write("empty.conf", "");
    let both = heard(&[(&redirect.0, &redirect.1), (&monitor.0, &monitor.1), (conf, &empty)]);
    let common = format!("-c {empty} --set user={user}");
    assert!(both.contains(&format!("open redirect\n{} redirect {common}\n", path())), "{both}");
    // It has nothing to offer, and is not started.
    assert!(both.contains("log -s -t pegasus -p daemon.err monitor is not started: "), "{both}");
    assert!(both.contains("service_NAME_provider") && !both.contains("open monitor"), "{both}");
    let provider = configuration(&setting.directory, &["service_web_provider=:80"]);
    let monitors = heard(&[(&monitor.0, &monitor.1), (conf, &provider)]);
    let line =
        format!("{} monitor -c {provider} --set user={user} --set drain_timeout=0\n", path());
    assert_eq!(monitors, format!("open monitor\n{line}trigger pegasus\n"));
    let unknown = heard(&[(&redirect.0, &redirect.1), (&*format!("'{user}'"), "'no-such-user'")]);
    assert!(unknown.contains("redirect is not started") && !unknown.contains("open"), "{unknown}");
}

#[test]
fn the_rc_script_of_freebsd_starts_reloads_and_stops() {
    let setting = Setting::new();
    let port = free_port();
    let directory = &setting.directory;
    let rc = "load_rc_config() { :; }
        run_rc_command() { eval \"\\$${1}_cmd\"; }
        wait_for_pids() {
            for pid; do while kill -0 $pid 2>/dev/null; do sleep 0.02; done; done; }\n";
    // The processes end whatever happens to this test. With --foreground a signal is
    // passed on once; otherwise it would reach the program and its group.
    let daemon = "#!/bin/sh
        while getopts fSrT:P:p: o; do case $o in P) P=$OPTARG;; p) p=$OPTARG;; esac; done
        shift $((OPTIND - 1))
        timeout --foreground 60 \"$@\" </dev/null >/dev/null 2>&1 &
        echo $! >\"$P\"; echo $! >\"$p\"\n";
    let (rc, daemon) = (directory.write("rc.subr", rc), directory.write("daemon", daemon));
    let script = sample("freebsd/pegasus")
        .replace("/etc/rc.subr", &rc)
        .replace("/var/run", &directory.file(""));
    let script =
        directory.write("script", &script.replace("/usr/sbin/daemon", &format!("sh {daemon}")));
    let log = directory.file("log");
    let listen = format!("queue_listen=127.0.0.1:{port}");
    let conf = configuration(
        directory,
        &[&listen, &format!("log={log}"), "service_web_listen=127.0.0.1:0"],
    );
    let rc = |word: &str| {
        let mut sh = tool("sh");
        sh.args(["-eu", &script, word])
            .env("pegasus_program", path())
            .env("pegasus_configuration", &conf);
        output(&mut sh)
    };
    let says = |word: &str, times: usize| {
        until(word, || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.matches(word).count() == times)
        });
    };
    rc("start");
    // A redirector, and the queue in it.
    says("] ready ", 2);
    assert_eq!(rc("status").matches("is running").count(), 1);
    rc("reload");
    says("configuration reloaded", 1);
    rc("stop");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}

#[test]
fn the_run_scripts() {
    for (program, bound) in [("tcpserver", " 0 8080 "), ("s6-tcpserver", " 0.0.0.0 8080 ")] {
        let setting = Setting::new();
        let port = free_port();
        let text = setting.adapt(&sample(&format!("run/{program}"))).replace("\\\n\t", " ");
        let text =
            text.replace(bound, &format!(" 127.0.0.1 {port} ")).replace("-u 65534 -g 65534 ", "");
        let file = setting.directory.write("run", &text);
        output(tool("sh").args(["-n", &file]));
        if installed(program).is_none() {
            skipped(program);
            continue;
        }
        let mut process = Process::start(program, tool("sh").arg(&file));
        until_listens(&mut process, port, false);
        serves((Ipv4Addr::LOCALHOST, port).into(), false);
    }
}

#[test]
fn hosts_of_an_srv_record_are_offered() {
    let (queue, directory, port) = (Queue::start(&[]), Directory::new(), free_port());
    let mut server = tool("dnsmasq");
    server.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"]);
    server.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file="]);
    server.args(["--user=", "--group=", &format!("--port={port}")]);
    server.args(["--srv-host=_web._tcp.test,one.test,81,0,5", "--address=/one.test/10.0.0.1"]);
    server.args(["--srv-host=_web._tcp.test,two.test,82,0,0", "--address=/two.test/10.0.0.2"]);
    let _server = Process::start("dnsmasq", &mut server);
    let asks = ("DIG", format!("dig @127.0.0.1 -p {port}"));
    let offered = [("10.0.0.1:81", 5), ("10.0.0.2:82", 1)];
    bridge_offers("srv.sh", "_web._tcp.test", &asks, &queue, &directory, &offered);
}

/// Runs a bridge that asks by the command in this environment variable.
fn bridge_offers(
    name: &str,
    source: &str,
    (variable, asks): &(&str, String),
    queue: &Queue,
    directory: &Directory,
    offered: &[(&str, u64)],
) {
    let bridge = directory.write(name, &sample(&format!("bridges/{name}")));
    let programs = Path::new(path()).parent().unwrap().display();
    let mut command = Command::new("sh");
    command.args([&bridge, source, "web", &queue.address.to_string()]);
    command.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()));
    command.env(variable, asks).env("INTERVAL", "0.2");
    let _bridge = Process::start(name, &mut command);
    for (provider, tickets) in offered {
        let provider: SocketAddr = provider.parse().unwrap();
        until("it is offered", || queue.status().tickets(provider) == *tickets);
    }
    assert_eq!(queue.status().providers().count(), offered.len());
}

#[test]
fn healthy_instances_of_consul_and_ready_pods_are_offered() {
    if installed("jq").is_none() {
        return skipped("jq");
    }
    // What the two answer, cut down to what is read.
    let consul = r#"[
        {"Node": {"Address": "10.0.0.1"},
         "Service": {"Address": "", "Port": 81, "Weights": {"Passing": 5}}},
        {"Node": {"Address": "10.0.0.9"}, "Service": {"Address": "10.0.0.2", "Port": 82}},
        {"Node": {"Address": "10.0.0.9"}, "Service": {"Address": "fd00::3", "Port": 83}}]"#;
    let kubernetes = r#"{"items": [{"ports": [{"name": "http", "port": 81}], "endpoints": [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]}]}"#;
    for (name, variable, answer, offered) in [
        (
            "consul.sh",
            "GET",
            consul,
            &[("10.0.0.1:81", 5), ("10.0.0.2:82", 1), ("[fd00::3]:83", 1)][..],
        ),
        ("endpointslices.sh", "KUBECTL", kubernetes, &[("10.0.0.1:81", 1)][..]),
    ] {
        let (queue, directory) = (Queue::start(&[]), Directory::new());
        let answer = directory.write("answer", answer);
        let asks = directory.write("ask", &format!("cat {answer}\n"));
        let asks = (variable, format!("sh {asks}"));
        bridge_offers(name, "web", &asks, &queue, &directory, offered);
    }
}
