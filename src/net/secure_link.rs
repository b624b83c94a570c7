//! An encrypted control connection, without its socket: bytes of the wire on one side,
//! protocol lines on the other.
//!
//! Owns the order of its steps: the first line, the handshake, records. Knows no message
//! and no cipher; which keys there are, and what they may, is not decided here.

#[cfg(feature = "secure")]
use super::noise;
#[cfg(not(feature = "secure"))]
#[path = "noise/none.rs"]
mod noise;

use noise::{Initiator, Session};
use pegasus_core::protocol::peer_key::{KeyName, KeyTable, PeerKey, Secret};
use pegasus_core::protocol::record::{self, RecordDecoder};
use pegasus_core::protocol::send_buffer::SendBuffer;
use std::io::{self, Read, Write};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

pub use noise::{random, BUILT_IN};

/// Bytes that a peer may send before its handshake is over.
const HANDSHAKE_BYTES_MAX: usize = 1024;

enum Phase {
    /// The client waits for the answer; gone while that is being read.
    Asked(Option<Box<Initiator>>),
    /// The server waits for the handshake of this name.
    Awaiting(KeyName),
    /// Lines may pass.
    Up(Session),
}

/// An encrypted control connection: bytes of the wire on one side, protocol lines on the other.
pub struct SecureLink {
    phase: Phase,
    /// The key of the client, once the server knows which one it is.
    key: Option<Arc<PeerKey>>,
    records: RecordDecoder,
    /// What is to be sent, encrypted.
    pub out: SendBuffer,
}

/// What a server's link came to.
pub enum Step {
    /// More must arrive.
    Wait,
    /// A handshake is due, and the budget of this turn is spent.
    OutOfBudget,
    /// Lines arrived, perhaps none: now the peer has proved that it has the key.
    Lines,
    /// The peer has no such key, or the bytes are not its own.
    Failed,
}

impl SecureLink {
    /// The client's side: it has the first line and message to send.
    ///
    /// # Errors
    /// The system has no randomness, or this program no cipher.
    pub fn connect(key: &PeerKey) -> io::Result<SecureLink> {
        let line = record::opening_line(key.name);
        let (initiator, message) = Initiator::start(line.as_bytes(), &key.secret)?;
        let mut link = SecureLink::new(Phase::Asked(Some(Box::new(initiator))));
        let out = link.out.tail();
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        record::write_length(message.len(), out);
        out.extend_from_slice(&message);
        Ok(link)
    }

    /// The server's side, of a connection that began with the line of this key.
    pub fn accept(name: KeyName) -> SecureLink {
        SecureLink::new(Phase::Awaiting(name))
    }

    fn new(phase: Phase) -> SecureLink {
        let (records, out) = Default::default();
        SecureLink { phase, key: None, records, out }
    }

    /// Whether lines may be sent.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }

    /// The client's key, as far as the server knows it.
    pub fn key(&self) -> Option<&Arc<PeerKey>> {
        self.key.as_ref()
    }

