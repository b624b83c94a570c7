//! What an operator does: `status`, `top`, `drain` and `resume` against real queues.

use super::reload::Configured;
use super::upgrade::Successors;
use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::{
    closed_address, command, monitor, path, pegasus, Balancer, Queue, Redirect,
};
use crate::support::process::{run, Process};
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, End};
use crate::support::visits::visit;
use crate::support::{free_ports, output, tool, until, Directory};
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::process::Command;

/// Runs a command against a queue; exit status, output, errors.
#[track_caller]
fn operate(name: &str, queue: SocketAddr, arguments: &[&str]) -> (i32, String, String) {
    let queue = queue.to_string();
    let (provider, rest) = match name {
        "drain" | "resume" => arguments.split_at(1),
        _ => arguments.split_at(0),
    };
    let words: Vec<&str> =
        [name].into_iter().chain(provider.iter().copied()).chain([queue.as_str()]).collect();
    pegasus(&[&words[..], rest].concat())
}

#[test]
fn a_drained_provider_serves_who_is_there_and_gets_nobody_new() {
    let (first, second) = (Provider::echo(), Provider::echo());
    let balancer = Balancer::before(&[first.address, second.address], &[]);
    let mut old = connect(balancer.address());
    old.write_all(b"before").unwrap();
    until("the first provider has a client", || balancer.queue.status().active(first.address) == 1);
    let place = first.address.to_string();
    let (status, text, errors) = operate("drain", balancer.queue.address, &[&place]);
    assert_eq!((status, errors.as_str()), (0, ""), "{text}");
    assert!(text.contains("gets no new clients until `pegasus resume` (1 service, 1 active)"));
    for _ in 0..5 {
        assert_eq!(visit(balancer.address(), "elsewhere"), Ok(()));
    }
    let granted = |provider: &Provider| {
        balancer.queue.status().provider(provider.address).unwrap().number("granted")
    };
    assert_eq!((granted(&first), granted(&second)), (1, 5));
    // Its tickets go on coming, and the drain stays.
    let _monitor = monitor(balancer.queue.address, first.address, &[]);
    until("its monitor sent tickets", || balancer.queue.status().tickets(first.address) != 1000);
    assert_eq!(visit(balancer.address(), "elsewhere again"), Ok(()));
    assert_eq!(granted(&first), 1);
    old.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut old), (b"before".to_vec(), End::Fin));
    let (status, text, _) = operate("resume", balancer.queue.address, &[&place]);
    assert_eq!(status, 0, "{text}");
    assert_eq!(operate("drain", balancer.queue.address, &[&second.address.to_string()]).0, 0);
    until("clients come again", || {
        let _ = visit(balancer.address(), "and back");
        granted(&first) > 1
    });
    assert_eq!(balancer.queue.log_with(&["drained service=web", &place]).len(), 1);
    assert_eq!(balancer.queue.log_with(&["resumed service=web", &place]).len(), 1);
}

#[test]
fn a_drain_survives_a_reload_and_an_upgrade_of_a_queue_in_the_redirector() {
    let provider = Provider::echo();
    let ports: Vec<u16> = free_ports(2).collect();
    let (control, place) = (
        SocketAddr::from(([127, 0, 0, 1], ports[0])),
        SocketAddr::from(([127, 0, 0, 1], ports[1])),
    );
    let directory = Directory::new();
    let text = format!("queue_listen={control}\nservice_web_listen={place}\nredirect_wait=0\n");
    let conf = directory.write("pegasus.conf", &text);
    let mut redirect =
        Process::start("redirect", Command::new(path()).args(["redirect", "-c", &conf]));
    redirect.says(&["[redirect] ready"]);
    let offer =
        format!("ticket?provider={}&service=web&tickets=9&capacity=9&lease=10m", provider.address);
    assert!(ControlConnection::to(control).ask(&offer).starts_with("ok "));
    assert_eq!(visit(place, "before"), Ok(()));
    assert_eq!(operate("drain", control, &[&provider.address.to_string()]).0, 0);
    let drained = || {
        let status = ControlConnection::to(control).status();
        status.provider(provider.address).is_some_and(|row| row.text("state") == "drained")
    };
    assert!(drained() && visit(place, "drained").is_err());
    redirect.signal(libc::SIGHUP);
    until("it read its configuration again", || {
        !redirect.log_with(&["configuration reloaded"]).is_empty()
    });
    assert!(drained(), "the reload ended the drain");
    let mut successors = Successors::default();
    successors.upgrade(&redirect);
    assert!(drained(), "the upgrade ended the drain");
    assert!(visit(place, "drained").is_err());
    assert_eq!(operate("resume", control, &[&provider.address.to_string()]).0, 0);
    assert_eq!(visit(place, "after"), Ok(()));
}

