//! All short histories of a ticket queue, against the specification.
//!
//! Owns the alphabets of events and the comparison. Providers are alike, so
//! the first new one to come is always the first, and events that cannot mean
//! anything yet (the end of a request before there is one) are left out.

use crate::reference_model::status::number;
use crate::reference_model::{Ask, Model, Place, Terms};
use pegasus_core::base::provider::{Provider, ProviderSpec};
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::{Feedback, Reply};
use pegasus_core::protocol::request::{Next, Request, RequestResult};
use pegasus_core::queue::ticket_queue::{Input, Output, QueueOptions, TicketQueue};
use pegasus_core::scheduler::SCHEDULERS;
use std::net::{IpAddr, Ipv4Addr};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LEASE: Span = Span::from_secs(5);
/// Not a hold time, so that nothing ends in the same moment.
const WAIT: Span = Span::from_millis(700);
/// Beyond the first hold, not beyond a lease; and beyond a lease.
const SHORT: Span = Span::from_millis(600);
const LONG: Span = Span::from_millis(6000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A provider offers tickets, capacity.
    Ticket(usize, u32, u32),
    /// Somebody asks, counted or not, ready to wait or not.
    Next {
        counted: bool,
        waits: bool,
    },
    /// The oldest number in use is done with.
    Done,
    /// The oldest active request found its provider dead.
    FailureWith,
    /// Somebody found this provider dead.
    Failure(usize),
    Time(Span),
}

fn address(provider: usize) -> Provider {
    Provider { ip: IpAddr::from([10, 0, 0, provider as u8]), port: Some(80) }
}

fn place(provider: usize) -> Place {
    ("default".parse().expect("a service"), address(provider))
}

/// A `next` that waits.
#[derive(Clone, Debug)]
struct Waiting {
    number: u32,
    ask: Ask,
}

/// The queue under test with the model beside it.
struct Pair {
    queue: TicketQueue,
    connection: Key,
    now: Moment,
    model: Model,
    /// Oldest first.
    line: Vec<Waiting>,
    asked: u32,
    /// Answers of the queue that the model has not explained yet.
    answers: Vec<(Option<u64>, Reply)>,
}

impl Pair {
    fn new(scheduler: &str) -> Pair {
        let options = QueueOptions {
            scheduler: scheduler.parse().expect("a scheduler"),
            ..QueueOptions::default()
        };
        let mut queue = TicketQueue::new(options, 0);
        let connection = Slab::default().insert(());
        queue.handle_input(Input::Connected { connection, peer: PEER }, Moment::ZERO);
        Pair {
            queue,
            connection,
            now: Moment::ZERO,
            model: Model::default(),
            line: Vec::new(),
            asked: 0,
            answers: Vec::new(),
        }
    }

    fn ask(&mut self, order: Option<u64>, request: Request) {
        self.queue.handle_input(
            Input::Request { connection: self.connection, slot: order, request },
            self.now,
        );
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.queue.poll_output() {
            if let Output::Reply { slot: order, reply, .. } = output {
                self.answers.push((order, reply));
            }
        }
    }

    /// The answer to a control message.
    fn reply(&mut self) -> Reply {
        let place = self.answers.iter().position(|(order, _)| *order == Some(0)).expect("a reply");
        self.answers.remove(place).1
    }

    /// The answer to a `next`, if it came: the provider, or an error.
    fn answer(&mut self, number: u32) -> Option<Option<Provider>> {
        let is_it = |(order, reply): &(Option<u64>, Reply)| match reply {
            Reply::Provider { id, .. } | Reply::Error { id, .. } => {
                *id == Some(number) || (id.is_none() && *order == Some(u64::from(number)))
            }
            _ => false,
        };
        let place = self.answers.iter().position(is_it)?;
        match self.answers.remove(place).1 {
            Reply::Provider { provider, .. } => Some(Some(provider)),
            _ => Some(None),
        }
    }

    /// The queue must have given this one a provider that it could choose.
    fn granted(&mut self, number: u32, ask: &Ask) {
        let candidates = self.model.candidates(ask, self.now);
        let answer = self.answer(number);
        let provider =
            answer.flatten().unwrap_or_else(|| panic!("{ask:?} got {answer:?} of {candidates:?}"));
        assert!(candidates.contains(&provider), "{ask:?} got {provider} of {candidates:?}");
        self.leave(number);
        let id = ask.counted.then_some(number);
        self.model.grant(self.connection, id, ask, provider, self.now);
    }

    fn leave(&mut self, number: u32) {
        self.line.retain(|waiting| waiting.number != number);
    }

