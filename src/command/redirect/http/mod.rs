//! HTTP requests that are answered with a redirect to the provider: `service_NAME_http`.
//!
//! Owns the visits of such clients from the first byte of a request to the last one of the
//! answer. A connection has one request, and ends with its answer: the client goes on to
//! the provider. Not responsible for sockets, nor for which provider that is.

mod request;

use super::proxy_protocol::Arrival;
use crate::config::settings::Settings;
use crate::net::tunnel::Tunnel;
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::provider::Provider;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::base::timer_queue::TimerQueue;
use pegasus_core::redirect::answers::Answer;
use pegasus_core::redirect::redirector::RedirectLog;
use request::{Refusal, Request, HEAD_BYTES_MAX};
use std::collections::{HashMap, HashSet};
use std::io;

/// How long a request may take to arrive, its answer to leave, and a client to hang up.
const REQUEST_TIMEOUT: Span = Span::from_secs(10);
const SEND_TIMEOUT: Span = Span::from_secs(10);
const LINGER_TIMEOUT: Span = Span::from_secs(2);
/// Bytes of a body that are read and thrown away, so that no reset destroys the answer.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What is to be done for a client.
#[derive(Debug)]
pub enum Step {
    /// Nothing, until there is more.
    Wait,
    /// Its request is here: it wants a provider.
    Ask(Arrival),
    /// It is over.
    Over(RedirectLog),
}

enum Phase {
    /// So many of the bytes were looked at.
    Reading(Vec<u8>, usize),
    Asking(Request),
    Answering(Vec<u8>, usize),
    /// So many bytes were thrown away.
    Lingering(usize),
}

struct Visit {
    arrival: Arrival,
    arrived: Moment,
    answered: Option<Moment>,
    phase: Phase,
    deadline: Moment,
    provider: Option<Provider>,
    outcome: Outcome,
    sent: u64,
    received: u64,
}

/// The clients that are redirected.
#[derive(Default)]
pub struct HttpRedirects {
    services: HashSet<ServiceName>,
    visits: HashMap<Key, Visit>,
    timers: TimerQueue<Key>,
}

impl HttpRedirects {
    /// No client yet; services as in these settings.
    pub fn new(settings: &Settings) -> HttpRedirects {
        let mut redirects = HttpRedirects::default();
        redirects.reconfigure(settings);
        redirects
    }

    /// Services as in these settings from now on.
    pub fn reconfigure(&mut self, settings: &Settings) {
        let redirected = settings.services.iter().filter(|service| service.http_redirect);
        self.services = redirected.map(|service| service.name).collect();
    }

    /// Whether clients of this service are redirected.
    pub fn includes(&self, service: ServiceName) -> bool {
        self.services.contains(&service)
    }

    /// A client came.
    pub fn begin(&mut self, key: Key, arrival: Arrival, tunnel: &mut Tunnel, now: Moment) {
        let visit = Visit {
            arrival,
            arrived: now,
            answered: None,
            phase: Phase::Reading(tunnel.take_unread(), 0),
            deadline: now + REQUEST_TIMEOUT,
            provider: None,
            outcome: Outcome::GaveUp,
            sent: 0,
            received: 0,
        };
        self.timers.schedule(visit.deadline, key);
        self.visits.insert(key, visit);
        let visits = &self.visits;
        self.timers.prune(|key| visits.contains_key(&key));
    }

    /// A client is gone.
    pub fn forget(&mut self, key: Key) -> bool {
        self.visits.remove(&key).is_some()
    }

    /// A client sent something, took something, or left.
    pub fn advance(&mut self, key: Key, tunnel: &mut Tunnel, now: Moment) -> Step {
        let Some(visit) = self.visits.get_mut(&key) else { return Step::Wait };
        let before = visit.deadline;
        let step = visit.advance(tunnel, now).unwrap_or_else(|_| Step::Over(visit.note(now)));
        if visit.deadline != before {
            self.timers.schedule(visit.deadline, key);
        }
        step
    }

    /// What came of a client's question for a provider; then [`advance`](Self::advance).
    pub fn answered(&mut self, key: Key, answer: &Answer, now: Moment) {
        let Some(visit) = self.visits.get_mut(&key) else { return };
        let Phase::Asking(request) = &visit.phase else { return };
        self.timers.schedule(now + SEND_TIMEOUT, key);
        let head_only = request.head_only;
        match answer {
            Answer::Providers(providers) => {
                let Some(provider) = providers.first() else { return };
                let bytes = request::redirect(provider.socket(visit.arrival.port), request);
                visit.provider = Some(*provider);
                visit.answer(bytes, Outcome::Complete, now);
            }
            Answer::Refused(outcome) => {
                visit.answer(Refusal::NoProvider.answer(head_only), *outcome, now);
            }
            Answer::OtherFamily | Answer::NoSuchHost => {
                visit.answer(Refusal::NoProvider.answer(head_only), Outcome::NoTicket, now);
            }
        }
    }

