//! Stories of providers that leave.

use super::*;

#[test]
fn a_provider_that_withdraws_loses_its_flows_and_no_other_does() {
    told(
        FlowLimits::default(),
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         0s b says x => say next?id=2
         0s told 10.0.0.2:53 id=2 => b to 10.0.0.2:53: x
         1s . => look dns
         1s status queue 10.0.0.1:53=4 10.0.0.2:53=4
         2s . => look dns
         2.1s status queue 10.0.0.1:53=0 10.0.0.2:53=4 => a drops | say done?id=1 \
             | a gone withdrawn 0/1
         2.2s a says y => say next?id=3
         2.2s told 10.0.0.2:53 id=3 => a to 10.0.0.2:53: y
         3s . => look dns
         9s .
         9s status queue
         10s . => look dns
         10s status queue 10.0.0.3:53=1 => a drops | b drops | say done?id=3 \
             | a gone withdrawn 0/1 | say done?id=2 | b gone withdrawn 0/1",
    )
    .ends();
}

#[test]
fn a_queue_that_has_just_started_ends_no_flow() {
    told(
        FlowLimits::default(),
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         0.5s down
         0.6s up
         1.6s . => look dns
         1.6s status queue
         2.6s . => look dns
         2.6s status queue 10.0.0.1:53=0 10.0.0.2:53=4
         3.6s . => look dns
         3.6s status queue 10.0.0.1:53=4 10.0.0.2:53=4
         4.6s . => look dns
         4.6s status queue 10.0.0.2:53=4 => a drops | a gone withdrawn 0/1",
    );
}

#[test]
fn a_transfer_at_another_port_outlasts_its_providers_withdrawal() {
    told(
        FlowLimits { any_port: true, ..FlowLimits::default() },
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:69 id=1 => a to 10.0.0.1:69: x
         0.1s 10.0.0.1:4000 answers a => a hears
         1s . => look dns
         1s status queue 10.0.0.2:69=4
         1s a says ack => a to 10.0.0.1:4000: ack",
    );
}

#[test]
fn a_flow_that_fell_back_is_none_of_the_queues_business() {
    let mut story = with_fallback(&["10.9.9.9:53"]);
    story.tell(
        "0s up
         0s a says x => say next?id=1
         0s told error no-ticket id=1 => a to 10.9.9.9:53: x
         0.1s 10.9.9.9:53 answers a => a hears
         1s . => look dns
         1s status queue 10.0.0.2:53=4
         2s a says y => look dns | a to 10.9.9.9:53: y",
    );
}

#[test]
fn whoever_may_not_see_the_status_asks_once_a_connection() {
    told(
        FlowLimits { idle: Span::from_secs(3), ..FlowLimits::default() },
        "0s up
         0s a says x => say next?id=1
         0s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         1s . => look dns
         1s denied => blind
         2s b says x => say next?id=2
         2s told 10.0.0.1:53 id=2 => b to 10.0.0.1:53: x
         2.5s .
         2.5s down
         2.6s up
         3s . => a drops | a gone idle 0/1
         4s . => look dns
         4s denied
         9s . => b drops | b gone idle 0/1",
    )
    .ends();
}

#[test]
fn flows_that_last_for_a_moment_do_not_ask() {
    told(
        FlowLimits { replies: 1, ..FlowLimits::default() },
        "0s up
         0.5s a says x => say next?id=1
         0.5s told 10.0.0.1:53 id=1 => a to 10.0.0.1:53: x
         1s .
         1.2s 10.0.0.1:53 answers a => a hears | a drops | say done?id=1 | a gone complete 10/1
         3s b says x => say next?id=2
         3s told 10.0.0.1:53 id=2 => b to 10.0.0.1:53: x
         4s . => look dns
         4s 10.0.0.1:53 answers b => b hears | b drops | say done?id=2 | b gone complete 10/1",
    )
    .ends();
}
