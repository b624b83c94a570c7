//! Stories of flows that lose their provider together, or cannot reach it.

use super::*;

#[test]
fn what_is_heard_late_of_a_dead_provider_is_not_the_next_ones_fault() {
    let mut story = with_fallback(&["10.9.9.1:53", "10.9.9.2:53"]);
    story.tell(
        "0s up
         0s a says x => say next?id=1
         0s told error no-ticket id=1 => a to 10.9.9.1:53: x
         0s b says x => say next?id=2
         0s told 10.9.9.1:53 id=2 => b to 10.9.9.1:53: x",
    );
    story.tell("0s b refused => b probes 10.9.9.1:53: x");
    // The sockets of both report it before anything is done for one of them.
    for flow in ["b", "a"].map(|who| story.key(who)) {
        story.flows.handle_input(Input::ProviderUnreachable { flow }, story.now);
    }
    story.tell(
        "0s . => b drops | a drops | 10.9.9.1:53 failed | say failure?provider=10.9.9.1:53&id=2 \
            | say next?id=3&avoid=10.9.9.1:53 | 10.9.9.1:53 failed | a to 10.9.9.2:53: x
         0s told 10.0.0.2:53 id=3 => b to 10.0.0.2:53: x
         1s 10.9.9.2:53 answers a => a hears
         1s 10.0.0.2:53 answers b => b hears",
    );
}

#[test]
fn a_provider_to_whom_no_socket_can_be_opened_is_no_provider() {
    let mut story = told(FlowLimits::default(), "0s up\n0s a says x => say next?id=1");
    let reply = Reply::parse(b"240.0.0.1:53 id=1").unwrap();
    story.flows.handle_input(Input::QueueReply { id: 1, reply }, story.now);
    let Some(Output::Open { flow, .. }) = story.flows.poll_output() else {
        panic!("it is not opened")
    };
    story.flows.handle_input(Input::OpenFailed { flow }, story.now);
    story.tell(
        "0s . => 240.0.0.1:53 failed | say failure?provider=240.0.0.1:53&id=1 \
            | say next?id=2&avoid=240.0.0.1:53
         0s told 10.0.0.1:53 id=2 => a to 10.0.0.1:53: x
         9s end => a drops | say done?id=2 | a gone drained 0/1",
    );
    story.ends();
}

#[test]
fn one_refusal_proves_nothing() {
    told(
        FlowLimits::default(),
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         0.1s a refused => a probes 10.0.0.1:53: x
         0.2s 10.0.0.1:53 answers a => a hears
         0.3s a says y => a to 10.0.0.1:53: y
         0.4s a refused => a probes 10.0.0.1:53: y
         3.3s a says z => a to 10.0.0.1:53: z
         3.4s a refused => a probes 10.0.0.1:53: z
         4.3s a says z => a to 10.0.0.1:53: z
         5.3s a refused
         6s end => a drops | say done?id=1 | a gone drained 10/4",
    )
    .ends();
}

/// A sweep of forged errors over all ports of this host reaches each flow once.
#[test]
fn a_refusal_of_each_flow_is_not_the_death_of_their_provider() {
    told(
        FlowLimits::default(),
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         0s b says x => say next?id=2
         0s told 10.0.0.1:53 id=2 => b to 10.0.0.1:53: x
         0.1s a refused => a probes 10.0.0.1:53: x
         0.1s b refused => b probes 10.0.0.1:53: x
         1s 10.0.0.1:53 answers a => a hears
         1s end => a drops | b drops | say done?id=1 | a gone drained 10/1 | say done?id=2 \
             | b gone drained 0/1",
    )
    .ends();
}

#[test]
fn only_the_port_that_was_asked_may_reply() {
    told(
        FlowLimits::default(),
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         1s 10.0.0.1:4000 answers a
         1s 10.0.0.1:53 answers a => a hears
         2s a says y => a to 10.0.0.1:53: y
         3s end => a drops | say done?id=1 | a gone drained 10/2",
    )
    .ends();
    let mut story = Story::new(FlowLimits::default(), 100);
    story.tell("0s up");
    story.says("a", b"\0\x01file\0octet\0");
    story.tell("0s told 10.0.0.1:69 id=1 => say next?id=1 | a to 10.0.0.1:69: \0\x01file\0octet\0");
    story.tell("1s 10.0.0.1:4000 answers a => a hears");
    assert_eq!(story.says("a", b"ack"), Some("10.0.0.1:4000".parse().unwrap()));
}