    /// A client whose time is over; then [`advance`](Self::advance), unless it is to be closed.
    pub fn pop_late(&mut self, now: Moment) -> Option<(Key, Option<RedirectLog>)> {
        while let Some(key) = self.timers.pop_due(now) {
            let Some(visit) = self.visits.get_mut(&key).filter(|visit| now >= visit.deadline)
            else {
                continue;
            };
            match &visit.phase {
                // One that sent nothing asked nothing.
                Phase::Reading(bytes, _) if !bytes.is_empty() => {
                    visit.answer(Refusal::Timeout.answer(false), Outcome::Idle, now);
                    self.timers.schedule(visit.deadline, key);
                    return Some((key, None));
                }
                Phase::Reading(..) | Phase::Answering(..) | Phase::Lingering(_) => {
                    return Some((key, Some(visit.note(now))));
                }
                // The answerer has a deadline of its own.
                Phase::Asking(_) => {}
            }
        }
        None
    }

    /// The line about a client that is closed now, for this reason unless it was served.
    pub fn end(&mut self, key: Key, outcome: Outcome, now: Moment) -> Option<RedirectLog> {
        let visit = self.visits.get_mut(&key)?;
        if visit.answered.is_none() {
            visit.outcome = outcome;
        }
        Some(visit.note(now))
    }

    /// When [`pop_late`](Self::pop_late) must be asked.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.timers.next_deadline()
    }
}

impl Visit {
    /// Does what can be done now.
    ///
    /// # Errors
    /// The connection is over.
    fn advance(&mut self, tunnel: &mut Tunnel, now: Moment) -> io::Result<Step> {
        if let Phase::Reading(..) = self.phase {
            match self.read(tunnel)? {
                None => return Ok(Step::Wait),
                Some(Ok(request)) => {
                    self.phase = Phase::Asking(request);
                    return Ok(Step::Ask(self.arrival));
                }
                Some(Err(refusal)) => self.answer(refusal.answer(false), Outcome::Complete, now),
            }
        }
        if let Phase::Answering(bytes, sent) = &mut self.phase {
            while *sent < bytes.len() {
                match tunnel.write_client(&bytes[*sent..])? {
                    0 => return Ok(Step::Wait),
                    count => {
                        *sent += count;
                        self.sent += count as u64;
                    }
                }
            }
            tunnel.end_client();
            self.phase = Phase::Lingering(0);
            self.deadline = now + LINGER_TIMEOUT;
        }
        self.linger(tunnel)
    }

    /// Reads of the request what is there; the request, once it is whole.
    ///
    /// # Errors
    /// The client left.
    fn read(&mut self, tunnel: &mut Tunnel) -> io::Result<Option<Result<Request, Refusal>>> {
        let Phase::Reading(bytes, seen) = &mut self.phase else { return Ok(None) };
        let mut buffer = [0; 2048];
        loop {
            // The head is parsed as a whole: once at its beginning, which shows what is no
            // request, and at its end.
            let from = seen.saturating_sub(3);
            let ends = |end: &[u8]| bytes[from..].windows(end.len()).any(|part| part == end);
            let is_due = *seen == 0 || bytes.len() >= HEAD_BYTES_MAX;
            if bytes.len() > *seen && (is_due || ends(b"\n\r\n") || ends(b"\n\n")) {
                match request::parse(bytes) {
                    Ok(Some(request)) => {
                        self.received = bytes.len() as u64;
                        return Ok(Some(Ok(request)));
                    }
                    Ok(None) => {}
                    Err(refusal) => {
                        self.received = bytes.len() as u64;
                        return Ok(Some(Err(refusal)));
                    }
                }
            }
            *seen = bytes.len();
            self.received = bytes.len() as u64;
            let room = HEAD_BYTES_MAX.saturating_sub(bytes.len()).min(buffer.len());
            match tunnel.read_client(&mut buffer[..room]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(&mut self, bytes: Vec<u8>, outcome: Outcome, now: Moment) {
        self.phase = Phase::Answering(bytes, 0);
        self.outcome = outcome;
        self.answered = Some(now);
        self.deadline = now + SEND_TIMEOUT;
    }

    /// Throws away what still comes.
    ///
    /// # Errors
    /// The client has closed the connection, or sends without end.
    fn linger(&mut self, tunnel: &mut Tunnel) -> io::Result<Step> {
        let Phase::Lingering(discarded) = &mut self.phase else { return Ok(Step::Wait) };
        let mut buffer = [0; 4096];
        loop {
            match tunnel.read_client(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    *discarded += count;
                    if *discarded > LINGER_BYTES_MAX {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Wait),
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&self, now: Moment) -> RedirectLog {
        RedirectLog::Closed {
            service: self.arrival.service,
            client: self.arrival.from,
            local: None,
            provider: self.provider,
            outcome: self.outcome,
            sent: self.sent,
            received: self.received,
            waited: self.answered.unwrap_or(now).since(self.arrived),
            lasted: now.since(self.arrived),
        }
    }
}
