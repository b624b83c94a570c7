//! Every key of the configuration: its name, its default, its one sentence,
//! and where its value goes.
//!
//! Owns the one table that the reader, the help and the sample are made from.

use super::settings::{load_sources, QueueAt, ServiceSettings, Settings};
use crate::logging::Place;
use crate::net::gauge::Source;
use crate::os::user;
use pegasus_core::base::address::{Balancer, Cidr, Listen, Transport};
use pegasus_core::base::ticket::TICKETS_MAX;
use pegasus_core::base::time::Span;
use pegasus_core::wire::proxy::Version;
use std::str::FromStr;

type Outcome = Result<(), String>;

/// One key.
pub struct Key {
    /// As it is written; `NAME` stands for the service.
    pub name: &'static str,
    /// As it would be written; empty: none.
    pub default: &'static str,
    /// What it means.
    pub sentence: &'static str,
    /// Puts a value in its place.
    pub set: Set,
    /// A service that it is set for is one that this machine offers.
    pub offers: bool,
    /// What a running daemon does about a new value.
    pub reload: Reload,
}

impl Key {
    const fn offers(self) -> Key {
        Key { offers: true, ..self }
    }

    const fn at_restart(self, keep: fn(&mut Settings, &Settings) -> bool) -> Key {
        Key { reload: Reload::Restart(keep), ..self }
    }
}

/// What a running daemon does about a new value.
pub enum Reload {
    /// It takes the value at once.
    Live,
    /// It takes the value at its next start. This puts the value that it runs with
    /// (the second settings) back into the fresh ones, and answers whether they differ.
    Restart(fn(&mut Settings, &Settings) -> bool),
}

fn keep<T: Clone + PartialEq>(fresh: &mut T, running: &T) -> bool {
    let differs = fresh != running;
    fresh.clone_from(running);
    differs
}

/// The part of every command.
const COMMON: &str = "every command";

/// Puts back into `fresh` what a daemon that is `running` cannot change, and answers
/// the keys that differ there. Only those of these parts of the table concern it.
pub fn keep_running(fresh: &mut Settings, running: &Settings, parts: &[&str]) -> Vec<&'static str> {
    let concerned = PARTS.iter().filter(|part| part.title == COMMON || parts.contains(&part.title));
    let mut differ = Vec::new();
    for key in concerned.flat_map(|part| part.keys) {
        if let Reload::Restart(keep) = key.reload {
            if keep(fresh, running) {
                differ.push(key.name);
            }
        }
    }
    differ
}

/// Where a value goes.
pub enum Set {
    /// Into the settings of all.
    Global(fn(&mut Settings, &str) -> Outcome),
    /// Into those of one service.
    Service(fn(&mut ServiceSettings, &str) -> Outcome),
}
use Set::{Global, Service};

/// Keys that belong together.
pub struct Part {
    /// Whose keys they are.
    pub title: &'static str,
    /// The keys.
    pub keys: &'static [Key],
}

const fn global(
    name: &'static str,
    default: &'static str,
    sentence: &'static str,
    set: fn(&mut Settings, &str) -> Outcome,
) -> Key {
    Key { name, default, sentence, set: Global(set), offers: false, reload: Reload::Live }
}

const fn service(
    name: &'static str,
    default: &'static str,
    sentence: &'static str,
    set: fn(&mut ServiceSettings, &str) -> Outcome,
) -> Key {
    Key { name, default, sentence, set: Service(set), offers: false, reload: Reload::Live }
}

fn put<T>(place: &mut T, value: &str) -> Outcome
where
    T: FromStr,
    T::Err: ToString,
{
    *place = value.parse().map_err(|wrong: T::Err| wrong.to_string())?;
    Ok(())
}

/// An empty value is none.
fn put_option<T>(place: &mut Option<T>, value: &str) -> Outcome
where
    T: FromStr,
    T::Err: ToString,
{
    *place = if value.is_empty() { None } else { Some(value.parse().map_err(|wrong: T::Err| wrong.to_string())?) };
    Ok(())
}

fn put_list<T>(place: &mut Vec<T>, value: &str, least: usize) -> Outcome
where
    T: FromStr,
    T::Err: ToString,
{
    let mut list = Vec::new();
    for word in value.split_whitespace() {
        list.push(word.parse().map_err(|wrong: T::Err| format!("`{word}` is {}", wrong.to_string()))?);
    }
    *place = list;
    if place.len() < least {
        return Err("empty (a list separated by blanks)".into());
    }
    Ok(())
}

fn number(value: &str, least: usize, most: usize) -> Result<usize, String> {
    let plain = value.bytes().all(|c| c.is_ascii_digit());
    match value.parse() {
        Ok(number) if plain && (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("not a number from {least} to {most}")),
    }
}

