//! The laws of tickets, kept by somebody who only listens: what a queue is
//! asked and what it answers.
//!
//! Owns a naive model of section "the queue" of the specification: who offers
//! what, who has it, who waits. Panics at the first answer that breaks a law.

use pegasus_core::base::key_value;
use pegasus_core::base::provider::Provider;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::{ErrorCode, Reply};
use pegasus_core::protocol::request::{Request, RequestResult};
use pegasus_core::protocol::responder::ReplySlot;
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
    /// When those were granted that have still to show that it serves.
    probes: Vec<Moment>,
    came: Moment,
    /// Askers that were served since the last death.
    served: Vec<IpAddr>,
    /// Askers with requests in progress: how many, and since when without a break.
    running: BTreeMap<IpAddr, (u32, Moment)>,
    /// Askers that are led elsewhere: until when, and how often in a row.
    troubles: BTreeMap<IpAddr, (Moment, u32)>,
    owner: Option<Key>,
    rival: Option<Key>,
    /// Requests that were served, of all times.
    samples: u64,
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
            probes: Vec::new(),
            came: now,
            served: Vec::new(),
            running: BTreeMap::new(),
            troubles: BTreeMap::new(),
            owner: None,
            rival: None,
            samples: 0,
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

    /// Newcomers are let in at the pace of their tickets.
    fn in_pace(&self, now: Moment) -> bool {
        let steps = now.since(self.came).as_millis() / 500;
        steps >= 6 || self.active < self.tickets.max(1) << steps
    }

    fn avoided(&self, asker: IpAddr, now: Moment) -> bool {
        self.troubles.get(&asker).is_some_and(|(until, _)| now < *until)
    }

    fn good(&mut self) {
        self.failures_in_row = 0;
        self.probation = if self.probation >= 32 { u64::MAX } else { self.probation * 2 };
        if self.probation == u64::MAX {
            self.probes.clear();
        }
    }

    /// Requests that live for a second vouch.
    fn tick(&mut self, now: Moment) {
        while self.probes.first().is_some_and(|at| *at + Span::from_secs(1) <= now) {
            self.probes.remove(0);
            self.good();
        }
    }

    /// Whether everybody is to believe this asker that the provider is dead.
    fn believes(&mut self, asker: IpAddr, now: Moment) -> bool {
        let lives = |(of, (_, since)): (&IpAddr, &(u32, Moment))| {
            *of != asker && *since + Span::from_secs(1) <= now
        };
        let served = self.served.iter().any(|of| *of != asker) || self.running.iter().any(lives);
        let troubled = self.troubles.iter().any(|(of, (until, _))| *of != asker && now < *until);
        if !served || troubled {
            self.served.clear();
            self.running.clear();
            self.troubles.clear();
            return true;
        }
        let (until, row) = self.troubles.entry(asker).or_default();
        *until = now + Span::from_millis(500).times(1 << *row).min(Span::from_secs(30));
        *row += 1;
        false
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
    asker: IpAddr,
    /// Until then it is patient.
    half_time: Moment,
}

/// Where a request may find a place.
#[derive(Clone, Copy)]
enum Tier {
    Ticket,
    SureTicket,
    /// Within the capacity, and the pace at which newcomers are let in.
    InPace,
    Any,
}

