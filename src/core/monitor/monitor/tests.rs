use super::*;
use crate::protocol::message::ErrorCode;

const CPUS: f64 = 4.0;

/// A monitor and what it has done, with everything but the checks at hand.
struct Story {
    monitor: Monitor,
    now: Moment,
    /// What it said: balancer, message.
    said: Vec<(usize, String)>,
    notes: Vec<MonitorLog>,
    looks: Vec<Moment>,
    checks: Vec<usize>,
    finished: bool,
    sample: Sample,
}

fn service(name: &str, check: bool) -> ServiceOptions {
    ServiceOptions {
        service: name.parse().unwrap(),
        provider: "10.0.0.1:80".parse().unwrap(),
        capacity: None,
        check: check.then_some(Span::from_secs(1)),
        rise: 1,
        fall: 1,
    }
}

fn options(balancers: usize, services: Vec<ServiceOptions>) -> MonitorOptions {
    MonitorOptions {
        interval: Span::from_secs(1),
        balancers,
        services,
        drain_timeout: Span::from_secs(30),
    }
}

impl Story {
    fn new(options: MonitorOptions) -> Story {
        Story {
            monitor: Monitor::new(options, CPUS, 7),
            now: Moment::ZERO,
            said: Vec::new(),
            notes: Vec::new(),
            looks: Vec::new(),
            checks: Vec::new(),
            finished: false,
            sample: Sample {
                cpus: CPUS,
                utilisation: Some(0.0),
                queued: Some(0.0),
                load: None,
                full: None,
            },
        }
    }

    fn up(balancers: usize, services: Vec<ServiceOptions>) -> Story {
        let mut story = Story::new(options(balancers, services));
        (0..balancers).for_each(|balancer| story.tell(Input::Up { balancer }));
        story
    }

    fn tell(&mut self, input: Input) {
        self.monitor.handle_input(input, self.now);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.monitor.poll_output() {
            match output {
                Output::TakeSample => {
                    self.looks.push(self.now);
                    self.monitor.handle_input(Input::Sampled(self.sample), self.now);
                }
                Output::Check { service } => self.checks.push(service),
                Output::SendToQueue { balancer, request, .. } => {
                    let mut line = Vec::new();
                    request.write(&"b", &mut line);
                    self.said
                        .push((balancer, String::from_utf8(line).unwrap().trim_end().to_string()));
                }
                Output::Log(note) => self.notes.push(note),
                Output::Finished => self.finished = true,
            }
        }
    }

    fn until(&mut self, millis: u64) {
        let to = Moment::after_start(Span::from_millis(millis));
        while let Some(next) =
            self.monitor.next_timeout().filter(|next| *next <= to && !self.finished)
        {
            self.now = self.now.max(next);
            self.monitor.handle_timeout(self.now);
            self.collect();
        }
        self.now = to;
    }

    fn standing(&mut self, balancer: usize, active: f64, granted: u64, mode: Mode) {
        let standing = Feedback { active, granted, mode, ..Feedback::default() };
        self.tell(Input::QueueReply { balancer, service: 0, reply: Reply::Feedback(standing) });
    }

    fn said(&mut self) -> Vec<(usize, String)> {
        std::mem::take(&mut self.said)
    }

