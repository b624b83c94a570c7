//! Stories of a ticket queue in the protocol's own notation.
//!
//! A line is `TIME WHO WHAT`, then perhaps `=> ANSWER`, with ` | ` between
//! several answers and `OTHER:` before one that is not for WHO. `WHO came IP`
//! opens a connection (one that is not opened comes from 127.0.0.1), `ended`
//! and `gone` end it; `. .` only lets time pass; `? KIND key=value …` looks
//! into the status, KIND being `queue`, `service` or a provider's address.
//! `plugin up`, `plugin down` and `plugin advice LINE` are the program that
//! schedules, which hears `plugin: LINE`. Every answer since the line before
//! must be there, in its order.

use super::*;
use crate::base::key_value;
use crate::base::story::{steps, Step};

pub(super) struct Story {
    queue: TicketQueue,
    connections: Slab<String>,
    now: Moment,
    pub(super) notes: Vec<String>,
}

impl Story {
    fn new(options: QueueOptions) -> Story {
        Story {
            queue: TicketQueue::new(options, 7),
            connections: Slab::default(),
            now: Moment::ZERO,
            notes: Vec::new(),
        }
    }

    fn connection(&mut self, who: &str) -> Key {
        let known = self.connections.iter().find(|(_, name)| *name == who).map(|(key, _)| key);
        known.unwrap_or_else(|| self.come(who, "127.0.0.1"))
    }

    fn come(&mut self, who: &str, from: &str) -> Key {
        let connection = self.connections.insert(who.to_string());
        self.queue
            .handle_input(Input::Connected { connection, peer: from.parse().unwrap() }, self.now);
        connection
    }

    /// Lets time pass, as a loop would, and collects what is answered.
    fn pass(&mut self, to: Moment, answers: &mut Vec<(String, String)>) {
        assert!(to >= self.now, "a story goes forward");
        while let Some(next) = self.queue.next_timeout().filter(|next| *next <= to) {
            self.now = self.now.max(next);
            self.queue.handle_timeout(self.now);
            self.collect(answers);
        }
        self.now = to;
    }

    /// Another scheduler is configured.
    pub(super) fn schedule(&mut self, scheduler: &str) {
        let options =
            QueueOptions { scheduler: scheduler.parse().unwrap(), ..QueueOptions::default() };
        self.queue.handle_input(Input::Reconfigure(Box::new(options)), self.now);
    }

    fn collect(&mut self, answers: &mut Vec<(String, String)>) {
        while let Some(output) = self.queue.poll_output() {
            match output {
                Output::Reply { connection, reply, .. } => {
                    answers.push((
                        self.connections.get(connection).unwrap().clone(),
                        reply.to_string(),
                    ));
                }
                Output::PluginSend { line, .. } => answers.push(("plugin".into(), line)),
                Output::PluginOk { .. } => {}
                Output::RestartPlugin { why, .. } => answers.push(("restart".into(), why.into())),
                Output::StartPlugin { command, .. } => {
                    self.notes.push(format!("engage {}", command.as_deref().unwrap_or("none")));
                }
                Output::Log(note) => {
                    self.notes.push(format!(
                        "{} {} {}",
                        note.event.word(),
                        note.service,
                        note.provider
                    ));
                }
            }
        }
    }

    fn status(&mut self, kind: &str) -> String {
        let text = self.queue.status(None, self.now);
        let wanted = |line: &&str| {
            line.split(' ').next() == Some(kind) || key_value::find(line, "address") == Some(kind)
        };
        text.lines()
            .find(wanted)
            .unwrap_or_else(|| panic!("no line for {kind} in\n{text}"))
            .to_string()
    }

    pub(super) fn tell(&mut self, script: &str) {
        steps(script).for_each(|step| self.step(&step));
    }

