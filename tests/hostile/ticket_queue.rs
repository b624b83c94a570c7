//! A ticket queue: each `next` is answered once and in its time, no place is lost, and at
//! the end nothing is left.

use super::bytes::{pass, Bytes};
use pegasus_core::base::key_value::find;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::Request;
use pegasus_core::queue::ticket_queue::{Input, Output, QueueOptions, TicketQueue};
use pegasus_core::scheduler::SCHEDULERS;
use std::collections::HashMap;
use std::net::IpAddr;

const PEERS: [&str; 4] = ["127.0.0.1", "10.0.0.1", "10.0.0.2", "2001:db8::1"];
const SERVICES: [&str; 4] = ["web", "mail", "dns", "default"];
const WAIT_MAX: Span = Span::from_secs(5);
const PLUGIN_TIMEOUT: Span = Span::from_millis(50);

/// In what order, or with which id, an answer is due.
type Question = (Key, Result<u64, u32>);

struct World {
    queue: TicketQueue,
    now: Moment,
    connections: Slab<()>,
    /// Also of connections that are gone.
    keys: Vec<Key>,
    order: u64,
    /// Until when each question must be answered.
    due: HashMap<Question, Vec<Moment>>,
    asked: Vec<String>,
}

fn options(data: &mut Bytes) -> QueueOptions {
    let everywhere = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    let scheduler = match data.below(SCHEDULERS.len() + 4) {
        number if number < SCHEDULERS.len() => SCHEDULERS[number].names[0],
        _ => "exec:chooser",
    };
    let affinity = ("web".parse().unwrap(), Span::from_secs(60));
    QueueOptions {
        scheduler: scheduler.parse().unwrap(),
        affinities: if data.one_in(2) { vec![affinity] } else { Vec::new() },
        plugin_timeout: PLUGIN_TIMEOUT,
        wait_max: WAIT_MAX,
        waiting_max: 1 + data.below(8),
        providers_max: 1 + data.below(8),
        services_max: 1 + data.below(4),
        source_providers_max: 1 + data.below(4),
        allow_ticket: everywhere.clone(),
        allow_next: everywhere.clone(),
        allow_status: everywhere.clone(),
        allow_drain: everywhere,
        ..QueueOptions::default()
    }
}

fn provider(data: &mut Bytes) -> String {
    format!("10.0.0.{}:{}", 1 + data.below(3), 80 + data.below(3))
}

/// A message in the protocol's notation.
fn message(data: &mut Bytes) -> String {
    let (service, provider) = (data.pick(&SERVICES), provider(data));
    let id = 1 + data.below(6);
    match data.below(16) {
        0..=4 => {
            let mut text = format!("next?service={service}&wait={}", data.span());
            if data.one_in(2) {
                text += &format!("&id={id}");
            }
            if data.one_in(3) {
                text += &format!("&avoid={provider}");
            }
            if data.one_in(2) {
                text += &format!("&client=192.0.2.{}", data.below(4));
            }
            text
        }
        5..=8 => {
            let (tickets, capacity) = (data.below(5), data.below(6));
            let lease = if data.one_in(8) { "5000000h".into() } else { data.span().to_string() };
            let place =
                if data.one_in(2) { format!("provider={provider}&") } else { String::new() };
            format!(
                "ticket?{place}service={service}&tickets={tickets}\
                 &capacity={capacity}&lease={lease}"
            )
        }
        9..=11 => {
            format!("done?id={id}&result={}", data.pick(&["good", "empty", "reset", "unused"]))
        }
        12 => format!("failure?provider={provider}&service={service}&id={id}"),
        13 => format!("failure?provider={provider}&service={service}"),
        14 => format!("withdraw?provider={provider}&service={service}"),
        _ if data.one_in(2) => format!("drain?provider={provider}&for={}", data.span()),
        _ => format!("resume?provider={provider}"),
    }
}

impl World {
    fn settle(&mut self) {
        let World { queue, now, due, asked, .. } = self;
        pass(queue, *now, |output| {
            match output {
                Output::Reply { connection, slot, reply } => {
                    let id = match &reply {
                        Reply::Provider { id, .. } | Reply::Error { id, .. } => *id,
                        _ => None,
                    };
                    let question = (connection, slot.ok_or_else(|| id.expect("an order or an id")));
                    let known = due.get_mut(&question).and_then(Vec::pop);
                    assert!(known.is_some(), "answered twice: {reply}");
                }
                Output::PluginSend { line, .. } => asked.push(line),
                _ => {}
            }
            false
        });
        let late = |question: &&Question| due[*question].iter().any(|until| *until < *now);
        assert_eq!(due.keys().find(late), None, "not answered in its time");
    }

