//! Those who ask a queue by hand, as the paper does: without ids, several
//! questions at once, bad lines among them.

use super::super::hosts::Expected;
use super::super::network::{Arrival, End};
use super::{address, service, Event, World, SERVICES};
use pegasus_core::base::address::Provider;
use pegasus_core::base::time::Span;
use pegasus_core::protocol::message::{Next, Request, RequestResult};

impl World {
    pub(super) fn plain_asks(&mut self, plain: usize) {
        let Some(link) = self.plains[plain].link.filter(|_| !self.plains[plain].ended) else {
            return;
        };
        if self.one_in(8) {
            self.plains[plain].ended = true;
            if let Some(at) = self.network.half_close(link, End::Queue, &mut self.random, self.now)
            {
                self.at(at, Event::Arrives(link, End::Queue, Arrival::Half));
            }
            return;
        }
        self.within(600, Event::PlainAsks(plain));
        let mut bytes = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let number = self.random.below(SERVICES.len());
            let wait = Span::from_millis([0, 0, 300, 9000][self.random.below(4)]);
            let someone = Provider {
                ip: address(self.random.below(self.monitors.len())),
                port: Some(SERVICES[number].1),
            };
            let avoid = if self.one_in(4) { vec![someone] } else { Vec::new() };
            let next = Next { service: service(number), wait, id: None, client: None, avoid };
            let kind = self.random.below(20);
            // One that was used, or the next one.
            let used = self.random.below(self.plains[plain].ids.len() + 1) as u32 + 1;
            let host = &mut self.plains[plain];
            host.waiting += 1;
            let expected = match kind {
                0 => Expected::Discarded,
                1 => Expected::Ended,
                2 => Expected::Mistake,
                _ => Expected::Provider(SERVICES[number].1),
            };
            let request = match kind {
                0 => {
                    let id = Some(used).filter(|id| *id % 2 == 0);
                    Request::Failure { provider: someone.into(), service: service(number), id }
                }
                1 | 2 => Request::Done {
                    id: used,
                    result: if used % 3 == 0 { RequestResult::Unused } else { RequestResult::Good },
                },
                3..=6 => {
                    let id = host.ids.len() as u32 + 1;
                    host.ids.insert(id, false);
                    Request::Next(Next { id: Some(id), ..next })
                }
                _ => Request::Next(next),
            };
            host.asking.send(&"b", &request, expected);
            let line = if expected == Expected::Mistake {
                b"next please\r\n"
            } else {
                host.asking.out.bytes()
            };
            bytes.extend_from_slice(line);
            host.asking.out.sent(usize::MAX / 2);
        }
        self.send(link, End::Queue, &bytes);
    }
}
