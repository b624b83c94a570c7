//! Who may say what to the queue.
//!
//! Owns the decision on every message: of a plain connection by the allow lists, of one
//! with a key by that key alone. Knows no cipher.

use super::key_records::ProviderKeys;
use super::{allows, TicketQueue};
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::Moment;
use crate::protocol::peer_key::{KeyName, KeyTable, PeerKey};
use crate::protocol::reply::{ErrorCode, ProtocolError};
use crate::protocol::request::Request;
use std::net::IpAddr;
use std::sync::Arc;

impl TicketQueue {
    /// Whether this connection may say this.
    pub(super) fn authorize(
        &self,
        connection: Key,
        request: &Request,
    ) -> Result<(), ProtocolError> {
        let Some(conn) = self.connection(connection).filter(|conn| !conn.is_local) else {
            return Ok(());
        };
        let Some(key) = &conn.peer_key else { return self.authorize_plain(request, conn.peer) };
        key.authorize(request, conn.peer)?;
        if let Request::Failure { provider, service, .. } = request {
            let known = self.key_records.providers.get(&(*service, provider.resolve(conn.peer)));
            let given = known.is_some_and(|known| known.given.binary_search(&key.name).is_ok());
            if !given {
                let why = "this key was not given this provider";
                return Err(ProtocolError::new(ErrorCode::Denied, why));
            }
        }
        Ok(())
    }

    fn authorize_plain(&self, request: &Request, peer: IpAddr) -> Result<(), ProtocolError> {
        let (list, denial) = match request {
            Request::Ticket { .. } | Request::Withdraw { .. } => {
                (&self.options.allow_ticket, "this address is not in queue_allow_ticket")
            }
            Request::Next(_) | Request::Failure { .. } | Request::Done { .. } => {
                (&self.options.allow_next, "this address is not in queue_allow_next")
            }
            Request::Drain { .. } | Request::Resume { .. } => {
                (&self.options.allow_drain, "this address is not in queue_allow_drain")
            }
            Request::Status { .. } => {
                (&self.options.allow_status, "this address is not in queue_allow_status")
            }
        };
        if !allows(list, peer) {
            return Err(ProtocolError::new(ErrorCode::Denied, denial));
        }
        let (Request::Ticket { provider, .. } | Request::Withdraw { provider, .. }) = request
        else {
            return Ok(());
        };
        // From this host any: scripts and tunnels speak for others.
        if provider.resolve(peer).ip == peer || peer.is_loopback() {
            return Ok(());
        }
        let why = "a provider may speak for its own address only";
        Err(ProtocolError::new(ErrorCode::Denied, why))
    }

    /// Whether a plain connection of this host may withdraw any provider.
    pub(super) fn may_withdraw_all(&self, connection: Key) -> bool {
        let conn = self.connection(connection).filter(|conn| conn.peer_key.is_none());
        conn.is_some_and(|conn| {
            conn.peer.is_loopback() && allows(&self.options.allow_ticket, conn.peer)
        })
    }

    /// A connection proved that it has this key, or its key has other rights now.
    pub(super) fn authenticated(&mut self, connection: Key, key: Arc<PeerKey>) {
        if let Some(conn) = self.connection_mut(connection) {
            conn.peer_key = Some(key);
        }
    }

    /// A provider was offered on this connection.
    pub(super) fn note_registered(
        &mut self,
        connection: Key,
        service: ServiceName,
        provider: Provider,
    ) {
        let conn = self.connection(connection);
        let name = conn.and_then(|conn| conn.peer_key.as_ref()).map(|key| key.name);
        let records = &mut self.key_records.providers;
        match (name, records.get_mut(&(service, provider))) {
            (name, Some(known)) => known.registered = name,
            (None, None) => {}
            (name, None) => {
                let keys = ProviderKeys { registered: name, ..ProviderKeys::default() };
                records.insert((service, provider), keys);
            }
        }
    }

    /// A provider was given to this connection.
    pub(super) fn note_given(&mut self, connection: Key, service: ServiceName, provider: Provider) {
        let conn = self.connection(connection);
        let Some(name) = conn.and_then(|conn| conn.peer_key.as_ref()).map(|key| key.name) else {
            return;
        };
        let known = self.key_records.providers.entry((service, provider)).or_default();
        if let Err(place) = known.given.binary_search(&name) {
            known.given.insert(place, name);
        }
    }

    /// The key that registered a provider.
    pub(super) fn registered_by(
        &self,
        service: ServiceName,
        provider: Provider,
    ) -> Option<KeyName> {
        self.key_records.providers.get(&(service, provider))?.registered
    }

    /// Other keys are good from now on: what a removed one offered goes.
    pub(super) fn keys_changed(&mut self, keys: &KeyTable, now: Moment) {
        let is_good = |name: &KeyName| keys.named(*name).next().is_some();
        let mut orphans: Vec<(ServiceName, Provider)> = Vec::new();
        for (place, known) in &mut self.key_records.providers {
            known.given.retain(is_good);
            if known.registered.is_some_and(|name| !is_good(&name)) {
                orphans.push(*place);
            }
        }
        // In a fixed order, so that the same story always ends the same way.
        orphans.sort_unstable();
        for (service, provider) in orphans {
            // While its key is known, which the log tells.
            self.discard_offer(service, provider, now);
            if let Some(known) = self.key_records.providers.get_mut(&(service, provider)) {
                known.registered = None;
            }
        }
    }

