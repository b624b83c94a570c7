//! Flows of datagrams: clients, a queue and providers that do anything.

use super::bytes::{pass, Bytes};
use super::redirector::answer;
use pegasus_core::base::slab::Key;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::ErrorCode;
use pegasus_core::protocol::request::Request;
use pegasus_core::redirect::flows::{FlowKey, FlowLimits, FlowOptions, Flows, Input, Output};

const FLOWS_MAX: usize = 16;

struct World {
    flows: Flows,
    now: Moment,
    /// Also of flows that are gone.
    keys: Vec<Key>,
    asked: Vec<u32>,
}

fn options(data: &mut Bytes) -> FlowOptions {
    let limits = FlowLimits {
        idle: Span::from_secs(1 + data.below(9) as u64),
        replies: data.below(3) as u32,
        age: Span::from_secs(60),
        per_datagram: data.one_in(4),
        any_port: data.one_in(4),
    };
    FlowOptions {
        flows_max: FLOWS_MAX,
        services: [("dns".parse().unwrap(), limits)].into(),
        ..FlowOptions::default()
    }
}

impl World {
    fn settle(&mut self) {
        let World { flows, now, keys, asked, .. } = self;
        pass(flows, *now, |output| {
            match output {
                Output::SendToQueue(Request::Next(next)) => asked.extend(next.id),
                Output::Open { flow, .. } | Output::Probe { flow, .. } | Output::Drop { flow } => {
                    keys.push(flow);
                    if keys.len() > 64 {
                        keys.remove(0);
                    }
                }
                _ => {}
            }
            false
        });
        assert!(self.flows.count() <= FLOWS_MAX, "{} flows", self.flows.count());
    }

    fn datagram(&mut self, data: &mut Bytes) {
        let client = ([192, 0, 2, data.below(3) as u8], 1000 + data.below(8) as u16).into();
        let key = FlowKey { socket: data.below(2), client, local: None };
        let bytes = data.pick(&[&b""[..], b"question", b"\0\x01file\0octet\0"]);
        self.flows.on_datagram(key, "dns".parse().unwrap(), 53, bytes, self.now);
    }

    fn step(&mut self, data: &mut Bytes) {
        let place = data.below(self.keys.len().clamp(1, 256));
        let flow = self.keys.get(place).copied();
        let input = match (data.below(24), flow) {
            (0..=5, _) => return self.datagram(data),
            (6..=9, _) => {
                let id = self.asked.pop().unwrap_or(u32::from(data.byte()));
                Input::QueueReply { id, reply: answer(data, id.max(1)) }
            }
            (10, _) => Input::QueueUp,
            (11, _) => Input::QueueDown,
            (12, Some(flow)) => Input::Opened { flow },
            (13, Some(flow)) => Input::OpenFailed { flow },
            (14, Some(flow)) => Input::ProviderUnreachable { flow },
            (15, Some(flow)) => Input::SendBlocked { flow },
            (16, Some(flow)) => Input::NoSocket { flow },
            (17, _) => Input::Status {
                lines: data
                    .pick(&["", "provider service=dns address=10.0.0.1:80 tickets=0 lease=0s\n"])
                    .into(),
            },
            (18, _) => Input::StatusDenied { code: ErrorCode::Denied },
            (19, _) => Input::Reconfigure(options(data)),
            (20, _) if data.one_in(8) => Input::Close { socket: data.below(2) },
            (21, _) if data.one_in(8) => Input::StopNewFlows { socket: data.below(2) },
            (22, _) if data.one_in(16) => Input::Drain,
            _ => {
                self.now = self.now + data.span();
                return;
            }
        };
        self.flows.handle_input(input, self.now);
    }
}

pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    let flows = Flows::new(options(&mut data));
    let mut world = World { flows, now: Moment::ZERO, keys: Vec::new(), asked: Vec::new() };
    while !data.is_empty() {
        world.step(&mut data);
        world.settle();
    }
    world.flows.handle_input(Input::End, world.now);
    world.settle();
    assert_eq!(world.flows.count(), 0, "a flow is left");
}
