//! The queue that a worker asks: that of another process, or of this one.
//!
//! Owns the choice. Not responsible for what is asked.

use crate::command::queue::LocalHandle;
use crate::config::settings::Settings;
use crate::net::event_loop::Context;
use crate::net::queue_connection::{QueueConnection, QueueEvent};
use mio::event::Event;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::message::Request;

/// A way to the queue.
pub enum QueueHandle {
    /// By a control connection.
    Remote(Box<QueueConnection<()>>),
    /// It lives in this process.
    Embedded(LocalHandle),
}

/// A queue that is silent for longer than any answer may take is lost.
pub fn silence_max(settings: &Settings) -> Span {
    settings.redirect.queue_timeout + settings.redirect.wait + Span::from_millis(100)
}

impl QueueHandle {
    /// Other settings from now on.
    pub fn reconfigure(&mut self, settings: &Settings) {
        if let QueueHandle::Remote(connection) = self {
            connection.set_silence_max(silence_max(settings));
        }
    }

    /// Asks, when the turn is flushed. While the queue is away nothing is asked.
    pub fn ask(&mut self, request: Request, now: Moment) {
        match self {
            QueueHandle::Remote(connection) => connection.ask(&request, (), now),
            QueueHandle::Embedded(local) => local.ask(request, now),
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<QueueEvent<()>> {
        match self {
            QueueHandle::Remote(connection) => connection.poll_event(),
            QueueHandle::Embedded(local) => local.poll_event(),
        }
    }

    /// The connection's socket became ready.
    pub fn on_event(&mut self, event: &Event, cx: &mut Context) {
        if let QueueHandle::Remote(connection) = self {
            connection.on_event(event, cx);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, cx: &mut Context) {
        if let QueueHandle::Remote(connection) = self {
            connection.handle_timeout(cx);
        }
    }

    /// When [`handle_timeout`](QueueHandle::handle_timeout) must be called.
    pub fn next_timeout(&self) -> Option<Moment> {
        match self {
            QueueHandle::Remote(connection) => connection.next_timeout(),
            QueueHandle::Embedded(_) => None,
        }
    }

    /// Nothing may wait to be sent: the worker is about to end.
    pub fn flush_now(&mut self) {
        if let QueueHandle::Remote(connection) = self {
            connection.flush_now();
        }
    }

    /// Sends what was asked in this turn.
    pub fn flush(&mut self, cx: &mut Context) {
        if let QueueHandle::Remote(connection) = self {
            connection.flush(cx);
        }
    }

    /// Whether everything asked was sent, or the queue is away.
    pub fn is_flushed(&self) -> bool {
        match self {
            QueueHandle::Remote(connection) => connection.is_flushed(),
            QueueHandle::Embedded(_) => true,
        }
    }
}
