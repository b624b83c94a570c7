//! The control messages: requests as URLs, answers as lines.
//!
//! Owns the table of commands, parameters and error words, and both
//! directions of each: parse and print. Touches no connection. Parsing never
//! panics, whatever the bytes.

use crate::base::address::{digits, Provider, ProviderSpec};
use crate::base::decimal::{self, Thousandths};
use crate::base::key_value;
use crate::base::service_name::ServiceName;
use crate::base::ticket::{Weight, TICKETS_MAX};
use crate::base::time::Span;
use crate::base::url::{Encoded, Url};
use std::borrow::Cow;
use std::fmt::{self, Display, Write};
use std::net::IpAddr;
use std::str::FromStr;

/// Providers that one `next` may ask to avoid.
pub const AVOID_MAX: usize = 16;

/// What a host asks of a ticket queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// TICKET_SP: a provider offers places. Replaces its earlier offer.
    Ticket {
        /// Who would serve; what is not written is the sender's address.
        provider: ProviderSpec,
        /// What it serves.
        service: ServiceName,
        /// Requests that would start at once.
        tickets: u32,
        /// Requests at once at the most; 0 withdraws.
        capacity: u32,
        /// The slots behind the offer, which order providers; the tickets if not written.
        weight: Option<Weight>,
        /// How long the offer holds; the queue's default if not written.
        lease: Option<Span>,
    },
    /// NEXT_SP: a redirector wants a provider.
    Next(Next),
    /// FAILURE_SP: a provider was found dead.
    Failure {
        /// Which.
        provider: ProviderSpec,
        /// Where it failed.
        service: ServiceName,
        /// The request that failed with it, if it had an id.
        id: Option<u32>,
    },
    /// A request that `next` with this id led to has ended.
    Done {
        /// The asker's number.
        id: u32,
        /// What the provider made of it.
        result: RequestResult,
    },
    /// A provider leaves; its running requests stay.
    Withdraw {
        /// Who; what is not written is the sender's address.
        provider: ProviderSpec,
        /// What it no longer serves.
        service: ServiceName,
    },
    /// Maintenance: a provider gets no new requests until it is resumed.
    Drain {
        /// Which provider; what is not written is the sender's address.
        provider: ProviderSpec,
        /// Only for this service; none: for every service that it offers here.
        service: Option<ServiceName>,
        /// The drain ends by itself after this time.
        duration: Option<Span>,
    },
    /// The end of a drain.
    Resume {
        /// Which provider; what is not written is the sender's address.
        provider: ProviderSpec,
        /// Only for this service; none: for every service.
        service: Option<ServiceName>,
    },
    /// What the queue holds, of all services or of one.
    Status {
        /// Only this one.
        service: Option<ServiceName>,
    },
}

/// The question for the next provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Next {
    /// Of which service.
    pub service: ServiceName,
    /// How long the asker is ready to wait; none: an answer at once.
    pub wait: Span,
    /// The asker's number for the request, which it will end with `done`.
    pub id: Option<u32>,
    /// Who wants to be served.
    pub client: Option<IpAddr>,
    /// Providers that the asker just found dead, at most [`AVOID_MAX`].
    pub avoid: Vec<Provider>,
}

/// The error words of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// Nobody has a place free.
    NoTicket,
    /// Too many wait already.
    Crowded,
    /// A bound of the queue is reached.
    Busy,
    /// This peer may not say this.
    Denied,
    /// Not a URL of the protocol.
    BadUrl,
    /// A parameter missing, unknown, twice or out of range.
    BadParameter,
    /// No such command.
    UnknownCommand,
    /// A line beyond the limit.
    TooLong,
    /// The queue is about to end.
    Draining,
}

impl ErrorCode {
    const ALL: [ErrorCode; 9] = [
        ErrorCode::NoTicket,
        ErrorCode::Crowded,
        ErrorCode::Busy,
        ErrorCode::Denied,
        ErrorCode::BadUrl,
        ErrorCode::BadParameter,
        ErrorCode::UnknownCommand,
        ErrorCode::TooLong,
        ErrorCode::Draining,
    ];

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            ErrorCode::NoTicket => "no-ticket",
            ErrorCode::Crowded => "crowded",
            ErrorCode::Busy => "busy",
            ErrorCode::Denied => "denied",
            ErrorCode::BadUrl => "bad-url",
            ErrorCode::BadParameter => "bad-parameter",
            ErrorCode::UnknownCommand => "unknown-command",
            ErrorCode::TooLong => "too-long",
            ErrorCode::Draining => "draining",
        }
    }
}