fn put_number(place: &mut usize, value: &str, least: usize) -> Outcome {
    *place = number(value, least, 100_000_000)?;
    Ok(())
}

fn put_span(place: &mut Span, value: &str, least: Span) -> Outcome {
    put(place, value)?;
    at_least(*place, least)
}

fn at_least(span: Span, least: Span) -> Outcome {
    if span < least {
        return Err(format!("shorter than {least}"));
    }
    Ok(())
}

/// Of addresses where only streams are spoken.
fn put_listen(place: &mut Vec<Listen>, value: &str, least: usize) -> Outcome {
    put_list(place, value, least)?;
    match place.iter().find(|listen| listen.transport == Transport::Udp) {
        Some(_) => Err("control messages come by TCP only".into()),
        None => Ok(()),
    }
}

fn put_networks(place: &mut Vec<Cidr>, value: &str) -> Outcome {
    put_list(place, value, 0)
}

/// The table.
pub const PARTS: &[Part] = &[
    Part {
        title: COMMON,
        keys: &[
            global("log", "stderr", "stderr, syslog, none or a file; where stderr is a client, syslog", |s, v| {
                s.log = v.parse::<Place>()?;
                Ok(())
            }),
            global("log_level", "info", "error, warn, info, debug or trace", |s, v| {
                s.log_level = match v {
                    "error" | "warn" | "info" | "debug" | "trace" => v.parse().map_err(|_| "no such level")?,
                    _ => return Err("no such level (error, warn, info, debug, trace)".into()),
                };
                Ok(())
            }),
            global("user", "", "user or user:group to become once ports are bound (Unix)", |s, v| {
                s.user = Some(v.to_string()).filter(|user| !user.is_empty());
                s.user.as_deref().map_or(Ok(()), user::check).map_err(|error| error.to_string())
            })
            .at_restart(|fresh, running| keep(&mut fresh.user, &running.user)),
            global("drain_timeout", "30s", "at the end, how long connections may take to end by themselves", |s, v| {
                put(&mut s.drain_timeout, v)
            }),
        ],
    },
    Part {
        title: "queue",
        keys: &[
            global("queue_listen", "127.0.0.1:7347", "control addresses to listen on", |s, v| {
                put_listen(&mut s.queue_listen, v, 1)
            })
            .at_restart(|fresh, running| keep(&mut fresh.queue_listen, &running.queue_listen)),
            global("queue_scheduler", "competitive", "who is chosen; see `pegasus help schedulers`", |s, v| {
                put(&mut s.queue.scheduler, v)
            }),
            global("queue_plugin_timeout", "50ms", "how long an exec: scheduler may take for an answer", |s, v| {
                put_span(&mut s.queue.plugin_timeout, v, Span::from_millis(1))
            }),
            global("queue_lease", "30s", "how long tickets hold whose message gives no lease", |s, v| {
                put(&mut s.queue.lease, v)
            }),
            global("queue_wait_max", "30s", "the longest wait that a `next` may ask for", |s, v| {
                put(&mut s.queue.wait_max, v)
            }),
            global("queue_waiting_max", "10000", "waiting requests that a service may hold", |s, v| {
                put_number(&mut s.queue.waiting_max, v, 0)
            }),
            global("queue_connections_max", "4096", "control connections at once", |s, v| {
                put_number(&mut s.queue_connections_max, v, 1)
            }),
            global("queue_providers_max", "4096", "providers that a service may have", |s, v| {
                put_number(&mut s.queue.providers_max, v, 1)
            }),
            global("queue_services_max", "256", "services", |s, v| put_number(&mut s.queue.services_max, v, 1)),
            global("queue_allow_ticket", "127.0.0.0/8 ::1", "networks that may offer tickets and withdraw", |s, v| {
                put_networks(&mut s.queue.allow_ticket, v)
            }),
            global("queue_allow_next", "127.0.0.0/8 ::1", "networks that may ask for providers", |s, v| {
                put_networks(&mut s.queue.allow_next, v)
            }),
            global("queue_allow_status", "127.0.0.0/8 ::1", "networks that may ask for the status", |s, v| {
                put_networks(&mut s.queue.allow_status, v)
            }),
        ],
    },
    Part {
        title: "redirect",
        keys: &[
            global(
                "redirect_queue",
                if cfg!(feature = "queue") { "" } else { "127.0.0.1:7347" },
                if cfg!(feature = "queue") {
                    "the ticket queue to ask; not set: embedded, under a superserver 127.0.0.1:7347"
                } else {
                    "the ticket queue to ask; this program has none to embed"
                },
                |s, v| {
                    s.redirect_queue = match v {
                        "" => None,
                        "embedded" if cfg!(feature = "queue") => Some(QueueAt::Embedded),
                        "embedded" => {
                            return Err(
                                "this program was built without the queue (the address of one: HOST:PORT)".into()
                            )
                        }
                        address => Some(QueueAt::Target(address.parse::<Balancer>()?.0)),
                    };
                    Ok(())
                },
            )
            .at_restart(|fresh, running| {
                let differs = fresh.asked_queue() != running.asked_queue();
                keep(&mut fresh.redirect_queue, &running.redirect_queue);
                differs
            }),
            global(
                "redirect_queue_timeout",
                "5s",
                "how long clients wait for a queue that cannot be reached",
                |s, v| put(&mut s.redirect.queue_timeout, v),
            ),
            global("redirect_threads", "auto", "event loops; auto: as many as CPUs may be used", |s, v| {
                s.redirect_threads = if v == "auto" { None } else { Some(number(v, 1, 1024)?) };
                Ok(())
            })
            .at_restart(|fresh, running| keep(&mut fresh.redirect_threads, &running.redirect_threads)),
            global("redirect_wait", "1s", "how long a client may wait for a ticket; 0: not at all", |s, v| {
                put(&mut s.redirect.wait, v)
            }),
            global("redirect_stock", "0", "tickets asked ahead per service and thread, 250 ms at most", |s, v| {
                s.redirect.stock = number(v, 0, 1024)? as u32;
                Ok(())
            }),
            global("redirect_tries", "4", "providers to try for one client", |s, v| {
                s.redirect.tries = number(v, 1, 16)? as u32;
                Ok(())
            }),
            global("redirect_connect_timeout", "3s", "how long one try may take", |s, v| {
                put_span(&mut s.redirect.connect_timeout, v, Span::from_millis(1))
            }),
            global("redirect_idle_timeout", "10m", "ends a connection without a byte either way", |s, v| {
                put_span(&mut s.redirect_idle_timeout, v, Span::from_millis(1))
            }),
            global("redirect_half_closed_timeout", "2m", "the same after one direction ended", |s, v| {
                put_span(&mut s.redirect_half_closed_timeout, v, Span::from_millis(1))
            }),
            global("redirect_connections_max", "10000", "clients at once; more wait to be accepted", |s, v| {
                put_number(&mut s.redirect_connections_max, v, 1)
            }),
            global(
                "redirect_per_source_max",
                "0",
                "clients of one address (IPv6: /64) at once; 0: any number",
                |s, v| put_number(&mut s.redirect_per_source_max, v, 0),
            ),
            global("redirect_flows_max", "16384", "UDP flows at once; one more ends the most silent one", |s, v| {
                put_number(&mut s.redirect_flows_max, v, 1)
            }),
            global("redirect_linger", "10s", "under inetd `wait`: leaves after so long without a client", |s, v| {
                put(&mut s.redirect_linger, v)
            }),
            global(
                "redirect_splice",
                "auto",
                "auto: long streams pass through the system alone (Linux); off",
                |s, v| {
                    s.redirect_splice = match v {
                        "auto" => true,
                        "off" => false,
                        _ => return Err("neither auto nor off".into()),
                    };
                    Ok(())
                },
            )
            .at_restart(|fresh, running| keep(&mut fresh.redirect_splice, &running.redirect_splice)),
            service("service_NAME_listen", "", "addresses that its clients come to; /udp may follow", |s, v| {
                put_list(&mut s.listen, v, 0)
            })
            .at_restart(|fresh, running| {
                // A superserver opened the sockets; otherwise the new ones are opened.
                let listens = |settings: &Settings| -> Vec<_> {
                    settings.services.iter().map(|service| (service.name, service.listen.clone())).collect()
                };
                running.under_superserver && listens(fresh) != listens(running)
            }),
            service("service_NAME_scheduler", "", "its own scheduler, instead of queue_scheduler", |s, v| {
                put_option(&mut s.scheduler, v)
            }),
            service("service_NAME_affinity", "off", "source: a client's address keeps its provider; off", |s, v| {
                s.affinity = match v {
                    "source" => true,
                    "off" => false,
                    _ => return Err("neither source nor off".into()),
                };
                Ok(())
            }),
            service("service_NAME_affinity_timeout", "10m", "for so long after its last connection", |s, v| {
                put_span(&mut s.affinity_timeout, v, Span::from_millis(1))
            }),
            service(
                "service_NAME_proxy_protocol",
                "off",
                "v1, v2: providers are told the client's address; off",
                |s, v| {
                    s.proxy_protocol = match v {
                        "off" => None,
                        "v1" => Some(Version::V1),
                        "v2" => Some(Version::V2),
                        _ => return Err("neither off nor v1 nor v2".into()),
                    };
                    Ok(())
                },
            ),
            service(
                "service_NAME_accept_proxy",
                "",
                "networks of front proxies whose PROXY header tells it",
                |s, v| put_networks(&mut s.accept_proxy, v),
            ),
            service("service_NAME_udp_idle", "30s", "a flow of datagrams ends after this silence", |s, v| {
                put_span(&mut s.udp.idle, v, Span::from_millis(1))
            }),
            service("service_NAME_udp_replies", "0", "or after so many replies to each; 0: any; DNS: 1", |s, v| {
                s.udp.replies = number(v, 0, 1_000_000)? as u32;
                Ok(())
            }),
            service("service_NAME_udp_age", "1h", "or at this age; the next datagram is led anew", |s, v| {
                put_span(&mut s.udp.age, v, Span::from_millis(1))
            }),
            service("service_NAME_udp_flow", "on", "off: every datagram is a request of its own", |s, v| {
                s.udp.single = match v {
                    "on" => false,
                    "off" => true,
                    _ => return Err("neither on nor off".into()),
                };
                Ok(())
            }),
            service("service_NAME_fallback", "", "providers for when the queue has none or is away", |s, v| {
                put_list(&mut s.fallback, v, 0)
            }),
        ],
    },
    Part {
        title: "monitor",
        keys: &[
            global("monitor_balancers", "127.0.0.1:7347", "the ticket queues to send tickets to", |s, v| {
                let mut balancers: Vec<Balancer> = Vec::new();
                put_list(&mut balancers, v, 1)?;
                s.monitor_balancers = balancers.into_iter().map(|balancer| balancer.0).collect();
                Ok(())
            }),
            global("monitor_interval", "1s", "how often it looks, checks and sends", |s, v| {
                put_span(&mut s.monitor_interval, v, Span::from_millis(10))
            }),
            global(
                "monitor_load",
                "",
                "cpu loadavg psi file:PATH exec:COMMAND; cpu where the system tells it",
                |s, v| {
                    s.monitor_load = if v.is_empty() { Source::default_list() } else { load_sources(v)? };
                    Ok(())
                },
            ),
            service(
                "service_NAME_provider",
                "",
                "where it is: IP:PORT, IP or :PORT; else as the queue sees us",
                |s, v| put_option(&mut s.provider, v),
            )
            .offers(),
            service(
                "service_NAME_capacity",
                "auto",
                "most requests that run at once there; auto: found out",
                |s, v| {
                    s.capacity = if v == "auto" { None } else { Some(number(v, 1, TICKETS_MAX as usize)? as u32) };
                    Ok(())
                },
            )
            .offers(),
            service(
                "service_NAME_check",
                "tcp",
                "tcp or tcp:PORT: does it take a connection; exec:COMMAND; off",
                |s, v| put(&mut s.check, v),
            )
            .offers(),
            service("service_NAME_check_interval", "", "how often; else every monitor_interval", |s, v| {
                put_option(&mut s.check_interval, v)?;
                s.check_interval.map_or(Ok(()), |interval| at_least(interval, Span::from_millis(10)))
            }),
            service("service_NAME_check_rise", "2", "good checks in a row to come back", |s, v| {
                s.rise = number(v, 1, 1000)? as u32;
                Ok(())
            }),
            service("service_NAME_check_fall", "1", "bad checks in a row to leave", |s, v| {
                s.fall = number(v, 1, 1000)? as u32;
                Ok(())
            }),
        ],
    },
];

/// All keys in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Key> {
    PARTS.iter().flat_map(|part| part.keys)
}

/// The sample file: every key, commented out, at its default.
pub fn sample() -> String {
    let mut text = String::from(
        "# PEGASUS configuration: KEY=VALUE, one a line, valid sh; values with blanks\n\
         # are quoted, lists are separated by blanks. Durations: 250ms 30s 5m 2h.\n\
         # NAME is a service: a to z, then a-z 0-9 and _ (in messages -).\n\
         # One file may serve all commands. Every key is shown with its default.\n",
    );
    for part in PARTS {
        text.push_str(&format!("\n# -- {} --\n", part.title));
        for key in part.keys {
            let quote = if key.default.contains(' ') { "\"" } else { "" };
            text.push_str(&format!("\n# {}\n#{}={quote}{}{quote}\n", key.sentence, key.name, key.default));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    // A program without the queue has another default.
    #[cfg(feature = "queue")]
    #[test]
    fn the_sample_shows_every_key() {
        let sample = include_str!("../../conf/pegasus.conf");
        assert!(sample == super::sample(), "write conf/pegasus.conf anew: pegasus help config > conf/pegasus.conf");
    }
}
