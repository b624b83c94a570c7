use super::*;
use mio::{Events, Poll, Token};
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use pegasus_core::protocol::request::{Next, RequestResult};
use pegasus_core::queue::ticket_queue::QueueOptions;
use std::time::Duration;

/// A poll that reports whether it was woken since the last time.
struct Sleeper(Poll, Arc<Waker>);

impl Sleeper {
    fn new() -> Sleeper {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        Sleeper(poll, waker)
    }

    fn woken(&mut self) -> bool {
        let mut events = Events::with_capacity(4);
        self.0.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }
}

const NOW: Moment = Moment::ZERO;

/// The answer to a first offer.
const OFFERED: &str =
    "ok active=0.000 granted=0 waiting=0 mode=slots now=0 ended=0 held=0.000ms usual=0.000ms \
     queued=0";

fn ticket(tickets: u32) -> Request {
    let provider = "10.0.0.7:80".parse().unwrap();
    Request::Ticket {
        provider,
        service: ServiceName::DEFAULT,
        tickets,
        capacity: tickets,
        weight: None,
        lease: None,
    }
}

fn next(id: Option<u32>, wait: Span) -> Request {
    Request::Next(Next { service: ServiceName::DEFAULT, wait, id, client: None, avoid: Vec::new() })
}

fn heard(local_handle: &LocalHandle) -> Vec<String> {
    let text = |event| match event {
        QueueEvent::Answer(Matched::ById(id, Reply::Provider { provider, .. })) => {
            format!("{id}: {provider}")
        }
        QueueEvent::Answer(Matched::ById(id, reply)) => format!("{id}: {reply}"),
        QueueEvent::Answer(Matched::InOrder((), reply)) => reply.to_string(),
        QueueEvent::Up => "up".into(),
        QueueEvent::Down => "down".into(),
    };
    std::iter::from_fn(|| local_handle.poll_event()).map(text).collect()
}

#[test]
fn threads_ask_without_a_connection_and_regardless_of_the_allow_lists() {
    let closed = QueueOptions {
        allow_ticket: Vec::new(),
        allow_next: Vec::new(),
        ..QueueOptions::default()
    };
    let mut control = Sleeper::new();
    let mut sleeper = Sleeper::new();
    let shared = SharedQueue::new(TicketQueue::new(closed, 1), 2, control.1.clone());
    let one = shared.join(sleeper.1.clone(), NOW).unwrap();
    let two = shared.join(control.1.clone(), NOW).unwrap();
    assert!(shared.join(sleeper.1.clone(), NOW).is_none(), "more handles than the limit");
    one.ask(ticket(1), NOW);
    one.ask(next(Some(7), Span::ZERO), NOW);
    assert_eq!(heard(&one), ["up", OFFERED, "7: 10.0.0.7:80"]);
    assert!(!sleeper.woken(), "the caller polls for its reply and need not be woken");
    two.ask(next(Some(7), Span::ZERO), NOW);
    assert_eq!(heard(&two), ["up", "7: error no-ticket id=7"]);
    // The end of a thread frees what it held.
    drop(one);
    two.ask(next(Some(8), Span::ZERO), NOW);
    assert_eq!(heard(&two), ["8: 10.0.0.7:80"]);
    assert!(control.woken(), "the server's loop writes the registration to the log");
}

#[test]
fn a_reply_that_another_thread_caused_wakes_the_waiting_one() {
    let mut control = Sleeper::new();
    let mut sleeper = Sleeper::new();
    let queue = TicketQueue::new(QueueOptions::default(), 1);
    let mut shared = SharedQueue::new(queue, 2, control.1.clone());
    let one = shared.join(sleeper.1.clone(), NOW).unwrap();
    let two = shared.join(control.1.clone(), NOW).unwrap();
    one.ask(ticket(1), NOW);
    while shared.poll_output().is_some() {}
    two.ask(next(Some(1), Span::ZERO), NOW);
    control.woken();
    assert!(shared.next_timeout().is_some());
    one.ask(next(Some(5), Span::from_secs(1)), NOW);
    assert_eq!(heard(&one).last().unwrap(), OFFERED);
    assert!(!sleeper.woken());
    two.ask(Request::Done { id: 1, result: RequestResult::Good }, NOW);
    assert!(sleeper.woken());
    assert_eq!(heard(&one), ["5: 10.0.0.7:80"]);
    // A wait that ends before the other loop would wake shortens its sleep.
    assert!(shared.next_timeout() > Some(NOW + Span::from_millis(10)));
    control.woken();
    two.ask(next(Some(2), Span::from_millis(10)), NOW);
    assert!(control.woken());
    assert!(shared.next_timeout() <= Some(NOW + Span::from_millis(10)));
    shared.handle_timeout(NOW + Span::from_millis(10));
    assert_eq!(heard(&two).last().unwrap(), "2: error no-ticket id=2");
}