/// A request that cannot be met: the word, and perhaps an explanation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProtocolError {
    /// Which error.
    pub code: ErrorCode,
    /// One line for people; may be empty.
    pub explanation: Cow<'static, str>,
}

impl ProtocolError {
    /// An error with its explanation.
    pub fn new(code: ErrorCode, explanation: impl Into<Cow<'static, str>>) -> ProtocolError {
        ProtocolError { code, explanation: explanation.into() }
    }
}

/// How a queue's grants of a provider are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Grants come with `id` and end with `done`: a ticket is a place.
    #[default]
    Slots,
    /// Grants simply spend tickets, as in the paper.
    Paper,
}

/// How a counted request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RequestResult {
    /// The provider served it.
    #[default]
    Good,
    /// The client had sent something, and the provider ended without a byte.
    Empty,
    /// The provider reset the connection without a byte.
    Reset,
    /// It says nothing about the provider, which was perhaps never reached.
    Unused,
}

impl RequestResult {
    const ALL: [RequestResult; 4] =
        [RequestResult::Good, RequestResult::Empty, RequestResult::Reset, RequestResult::Unused];

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            RequestResult::Good => "good",
            RequestResult::Empty => "empty",
            RequestResult::Reset => "reset",
            RequestResult::Unused => "unused",
        }
    }
}

/// What a queue that counts requests knows of those of a provider.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Progress {
    /// Requests in progress now.
    pub now: u32,
    /// Requests that ended since the previous ticket message and were served.
    pub ended: u64,
    /// Their mean time, in seconds.
    pub held: f64,
    /// Their geometric mean time, in seconds: a few that stay do not change it.
    pub usual: f64,
}

/// What a queue tells a provider about itself since its previous ticket message.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Feedback {
    /// Mean requests in progress.
    pub active: f64,
    /// Grants.
    pub granted: u64,
    /// Requests of the service that had to wait or got an error.
    pub waiting: u64,
    /// How its grants are counted.
    pub mode: Mode,
    /// Of requests in progress and ended; a queue of the first version does not tell.
    pub progress: Option<Progress>,
    /// Another connection that is alive offers the same provider.
    pub contested: bool,
}

/// What a `drain` or `resume` left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DrainState {
    /// Services in which the provider is drained, or was resumed.
    pub services: u32,
    /// Requests in progress at the provider in these services.
    pub active: u64,
    /// The provider offers tickets in at least one of them.
    pub offering: bool,
}

/// What a ticket queue answers.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// Understood and done.
    Ok,
    /// To `ticket`.
    Feedback(Feedback),
    /// To `failure` and `withdraw`: so many free tickets are gone.
    Discarded(u64),
    /// To `drain` and `resume`.
    Drained(DrainState),
    /// To `next`.
    Provider {
        /// Who serves.
        provider: Provider,
        /// The asker's number.
        id: Option<u32>,
    },
    /// Not done.
    Error {
        /// Why.
        error: ProtocolError,
        /// The asker's number, if it asked `next` with one.
        id: Option<u32>,
    },
    /// To `status`: lines, each ended by LF, without the final dot.
    Status(String),
}