    /// Those that waited and can be served now were, in the right order.
    fn serve(&mut self) {
        loop {
            let line: Vec<Ask> = self.line.iter().map(|waiting| waiting.ask.clone()).collect();
            let Some(first) = self.model.first(&line, self.now) else { break };
            let Waiting { number, ask } = self.line[first].clone();
            self.granted(number, &ask);
        }
        assert!(self.answers.is_empty(), "unexpected: {:?}", self.answers);
    }

    /// The oldest number in use, active or waiting.
    fn oldest(&self) -> Option<u32> {
        let waiting = self.line.iter().filter(|waiting| waiting.ask.counted);
        let waiting = waiting.map(|waiting| waiting.number);
        self.model.granted().map(|(number, _)| number).chain(waiting).min()
    }

    fn happen(&mut self, event: Event) {
        let service = "default".parse().expect("a service");
        match event {
            Event::Ticket(provider, tickets, capacity) => {
                let terms = Terms { tickets, capacity, weighted: false, lease: LEASE };
                let expected = self.model.offer(self.connection, place(provider), terms, self.now);
                let expected = expected.expect("the only connection owns it");
                let provider = ProviderSpec::from(address(provider));
                self.ask(
                    Some(0),
                    Request::Ticket {
                        provider,
                        service,
                        tickets,
                        capacity,
                        weight: None,
                        lease: Some(LEASE),
                    },
                );
                let Reply::Feedback(Feedback { active, granted, waiting, mode, .. }) = self.reply()
                else {
                    panic!("no standing")
                };
                assert!((active - expected.active).abs() < 1e-9, "{active} for {expected:?}");
                assert_eq!((granted, waiting), (expected.granted, expected.waiting));
                assert!(expected.mode.is_none_or(|expected| expected == mode));
            }
            Event::Next { counted, waits } => {
                self.asked += 1;
                let number = self.asked;
                let (id, order) =
                    if counted { (Some(number), None) } else { (None, Some(u64::from(number))) };
                let wait = if waits { WAIT } else { Span::ZERO };
                let (asker, avoid, since) = (PEER, Vec::new(), self.now);
                let ask = Ask { service, asker, counted, avoid, since, wait };
                let next = Next { service, wait, id, client: None, avoid: Vec::new() };
                self.ask(order, Request::Next(next));
                if !self.model.candidates(&ask, self.now).is_empty() {
                    self.granted(number, &ask);
                } else {
                    self.model.unlucky(service);
                    if waits {
                        self.line.push(Waiting { number, ask });
                    } else {
                        assert_eq!(self.answer(number), Some(None), "{ask:?}");
                    }
                }
            }
            Event::Done => {
                let Some(number) = self.oldest() else { return };
                let result = RequestResult::Good;
                let waited = !self.model.done(self.connection, number, result, self.now);
                self.ask(Some(0), Request::Done { id: number, result });
                assert_eq!(self.reply(), Reply::Ok);
                if waited {
                    self.leave(number);
                    assert_eq!(self.answer(number), Some(None));
                }
            }
            Event::FailureWith => {
                let Some((number, provider)) = self.model.granted().min() else { return };
                self.fails(provider, Some(number));
            }
            Event::Failure(provider) => self.fails(address(provider), None),
            Event::Time(span) => self.pass(self.now + span),
        }
        self.serve();
    }

    /// The connection reports that a provider is dead, perhaps with a request.
    fn fails(&mut self, provider: Provider, id: Option<u32>) {
        let (service, _) = place(0);
        let gone = self.model.fail(self.connection, PEER, (service, provider), id, self.now);
        let provider = ProviderSpec::from(provider);
        self.ask(Some(0), Request::Failure { provider, service, id });
        assert_eq!(self.reply(), Reply::Discarded(gone));
    }

    /// The next moment that changes something for those that wait.
    fn next_change(&self) -> Option<Moment> {
        let waits = self
            .line
            .iter()
            .flat_map(|waiting| [waiting.ask.since + WAIT.part(2), waiting.ask.deadline()]);
        let waits = waits.filter(|at| *at > self.now);
        waits.chain(self.model.next_change(self.now)).min()
    }

    /// Time passes, with everything that the queue or the model wants to do meanwhile.
    fn pass(&mut self, to: Moment) {
        loop {
            let next = [self.queue.next_timeout(), self.next_change(), Some(to)];
            let next = next.into_iter().flatten().min();
            self.now = next.expect("the end at least").max(self.now);
            self.model.pass(self.now);
            self.queue.handle_timeout(self.now);
            self.collect();
            let over = self.line.iter().filter(|waiting| waiting.ask.deadline() <= self.now);
            let over: Vec<u32> = over.map(|waiting| waiting.number).collect();
            for number in over {
                assert_eq!(self.answer(number), Some(None), "{number} waited long enough");
                self.leave(number);
            }
            self.serve();
            if self.now == to {
                return;
            }
        }
    }

