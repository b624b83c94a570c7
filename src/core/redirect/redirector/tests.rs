//! Stories of a redirector.
//!
//! A line is `TIME WHAT`, then perhaps `=> DEED | DEED`. What can happen:
//! `up`, `down`, `CLIENT arrived`, `told ANSWER` (with its id), `CLIENT
//! connected`, `CLIENT refused|timed-out|reset`, `CLIENT blocked|stuck|deferred|starts`, `CLIENT
//! gave-up`, `CLIENT closed`, `fallback ADDRESS …`, and `.` (time passes). Deeds: `say
//! MESSAGE`, `CLIENT connect ADDRESS`, `CLIENT reset`, `CLIENT gone
//! OUTCOME`, `PROVIDER failed`. Every deed since the line before must be there.

use super::*;
use crate::base::slab::Slab;
use crate::base::story::{steps, Step};
use crate::redirect::ticket_wait::TicketWait;

struct Story {
    redirector: Redirector,
    clients: Slab<String>,
    now: Moment,
    deeds: Vec<String>,
}

impl Story {
    fn new(options: RedirectOptions) -> Story {
        let redirector = Redirector::new(options);
        Story { redirector, clients: Slab::default(), now: Moment::ZERO, deeds: Vec::new() }
    }

    fn key(&self, name: &str) -> Key {
        self.clients.iter().find(|(_, service)| *service == name).map(|(key, _)| key).expect(name)
    }

    fn name(&self, key: Key) -> String {
        self.clients.get(key).expect("a client that is not gone").clone()
    }

    fn collect(&mut self) {
        while let Some(output) = self.redirector.poll_output() {
            let deed = match output {
                Output::SendToQueue(request) => {
                    let mut line = Vec::new();
                    request.write(&"b", &mut line);
                    let mut line = String::from_utf8(line).unwrap();
                    for usual in ["service=web&", "&service=web", "&client=192.0.2.1"] {
                        line = line.replace(usual, "");
                    }
                    format!("say {}", line.trim_end())
                }
                Output::Connect { client, to } => format!("{} connect {to}", self.name(client)),
                Output::AbortConnect { client } => format!("{} abort", self.name(client)),
                Output::ResetClient { client } => format!("{} reset", self.name(client)),
                Output::Log(RedirectLog::Closed { client, outcome, .. }) => {
                    // The port is the client's number.
                    let key = self.clients.key_at(usize::from(client.port())).unwrap();
                    format!("{} gone {outcome}", self.clients.remove(key).expect("gone once"))
                }
                Output::Log(RedirectLog::ProviderFailed { provider, .. }) => {
                    format!("{provider} failed")
                }
            };
            self.deeds.push(deed);
        }
    }

    fn tell(&mut self, script: &str) {
        for Step { line, at, event, expected } in steps(script) {
            while let Some(next) = self.redirector.next_timeout().filter(|next| *next <= at) {
                self.now = self.now.max(next);
                self.redirector.handle_timeout(self.now);
                self.collect();
            }
            self.now = at;
            if event != "." {
                self.happen(event);
            }
            self.collect();
            assert_eq!(std::mem::take(&mut self.deeds), expected, "{line}");
        }
    }

    fn happen(&mut self, event: &str) {
        let (who, what) = event.split_once(' ').unwrap_or((event, ""));
        let input = match (who, what) {
            ("up", _) => Input::QueueUp,
            ("down", _) => Input::QueueDown,
            ("told", line) => {
                let reply = Reply::parse(line.as_bytes()).unwrap();
                let id = line.rsplit_once("id=").unwrap().1.parse().unwrap();
                Input::QueueReply { id, reply }
            }
            ("fallback", list) => {
                let addresses =
                    list.split_whitespace().map(|address| address.parse().unwrap()).collect();
                Input::Fallback { service: "web".parse().unwrap(), addresses }
            }
            (name, "arrived") => {
                let client = self.clients.insert(name.to_string());
                let from = SocketAddr::new("192.0.2.1".parse().unwrap(), client.index() as u16);
                Input::Arrived { client, service: "web".parse().unwrap(), from, port: 8080 }
            }
            (name, what) => {
                let client = self.key(name);
                match what {
                    "connected" => Input::Connected { client },
                    "refused" => Input::ConnectFailed { client, why: Failure::Refused },
                    "timed-out" => Input::ConnectFailed { client, why: Failure::TimedOut },
                    "reset" => Input::ConnectFailed { client, why: Failure::Reset },
                    "blocked" => Input::ConnectBlocked { client },
                    "stuck" => Input::NoSocket { client },
                    "deferred" => Input::ConnectDeferred { client },
                    "starts" => Input::ConnectStarted { client },
                    "gave-up" => Input::ClientLeft { client },
                    "closed" => Input::Closed {
                        client,
                        outcome: Outcome::Complete,
                        result: RequestResult::Good,
                        local: None,
                        sent: 1,
                        received: 2,
                    },
                    _ => panic!("{event}"),
                }
            }
        };
        self.redirector.handle_input(input, self.now);
    }

