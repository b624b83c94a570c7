//! All short histories of a ticket queue, against the specification.
//!
//! Owns the alphabets of events and the comparison. Providers are alike, so
//! the first new one to come is always the first, and events that cannot mean
//! anything yet (the end of a request before there is one) are left out.

mod model;

use model::{Ask, Model, LEASE, WAIT};
use pegasus_core::base::address::{Provider, ProviderSpec};
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::message::{Feedback, Next, Reply, Request, RequestResult};
use pegasus_core::queue::ticket_queue::{Input, Output, QueueOptions, TicketQueue};
use pegasus_core::scheduler::SCHEDULERS;
use std::net::IpAddr;

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

/// The queue under test with the model beside it.
struct Pair {
    queue: TicketQueue,
    connection: Key,
    model: Model,
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
        queue.handle_input(
            Input::Connected { connection, peer: IpAddr::from([127, 0, 0, 1]) },
            Moment::ZERO,
        );
        Pair { queue, connection, model: Model::default(), asked: 0, answers: Vec::new() }
    }

    fn ask(&mut self, order: Option<u64>, request: Request) {
        self.queue.handle_input(
            Input::Request { connection: self.connection, slot: order, request },
            self.model.now,
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

    /// The answer to a `next`, if it came: the provider's number, or an error.
    fn answer(&mut self, number: u32) -> Option<Option<usize>> {
        let is_it = |(order, reply): &(Option<u64>, Reply)| match reply {
            Reply::Provider { id, .. } | Reply::Error { id, .. } => {
                *id == Some(number) || (id.is_none() && *order == Some(u64::from(number)))
            }
            _ => false,
        };
        let place = self.answers.iter().position(is_it)?;
        match self.answers.remove(place).1 {
            Reply::Provider { provider, .. } => {
                (0..3).find(|number| address(*number) == provider).map(Some)
            }
            _ => Some(None),
        }
    }

    /// The queue must have given this one a provider that it could choose.
    fn granted(&mut self, ask: Ask) {
        let candidates = self.model.candidates(&ask);
        let answer = self.answer(ask.number);
        let provider =
            answer.flatten().unwrap_or_else(|| panic!("{ask:?} got {answer:?} of {candidates:?}"));
        assert!(candidates.contains(&provider), "{ask:?} got {provider} of {candidates:?}");
        self.model.grant(ask, provider);
    }

    /// Those who waited and can be served now were.
    fn serve(&mut self) {
        while let Some(ask) = self.model.first() {
            self.granted(ask);
        }
        assert!(self.answers.is_empty(), "unexpected: {:?}", self.answers);
    }

    fn happen(&mut self, event: Event) {
        let service = "default".parse().expect("a service");
        match event {
            Event::Ticket(provider, tickets, capacity) => {
                let expected = self.model.ticket(provider, tickets, capacity);
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
                if let Some(expected) = expected {
                    assert!((active - expected.active).abs() < 1e-9, "{active} for {expected:?}");
                    assert_eq!((granted, waiting), (expected.granted, expected.waiting));
                    assert!(expected.mode.is_none_or(|expected| expected == mode));
                }
            }
            Event::Next { counted, waits } => {
                self.asked += 1;
                let number = self.asked;
                let (id, order) =
                    if counted { (Some(number), None) } else { (None, Some(u64::from(number))) };
                let wait = if waits { WAIT } else { Span::ZERO };
                let ask = Ask { number, counted, waits, since: self.model.now };
                let next = Next { service, wait, id, client: None, avoid: Vec::new() };
                self.ask(order, Request::Next(next));
                if !self.model.candidates(&ask).is_empty() {
                    self.granted(ask);
                } else {
                    self.model.unlucky();
                    if waits {
                        self.model.line.push(ask);
                    } else {
                        assert_eq!(self.answer(number), Some(None), "{ask:?}");
                    }
                }
            }
            Event::Done => {
                let Some(number) = self.model.oldest() else { return };
                let waited = !self.model.done(number);
                self.ask(Some(0), Request::Done { id: number, result: RequestResult::Good });
                assert_eq!(self.reply(), Reply::Ok);
                if waited {
                    assert_eq!(self.answer(number), Some(None));
                }
            }
            Event::FailureWith => {
                let Some((number, provider)) = self.model.oldest_active() else { return };
                let gone = self.model.fail(provider, Some(number));
                let provider = ProviderSpec::from(address(provider));
                self.ask(Some(0), Request::Failure { provider, service, id: Some(number) });
                assert_eq!(self.reply(), Reply::Discarded(u64::from(gone)));
            }
            Event::Failure(provider) => {
                let gone = self.model.fail(provider, None);
                let provider = ProviderSpec::from(address(provider));
                self.ask(Some(0), Request::Failure { provider, service, id: None });
                assert_eq!(self.reply(), Reply::Discarded(u64::from(gone)));
            }
            Event::Time(span) => {
                self.pass(self.model.now + span);
                if span == LONG {
                    self.model.forget();
                }
            }
        }
        self.serve();
    }

    /// Time passes, with everything that the queue or the model wants to do meanwhile.
    fn pass(&mut self, to: Moment) {
        loop {
            let next = self
                .queue
                .next_timeout()
                .into_iter()
                .chain(self.model.next_change())
                .chain([to])
                .min();
            let next = next.expect("the end at least").max(self.model.now);
            self.model.pass(next);
            self.queue.handle_timeout(next);
            self.collect();
            let over: Vec<u32> = self
                .model
                .line
                .iter()
                .filter(|ask| ask.since + WAIT <= next)
                .map(|ask| ask.number)
                .collect();
            for number in over {
                assert_eq!(self.answer(number), Some(None), "{number} waited long enough");
                self.model.leave(number);
            }
            self.serve();
            if next == to {
                return;
            }
        }
    }

    /// What `status` shows is what the model holds.
    fn compare(&mut self) {
        self.ask(Some(0), Request::Status { service: None });
        let Reply::Status(status) = self.reply() else { panic!("no status") };
        let mut seen = 0;
        for line in status.lines().filter(|line| line.starts_with("provider ")) {
            let value = |key: &str| {
                line.split(' ').find_map(|pair| pair.strip_prefix(key)).expect("a pair")
            };
            let number = |key| value(key).parse::<u32>().expect("a number");
            let found = (0..3).find(|place| address(*place).to_string() == value("address="));
            let place = found.expect("one of ours");
            assert_eq!((number("active="), number("spent=")), self.model.used(place), "{line}");
            assert_eq!(number("free="), self.model.free(place), "{line}");
            assert_eq!(
                number("offered="),
                number("free=") + number("active=") + number("spent="),
                "{line}"
            );
            seen += number("active=");
        }
        assert_eq!(seen, (0..3).map(|place| self.model.used(place).0).sum());
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