    /// The last (tickets, capacity) for a balancer.
    fn offered(&self, balancer: usize) -> (u32, u32) {
        let (_, line) = self.said.iter().rev().find(|(to, _)| *to == balancer).expect("an offer");
        match Request::parse(line.as_bytes()).unwrap() {
            Request::Ticket { tickets, capacity, .. } => (tickets, capacity),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_first_bid_comes_at_once_with_the_cpus_as_slots_no_ceiling_and_a_lease_of_five_intervals() {
    let mut story = Story::up(1, vec![service("web", false)]);
    story.until(0);
    let offer = "pegasus://b/ticket?provider=10.0.0.1:80&service=web&tickets=4&capacity=1000000&weight=4.000&lease=5s";
    assert_eq!(story.said(), [(0, offer.to_string())]);
    for (interval, lease) in [(100, "5s"), (1000, "5s"), (2000, "10s")] {
        let mut options = options(1, vec![service("web", false)]);
        options.interval = Span::from_millis(interval);
        let mut story = Story::new(options);
        story.tell(Input::Up { balancer: 0 });
        story.until(0);
        assert!(story.said[0].1.ends_with(&format!("&lease={lease}")), "{:?}", story.said);
    }
}

#[test]
fn a_balancer_that_comes_later_or_again_is_told_at_once() {
    let mut story = Story::new(options(2, vec![service("web", false)]));
    story.until(500);
    assert_eq!(story.said(), []);
    story.tell(Input::Up { balancer: 1 });
    assert_eq!(story.offered(1), (4, TICKETS_MAX), "who is away gets no share");
    story.tell(Input::Up { balancer: 0 });
    assert!(story.offered(0).0 == 2);
    story.tell(Input::Down { balancer: 1 });
    story.said();
    story.until(2000);
    assert!(story.said.iter().all(|(to, _)| *to == 0) && story.offered(0) == (4, TICKETS_MAX));
}

#[test]
fn intervals_keep_within_five_percent() {
    let mut story = Story::up(1, vec![service("web", false)]);
    story.until(200_000);
    let steps: Vec<f64> =
        story.looks.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64()).collect();
    assert!(
        steps.len() > 150 && steps.iter().all(|step| (0.95..=1.05).contains(step)),
        "{steps:?}"
    );
    assert!(steps.iter().any(|step| *step < 0.97) && steps.iter().any(|step| *step > 1.03));
}

#[test]
fn a_service_is_offered_once_its_check_is_in_and_withdrawn_at_once_when_one_fails() {
    let mut story = Story::up(1, vec![service("web", true)]);
    story.until(100);
    assert_eq!((story.said(), story.checks.clone()), (vec![], vec![0]));
    story.tell(Input::Checked { service: 0, good: true });
    assert_eq!(story.offered(0), (4, TICKETS_MAX));
    story.until(1100);
    assert_eq!(story.checks, [0, 0]);
    story.tell(Input::Checked { service: 0, good: false });
    assert_eq!(story.offered(0), (0, 0));
    story.until(2200);
    story.tell(Input::Checked { service: 0, good: true });
    assert_eq!(story.offered(0), (4, TICKETS_MAX));
    let web = "web".parse().unwrap();
    assert_eq!(
        story.notes,
        [MonitorLog::Healthy(web), MonitorLog::Unhealthy(web), MonitorLog::Healthy(web)]
    );
}

#[test]
fn a_check_between_two_bids_that_fails_does_not_wait_for_the_next() {
    let mut often = service("web", true);
    often.check = Some(Span::from_millis(300));
    let mut story = Story::up(1, vec![often, service("mail", false)]);
    story.until(0);
    story.tell(Input::Checked { service: 0, good: true });
    story.said();
    story.until(300);
    story.tell(Input::Checked { service: 0, good: false });
    let said = story.said();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].1.contains("service=web&tickets=0&capacity=0")
            && said[1].1.contains("service=mail&tickets=2")
    );
}

#[test]
fn a_bid_waits_for_the_look_of_its_turn() {
    let mut monitor = Monitor::new(options(1, vec![service("web", true)]), CPUS, 7);
    let said = |monitor: &mut Monitor| {
        std::iter::from_fn(|| monitor.poll_output())
            .any(|output| matches!(output, Output::SendToQueue { .. }))
    };
    let sample =
        Sample { cpus: CPUS, utilisation: Some(0.0), queued: Some(0.0), load: None, full: None };
    monitor.handle_input(Input::Up { balancer: 0 }, Moment::ZERO);
    for turn in 0..3 {
        let now = Moment::after_start(Span::from_secs(2 * turn));
        monitor.handle_timeout(now);
        monitor.handle_input(Input::Checked { service: 0, good: true }, now);
        assert!(!said(&mut monitor), "turn {turn}: a offer from what was seen an interval ago");
        monitor.handle_input(Input::Sampled(sample), now);
        assert!(said(&mut monitor), "turn {turn}");
    }
}