impl Request {
    /// Reads one line (without its end). An error is what to answer.
    pub fn parse(line: &[u8]) -> Result<Request, ProtocolError> {
        let bad = |explanation: &'static str| ProtocolError::new(ErrorCode::BadUrl, explanation);
        let text = std::str::from_utf8(line).map_err(|_| bad("not ASCII"))?;
        let url = Url::parse(text).map_err(bad)?;
        if !url.scheme.eq_ignore_ascii_case("pegasus") {
            return Err(bad("the scheme is not pegasus"));
        }
        let mut parameters = Parameters::default();
        let known: &[&str] = match url.path {
            "/ticket" => &["provider", "tickets", "capacity", "service", "lease", "weight"],
            "/next" => &["service", "wait", "id", "client", "avoid"],
            "/failure" => &["provider", "service", "id"],
            "/done" => &["id", "result", "unused"],
            "/withdraw" => &["provider", "service"],
            "/resume" => &["provider", "service"],
            "/drain" => &["provider", "service", "for"],
            "/status" => &["service"],
            _ => {
                return Err(ProtocolError::new(
                    ErrorCode::UnknownCommand,
                    "ticket, next, failure, done, withdraw, drain, resume or status",
                ))
            }
        };
        for pair in url.pairs() {
            let (name, value) =
                pair.map_err(|wrong| ProtocolError::new(ErrorCode::BadParameter, wrong))?;
            parameters.enter(known, &name, value)?;
        }
        let p = &parameters;
        Ok(match url.path {
            "/ticket" => Request::Ticket {
                provider: p.optional("provider")?.unwrap_or_default(),
                service: p.service()?,
                tickets: p.number("tickets")?,
                capacity: p.number("capacity")?,
                weight: p.optional("weight")?,
                lease: p.optional("lease")?,
            },
            "/next" => Request::Next(Next {
                service: p.service()?,
                wait: p.optional("wait")?.unwrap_or(Span::ZERO),
                id: p.id()?,
                client: match p.text("client") {
                    None => None,
                    Some(text) => {
                        Some(client(text).ok_or_else(|| wrong("client", "not an IP address"))?)
                    }
                },
                avoid: match p.text("avoid") {
                    None | Some("") => Vec::new(),
                    Some(list) => avoid(list).map_err(|why| wrong("avoid", why))?,
                },
            }),
            "/failure" => Request::Failure {
                provider: p.optional("provider")?.ok_or_else(|| wrong("provider", "missing"))?,
                service: p.service()?,
                id: p.id()?,
            },
            "/done" => Request::Done {
                id: p.id()?.ok_or_else(|| wrong("id", "missing"))?,
                result: p.result()?,
            },
            "/withdraw" => Request::Withdraw {
                provider: p.optional("provider")?.unwrap_or_default(),
                service: p.service()?,
            },
            "/drain" => Request::Drain {
                provider: p.optional("provider")?.ok_or_else(|| wrong("provider", "missing"))?,
                service: p.optional("service")?,
                duration: p.optional("for")?,
            },
            "/resume" => Request::Resume {
                provider: p.optional("provider")?.ok_or_else(|| wrong("provider", "missing"))?,
                service: p.optional("service")?,
            },
            _ => Request::Status { service: p.optional("service")? },
        })
    }

    /// Writes it as a line, with its LF. `balancer` is the URL's host.
    pub fn write(&self, balancer: &dyn Display, line: &mut Vec<u8>) {
        let mut url = String::with_capacity(96);
        let _ = write!(url, "pegasus://{balancer}/");
        let mut first = true;
        let mut add = |url: &mut String, name: &str, value: &dyn Display| {
            url.push(if first { '?' } else { '&' });
            first = false;
            let _ = write!(url, "{name}={}", Encoded(value));
        };
        let common = |url: &mut String,
                      add: &mut dyn FnMut(&mut String, &str, &dyn Display),
                      provider: &ProviderSpec,
                      service: &ServiceName| {
            if *provider != ProviderSpec::default() {
                add(url, "provider", provider);
            }
            if *service != ServiceName::DEFAULT {
                add(url, "service", service);
            }
        };
        match self {
            Request::Ticket { provider, service, tickets, capacity, weight, lease } => {
                url.push_str("ticket");
                common(&mut url, &mut add, provider, service);
                add(&mut url, "tickets", tickets);
                add(&mut url, "capacity", capacity);
                if let Some(weight) = weight {
                    add(&mut url, "weight", weight);
                }
                if let Some(lease) = lease {
                    add(&mut url, "lease", lease);
                }
            }
            Request::Next(next) => {
                url.push_str("next");
                common(&mut url, &mut add, &ProviderSpec::default(), &next.service);
                if !next.wait.is_zero() {
                    add(&mut url, "wait", &next.wait);
                }
                if let Some(id) = next.id {
                    add(&mut url, "id", &id);
                }
                if let Some(client) = next.client {
                    add(&mut url, "client", &client);
                }
                if let Some((first, rest)) = next.avoid.split_first() {
                    let list = rest
                        .iter()
                        .fold(first.to_string(), |list, provider| format!("{list},{provider}"));
                    add(&mut url, "avoid", &list);
                }
            }
            Request::Failure { provider, service, id } => {
                url.push_str("failure");
                common(&mut url, &mut add, provider, service);
                if let Some(id) = id {
                    add(&mut url, "id", id);
                }
            }
            Request::Done { id, result } => {
                url.push_str("done");
                add(&mut url, "id", id);
                if *result != RequestResult::Good {
                    add(&mut url, "result", &result.word());
                }
            }
            Request::Withdraw { provider, service } => {
                url.push_str("withdraw");
                common(&mut url, &mut add, provider, service);
            }
            Request::Drain { provider, service, duration } => {
                url.push_str("drain");
                add(&mut url, "provider", provider);
                if let Some(service) = service {
                    add(&mut url, "service", service);
                }
                if let Some(duration) = duration {
                    add(&mut url, "for", duration);
                }
            }
            Request::Resume { provider, service } => {
                url.push_str("resume");
                add(&mut url, "provider", provider);
                if let Some(service) = service {
                    add(&mut url, "service", service);
                }
            }
            Request::Status { service } => {
                url.push_str("status");
                if let Some(service) = service {
                    add(&mut url, "service", service);
                }
            }
        }
        line.extend_from_slice(url.as_bytes());
        line.push(b'\n');
    }
}

