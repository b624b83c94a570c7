//! The PROXY protocol: providers learn the client's address, and trusted front proxies
//! report it.

use super::relay::exchange;
use crate::support::datagram::{ask, hear, Flows, Sink};
use crate::support::http;
use crate::support::inetd::Inetd;
use crate::support::nginx::Nginx;
use crate::support::pegasus::{closed_address, command, program, Balancer, Queue, Redirect};
use crate::support::process::{run, Process};
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::socket::{connect, drain, reset, End};
use crate::support::{free_port, tool, until, Directory, PATIENCE};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::sync::Mutex;
use std::time::Duration;

const V1: &str = "service_web_proxy_protocol=v1";
const V2: &str = "service_web_proxy_protocol=v2";
const ACCEPT: &str = "service_web_accept_proxy=127.0.0.0/8 ::1";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The header of version 1 that a provider must receive.
fn v1(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { 4 } else { 6 };
    format!("PROXY TCP{family} {} {} {} {}\r\n", client.ip(), to.ip(), client.port(), to.port())
        .into_bytes()
}

/// The same of version 2, over IPv4.
fn v2(datagrams: bool, client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(at)) = (client.ip(), to.ip()) else {
        panic!("{client} {to}")
    };
    let from = from.octets();
    let at = at.octets();
    let ports = [client.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    [SIGNATURE, &[0x21, 0x11 + u8::from(datagrams), 0, 12], &from, &at, &ports].concat()
}

fn header(version: &str, client: &TcpStream) -> Vec<u8> {
    let from = client.local_addr().unwrap();
    let to = client.peer_addr().unwrap();
    if version == V1 {
        v1(from, to)
    } else {
        v2(false, from, to)
    }
}

/// A redirector on this address, which may be `*`.
#[track_caller]
fn listening(place: &str, queue: &Queue, settings: &[&str]) -> Redirect {
    let asks = format!("redirect_queue={}", queue.address);
    let listen = format!("service_web_listen={place}");
    let settings: Vec<&str> =
        settings.iter().copied().chain([asks.as_str(), listen.as_str()]).collect();
    Redirect::of(&mut command("redirect", &settings))
}

/// Asks through `to` what the provider knows; returns the reply and the correct one.
#[track_caller]
fn who(to: SocketAddr) -> (String, String) {
    let visit = http::get(to, "/who").unwrap();
    (visit.body.unwrap(), format!("{} {} {} {}", to.ip(), visit.port, to.ip(), to.port()))
}

#[test]
fn nginx_learns_who_the_client_is() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let queue = Queue::start(&[]);
        let nginx = Nginx::behind_proxies("nginx", ip);
        queue.offer(nginx.address, 1000);
        for version in [V1, V2] {
            // Also with the family that the provider does not have, and with both.
            for (place, from) in [
                ("127.0.0.1:0", "127.0.0.1"),
                ("[::1]:0", "::1"),
                ("*:0", "127.0.0.1"),
                ("*:0", "::1"),
            ] {
                let redirect = listening(place, &queue, &[version]);
                let to = SocketAddr::new(from.parse().unwrap(), redirect.address.port());
                let (told, right) = who(to);
                assert_eq!(told, right, "{version} on {place}, from {from} to {ip}");
            }
        }
    }
}

/// A real front proxy: its address, and the process.
fn haproxy(directory: &Directory, to: SocketAddr, speaks: &str) -> (SocketAddr, Process) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let conf = format!(
        "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n\
         listen front\n  bind {address}\n  server pegasus {to} {speaks}\n"
    );
    let conf = directory.write("haproxy.conf", &conf);
    let mut process = Process::start("haproxy", tool("haproxy").args(["-db", "-f", &conf]));
    until("haproxy listens", || {
        assert!(process.runs(), "haproxy: {:#?}", process.log());
        TcpStream::connect(address).is_ok()
    });
    (address, process)
}

