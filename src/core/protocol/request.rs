//! What hosts ask of a ticket queue: URLs, one a line.
//!
//! Owns the table of commands and parameters, to read and to write. Touches no
//! connection. Reading never panics, whatever the bytes.

use super::reply::{ErrorCode, ProtocolError};
use crate::base::decimal;
use crate::base::provider::{Provider, ProviderSpec};
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
        /// For so long, an engine leads the clients of the service by what this reader
        /// tells it: it grants nothing.
        export: Option<Span>,
    },
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

/// A command: its word, its parameters, and how a request is made of these.
struct Command {
    word: &'static str,
    parameters: &'static [&'static str],
    parse: fn(&Parameters) -> Result<Request, ProtocolError>,
}

/// All commands. [`Request::write`] has the other direction.
const COMMANDS: [Command; 8] = [
    Command {
        word: "ticket",
        parameters: &["provider", "service", "tickets", "capacity", "weight", "lease"],
        parse: |p| {
            Ok(Request::Ticket {
                provider: p.optional("provider", word)?.unwrap_or_default(),
                service: p.optional("service", word)?.unwrap_or_default(),
                tickets: p.required("tickets", tickets)?,
                capacity: p.required("capacity", tickets)?,
                weight: p.optional("weight", word)?,
                lease: p.optional("lease", word)?,
            })
        },
    },
    Command {
        word: "next",
        parameters: &["service", "wait", "id", "client", "avoid"],
        parse: |p| {
            Ok(Request::Next(Next {
                service: p.optional("service", word)?.unwrap_or_default(),
                wait: p.optional("wait", word)?.unwrap_or_default(),
                id: p.optional("id", id)?,
                client: p.optional("client", client)?,
                avoid: p.optional("avoid", avoid)?.unwrap_or_default(),
            }))
        },
    },
    Command {
        word: "failure",
        parameters: &["provider", "service", "id"],
        parse: |p| {
            Ok(Request::Failure {
                provider: p.required("provider", word)?,
                service: p.optional("service", word)?.unwrap_or_default(),
                id: p.optional("id", id)?,
            })
        },
    },
    Command {
        word: "done",
        parameters: &["id", "result", "unused"],
        parse: |p| {
            // The first version had `unused=yes` instead of `result=unused`.
            let unused = p.optional("unused", yes_or_no)?.unwrap_or_default();
            let otherwise = if unused { RequestResult::Unused } else { RequestResult::Good };
            Ok(Request::Done {
                id: p.required("id", id)?,
                result: p.optional("result", result)?.unwrap_or(otherwise),
            })
        },
    },
    Command {
        word: "withdraw",
        parameters: &["provider", "service"],
        parse: |p| {
            Ok(Request::Withdraw {
                provider: p.optional("provider", word)?.unwrap_or_default(),
                service: p.optional("service", word)?.unwrap_or_default(),
            })
        },
    },
    Command {
        word: "drain",
        parameters: &["provider", "service", "for"],
        parse: |p| {
            Ok(Request::Drain {
                provider: p.required("provider", word)?,
                service: p.optional("service", word)?,
                duration: p.optional("for", word)?,
            })
        },
    },
    Command {
        word: "resume",
        parameters: &["provider", "service"],
        parse: |p| {
            Ok(Request::Resume {
                provider: p.required("provider", word)?,
                service: p.optional("service", word)?,
            })
        },
    },
    Command {
        word: "status",
        parameters: &["service", "export"],
        parse: |p| {
            Ok(Request::Status {
                service: p.optional("service", word)?,
                export: p.optional("export", word)?,
            })
        },
    },
];

/// The words of all commands, for people.
const COMMAND_WORDS: &str = "ticket, next, failure, done, withdraw, drain, resume or status";

