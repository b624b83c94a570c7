//! Stories of flows that another process began.

use super::*;

/// A flow of client `a` to 10.0.0.1:53.
fn adopted() -> Story {
    let mut story = Story::new(FlowLimits::default(), 100);
    story.tell("0s up");
    let mut old = told(
        FlowLimits::default(),
        "0s up
         0s a says x => say next?id=1
         0s b says x => say next?id=2
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x",
    );
    // `b` has no provider yet, and stays.
    let moved = old.flows.movable();
    let [(key, flow)] = moved[..] else { panic!("{moved:?}") };
    old.flows.moved(key, old.now);
    old.tell("0s . => a drops | say done?id=1 | a gone drained 0/1");
    let flow = flow.to_string().parse().unwrap();
    let key = story.flows.adopt(0, "dns".parse().unwrap(), 53, &flow, story.now).unwrap();
    story.open.insert(key, "a".to_string());
    story
}

#[test]
fn an_adopted_flow_goes_on_where_it_was_and_ends_like_any_other() {
    let mut story = adopted();
    let flow = story.flows.movable()[0].1;
    assert_eq!(story.flows.adopt(0, "dns".parse().unwrap(), 53, &flow, story.now), None);
    story.tell(
        "1s a says y => a to 10.0.0.1:53: y
         2s 10.0.0.1:53 answers a => a hears
         31s .
         32s . => a drops",
    );
    story.ends();
}

#[test]
fn an_adopted_flow_leaves_a_dead_provider() {
    let mut story = adopted();
    story.tell(
        "5s a says y => a to 10.0.0.1:53: y
         5s a refused => a probes 10.0.0.1:53: y
         5s a refused => a drops | say next?id=1
         5s told 10.0.0.2:53 id=1 => a to 10.0.0.2:53: y
         6s end => a drops | say done?id=1 | a gone drained 0/1",
    );
    story.ends();
}

#[test]
fn an_adopted_flow_leaves_a_provider_that_withdraws() {
    let mut story = adopted();
    story.tell(
        "1s . => look dns
         1s status queue 10.0.0.2:53=4
         2s . => look dns
         2s status queue 10.0.0.1:53=4 10.0.0.2:53=4
         3s . => look dns
         3s status queue 10.0.0.1:53=0 10.0.0.2:53=4 => a drops
         4s .",
    );
    story.ends();
}