#[test]
fn haproxy_in_front_tells_who_the_client_is() {
    let nginx = Nginx::behind_proxies("nginx", Ipv4Addr::LOCALHOST.into());
    for speaks in ["send-proxy", "send-proxy-v2"] {
        let directory = Directory::new();
        let mut balancer = Balancer::before(&[nginx.address], &[V1, ACCEPT]);
        let (front, _haproxy) = haproxy(&directory, balancer.address(), speaks);
        let (told, right) = who(front);
        assert_eq!(told, right, "{speaks}");
        // The client everywhere, not the proxy.
        let port = right.split(' ').nth(1).unwrap();
        balancer.redirect.closed(&["outcome=complete", &format!("client=127.0.0.1:{port} ")]);
    }
}

#[test]
fn a_redirector_behind_a_redirector_passes_the_first_clients_address_on() {
    let nginx = Nginx::behind_proxies("nginx", Ipv4Addr::LOCALHOST.into());
    for (outer, inner) in [(V1, V2), (V2, V1), (V2, V2)] {
        let inner = Balancer::before(&[nginx.address], &[inner, ACCEPT]);
        let outer = Balancer::before(&[inner.address()], &[outer]);
        let (told, right) = who(outer.address());
        assert_eq!(told, right);
    }
}

#[test]
fn a_provider_that_knows_no_header_gets_none() {
    let nginx = Nginx::start("nginx");
    let inner = Balancer::before(&[nginx.address], &[ACCEPT]);
    let outer = Balancer::before(&[inner.address()], &[V2]);
    assert_eq!(http::get(outer.address(), "/").unwrap().body.unwrap(), "nginx\n");
}

#[test]
fn one_process_of_inetd_for_each_client_tells_and_is_told() {
    let queue = Queue::start(&[]);
    let nginx = Nginx::behind_proxies("nginx", Ipv4Addr::LOCALHOST.into());
    queue.offer(nginx.address, 1000);
    let inner = Inetd::redirect(queue.address, &[ACCEPT, V1]);
    let outer = Queue::start(&[]);
    outer.offer(inner.address, 1000);
    let outer = Inetd::redirect(outer.address, &[V2]);
    let (told, right) = who(outer.address);
    assert_eq!(told, right, "{} {}", outer.log(), inner.log());
    // Bytes that are no header: it is refused, and the process ends.
    let mut client = connect(inner.address);
    client.write_all(b"hello").unwrap();
    assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
    until("it is refused", || inner.log().contains("refused service=web client=127.0.0.1:"));
}

/// Of version 2, IPv4.
const V2_BYTES: usize = 28;

#[test]
fn a_server_that_speaks_first_has_the_header_of_a_silent_client() {
    let (sender, heard) = mpsc::channel();
    let sender = Mutex::new(sender);
    let provider = Provider::start(move |mut stream| {
        let mut bytes = [0; V2_BYTES];
        stream.read_exact(&mut bytes).unwrap();
        sender.lock().unwrap().send(bytes.to_vec()).unwrap();
        stream.write_all(b"220 hello\n").unwrap();
    });
    let mut balancer = Balancer::before(&[provider.address], &[V2]);
    let mut client = connect(balancer.address());
    assert_eq!(drain(&mut client), (b"220 hello\n".to_vec(), End::Fin));
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), header(V2, &client));
    client.shutdown(Shutdown::Write).unwrap();
    balancer.redirect.closed(&["outcome=complete", "sent=10 ", "received=0 "]);
}

#[test]
fn the_header_leaves_in_one_piece_with_what_the_client_said() {
    for version in [V1, V2] {
        let (sender, pieces) = mpsc::channel();
        let sender = Mutex::new(sender);
        let provider = Provider::start(move |mut stream| {
            let mut buffer = [0; 1000];
            let count = stream.read(&mut buffer).unwrap();
            sender.lock().unwrap().send(buffer[..count].to_vec()).unwrap();
        });
        for _ in 0..5 {
            let balancer = Balancer::before(&[], &[version, "redirect_wait=20s"]);
            let mut client = connect(balancer.address());
            client.write_all(b"hello").unwrap();
            until("it waits", || balancer.queue.status().queue().number("waiting") == 1);
            balancer.queue.offer(provider.address, 1);
            assert_eq!(
                pieces.recv_timeout(PATIENCE).unwrap(),
                [&header(version, &client)[..], b"hello"].concat()
            );
        }
    }
}