#[test]
fn status_is_a_table_for_people_and_json_for_programs() {
    let queue = Queue::start(&[]);
    queue.offer("10.0.0.1:80", 4);
    queue.offer("[2001:db8::1]:80", 2);
    let (status, table, errors) = operate("status", queue.address, &[]);
    assert_eq!((status, errors.as_str()), (0, ""));
    let line = |word: &str| table.lines().find(|line| line.contains(word)).unwrap().to_string();
    assert!(line("web (competitive)").contains("2 providers, 6 of 6 tickets free"), "{table}");
    assert!(line("10.0.0.1:80").contains("4 of 4 tickets free"), "{table}");
    assert!(line("[2001:db8::1]:80").contains("2 of 2 tickets free"), "{table}");
    let (status, json, _) = operate("status", queue.address, &["--json"]);
    assert_eq!(status, 0);
    let script = "import json,sys\n\
        q=json.load(sys.stdin)['queues'][0]\n\
        p=q['services'][0]['providers']\n\
        f=p[0]\n\
        print(q['services'][0]['name'],len(p),f['address'],f['tickets'],f['lease']>500,f['why'])";
    let (_, said, errors) = run(tool("python3").args(["-c", script]), json.as_bytes());
    assert_eq!(said.trim_end(), "web 2 10.0.0.1:80 4 True 4 of 4 tickets free", "{errors}{json}");
}

#[test]
fn a_queue_that_is_away_does_not_hide_the_others() {
    let queue = Queue::start(&[]);
    let away = closed_address().to_string();
    let (status, table, errors) = operate("status", queue.address, &[&away]);
    assert_eq!(status, 69, "{errors}");
    assert!(table.contains(&queue.address.to_string()) && errors.contains(&away), "{errors}");
    let (status, json, _) = operate("status", queue.address, &[&away, "--json"]);
    assert!(status == 69 && json.contains("\"error\":"), "{json}");
    let place = "10.0.0.9:80";
    let (status, text, errors) = operate("drain", queue.address, &[place, &away]);
    assert_eq!(status, 69, "{errors}");
    assert!(text.contains(&format!("{}: {place} gets no new clients", queue.address)), "{text}");
}

#[test]
fn mistakes_are_named() {
    for (arguments, status, words) in [
        (&["drain"][..], 64, "which provider?"),
        (&["drain", "web1"], 64, "`web1` is "),
        (&["drain", "10.0.0.7:80", "--for", "soon"], 64, "--for: `soon` is not a duration"),
        (&["resume", "10.0.0.7:80", "-s", "Ä"], 64, "-s: `Ä` is not a service name"),
        (&["status", "lb 1"], 64, "`lb 1` is "),
        (&["status", "-c", "/no/such.conf"], 78, "/no/such.conf"),
        (&["top", "-n", "many"], 64, "-n: not a number"),
    ] {
        let (exit, _, errors) = pegasus(arguments);
        assert!(exit == status && errors.contains(words), "{arguments:?}: {exit} {errors}");
    }
    let queue = Queue::start(&["queue_allow_drain="]);
    let (status, _, errors) = operate("drain", queue.address, &["10.0.0.7:80"]);
    assert_eq!(status, 1, "{errors}");
    assert!(errors.contains("error denied this address is not in queue_allow_drain"), "{errors}");
}

