//! The table of configuration keys: name, default, one sentence, and where the value
//! goes.
//!
//! Owns the table. The reader, the help and the sample file are made from it.

use super::settings::{load_sources, provider, QueueLocation, ServiceSettings, Settings};
use crate::logging::LogDestination;
use crate::net::load_sampler::LoadSource;
use crate::os::privileges;
use pegasus_core::base::cidr::Cidr;
use pegasus_core::base::endpoint::{ListenAddr, QueueAddr, Transport};
use pegasus_core::base::ticket::TICKETS_MAX;
use pegasus_core::base::time::Span;
use pegasus_core::protocol::proxy_header::Version;
use pegasus_core::redirect::redirector::PrefetchSize;
use std::str::FromStr;

/// One key.
pub struct Key {
    /// The key as written in a file; `NAME` stands for the service.
    pub name: &'static str,
    /// The default as written in a file; empty means unset.
    pub default: &'static str,
    /// One sentence for the help page and the sample file.
    pub summary: &'static str,
    /// Parses a value and stores it in its field.
    pub set: Setter,
    /// Whether setting it means that this host offers the service.
    pub offers: bool,
    /// How a running daemon takes a new value.
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

/// How a running daemon takes a new value.
pub enum Reload {
    /// At once.
    Live,
    /// At its next start. The function copies the value in force (from the second
    /// settings) into the fresh settings, and returns whether they differed.
    Restart(fn(&mut Settings, &Settings) -> bool),
}

fn keep<T: Clone + PartialEq>(fresh: &mut T, running: &T) -> bool {
    let differs = fresh != running;
    fresh.clone_from(running);
    differs
}

/// The section that applies to every command.
const COMMON: &str = "every command";

/// Copies into `fresh` the values that a daemon with the `running` settings cannot
/// change, and returns the keys that differed. `parts` are the titles of the sections
/// that the daemon uses.
pub fn keep_running(fresh: &mut Settings, running: &Settings, parts: &[&str]) -> Vec<&'static str> {
    let concerned =
        SECTIONS.iter().filter(|section| section.title == COMMON || parts.contains(&section.title));
    let mut differ = Vec::new();
    for key in concerned.flat_map(|section| section.keys) {
        if let Reload::Restart(keep) = key.reload {
            if keep(fresh, running) {
                differ.push(key.name);
            }
        }
    }
    differ
}

/// The function that stores a value.
pub enum Setter {
    /// Into the settings of the whole program.
    Global(fn(&mut Settings, &str) -> Result<(), String>),
    /// Into the settings of one service.
    Service(fn(&mut ServiceSettings, &str) -> Result<(), String>),
}
use Setter::{Global, Service};

/// Keys that belong together.
pub struct Section {
    /// The command that uses them.
    pub title: &'static str,
    /// The keys.
    pub keys: &'static [Key],
}