    /// Forgets the keys of providers that are gone.
    pub(super) fn sweep_key_records(&mut self) {
        let TicketQueue { key_records, by_name, services, .. } = self;
        key_records.providers.retain(|(service, provider), _| {
            let state = by_name.get(service).and_then(|key| services.get(*key));
            state.is_some_and(|state| state.pool.contains(*provider))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Slab;
    use crate::base::state_machine::StateMachine;
    use crate::queue::ticket_queue::{Input, Output, QueueOptions};

    const SECRETS: [&str; 4] = [
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "100102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "300102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ];

    /// A queue that lists no plain peer, and connections of these keys.
    struct Story {
        queue: TicketQueue,
        keys: Arc<KeyTable>,
        numbers: Slab<()>,
    }

    impl Story {
        fn with(lines: &[&str]) -> Story {
            let options = QueueOptions {
                allow_ticket: Vec::new(),
                allow_next: Vec::new(),
                allow_drain: Vec::new(),
                allow_status: Vec::new(),
                ..QueueOptions::default()
            };
            let keys = Arc::new(table(lines));
            Story { queue: TicketQueue::new(options, 1), keys, numbers: Slab::default() }
        }

        fn connect(&mut self, name: &str, peer: &str) -> Key {
            let connection = self.numbers.insert(());
            let peer = peer.parse().unwrap();
            self.queue.handle_input(Input::Connected { connection, peer }, Moment::ZERO);
            let key = name.parse().ok().and_then(|name| self.keys.named(name).next().cloned());
            if let Some(key) = key {
                self.queue.handle_input(Input::Authenticated { connection, key }, Moment::ZERO);
            }
            connection
        }

        fn ask(&mut self, connection: Key, message: &str) -> String {
            let request = Request::parse(format!("pegasus://b/{message}").as_bytes()).unwrap();
            let input = Input::Request { connection, slot: Some(0), request };
            self.queue.handle_input(input, Moment::ZERO);
            while let Some(output) = self.queue.poll_output() {
                if let Output::Reply { reply, .. } = output {
                    return reply.to_string().trim_end().to_string();
                }
            }
            panic!("no answer to {message}");
        }
    }

    fn table(lines: &[&str]) -> KeyTable {
        let line = |(line, secret): (&&str, &&str)| {
            let (name, role) = line.split_once(' ').unwrap();
            let (role, rest) = role.split_once(' ').unwrap_or((role, ""));
            format!("{name}=\"{role} {secret} {rest}\"\n")
        };
        KeyTable::parse(&lines.iter().zip(&SECRETS).map(line).collect::<String>()).unwrap()
    }

    const TICKET: &str = "ticket?provider=10.0.3.1:80&tickets=5&capacity=5";

    #[test]
    fn a_plain_peer_that_is_not_listed_may_say_nothing() {
        let mut story = Story::with(&["web3 provider"]);
        let plain = story.connect("", "127.0.0.1");
        for message in [TICKET, "next", "status", "done?id=1", "failure?provider=10.0.0.1"] {
            assert!(story.ask(plain, message).starts_with("error denied"), "{message}");
        }
    }

    #[test]
    fn a_balancer_reports_only_what_its_key_was_given() {
        let mut story = Story::with(&["web3 provider", "lb1 balancer", "lb2 balancer"]);
        let web = story.connect("web3", "10.0.3.1");
        assert!(story.ask(web, TICKET).starts_with("ok "));
        let (one, again) = (story.connect("lb1", "10.0.0.1"), story.connect("lb1", "10.0.0.1"));
        let other = story.connect("lb2", "10.0.0.2");
        let failure = "failure?provider=10.0.3.1:80";
        assert!(story.ask(one, failure).starts_with("error denied"), "before it was given");
        assert_eq!(story.ask(one, "next"), "10.0.3.1:80");
        assert!(story.ask(other, failure).starts_with("error denied"));
        assert!(story.ask(again, failure).starts_with("ok"), "another connection of that key");
    }

    #[test]
    fn what_a_removed_key_offered_goes_and_the_rest_stays() {
        let lines = ["web3 provider", "lb1 balancer", "web4 provider", "ops observer"];
        let mut story = Story::with(&lines);
        let (one, other) = (story.connect("web3", "10.0.3.1"), story.connect("web4", "10.0.4.1"));
        story.ask(one, TICKET);
        story.ask(other, &TICKET.replace("10.0.3", "10.0.4"));
        let ops = story.connect("ops", "10.0.0.9");
        let status = story.ask(ops, "status");
        assert!(status.contains("address=10.0.3.1:80") && status.contains("key=web3"), "{status}");
        let fewer = Arc::new(table(&lines[1..]));
        story.queue.handle_input(Input::KeysChanged(fewer), Moment::ZERO);
        let balancer = story.connect("lb1", "10.0.0.1");
        let given: Vec<String> = (0..6).map(|_| story.ask(balancer, "next")).collect();
        assert!(given[..5].iter().all(|given| given == "10.0.4.1:80"), "{given:?}");
        assert!(given[5].starts_with("error no-ticket"), "{given:?}");
    }
}
