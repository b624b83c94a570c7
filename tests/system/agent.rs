//! HAProxy's agent check, answered by the monitor: a real HAProxy follows it.

use crate::support::haproxy::Haproxy;
use crate::support::pegasus::{command, monitor, Queue};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::connect;
use crate::support::{free_port, until, Directory};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};

/// Asks as HAProxy does; what is told is read to its end.
fn ask(agent: SocketAddr, name: &str) -> String {
    let mut stream = connect(agent);
    stream.write_all(name.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn agent_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// A server of HAProxy that asks an agent.
fn server(name: &str, provider: SocketAddr, agent: SocketAddr, more: &str) -> String {
    format!(
        " server {name} {provider} agent-check agent-addr 127.0.0.1 agent-port {} \
         agent-inter 100ms {more}\n",
        agent.port()
    )
}

/// What HAProxy says of the server `one`: administrative state and weight.
fn state(haproxy: &Haproxy) -> [String; 2] {
    let [_, _, state, weight] = haproxy.servers().swap_remove(0);
    [state, weight]
}

#[test]
fn a_real_haproxy_follows_the_slots_and_is_told_of_the_end() {
    let (queue, provider, agent) = (Queue::start(&[]), Provider::named("one"), agent_address());
    let directory = Directory::new();
    let load = directory.write("load", "0.5\n");
    let settings = [
        format!("monitor_agent={agent}"),
        format!("monitor_load=exec:cat {load}"),
        "service_web_capacity=8".to_string(),
        "service_web_check_rise=1".to_string(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut first = monitor(queue.address, provider.address, &settings);
    let haproxy = Haproxy::start(&server("one", provider.address, agent, ""));
    let becomes = |what: &str, admin: &str, weight: &str| {
        until(what, || state(&haproxy) == [admin, weight]);
    };
    becomes("four of eight slots are free", "0", "4");
    assert_eq!(haproxy.statistic("one", "slim"), "8");
    directory.write("load", "0.25\n");
    becomes("six are free", "0", "6");
    directory.write("load", "1\n");
    becomes("the host is full", "0", "0");
    directory.write("load", "0\n");
    becomes("all are free", "0", "8");
    first.signal(libc::SIGTERM);
    // HAProxy asks ten times a second: the monitor waits until it has.
    becomes("it drains", "8", "8");
    assert_eq!(first.ends(), 0);
    let second = monitor(queue.address, provider.address, &settings);
    becomes("the monitor is back", "0", "8");
    drop(provider);
    until("the service fails", || haproxy.statistic("one", "status").starts_with("DOWN"));
    drop(second);
}

#[test]
fn one_address_serves_several_services_by_name() {
    let (queue, agent) = (Queue::start(&[]), agent_address());
    let (one, two) = (Provider::echo(), Provider::echo());
    let settings = [
        format!("monitor_agent={agent}"),
        format!("monitor_balancers={}", queue.address),
        format!("service_web_provider={}", one.address),
        "service_web_capacity=3".to_string(),
        format!("service_big_mail_provider={}", two.address),
        "service_big_mail_capacity=5".to_string(),
        "service_big_mail_check=exec:exit 1".to_string(),
        "monitor_load=exec:echo 0".to_string(),
        "monitor_interval=200ms".to_string(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut monitor = Process::start("monitor", &mut command("monitor", &settings));
    monitor.says(&["[monitor] ready "]);
    let web = "ready up 300% maxconn:3\n";
    assert_eq!(ask(agent, "web\n"), web);
    assert_eq!(ask(agent, ""), web, "the first service is meant");
    let failed = "down #the service fails its check\n";
    assert_eq!(ask(agent, "big-mail\r\n"), failed);
    assert_eq!(ask(agent, "big_mail\n"), failed);
    assert_eq!(ask(agent, "nothing\n"), "down #no such service here\n");
    assert_eq!(ask(agent, "\u{1}\u{2} \n"), "down #no such service here\n");
    // A client that ends its half at once.
    let mut stream = connect(agent);
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, web);
    let haproxy = Haproxy::start(&server("web", one.address, agent, "agent-send \"web\\n\""));
    until("HAProxy asks by name", || haproxy.statistic("web", "slim") == "3");
}

#[test]
fn strangers_at_the_agent_disturb_neither_it_nor_the_offers() {
    let (queue, provider, agent) = (Queue::start(&[]), Provider::echo(), agent_address());
    let directory = Directory::new();
    let load = directory.write("load", "0\n");
    let settings = [
        format!("monitor_agent={agent}"),
        format!("monitor_load=exec:cat {load}"),
        "service_other_capacity=1".to_string(),
        "service_other_check=off".to_string(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let monitor = monitor(queue.address, provider.address, &settings);
    queue.has(&[provider.address]);
    let garbage = vec![b'x'; 64 * 1024];
    let mut strangers: Vec<TcpStream> = Vec::new();
    for number in 0..300 {
        let mut stream = connect(agent);
        if number % 3 == 0 {
            // Some of it may come too late.
            let _ = stream.write_all(&garbage);
        }
        strangers.push(stream);
        if number % 50 == 0 {
            assert!(ask(agent, "web\n").starts_with("ready up "), "after {number}");
        }
    }
    assert!(monitor.descriptors() < 150, "{} descriptors", monitor.descriptors());
    directory.write("load", "1\n");
    until("the offers go on", || queue.status().tickets(provider.address) == 0);
    assert_eq!(ask(agent, "web\n"), "ready up 0%\n");
    drop(strangers);
}