fn wrong(name: &str, why: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::BadParameter, format!("{name}: {why}"))
}

fn client(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

fn avoid(list: &str) -> Result<Vec<Provider>, &'static str> {
    if list.split(',').count() > AVOID_MAX {
        return Err("more than 16 providers");
    }
    list.split(',').map(str::parse).collect()
}

/// The parameters of one request, each at most once.
#[derive(Default)]
struct Parameters<'a> {
    values: [Option<(&'static str, Cow<'a, str>)>; 6],
}

impl<'a> Parameters<'a> {
    fn enter(
        &mut self,
        known: &'static [&'static str],
        name: &str,
        value: Cow<'a, str>,
    ) -> Result<(), ProtocolError> {
        let Some(place) = known.iter().position(|known| *known == name) else {
            // The name is a stranger's text: it is shown only where it is a plain word.
            let plain = name.len() <= 32
                && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
            return Err(if plain {
                wrong(name, "no such parameter")
            } else {
                ProtocolError::new(ErrorCode::BadParameter, "no such parameter")
            });
        };
        if self.values[place].is_some() {
            return Err(wrong(known[place], "given twice"));
        }
        self.values[place] = Some((known[place], value));
        Ok(())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.values
            .iter()
            .flatten()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_ref())
    }

    fn optional<T: FromStr<Err = &'static str>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, ProtocolError> {
        self.text(name).map(str::parse).transpose().map_err(|why| wrong(name, why))
    }

    fn service(&self) -> Result<ServiceName, ProtocolError> {
        Ok(self.optional("service")?.unwrap_or(ServiceName::DEFAULT))
    }

    fn digits(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, ProtocolError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let plain = text.bytes().all(|c| c.is_ascii_digit());
        match text.parse() {
            Ok(number) if plain && (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(wrong(name, &format!("not a number from {least} to {most}"))),
        }
    }

    fn number(&self, name: &str) -> Result<u32, ProtocolError> {
        self.digits(name, 0, TICKETS_MAX)?.ok_or_else(|| wrong(name, "missing"))
    }

    /// How a request ended. The first version had `unused=yes` instead of `result=unused`.
    fn result(&self) -> Result<RequestResult, ProtocolError> {
        let unused = match self.text("unused") {
            None | Some("no") => false,
            Some("yes") => true,
            Some(_) => return Err(wrong("unused", "neither yes nor no")),
        };
        let Some(word) = self.text("result") else {
            return Ok(if unused { RequestResult::Unused } else { RequestResult::Good });
        };
        let result = RequestResult::ALL.into_iter().find(|result| result.word() == word);
        result.ok_or_else(|| wrong("result", "neither good, empty, reset nor unused"))
    }

    fn id(&self) -> Result<Option<u32>, ProtocolError> {
        self.digits("id", 1, u32::MAX)
    }
}

impl Reply {
    /// An error without id.
    pub fn error(code: ErrorCode, explanation: impl Into<Cow<'static, str>>) -> Reply {
        Reply::Error { error: ProtocolError::new(code, explanation), id: None }
    }