const fn global(
    name: &'static str,
    default: &'static str,
    summary: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Key {
    Key { name, default, summary, set: Global(set), offers: false, reload: Reload::Live }
}

const fn service(
    name: &'static str,
    default: &'static str,
    summary: &'static str,
    set: fn(&mut ServiceSettings, &str) -> Result<(), String>,
) -> Key {
    Key { name, default, summary, set: Service(set), offers: false, reload: Reload::Live }
}

fn parse_into<T>(field: &mut T, value: &str) -> Result<(), String>
where
    T: FromStr,
    T::Err: ToString,
{
    *field = value.parse().map_err(|wrong: T::Err| wrong.to_string())?;
    Ok(())
}

/// An empty value means unset.
fn put_option<T>(field: &mut Option<T>, value: &str) -> Result<(), String>
where
    T: FromStr,
    T::Err: ToString,
{
    *field = if value.is_empty() {
        None
    } else {
        Some(value.parse().map_err(|wrong: T::Err| wrong.to_string())?)
    };
    Ok(())
}

fn parse_list_into<T>(field: &mut Vec<T>, value: &str, least: usize) -> Result<(), String>
where
    T: FromStr,
    T::Err: ToString,
{
    let mut list = Vec::new();
    for word in value.split_whitespace() {
        list.push(
            word.parse().map_err(|wrong: T::Err| format!("`{word}` is {}", wrong.to_string()))?,
        );
    }
    *field = list;
    if field.len() < least {
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

fn parse_number_into(field: &mut usize, value: &str, least: usize) -> Result<(), String> {
    *field = number(value, least, 100_000_000)?;
    Ok(())
}

fn parse_span_into(field: &mut Span, value: &str, least: Span) -> Result<(), String> {
    parse_into(field, value)?;
    at_least(*field, least)
}

fn at_least(span: Span, least: Span) -> Result<(), String> {
    if span < least {
        return Err(format!("shorter than {least}"));
    }
    Ok(())
}

/// Control addresses: UDP is an error.
fn parse_listen_into(field: &mut Vec<ListenAddr>, value: &str, least: usize) -> Result<(), String> {
    parse_list_into(field, value, least)?;
    match field.iter().any(|listen| listen.transport == Transport::Udp) {
        true => Err("TCP only: leave out /udp".into()),
        false => Ok(()),
    }
}

/// Addresses of both transports: to choose one is an error, for the other would be open too.
fn parse_dns_listen_into(field: &mut Vec<ListenAddr>, value: &str) -> Result<(), String> {
    parse_list_into(field, value, 0)?;
    match value.contains('/') {
        true => Err("always UDP and TCP: leave out /udp and /tcp".into()),
        false => Ok(()),
    }
}

/// Refuses a value that needs a part which this program was built without.
fn part_of_program(built_in: bool, feature: &str, value: &str) -> Result<bool, String> {
    if built_in || value.is_empty() {
        return Ok(built_in);
    }
    Err(format!("this program was built without that (cargo feature `{feature}`)"))
}

fn parse_networks_into(field: &mut Vec<Cidr>, value: &str) -> Result<(), String> {
    parse_list_into(field, value, 0)
}

/// The table.
pub const SECTIONS: &[Section] = &[
    Section {
        title: COMMON,
        keys: &[
            global(
                "include",
                "",
                "Also read this file, or the *.conf files of a folder; repeatable.",
                |_, v| match v {
                    "" => Ok(()),
                    _ => Err("only a file can include others (-c FILE)".into()),
                },
            ),
            global(
                "log",
                "stderr",
                "Log to stderr, syslog, none or a file; to syslog if stderr is the client.",
                |s, v| {
                    s.log = v.parse::<LogDestination>()?;
                    Ok(())
                },
            ),
            global(
                "log_level",
                "info",
                "Log up to this level: error, warn, info, debug or trace.",
                |s, v| {
                    s.log_level = match v {
                        "error" | "warn" | "info" | "debug" | "trace" => {
                            v.parse().map_err(|_| "no such level")?
                        }
                        _ => return Err("no such level (error, warn, info, debug, trace)".into()),
                    };
                    Ok(())
                },
            ),
            global(
                "log_format",
                "text",
                "Log lines as text, or as json: one object a line.",
                |s, v| parse_into(&mut s.log_format, v),
            ),
            global(
                "pid_file",
                "",
                "File for the process id, from when the daemon is ready until it ends.",
                |s, v| {
                    s.pid_file = Some(v).filter(|path| !path.is_empty()).map(Into::into);
                    Ok(())
                },
            )
            .at_restart(|fresh, running| keep(&mut fresh.pid_file, &running.pid_file)),
            global(
                "user",
                "",
                "Run as this user or user:group once the ports are open (Unix).",
                |s, v| {
                    s.user = Some(v.to_string()).filter(|user| !user.is_empty());
                    s.user
                        .as_deref()
                        .map_or(Ok(()), privileges::check_user)
                        .map_err(|error| error.to_string())
                },
            )
            .at_restart(|fresh, running| keep(&mut fresh.user, &running.user)),
            global(
                "drain_timeout",
                "30s",
                "How long open connections may finish after SIGTERM or an upgrade.",
                |s, v| parse_into(&mut s.drain_timeout, v),
            ),
            global(
                "key_file",
                "",
                "Keys of encrypted control connections, see `pegasus help security`.",
                |s, v| {
                    s.key_file = Some(v.into()).filter(|_| !v.is_empty());
                    Ok(())
                },
            ),
            global(
                "sandbox",
                "off",
                "on: reach only files that are named here, run nothing; needs a restart.",
                |s, v| {
                    s.sandbox = match v {
                        "on" => true,
                        "off" => false,
                        _ => return Err("neither on nor off".into()),
                    };
                    Ok(())
                },
            )
            .at_restart(|fresh, running| keep(&mut fresh.sandbox, &running.sandbox)),
            #[cfg(feature = "admin")]
            global(
                "metrics_detail",
                "provider",
                "provider: each provider has its own metrics; service: sums of a service.",
                |s, v| {
                    s.metrics_per_provider = match v {
                        "provider" => true,
                        "service" => false,
                        _ => return Err("neither provider nor service".into()),
                    };
                    Ok(())
                },
            )
            .at_restart(|fresh, running| {
                keep(&mut fresh.metrics_per_provider, &running.metrics_per_provider)
            }),
        ],
    },
    Section {
        title: "queue",
        keys: &[
            global(
                "queue_listen",
                "127.0.0.1:7347",
                "Addresses on which the queue accepts control connections.",
                |s, v| parse_listen_into(&mut s.queue_listen, v, 1),
            )
            .at_restart(|fresh, running| keep(&mut fresh.queue_listen, &running.queue_listen)),
            global(
                "queue_scheduler",
                "competitive",
                "How a provider is chosen; see `pegasus help schedulers`.",
                |s, v| parse_into(&mut s.queue.scheduler, v),
            ),
            global(
                "queue_plugin_timeout",
                "50ms",
                "How long an exec: scheduler may take; then the default one chooses.",
                |s, v| parse_span_into(&mut s.queue.plugin_timeout, v, Span::from_millis(1)),
            ),
            global(
                "queue_lease",
                "30s",
                "How long tickets are valid if their message gives no lease.",
                |s, v| parse_into(&mut s.queue.lease, v),
            ),
            global(
                "queue_lease_max",
                "1h",
                "The longest lease; longer ones are cut, and the answer says so.",
                |s, v| parse_span_into(&mut s.queue.lease_max, v, Span::from_millis(1)),
            ),
            global(
                "queue_tickets_max",
                "1000000",
                "Most tickets of one provider; more are cut, and the answer says so.",
                |s, v| {
                    s.queue.tickets_max = number(v, 1, TICKETS_MAX as usize)? as u32;
                    Ok(())
                },
            ),
            global(
                "queue_source_providers_max",
                "64",
                "Most providers of a service that one other host may offer.",
                |s, v| parse_number_into(&mut s.queue.source_providers_max, v, 1),
            ),
            global(
                "queue_wait_max",
                "30s",
                "The longest time that a request may wait for a ticket.",
                |s, v| parse_into(&mut s.queue.wait_max, v),
            ),
            global(
                "queue_waiting_max",
                "10000",
                "Most requests that may wait for one service; more get an error.",
                |s, v| parse_number_into(&mut s.queue.waiting_max, v, 0),
            ),
            global("queue_connections_max", "4096", "Most control connections at once.", |s, v| {
                parse_number_into(&mut s.queue_connections_max, v, 1)
            }),
            global("queue_providers_max", "4096", "Most providers of one service.", |s, v| {
                parse_number_into(&mut s.queue.providers_max, v, 1)
            }),
            global("queue_services_max", "256", "Most services.", |s, v| {
                parse_number_into(&mut s.queue.services_max, v, 1)
            }),
            global(
                "queue_allow_ticket",
                "127.0.0.0/8 ::1",
                "Networks from which monitors may offer and withdraw tickets.",
                |s, v| parse_networks_into(&mut s.queue.allow_ticket, v),
            ),
            global(
                "queue_allow_next",
                "127.0.0.0/8 ::1",
                "Networks from which redirectors may ask for providers.",
                |s, v| parse_networks_into(&mut s.queue.allow_next, v),
            ),
            global(
                "queue_allow_status",
                "127.0.0.0/8 ::1",
                "Networks from which the status may be read.",
                |s, v| parse_networks_into(&mut s.queue.allow_status, v),
            ),
            global(
                "queue_allow_drain",
                "127.0.0.0/8 ::1",
                "Networks from which providers may be drained and resumed.",
                |s, v| parse_networks_into(&mut s.queue.allow_drain, v),
            ),
            #[cfg(feature = "admin")]
            global(
                "queue_admin",
                "",
                "Addresses for HTTP: a page, /metrics, /status, /status.json, /health.",
                |s, v| parse_listen_into(&mut s.queue_admin, v, 0),
            )
            .at_restart(|fresh, running| keep(&mut fresh.queue_admin, &running.queue_admin)),
        ],
    },
    Section {
        title: "redirect",
        keys: &[
            global(
                "redirect_queue",
                if cfg!(feature = "queue") { "" } else { "127.0.0.1:7347" },
                if cfg!(feature = "queue") {
                    "The queue to ask, or embedded. Unset: embedded; under inetd 127.0.0.1:7347."
                } else {
                    "The queue to ask: HOST or HOST:PORT. This program has none to embed."
                },
                |s, v| {
                    s.redirect_queue = match v {
                        "" => None,
                        "embedded" if cfg!(feature = "queue") => Some(QueueLocation::Embedded),
                        "embedded" => {
                            return Err(
                                "this program was built without the queue; name one: HOST:PORT"
                                    .into(),
                            )
                        }
                        address => Some(QueueLocation::Remote(address.parse::<QueueAddr>()?.0)),
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
                "How long clients wait for a queue that cannot be reached.",
                |s, v| parse_into(&mut s.redirect.queue_timeout, v),
            ),
            global(
                "redirect_threads",
                "auto",
                "Threads, each with an event loop; auto: one per usable CPU.",
                |s, v| {
                    s.redirect_threads = if v == "auto" { None } else { Some(number(v, 1, 1024)?) };
                    Ok(())
                },
            )
            .at_restart(|fresh, running| {
                keep(&mut fresh.redirect_threads, &running.redirect_threads)
            }),
            global(
                "redirect_wait",
                "1s",
                "How long a client may wait for a ticket; 0: not at all.",
                |s, v| parse_into(&mut s.redirect.wait.usual, v),
            ),
            global(
                "redirect_stock",
                "0",
                "Tickets to prefetch per service and thread: a number, 0: none, or auto.",
                |s, v| {
                    s.redirect.prefetch = match v {
                        "auto" => PrefetchSize::Auto,
                        count => PrefetchSize::Fixed(number(count, 0, 1024)? as u32),
                    };
                    Ok(())
                },
            ),
            global("redirect_tries", "4", "Most providers to try for one client.", |s, v| {
                s.redirect.tries = number(v, 1, 16)? as u32;
                Ok(())
            }),
            global(
                "redirect_connect_timeout",
                "3s",
                "How long a provider may take to accept a connection.",
                |s, v| parse_span_into(&mut s.redirect.connect_timeout, v, Span::from_millis(1)),
            ),
            global(
                "redirect_idle_timeout",
                "10m",
                "Close a connection after this time without a byte in either direction.",
                |s, v| parse_span_into(&mut s.redirect_idle_timeout, v, Span::from_millis(1)),
            ),
            global(
                "redirect_half_closed_timeout",
                "2m",
                "Close a half-closed connection after this time without a byte.",
                |s, v| {
                    parse_span_into(&mut s.redirect_half_closed_timeout, v, Span::from_millis(1))
                },
            ),
            global(
                "redirect_connections_max",
                "10000",
                "Most clients at once; more wait in the backlog.",
                |s, v| parse_number_into(&mut s.redirect_connections_max, v, 1),
            ),
            global(
                "redirect_per_source_max",
                "0",
                "Most clients at once of one IPv4 address or IPv6 /64; 0: no limit.",
                |s, v| parse_number_into(&mut s.redirect_per_source_max, v, 0),
            ),
            global(
                "redirect_flows_max",
                "16384",
                "Most UDP flows at once; beyond that the least recently active is dropped.",
                |s, v| parse_number_into(&mut s.redirect_flows_max, v, 1),
            ),
            global(
                "redirect_linger",
                "10s",
                "Under inetd `wait`: exit after this time without a client.",
                |s, v| parse_into(&mut s.redirect_linger, v),
            ),
            global(
                "redirect_accept_grace",
                "0",
                "After TERM go on accepting for this long, for load balancers in front.",
                |s, v| parse_into(&mut s.redirect_accept_grace, v),
            ),
            global(
                "redirect_splice",
                "auto",
                "auto: long streams are moved by the kernel with splice(2) (Linux); off.",
                |s, v| {
                    s.redirect_splice = match v {
                        "auto" => true,
                        "off" => false,
                        _ => return Err("neither auto nor off".into()),
                    };
                    Ok(())
                },
            )
            .at_restart(|fresh, running| {
                keep(&mut fresh.redirect_splice, &running.redirect_splice)
            }),
            #[cfg(feature = "admin")]
            global(
                "redirect_admin",
                "",
                "Addresses for HTTP, as queue_admin; a queue in this process is shown, too.",
                |s, v| parse_listen_into(&mut s.redirect_admin, v, 0),
            )
            .at_restart(|fresh, running| keep(&mut fresh.redirect_admin, &running.redirect_admin)),
            global(
                "redirect_dns",
                "",
                "Addresses that answer DNS questions with providers, over UDP and TCP.",
                |s, v| {
                    part_of_program(cfg!(feature = "dns"), "dns", v)?;
                    parse_dns_listen_into(&mut s.redirect_dns, v)
                },
            )
            .at_restart(|fresh, running| keep(&mut fresh.redirect_dns, &running.redirect_dns)),
            service(
                "service_NAME_listen",
                "",
                "Addresses for clients: IP:PORT, *:PORT or *:PORT-PORT, with /udp for UDP.",
                |s, v| parse_list_into(&mut s.listen, v, 0),
            )
            .at_restart(|fresh, running| {
                // A superserver opened the sockets; otherwise the new ones are opened.
                let listens = |settings: &Settings| -> Vec<_> {
                    settings
                        .services
                        .iter()
                        .map(|service| (service.name, service.listen.clone()))
                        .collect()
                };
                running.under_superserver && listens(fresh) != listens(running)
            }),
            service(
                "service_NAME_scheduler",
                "",
                "The scheduler of this service; unset: queue_scheduler.",
                |s, v| put_option(&mut s.scheduler, v),
            ),
            service(
                "service_NAME_wait",
                "",
                "How long its clients may wait for a ticket; unset: redirect_wait.",
                |s, v| put_option(&mut s.wait, v),
            ),
            service(
                "service_NAME_affinity",
                "off",
                "source: a client address stays with its provider; off: it does not.",
                |s, v| {
                    s.affinity = match v {
                        "source" => true,
                        "off" => false,
                        _ => return Err("neither source nor off".into()),
                    };
                    Ok(())
                },
            ),
            service(
                "service_NAME_affinity_timeout",
                "10m",
                "How long the affinity lasts after the client's last connection.",
                |s, v| parse_span_into(&mut s.affinity_timeout, v, Span::from_millis(1)),
            ),
            service(
                "service_NAME_proxy_protocol",
                "off",
                "Tell providers the client's address in a PROXY header: v1, v2 or off.",
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
                "service_NAME_proxy_unique_id",
                "off",
                "on: a PROXY header of v2 carries a UNIQUE_ID of the connection.",
                |s, v| {
                    s.proxy_unique_id = match v {
                        "on" => true,
                        "off" => false,
                        _ => return Err("neither on nor off".into()),
                    };
                    Ok(())
                },
            ),
            service(
                "service_NAME_accept_proxy",
                "",
                "Trusted front proxies: their PROXY header sets the client's address.",
                |s, v| parse_networks_into(&mut s.accept_proxy, v),
            ),
            service(
                "service_NAME_udp_idle",
                "30s",
                "A UDP flow ends after this time without a datagram.",
                |s, v| parse_span_into(&mut s.udp.idle, v, Span::from_millis(1)),
            ),
            service(
                "service_NAME_udp_replies",
                "0",
                "A UDP flow ends after this many replies per datagram (DNS: 1); 0: never.",
                |s, v| {
                    s.udp.replies = number(v, 0, 1_000_000)? as u32;
                    Ok(())
                },
            ),
            service(
                "service_NAME_udp_age",
                "1h",
                "A UDP flow ends at this age; the next datagram chooses a provider anew.",
                |s, v| parse_span_into(&mut s.udp.age, v, Span::from_millis(1)),
            ),
            service(
                "service_NAME_udp_flow",
                "on",
                "on: a client's datagrams form a flow; off: each is a request of its own.",
                |s, v| {
                    s.udp.per_datagram = match v {
                        "on" => false,
                        "off" => true,
                        _ => return Err("neither on nor off".into()),
                    };
                    Ok(())
                },
            ),
            service(
                "service_NAME_udp_port",
                "same",
                "Ports of a provider that may reply to a flow: same as asked, or any.",
                |s, v| {
                    s.udp.any_port = match v {
                        "same" => false,
                        "any" => true,
                        _ => return Err("neither same nor any".into()),
                    };
                    Ok(())
                },
            ),
            service(
                "service_NAME_fallback",
                "",
                "Static providers for when the queue has none or cannot be reached.",
                |s, v| parse_list_into(&mut s.fallback, v, 0),
            ),
            service(
                "service_NAME_http",
                "off",
                "redirect: answer HTTP requests with 307 to the provider, relay nothing; off.",
                |s, v| {
                    s.http_redirect = match v {
                        "redirect" => part_of_program(cfg!(feature = "http"), "http", v)?,
                        "off" => false,
                        _ => return Err("neither off nor redirect".into()),
                    };
                    Ok(())
                },
            ),
            service(
                "service_NAME_dns",
                "",
                "Names that redirect_dns answers with providers of this service.",
                |s, v| {
                    part_of_program(cfg!(feature = "dns"), "dns", v)?;
                    parse_list_into(&mut s.dns, v, 0)
                },
            ),
            service(
                "service_NAME_dns_ttl",
                "1",
                "How long such an answer may be cached, in whole seconds up to a day.",
                |s, v| {
                    parse_into(&mut s.dns_ttl, v)?;
                    let secs = s.dns_ttl.as_millis() / 1000;
                    if s.dns_ttl != Span::from_secs(secs) || secs > 86_400 {
                        return Err("not whole seconds up to a day (24h)".into());
                    }
                    Ok(())
                },
            ),
        ],
    },
    Section {
        title: "monitor",
        keys: &[
            global(
                "monitor_balancers",
                "127.0.0.1:7347",
                "Queues to send tickets to: HOST or HOST:PORT, separated by blanks.",
                |s, v| {
                    let mut balancers: Vec<QueueAddr> = Vec::new();
                    parse_list_into(&mut balancers, v, 1)?;
                    s.monitor_balancers =
                        balancers.into_iter().map(|balancer| balancer.0).collect();
                    Ok(())
                },
            ),
            global(
                "monitor_interval",
                "1s",
                "How often to measure the load, check services and send tickets.",
                |s, v| parse_span_into(&mut s.monitor_interval, v, Span::from_millis(10)),
            ),
            global(
                "monitor_load",
                "",
                "Sources: cpu loadavg psi file:PATH exec:COMMAND; unset: cpu, else loadavg.",
                |s, v| {
                    s.monitor_load =
                        if v.is_empty() { LoadSource::default_list() } else { load_sources(v)? };
                    Ok(())
                },
            ),
            #[cfg(feature = "admin")]
            global(
                "monitor_admin",
                "",
                "Addresses for HTTP: a page, /metrics, /status, /status.json, /health.",
                |s, v| parse_listen_into(&mut s.monitor_admin, v, 0),
            )
            .at_restart(|fresh, running| keep(&mut fresh.monitor_admin, &running.monitor_admin)),
            global(
                "monitor_agent",
                "",
                "Addresses that answer HAProxy's agent check (pegasus help monitor).",
                |s, v| parse_listen_into(&mut s.monitor_agent, v, 0),
            )
            .at_restart(|fresh, running| keep(&mut fresh.monitor_agent, &running.monitor_agent)),
            service(
                "service_NAME_provider",
                "",
                "The provider: IP:PORT, HOST:PORT or :PORT, the address the queue sees.",
                |s, v| {
                    (s.provider, s.provider_name) = match v {
                        "" => (None, None),
                        v => provider(v).map(|(address, name)| (Some(address), name))?,
                    };
                    Ok(())
                },
            )
            .offers(),
            service(
                "service_NAME_capacity",
                "auto",
                "Most requests in progress here, over all balancers; auto: no fixed limit.",
                |s, v| {
                    s.capacity = if v == "auto" {
                        None
                    } else {
                        Some(number(v, 1, TICKETS_MAX as usize)? as u32)
                    };
                    Ok(())
                },
            )
            .offers(),
            service(
                "service_NAME_check",
                "tcp",
                "Health check: tcp, tcp:PORT, http:PATH, http:PORT/PATH, exec:COMMAND or off.",
                |s, v| parse_into(&mut s.check, v),
            )
            .offers(),
            service(
                "service_NAME_check_interval",
                "",
                "Time between checks; unset: monitor_interval.",
                |s, v| {
                    put_option(&mut s.check_interval, v)?;
                    s.check_interval
                        .map_or(Ok(()), |interval| at_least(interval, Span::from_millis(10)))
                },
            ),
            service(
                "service_NAME_check_rise",
                "2",
                "Good checks in a row until tickets are offered again.",
                |s, v| {
                    s.rise = number(v, 1, 1000)? as u32;
                    Ok(())
                },
            ),
            service(
                "service_NAME_check_fall",
                "1",
                "Failed checks in a row until no more tickets are offered.",
                |s, v| {
                    s.fall = number(v, 1, 1000)? as u32;
                    Ok(())
                },
            ),
        ],
    },
];

/// All keys in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// What a file of keys is.
pub const INTRODUCTION: &str = "\
PEGASUS configuration: one KEY=VALUE a line, quoted as in sh; nothing is
expanded. Quote a value that contains blanks; lists are separated by blanks.
Durations: 250ms 30s 5m 2h. NAME is a service: a letter, then letters, digits
and _ (_ in a key is - in messages). One file may serve all commands. Every
key is shown with its default.";

/// The sample file: every key, commented out, at its default.
pub fn sample() -> String {
    let mut text: String = INTRODUCTION.lines().map(|line| format!("# {line}\n")).collect();
    for section in SECTIONS {
        text.push_str(&format!("\n# -- {} --\n", section.title));
        for key in section.keys {
            let quote = if key.default.contains(' ') { "\"" } else { "" };
            text.push_str(&format!(
                "\n# {}\n#{}={quote}{}{quote}\n",
                key.summary, key.name, key.default
            ));
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
        assert!(
            sample == super::sample(),
            "outdated: run `pegasus help config > conf/pegasus.conf`"
        );
    }
}
