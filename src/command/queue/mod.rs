//! `pegasus queue`: the hands of the ticket queue.
//!
//! Owns the control connections of redirectors, monitors and scripts: their
//! sockets, their number, their idleness. What they ask is the machine's
//! business, and the order of answers the channel's.

mod shared;
mod start;

pub use shared::{Member, SharedQueue};
pub use start::{run, Embedded, Places};

use super::plugins::Plugins;
use crate::config::settings::Settings;
use crate::net::accept::{Came, Listeners};
use crate::net::drive::{Desk, Hands};
use crate::os::socket::SHORT_READ_DRAINS;
use log::{debug, info, warn};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::channel::Responder;
use pegasus_core::protocol::message::{ErrorCode, Reply};
use pegasus_core::queue::ticket_queue::{Input, Output};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

/// A connection with nothing active or waiting is closed after this silence.
const IDLE_MAX: Span = Span::from_secs(600);
/// How often idle connections are looked for.
const IDLE_SWEEP: Span = Span::from_secs(10);
/// When the queue is full, a connection that never asked anything may stay so
/// long before a newcomer takes its place.
const SILENT_MAX: Span = Span::from_secs(1);
/// How long a refused connection is kept, so that its error can be read.
const LINGER: Span = Span::from_secs(2);
/// Connections that are kept only for that.
const REFUSED_MAX: usize = 256;
/// Bytes read of a connection before others get their turn.
const READS: usize = 4;
const BUFFER_BYTES: usize = 16 * 1024;

/// What may be wanted of a running queue.
pub enum Order {
    /// End in good order; the second time at once.
    Terminate,
    /// Other options from now on.
    Reconfigure(Box<Settings>),
    /// A queue of another process takes the place of this one: whoever has a
    /// connection shall go there.
    HandOver,
}

struct Connection {
    stream: TcpStream,
    from: SocketAddr,
    channel: Responder,
    readable: bool,
    writable: bool,
    dirty: bool,
    /// It asked something.
    spoken: bool,
    /// An event told that there is an end to be read.
    told_end: bool,
    /// The peer has ended its side.
    ended: bool,
    last: Moment,
    /// It is over; what still comes is thrown away until then.
    linger: Option<Moment>,
}

struct Control {
    listeners: Listeners<()>,
    connections: Slab<Connection>,
    connections_max: usize,
    /// Something is to be sent to them, or they are over.
    dirty: Vec<Key>,
    /// They used up their budget.
    again: Vec<Key>,
    /// In order of arrival, who may never have asked anything.
    newcomers: VecDeque<Key>,
    refused: VecDeque<(Moment, TcpStream)>,
    plugins: Plugins,
    next_sweep: Moment,
    /// When draining: until when.
    ending: Option<Moment>,
    drain_timeout: Span,
    buffer: Vec<u8>,
    /// Of one request; kept for its memory.
    outputs: Vec<Output>,
}

/// Even tokens are connections, odd ones listeners.
fn token(number: usize, listener: bool) -> Token {
    Token(number * 2 + usize::from(listener))
}

impl Hands for Control {
    type Machine = SharedQueue;
    type Order = Order;

    fn ready(&mut self, event: &Event, machine: &mut SharedQueue, desk: &mut Desk) {
        let Token(number) = event.token();
        if number % 2 == 1 {
            return self.listeners.ready(number / 2);
        }
        let Some(key) = self.connections.key_at(number / 2) else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.told_end |= event.is_read_closed() || event.is_error();
        connection.readable |= event.is_readable() || connection.told_end;
        connection.writable |= event.is_writable();
        // After the peer's end a reset is no error to reading.
        if connection.ended && !matches!(connection.stream.take_error(), Ok(None)) {
            return self.lost(key, machine, desk);
        }
        self.serve(key, machine, desk);
    }

    fn act(&mut self, output: Output, machine: &mut SharedQueue, desk: &mut Desk) {
        match output {
            Output::Reply { connection, slot: order, reply } => {
                if let Reply::Error { error: refusal, .. } = &reply {
                    debug!(target: "queue", "error {} {}", refusal.code.word(), refusal.explanation);
                }
                if let Some(known) = self.connections.get_mut(connection) {
                    known.channel.reply(order, reply);
                    self.mark(connection);
                }
            }
            Output::StartPlugin { service, command } => {
                self.plugins.engage(service, command.as_deref(), desk.waker());
                // It is started when this turn is settled.
                desk.again = true;
            }
            Output::PluginSend { service, line } => {
                if let Some(input) = self.plugins.tell(service, line, desk.now) {
                    machine.handle_input(input, desk.now);
                }
            }
            Output::PluginOk { service } => self.plugins.heeded(service),
            Output::RestartPlugin { service, why } => self.plugins.restart(service, why, desk.now),
            Output::Log(note) => {
                info!(target: "queue", "{} service={} provider={}", note.event.word(), note.service, note.provider);
            }
        }
    }