    /// Everybody is gone, and nothing will wake it for ever.
    fn ends(mut self) {
        assert_eq!((self.redirector.count(), self.redirector.asked.len()), (0, 0));
        self.tell("10m .");
        assert_eq!(self.redirector.next_timeout(), None);
    }
}

fn told(script: &str) -> Story {
    let mut story = Story::new(RedirectOptions::default());
    story.tell(script);
    story
}

#[test]
fn a_clients_journey() {
    told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0.1s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0.2s a connected
         9m a closed => say pegasus://b/done?id=1 | a gone complete",
    )
    .ends();
}

#[test]
fn a_provider_without_port_has_the_one_that_the_client_came_to() {
    told(
        "0s up\n 0s a arrived => say pegasus://b/next?wait=1s&id=1\n 0s told [::1] id=1 \
        => a connect [::1]:8080",
    );
}

#[test]
fn a_provider_that_fails_is_reported_and_avoided() {
    told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0.1s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0.2s a refused => 10.0.0.1:80 failed \
             | say pegasus://b/failure?provider=10.0.0.1:80&id=1 \
             | say pegasus://b/next?wait=800ms&id=2&avoid=10.0.0.1:80
         0.3s told 10.0.0.2:80 id=2 => a connect 10.0.0.2:80
         0.4s a connected
         0.5s a reset => 10.0.0.2:80 failed | say pegasus://b/failure?provider=10.0.0.2:80&id=2 \
             | say pegasus://b/next?wait=500ms&id=3&avoid=10.0.0.1:80,10.0.0.2:80
         0.6s told error no-ticket id=3 => a reset | a gone nobody-left",
    )
    .ends();
}

#[test]
fn a_call_has_its_time_and_what_comes_too_late_changes_nothing() {
    let mut story = told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         2.999s .
         3s . => a abort | 10.0.0.1:80 failed \
             | say pegasus://b/failure?provider=10.0.0.1:80&id=1 \
             | say pegasus://b/next?id=2&avoid=10.0.0.1:80
         3.1s a refused
         3.1s a connected
         3.2s told 10.0.0.2:80 id=2 => a connect 10.0.0.2:80",
    );
    story.tell("3.3s a connected\n 4s a closed => say pegasus://b/done?id=2 | a gone complete");
    story.ends();
}

#[test]
fn tries_are_bounded() {
    let mut story = Story::new(RedirectOptions { tries: 2, ..RedirectOptions::default() });
    story.tell(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0s a refused => 10.0.0.1:80 failed | say pegasus://b/failure?provider=10.0.0.1:80&id=1 \
             | say pegasus://b/next?wait=1s&id=2&avoid=10.0.0.1:80
         0s told 10.0.0.2:80 id=2 => a connect 10.0.0.2:80
         0s a refused => 10.0.0.2:80 failed | say pegasus://b/failure?provider=10.0.0.2:80&id=2 \
             | a reset | a gone nobody-left",
    );
    story.ends();
}

#[test]
fn no_ticket_in_time_turns_away() {
    told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         1s told error no-ticket id=1 => a reset | a gone no-ticket
         1s b arrived => say pegasus://b/next?wait=1s&id=2
         1s told error crowded id=2 => b reset | b gone no-ticket
         1s c arrived => say pegasus://b/next?wait=1s&id=3
         1s told error denied you may not id=3 => c reset | c gone queue-refused",
    )
    .ends();
}