    fn say(&mut self, connection: Key, text: &str) {
        let is_known = self.connections.get(connection).is_some();
        let request = Request::parse(format!("pegasus://b/{text}").as_bytes()).unwrap();
        let (mut until, mut id) = (self.now, None);
        if let Request::Next(next) = &request {
            let wait = next.wait.min(WAIT_MAX);
            until = self.now + if wait.is_zero() { PLUGIN_TIMEOUT } else { wait };
            id = next.id;
        }
        let slot = id.is_none().then_some(self.order);
        self.order += 1;
        if is_known {
            let question = (connection, slot.ok_or_else(|| id.unwrap()));
            self.due.entry(question).or_default().push(until);
        }
        self.queue.handle_input(Input::Request { connection, slot, request }, self.now);
    }

    fn hang_up(&mut self, connection: Key) {
        self.connections.remove(connection);
        self.queue.handle_input(Input::Disconnected { connection }, self.now);
        self.due.retain(|(key, _), _| *key != connection);
    }

    fn plugin(&mut self, data: &mut Bytes) {
        let service: ServiceName = data.pick(&SERVICES).parse().unwrap();
        let question = self.asked.pop().unwrap_or_default();
        let id = find(&question, "id").unwrap_or("3").to_string();
        let input = match data.below(4) {
            0 => Input::PluginState { service, up: data.one_in(2) },
            1 => Input::PluginReply { service, line: "what?".into() },
            _ => {
                let line = format!("id={id} provider={}", provider(data));
                Input::PluginReply { service, line }
            }
        };
        self.queue.handle_input(input, self.now);
    }

    /// Each place is free, active or spent.
    fn check(&self) -> String {
        let status = self.queue.status(None, self.now);
        for line in status.lines().filter(|line| line.starts_with("provider ")) {
            let number = |key| find(line, key).and_then(|text| text.parse().ok()).unwrap_or(0u64);
            let sum = number("free") + number("active") + number("spent");
            assert_eq!(number("offered"), sum, "{line}");
        }
        status
    }

    fn step(&mut self, data: &mut Bytes) {
        let any = (!self.keys.is_empty()).then(|| data.below(self.keys.len().min(256)));
        let any = any.map(|place| self.keys[place]);
        match (data.below(32), any) {
            (0..=2, _) | (_, None) => {
                let connection = self.connections.insert(());
                let peer: IpAddr = data.pick(&PEERS).parse().unwrap();
                self.keys.push(connection);
                self.queue.handle_input(Input::Connected { connection, peer }, self.now);
            }
            (3, Some(key)) => self.hang_up(key),
            (4, Some(connection)) => {
                self.queue.handle_input(Input::ReadClosed { connection }, self.now)
            }
            (5, Some(connection)) => {
                self.queue.handle_input(Input::SendFailed { connection }, self.now)
            }
            (6..=8, _) => self.plugin(data),
            (9, _) => {
                let options = options(data);
                self.queue.handle_input(Input::Reconfigure(Box::new(options)), self.now);
            }
            (10, _) if data.one_in(16) => self.queue.handle_input(Input::Drain, self.now),
            (10..=15, _) => self.now = self.now + data.span(),
            (_, Some(key)) => self.say(key, &message(data)),
        }
    }
}

pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    let mut world = World {
        queue: TicketQueue::new(options(&mut data), 7),
        now: Moment::ZERO,
        connections: Slab::default(),
        keys: Vec::new(),
        order: 0,
        due: HashMap::new(),
        asked: Vec::new(),
    };
    while !data.is_empty() {
        world.step(&mut data);
        world.settle();
        world.check();
    }
    for key in world.connections.keys() {
        world.hang_up(key);
        world.settle();
    }
    let status = world.check();
    let active = status.split([' ', '\n']).filter(|word| word.starts_with("active="));
    assert!(active.into_iter().all(|word| word == "active=0"), "{status}");
    assert!(status.contains(" waiting=0 "), "{status}");
}