    fn step(&mut self, step: &Step) {
        let mut words = step.event.split_whitespace();
        let (who, what) = (words.next().unwrap(), words.next().unwrap());
        let mut answers = Vec::new();
        self.pass(step.at, &mut answers);
        match what {
            _ if who == "?" => {
                let status = self.status(what);
                for pair in words {
                    assert!(
                        status.split(' ').any(|known| known == pair),
                        "{}\nbut it is: {status}",
                        step.line
                    );
                }
            }
            "came" => drop(self.come(who, words.next().unwrap())),
            "ended" | "gone" => {
                let connection = self.connection(who);
                if what == "ended" {
                    self.queue.handle_input(Input::ReadClosed { connection }, self.now);
                } else {
                    self.queue.handle_input(Input::Disconnected { connection }, self.now);
                    self.connections.remove(connection);
                }
            }
            "up" | "down" => {
                self.queue.handle_input(
                    Input::PluginState { service: ServiceName::DEFAULT, up: what == "up" },
                    self.now,
                );
            }
            "advice" => {
                let line = words.collect::<Vec<_>>().join(" ");
                self.queue.handle_input(
                    Input::PluginReply { service: ServiceName::DEFAULT, line },
                    self.now,
                );
            }
            "undelivered" => {
                let connection = self.connection(who);
                self.queue.handle_input(Input::SendFailed { connection }, self.now);
            }
            "drain" => self.queue.handle_input(Input::Drain, self.now),
            "." => {}
            url => {
                let request = Request::parse(url.as_bytes()).unwrap();
                let connection = self.connection(who);
                self.queue
                    .handle_input(Input::Request { connection, slot: Some(0), request }, self.now);
            }
        }
        self.collect(&mut answers);
        let fits = |(to, text): &(String, String), expected: &str| {
            let (name, wanted) = expected.split_once(": ").unwrap_or((who, expected));
            to == name
                && (text == wanted
                    || wanted.ends_with('…') && text.starts_with(wanted.trim_end_matches('…')))
        };
        let same = answers.len() == step.expected.len()
            && answers.iter().zip(&step.expected).all(|(a, e)| fits(a, e));
        assert!(same, "{}\nbut it answered: {answers:?}", step.line);
    }
}

pub(super) fn tell(options: QueueOptions, script: &str) -> Story {
    let mut story = Story::new(options);
    story.tell(script);
    story
}

fn told(script: &str) -> Story {
    tell(QueueOptions::default(), script)
}

#[test]
fn the_papers_dialogue() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1&tickets=2&capacity=100 \
            => ok active=0.000 granted=0 waiting=0 mode=slots…
         0s r pegasus://b/next => 10.0.0.1
         0s r pegasus://b/next => 10.0.0.1
         0s r pegasus://b/next => error no-ticket
         0s ? 10.0.0.1 tickets=2 offered=2 free=0 active=0 spent=2
         1s m pegasus://b/ticket?provider=10.0.0.1&tickets=2&capacity=100 \
             => ok active=0.000 granted=2 waiting=1 mode=paper…
         1s r pegasus://b/next => 10.0.0.1
         1s r pegasus://b/failure?provider=10.0.0.1 => ok discarded=1
         1s r pegasus://b/next => error no-ticket",
    );
}

#[test]
fn a_message_replaces_and_never_adds() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=3&capacity=12 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=3&capacity=12 => ok…
         0s ? 10.0.0.1:80 tickets=3 capacity=12 free=3
         0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=4 => ok…
         0s ? 10.0.0.1:80 tickets=1 capacity=4 free=1
         0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=9&capacity=0 => ok…
         0s r pegasus://b/next?id=1 => error no-ticket id=1",
    );
}

#[test]
fn a_counted_request_occupies_its_ticket_until_it_is_done() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=2 => ok…
         0s r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         0s ? 10.0.0.1:80 free=0 active=1 offered=1
         0s r pegasus://b/next => error no-ticket
         0s r pegasus://b/next?id=2 => 10.0.0.1:80 id=2
         0s r pegasus://b/next?id=3 => error no-ticket id=3
         0s ? 10.0.0.1:80 free=0 active=2 offered=2
         1s r pegasus://b/done?id=1 => ok
         1s r pegasus://b/done?id=1 => error bad-parameter…
         1s r pegasus://b/done?id=2 => ok
         1s ? 10.0.0.1:80 free=1 active=0 granted=2
         2s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=2 \
             => ok active=1.000 granted=2 waiting=2 mode=slots…",
    );
}

#[test]
fn a_smaller_offer_does_not_end_what_runs() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=2 => ok…
         0s r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         0s r pegasus://b/next?id=2 => 10.0.0.1:80 id=2
         1s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 => ok…
         1s ? 10.0.0.1:80 free=0 active=2
         1s r pegasus://b/done?id=1 => ok
         1s r pegasus://b/next?id=3 => error no-ticket id=3
         1s r pegasus://b/done?id=2 => ok
         1s r pegasus://b/next?id=3 => 10.0.0.1:80 id=3",
    );
}