#[test]
fn a_queue_that_says_nothing_counts_as_unreachable_in_the_end() {
    told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         5.999s .
         6s . => say pegasus://b/done?id=1&result=unused | a reset | a gone queue-unreachable
         7s told 10.0.0.1:80 id=1",
    )
    .ends();
}

#[test]
fn clients_wait_for_a_queue_and_are_asked_for_in_the_order_they_came() {
    told(
        "0s a arrived
         0s b arrived
         1s down
         2s c arrived
         4s up => say pegasus://b/next?wait=1s&id=1 | say pegasus://b/next?wait=1s&id=2 \
             | say pegasus://b/next?wait=1s&id=3
         4.5s down
         4.6s told 10.0.0.1:80 id=1
         4.7s up => say pegasus://b/next?wait=1s&id=4 | say pegasus://b/next?wait=1s&id=5 \
             | say pegasus://b/next?wait=1s&id=6
         4.8s down
         4.999s .
         5s . => a reset | a gone queue-unreachable | b reset | b gone queue-unreachable
         7s . => c reset | c gone queue-unreachable",
    )
    .ends();
}

#[test]
fn repeated_bad_news_of_the_queue_lengthens_no_wait() {
    told(
        "0s fallback
         0s down
         0s a arrived
         2s down
         4s down
         5s . => a reset | a gone queue-unreachable",
    )
    .ends();
}

#[test]
fn running_clients_survive_the_queue_and_say_nothing_of_it_to_the_next() {
    told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0s b arrived => say pegasus://b/next?wait=1s&id=2
         0s told 10.0.0.1:80 id=2 => b connect 10.0.0.1:80
         0s b connected
         1s down
         1.1s up
         1.2s a refused => 10.0.0.1:80 failed | say pegasus://b/failure?provider=10.0.0.1:80 \
             | say pegasus://b/next?id=3&avoid=10.0.0.1:80
         1.3s b closed => b gone complete
         1.3s told error no-ticket id=3 => a reset | a gone nobody-left",
    )
    .ends();
}

#[test]
fn a_client_that_gives_up_gives_its_place_back() {
    told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0.1s a gave-up => a reset | say pegasus://b/done?id=1&result=unused | a gone gave-up
         0.2s told error no-ticket id=1
         0.3s b arrived => say pegasus://b/next?wait=1s&id=2
         0.4s told 10.0.0.1:80 id=2 => b connect 10.0.0.1:80
         0.5s b gave-up => b reset | say pegasus://b/done?id=2&result=unused | b gone gave-up
         0.6s c arrived => say pegasus://b/next?wait=1s&id=3
         0.7s told 10.0.0.1:80 id=3 => c connect 10.0.0.1:80
         0.7s c stuck => c reset | say pegasus://b/done?id=3&result=unused \
             | c gone out-of-sockets",
    )
    .ends();
}

#[test]
fn a_provider_that_cannot_be_reached_from_here_is_left_to_others() {
    told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0s a blocked => say pegasus://b/done?id=1&result=unused \
             | say pegasus://b/next?wait=1s&id=2&avoid=10.0.0.1:80
         0s told 10.0.0.2:80 id=2 => a connect 10.0.0.2:80
         0.1s a connected
         1s a closed => say pegasus://b/done?id=2 | a gone complete",
    )
    .ends();
}

#[test]
fn a_client_that_no_provider_can_be_reached_for_is_turned_away_without_a_failure() {
    told(
        "0s fallback 10.9.0.1:80 10.9.0.2:80
         0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0s told error no-ticket id=1 => a connect 10.9.0.1:80
         0s a blocked => a connect 10.9.0.2:80
         0s a blocked => a reset | a gone out-of-sockets",
    )
    .ends();
}

#[test]
fn without_a_ticket_or_a_queue_the_static_providers_serve_each_at_most_once() {
    told(
        "0s fallback 10.9.0.1:80 10.9.0.2:80
         0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0s told error no-ticket id=1 => a connect 10.9.0.1:80
         0s a refused => 10.9.0.1:80 failed | a connect 10.9.0.2:80
         0s a refused => 10.9.0.2:80 failed | a reset | a gone nobody-left
         1s b arrived => say pegasus://b/next?wait=1s&id=2
         1s down => b connect 10.9.0.2:80
         1s b connected
         1s c arrived => c connect 10.9.0.1:80
         2s up
         2s b closed => b gone complete
         2s c gave-up => c reset | c gone gave-up",
    )
    .ends();
}

