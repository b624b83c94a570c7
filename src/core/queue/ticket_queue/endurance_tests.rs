//! One peer does its worst: what that costs, in steps, and what the others get.

use super::*;

struct Crowd {
    queue: TicketQueue,
    connections: Slab<()>,
    now: Moment,
    outputs: Vec<(Key, Reply)>,
}

impl Crowd {
    fn new(options: QueueOptions) -> Crowd {
        Crowd {
            queue: TicketQueue::new(options, 7),
            connections: Slab::default(),
            now: Moment::after_start(Span::from_secs(1)),
            outputs: Vec::new(),
        }
    }

    fn come(&mut self, from: &str) -> Key {
        let connection = self.connections.insert(());
        let peer = from.parse().unwrap();
        self.queue.handle_input(Input::Connected { connection, peer }, self.now);
        connection
    }

    fn say(&mut self, connection: Key, message: &str) {
        let request = Request::parse(format!("pegasus://b/{message}").as_bytes()).unwrap();
        let numbered = matches!(&request, Request::Next(next) if next.id.is_some());
        let slot = (!numbered).then_some(0);
        self.queue.handle_input(Input::Request { connection, slot, request }, self.now);
        self.collect();
    }

    fn collect(&mut self) -> usize {
        let before = self.outputs.len();
        while let Some(output) = self.queue.poll_output() {
            if let Output::Reply { connection, reply, .. } = output {
                self.outputs.push((connection, reply));
            }
        }
        self.outputs.len() - before
    }

    fn answers(&mut self, connection: Key) -> Vec<String> {
        let (own, others) =
            std::mem::take(&mut self.outputs).into_iter().partition(|(to, _)| *to == connection);
        self.outputs = others;
        own.into_iter().map(|(_, reply): (Key, Reply)| reply.to_string()).collect()
    }

    /// Lets time pass; returns the most answers of one turn.
    fn pass(&mut self, span: Span) -> usize {
        let (to, mut most) = (self.now + span, 0);
        while let Some(next) = self.queue.next_timeout().filter(|next| *next <= to) {
            self.now = self.now.max(next);
            self.queue.handle_timeout(self.now);
            most = most.max(self.collect());
        }
        self.now = to;
        most
    }

    fn looks(&self) -> u64 {
        self.queue.services.iter().map(|(_, state)| state.search.looks).sum()
    }
}

fn everywhere() -> QueueOptions {
    let all = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    QueueOptions { allow_next: all.clone(), allow_ticket: all, ..QueueOptions::default() }
}

#[test]
fn requests_that_avoid_all_providers_cost_others_a_bounded_number_of_looks() {
    let mut crowd = Crowd::new(everywhere());
    let (greedy, honest) = (crowd.come("10.0.0.1"), crowd.come("10.0.0.2"));
    let providers: Vec<String> = (1..=16).map(|number| format!("10.1.0.{number}")).collect();
    let monitor = crowd.come("127.0.0.1");
    for provider in &providers {
        crowd.say(monitor, &format!("ticket?provider={provider}&tickets=100&capacity=100"));
    }
    let avoid = providers.join(",");
    for id in 1..=8000 {
        crowd.say(greedy, &format!("next?wait=30s&id={id}&avoid={avoid}"));
    }
    assert!(crowd.looks() <= 8000 + 128, "{} looks for 8000 requests", crowd.looks());
    let before = crowd.looks();
    for id in 1..=100 {
        crowd.say(honest, &format!("next?wait=30s&id={id}"));
    }
    assert_eq!(crowd.answers(honest).len(), 100);
    for id in 1..=100 {
        crowd.say(honest, &format!("done?id={id}"));
    }
    assert_eq!(crowd.answers(honest), ["ok"; 100]);
    let looks = crowd.looks() - before;
    assert!(looks <= 128 * 201, "{looks} looks for 200 requests");
}

