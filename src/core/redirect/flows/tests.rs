//! Stories of flows.
//!
//! A line is `TIME WHAT`, then perhaps `=> DEED | DEED`. What can happen: `up`,
//! `down`, `told ANSWER` (with its id), `status queue ADDRESS=CAPACITY …` and
//! `denied` (to a look), `CLIENT says TEXT`, `CLIENT refused` or `stuck` (of its
//! flow), `ADDRESS answers CLIENT`, `drain`, `close DOOR`, `end`, and `.` (time
//! passes). Deeds: `say MESSAGE`, `look SERVICE`, `blind`, `CLIENT to ADDRESS:
//! TEXT …` (its flow is opened there, with what it kept, or a datagram is sent
//! at once), `CLIENT hears`, `CLIENT drops`, `CLIENT gone OUTCOME SENT/RECEIVED`,
//! `PROVIDER failed`.

use super::*;
use crate::base::story::{steps, Step};
use crate::protocol::reply::{ErrorCode, Reply};
use crate::protocol::request::Request;
use crate::redirect::redirector::{RedirectLog, RedirectOptions};

mod failures;
mod handover;
mod withdrawals;

struct Story {
    flows: Flows,
    now: Moment,
    deeds: Vec<String>,
    open: HashMap<Key, String>,
    /// Whether status requests are reported, which most stories are not about.
    looks: bool,
}

fn client(name: &str) -> SocketAddr {
    SocketAddr::new("192.0.2.1".parse().unwrap(), u16::from(name.as_bytes()[0]))
}

fn name(address: SocketAddr) -> String {
    char::from(address.port() as u8).to_string()
}

impl Story {
    fn new(limits: FlowLimits, flows_max: usize) -> Story {
        let services = [("dns".parse().unwrap(), limits)].into_iter().collect();
        let options = FlowOptions { redirect: RedirectOptions::default(), flows_max, services };
        Story {
            flows: Flows::new(options),
            now: Moment::ZERO,
            deeds: Vec::new(),
            open: HashMap::new(),
            looks: false,
        }
    }

    fn key(&self, wanted: &str) -> Key {
        let of_client =
            |(key, flow): (Key, &Flow)| (name(flow.key.client) == wanted).then_some(key);
        self.flows.flows.iter().find_map(of_client).expect(wanted)
    }

    fn says(&mut self, who: &str, bytes: &[u8]) -> Option<SocketAddr> {
        let flow_key = FlowKey { socket: 0, client: client(who), local: None };
        self.flows
            .on_datagram(flow_key, "dns".parse().unwrap(), 53, bytes, self.now)
            .map(|(_, to)| to)
    }

    fn collect(&mut self) {
        while let Some(output) = self.flows.poll_output() {
            let deed = match output {
                Output::SendToQueue(Request::Status { .. }) if !self.looks => continue,
                Output::SendToQueue(Request::Status { service, .. }) => {
                    format!("look {}", service.unwrap())
                }
                Output::SendToQueue(request) => {
                    let mut line = Vec::new();
                    request.write(&"b", &mut line);
                    let mut line = String::from_utf8(line).unwrap();
                    for usual in [
                        "pegasus://b/",
                        "service=dns&",
                        "&service=dns",
                        "&client=192.0.2.1",
                        "wait=1s&",
                    ] {
                        line = line.replace(usual, "");
                    }
                    format!("say {}", line.trim_end())
                }
                Output::StatusDenied => "blind".to_string(),
                Output::Open { flow, to } => {
                    let who =
                        name(self.flows.flows.get(flow).expect("a flow that is there").key.client);
                    self.open.insert(flow, who.clone());
                    let kept: Vec<_> =
                        self.flows.unconfirmed(flow).map(String::from_utf8_lossy).collect();
                    let deed = format!("{who} to {to}: {}", kept.join(" "));
                    self.flows.handle_input(Input::Opened { flow }, self.now);
                    deed
                }
                Output::Probe { flow, to, .. } => {
                    let who = name(self.flows.key(flow).unwrap().client);
                    let last = self.flows.unconfirmed(flow).last().unwrap();
                    format!("{who} probes {to}: {}", String::from_utf8_lossy(last))
                }
                Output::Drop { flow } => match self.open.remove(&flow) {
                    Some(who) => format!("{who} drops"),
                    None => continue,
                },
                Output::Log(RedirectLog::Closed { client, outcome, sent, received, .. }) => {
                    format!("{} gone {outcome} {sent}/{received}", name(client))
                }
                Output::Log(RedirectLog::ProviderFailed { provider, .. }) => {
                    format!("{provider} failed")
                }
            };
            self.deeds.push(deed);
        }
    }