    /// What `status` shows is what the model holds.
    fn compare(&mut self) {
        self.ask(Some(0), Request::Status { service: None, export: None });
        let Reply::Status(status) = self.reply() else { panic!("no status") };
        self.model.check_status(&status, self.now);
        let rows = status.lines().filter(|line| line.starts_with("provider "));
        let seen: u64 = rows.map(|line| number(line, "active")).sum();
        assert_eq!(seen, u64::from(self.model.in_progress()));
    }
}

/// Whether this event can mean something after these.
fn means(past: &[Event], event: Event) -> bool {
    let known = |provider: usize| {
        past.iter().any(|event| matches!(event, Event::Ticket(p, ..) if *p == provider))
    };
    let counted =
        past.iter().filter(|event| matches!(event, Event::Next { counted: true, .. })).count();
    let over =
        past.iter().filter(|event| matches!(event, Event::Done | Event::FailureWith)).count();
    match event {
        Event::Ticket(provider, ..) => provider == 0 || known(provider - 1),
        Event::Failure(provider) => known(provider),
        Event::Done => over < counted,
        Event::FailureWith => over < counted && known(0),
        Event::Time(_) => !past.is_empty(),
        Event::Next { .. } => true,
    }
}

/// Prints the history that failed.
struct Shown<'a>(&'a str, &'a [Event]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("scheduler {}, history {:?}", self.0, self.1);
        }
    }
}

/// All histories of this length; shorter ones are their beginnings.
fn enumerate(scheduler: &str, alphabet: &[Event], length: usize, past: &mut Vec<Event>) -> u64 {
    if past.len() == length {
        let shown = Shown(scheduler, past);
        let mut pair = Pair::new(scheduler);
        shown.1.iter().for_each(|event| pair.happen(*event));
        pair.compare();
        return 1;
    }
    let mut histories = 0;
    for event in alphabet {
        if means(past, *event) {
            past.push(*event);
            histories += enumerate(scheduler, alphabet, length, past);
            past.pop();
        }
    }
    histories
}

/// Whoever comes and goes: three providers alike, six events.
#[test]
fn all_histories_of_three_providers_and_six_events() {
    let alphabet = [
        Event::Ticket(0, 1, 2),
        Event::Ticket(1, 1, 2),
        Event::Ticket(2, 1, 2),
        Event::Next { counted: false, waits: true },
        Event::Next { counted: false, waits: false },
        Event::Next { counted: true, waits: true },
        Event::Done,
        Event::FailureWith,
        Event::Failure(0),
        Event::Failure(1),
        Event::Failure(2),
        Event::Time(SHORT),
        Event::Time(LONG),
    ];
    let histories = enumerate("competitive", &alphabet, 6, &mut Vec::new());
    println!("{histories} histories");
    assert!(histories > 80_000);
}

/// A provider that failed, with and without a request of before that.
#[test]
fn all_histories_of_a_provider_on_probation_and_five_more_events() {
    let alphabet = [
        Event::Ticket(0, 3, 4),
        Event::Next { counted: false, waits: false },
        Event::Next { counted: true, waits: false },
        Event::Done,
        Event::FailureWith,
        Event::Failure(0),
        Event::Time(SHORT),
    ];
    let ticket = Event::Ticket(0, 3, 4);
    let next = Event::Next { counted: true, waits: false };
    for beginning in [
        vec![ticket, Event::Failure(0), Event::Time(SHORT), ticket],
        vec![ticket, next, Event::Failure(0), Event::Time(SHORT), ticket],
    ] {
        let length = beginning.len() + 5;
        enumerate("competitive", &alphabet, length, &mut beginning.clone());
    }
}

/// More words, fewer of them, and every scheduler: nobody grants what is not there.
#[test]
fn all_histories_of_one_provider_and_five_events_with_every_scheduler() {
    let alphabet = [
        Event::Ticket(0, 1, 2),
        Event::Ticket(0, 2, 2),
        Event::Ticket(0, 0, 1),
        Event::Ticket(0, 0, 0),
        Event::Next { counted: false, waits: true },
        Event::Next { counted: true, waits: true },
        Event::Next { counted: true, waits: false },
        Event::Done,
        Event::FailureWith,
        Event::Failure(0),
        Event::Time(SHORT),
        Event::Time(LONG),
    ];
    for entry in SCHEDULERS {
        enumerate(
            entry.names[0],
            &alphabet,
            if cfg!(debug_assertions) { 4 } else { 5 },
            &mut Vec::new(),
        );
    }
}
