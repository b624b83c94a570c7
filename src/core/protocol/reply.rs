//! What a ticket queue answers: a line each, but for `status`.
//!
//! Owns the error words and the notation of each reply, to read and to write.
//! Touches no connection. Reading never panics, whatever the bytes.

use crate::base::decimal::{self, append_digits, Thousandths};
use crate::base::key_value;
use crate::base::printable::printable;
use crate::base::provider::Provider;
use crate::base::time::Span;
use std::borrow::Cow;
use std::fmt::{self, Display};

/// The error words of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// No provider has a free slot.
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

    /// Whether it is about the one that asks, or the queue as a whole, not about one request.
    pub const fn refuses_peer(self) -> bool {
        use ErrorCode::{BadUrl, Busy, Denied, Draining, TooLong};
        matches!(self, Busy | Denied | Draining | BadUrl | TooLong)
    }

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
    /// No grants are asked for: another engine leads the clients by the weights.
    Engine,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Slots, Mode::Paper, Mode::Engine];

    /// The word on the wire.
    const fn word(self) -> &'static str {
        match self {
            Mode::Slots => "slots",
            Mode::Paper => "paper",
            Mode::Engine => "engine",
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
    /// Requests of the service that wait now.
    pub queued: u64,
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
    /// So many tickets were taken, because the offer had more than the queue allows.
    pub tickets_max: Option<u32>,
    /// The lease was cut to this.
    pub lease_max: Option<Span>,
    /// Where an engine leads the clients: the provider's weight beside the mean of all, or 0
    /// where none is led there.
    pub share: Option<f64>,
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
                let mode = s.mode.word();
                let active = Thousandths(s.active);
                let _ = write!(
                    out,
                    "ok active={active} granted={} waiting={} mode={mode}",
                    s.granted, s.waiting
                );
                if let Some(Progress { now, ended, held, usual, queued }) = s.progress {
                    // Times in milliseconds, as durations are written.
                    let (held, usual) = (Thousandths(held * 1e3), Thousandths(usual * 1e3));
                    let _ = write!(out, " now={now} ended={ended} held={held}ms usual={usual}ms");
                    let _ = write!(out, " queued={queued}");
                }
                if let Some(share) = s.share {
                    let _ = write!(out, " share={}", Thousandths(share));
                }
                if let Some(most) = s.tickets_max {
                    let _ = write!(out, " tickets_max={most}");
                }
                if let Some(most) = s.lease_max {
                    let _ = write!(out, " lease_max={most}");
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
            append_digits(*id, out);
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
                error: ProtocolError::new(code, printable(explanation)),
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
    let word = key_value::find(line, "mode")?;
    let mode = Mode::ALL.into_iter().find(|mode| mode.word() == word)?;
    Some(Reply::Feedback(Feedback {
        active,
        granted: key_value::find(line, "granted")?.parse().ok()?,
        waiting: key_value::find(line, "waiting")?.parse().ok()?,
        mode,
        progress: progress(line),
        contested: key_value::find(line, "contested") == Some("yes"),
        tickets_max: key_value::find(line, "tickets_max").and_then(|text| text.parse().ok()),
        lease_max: key_value::find(line, "lease_max").and_then(|text| text.parse().ok()),
        share: key_value::find(line, "share").and_then(decimal::parse),
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
        queued: key_value::find(line, "queued").and_then(|text| text.parse().ok()).unwrap_or(0),
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
    use super::super::mangled::mangle;
    use super::*;

    #[test]
    fn the_first_version_is_still_understood() {
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
    fn answers_round_trip() {
        for text in [
            "ok",
            "ok active=1.500 granted=12 waiting=0 mode=slots",
            "ok active=0.000 granted=1 waiting=3 mode=paper",
            "ok active=1.500 granted=12 waiting=0 mode=slots now=2 ended=11 held=35.125ms \
             usual=20.000ms queued=3 contested=yes",
            "ok active=0.000 granted=0 waiting=0 mode=slots tickets_max=9 lease_max=1h",
            "ok active=0.000 granted=0 waiting=0 mode=engine now=0 ended=0 held=0.000ms \
             usual=0.000ms queued=0 share=1.333",
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

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let lines: &[&[u8]] = &[
            b"ok active=1.5 granted=12 waiting=0 mode=slots id=3",
            b"[::1]:80 id=7",
            b"error bad-parameter tickets: missing id=4294967295",
        ];
        mangle(lines, |bytes| drop(Reply::parse(bytes)));
    }
}