#[derive(Debug)]
struct Granted {
    whose: Whose,
    deaths: u32,
    asker: IpAddr,
    at: Moment,
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
    /// By service: one second after a provider came last.
    settled: BTreeMap<ServiceName, Moment>,
    /// Connections that can say nothing any more.
    silent: Vec<Key>,
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
        self.tick(now);
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
                    asker: peer,
                    half_time: now + next.wait.min(wait_max).part(2),
                };
                assert!(
                    self.pending.insert(question, pending).is_none(),
                    "a question twice at once"
                );
                return;
            }
            Request::Ticket { provider, service, tickets, capacity, weight, lease } => {
                let whose = (*service, provider.resolve(peer));
                self.accounts.entry(whose).or_insert_with(|| Account::new(now));
                let leaves = *capacity == 0 && weight.is_none();
                let other = self.other_owner(key, whose);
                if leaves && self.stays(key, whose) {
                    let order = order.expect("only a next has no order");
                    self.owed.insert((key, order), (request.clone(), Some(0)));
                    return;
                }
                let account = self.accounts.get_mut(&whose).expect("just made");
                account.owner = Some(key).filter(|key| !leaves && !self.silent.contains(key));
                account.rival = other.or(account.rival);
                if now >= account.lease_end {
                    account.came = now;
                    self.settled.insert(*service, now + Span::from_secs(1));
                }
                granted_before = Some(account.granted);
                if account.hold_end <= now {
                    (0..account.spent.min(64)).for_each(|_| account.good());
                }
                (account.tickets, account.capacity, account.spent, account.granted) =
                    (*tickets, *capacity, 0, 0);
                let lease =
                    if leaves { Span::ZERO } else { lease.expect("monitors say their lease") };
                account.lease_end = now + lease;
            }
            Request::Withdraw { provider, service } => {
                let whose = (*service, provider.resolve(peer));
                if !self.stays(key, whose) {
                    if let Some(account) = self.accounts.get_mut(&whose) {
                        account.discard(now);
                    }
                }
            }
            Request::Done { id, result } => self.ends(key, *id, *result == RequestResult::Good),
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
                    if !stale && account.believes(peer, now) {
                        account.probes.clear();
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

    fn tick(&mut self, now: Moment) {
        self.accounts.values_mut().for_each(|account| account.tick(now));
    }

    /// The other connection that is alive and offered this one last.
    fn other_owner(&self, key: Key, whose: Whose) -> Option<Key> {
        let owner = self.accounts.get(&whose)?.owner;
        owner.filter(|owner| *owner != key && !self.silent.contains(owner))
    }

    /// Whether an offer stays although this connection withdraws it.
    fn stays(&mut self, key: Key, whose: Whose) -> bool {
        if self.other_owner(key, whose).is_some() {
            return true;
        }
        let Some(account) = self.accounts.get_mut(&whose) else { return false };
        let rival = account.rival.take();
        let rival = rival.filter(|rival| *rival != key && !self.silent.contains(rival));
        account.owner = rival.or(account.owner);
        rival.is_some()
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
                if let Some((count, _)) = account.running.get_mut(&granted.asker) {
                    *count -= 1;
                    if *count == 0 {
                        account.running.remove(&granted.asker);
                    }
                }
                let probe = account.probes.iter().position(|at| *at == granted.at);
                probe.map(|place| account.probes.remove(place));
                if well {
                    account.served.push(granted.asker);
                    account.samples += 1;
                    account.troubles.remove(&granted.asker);
                    account.failures_in_row = 0;
                    if probe.is_some() {
                        account.good();
                    }
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
            (Request::Status { .. }, Reply::Status(_)) => {}
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
                let on_ticket = self.candidate(pending, Tier::SureTicket, now);
                let in_pace = self.candidate(pending, Tier::InPace, now);
                let patient = self.patient(pending, now);
                let account = self
                    .accounts
                    .get_mut(&whose)
                    .unwrap_or_else(|| panic!("{provider} never offered"));
                assert!(now < account.lease_end, "the lease of {provider} is over");
                assert!(account.hold_end <= now, "{provider} is held");
                let fits = if account.on_ticket(pending.counted, now) {
                    true
                } else if on_ticket {
                    false
                } else if in_pace {
                    account.on_capacity(now) && account.in_pace(now)
                } else {
                    account.on_capacity(now) && !patient
                };
                assert!(!account.avoided(pending.asker, now), "{provider} fails for this asker");
                assert!(
                    fits && (pending.counted || account.free() > 0),
                    "{provider} has no place for {pending:?}: {account:?}"
                );
                account.granted += 1;
                if let Some(id) = id {
                    account.active += 1;
                    account.probing += 1;
                    assert!(account.active <= account.capacity);
                    let asker = pending.asker;
                    let granted = Granted { whose, deaths: account.deaths, asker, at: now };
                    account.running.entry(asker).or_insert((0, now)).0 += 1;
                    if account.probation != u64::MAX {
                        account.probes.push(now);
                    }
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

    fn candidate(&self, pending: &Pending, tier: Tier, now: Moment) -> bool {
        let counted = pending.counted;
        let fits = |account: &Account| match tier {
            Tier::Ticket => account.on_ticket(counted, now),
            // Not one that may be suspected of errors, and so be passed over.
            Tier::SureTicket => account.on_ticket(counted, now) && account.samples <= 20,
            Tier::InPace => counted && account.on_capacity(now) && account.in_pace(now),
            Tier::Any => counted && account.on_capacity(now),
        };
        let same = |whose: &Whose| whose.0 == pending.service && !pending.avoid.contains(&whose.1);
        let fits = |account: &Account| !account.avoided(pending.asker, now) && fits(account);
        self.accounts.iter().any(|(whose, account)| same(whose) && fits(account))
    }

    /// Whether it waits for providers that may be about to come.
    fn patient(&self, pending: &Pending, now: Moment) -> bool {
        let settled = self.settled.get(&pending.service).copied().unwrap_or_default();
        now < pending.half_time && now < settled
    }

    fn any_candidate(&self, pending: &Pending, now: Moment) -> bool {
        let last = if self.patient(pending, now) { Tier::InPace } else { Tier::Any };
        self.candidate(pending, Tier::Ticket, now) || self.candidate(pending, last, now)
    }

    /// The queue hears that a connection will ask no more; `gone`: nor read.
    pub fn hung_up(&mut self, key: Key, gone: bool, now: Moment) {
        self.tick(now);
        self.silent.push(key);
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
        self.tick(now);
        if now.since(self.swept) >= Span::from_secs(1) {
            self.swept = now;
            self.accounts.retain(|_, account| {
                let memory = Span::from_secs(30);
                account.troubles.retain(|_, (until, _)| now < *until + memory);
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