#[test]
fn free_tickets_go_before_spare_capacity() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=100 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.2:80&tickets=3&capacity=4 => ok…
         0s r pegasus://b/next?id=1&avoid=10.0.0.2:80 => 10.0.0.1:80 id=1
         0s r pegasus://b/next?id=2 => 10.0.0.2:80 id=2
         0s r pegasus://b/next?id=3 => 10.0.0.2:80 id=3
         0s r pegasus://b/next?id=4 => 10.0.0.2:80 id=4
         0s r pegasus://b/next?id=5 => 10.0.0.2:80 id=5
         0s r pegasus://b/next?id=6 => 10.0.0.1:80 id=6",
    );
}

#[test]
fn nobody_is_led_to_whom_he_avoids() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=5&capacity=5 => ok…
         0s r pegasus://b/next?id=1&avoid=10.0.0.1:80 => error no-ticket id=1
         0s r pegasus://b/next?id=1&avoid=10.0.0.1:80&wait=1s =>
         0.5s m pegasus://b/ticket?provider=10.0.0.2:80&tickets=5&capacity=5 \
             => r: 10.0.0.2:80 id=1 | ok…",
    );
}

#[test]
fn who_waits_is_served_by_done_by_a_ticket_and_by_the_end_of_a_hold() {
    told(
        "0s a pegasus://b/next?id=1&wait=9s =>
         0.1s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 \
             => a: 10.0.0.1:80 id=1 | ok…
         0.2s b pegasus://b/next?id=1&wait=9s =>
         0.3s a pegasus://b/done?id=1 => b: 10.0.0.1:80 id=1 | ok
         0.4s a pegasus://b/next?id=2&wait=9s =>
         1s b pegasus://b/failure?provider=10.0.0.1:80&id=1 => ok…
         1.1s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 => ok…
         1.499s . . =>
         1.5s . . => a: 10.0.0.1:80 id=2",
    );
}

#[test]
fn waiting_ends_on_time_with_an_error() {
    told(
        "0s r pegasus://b/next?id=1&wait=1s =>
         0.5s r pegasus://b/next?wait=1s =>
         0.999s . . =>
         1s . . => r: error no-ticket id=1
         1s ? queue waiting=1
         1.5s . . => r: error no-ticket
         1.5s ? queue waiting=0 asked=2 refused=2",
    );
}

#[test]
fn the_longest_wait_is_the_operators() {
    let options = QueueOptions { wait_max: Span::from_secs(2), ..QueueOptions::default() };
    Story::new(options)
        .tell("0s r pegasus://b/next?id=1&wait=1h =>\n 2s . . => r: error no-ticket id=1");
}

#[test]
fn first_come_first_served_but_under_overload_somebody_in_time() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 => ok…
         0s x pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         1s a pegasus://b/next?id=1&wait=1s =>
         1.1s b pegasus://b/next?id=1&wait=1s =>
         1.3s c pegasus://b/next?id=1&wait=1s =>
         1.5s x pegasus://b/done?id=1 => a: 10.0.0.1:80 id=1 | ok
         1.7s a pegasus://b/done?id=1 => c: 10.0.0.1:80 id=1 | ok
         1.8s c pegasus://b/done?id=1 => b: 10.0.0.1:80 id=1 | ok",
    );
}

#[test]
fn whoever_waits_goes_before_who_comes() {
    // The lease of the first ends; the slot of the second becomes free without a message.
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 => ok…
         0s x pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         0s a pegasus://b/next?id=1&wait=9s =>
         0s b pegasus://b/next?id=1 => error no-ticket id=1
         0s x gone => a: 10.0.0.1:80 id=1",
    );
}

#[test]
fn a_waiting_asker_that_hangs_up_is_forgotten() {
    told(
        "0s a pegasus://b/next?id=1&wait=9s =>
         0s a pegasus://b/next?wait=9s =>
         0s b pegasus://b/next?wait=9s =>
         0s ? queue waiting=3
         0s a gone =>
         0s ? queue waiting=1 forgotten=2
         0s b ended =>
         1s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=9&capacity=9 => b: 10.0.0.1:80 | ok…
         1s ? 10.0.0.1:80 active=0 spent=1",
    );
}