    fn order(&mut self, order: Order, machine: &mut SharedQueue, desk: &mut Desk) {
        match order {
            Order::Terminate if self.ending.is_some() => self.ending = Some(desk.now),
            Order::Terminate => {
                info!(target: "queue", "draining");
                self.listeners.close();
                self.ending = Some(desk.now + self.drain_timeout);
                machine.handle_input(Input::Drain, desk.now);
            }
            Order::HandOver => {
                self.listeners.close();
                for key in self.connections.keys() {
                    self.flush(key, machine, desk);
                    self.close(key, machine, desk);
                }
            }
            Order::Reconfigure(settings) => {
                self.connections_max = settings.queue_connections_max;
                self.drain_timeout = settings.drain_timeout;
                machine.handle_input(Input::Reconfigure(Box::new(settings.queue_options())), desk.now);
            }
        }
    }

    fn expire(&mut self, machine: &mut SharedQueue, desk: &mut Desk) {
        for input in self.plugins.hear(desk.now) {
            machine.handle_input(input, desk.now);
        }
        while self.refused.front().is_some_and(|(until, _)| desk.now >= *until) {
            self.refused.pop_front();
        }
        if desk.now < self.next_sweep {
            return;
        }
        self.next_sweep = desk.now + if self.lingering() { LINGER.part(4) } else { IDLE_SWEEP };
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get(key) else { continue };
            let over = match connection.linger {
                Some(until) => desk.now >= until,
                None => desk.now.since(connection.last) >= IDLE_MAX && !machine.holds(key),
            };
            if over {
                self.close(key, machine, desk);
            }
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let refused = self.refused.front().map(|(until, _)| *until);
        let sweep = (!self.connections.is_empty()).then_some(self.next_sweep);
        let listeners = self.listeners.deadline();
        [refused, sweep, listeners, self.plugins.deadline(), self.ending].into_iter().flatten().min()
    }

    fn settle(&mut self, machine: &mut SharedQueue, desk: &mut Desk) -> bool {
        for came in self.listeners.accept(desk, || Some(())) {
            match came {
                Came::Client { stream, from, .. } => self.admit(stream, from, machine, desk),
                Came::NoSocket(error) => warn!(target: "queue", "accepting pauses: {error}"),
            }
        }
        for key in std::mem::take(&mut self.again) {
            self.serve(key, machine, desk);
        }
        for key in std::mem::take(&mut self.dirty) {
            self.flush(key, machine, desk);
        }
        // At the end only what was said already is worth waiting for.
        self.ending.is_some_and(|until| {
            desk.now >= until || self.connections.iter().all(|(_, connection)| connection.channel.out.is_empty())
        })
    }
}

impl Control {
    fn new(settings: &Settings, members_max: usize) -> Control {
        Control {
            listeners: Listeners::default(),
            connections: Slab::with_reserved(members_max),
            connections_max: settings.queue_connections_max,
            dirty: Vec::new(),
            again: Vec::new(),
            newcomers: VecDeque::new(),
            refused: VecDeque::new(),
            plugins: Plugins::default(),
            next_sweep: Moment::ZERO,
            ending: None,
            drain_timeout: settings.drain_timeout,
            buffer: vec![0; BUFFER_BYTES],
            outputs: Vec::new(),
        }
    }

    fn lingering(&self) -> bool {
        self.connections.iter().any(|(_, connection)| connection.linger.is_some())
    }

    fn mark(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(key);
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, from: SocketAddr, machine: &mut SharedQueue, desk: &mut Desk) {
        if self.connections.len() >= self.connections_max && !self.displace(machine, desk) {
            // Kept for a moment: closed at once, the error could be lost.
            let _ = stream.write(b"error busy too many connections\n");
            let _ = stream.shutdown(Shutdown::Write);
            if self.refused.len() >= REFUSED_MAX {
                self.refused.pop_front();
            }
            return self.refused.push_back((desk.now + LINGER, stream));
        }
        let key = self.connections.insert(Connection {
            stream,
            from,
            channel: Responder::default(),
            readable: true,
            writable: true,
            dirty: false,
            spoken: false,
            told_end: false,
            ended: false,
            last: desk.now,
            linger: None,
        });
        let Some(connection) = self.connections.get_mut(key) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = desk.registry.register(&mut connection.stream, token(key.index(), false), interest) {
            warn!(target: "queue", "{from}: {error}");
            self.connections.remove(key);
            return;
        }
        self.newcomers.push_back(key);
        machine.handle_input(Input::Connected { connection: key, peer: from.ip() }, desk.now);
    }

