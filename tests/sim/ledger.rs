//! The laws of tickets, kept by somebody who only listens: what a queue is
//! asked and what it answers.
//!
//! Owns a naive model of section "the queue" of the specification: who offers
//! what, who has it, who waits. Panics at the first answer that breaks a law.

use pegasus_core::base::address::Provider;
use pegasus_core::base::key_value;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::channel::ReplySlot;
use pegasus_core::protocol::message::{ErrorCode, Reply, Request};
use std::collections::BTreeMap;
use std::net::IpAddr;

type Whose = (ServiceName, Provider);

#[derive(Debug)]
struct Account {
    tickets: u32,
    capacity: u32,
    lease_end: Moment,
    spent: u32,
    active: u32,
    granted: u64,
    hold_end: Moment,
    failures_in_row: u32,
    deaths: u32,
    probation: u64,
    probing: u64,
}

impl Account {
    fn new(now: Moment) -> Account {
        Account {
            tickets: 0,
            capacity: 0,
            lease_end: now,
            spent: 0,
            active: 0,
            granted: 0,
            hold_end: Moment::ZERO,
            failures_in_row: 0,
            deaths: 0,
            probation: u64::MAX,
            probing: 0,
        }
    }

    fn free(&self) -> u32 {
        self.tickets.saturating_sub(self.active + self.spent)
    }

    fn open(&self, now: Moment) -> bool {
        self.hold_end <= now && now < self.lease_end
    }

    fn on_capacity(&self, now: Moment) -> bool {
        self.open(now) && self.active < self.capacity && self.probing < self.probation
    }

    fn on_ticket(&self, counted: bool, now: Moment) -> bool {
        let place = self.open(now)
            && self.free() > 0
            && self.probing + u64::from(self.spent) < self.probation;
        place && (!counted || self.on_capacity(now))
    }

    fn good(&mut self) {
        self.failures_in_row = 0;
        self.probation = if self.probation >= 32 { u64::MAX } else { self.probation * 2 };
    }

    fn discard(&mut self, now: Moment) {
        (self.tickets, self.capacity, self.spent) = (0, 0, 0);
        self.lease_end = self.lease_end.min(now);
    }
}

#[derive(Debug)]
struct Pending {
    service: ServiceName,
    deadline: Moment,
    avoid: Vec<Provider>,
    counted: bool,
    given_up: bool,
}

#[derive(Debug)]
struct Granted {
    whose: Whose,
    deaths: u32,
}

/// What a `next` goes by: its place in the order of answers, or its id.
type Question = (Key, Result<u64, u32>);

/// See the file's head.
#[derive(Default)]
pub struct Ledger {
    accounts: BTreeMap<Whose, Account>,
    pending: BTreeMap<Question, Pending>,
    /// Requests other than `next` that are to be answered.
    owed: BTreeMap<(Key, u64), (Request, Option<u64>)>,
    granted: BTreeMap<(Key, u32), Granted>,
    swept: Moment,
    /// Nobody waits and nothing is granted any more.
    pub draining: bool,
    /// Grants and errors of all times, to see that something happened.
    pub answers: [u64; 2],
}

impl Ledger {
    /// The queue hears a request. `wait_max` is the longest wait.
    pub fn asked(
        &mut self,
        key: Key,
        order: ReplySlot,
        peer: IpAddr,
        request: &Request,
        wait_max: Span,
        now: Moment,
    ) {
        let mut granted_before = None;
        match request {
            Request::Next(next) => {
                let question = (key, next.id.map_or(Ok(order.unwrap_or(0)), Err));
                let pending = Pending {
                    service: next.service,
                    deadline: now + next.wait.min(wait_max),
                    avoid: next.avoid.clone(),
                    counted: next.id.is_some(),
                    given_up: false,
                };
                assert!(
                    self.pending.insert(question, pending).is_none(),
                    "a question twice at once"
                );
                return;
            }
            Request::Ticket { provider, service, tickets, capacity, lease } => {
                let whose = (*service, provider.resolve(peer));
                let account = self.accounts.entry(whose).or_insert_with(|| Account::new(now));
                granted_before = Some(account.granted);
                if account.hold_end <= now {
                    (0..account.spent.min(64)).for_each(|_| account.good());
                }
                (account.tickets, account.capacity, account.spent, account.granted) =
                    (*tickets, *capacity, 0, 0);
                let lease = if *capacity == 0 {
                    Span::ZERO
                } else {
                    lease.expect("monitors say their lease")
                };
                account.lease_end = now + lease;
            }
            Request::Withdraw { provider, service } => {
                if let Some(account) = self.accounts.get_mut(&(*service, provider.resolve(peer))) {
                    account.discard(now);
                }
            }
            Request::Done { id, unused } => self.ends(key, *id, !unused),
            Request::Failure { provider, service, id } => {
                let whose = (*service, provider.resolve(peer));
                let known = id.and_then(|id| {
                    self.granted.get(&(key, id)).map(|granted| (granted.whose, granted.deaths))
                });
                if let Some(id) = id {
                    self.ends(key, *id, false);
                }
                if let Some(account) = self.accounts.get_mut(&whose) {
                    let stale =
                        known.is_some_and(|(of, deaths)| of == whose && deaths != account.deaths);
                    if !stale {
                        (account.deaths, account.probation, account.probing) =
                            (account.deaths + 1, 1, 0);
                        if account.hold_end <= now {
                            account.failures_in_row += 1;
                            let hold = Span::from_millis(500)
                                .times(1 << (account.failures_in_row - 1).min(10));
                            account.hold_end = now + hold.min(Span::from_secs(30));
                        }
                        account.discard(now);
                    }
                }
            }
            // No host of the simulation drains.
            Request::Drain { .. } | Request::Resume { .. } | Request::Status { .. } => {}
        }
        let order = order.expect("only a next has no order");
        self.owed.insert((key, order), (request.clone(), granted_before));
    }