#[test]
fn a_connection_that_ends_gives_its_places_back_and_one_that_is_half_closed_does_not() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=2 => ok…
         0s a pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         0s a pegasus://b/next?id=2 => 10.0.0.1:80 id=2
         1s a ended =>
         1s ? 10.0.0.1:80 active=2
         2s a gone =>
         2s ? 10.0.0.1:80 active=0 free=2",
    );
}

#[test]
fn done_of_a_waiting_request_gives_it_its_one_answer() {
    told(
        "0s a pegasus://b/next?id=7&wait=9s =>
         0s a pegasus://b/done?id=7 => error no-ticket id=7 | ok
         0s a pegasus://b/next?id=7&wait=9s =>
         0s a pegasus://b/failure?provider=10.0.0.1&id=7 => error no-ticket id=7 | ok discarded=0
         0s ? queue waiting=0",
    );
}

#[test]
fn an_id_is_used_once_at_a_time() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1&tickets=9&capacity=9 => ok…
         0s a pegasus://b/next?id=7 => 10.0.0.1 id=7
         0s a pegasus://b/next?id=7 => error bad-parameter this id is in use id=7
         0s b pegasus://b/next?id=7 => 10.0.0.1 id=7
         0s ? 10.0.0.1 active=2",
    );
}

#[test]
fn a_failure_holds_and_each_in_a_row_twice_as_long() {
    let mut story = told("");
    let (mut now, mut hold) = (Span::ZERO, Span::from_millis(500));
    for _ in 0..9 {
        story.tell(&format!(
            "{now} m pegasus://b/ticket?provider=10.0.0.1:80&tickets=4&capacity=8 => ok…
             {now} r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
             {now} r pegasus://b/failure?provider=10.0.0.1:80&id=1 => ok discarded=4
             {now} m pegasus://b/ticket?provider=10.0.0.1:80&tickets=4&capacity=8&lease=60s => ok…
             {now} ? 10.0.0.1:80 held={hold}
             {now} r pegasus://b/next?id=1 => error no-ticket id=1"
        ));
        now = now + hold;
        hold = hold.times(2).min(Span::from_secs(30));
    }
    assert_eq!(hold, Span::from_secs(30));
    story.tell(&format!(
        "{now} r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         {now} r pegasus://b/done?id=1 => ok
         {now} r pegasus://b/failure?provider=10.0.0.1:80 => ok…
         {now} m pegasus://b/ticket?provider=10.0.0.1:80&tickets=4&capacity=8 => ok…
         {now} ? 10.0.0.1:80 held=500ms failures=10"
    ));
}

#[test]
fn many_who_notice_one_death_count_once() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=4&capacity=8 => ok…
         0s r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         0s r pegasus://b/next?id=2 => 10.0.0.1:80 id=2
         0s r pegasus://b/next?id=3 => 10.0.0.1:80 id=3
         0s r pegasus://b/failure?provider=10.0.0.1:80&id=1 => ok discarded=2
         0.1s r pegasus://b/failure?provider=10.0.0.1:80&id=2 => ok…
         0.1s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=4&capacity=8 => ok…
         0.1s ? 10.0.0.1:80 held=400ms active=1 tickets=4 failures=2
         1s r pegasus://b/failure?provider=10.0.0.1:80&id=3 => ok discarded=0
         1s ? 10.0.0.1:80 held=0s active=0 tickets=4",
    );
}

#[test]
fn probation_is_one_request_at_once_then_twice_as_many_with_each_good_one() {
    let mut story = told(
        "0s r pegasus://b/next?id=900&wait=1s =>
         0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=100&capacity=400 \
             => r: 10.0.0.1:80 id=900 | ok…
         0s r pegasus://b/failure?provider=10.0.0.1:80&id=900 => ok…
         1s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=100&capacity=400 => ok…
         1s r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         1s r pegasus://b/next?id=2 => error no-ticket id=2
         1s r pegasus://b/next => error no-ticket",
    );
    let (mut held, mut next) = (1u32, 1u32);
    for allowed in [2u32, 4, 8, 16, 32] {
        story.tell(&format!("1s r pegasus://b/done?id={next} => ok"));
        (held, next) = (held - 1, next + 1);
        while held < allowed {
            let id = next + held;
            story.tell(&format!("1s r pegasus://b/next?id={id} => 10.0.0.1:80 id={id}"));
            held += 1;
        }
        let id = next + held;
        story.tell(&format!("1s r pegasus://b/next?id={id} => error no-ticket id={id}"));
    }
    story.tell(&format!("1s r pegasus://b/done?id={next} => ok"));
    for id in 1000..1300 {
        story.tell(&format!("1s r pegasus://b/next?id={id} => 10.0.0.1:80 id={id}"));
    }
}