    /// Makes room: the oldest connection that never asked anything goes.
    fn displace(&mut self, machine: &mut SharedQueue, desk: &mut Desk) -> bool {
        while let Some(key) = self.newcomers.front().copied() {
            match self.connections.get_mut(key) {
                Some(connection) if !connection.spoken => {
                    if desk.now.since(connection.last) < SILENT_MAX {
                        return false;
                    }
                    connection.channel.refuse(ErrorCode::Busy);
                    let _ = connection.stream.write(connection.channel.out.bytes());
                    self.close(key, machine, desk);
                    self.newcomers.pop_front();
                    return true;
                }
                _ => drop(self.newcomers.pop_front()),
            }
        }
        false
    }

    fn close(&mut self, key: Key, machine: &mut SharedQueue, desk: &mut Desk) {
        if self.connections.remove(key).is_some() {
            machine.handle_input(Input::Disconnected { connection: key }, desk.now);
        }
        // Of those who left without a word, more than a few would pile up here.
        while self.newcomers.front().is_some_and(|key| self.connections.get(*key).is_none_or(|known| known.spoken)) {
            self.newcomers.pop_front();
        }
        if self.newcomers.len() > 2 * self.connections.len() + 64 {
            let connections = &self.connections;
            self.newcomers.retain(|key| connections.get(*key).is_some_and(|known| !known.spoken));
        }
    }

    /// A connection broke: what it was sent last did not arrive.
    fn lost(&mut self, key: Key, machine: &mut SharedQueue, desk: &mut Desk) {
        machine.handle_input(Input::SendFailed { connection: key }, desk.now);
        self.close(key, machine, desk);
    }

    /// Reads what a connection sends, and asks the machine.
    fn serve(&mut self, key: Key, machine: &mut SharedQueue, desk: &mut Desk) {
        for turn in 0.. {
            self.ask(key, machine, desk);
            let Some(connection) = self.connections.get_mut(key) else { return };
            if !connection.readable || (connection.channel.is_backpressured() && connection.linger.is_none()) {
                return;
            }
            if turn == READS {
                desk.again = true;
                return self.again.push(key);
            }
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => {
                    connection.readable = false;
                    connection.ended = true;
                    connection.channel.end();
                    self.ask(key, machine, desk);
                    return machine.handle_input(Input::ReadClosed { connection: key }, desk.now);
                }
                // Once it is over nothing is heard any more; thrown away, it
                // does not reset the connection and take the error with it.
                Ok(_) if connection.linger.is_some() => {}
                Ok(count) => {
                    connection.channel.receive(&self.buffer[..count]);
                    connection.readable = connection.told_end || !SHORT_READ_DRAINS || count == self.buffer.len();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    debug!(target: "queue", "{}: {error}", connection.from);
                    return self.lost(key, machine, desk);
                }
            }
        }
    }

    /// Hands the machine what a connection asks, one at a time, so that what
    /// its answers hold up is seen before more is asked.
    fn ask(&mut self, key: Key, machine: &mut SharedQueue, desk: &mut Desk) {
        while let Some(connection) = self.connections.get_mut(key) {
            let Some((order, request)) = connection.channel.next_request() else { return self.mark(key) };
            connection.spoken = true;
            connection.last = desk.now;
            let mut outputs = std::mem::take(&mut self.outputs);
            machine.ask(Input::Request { connection: key, slot: order, request }, desk.now, &mut outputs);
            for output in outputs.drain(..) {
                self.act(output, machine, desk);
            }
            self.outputs = outputs;
        }
    }

    /// Sends what was answered, and closes what is over.
    fn flush(&mut self, key: Key, machine: &mut SharedQueue, desk: &mut Desk) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.dirty = false;
        let was_clogged = connection.channel.is_backpressured();
        while connection.writable && !connection.channel.out.is_empty() {
            match connection.stream.write(connection.channel.out.bytes()) {
                Ok(count) => connection.channel.out.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.lost(key, machine, desk),
            }
        }
        if connection.channel.finished() {
            if connection.ended && connection.linger.is_none() && machine.unsure(key) {
                // Whoever hung up instead of ending its side answers this with a reset.
                let _ = connection.stream.shutdown(Shutdown::Write);
                connection.linger = Some(desk.now + LINGER);
                self.next_sweep = self.next_sweep.min(desk.now + LINGER);
                return;
            }
            if connection.ended {
                return self.close(key, machine, desk);
            }
            if connection.linger.is_none() {
                let _ = connection.stream.shutdown(Shutdown::Write);
                connection.linger = Some(desk.now + LINGER);
                self.next_sweep = self.next_sweep.min(desk.now + LINGER);
                machine.handle_input(Input::Disconnected { connection: key }, desk.now);
            }
        }
        if was_clogged && !connection.channel.is_backpressured() {
            desk.again = true;
            self.again.push(key);
        }
    }
}