    /// A counted request, or the wait of one, is over.
    fn ends(&mut self, key: Key, id: u32, well: bool) {
        if let Some(pending) = self.pending.get_mut(&(key, Err(id))) {
            pending.given_up = true;
        }
        if let Some(granted) = self.granted.remove(&(key, id)) {
            let account =
                self.accounts.get_mut(&granted.whose).expect("an account of whom was granted");
            account.active -= 1;
            if granted.deaths == account.deaths {
                account.probing -= 1;
                if well {
                    account.good();
                }
            }
        }
    }

    /// The queue answers.
    pub fn answered(&mut self, key: Key, order: ReplySlot, reply: &Reply, now: Moment) {
        let id = match reply {
            Reply::Provider { id, .. } | Reply::Error { id, .. } => *id,
            _ => None,
        };
        let question = (key, id.map_or(Ok(order.unwrap_or(0)), Err));
        assert_eq!(order.is_none(), id.is_some(), "an id instead of an order: {reply}");
        if let Some(pending) = self.pending.remove(&question) {
            return self.settled(key, id, &pending, reply, now);
        }
        let (request, granted) = order
            .and_then(|order| self.owed.remove(&(key, order)))
            .unwrap_or_else(|| panic!("answered twice: {reply}"));
        match (&request, reply) {
            (Request::Ticket { .. }, Reply::Feedback(standing)) => {
                assert!(
                    granted.is_none_or(|granted| granted == standing.granted),
                    "{granted:?} grants, not {reply}"
                );
            }
            (Request::Withdraw { .. } | Request::Failure { .. }, Reply::Discarded(_)) => {}
            (Request::Done { .. }, Reply::Ok | Reply::Error { .. }) => {}
            _ => panic!("{request:?} was answered with {reply}"),
        }
    }

    fn settled(
        &mut self,
        key: Key,
        id: Option<u32>,
        pending: &Pending,
        reply: &Reply,
        now: Moment,
    ) {
        match reply {
            Reply::Provider { provider, .. } => {
                let whose = (pending.service, *provider);
                assert!(!pending.avoid.contains(provider), "{provider} was to be avoided");
                assert!(
                    !self.draining && !pending.given_up && now <= pending.deadline,
                    "a grant too late"
                );
                let on_ticket = self.candidate(pending, true, now);
                let account = self
                    .accounts
                    .get_mut(&whose)
                    .unwrap_or_else(|| panic!("{provider} never offered"));
                assert!(now < account.lease_end, "the lease of {provider} is over");
                assert!(account.hold_end <= now, "{provider} is held");
                let fits = if on_ticket {
                    account.on_ticket(pending.counted, now)
                } else {
                    account.on_capacity(now)
                };
                assert!(
                    fits && (on_ticket || pending.counted),
                    "{provider} has no place: {account:?}"
                );
                account.granted += 1;
                if let Some(id) = id {
                    account.active += 1;
                    account.probing += 1;
                    assert!(account.active <= account.capacity);
                    let granted = Granted { whose, deaths: account.deaths };
                    assert!(
                        self.granted.insert((key, id), granted).is_none(),
                        "an id granted twice"
                    );
                } else {
                    account.spent += 1;
                }
                self.answers[0] += 1;
            }
            Reply::Error { error: refusal, .. } => {
                match refusal.code {
                    ErrorCode::NoTicket if pending.given_up => {}
                    ErrorCode::NoTicket => {
                        assert!(now >= pending.deadline, "an error before its time");
                        assert!(
                            !self.any_candidate(pending, now),
                            "an error although there is a place"
                        );
                    }
                    ErrorCode::Draining => assert!(self.draining),
                    _ => panic!("{reply}"),
                }
                self.answers[1] += 1;
            }
            _ => panic!("a next was answered with {reply}"),
        }
    }