#[test]
fn a_machine_that_its_load_calls_full_offers_nothing() {
    let mut story = Story::up(1, vec![service("web", false)]);
    story.sample =
        Sample { cpus: CPUS, utilisation: None, queued: None, load: Some(CPUS), full: None };
    story.until(0);
    assert_eq!(story.offered(0), (0, 0));
    story.sample.load = Some(1.0);
    story.until(1100);
    assert_eq!(story.offered(0), (12, TICKETS_MAX));
}

#[test]
fn where_nothing_can_be_measured_the_configured_capacity_is_scaled_by_the_load() {
    let mut story =
        Story::up(1, vec![ServiceOptions { capacity: Some(8), ..service("web", false) }]);
    story.sample =
        Sample { cpus: CPUS, utilisation: None, queued: None, load: Some(CPUS / 2.0), full: None };
    story.until(0);
    assert_eq!(story.offered(0), (4, 8));
}

#[test]
fn a_configured_capacity_is_divided_once_all_queues_have_answered() {
    let mut story =
        Story::up(1, vec![ServiceOptions { capacity: Some(3), ..service("web", false) }]);
    story.until(0);
    assert_eq!(story.offered(0), (3, 3));
    let mut story =
        Story::up(2, vec![ServiceOptions { capacity: Some(3), ..service("web", false) }]);
    story.until(0);
    assert_eq!(
        (story.offered(0), story.offered(1)),
        ((0, 0), (0, 0)),
        "an earlier monitor may have offered all"
    );
    story.standing(0, 0.0, 0, Mode::Slots);
    story.standing(1, 0.0, 0, Mode::Slots);
    story.until(200);
    assert_eq!(story.offered(0).1 + story.offered(1).1, 3);
}

#[test]
fn slots_follow_what_the_queues_report() {
    let mut story = Story::up(2, vec![service("web", false)]);
    story.sample.utilisation = Some(0.5);
    for second in 0..90 {
        story.until(second * 1000);
        story.standing(0, 6.0, 10, Mode::Slots);
        story.standing(1, 4.0, 10, Mode::Slots);
    }
    let total = story.offered(0).0 + story.offered(1).0;
    assert!(
        (19..=21).contains(&total),
        "10 in progress at half utilisation are 20 slots, not {total}"
    );
}

#[test]
fn requests_are_learned_with_the_load_of_their_own_time() {
    let mut story = Story::up(1, vec![service("web", false)]);
    for turn in 0..60 {
        // Every other interval is idle; the answer to a offer is about the interval before it.
        let busy = turn % 2 == 1;
        story.sample.utilisation = Some(if busy { 1.0 } else { 0.0 });
        let looks = story.looks.len();
        while story.looks.len() == looks {
            let next = story.monitor.next_timeout().unwrap();
            story.until(next.since(Moment::ZERO).as_millis() + 1);
        }
        story.standing(0, if busy { 20.0 } else { 0.0 }, u64::from(busy), Mode::Slots);
    }
    assert_eq!(story.offered(0), (20, TICKETS_MAX));
}

#[test]
fn shares_are_half_even_and_half_by_demand_and_add_up() {
    let mut story = Story::up(4, vec![service("web", false)]);
    story.until(0);
    let (mut sums, mut offers) = ([0; 4], 0);
    for second in 1..400 {
        story.standing(0, 0.0, 30, Mode::Slots);
        (1..4).for_each(|balancer| story.standing(balancer, 0.0, 0, Mode::Slots));
        story.said();
        story.until(second * 1000);
        if story.said.is_empty() {
            continue;
        }
        let offered: Vec<u32> = (0..4).map(|balancer| story.offered(balancer).0).collect();
        assert_eq!(offered.iter().sum::<u32>(), 4, "{offered:?}");
        sums.iter_mut().zip(offered).for_each(|(sum, tickets)| *sum += tickets);
        offers += 1;
    }
    let means: Vec<f64> = sums.iter().map(|sum| f64::from(*sum) / f64::from(offers)).collect();
    for (mean, share) in means.iter().zip([2.5, 0.5, 0.5, 0.5]) {
        assert!((mean - share).abs() < 0.1, "{means:?}");
    }
}

