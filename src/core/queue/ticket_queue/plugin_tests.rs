//! Stories of a queue that asks a program, and of clients that keep their
//! provider. The notation is that of `tests.rs`.

use super::tests::{tell, Story};
use super::*;

fn with_plugin(script: &str) -> Story {
    let scheduler = "exec:chooser".parse().unwrap();
    let mut story = tell(QueueOptions { scheduler, ..QueueOptions::default() }, "");
    story.tell(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=8 => ok…
         0s plugin up
         0s m pegasus://b/ticket?provider=10.0.0.2:80&tickets=2&capacity=8 \
             => plugin: ticket provider=10.0.0.2:80 tickets=2 capacity=8 \
                service=default | ok…",
    );
    story.tell(script);
    story
}

const BOTH: &str =
    "service=default candidates=10.0.0.1:80,10.0.0.2:80 tickets=2,2 capacity=8,8 active=0,0";

#[test]
fn a_program_chooses_where_there_is_a_choice() {
    let story = with_plugin(&format!(
        "1s r pegasus://b/next => plugin: next id=0 {BOTH}
         1s plugin advice id=0 provider=10.0.0.2:80 => r: 10.0.0.2:80
         1s r pegasus://b/next?id=9&client=192.0.2.1 => plugin: next id=1…
         1s plugin advice id=1 provider=10.0.0.2:80 => r: 10.0.0.2:80 id=9
         1s r pegasus://b/next => 10.0.0.1:80
         1s r pegasus://b/next => 10.0.0.1:80
         1s r pegasus://b/next => error no-ticket"
    ));
    assert_eq!(story.notes[0], "engage chooser");
}

#[test]
fn one_that_is_slow_lies_or_dies_costs_nobody_more_than_its_time() {
    with_plugin(&format!(
        "1s r pegasus://b/next => plugin: next id=0 {BOTH}
         1.049s . .
         1.05s . . => restart: it takes longer than queue_plugin_timeout | r: 10.0.0.1:80
         1.1s plugin advice id=0 provider=10.0.0.2:80
         1.1s r pegasus://b/next => 10.0.0.2:80
         2s plugin up
         2s r pegasus://b/next => plugin: next id=1…
         2s plugin advice id=1 provider=10.0.0.9:80 \
             => restart: it names providers that do not exist | r: 10.0.0.1:80"
    ));
    with_plugin(&format!(
        "1s r pegasus://b/next => plugin: next id=0 {BOTH}
         1s plugin advice what? => restart: it says what is no answer | r: 10.0.0.1:80
         2s plugin up
         2s r pegasus://b/next => plugin: next id=1…
         2s s pegasus://b/next => plugin: next id=2…
         2s plugin down => r: 10.0.0.2:80 | s: 10.0.0.1:80"
    ));
}

#[test]
fn an_answer_that_came_too_late_for_its_place_is_nobodys_fault() {
    with_plugin(&format!(
        "1s r pegasus://b/next => plugin: next id=0 {BOTH}
         1s s pegasus://b/next => plugin: next id=1 {BOTH}
         1s t pegasus://b/next => plugin: next id=2 {BOTH}
         1s plugin advice id=0 provider=10.0.0.2:80 => r: 10.0.0.2:80
         1s plugin advice id=1 provider=10.0.0.2:80 => s: 10.0.0.2:80
         1s plugin advice id=2 provider=10.0.0.2:80 => t: 10.0.0.1:80"
    ));
}

#[test]
fn who_leaves_while_a_program_thinks_is_forgotten_and_a_half_closed_asker_is_not() {
    with_plugin(&format!(
        "1s r pegasus://b/next => plugin: next id=0 {BOTH}
         1s r gone
         1s plugin advice id=0 provider=10.0.0.2:80
         1s s pegasus://b/next?id=4 => plugin: next id=1 {BOTH}
         1s s ended
         1s plugin advice id=1 provider=10.0.0.2:80 => s: 10.0.0.2:80 id=4
         1s t pegasus://b/next?id=5 => plugin: next id=2…
         1s t pegasus://b/done?id=5 => error no-ticket id=5 | ok
         1s ? queue waiting=0 forgotten=1"
    ));
}

#[test]
fn what_a_program_was_asked_that_is_configured_away_is_decided_at_once() {
    for after in ["fifo", "exec:other"] {
        let mut story = with_plugin(&format!("1s r pegasus://b/next => plugin: next id=0 {BOTH}"));
        story.schedule(after);
        // No program is blamed for it, when the time for the answer is over.
        story.tell("1s . . => r: 10.0.0.1:80\n 2s . .");
    }
}

#[test]
fn a_request_that_waits_for_advice_keeps_its_place_and_its_deadline() {
    // What was a candidate is none any more when the program fails.
    with_plugin(&format!(
        "1s r pegasus://b/next?wait=2s&id=1 => plugin: next id=0 {BOTH}
         1s m pegasus://b/withdraw?provider=10.0.0.1:80 => plugin: withdrew… | ok…
         1s m pegasus://b/withdraw?provider=10.0.0.2:80 => plugin: withdrew… | ok…
         1.01s s pegasus://b/next?wait=2s&id=1
         1.02s plugin down
         2s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 \
             => r: 10.0.0.1:80 id=1 | ok…
         2.9s r pegasus://b/next?wait=100ms&id=2
         3s . . => r: error no-ticket id=2
         3.01s . . => s: error no-ticket id=1"
    ));
    let slow = QueueOptions {
        scheduler: "exec:chooser".parse().unwrap(),
        plugin_timeout: Span::from_secs(10),
        ..QueueOptions::default()
    };
    tell(
        slow,
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 => ok…
         0s plugin up
         0s m pegasus://b/ticket?provider=10.0.0.2:80&tickets=1&capacity=1 => plugin: ticket… | ok…
         1s r pegasus://b/next?wait=200ms&id=1 => plugin: next…
         1.2s . . => r: 10.0.0.1:80 id=1",
    );
}