#[test]
fn a_header_spoils_no_failover_and_each_provider_gets_its_own() {
    for version in [V1, V2] {
        // One does not exist, one reads the header and resets.
        let (sender, heard) = mpsc::channel();
        let sender = Mutex::new(sender);
        let rude = Provider::start(move |mut stream| {
            let mut buffer = [0; 1000];
            let count = stream.read(&mut buffer).unwrap();
            sender.lock().unwrap().send(buffer[..count].to_vec()).unwrap();
            reset(stream);
        });
        let kind = Provider::echo();
        let mut balancer =
            Balancer::before(&[closed_address(), rude.address, kind.address], &[version]);
        let mut client = connect(balancer.address());
        let header = header(version, &client);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), header);
        balancer.redirect.says(&[
            "failure service=web",
            &format!("provider={}", rude.address),
            "why=re",
        ]);
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut client), ([&header[..], b"hello"].concat(), End::Fin));
        let sent = format!("sent={} ", header.len() + 5);
        balancer.redirect.closed(&["outcome=complete", &sent, "received=5 "]);
        balancer.settles();
    }
}

#[test]
fn a_client_that_said_all_and_left_before_there_was_anybody_is_told_of() {
    let provider = Provider::echo();
    for version in [V1, V2] {
        let balancer = Balancer::before(&[], &[version, "redirect_wait=20s"]);
        let mut client = connect(balancer.address());
        let header = header(version, &client);
        client.shutdown(Shutdown::Write).unwrap();
        until("it waits", || balancer.queue.status().queue().number("waiting") == 1);
        balancer.queue.offer(provider.address, 1);
        assert_eq!(drain(&mut client), (header, End::Fin));
    }
}

#[test]
fn much_behind_a_header_arrives_as_it_was_sent() {
    const COUNT: u64 = 32 << 20;
    for (version, splice) in [(V1, "auto"), (V1, "off"), (V2, "auto"), (V2, "off")] {
        let provider = Provider::echo();
        let mut inner =
            Balancer::before(&[provider.address], &[ACCEPT, &format!("redirect_splice={splice}")]);
        let outer =
            Balancer::before(&[inner.address()], &[version, &format!("redirect_splice={splice}")]);
        let client = connect(outer.address());
        assert_eq!(exchange(&client, 1, 1, COUNT), COUNT);
        inner.redirect.closed(&[
            "outcome=complete",
            &format!("sent={COUNT} "),
            &format!("received={COUNT} "),
        ]);
    }
}

#[test]
fn the_queue_is_asked_when_the_header_is_whole_and_not_before() {
    let provider = Provider::echo();
    let mut balancer = Balancer::before(&[provider.address], &[ACCEPT]);
    let asked = |balancer: &Balancer| balancer.queue.status().queue().number("asked");
    let told: SocketAddr = "192.0.2.7:4711".parse().unwrap();
    for header in [v1(told, balancer.address()), v2(false, told, balancer.address())] {
        let before = asked(&balancer);
        let mut client = connect(balancer.address());
        let (last, rest) = header.split_last().unwrap();
        for byte in rest {
            client.write_all(&[*byte]).unwrap();
        }
        balancer.redirect.idles();
        assert_eq!(asked(&balancer), before);
        client.write_all(&[*last, b'h', b'i']).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut client), (b"hi".to_vec(), End::Fin));
        assert_eq!(asked(&balancer), before + 1);
        balancer.redirect.closed(&["outcome=complete", &format!("client={told} "), "received=2 "]);
    }
}

#[test]
fn the_told_address_is_the_one_that_keeps_its_provider() {
    let providers = [Provider::named("a"), Provider::named("b"), Provider::named("c")];
    let queue = Queue::start(&["queue_scheduler=round-robin", "service_web_affinity=source"]);
    providers.iter().for_each(|provider| queue.offer(provider.address, 1000));
    let redirect = Redirect::start(queue.address, &[ACCEPT]);
    let visit = |client: &str| {
        let mut stream = connect(redirect.address);
        stream.write_all(&v1(client.parse().unwrap(), redirect.address)).unwrap();
        drain(&mut stream).0
    };
    let homes: Vec<_> = (1..=3).map(|number| visit(&format!("192.0.2.{number}:1"))).collect();
    assert!(homes[0] != homes[1] && homes[1] != homes[2], "{homes:?}");
    for number in 1..=3 {
        assert_eq!(visit(&format!("192.0.2.{number}:2")), homes[number - 1]);
    }
}