impl Request {
    /// Reads one line (without its end). An error is what to answer.
    pub fn parse(line: &[u8]) -> Result<Request, ProtocolError> {
        let bad_url = |why: &'static str| ProtocolError::new(ErrorCode::BadUrl, why);
        let text = std::str::from_utf8(line).map_err(|_| bad_url("not ASCII"))?;
        let url = Url::parse(text).map_err(bad_url)?;
        if !url.scheme.eq_ignore_ascii_case("pegasus") {
            return Err(bad_url("the scheme is not pegasus"));
        }
        let word = url.path.strip_prefix('/');
        let Some(command) = COMMANDS.iter().find(|command| word == Some(command.word)) else {
            return Err(ProtocolError::new(ErrorCode::UnknownCommand, COMMAND_WORDS));
        };
        (command.parse)(&Parameters::read(command.parameters, &url)?)
    }

    /// Writes it as a line, with its LF. `balancer` is the URL's host.
    pub fn write(&self, balancer: &dyn Display, line: &mut Vec<u8>) {
        let mut url = Query::of(balancer);
        match self {
            Request::Ticket { provider, service, tickets, capacity, weight, lease } => url
                .command("ticket")
                .unless_default("provider", provider)
                .unless_default("service", service)
                .always("tickets", tickets)
                .always("capacity", capacity)
                .if_some("weight", weight)
                .if_some("lease", lease),
            Request::Next(Next { service, wait, id, client, avoid }) => url
                .command("next")
                .unless_default("service", service)
                .unless_default("wait", wait)
                .if_some("id", id)
                .if_some("client", client)
                .unless_default("avoid", &List(avoid)),
            Request::Failure { provider, service, id } => url
                .command("failure")
                .unless_default("provider", provider)
                .unless_default("service", service)
                .if_some("id", id),
            Request::Done { id, result } => {
                let result = Some(result.word()).filter(|_| *result != RequestResult::Good);
                url.command("done").always("id", id).if_some("result", &result)
            }
            Request::Withdraw { provider, service } => url
                .command("withdraw")
                .unless_default("provider", provider)
                .unless_default("service", service),
            Request::Drain { provider, service, duration } => url
                .command("drain")
                .always("provider", provider)
                .if_some("service", service)
                .if_some("for", duration),
            Request::Resume { provider, service } => {
                url.command("resume").always("provider", provider).if_some("service", service)
            }
            Request::Status { service, export } => {
                url.command("status").if_some("service", service).if_some("export", export)
            }
        };
        line.extend_from_slice(url.text.as_bytes());
        line.push(b'\n');
    }
}

/// A URL that is being written.
struct Query {
    text: String,
    separator: char,
}

impl Query {
    fn of(balancer: &dyn Display) -> Query {
        let mut text = String::with_capacity(96);
        let _ = write!(text, "pegasus://{balancer}/");
        Query { text, separator: '?' }
    }

    fn command(&mut self, word: &str) -> &mut Query {
        self.text.push_str(word);
        self
    }

    fn always(&mut self, name: &str, value: &dyn Display) -> &mut Query {
        self.text.push(self.separator);
        self.separator = '&';
        let _ = write!(self.text, "{name}={}", Encoded(value));
        self
    }

    fn if_some<T: Display>(&mut self, name: &str, value: &Option<T>) -> &mut Query {
        match value {
            Some(value) => self.always(name, value),
            None => self,
        }
    }

    fn unless_default<T>(&mut self, name: &str, value: &T) -> &mut Query
    where
        T: Display + Default + PartialEq,
    {
        match *value == T::default() {
            true => self,
            false => self.always(name, value),
        }
    }
}

/// Providers with commas between them.
#[derive(Default, PartialEq)]
struct List<'a>(&'a [Provider]);

impl Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, provider) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{provider}")?;
        }
        Ok(())
    }
}

/// Why a value is wrong.
type Wrong = Cow<'static, str>;

/// A value whose notation belongs to its type.
fn word<T: FromStr<Err = &'static str>>(text: &str) -> Result<T, Wrong> {
    text.parse().map_err(Cow::Borrowed)
}

fn tickets(text: &str) -> Result<u32, Wrong> {
    number(text, 0, TICKETS_MAX)
}

fn id(text: &str) -> Result<u32, Wrong> {
    number(text, 1, u32::MAX)
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, Wrong> {
    decimal::parse_digits(text)
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("not a number from {least} to {most}").into())
}

fn client(text: &str) -> Result<IpAddr, Wrong> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "not an IP address".into())
}