    /// Writes it as a line with its LF (`status`: lines, then a dot).
    pub fn write(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        let _ = match self {
            Reply::Ok => out.write_all(b"ok"),
            Reply::Feedback(s) => {
                let mode = if s.mode == Mode::Slots { "slots" } else { "paper" };
                let active = Thousandths(s.active);
                let _ = write!(
                    out,
                    "ok active={active} granted={} waiting={} mode={mode}",
                    s.granted, s.waiting
                );
                if let Some(Progress { now, ended, held, usual }) = s.progress {
                    // Times in milliseconds, as durations are written.
                    let (held, usual) = (Thousandths(held * 1e3), Thousandths(usual * 1e3));
                    let _ = write!(out, " now={now} ended={ended} held={held}ms usual={usual}ms");
                }
                out.write_all(if s.contested { b" contested=yes" } else { b"" })
            }
            Reply::Discarded(tickets) => write!(out, "ok discarded={tickets}"),
            Reply::Drained(s) => {
                let offering = if s.offering { "yes" } else { "no" };
                write!(out, "ok services={} active={} offering={offering}", s.services, s.active)
            }
            Reply::Provider { provider, .. } => {
                provider.write(out);
                Ok(())
            }
            Reply::Error { error, .. } if error.explanation.is_empty() => {
                write!(out, "error {}", error.code.word())
            }
            Reply::Error { error, .. } => {
                write!(out, "error {} {}", error.code.word(), error.explanation)
            }
            Reply::Status(lines) => write!(out, "{lines}."),
        };
        if let Reply::Provider { id: Some(id), .. } | Reply::Error { id: Some(id), .. } = self {
            out.extend_from_slice(b" id=");
            digits(*id, out);
        }
        out.push(b'\n');
    }

    /// Reads an answer line (without its end) to anything but `status`.
    pub fn parse(line: &[u8]) -> Result<Reply, &'static str> {
        const WRONG: &str = "not an answer of a ticket queue";
        let text = std::str::from_utf8(line).map_err(|_| WRONG)?;
        let last =
            text.rsplit_once(' ').and_then(|(rest, word)| Some((rest, word.strip_prefix("id=")?)));
        let (rest, id) = match last {
            Some((rest, id)) => (rest, Some(id.parse().ok().filter(|id| *id != 0).ok_or(WRONG)?)),
            None => (text, None),
        };
        if let Some(error) = rest.strip_prefix("error ") {
            let (word, explanation) = error.split_once(' ').unwrap_or((error, ""));
            let code = ErrorCode::ALL.into_iter().find(|code| code.word() == word).ok_or(WRONG)?;
            return Ok(Reply::Error {
                error: ProtocolError::new(code, explanation.to_string()),
                id,
            });
        }
        if rest == "ok" {
            return Ok(Reply::Ok);
        }
        if let Some(pairs) = rest.strip_prefix("ok ") {
            return ok_pairs(pairs).ok_or(WRONG);
        }
        Ok(Reply::Provider { provider: rest.parse().map_err(|_| WRONG)?, id })
    }
}

fn ok_pairs(line: &str) -> Option<Reply> {
    if let Some(tickets) = key_value::find(line, "discarded") {
        return tickets.parse().ok().map(Reply::Discarded);
    }
    if let Some(services) = key_value::find(line, "services") {
        return Some(Reply::Drained(DrainState {
            services: services.parse().ok()?,
            active: key_value::find(line, "active")?.parse().ok()?,
            offering: key_value::find(line, "offering")? == "yes",
        }));
    }
    let active = decimal::parse(key_value::find(line, "active")?)?;
    let mode = match key_value::find(line, "mode")? {
        "slots" => Mode::Slots,
        "paper" => Mode::Paper,
        _ => return None,
    };
    Some(Reply::Feedback(Feedback {
        active,
        granted: key_value::find(line, "granted")?.parse().ok()?,
        waiting: key_value::find(line, "waiting")?.parse().ok()?,
        mode,
        progress: progress(line),
        contested: key_value::find(line, "contested") == Some("yes"),
    }))
}

fn progress(line: &str) -> Option<Progress> {
    let seconds = |key| {
        let span: Span = key_value::find(line, key)?.parse().ok()?;
        Some(span.as_secs_f64())
    };
    let held = seconds("held")?;
    Some(Progress {
        now: key_value::find(line, "now")?.parse().ok()?,
        ended: key_value::find(line, "ended")?.parse().ok()?,
        held,
        usual: seconds("usual").unwrap_or(held),
    })
}