#[test]
fn one_dead_static_provider_costs_nobody_the_live_one_however_many_come_together() {
    told(
        "0s fallback 10.9.0.1:80 10.9.0.2:80
         0s down
         0s a arrived => a connect 10.9.0.1:80
         0s b arrived => b connect 10.9.0.2:80
         0s c arrived => c connect 10.9.0.1:80
         0s a refused => 10.9.0.1:80 failed | a connect 10.9.0.2:80
         0s c refused => 10.9.0.1:80 failed | c connect 10.9.0.2:80
         0s d arrived => d connect 10.9.0.2:80",
    );
}

#[test]
fn a_fallback_is_not_asked_before_the_queue_was_tried() {
    told("0s fallback 10.9.0.1:80\n 0s a arrived\n 1s up => say pegasus://b/next?wait=1s&id=1");
    told("0s fallback 10.9.0.1:80\n 0s a arrived\n 5s . => a connect 10.9.0.1:80");
}

#[test]
fn a_queue_that_drains_is_asked_no_more_but_still_told_what_ended() {
    told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0s a connected
         0s b arrived => say pegasus://b/next?wait=1s&id=2
         0s c arrived => say pegasus://b/next?wait=1s&id=3
         1s told error draining id=2
         1s told error draining id=3
         1s d arrived
         2s a closed => say pegasus://b/done?id=1 | a gone complete
         3s down
         4s up => say pegasus://b/next?wait=1s&id=4 | say pegasus://b/next?wait=1s&id=5 \
             | say pegasus://b/next?wait=1s&id=6
         4s b gave-up => b reset | say pegasus://b/done?id=4&result=unused | b gone gave-up
         4s c gave-up => c reset | say pegasus://b/done?id=5&result=unused | c gone gave-up
         4s d gave-up => d reset | say pegasus://b/done?id=6&result=unused | d gone gave-up",
    )
    .ends();
}

fn prefetching_two() -> RedirectOptions {
    RedirectOptions { prefetch: PrefetchSize::Fixed(2), ..RedirectOptions::default() }
}

#[test]
fn places_asked_ahead_are_used_at_once_and_given_back_when_they_are_old() {
    let mut story = Story::new(prefetching_two());
    story.tell(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1 | say pegasus://b/next?id=2 \
             | say pegasus://b/next?id=3
         0s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0s told 10.0.0.1:80 id=2
         0s told 10.0.0.2:80 id=3
         0.1s a connected
         0.2s b arrived => b connect 10.0.0.1:80 | say pegasus://b/next?id=4
         0.25s . => say pegasus://b/done?id=3&result=unused
         0.25s told 10.0.0.2:80 id=4
         0.3s b refused => 10.0.0.1:80 failed \
             | say pegasus://b/failure?provider=10.0.0.1:80&id=2 | \
          say pegasus://b/next?wait=1s&id=5&avoid=10.0.0.1:80
         0.3s told error no-ticket id=5 => b reset | b gone nobody-left
         0.4s a closed => say pegasus://b/done?id=1 | a gone complete
         0.5s . => say pegasus://b/done?id=4&result=unused",
    );
    story.ends();
}

#[test]
fn places_asked_ahead_are_not_what_a_client_lacks() {
    let options = RedirectOptions { wait: Span::ZERO.into(), ..prefetching_two() };
    let mut story = Story::new(options);
    story.tell(
        "0s up
         0s a arrived => say pegasus://b/next?id=1 | say pegasus://b/next?id=2 \
             | say pegasus://b/next?id=3
         0s b arrived => say pegasus://b/next?id=4
         0s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0s told 10.0.0.1:80 id=2
         0s told error no-ticket id=3
         0s told error no-ticket id=4 => b connect 10.0.0.1:80
         0s c arrived => say pegasus://b/next?id=5 | say pegasus://b/next?id=6 \
             | say pegasus://b/next?id=7
         0s told error no-ticket id=5 => c reset | c gone no-ticket
         0s told error no-ticket id=6
         0s told error no-ticket id=7
         1s a connected
         1s b connected
         1s a closed => say pegasus://b/done?id=1 | a gone complete
         1s b closed => say pegasus://b/done?id=2 | b gone complete",
    );
    story.ends();
}