fn avoid(list: &str) -> Result<Vec<Provider>, Wrong> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    if list.split(',').count() > AVOID_MAX {
        return Err("more than 16 providers".into());
    }
    list.split(',').map(word).collect()
}

fn yes_or_no(text: &str) -> Result<bool, Wrong> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("neither yes nor no".into()),
    }
}

fn result(text: &str) -> Result<RequestResult, Wrong> {
    let result = RequestResult::ALL.into_iter().find(|result| result.word() == text);
    result.ok_or("neither good, empty, reset nor unused".into())
}

fn bad_parameter(name: &str, why: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::BadParameter, format!("{name}: {why}"))
}

/// The most parameters of a command.
const PARAMETERS_MAX: usize = 8;

/// The parameters of one request, each at most once.
struct Parameters<'a> {
    names: &'static [&'static str],
    values: [Option<Cow<'a, str>>; PARAMETERS_MAX],
}

impl<'a> Parameters<'a> {
    fn read(names: &'static [&'static str], url: &Url<'a>) -> Result<Self, ProtocolError> {
        let mut parameters = Parameters { names, values: Default::default() };
        for pair in url.pairs() {
            let (name, value) =
                pair.map_err(|wrong| ProtocolError::new(ErrorCode::BadParameter, wrong))?;
            let place = parameters.place(&name).ok_or_else(|| unknown_parameter(&name))?;
            if parameters.values[place].replace(value).is_some() {
                return Err(bad_parameter(&name, "given twice"));
            }
        }
        Ok(parameters)
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| *known == name)
    }

    fn optional<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Result<Option<T>, ProtocolError> {
        let value = self.place(name).and_then(|place| self.values[place].as_deref());
        value.map(parse).transpose().map_err(|why| bad_parameter(name, &why))
    }

    fn required<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Result<T, ProtocolError> {
        self.optional(name, parse)?.ok_or_else(|| bad_parameter(name, "missing"))
    }
}

/// The name comes from the peer: it is shown only where it is a plain word.
fn unknown_parameter(name: &str) -> ProtocolError {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if name.len() <= 32 && name.bytes().all(plain) {
        bad_parameter(name, "no such parameter")
    } else {
        ProtocolError::new(ErrorCode::BadParameter, "no such parameter")
    }
}

#[cfg(test)]
mod tests {
    use super::super::mangled::mangle;
    use super::*;

    fn line(request: &Request) -> String {
        let mut line = Vec::new();
        request.write(&"127.0.0.1", &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn every_command_has_room_for_its_parameters() {
        assert!(COMMANDS.iter().all(|command| command.parameters.len() <= PARAMETERS_MAX));
    }

    #[test]
    fn an_unknown_command_is_answered_with_all_that_there_are() {
        let words = COMMANDS.map(|command| command.word);
        let (last, others) = words.split_last().unwrap();
        assert_eq!(COMMAND_WORDS, format!("{} or {last}", others.join(", ")));
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
            "pegasus://127.0.0.1/ticket?provider=10.0.0.7:80&service=web&tickets=25\
             &capacity=100&lease=5s",
            "pegasus://127.0.0.1/ticket?provider=%5B::1%5D:80&tickets=0&capacity=0",
            "pegasus://127.0.0.1/ticket?provider=:80&tickets=1&capacity=1000000&lease=250ms",
            "pegasus://127.0.0.1/next?service=web&wait=1s&id=4294967295&client=192.0.2.1\
             &avoid=10.0.0.7:80,%5B::1%5D:80",
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
    fn no_bytes_make_the_parser_panic_and_what_it_takes_it_writes() {
        let lines: &[&[u8]] = &[
            b"pegasus://[::1]:7347/next?service=web&wait=1.5s&id=4294967295&client=%5B::1%5D\
              &avoid=10.0.0.7:80,[::1]:80",
            b"pegasus://b/ticket?provider=%31:80&tickets=25&capacity=100&lease=5s",
            b"pegasus://b/done?id=7&unused=yes",
        ];
        mangle(lines, |bytes| {
            if let Ok(request) = Request::parse(bytes) {
                let written = line(&request);
                assert_eq!(Request::parse(written.trim_end().as_bytes()), Ok(request), "{written}");
            }
        });
    }
}