#[test]
fn a_queue_in_paper_mode_gets_requests_per_interval() {
    let mut story = Story::up(1, vec![service("web", false)]);
    story.sample.utilisation = Some(0.5);
    for second in 0..60 {
        story.until(second * 1000);
        story.standing(0, 0.0, 40, Mode::Paper);
    }
    let (tickets, capacity) = story.offered(0);
    assert!(
        (95..=105).contains(&tickets) && capacity == tickets,
        "40/s at half load, a quarter more: {tickets}"
    );
}

#[test]
fn a_refusal_is_noted_once_until_it_is_over() {
    let mut story = Story::up(1, vec![service("web", false)]);
    let denied = || Input::QueueReply {
        balancer: 0,
        service: 0,
        reply: Reply::error(ErrorCode::Denied, "no"),
    };
    story.tell(denied());
    story.tell(denied());
    assert_eq!(story.notes.len(), 1);
    story.standing(0, 0.0, 0, Mode::Slots);
    story.tell(denied());
    assert_eq!(story.notes.len(), 2);
}

#[test]
fn draining_withdraws_everywhere_and_ends_with_the_last_request() {
    let mut story = Story::up(2, vec![service("web", false)]);
    story.until(0);
    story.said();
    story.tell(Input::Drain);
    let withdraw = "pegasus://b/withdraw?provider=10.0.0.1:80&service=web".to_string();
    assert_eq!(story.said(), [(0, withdraw.clone()), (1, withdraw)]);
    let active = |story: &mut Story, balancer, active: u32, capacity: u32| {
        let line = format!("provider service=web address=10.0.0.1:80 tickets=0 capacity={capacity} active={active}\n");
        let other = "provider service=web address=10.0.0.2:80 tickets=0 capacity=0 active=7\n";
        story.tell(Input::QueueReply { balancer, service: 0, reply: Reply::Status(line + other) });
    };
    for _ in 0..20 {
        story.until(story.now.since(Moment::ZERO).as_millis() + 200);
        active(&mut story, 0, 0, 0);
        active(&mut story, 1, 1, 0);
        let asks = |(_, line): &(usize, String)| line == "pegasus://b/status?service=web";
        assert!(story.said().iter().all(asks) && !story.finished, "asking changes nothing");
    }
    active(&mut story, 1, 0, 0);
    story.until(4400);
    assert!(story.finished);

    let mut story = Story::up(1, vec![service("web", false)]);
    story.tell(Input::Drain);
    story.until(100);
    active(&mut story, 0, 5, 9);
    story.until(400);
    assert!(story.finished, "another monitor offers it already");
}

#[test]
fn draining_has_its_time() {
    let mut story = Story::up(1, vec![service("web", false)]);
    story.tell(Input::Drain);
    story.until(29_999);
    assert!(!story.finished);
    story.until(30_000);
    assert!(story.finished);
}

#[test]
fn draining_does_not_wait_for_queues_that_are_away_or_know_nothing_of_us() {
    let mut story = Story::up(2, vec![service("web", false)]);
    story.tell(Input::Down { balancer: 1 });
    story.tell(Input::Drain);
    story.until(100);
    story.tell(Input::QueueReply { balancer: 0, service: 0, reply: Reply::Status(String::new()) });
    story.until(400);
    assert!(story.finished, "one queue is away");

    let mut story = Story::up(1, vec![service("web", false)]);
    story.tell(Input::Drain);
    for _ in 0..2 {
        story.tell(Input::QueueReply {
            balancer: 0,
            service: 0,
            reply: Reply::error(ErrorCode::Denied, ""),
        });
        story.until(story.now.since(Moment::ZERO).as_millis() + 200);
    }
    assert!(story.finished, "the queue never took a ticket");

    let mut story = Story::new(options(1, vec![service("web", false)]));
    story.tell(Input::Drain);
    story.until(0);
    assert!(story.finished, "nobody to tell");
}