    fn tell(&mut self, script: &str) {
        self.looks = script.contains("look");
        for Step { line, at, event, expected } in steps(script) {
            while let Some(next) = self.flows.next_timeout().filter(|next| *next <= at) {
                self.now = self.now.max(next);
                self.flows.handle_timeout(self.now);
                self.collect();
            }
            self.now = at;
            self.happen(event);
            self.collect();
            assert_eq!(std::mem::take(&mut self.deeds), expected, "{line}");
        }
    }

    fn happen(&mut self, event: &str) {
        let words: Vec<&str> = event.splitn(3, ' ').collect();
        let input = match words[..] {
            ["."] => return,
            ["up"] => Input::QueueUp,
            ["down"] => Input::QueueDown,
            ["drain"] => Input::Drain,
            ["close", socket] => Input::Close { socket: socket.parse().unwrap() },
            ["end"] => Input::End,
            ["told", ..] => {
                let line = event.split_once(' ').unwrap().1;
                let id = line.rsplit_once("id=").unwrap().1.parse().unwrap();
                Input::QueueReply { id, reply: Reply::parse(line.as_bytes()).unwrap() }
            }
            ["status", ..] => {
                let rows = event.split(' ').skip(1).map(|row| match row.split_once('=') {
                    Some((address, capacity)) => {
                        format!(
                            "provider service=dns address={address} tickets=0 \
                             capacity={capacity}\n"
                        )
                    }
                    None => "queue waiting=0\n".to_string(),
                });
                Input::Status { lines: rows.collect() }
            }
            ["denied"] => Input::StatusDenied { code: ErrorCode::Denied },
            [who, "refused"] => Input::ProviderUnreachable { flow: self.key(who) },
            [who, "stuck"] => Input::NoSocket { flow: self.key(who) },
            [who, "blocked"] => Input::SendBlocked { flow: self.key(who) },
            [who, "says", text] => {
                if let Some(to) = self.says(who, text.as_bytes()) {
                    self.deeds.push(format!("{who} to {to}: {text}"));
                }
                return;
            }
            [from, "answers", who] => {
                let flow = self.key(who);
                if let Some(flow_key) =
                    self.flows.on_reply(flow, from.parse().unwrap(), 10, self.now)
                {
                    self.deeds.push(format!("{} hears", name(flow_key.client)));
                }
                return;
            }
            _ => panic!("{event}"),
        };
        self.flows.handle_input(input, self.now);
    }

    /// All flows have ended, nothing is kept, and no timer runs for ever.
    fn ends(mut self) {
        assert_eq!(
            (self.flows.count(), self.flows.by_key.len(), self.flows.resend_bytes),
            (0, 0, 0)
        );
        self.tell("10h .");
        assert_eq!(self.flows.next_timeout(), None);
    }
}

/// A story of flows that have these addresses for when the queue has none.
fn with_fallback(addresses: &[&str]) -> Story {
    let mut story = Story::new(FlowLimits::default(), 100);
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let fallback = Input::Fallback { service: "dns".parse().unwrap(), addresses };
    story.flows.handle_input(fallback, Moment::ZERO);
    story
}

fn told(limits: FlowLimits, script: &str) -> Story {
    let mut story = Story::new(limits, 100);
    story.tell(script);
    story
}

#[test]
fn a_flow_from_its_first_datagram_to_silence() {
    told(
        FlowLimits::default(),
        "0s up
         0s a says one => say next?id=1
         0.1s a says two
         0.2s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: one two
         0.3s 10.0.0.1:53 answers a => a hears
         9s a says three => a to 10.0.0.1:53: three
         38s .
         39s . => a drops | say done?id=1 | a gone idle 10/11",
    )
    .ends();
}

#[test]
fn one_reply_to_each_datagram_and_it_is_over() {
    told(
        FlowLimits { replies: 1, ..FlowLimits::default() },
        "0s up
         0s a says x => say next?id=1
         0s a says y
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x y
         0s 10.0.0.1:53 answers a => a hears
         1s 10.0.0.1:53 answers a => a hears | a drops | say done?id=1 | a gone complete 20/2",
    )
    .ends();
}