    /// The client's bytes from the wire; what they say is appended to `lines`.
    ///
    /// # Errors
    /// The connection is of no use any more, and why.
    pub fn receive(&mut self, bytes: &[u8], lines: &mut Vec<u8>) -> Result<(), &'static str> {
        self.records.push(bytes);
        loop {
            let is_up = self.is_up();
            let record = match self.records.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(()),
                Err(record::BadLength) if is_up => return Err("a forged record"),
                Err(record::BadLength) => {
                    return Err("it answers in plain: it has no keys, or is busy")
                }
            };
            match &mut self.phase {
                Phase::Up(session) => session.open(record, lines).ok_or("a forged record")?,
                Phase::Asked(initiator) => {
                    let session = initiator.take().and_then(|asked| asked.finish(record));
                    self.phase = Phase::Up(session.ok_or("it does not have this key")?);
                    // Empty: it shows that this side has the key, before there is a line.
                    self.send(&[]);
                }
                Phase::Awaiting(_) => return Err("not a client's connection"),
            }
        }
    }

    /// The server's bytes from the wire; then ask for a [`step`](SecureLink::step) until
    /// there is none.
    pub fn push(&mut self, bytes: &[u8]) {
        self.records.push(bytes);
    }

    /// The server's next step. Lines are appended to `lines`. Which `decoy` there is for a
    /// name that does not exist makes no difference, as long as no key has that secret.
    pub fn step(
        &mut self,
        keys: &KeyTable,
        decoy: &Secret,
        budget: &mut u32,
        lines: &mut Vec<u8>,
    ) -> Step {
        loop {
            if let (Phase::Awaiting(_), 0) = (&self.phase, *budget) {
                return Step::OutOfBudget;
            }
            let too_much = !self.is_up() && self.records.len() > HANDSHAKE_BYTES_MAX;
            let Ok(record) = self.records.next_record() else { return Step::Failed };
            if too_much {
                return Step::Failed;
            }
            let Some(record) = record else { return Step::Wait };
            match &mut self.phase {
                Phase::Up(session) => {
                    let opened = session.open(record, lines);
                    return opened.map_or(Step::Failed, |()| Step::Lines);
                }
                Phase::Awaiting(name) => {
                    *budget -= 1;
                    let name = *name;
                    let named: Vec<&Arc<PeerKey>> = keys.named(name).collect();
                    // As many attempts for every name: their number tells nothing.
                    let mut secrets: Vec<Secret> = named.iter().map(|key| key.secret).collect();
                    secrets.resize(keys.secrets_max().max(1), *decoy);
                    let line = record::opening_line(name);
                    let answer = noise::respond(line.as_bytes(), &secrets, record);
                    let Some((number, session, answer)) = answer else { return Step::Failed };
                    let Some(key) = named.get(number) else { return Step::Failed };
                    self.key = Some(Arc::clone(key));
                    self.phase = Phase::Up(session);
                    let out = self.out.tail();
                    record::write_length(answer.len(), out);
                    out.extend_from_slice(&answer);
                }
                Phase::Asked(_) => return Step::Failed,
            }
        }
    }

    /// Lines to send, when the link is up.
    pub fn send(&mut self, lines: &[u8]) {
        let Phase::Up(session) = &mut self.phase else { return };
        let out = self.out.tail();
        let mut rest = lines;
        loop {
            let (chunk, later) = rest.split_at(rest.len().min(record::PAYLOAD_BYTES_MAX));
            record::write_length(chunk.len() + record::TAG_BYTES, out);
            session.seal(chunk, out);
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Moves some of these lines out, at most one record, when nothing else is to be sent.
    pub fn send_some(&mut self, lines: &mut SendBuffer) {
        if !self.out.is_empty() || lines.is_empty() || !self.is_up() {
            return;
        }
        let count = lines.bytes().len().min(record::PAYLOAD_BYTES_MAX);
        self.send(&lines.bytes()[..count]);
        lines.sent(count);
    }
}

/// A blocking stream of lines over an encrypted connection.
pub struct SecureStream<S> {
    stream: S,
    link: SecureLink,
    lines: Vec<u8>,
    taken: usize,
}

impl<S: Read + Write> SecureStream<S> {
    /// Makes the handshake.
    ///
    /// # Errors
    /// Returns the OS error, or that the queue does not have this key.
    pub fn connect(stream: S, key: &PeerKey) -> io::Result<SecureStream<S>> {
        let link = SecureLink::connect(key)?;
        let mut secure = SecureStream { stream, link, lines: Vec::new(), taken: 0 };
        secure.flush()?;
        while !secure.link.is_up() {
            if secure.receive()? == 0 {
                let why = format!("the queue refused key {}", key.name);
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, why));
            }
        }
        secure.flush()?;
        Ok(secure)
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let count = self.stream.read(&mut buffer)?;
        self.link.receive(&buffer[..count], &mut self.lines).map_err(io::Error::other)?;
        Ok(count)
    }
}

impl<S: Read + Write> Read for SecureStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.lines.len() {
            self.lines.clear();
            self.taken = 0;
            if self.receive()? == 0 {
                return Ok(0);
            }
        }
        let count = (&self.lines[self.taken..]).read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

impl<S: Read + Write> Write for SecureStream<S> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.link.send(lines);
        self.flush()?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(self.link.out.bytes())?;
        self.link.out.sent(self.link.out.bytes().len());
        Ok(())
    }
}

/// After this time without randomness `waiting` is called.
const RANDOMNESS_PATIENCE: Duration = Duration::from_secs(1);

/// Waits until the system has randomness: early after the start of a small host there
/// may be none. If that takes long, `waiting` says so.
///
/// # Errors
/// The system has none, and will not.
pub fn await_randomness(waiting: impl FnOnce()) -> io::Result<()> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new().spawn(move || sender.send(random(&mut [0; 32])))?;
    receiver.recv_timeout(RANDOMNESS_PATIENCE).or_else(|_| {
        waiting();
        receiver.recv().map_err(io::Error::other)
    })?
}
