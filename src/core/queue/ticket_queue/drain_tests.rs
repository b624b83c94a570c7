//! Stories of maintenance: `drain` and `resume`. The notation is that of `tests.rs`.

use super::tests::tell;
use super::*;

#[test]
fn a_drained_provider_gets_nothing_until_it_is_resumed_whatever_it_sends() {
    let story = tell(
        QueueOptions::default(),
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=4 => ok…
         0s r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         0s o pegasus://b/drain?provider=10.0.0.1:80 => ok services=1 active=1 offering=yes
         0s ? 10.0.0.1:80 state=drained active=1 tickets=2 free=1
         1s r pegasus://b/next?id=2 => error no-ticket id=2
         1s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=4 => ok…
         1s r pegasus://b/next => error no-ticket
         2s r pegasus://b/done?id=1 => ok
         2s r pegasus://b/next => error no-ticket
         3s r pegasus://b/next?id=3&wait=20s
         4s o pegasus://b/resume?provider=10.0.0.1:80 => r: 10.0.0.1:80 id=3 | ok services=1 \
         active=1 offering=yes
         4s o pegasus://b/resume?provider=10.0.0.1:80 => ok services=1 active=1 offering=yes
         4s ? 10.0.0.1:80 state=free active=1",
    );
    assert_eq!(story.notes[1..], ["drained default 10.0.0.1:80", "resumed default 10.0.0.1:80"]);
}

#[test]
fn a_drain_with_a_time_ends_by_itself_and_serves_who_waits() {
    tell(
        QueueOptions::default(),
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=4 => ok…
         0s o pegasus://b/drain?provider=10.0.0.1:80&for=5s => ok…
         1s ? 10.0.0.1:80 state=drained drained=4s
         1s r pegasus://b/next?id=1&wait=20s
         4.999s . .
         5s . . => r: 10.0.0.1:80 id=1
         5s ? 10.0.0.1:80 state=free",
    );
}

#[test]
fn a_drain_outlives_the_lease_and_the_withdrawal() {
    tell(
        QueueOptions::default(),
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=4&lease=2s => ok…
         0s o pegasus://b/drain?provider=10.0.0.1:80 => ok…
         0s m pegasus://b/withdraw?provider=10.0.0.1:80 => ok discarded=2
         600s ? 10.0.0.1:80 state=drained tickets=0
         600s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=4&lease=2s => ok…
         600s r pegasus://b/next => error no-ticket
         600s o pegasus://b/resume?provider=10.0.0.1:80 => ok services=1 active=0 offering=yes
         600s r pegasus://b/next => 10.0.0.1:80
         700s o pegasus://b/resume?provider=10.0.0.1:80 => ok services=0 active=0 offering=no",
    );
}

#[test]
fn a_drain_concerns_every_service_or_the_one_that_is_named() {
    tell(
        QueueOptions::default(),
        "0s m pegasus://b/ticket?service=a&provider=10.0.0.1:80&tickets=2&capacity=4 => ok…
         0s m pegasus://b/ticket?service=b&provider=10.0.0.1:80&tickets=2&capacity=4 => ok…
         0s o pegasus://b/drain?provider=10.0.0.1:80&service=b => ok services=1 active=0 \
         offering=yes
         0s r pegasus://b/next?service=a => 10.0.0.1:80
         0s r pegasus://b/next?service=b => error no-ticket
         0s o pegasus://b/drain?provider=10.0.0.1:80 => ok services=2 active=0 offering=yes
         0s r pegasus://b/next?service=a => error no-ticket
         0s o pegasus://b/resume?provider=10.0.0.1:80&service=a => ok services=1 active=0 \
         offering=yes
         0s r pegasus://b/next?service=a => 10.0.0.1:80
         0s r pegasus://b/next?service=b => error no-ticket
         0s o pegasus://b/drain?provider=10.0.0.9:80 => ok services=1 active=0 offering=no
         0s m pegasus://b/ticket?provider=10.0.0.9:80&tickets=2&capacity=4 => ok…
         0s r pegasus://b/next => error no-ticket",
    );
}

#[test]
fn drains_have_a_list_and_bounds_of_their_own() {
    let options = QueueOptions { providers_max: 1, services_max: 1, ..QueueOptions::default() };
    tell(
        options,
        "0s far came 192.0.2.9
         0s far pegasus://b/drain?provider=10.0.0.1:80 => error denied this address is not in \
         queue_allow_drain
         0s far pegasus://b/resume?provider=10.0.0.1:80 => error denied…
         0s o pegasus://b/drain?provider=10.0.0.1:80 => ok…
         0s o pegasus://b/drain?provider=10.0.0.2:80 => error busy…
         0s o pegasus://b/drain?provider=10.0.0.2:80&service=b => error busy…",
    );
}

/// What an upgrade carries over makes the same drains at the other queue.
#[test]
fn drains_are_carried_to_another_queue() {
    let now = Moment::after_start(Span::from_secs(10));
    let mut old = TicketQueue::new(QueueOptions::default(), 7);
    let connection = Slab::default().insert(());
    old.handle_input(Input::LocalConnected { connection }, now);
    for line in [
        "pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=4&lease=20s",
        "pegasus://b/drain?provider=10.0.0.1:80&for=20s",
        "pegasus://b/drain?provider=10.0.0.2:80&service=web",
    ] {
        let request = Request::parse(line.as_bytes()).unwrap();
        old.handle_input(Input::Request { connection, slot: Some(0), request }, now);
    }
    let mut new = TicketQueue::new(QueueOptions::default(), 7);
    new.handle_input(Input::LocalConnected { connection }, Moment::ZERO);
    for request in old.offers(now) {
        let input = Input::Request { connection, slot: Some(0), request };
        new.handle_input(input, Moment::ZERO);
    }
    let drained = |queue: &TicketQueue, now| {
        let text = queue.status(None, now);
        text.lines().filter(|line| line.contains("state=drained")).count()
    };
    assert_eq!((drained(&old, now), drained(&new, Moment::ZERO)), (2, 2));
    assert_eq!(drained(&new, Moment::ZERO + Span::from_secs(21)), 1, "one ends by itself");
}