#[test]
fn without_a_terminal_top_prints_plain_tables() {
    let queue = Queue::start(&[]);
    queue.offer("10.0.0.1:80", 4);
    let (status, text, errors) = operate("top", queue.address, &["-n", "2"]);
    assert_eq!((status, errors.as_str()), (0, ""));
    assert_eq!(text.matches("10.0.0.1:80").count(), 2, "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    let (status, text, _) = operate("top", closed_address(), &["-n", "1"]);
    assert!(status == 69 && text.contains("refused"), "{status} {text}");
}

/// `script` gives it a terminal, whose size is set in it.
#[test]
fn on_a_terminal_top_fits_its_size() {
    let queue = Queue::start(&[]);
    (0..20).for_each(|host| queue.offer(format!("10.0.0.{host}:80"), 4));
    let shell = |size: &str| {
        let words = format!("stty {size}; exec {} top {} -n 1", path(), queue.address);
        output(tool("script").args(["-qec", &words, "/dev/null"]).env("LC_ALL", "C.UTF-8"))
    };
    let narrow = shell("cols 60 rows 10");
    let visible = |text: &str| -> Vec<String> {
        let plain = text.replace("\x1b[H", "").replace("\x1b[K", "").replace("\x1b[J", "");
        plain.split("\r\n").map(str::to_string).collect()
    };
    let lines = visible(&narrow);
    assert_eq!(lines.len(), 10, "{lines:#?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 60), "{lines:#?}");
    assert!(lines[9].contains("more lines") && !narrow.contains('░'), "{lines:#?}");
    let wide = shell("cols 160 rows 40");
    assert!(wide.contains("10.0.0.19:80") && wide.contains('░'), "{wide:?}");
}

/// A redirector without a queue of its own: the queue that it asks is the usual one.
#[test]
fn without_an_address_the_configuration_names_the_queue() {
    let configured = Configured::start(&[closed_address()], "service_web_listen=127.0.0.1:0\n");
    let conf = configured.directory.file("pegasus.conf");
    let (status, text, _) = pegasus(&["status", "-c", &conf]);
    assert!(status == 0 && text.contains(&configured.queue.address.to_string()), "{text}");
    let _: &Redirect = &configured.redirect;
    let listen = format!("queue_listen={}", configured.queue.address);
    let (status, text, _) = run(&mut command("status", &[&listen]), b"");
    assert!(status == 0 && text.contains(&configured.queue.address.to_string()), "{text}");
}

#[test]
fn a_deployment_waits_for_the_last_client_and_lets_clients_come_again() {
    let (first, second) = (Provider::echo(), Provider::echo());
    let balancer = Balancer::before(&[first.address, second.address], &[]);
    let mut old = connect(balancer.address());
    old.write_all(b"before").unwrap();
    until("the first provider has a client", || balancer.queue.status().active(first.address) == 1);
    let directory = Directory::new();
    let done = directory.file("done");
    let deploy = |what: &[&str]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/deploy.sh");
        let programs = std::path::Path::new(path()).parent().unwrap().display();
        let mut command = Command::new(script);
        command.arg(first.address.to_string()).args(what);
        command.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()));
        command.env("QUEUES", balancer.queue.address.to_string());
        command
    };
    let mut deployment = Process::start("deploy", &mut deploy(&["touch", &done]));
    let state = || {
        let status = balancer.queue.status();
        status.provider(first.address).unwrap().text("state").to_string()
    };
    until("it is drained", || state() == "drained");
    assert_eq!(visit(balancer.address(), "elsewhere"), Ok(()));
    assert!(deployment.runs() && !std::path::Path::new(&done).exists());
    old.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut old), (b"before".to_vec(), End::Fin));
    assert_eq!(deployment.ends(), 0);
    assert!(std::path::Path::new(&done).exists());
    assert_ne!(state(), "drained");
    // A deployment that fails leaves no client to it.
    let (status, _, _) = run(&mut deploy(&["false"]), b"");
    assert_eq!((status, state().as_str()), (1, "drained"));
}

#[test]
fn a_file_on_the_provider_keeps_clients_from_one_of_its_services() {
    let (queue, provider) = (Queue::start(&[]), Provider::echo());
    let directory = Directory::new();
    let away = directory.file("away");
    let check = format!("service_web_check=exec:test ! -e {away}");
    let more = format!("service_other_provider={}", provider.address);
    let settings = [check.as_str(), "service_web_check_rise=1", more.as_str()];
    let _monitor = monitor(queue.address, provider.address, &settings);
    let offers = |service: &str| {
        let status = queue.status();
        let mut lines = status.providers().filter(|row| row.text("service") == service);
        lines.next().is_some_and(|row| row.number("tickets") > 0)
    };
    until("both are offered", || offers("web") && offers("other"));
    directory.write("away", "");
    until("one is away", || !offers("web"));
    assert!(offers("other"));
    std::fs::remove_file(&away).unwrap();
    until("it is back", || offers("web"));
}