    fn candidate(&self, pending: &Pending, tickets: bool, now: Moment) -> bool {
        let fits = |account: &Account| match tickets {
            true => account.on_ticket(pending.counted, now),
            false => pending.counted && account.on_capacity(now),
        };
        let same = |whose: &Whose| whose.0 == pending.service && !pending.avoid.contains(&whose.1);
        self.accounts.iter().any(|(whose, account)| same(whose) && fits(account))
    }

    fn any_candidate(&self, pending: &Pending, now: Moment) -> bool {
        self.candidate(pending, true, now) || self.candidate(pending, false, now)
    }

    /// The queue hears that a connection will ask no more; `gone`: nor read.
    pub fn hung_up(&mut self, key: Key, gone: bool, now: Moment) {
        for ((of, by), pending) in &mut self.pending {
            if *of == key && by.is_err() {
                // It cannot say `done` any more: its answer is due now.
                (pending.given_up, pending.deadline) = (true, now);
            }
        }
        if gone {
            self.pending.retain(|(of, _), _| *of != key);
            self.owed.retain(|(of, _), _| *of != key);
            let held: Vec<u32> =
                self.granted.keys().filter(|(of, _)| *of == key).map(|(_, id)| *id).collect();
            held.into_iter().for_each(|id| self.ends(key, id, false));
        }
    }

    /// Time passed: every second who offers nothing is forgotten, and a minute
    /// later who failed.
    pub fn expired(&mut self, now: Moment) {
        if now.since(self.swept) >= Span::from_secs(1) {
            self.swept = now;
            self.accounts.retain(|_, account| {
                let suspect = account.failures_in_row > 0 || account.probation != u64::MAX;
                let memory = if suspect { Span::from_secs(60) } else { Span::ZERO };
                account.active > 0 || now < account.lease_end + memory
            });
        }
    }

    /// Nobody is overdue, and nobody waits for what is there.
    pub fn check_waiting(&self, now: Moment) {
        for (question, pending) in &self.pending {
            assert!(now <= pending.deadline, "{question:?} got no answer in time");
            assert!(
                !self.any_candidate(pending, now),
                "{question:?} waits although there is a place"
            );
        }
        assert!(self.owed.is_empty(), "not answered at once: {:?}", self.owed);
    }

    /// The queue's own account agrees with this one.
    pub fn check_status(&self, status: &str, now: Moment) {
        let number = |line: &str, key: &str| -> u64 {
            let value = key_value::find(line, key).and_then(|text| text.parse().ok());
            value.unwrap_or_else(|| panic!("no {key} in {line}"))
        };
        let mut shown = 0;
        for line in status.lines() {
            match line.split(' ').next() {
                Some("provider") => {
                    shown += 1;
                    let service = key_value::find(line, "service")
                        .and_then(|text| text.parse().ok())
                        .expect(line);
                    let provider = key_value::find(line, "address")
                        .and_then(|text| text.parse().ok())
                        .expect(line);
                    let account = self.accounts.get(&(service, provider)).expect(line);
                    let offers = now < account.lease_end;
                    let free = if offers { account.free() } else { 0 };
                    for (key, value) in [
                        ("tickets", if offers { account.tickets } else { 0 }),
                        ("capacity", if offers { account.capacity } else { 0 }),
                        ("free", free),
                        ("active", account.active),
                        ("spent", account.spent),
                        ("offered", free + account.active + account.spent),
                    ] {
                        assert_eq!(
                            number(line, key),
                            u64::from(value),
                            "{key} in {line}\nbut {account:?}"
                        );
                    }
                    let held = account.hold_end.since(now).to_string();
                    assert_eq!(key_value::find(line, "held"), Some(held.as_str()), "{line}");
                }
                Some("queue") => {
                    assert_eq!(number(line, "waiting"), self.pending.len() as u64, "{line}")
                }
                _ => {}
            }
        }
        // A provider that failed is shown for a minute, although it offers nothing.
        let failed = |account: &Account| {
            account.failures_in_row > 0 && now < account.lease_end + Span::from_secs(60)
        };
        let known =
            |account: &&Account| now < account.lease_end || account.active > 0 || failed(account);
        assert_eq!(shown, self.accounts.values().filter(known).count(), "providers in\n{status}");
    }
}
