//! A redirector: clients, a queue that says anything, providers that do anything.

use super::bytes::{pass, Bytes};
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::Moment;
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::{Request, RequestResult};
use pegasus_core::redirect::redirector::{
    Failure, Input, Output, PrefetchSize, RedirectLog, RedirectOptions, Redirector,
};

const CLIENTS_MAX: usize = 32;
const ANSWERS: [&str; 8] = [
    "10.0.0.1:80",
    "10.0.0.2",
    "[::1]:80",
    "error no-ticket",
    "error draining",
    "error busy too many",
    "ok",
    "ok discarded=3",
];

/// An answer to any `next`.
pub fn answer(data: &mut Bytes, id: u32) -> Reply {
    let text = data.pick(&ANSWERS);
    let numbered = format!("{text} id={id}");
    Reply::parse(numbered.as_bytes()).or_else(|_| Reply::parse(text.as_bytes())).unwrap()
}

struct World {
    redirector: Redirector,
    now: Moment,
    clients: Slab<()>,
    keys: Vec<Key>,
    asked: Vec<u32>,
}

impl World {
    fn settle(&mut self) {
        let World { redirector, now, clients, asked, .. } = self;
        pass(redirector, *now, |output| {
            match output {
                Output::SendToQueue(Request::Next(next)) => asked.extend(next.id),
                Output::Log(RedirectLog::Closed { client, .. }) => {
                    // The port is the client's number.
                    let key = clients.key_at(usize::from(client.port())).expect("gone once");
                    clients.remove(key);
                }
                _ => {}
            }
            false
        });
    }

    fn arrive(&mut self, data: &mut Bytes) {
        if self.clients.len() >= CLIENTS_MAX {
            return;
        }
        let client = self.clients.insert(());
        self.keys.push(client);
        let service = data.pick(&["web", "mail"]).parse().unwrap();
        let from = ([192, 0, 2, 1], client.index() as u16).into();
        self.redirector.handle_input(Input::Arrived { client, service, from, port: 80 }, self.now);
    }

    fn step(&mut self, data: &mut Bytes) {
        let place = data.below(self.keys.len().clamp(1, 256));
        let Some(client) = self.keys.get(place).copied() else { return self.arrive(data) };
        let why = data.pick(&[Failure::Refused, Failure::TimedOut, Failure::Reset]);
        let input = match data.below(20) {
            0..=2 => return self.arrive(data),
            3..=6 => {
                let id = self.asked.pop().unwrap_or(u32::from(data.byte()));
                Input::QueueReply { id, reply: answer(data, id.max(1)) }
            }
            7 => Input::QueueUp,
            8 => Input::QueueDown,
            9 => Input::Connected { client },
            10 => Input::ConnectFailed { client, why },
            11 => Input::ConnectBlocked { client },
            12 if data.one_in(2) => Input::NoSocket { client },
            12 => Input::ConnectDeferred { client },
            13 => Input::ConnectStarted { client },
            14 => Input::ClientLeft { client },
            15 => Input::ProviderConfirmed { client },
            16 => Input::ProviderLost { client, why, sent: 0, received: u64::MAX },
            17 => closed(client),
            18 => Input::Fallback {
                service: "web".parse().unwrap(),
                addresses: (0..data.below(3)).map(|n| ([10, 0, 1, n as u8], 80).into()).collect(),
            },
            _ => {
                self.now = self.now + data.span();
                return;
            }
        };
        self.redirector.handle_input(input, self.now);
    }
}

fn closed(client: Key) -> Input {
    Input::Closed {
        client,
        outcome: Outcome::Complete,
        result: RequestResult::Good,
        local: None,
        sent: 1,
        received: 1,
    }
}

pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    let options = RedirectOptions {
        prefetch: PrefetchSize::Fixed(data.below(3) as u32),
        ..RedirectOptions::default()
    };
    let mut world = World {
        redirector: Redirector::new(options),
        now: Moment::ZERO,
        clients: Slab::default(),
        keys: Vec::new(),
        asked: Vec::new(),
    };
    while !data.is_empty() {
        world.step(&mut data);
        world.settle();
    }
    for client in world.clients.keys() {
        world.redirector.handle_input(Input::ClientLeft { client }, world.now);
        world.settle();
        world.redirector.handle_input(closed(client), world.now);
        world.settle();
    }
    assert_eq!(world.clients.len(), 0, "a client is left");
}