#[test]
fn behind_many_that_cannot_be_served_each_that_can_is_found() {
    let mut crowd = Crowd::new(everywhere());
    let (asker, monitor) = (crowd.come("10.0.0.1"), crowd.come("127.0.0.1"));
    for id in 1..=1000 {
        crowd.say(asker, &format!("next?wait=30s&id={id}&avoid=10.1.0.1"));
    }
    crowd.say(asker, "next?wait=30s&id=1001&avoid=10.1.0.2");
    crowd.say(monitor, "ticket?provider=10.1.0.1&tickets=1&capacity=1");
    crowd.pass(Span::from_millis(100));
    assert_eq!(crowd.answers(asker), ["10.1.0.1 id=1001"]);
    crowd.say(monitor, "ticket?provider=10.1.0.3&tickets=1&capacity=1");
    assert_eq!(crowd.answers(asker), ["10.1.0.3 id=1"], "the oldest");
}

#[test]
fn waits_that_end_together_are_answered_some_in_each_turn() {
    let mut crowd = Crowd::new(everywhere());
    let asker = crowd.come("10.0.0.1");
    for _ in 0..10_000 {
        crowd.say(asker, "next?wait=1s");
    }
    let most = crowd.pass(Span::from_secs(2));
    assert!(most <= WORK_PER_TURN, "{most} answers in one turn");
    assert_eq!(crowd.answers(asker), vec!["error no-ticket"; 10_000]);
}

#[test]
fn the_requests_of_a_peer_that_is_gone_end_some_in_each_turn() {
    let mut crowd = Crowd::new(everywhere());
    let (asker, monitor) = (crowd.come("10.0.0.1"), crowd.come("127.0.0.1"));
    crowd.say(monitor, "ticket?provider=10.1.0.1&tickets=5000&capacity=5000&lease=10m");
    for id in 1..=5000 {
        crowd.say(asker, &format!("next?id={id}"));
    }
    crowd.queue.handle_input(Input::Disconnected { connection: asker }, crowd.now);
    assert_eq!(crowd.queue.departed.len(), 5000 - WORK_PER_TURN);
    crowd.pass(Span::ZERO);
    let status = crowd.queue.status(None, crowd.now);
    assert!(status.contains(" free=5000 active=0 "), "{status}");
    assert_eq!(crowd.queue.ids, 0);
}

#[test]
fn where_a_service_is_full_the_source_that_has_most_gives_way() {
    let options = QueueOptions { waiting_max: 100, ..everywhere() };
    let mut crowd = Crowd::new(options);
    let (greedy, honest) = (crowd.come("10.0.0.1"), crowd.come("10.0.0.2"));
    for id in 1..=101 {
        crowd.say(greedy, &format!("next?wait=30s&id={id}"));
    }
    assert_eq!(crowd.answers(greedy), ["error crowded id=101"], "its own do not give way");
    for id in 1..=60 {
        crowd.say(honest, &format!("next?wait=30s&id={id}"));
    }
    let refused = crowd.answers(honest);
    assert_eq!(refused.len(), 10, "{refused:?}");
    let displaced = crowd.answers(greedy);
    assert_eq!((displaced.len(), &displaced[0][..]), (50, "error crowded id=100"));
}

#[test]
fn one_source_may_not_fill_all_services() {
    let options = QueueOptions { waiting_max: 10, ..everywhere() };
    let mut crowd = Crowd::new(options);
    let greedy = crowd.come("10.0.0.1");
    for service in 0..8 {
        for _ in 0..10 {
            crowd.say(greedy, &format!("next?service=s{service}&wait=30s"));
        }
    }
    assert_eq!(crowd.answers(greedy), vec!["error crowded"; 40]);
}