#[test]
fn a_place_given_back_unused_ends_no_probation_and_no_row_of_failures() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=9&capacity=9&lease=60s => ok…
         0s r pegasus://b/failure?provider=10.0.0.1:80 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=9&capacity=9&lease=60s => ok…
         0.5s r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         0.6s r pegasus://b/done?id=1&unused=yes => ok
         0.6s ? 10.0.0.1:80 active=0
         0.6s r pegasus://b/next?id=2 => 10.0.0.1:80 id=2
         0.6s r pegasus://b/next?id=3 => error no-ticket id=3
         0.7s r pegasus://b/failure?provider=10.0.0.1:80&id=2 => ok…
         0.7s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=9&capacity=9&lease=60s => ok…
         0.7s ? 10.0.0.1:80 held=1s",
    );
}

#[test]
fn a_lease_that_ends_discards_silently_and_its_monitors_connection_does_not() {
    let mut story = told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=2&lease=2s => ok…
         0s r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         1s m gone =>
         1s ? 10.0.0.1:80 tickets=2 free=1 lease=1s
         1.999s r pegasus://b/next?id=2 => 10.0.0.1:80 id=2
         1.999s r pegasus://b/done?id=2 => ok
         2s r pegasus://b/next?id=2 => error no-ticket id=2
         2s ? 10.0.0.1:80 tickets=0 capacity=0 free=0 active=1 offered=1
         2s ? service providers=1 tickets=0 free=0 active=1
         3s r pegasus://b/done?id=1 => ok
         5s ? queue services=0",
    );
    assert_eq!(story.notes, ["registered default 10.0.0.1:80", "lease-ended default 10.0.0.1:80"]);
    assert_eq!(story.queue.next_timeout(), None, "an empty queue sleeps");
    story.tell("9s ? queue connections=1 waiting=0");
}

#[test]
fn a_provider_that_withdraws_keeps_its_running_requests() {
    let story = told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=5&capacity=9 => ok…
         0s r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         0s r pegasus://b/next => 10.0.0.1:80
         0s m pegasus://b/withdraw?provider=10.0.0.1:80 => ok discarded=3
         0s m pegasus://b/withdraw?provider=10.0.0.1:80 => ok discarded=0
         0s m pegasus://b/withdraw?provider=10.0.0.9:80 => ok discarded=0
         0s m pegasus://b/withdraw?provider=10.0.0.1:80&service=mail => ok discarded=0
         0s r pegasus://b/next?id=2 => error no-ticket id=2
         0s ? 10.0.0.1:80 free=0 active=1 spent=0
         1s r pegasus://b/done?id=1 => ok",
    );
    assert_eq!(story.notes, ["registered default 10.0.0.1:80", "withdrew default 10.0.0.1:80"]);
}

#[test]
fn the_answer_to_ticket_tells_the_mean_in_progress() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=4&capacity=9 => ok active=0.000…
         1s r pegasus://b/next?id=1 => 10.0.0.1:80 id=1
         2s r pegasus://b/next?id=2 => 10.0.0.1:80 id=2
         3s r pegasus://b/done?id=1 => ok
         4s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=4&capacity=9 \
             => ok active=1.000 granted=2 waiting=0 mode=slots…
         6s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=4&capacity=9 \
             => ok active=1.000 granted=0 waiting=0 mode=slots…",
    );
}

#[test]
fn services_are_apart() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&service=web&tickets=1&capacity=1 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.1:25&service=mail&tickets=1&capacity=1 => ok…
         0s r pegasus://b/next => error no-ticket
         0s r pegasus://b/next?service=mail&id=1 => 10.0.0.1:25 id=1
         0s r pegasus://b/next?service=mail&id=2 => error no-ticket id=2
         0s r pegasus://b/next?service=web&id=2 => 10.0.0.1:80 id=2
         0s r pegasus://b/failure?provider=10.0.0.1:80&service=mail => ok discarded=0
         0s ? 10.0.0.1:80 failures=0 active=1",
    );
}