#[test]
fn a_flow_that_is_never_silent_is_led_anew_at_its_age() {
    told(
        FlowLimits { age: Span::from_secs(40), ..FlowLimits::default() },
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         20s a says x => a to 10.0.0.1:53: x
         39s a says x => a to 10.0.0.1:53: x
         40s . => a drops | say done?id=1 | a gone aged 0/3
         41s a says x => say next?id=2
         41s told 10.0.0.2:53 id=2 => a to 10.0.0.2:53: x
         2m . => a drops | say done?id=2 | a gone idle 0/1",
    )
    .ends();
}

#[test]
fn flows_that_are_here_end_as_it_is_wanted_now() {
    let limits = |idle, age| FlowLimits {
        idle: Span::from_secs(idle),
        age: Span::from_secs(age),
        ..Default::default()
    };
    let mut story = told(
        limits(30, 3600),
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         0s b says x => say next?id=2
         0s told 10.0.0.1:53 id=2 => b to 10.0.0.1:53: x",
    );
    let reconfigured = |story: &mut Story, limits: FlowLimits| {
        let services = [("dns".parse().unwrap(), limits)].into_iter().collect();
        story.flows.handle_input(
            Input::Reconfigure(FlowOptions { services, ..story.flows.options.clone() }),
            story.now,
        );
    };
    reconfigured(&mut story, limits(10, 15));
    story.tell(
        "9s b says x => b to 10.0.0.1:53: x
         10s . => a drops | say done?id=1 | a gone idle 0/1
         14s b says x => b to 10.0.0.1:53: x",
    );
    reconfigured(&mut story, limits(60, 3600));
    story.tell(
        "73s .
         74s . => b drops | say done?id=2 | b gone idle 0/3",
    );
    story.ends();
}

#[test]
fn what_a_dead_provider_refused_goes_to_another_one() {
    told(
        FlowLimits::default(),
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         0.1s a says y => a to 10.0.0.1:53: y
         0.2s a refused => a probes 10.0.0.1:53: y
         0.2s a refused => a drops | 10.0.0.1:53 failed \
             | say failure?provider=10.0.0.1:53&id=1 | say next?wait=800ms&id=2&avoid=10.0.0.1:53
         0.3s told 10.0.0.2:53 id=2 => a to 10.0.0.2:53: x y
         0.3s 10.0.0.2:53 answers a => a hears
         5s a says z => a to 10.0.0.2:53: z
         5.1s a refused => a probes 10.0.0.2:53: z
         5.1s a refused => a drops | 10.0.0.2:53 failed \
             | say failure?provider=10.0.0.2:53&id=2 | say next?id=3&avoid=10.0.0.2:53
         5.2s told 10.0.0.1:53 id=3 => a to 10.0.0.1:53: z
         40s . => a drops | say done?id=3 | a gone idle 10/3",
    )
    .ends();
}

#[test]
fn a_death_ends_every_flow_there_and_what_was_taken_is_not_sent_again() {
    told(
        FlowLimits::default(),
        "0s up
         0s a says x => say next?id=1
         0s b says x => say next?id=2
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         0s told 10.0.0.1:53 id=2 => b to 10.0.0.1:53: x
         0s c says x => say next?id=3
         0s told 10.0.0.2:53 id=3 => c to 10.0.0.2:53: x
         4.5s a says z => a to 10.0.0.1:53: z
         5s a refused => a probes 10.0.0.1:53: z
         5s a refused => a drops | b drops | 10.0.0.1:53 failed \
             | say failure?provider=10.0.0.1:53&id=1 | say next?id=4&avoid=10.0.0.1:53 \
             | say done?id=2&result=reset | b gone provider-reset 0/1
         5s told 10.0.0.2:53 id=4 => a to 10.0.0.2:53: z
         6s c says y => c to 10.0.0.2:53: y
         7s end => a drops | c drops | say done?id=4 | a gone drained 0/2 | say done?id=3 \
             | c gone drained 0/2",
    )
    .ends();
}

#[test]
fn a_stream_goes_on_at_the_port_that_answered_and_its_end_is_no_failure() {
    told(
        FlowLimits { any_port: true, ..FlowLimits::default() },
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:69 id=1 => a to 10.0.0.1:69: x
         1s 10.0.0.9:4000 answers a
         1s 10.0.0.1:4000 answers a => a hears
         2s a says ack => a to 10.0.0.1:4000: ack
         2.5s a refused => a drops | say done?id=1 | a gone complete 10/4",
    )
    .ends();
}