#[test]
fn a_front_proxy_may_speak_for_itself_or_of_the_unknown() {
    let nginx = Nginx::behind_proxies("nginx", Ipv4Addr::LOCALHOST.into());
    let balancer = Balancer::before(&[nginx.address], &[ACCEPT, V1]);
    let additions = [SIGNATURE, &[0x20, 0, 0, 7], b"1234567"].concat();
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN a b c d\r\n", &additions] {
        let mut stream = connect(balancer.address());
        let own = stream.local_addr().unwrap();
        let to = stream.peer_addr().unwrap();
        stream.write_all(&[header, &b"GET /who HTTP/1.0\r\n\r\n"[..]].concat()).unwrap();
        let answer = String::from_utf8(drain(&mut stream).0).unwrap();
        let right = format!("{} {} {} {}", own.ip(), own.port(), to.ip(), to.port());
        assert!(answer.ends_with(&right), "{right}: {answer}");
    }
}

#[test]
fn who_has_no_header_is_refused_with_one_line() {
    let provider = Provider::echo();
    let mut balancer = Balancer::before(&[provider.address], &[ACCEPT]);
    let before = balancer.redirect.descriptors();
    let mut random = Random::told();
    let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat();
    let mut wrong: Vec<Vec<u8>> =
        vec![b"GET / HTTP/1.0\r\n\r\n".to_vec(), b"PROXY TCP4 1.2.3.4\r\n".to_vec(), long];
    // More at once would be a flood, of which only some have a line.
    wrong.extend((0..40).map(|_| {
        // It differs within its first bytes, whatever they are.
        let length = 1 + random.below(600) as usize;
        [&SIGNATURE[..5], b"?", &random.bytes(length)].concat()
    }));
    for bytes in wrong {
        let mut client = connect(balancer.address());
        let port = client.local_addr().unwrap().port();
        client.write_all(&bytes).unwrap();
        assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
        let words =
            ["WARN", "refused service=web", &format!("client=127.0.0.1:{port}: no PROXY header: ")];
        balancer.redirect.says(&words);
        assert_eq!(balancer.redirect.log_with(&[&format!("127.0.0.1:{port}")]).len(), 1);
    }
    // A client that leaves before its header is complete.
    let mut client = connect(balancer.address());
    client.write_all(b"PROXY TCP4 ").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    balancer.redirect.says(&["refused service=web", "it left before"]);
    drop(client);
    assert_eq!((provider.clients(), balancer.queue.status().queue().number("asked")), (0, 0));
    until("all descriptors are closed", || balancer.redirect.descriptors() <= before);
}

