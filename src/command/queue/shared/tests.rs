use super::*;
use mio::{Events, Poll, Token};
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use pegasus_core::protocol::request::Next;
use pegasus_core::queue::ticket_queue::QueueOptions;
use std::time::Duration;

/// A poll that tells whether it was woken since the last time.
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

fn ticket(tickets: u32) -> Request {
    let provider = "10.0.0.7:80".parse().unwrap();
    Request::Ticket {
        provider,
        service: ServiceName::DEFAULT,
        tickets,
        capacity: tickets,
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
fn threads_ask_without_a_connection_and_whatever_the_lists_say() {
    let nobody = QueueOptions {
        allow_ticket: Vec::new(),
        allow_next: Vec::new(),
        ..QueueOptions::default()
    };
    let (mut control, mut sleeper) = (Sleeper::new(), Sleeper::new());
    let shared = SharedQueue::new(TicketQueue::new(nobody, 1), 2, control.1.clone());
    let (one, two) = (
        shared.join(sleeper.1.clone(), NOW).unwrap(),
        shared.join(control.1.clone(), NOW).unwrap(),
    );
    assert!(shared.join(sleeper.1.clone(), NOW).is_none(), "no more than were to come");
    one.ask(ticket(1), NOW);
    one.ask(next(Some(7), Span::ZERO), NOW);
    assert_eq!(
        heard(&one),
        ["up", "ok active=0.000 granted=0 waiting=0 mode=slots", "7: 10.0.0.7:80"]
    );
    assert!(!sleeper.woken(), "whoever asks looks for the answer himself");
    two.ask(next(Some(7), Span::ZERO), NOW);
    assert_eq!(heard(&two), ["up", "7: error no-ticket id=7"]);
    // The end of a thread frees what it held.
    drop(one);
    two.ask(next(Some(8), Span::ZERO), NOW);
    assert_eq!(heard(&two), ["8: 10.0.0.7:80"]);
    assert!(control.woken(), "the registration is a note for the log, which the other loop writes");
}

#[test]
fn an_answer_that_somebody_else_brought_about_wakes_who_waits_for_it() {
    let (mut control, mut sleeper) = (Sleeper::new(), Sleeper::new());
    let mut shared =
        SharedQueue::new(TicketQueue::new(QueueOptions::default(), 1), 2, control.1.clone());
    let (one, two) = (
        shared.join(sleeper.1.clone(), NOW).unwrap(),
        shared.join(control.1.clone(), NOW).unwrap(),
    );
    one.ask(ticket(1), NOW);
    while shared.poll_output().is_some() {}
    two.ask(next(Some(1), Span::ZERO), NOW);
    control.woken();
    assert!(shared.next_timeout().is_some());
    one.ask(next(Some(5), Span::from_secs(1)), NOW);
    assert_eq!(heard(&one).last().unwrap(), "ok active=0.000 granted=0 waiting=0 mode=slots");
    assert!(!sleeper.woken());
    two.ask(Request::Done { id: 1, unused: false }, NOW);
    assert!(sleeper.woken());
    assert_eq!(heard(&one), ["5: 10.0.0.7:80"]);
    // A wait that ends before the other loop would wake shortens its sleep.
    assert_eq!(shared.next_timeout(), Some(NOW + Span::from_secs(1)));
    control.woken();
    two.ask(next(Some(2), Span::from_millis(10)), NOW);
    assert!(control.woken());
    assert_eq!(shared.next_timeout(), Some(NOW + Span::from_millis(10)));
    shared.handle_timeout(NOW + Span::from_millis(10));
    assert_eq!(heard(&two).last().unwrap(), "2: error no-ticket id=2");
}