#[test]
fn a_client_that_keeps_its_port_may_ask_for_the_next_file() {
    let mut story = told(
        FlowLimits { any_port: true, ..FlowLimits::default() },
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:69 id=1 => a to 10.0.0.1:69: x
         1s 10.0.0.1:4000 answers a => a hears",
    );
    assert_eq!(story.says("a", b"\0\x01file\0octet\0"), None);
    story.tell(
        "1s . => a drops | say done?id=1 | a gone complete 10/1 | say next?id=2
         2s end => say done?id=2 | a gone drained 0/13",
    );
    story.ends();
}

#[test]
fn without_flows_each_datagram_is_a_request() {
    told(
        FlowLimits { per_datagram: true, ..FlowLimits::default() },
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         0s 10.0.0.1:53 answers a => a hears | a drops | say done?id=1 | a gone complete 10/1
         0s a says y => say next?id=2
         0s a says z => say next?id=3
         0s told 10.0.0.1:53 id=2 => a to 10.0.0.1:53: y
         0s told 10.0.0.2:53 id=3 => a to 10.0.0.2:53: z
         31s . => a drops | a drops | say done?id=2 | a gone idle 0/1 | say done?id=3 \
             | a gone idle 0/1",
    )
    .ends();
}

#[test]
fn the_one_that_was_silent_for_the_longest_time_makes_room() {
    let mut story = Story::new(FlowLimits::default(), 2);
    story.tell(
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         1s b says x => say next?id=2
         1s told 10.0.0.1:53 id=2 => b to 10.0.0.1:53: x
         2s a says x => a to 10.0.0.1:53: x
         3s c says x => b drops | say done?id=2 | b gone evicted 0/1 | say next?id=3
         4s c says x
         5s d says x => a drops | say done?id=1 | a gone evicted 0/2 | say next?id=4
         6s end => say done?id=4 | d gone drained 0/1 | say done?id=3 | c gone drained 0/2",
    );
    story.ends();
}

#[test]
fn strangers_make_room_before_those_who_are_in_use() {
    let mut story = Story::new(FlowLimits::default(), 8);
    story.tell("0s up");
    let says = |story: &mut Story, port: u16| {
        let flow_key = FlowKey {
            socket: 0,
            client: SocketAddr::new("192.0.2.1".parse().unwrap(), port),
            local: None,
        };
        story.flows.on_datagram(flow_key, "dns".parse().unwrap(), 53, b"x", story.now);
        flow_key
    };
    // Six in use, of which two become silent.
    let in_use: Vec<FlowKey> =
        (1..=6).map(|port| (says(&mut story, port), says(&mut story, port)).1).collect();
    for number in 0..10_000 {
        story.now = story.now + Span::from_millis(1);
        says(&mut story, 1000 + number);
        if number % 1000 == 0 {
            (1..=4).for_each(|port| _ = says(&mut story, port));
        }
    }
    let here = |story: &Story, flow_key: &FlowKey| story.flows.by_key.contains_key(flow_key);
    assert_eq!(
        in_use.iter().filter(|flow_key| here(&story, flow_key)).count(),
        6,
        "newcomers have a quarter of all places already"
    );
    // A client that comes twice may displace those that are silent.
    for number in 0..10_000 {
        story.now = story.now + Span::from_millis(1);
        (0..2).for_each(|_| _ = says(&mut story, 20_000 + number));
        if number % 2 == 0 {
            (1..=4).for_each(|port| _ = says(&mut story, port));
        }
    }
    let left: Vec<u16> = in_use
        .iter()
        .filter(|flow_key| here(&story, flow_key))
        .map(|flow_key| flow_key.client.port())
        .collect();
    assert_eq!(left, [1, 2, 3, 4]);
    assert_eq!(story.flows.count(), 8);
    let heaps = story.flows.ranking.sizes();
    assert!(heaps.iter().all(|size| *size <= 2 * 8 + 1024 + 1), "{heaps:?}");
    story.flows.handle_input(Input::End, story.now);
    while story.flows.poll_output().is_some() {}
    story.ends();
}