#[test]
fn a_failure_that_names_another_service_than_its_request_frees_the_place_for_who_waits() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&service=web&tickets=1&capacity=1 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.1:25&service=mail&tickets=1&capacity=1 => ok…
         0s r pegasus://b/next?service=web&id=1 => 10.0.0.1:80 id=1
         0s a pegasus://b/next?service=web&id=1&wait=9s =>
         0s r pegasus://b/failure?provider=10.0.0.1:25&service=mail&id=1 => a: 10.0.0.1:80 id=1 \
             | ok discarded=1",
    );
}

#[test]
fn a_failure_with_the_id_of_a_request_elsewhere_is_news_of_the_provider_it_names() {
    // The row of deaths is longer at the first than at the second.
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.2:80&tickets=1&capacity=1 => ok…
         0s r pegasus://b/failure?provider=10.0.0.1:80 => ok discarded=1
         0s r pegasus://b/next?id=1 => 10.0.0.2:80 id=1
         1s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=3&capacity=9 => ok…
         1s r pegasus://b/failure?provider=10.0.0.1:80&id=1 => ok discarded=3",
    );
}

#[test]
fn without_keys_loopback_alone_may_speak_and_others_only_for_themselves() {
    told(
        "0s far came 192.0.2.9
         0s far pegasus://b/ticket?tickets=1&capacity=1 => error denied…
         0s far pegasus://b/withdraw => error denied…
         0s far pegasus://b/next?id=3 => error denied this address is not in queue_allow_next id=3
         0s far pegasus://b/failure?provider=10.0.0.1 => error denied…
         0s far pegasus://b/done?id=3 => error denied…
         0s far pegasus://b/status => error denied…
         0s near came ::1
         0s near pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 => ok…",
    );
    let open = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    let mut story = Story::new(QueueOptions {
        allow_ticket: open.clone(),
        allow_next: open.clone(),
        allow_status: open,
        ..QueueOptions::default()
    });
    story.tell(
        "0s far came ::ffff:192.0.2.9
         0s far pegasus://b/ticket?provider=192.0.2.8&tickets=1&capacity=1 => error denied…
         0s far pegasus://b/withdraw?provider=192.0.2.8 => error denied…
         0s far pegasus://b/ticket?provider=:81&tickets=1&capacity=1 => ok…
         0s far pegasus://b/ticket?tickets=0&capacity=1 => ok…
         0s far pegasus://b/ticket?provider=192.0.2.9:82&tickets=0&capacity=1 => ok…
         0s far pegasus://b/next?id=3 => 192.0.2.9:81 id=3
         0s far pegasus://b/failure?provider=192.0.2.8 => ok…
         0s far pegasus://b/done?id=3 => ok",
    );
}

#[test]
fn every_bound_has_its_answer() {
    let options = QueueOptions {
        waiting_max: 1,
        providers_max: 1,
        services_max: 1,
        lease: Span::from_millis(2500),
        ..Default::default()
    };
    let mut story = Story::new(options);
    story.tell(
        "0s m pegasus://b/ticket?provider=10.0.0.1&tickets=0&capacity=1 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.2&tickets=0&capacity=1 => error busy…
         0s m pegasus://b/ticket?provider=10.0.0.1&tickets=0&capacity=1&service=web => error busy…
         0s r pegasus://b/next?wait=9s =>
         0s r pegasus://b/next?wait=9s => error crowded
         0s r pegasus://b/next?service=web&id=1 => error no-ticket id=1
         2.7s m pegasus://b/ticket?provider=10.0.0.2&tickets=0&capacity=1 => ok…",
    );
    assert_eq!(
        story.notes,
        [
            "registered default 10.0.0.1",
            "lease-ended default 10.0.0.1",
            "registered default 10.0.0.2"
        ]
    );
}

#[test]
fn draining_turns_everybody_away_and_counts_on() {
    told(
        "0s m pegasus://b/ticket?provider=10.0.0.1&tickets=1&capacity=1 => ok…
         0s a pegasus://b/next?id=1 => 10.0.0.1 id=1
         0s a pegasus://b/next?id=2&wait=9s =>
         0s b pegasus://b/next?wait=9s =>
         0s . drain => a: error draining id=2 | b: error draining
         0s b pegasus://b/next?id=1 => error draining id=1
         0s a pegasus://b/done?id=1 => ok
         0s ? queue waiting=0",
    );
}

