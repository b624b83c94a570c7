//! The hand of a redirector, its clients, and the calls to providers.

use super::super::hosts::{Health, Visitor};
use super::super::network::End;
use super::{address, service, Event, World, SERVICES};
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::slab::Key;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::Span;
use pegasus_core::redirect::redirector::{self, Failure, RedirectLog};
use std::net::{IpAddr, SocketAddr};

/// The longest wait for a ticket, and the time a queue has to answer or to
/// come back; a call has less.
const CLIENT_WAIT_MAX: Span = Span::from_secs(2 + 5);

impl World {
    pub(super) fn client_comes(&mut self, redirector: usize) {
        if self.quiet {
            return;
        }
        self.within(250, Event::ClientComes(redirector));
        self.clients += 1;
        let number = self.clients;
        let wanted = self.random.below(SERVICES.len());
        let visitor = Visitor {
            number,
            since: self.now,
            service: service(wanted),
            calls: 0,
            relaying: false,
            turned_away: false,
            closed: false,
            failed: Vec::new(),
        };
        let host = &mut self.redirectors[redirector];
        let (client, life) = (host.visitors.insert(visitor), host.life);
        let from = SocketAddr::new(IpAddr::from(number.to_be_bytes()), 1);
        let input = redirector::Input::Arrived {
            client,
            service: service(wanted),
            from,
            port: SERVICES[wanted].1,
        };
        self.tell_redirector(redirector, input);
        if self.one_in(10) {
            self.within(1000, Event::ClientLeaves { redirector, life, client });
        }
    }

    pub(super) fn visitor(
        &mut self,
        redirector: usize,
        life: u32,
        client: Key,
    ) -> Option<&mut Visitor> {
        let host = &mut self.redirectors[redirector];
        host.visitors.get_mut(client).filter(|_| host.life == life)
    }

    pub(super) fn tell_redirector(&mut self, redirector: usize, input: redirector::Input) {
        self.redirectors[redirector].machine.handle_input(input, self.now);
        self.act_redirector(redirector);
    }

    pub(super) fn act_redirector(&mut self, redirector: usize) {
        while let Some(output) = self.redirectors[redirector].machine.poll_output() {
            match output {
                redirector::Output::SendToQueue(request) => {
                    let host = &mut self.redirectors[redirector];
                    let Some(link) = host.link else { continue };
                    host.asking.send(&"b", &request, ());
                    let bytes = host.asking.out.bytes().to_vec();
                    host.asking.out.sent(bytes.len());
                    self.send(link, End::Queue, &bytes);
                }
                redirector::Output::Connect { client, to } => self.call(redirector, client, to),
                // A call that is answered too late is ignored: see `called`.
                redirector::Output::AbortConnect { .. } => {}
                redirector::Output::ResetClient { client } => {
                    let visitor = self.redirectors[redirector]
                        .visitors
                        .get_mut(client)
                        .expect("a client turned away");
                    assert!(
                        !std::mem::replace(&mut visitor.turned_away, true),
                        "turned away twice"
                    );
                }
                redirector::Output::Log(RedirectLog::Closed { client, outcome, .. }) => {
                    self.gone(redirector, client, outcome)
                }
                redirector::Output::Log(RedirectLog::ProviderFailed { .. }) => {}
            }
        }
        for (_, visitor) in
            self.redirectors[redirector].visitors.iter().filter(|(_, visitor)| !visitor.relaying)
        {
            let waited = self.now.since(visitor.since);
            assert!(
                waited <= CLIENT_WAIT_MAX,
                "client {} has waited {waited} for nothing",
                visitor.number
            );
        }
    }

    /// The way to the queue opened or closed.
    pub(super) fn queue_turned(&mut self, redirector: usize) {
        let host = &mut self.redirectors[redirector];
        host.visitors.iter_mut().for_each(|visitor| visitor.since = self.now);
    }

    pub(super) fn gone(&mut self, redirector: usize, from: SocketAddr, outcome: Outcome) {
        let visitors = &mut self.redirectors[redirector].visitors;
        let same = |visitor: &Visitor| IpAddr::from(visitor.number.to_be_bytes()) == from.ip();
        let key = visitors
            .iter()
            .find(|(_, visitor)| same(visitor))
            .map(|(key, _)| key)
            .expect("gone once");
        let visitor = visitors.remove(key).expect("gone once");
        assert!(
            visitor.turned_away != visitor.closed,
            "{outcome}: closed by the relay or turned away, one of both"
        );
        let complete = matches!(outcome, Outcome::Complete | Outcome::ProviderReset);
        assert_eq!(complete, visitor.closed, "{outcome}");
        self.ended[usize::from(!complete)] += 1;
    }

    pub(super) fn call(&mut self, redirector: usize, client: Key, to: SocketAddr) {
        let provider = (0..self.monitors.len())
            .find(|monitor| address(*monitor) == to.ip())
            .expect("a provider");
        let health = self.monitors[provider].health;
        let (fails, stuck) = (self.one_in(200), self.one_in(300));
        let host = &mut self.redirectors[redirector];
        let life = host.life;
        let visitor = host.visitors.get_mut(client).expect("a client that is not gone");
        assert!(!visitor.relaying && !visitor.turned_away, "a call for nobody");
        assert!(!visitor.failed.contains(&to), "led to {to} again, which failed");
        let port = SERVICES
            .iter()
            .find(|(name, _)| *name == visitor.service.as_str())
            .map(|(_, port)| *port);
        assert_eq!(Some(to.port()), port, "another service");
        visitor.calls += 1;
        visitor.since = self.now;
        let call = visitor.calls;
        let result = match health {
            Health::Well if fails => Err(Failure::Reset),
            Health::Well => Ok(provider),
            Health::Dead => Err(Failure::Refused),
            Health::Silent => Err(Failure::TimedOut),
        };
        visitor.failed.push(to);
        if stuck {
            let input = match self.one_in(2) {
                true => redirector::Input::NoSocket { client },
                false => redirector::Input::ConnectBlocked { client },
            };
            return self.tell_redirector(redirector, input);
        }
        if result == Err(Failure::Refused) && self.one_in(2) {
            // A deed that fails at once is an input in the same turn.
            return self.tell_redirector(
                redirector,
                redirector::Input::ConnectFailed { client, why: Failure::Refused },
            );
        }
        let event = Event::Called { redirector, life, client, call, result };
        match result {
            // Later than the machine has patience, and then of no use to it.
            Err(Failure::TimedOut) => self.at(self.now + Span::from_millis(3001), event),
            _ => self.within(40, event),
        }
    }

    pub(super) fn called(
        &mut self,
        redirector: usize,
        life: u32,
        client: Key,
        call: u32,
        result: Result<usize, Failure>,
    ) {
        let now = self.now;
        let Some(visitor) =
            self.visitor(redirector, life, client).filter(|visitor| visitor.calls == call)
        else {
            return;
        };
        match result {
            Ok(provider) => {
                visitor.relaying = true;
                self.monitors[provider].running += 1;
                let slow = 1 + u64::from(self.monitors[provider].running) / 8;
                self.tell_redirector(redirector, redirector::Input::Connected { client });
                self.within(400 * slow, Event::Served { redirector, life, client, provider });
            }
            Err(why) => {
                visitor.since = now;
                self.tell_redirector(redirector, redirector::Input::ConnectFailed { client, why });
            }
        }
    }
}