#[test]
fn nobody_waits_for_ever() {
    told(
        FlowLimits::default(),
        "0s a says x
         4.9s .
         5s . => a gone queue-unreachable 0/0
         6s up
         6s b says x => say next?id=1
         6s told error no-ticket id=1 => b gone no-ticket 0/0
         7s c says x => say next?id=2
         7s told 10.0.0.1:53 id=2 => c to 10.0.0.1:53: x
         8s down
         9s c says y => c to 10.0.0.1:53: y
         9.5s c stuck => c drops | c gone out-of-sockets 0/0
         9.6s up
         9.7s d says y => say next?id=3
         9.7s told 10.0.0.1:53 id=3 => d to 10.0.0.1:53: y
         10s drain
         10.5s e says x
         10.7s . => d drops | say done?id=3 | d gone idle 0/1",
    )
    .ends();
}

#[test]
fn a_door_is_closed_and_nobody_elses_flows_end() {
    let mut story = told(FlowLimits::default(), "0s up\n0s a says x => say next?id=1");
    let elsewhere = FlowKey { socket: 1, client: client("b"), local: None };
    story.flows.on_datagram(elsewhere, "dns".parse().unwrap(), 53, b"y", story.now);
    story.tell(
        "0s told 10.0.0.1:53 id=1 => say next?id=2 | a to 10.0.0.1:53: x
         0s told 10.0.0.1:53 id=2 => b to 10.0.0.1:53: y
         9s close 0 => a drops | say done?id=1 | a gone drained 0/1
         9s close 0
         9s close 1 => b drops | say done?id=2 | b gone drained 0/1",
    );
    story.ends();
}

#[test]
fn no_more_is_kept_than_the_bounds_say() {
    let mut story = Story::new(FlowLimits::default(), 1000);
    story.tell("0s up");
    for port in 1..=400 {
        let flow_key = FlowKey {
            socket: 0,
            client: SocketAddr::new("192.0.2.1".parse().unwrap(), port),
            local: None,
        };
        for _ in 0..20 {
            assert_eq!(
                story.flows.on_datagram(
                    flow_key,
                    "dns".parse().unwrap(),
                    53,
                    &[0; 60_000],
                    story.now
                ),
                None
            );
        }
    }
    assert!(story.flows.resend_bytes <= 16 * 1024 * 1024, "{}", story.flows.resend_bytes);
    story.flows.handle_input(Input::End, story.now);
    assert_eq!((story.flows.resend_bytes, story.flows.count()), (0, 0));
}

#[test]
fn a_burst_waits_for_the_provider_and_is_resent_when_it_was_refused() {
    let mut story = Story::new(FlowLimits::default(), 10);
    story.tell("0s up");
    for number in 0..300 {
        assert_eq!(story.says("a", format!("{number}").as_bytes()), None);
    }
    let kept = |story: &Story| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        story.flows.unconfirmed(story.key("a")).map(text).collect::<Vec<_>>()
    };
    let first = || (0..256).map(|number| number.to_string());
    assert_eq!(kept(&story), first().collect::<Vec<_>>());
    story.happen("told 10.0.0.1:53 id=1");
    story.collect();
    story.deeds.clear();
    // What is sent later displaces one datagram each.
    story.says("a", b"later");
    assert_eq!(kept(&story), first().skip(1).chain(["later".into()]).collect::<Vec<_>>());
    // A second later nothing of it is kept but what is new.
    story.now = story.now + TAKEN_AFTER;
    story.says("a", b"x");
    assert_eq!(kept(&story), ["x"]);
    for number in 0..20 {
        story.says("a", format!("{number}").as_bytes());
    }
    assert_eq!(kept(&story), (12..20).map(|n| n.to_string()).collect::<Vec<_>>());
    story.flows.handle_input(Input::End, story.now);
    while story.flows.poll_output().is_some() {}
    story.ends();
}

#[test]
fn empty_datagrams_are_bounded_too() {
    let mut story = Story::new(FlowLimits::default(), 10_000);
    story.tell("0s up");
    for port in 1..=2000 {
        let client = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
        let flow_key = FlowKey { socket: 0, client, local: None };
        for _ in 0..256 {
            story.flows.on_datagram(flow_key, "dns".parse().unwrap(), 53, b"", story.now);
        }
    }
    let kept: usize =
        story.flows.flows.iter().map(|(key, _)| story.flows.unconfirmed(key).count()).sum();
    assert_eq!(kept, 16 * 1024 * 1024 / 64);
}