#[test]
fn checks_of_a_front_proxy_make_no_lines() {
    let provider = Provider::echo();
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    for level in ["info", "debug"] {
        let log = format!("log_level={level}");
        let mut balancer = Balancer::before(&[provider.address], &[ACCEPT, &log]);
        for gone in [false, true] {
            for header in [&b""[..], &local, b"PROXY UNKNOWN\r\n"] {
                let mut client = connect(balancer.address());
                client.write_all(header).unwrap();
                if gone {
                    reset(client);
                } else {
                    client.shutdown(Shutdown::Write).unwrap();
                    drain(&mut client);
                }
            }
        }
        // A client that sends something has a log line, after all the others.
        let mut client = connect(balancer.address());
        client.write_all(&[&local, &b"hi"[..]].concat()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        drain(&mut client);
        balancer.redirect.closed(&["INFO", "outcome=complete", "received=2 "]);
        let lines = balancer.redirect.log_with(&["service=web client="]);
        if level == "info" {
            assert_eq!(lines.len(), 1, "{lines:#?}");
        } else {
            until("all are told at level debug", || {
                balancer.redirect.log_with(&["DEBUG", "service=web client="]).len() == 6
            });
        }
    }
}

/// Takes the five seconds that a header may take.
#[test]
fn who_is_slow_with_its_header_is_refused() {
    let provider = Provider::echo();
    let balancer = Balancer::before(&[provider.address], &[ACCEPT]);
    let mut silent = connect(balancer.address());
    let mut slow = connect(balancer.address());
    slow.write_all(b"PROXY TCP4 1.2.3.4 ").unwrap();
    for client in [&mut silent, &mut slow] {
        assert_eq!(drain(client), (Vec::new(), End::Reset));
    }
    until("both are told", || {
        balancer
            .redirect
            .log_with(&["WARN", "refused service=web", "no PROXY header within 5s"])
            .len()
            == 2
    });
    assert_eq!((provider.clients(), balancer.queue.status().queue().number("asked")), (0, 0));
}

#[test]
fn what_a_front_proxy_adds_reaches_the_provider() {
    let provider = Provider::echo();
    let balancer = Balancer::before(&[provider.address], &[ACCEPT, V2]);
    // A unique ID, the name that a TLS client asked for, and 4,000 bytes of others.
    let others = [&[0xe0, 0x0f, 0xa0][..], &[7; 4000]].concat();
    let values = [&b"\x05\0\x04\x01\x02\x03\x04\x02\0\x01a"[..], &others].concat();
    let own = v2(false, "192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
    let length = (12 + values.len() as u16).to_be_bytes();
    let header = [&own[..14], &length, &own[16..], &values].concat();

    let mut client = connect(balancer.address());
    client.write_all(&[&header[..], b"hello"].concat()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client), ([&header[..], b"hello"].concat(), End::Fin));

    // A value that goes beyond the header, and a checksum that is wrong.
    for values in [&b"\x05\0\x04\x01"[..], b"\x03\0\x04\x01\x02\x03\x04"] {
        let length = (12 + values.len() as u16).to_be_bytes();
        let mut client = connect(balancer.address());
        client.write_all(&[&own[..14], &length, &own[16..], values].concat()).unwrap();
        assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
    }
    assert_eq!(provider.clients(), 1);
}

#[test]
fn a_strangers_header_is_not_believed() {
    let provider = Provider::echo();
    let mut balancer =
        Balancer::before(&[provider.address], &["service_web_accept_proxy=192.0.2.0/24", V1]);
    let mut client = connect(balancer.address());
    let own = header(V1, &client);
    let port = client.local_addr().unwrap().port();
    let forged = v1("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
    client.write_all(&forged).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client).0, [own, forged].concat());
    balancer.redirect.closed(&[&format!("client=127.0.0.1:{port} ")]);
}

#[test]
fn hup_changes_what_later_clients_bring() {
    let directory = Directory::new();
    let provider = Provider::echo();
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 1000);
    let text = |more: &str| {
        format!("redirect_queue={}\nservice_web_listen=127.0.0.1:0\n{more}\n", queue.address)
    };
    let conf = directory.write("pegasus.conf", &text(""));
    let mut redirect = Redirect::of(program().args(["redirect", "-c", &conf]));
    let echoed = |redirect: &Redirect| {
        let mut client = connect(redirect.address);
        client.shutdown(Shutdown::Write).unwrap();
        drain(&mut client).0.len()
    };
    assert_eq!(echoed(&redirect), 0);
    directory.write("pegasus.conf", &text(V2));
    redirect.signal(libc::SIGHUP);
    redirect.says(&["configuration reloaded"]);
    until("the header comes", || echoed(&redirect) == V2_BYTES);
}

#[test]
fn what_cannot_be_is_a_mistake_of_the_configuration() {
    let directory = Directory::new();
    for (lines, mistake) in [
        (
            "service_web_proxy_protocol=v3\n",
            "1: service_web_proxy_protocol=v3: neither off nor v1 nor v2",
        ),
        (
            "service_web_accept_proxy=front\n",
            "1: service_web_accept_proxy=front: `front` is not a network",
        ),
        (
            "service_web_proxy_protocol=v1\nservice_web_listen=\"*:53 *:53/udp\"\n",
            "1: service_web_proxy_protocol=v1: v1 works for TCP only",
        ),
        (
            "service_web_listen=*:53/udp\nservice_web_accept_proxy=::/0\n",
            "2: service_web_accept_proxy=::/0: this works for TCP only",
        ),
        (
            "service_web_proxy_protocol=v1\nservice_web_proxy_unique_id=on\n",
            "2: service_web_proxy_unique_id=on: only v2 carries it",
        ),
    ] {
        let conf = directory.write("pegasus.conf", lines);
        let (status, _, errors) = run(program().args(["redirect", "-t", "-c", &conf]), b"");
        assert_eq!(status, 78, "{errors}");
        assert!(errors.contains(&format!("{conf}:{mistake}")), "{errors}");
    }
}