#[test]
fn one_host_may_not_take_a_service_for_itself() {
    let options = QueueOptions { providers_max: 100, ..everywhere() };
    let mut crowd = Crowd::new(options);
    let (greedy, script) = (crowd.come("10.0.0.1"), crowd.come("127.0.0.1"));
    let mut last = String::new();
    for port in 1..=65 {
        crowd.say(greedy, &format!("ticket?provider=:{port}&tickets=1&capacity=1"));
        last = crowd.answers(greedy).remove(0);
    }
    assert!(last.starts_with("error busy too many providers of this address"), "{last}");
    // This host speaks for others.
    for port in 1..=36 {
        crowd.say(script, &format!("ticket?provider=127.0.0.1:{port}&tickets=1&capacity=1"));
    }
    assert!(crowd.answers(script).iter().all(|answer| answer.starts_with("ok ")));
    for host in 2..=9 {
        let newcomer = crowd.come(&format!("10.0.0.{host}"));
        crowd.say(newcomer, "ticket?tickets=1&capacity=1");
        assert!(crowd.answers(newcomer)[0].starts_with("ok "), "{host}");
    }
    let status = crowd.queue.status(None, crowd.now);
    assert!(status.contains("10.0.0.1:56 ") && !status.contains("10.0.0.1:57 "), "{status}");
    crowd.say(greedy, "ticket?provider=:99&tickets=1&capacity=1");
    assert_eq!(crowd.answers(greedy), ["error busy too many providers"], "it has most itself");
}

#[test]
fn one_host_may_not_take_the_places_of_all_services() {
    let options = QueueOptions { source_providers_max: 2, ..everywhere() };
    let mut crowd = Crowd::new(options);
    let greedy = crowd.come("10.0.0.1");
    for service in 0..9 {
        crowd.say(greedy, &format!("ticket?service=s{service}&tickets=1&capacity=1"));
    }
    let answers = crowd.answers(greedy);
    assert!(answers[7].starts_with("ok ") && answers[8].starts_with("error busy"), "{answers:?}");
}

#[test]
fn a_slip_of_the_finger_is_cut_and_told() {
    let options = QueueOptions { tickets_max: 100, ..everywhere() };
    let mut crowd = Crowd::new(options);
    let monitor = crowd.come("10.0.0.1");
    crowd.say(monitor, "ticket?tickets=1000&capacity=1000&lease=9999h");
    let answer = crowd.answers(monitor).remove(0);
    assert!(answer.contains(" tickets_max=100 lease_max=1h"), "{answer}");
    let status = crowd.queue.status(None, crowd.now);
    assert!(
        status.contains(" tickets=100 capacity=1000 ") && status.contains(" lease=1h "),
        "{status}"
    );
    crowd.say(monitor, "ticket?tickets=100&capacity=100&lease=1h");
    assert!(!crowd.answers(monitor)[0].contains("_max"));
}

#[test]
fn only_who_was_led_to_a_provider_can_say_that_it_is_dead() {
    let mut crowd = Crowd::new(everywhere());
    let (liar, honest) = (crowd.come("10.0.0.1"), crowd.come("10.0.0.2"));
    let script = crowd.come("127.0.0.1");
    crowd.say(script, "ticket?provider=10.1.0.1&tickets=9&capacity=9&lease=10m");
    for message in ["failure?provider=10.1.0.1", "failure?provider=10.1.0.1&id=7"] {
        crowd.say(liar, message);
        assert_eq!(crowd.answers(liar), ["ok discarded=0"], "{message}");
    }
    assert!(crowd.queue.status(None, crowd.now).contains(" failures=0 "));
    crowd.say(honest, "next");
    crowd.pass(Span::from_secs(59));
    crowd.say(honest, "failure?provider=10.1.0.1");
    assert_eq!(crowd.answers(honest), ["10.1.0.1", "ok discarded=8"]);
    crowd.say(script, "ticket?provider=10.1.0.1&tickets=9&capacity=9&lease=10m");
    crowd.pass(Span::from_secs(10));
    crowd.say(honest, "failure?provider=10.1.0.1");
    assert_eq!(crowd.answers(honest), ["ok discarded=0"], "that was too long ago");
    crowd.say(honest, "next?id=1");
    crowd.pass(Span::from_secs(90));
    crowd.say(honest, "failure?provider=10.1.0.1&id=1");
    assert_eq!(crowd.answers(honest), ["10.1.0.1 id=1", "ok discarded=9"], "its request ran");
}