#[test]
fn places_of_a_provider_that_failed_are_given_back_and_a_lost_queue_takes_all_along() {
    let mut story = Story::new(prefetching_two());
    story.tell(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1 | say pegasus://b/next?id=2 \
             | say pegasus://b/next?id=3
         0s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0s told 10.0.0.1:80 id=2
         0s told 10.0.0.2:80 id=3
         0s a refused => 10.0.0.1:80 failed | say pegasus://b/failure?provider=10.0.0.1:80&id=1 | \
          say pegasus://b/done?id=2&result=unused \
             | say pegasus://b/next?wait=1s&id=4&avoid=10.0.0.1:80
         0s told 10.0.0.2:80 id=4 => a connect 10.0.0.2:80
         0s down
         0s up
         0s a closed => a gone complete",
    );
    story.ends();
}

#[test]
fn a_service_may_have_a_wait_of_its_own() {
    let own = vec![("web".parse().unwrap(), Span::from_secs(3))];
    let wait = TicketWait { usual: Span::ZERO, own };
    let options = RedirectOptions { wait, ..Default::default() };
    Story::new(options).tell("0s up\n 0s a arrived => say pegasus://b/next?wait=3s&id=1");
}

#[test]
fn where_it_matters_who_asks_nothing_is_asked_ahead() {
    let by_client = vec!["web".parse().unwrap()];
    let mut story = Story::new(RedirectOptions { by_client, ..prefetching_two() });
    story.tell("0s up\n 0s a arrived => say pegasus://b/next?wait=1s&id=1");
}

#[test]
fn a_call_waits_for_a_socket_and_nobody_is_blamed() {
    told(
        "0s up
         0.1s a arrived => say pegasus://b/next?wait=1s&id=1
         0.2s told 10.0.0.7:80 id=1 => a connect 10.0.0.7:80
         0.2s a deferred
         3.1s a starts
         3.1s a deferred
         3.3s . => a reset | say pegasus://b/done?id=1&result=unused | a gone out-of-sockets
         4s b arrived => say pegasus://b/next?wait=1s&id=2
         4s told 10.0.0.7:80 id=2 => b connect 10.0.0.7:80
         4s b deferred
         6.9s b starts
         8s b connected
         20s .",
    );
}

#[test]
fn after_four_thousand_million_requests_an_id_that_is_in_use_is_skipped() {
    let mut story = told(
        "0s up
         0s a arrived => say pegasus://b/next?wait=1s&id=1
         0s told 10.0.0.1:80 id=1 => a connect 10.0.0.1:80
         0s a connected",
    );
    story.redirector.next_id = u32::MAX - 1;
    story.tell(
        "1s b arrived => say pegasus://b/next?wait=1s&id=4294967295
         1s c arrived => say pegasus://b/next?wait=1s&id=2
         1s a closed => say pegasus://b/done?id=1 | a gone complete",
    );
}

#[test]
fn clients_that_are_relayed_are_small_and_keep_no_timers() {
    assert!(size_of::<Option<(Key, Client)>>() <= 120);
    let mut story = told("0s up");
    for id in 1..=2000 {
        story.tell(&format!(
            "0s {id} arrived => say pegasus://b/next?wait=1s&id={id}
             0s told 10.0.0.1:80 id={id} => {id} connect 10.0.0.1:80
             0s {id} connected"
        ));
    }
    let timers = story.redirector.timers.len();
    assert!(timers <= 1100, "{timers} timers");
    // Another provider has its time, although the first one's timer is gone.
    story.tell(
        "0.1s 1 reset => 10.0.0.1:80 failed | say pegasus://b/failure?provider=10.0.0.1:80&id=1 \
             | say pegasus://b/next?wait=900ms&id=2001&avoid=10.0.0.1:80
         0.2s told 10.0.0.2:80 id=2001 => 1 connect 10.0.0.2:80
         3.2s . => 1 abort | 10.0.0.2:80 failed \
             | say pegasus://b/failure?provider=10.0.0.2:80&id=2001 \
             | say pegasus://b/next?id=2002&avoid=10.0.0.1:80,10.0.0.2:80",
    );
}