impl Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        self.write(&mut line);
        f.write_str(String::from_utf8_lossy(&line).trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    fn line(request: &Request) -> String {
        let mut line = Vec::new();
        request.write(&"127.0.0.1", &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn the_papers_messages() {
        let next = Request::parse(b"pegasus://195.251.255.190/next").unwrap();
        assert_eq!(
            next,
            Request::Next(Next {
                service: ServiceName::DEFAULT,
                wait: Span::ZERO,
                id: None,
                client: None,
                avoid: vec![]
            })
        );
        let ticket = Request::parse(
            b"pegasus://195.251.255.190/ticket?provider=195.255.100.10&tickets=100&capacity=100",
        )
        .unwrap();
        let Request::Ticket { provider, tickets, capacity, .. } = &ticket else {
            panic!("{ticket:?}")
        };
        assert_eq!(
            (provider.to_string().as_str(), *tickets, *capacity),
            ("195.255.100.10", 100, 100)
        );
    }

    #[test]
    fn requests_round_trip() {
        for text in [
            "pegasus://127.0.0.1/ticket?provider=10.0.0.7:80&service=web&tickets=25&capacity=100&lease=5s",
            "pegasus://127.0.0.1/ticket?provider=%5B::1%5D:80&tickets=0&capacity=0",
            "pegasus://127.0.0.1/ticket?provider=:80&tickets=1&capacity=1000000&lease=250ms",
            "pegasus://127.0.0.1/next?service=web&wait=1s&id=4294967295&client=192.0.2.1&avoid=10.0.0.7:80,%5B::1%5D:80",
            "pegasus://127.0.0.1/failure?provider=10.0.0.7&id=7",
            "pegasus://127.0.0.1/done?id=7",
            "pegasus://127.0.0.1/done?id=7&result=empty",
            "pegasus://127.0.0.1/done?id=7&result=unused",
            "pegasus://127.0.0.1/ticket?tickets=3&capacity=1000000&weight=2.500&lease=5s",
            "pegasus://127.0.0.1/withdraw",
            "pegasus://127.0.0.1/drain?provider=10.0.0.7:80",
            "pegasus://127.0.0.1/drain?provider=%5B::1%5D:80&service=web&for=5m",
            "pegasus://127.0.0.1/resume?provider=10.0.0.7:80&service=web",
            "pegasus://127.0.0.1/status?service=web",
        ] {
            assert_eq!(line(&Request::parse(text.as_bytes()).unwrap()).trim_end(), text);
        }
    }

    #[test]
    fn the_first_version_is_still_understood() {
        let done = Request::parse(b"pegasus://b/done?id=7&unused=yes");
        assert_eq!(done, Ok(Request::Done { id: 7, result: RequestResult::Unused }));
        let standing = Reply::parse(b"ok active=1.5 granted=12 waiting=0 mode=slots more=yes");
        assert!(matches!(
            standing,
            Ok(Reply::Feedback(Feedback { granted: 12, progress: None, contested: false, .. }))
        ));
        let usual =
            Reply::parse(b"ok active=1.5 granted=12 waiting=0 mode=slots now=1 ended=2 held=35ms");
        let Ok(Reply::Feedback(Feedback { progress: Some(progress), .. })) = usual else {
            panic!("{usual:?}")
        };
        assert_eq!(
            (progress.now, progress.ended, progress.held, progress.usual),
            (1, 2, 0.035, 0.035)
        );
    }

    #[test]
    fn every_mistake_has_its_word() {
        for (text, code) in [
            ("", ErrorCode::BadUrl),
            ("next", ErrorCode::BadUrl),
            ("http://b/next", ErrorCode::BadUrl),
            ("pegasus://b/next\u{7f}", ErrorCode::BadUrl),
            ("pegasus://b/", ErrorCode::UnknownCommand),
            ("pegasus://b/next/", ErrorCode::UnknownCommand),
            ("pegasus://b/next?colour=red", ErrorCode::BadParameter),
            ("pegasus://b/next?id=0", ErrorCode::BadParameter),
            ("pegasus://b/next?id=+1", ErrorCode::BadParameter),
            ("pegasus://b/next?id=1&id=2", ErrorCode::BadParameter),
            ("pegasus://b/next?wait=soon", ErrorCode::BadParameter),
            ("pegasus://b/next?service=Web", ErrorCode::BadParameter),
            ("pegasus://b/next?client=web", ErrorCode::BadParameter),
            ("pegasus://b/next?id", ErrorCode::BadParameter),
            ("pegasus://b/ticket?tickets=1", ErrorCode::BadParameter),
            ("pegasus://b/ticket?tickets=1000001&capacity=1", ErrorCode::BadParameter),
            ("pegasus://b/ticket?tickets=-1&capacity=1", ErrorCode::BadParameter),
            ("pegasus://b/ticket?provider=web1&tickets=1&capacity=1", ErrorCode::BadParameter),
            ("pegasus://b/failure", ErrorCode::BadParameter),
            ("pegasus://b/drain", ErrorCode::BadParameter),
            ("pegasus://b/drain?provider=10.0.0.7&for=ever", ErrorCode::BadParameter),
            ("pegasus://b/resume?provider=10.0.0.7&for=5m", ErrorCode::BadParameter),
            ("pegasus://b/done", ErrorCode::BadParameter),
            ("pegasus://b/done?unused=yes", ErrorCode::BadParameter),
            ("pegasus://b/done?id=1&unused=perhaps", ErrorCode::BadParameter),
            ("pegasus://b/done?id=1&result=perhaps", ErrorCode::BadParameter),
            ("pegasus://b/ticket?tickets=1&capacity=1&weight=-1", ErrorCode::BadParameter),
            ("pegasus://b/ticket?tickets=1&capacity=1&weight=1000001", ErrorCode::BadParameter),
        ] {
            assert_eq!(Request::parse(text.as_bytes()).expect_err(text).code, code, "{text:?}");
        }
    }

    #[test]
    fn answers_round_trip() {
        for text in [
            "ok",
            "ok active=1.500 granted=12 waiting=0 mode=slots",
            "ok active=0.000 granted=1 waiting=3 mode=paper",
            "ok active=1.500 granted=12 waiting=0 mode=slots now=2 ended=11 held=35.125ms usual=20.000ms contested=yes",
            "ok discarded=100",
            "ok services=2 active=3 offering=yes",
            "10.0.0.7:80",
            "10.0.0.7",
            "[::1]:80 id=7",
            "error no-ticket",
            "error no-ticket id=4294967295",
            "error bad-parameter tickets: missing",
        ] {
            assert_eq!(Reply::parse(text.as_bytes()).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "okay",
            "ok colour=red",
            "error",
            "error whatever",
            "10.0.0.7:80 id=0",
            "web1",
            "ok active=NaN granted=1 waiting=3 mode=paper",
        ] {
            assert!(Reply::parse(bad.as_bytes()).is_err(), "{bad:?} was taken");
        }
    }

    /// Mangled messages, which reach deeper than noise does.
    #[test]
    fn no_bytes_make_a_parser_panic() {
        let given = std::env::var("PEGASUS_SEED").unwrap_or_default();
        let seed = u64::from_str_radix(given.trim_start_matches("0x"), 16).unwrap_or(0x7347);
        println!("replay: PEGASUS_SEED={seed:#x}");
        let mut random = Random::new(seed);
        let good: &[&[u8]] = &[
            b"pegasus://[::1]:7347/next?service=web&wait=1.5s&id=4294967295&client=%5B::1%5D&avoid=10.0.0.7:80,[::1]:80",
            b"pegasus://b/ticket?provider=%31:80&tickets=25&capacity=100&lease=5s",
            b"ok active=1.5 granted=12 waiting=0 mode=slots id=3",
        ];
        for _ in 0..100_000 {
            let mut line = good[random.below(good.len())].to_vec();
            for _ in 0..random.below(6) {
                let at = random.below(line.len());
                match random.below(3) {
                    0 => line[at] = random.bits() as u8,
                    1 => line.truncate(at + 1),
                    _ => line.insert(at, b"%&=?:/[]\xff\0,"[random.below(11)]),
                }
            }
            if let Ok(request) = Request::parse(&line) {
                let printed = super::tests::line(&request);
                assert_eq!(Request::parse(printed.trim_end().as_bytes()), Ok(request), "{printed}");
            }
            let _ = Reply::parse(&line);
        }
    }
}