#[test]
fn a_repeated_offer_of_a_held_provider_does_not_pile_up_timers() {
    let mut story = told(
        "0s m pegasus://b/ticket?provider=10.0.0.1&tickets=1&capacity=1 => ok…
         0s r pegasus://b/failure?provider=10.0.0.1 => ok…",
    );
    for _ in 0..100 {
        story.tell("0s m pegasus://b/ticket?provider=10.0.0.1&tickets=1&capacity=1 => ok…");
    }
    assert!(story.queue.timers.len() <= 1, "{} timers", story.queue.timers.len());
}

#[test]
fn places_that_one_connection_leaves_go_out_in_the_order_of_its_ids() {
    let mut story = told("");
    for n in 1..9 {
        story.tell(&format!(
            "0s m pegasus://b/ticket?provider=10.0.0.{n}&tickets=1&capacity=1 => ok…
             0s a pegasus://b/next?id={n} => 10.0.0.{n} id={n}"
        ));
    }
    for n in 1..9 {
        story.tell(&format!("0s b pegasus://b/next?id={n}&wait=9s =>"));
    }
    let answers: Vec<_> = (1..9).map(|n| format!("b: 10.0.0.{n} id={n}")).collect();
    story.tell(&format!("0s a gone => {}", answers.join(" | ")));
}

#[test]
fn other_schedulers_from_now_on() {
    let mut story = told(
        "0s m pegasus://b/ticket?provider=10.0.0.1&tickets=4&capacity=4 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.2&tickets=4&capacity=4 => ok…
         0s r pegasus://b/next?id=1 => 10.0.0.1 id=1
         0s r pegasus://b/next?id=2 => 10.0.0.2 id=2",
    );
    story.schedule("fifo");
    story.tell(
        "0s ? service scheduler=fifo active=2
         0s r pegasus://b/next?id=3 => 10.0.0.1 id=3
         0s r pegasus://b/next?id=4 => 10.0.0.1 id=4
         0s r pegasus://b/next?id=5 => 10.0.0.1 id=5
         0s r pegasus://b/next?id=6 => 10.0.0.2 id=6",
    );
}

#[test]
fn monitors_hear_that_an_engine_leads_while_nobody_asks() {
    told(
        "0s a pegasus://b/ticket?provider=10.0.0.1&tickets=3&capacity=9 => ok…
         0s b pegasus://b/ticket?provider=10.0.0.2&tickets=1&capacity=9 \
             => ok active=0.000 granted=0 waiting=0 mode=slots…
         1s e pegasus://b/status?export=5s => queue…
         2s a pegasus://b/ticket?provider=10.0.0.1&tickets=3&capacity=9 \
             => ok active=0.000 granted=0 waiting=0 mode=engine now=0 ended=0 held=0.000ms \
                usual=0.000ms queued=0 share=1.500
         2s b pegasus://b/ticket?provider=10.0.0.2&tickets=3&capacity=9&weight=9 \
             => ok active=0.000 granted=0 waiting=0 mode=engine now=0 ended=0 held=0.000ms \
                usual=0.000ms queued=0 share=1.500
         6s a pegasus://b/ticket?provider=10.0.0.1&tickets=3&capacity=9 \
             => ok active=0.000 granted=0 waiting=0 mode=slots…
         7s e pegasus://b/status?service=other&export=5s => queue…
         7s a pegasus://b/ticket?provider=10.0.0.1&tickets=3&capacity=9 \
             => ok active=0.000 granted=0 waiting=0 mode=slots…
         7s e pegasus://b/status?service=default&export=1h => queue…
         7s r pegasus://b/next => 10.0.0.1
         8s a pegasus://b/ticket?provider=10.0.0.1&tickets=3&capacity=9 \
             => ok active=0.000 granted=1 waiting=0 mode=paper…
         17s a pegasus://b/ticket?provider=10.0.0.1&tickets=3&capacity=9 \
             => ok active=0.000 granted=0 waiting=0 mode=engine…",
    );
}

#[test]
fn a_request_that_runs_takes_little() {
    assert!(size_of::<RequestState>() <= 40);
}