#[test]
fn a_service_that_nobody_offers_takes_no_place_and_starts_no_program() {
    let scheduler = "exec:chooser".parse().unwrap();
    let options = QueueOptions { scheduler, services_max: 1, ..QueueOptions::default() };
    let mut story = tell(options, "");
    for number in 0..UNOFFERED_MAX {
        story.tell(&format!("0s r pegasus://b/next?service=s{number}&wait=1s"));
    }
    assert!(story.notes.is_empty(), "{:?}", story.notes);
    story.tell(
        "0s r pegasus://b/next?service=more&wait=1s => error crowded
         0s m pegasus://b/ticket?provider=10.0.0.1&tickets=1&capacity=1&service=s3 \
             => r: 10.0.0.1 | ok…
         0s m pegasus://b/ticket?provider=10.0.0.1&tickets=1&capacity=1&service=web => error busy…
         0s r pegasus://b/next?service=more&wait=1s",
    );
    assert_eq!(story.notes[0], "engage chooser");
}

#[test]
fn a_ticket_that_was_spent_for_nobody_comes_back() {
    tell(
        QueueOptions::default(),
        "0s r pegasus://b/next?wait=5s
         1s r ended
         2s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=1&capacity=1 => r: 10.0.0.1:80 | ok…
         2s ? 10.0.0.1:80 free=0 spent=1
         2s r undelivered
         2s ? 10.0.0.1:80 free=1 spent=0
         2s s pegasus://b/next => 10.0.0.1:80
         3s r undelivered
         3s ? 10.0.0.1:80 free=0 spent=1",
    );
}

fn with_affinity(script: &str) -> Story {
    let affinities = ["default", "ftp"].map(|name| (name.parse().unwrap(), Span::from_secs(60)));
    tell(QueueOptions { affinities: affinities.to_vec(), ..QueueOptions::default() }, script)
}

#[test]
fn an_address_keeps_its_provider_as_long_as_that_accepts() {
    with_affinity(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=2&capacity=2&lease=10m => ok…
         0s m pegasus://b/ticket?provider=10.0.0.2:80&tickets=2&capacity=2&lease=10m => ok…
         0s r pegasus://b/next?id=1&client=192.0.2.1 => 10.0.0.1:80 id=1
         1s r pegasus://b/next?id=2&client=192.0.2.1 => 10.0.0.1:80 id=2
         1s r pegasus://b/next?id=3&client=192.0.2.1 => 10.0.0.2:80 id=3
         2s r pegasus://b/done?id=1 => ok
         2s r pegasus://b/next?id=4&client=192.0.2.1 => 10.0.0.2:80 id=4
         3s r pegasus://b/failure?provider=10.0.0.2:80&id=4 => ok…
         3s r pegasus://b/next?id=5&client=192.0.2.1 => 10.0.0.1:80 id=5",
    );
}

#[test]
fn it_is_forgotten_only_when_nothing_of_it_runs() {
    with_affinity(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=9&capacity=9&lease=10m => ok…
         0s m pegasus://b/ticket?provider=10.0.0.2:80&tickets=9&capacity=9&lease=10m => ok…
         0s r pegasus://b/next?id=1&client=192.0.2.1 => 10.0.0.1:80 id=1
         200s r pegasus://b/next?id=2&client=192.0.2.1 => 10.0.0.1:80 id=2
         200s r pegasus://b/done?id=1 => ok
         201s r pegasus://b/done?id=2 => ok
         260s r pegasus://b/next?id=3&client=192.0.2.1 => 10.0.0.1:80 id=3
         260s r pegasus://b/done?id=3 => ok
         320s r pegasus://b/next?id=4&client=192.0.2.1 => 10.0.0.2:80 id=4",
    );
}

#[test]
fn an_address_stays_on_one_machine_over_services() {
    with_affinity(
        "0s m pegasus://b/ticket?provider=10.0.0.1:80&tickets=9&capacity=9 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.2:80&tickets=9&capacity=9 => ok…
         0s m pegasus://b/ticket?provider=10.0.0.1:21&tickets=9&capacity=9&service=ftp => ok…
         0s m pegasus://b/ticket?provider=10.0.0.2:21&tickets=9&capacity=9&service=ftp => ok…
         0s r pegasus://b/next?id=1&client=192.0.2.9 => 10.0.0.1:80 id=1
         0s r pegasus://b/next?id=2&client=192.0.2.1 => 10.0.0.2:80 id=2
         0s r pegasus://b/next?id=3&client=192.0.2.1&service=ftp => 10.0.0.2:21 id=3
         0s r pegasus://b/next?id=4&client=192.0.2.9&service=ftp => 10.0.0.1:21 id=4",
    );
}