#[test]
fn a_connection_gets_an_identity_where_its_front_proxy_gave_none() {
    const LENGTH: usize = V2_BYTES + 3 + 32;
    let provider = Provider::echo();
    let settings = [V2, "service_web_proxy_unique_id=on", ACCEPT];
    let balancer = Balancer::before(&[provider.address], &settings);
    let told: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let visit = |tlvs: &[u8]| {
        let mut header = v2(false, told, balancer.address());
        header[15] += tlvs.len() as u8;
        header.extend(tlvs);
        let mut client = connect(balancer.address());
        client.write_all(&header).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        drain(&mut client).0
    };
    let ids: Vec<Vec<u8>> = (0..20)
        .map(|_| {
            let header = visit(&[4, 0, 1, 9]);
            assert_eq!(header.len(), LENGTH + 4);
            assert_eq!(header[V2_BYTES..V2_BYTES + 7], [4, 0, 1, 9, 5, 0, 32]);
            header[V2_BYTES + 7..].to_vec()
        })
        .collect();
    let different: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len(), "{ids:?}");
    assert_eq!(visit(&[5, 0, 2, 7, 8])[V2_BYTES..], [5, 0, 2, 7, 8], "that one stays");
}

#[test]
fn the_first_datagram_of_a_flow_has_a_header() {
    let providers = [Sink::echo(), Sink::echo()];
    let flows = Flows::first_of(&providers.each_ref().map(|sink| sink.address), &[V2]);
    for _ in 0..2 {
        let client = flows.client();
        let header = v2(true, client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert_eq!(ask(&client, b"one"), [&header[..], b"one"].concat());
        assert_eq!(ask(&client, b"two"), b"two");
        assert_eq!(ask(&client, b""), b"");
    }
    flows.has_flows(2);
}

#[test]
fn a_flow_tells_the_next_provider_too() {
    let dead = closed_address();
    let alive = Sink::echo();
    let flows = Flows::first_of(&[dead, alive.address], &[V2]);
    let client = flows.client();
    let header = v2(true, client.local_addr().unwrap(), client.peer_addr().unwrap());
    client.send(b"one").unwrap();
    assert_eq!(hear(&client), [&header[..], b"one"].concat());
    assert_eq!(ask(&client, b"two"), b"two");
}

#[test]
fn without_flows_every_datagram_has_a_header() {
    let provider = Sink::echo();
    let flows = Flows::before(&[provider.address], &[V2, "service_web_udp_flow=off"]);
    let client = flows.client();
    let header = v2(true, client.local_addr().unwrap(), client.peer_addr().unwrap());
    for word in [&b"one"[..], b"two", b""] {
        assert_eq!(ask(&client, word), [&header[..], word].concat());
    }
}

#[test]
fn a_datagram_that_is_too_long_behind_its_header_is_lost_and_the_next_one_tells() {
    let provider = Sink::echo();
    let mut flows = Flows::before(&[provider.address], &[V2, "log_level=debug"]);
    let client = flows.client();
    let header = v2(true, client.local_addr().unwrap(), client.peer_addr().unwrap());
    client.send(&vec![b'x'; 65_507 - V2_BYTES + 1]).unwrap();
    flows.redirect.says(&["DEBUG", "a datagram of 65480 bytes: "]);
    let longest = vec![b'y'; 65_507 - V2_BYTES];
    assert!(ask(&client, &longest) == [header, longest].concat());
    let bytes = vec![b'z'; 65_507];
    assert!(ask(&client, &bytes) == bytes, "without a header it fits");
}

#[test]
fn inherited_datagrams_and_v1_are_a_mistake_too() {
    let queue = Queue::start(&[]);
    let inetd = Inetd::redirect_datagrams(queue.address, &[V1]);
    let client = crate::support::datagram::client(inetd.address);
    client.send(b"hello").unwrap();
    until("it says so", || {
        inetd.log().contains("service_web_proxy_protocol=v1: it knows no datagrams")
    });
    until("inetd listens again", || inetd.ended() > 0);
    client.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    assert!(client.recv(&mut [0; 10]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
}
