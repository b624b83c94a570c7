//! The queue that a worker asks: that of another process, or of this one.
//!
//! Owns the choice. Not responsible for what is asked.

use crate::command::queue::LocalHandle;
use crate::config::settings::Settings;
use crate::net::event_loop::Context;
use crate::net::queue_connection::{QueueConnection, QueueEvent};
use mio::event::Event;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::peer_key::KeyRole;
use pegasus_core::protocol::request::Request;
use pegasus_core::protocol::requester::Matched;
use pegasus_core::redirect::redirector::RedirectOptions;
use std::collections::VecDeque;

/// What an answer in order is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// The worker's state machine.
    Machine,
    /// A client that is told where to go.
    Answerer,
}

/// A way to the queue.
pub enum QueueHandle {
    /// By a control connection.
    Remote(Box<QueueConnection<Asker>>),
    /// It lives in this process.
    Embedded(EmbeddedQueue),
}

/// The queue of this process, and what its answers in order are for.
pub struct EmbeddedQueue {
    local: LocalHandle,
    askers: VecDeque<Asker>,
}

impl EmbeddedQueue {
    fn ask(&mut self, request: Request, asker: Asker, now: Moment) {
        if !matches!(&request, Request::Next(next) if next.id.is_some()) {
            self.askers.push_back(asker);
        }
        self.local.ask(request, now);
    }

    fn poll_event(&mut self) -> Option<QueueEvent<Asker>> {
        Some(match self.local.poll_event()? {
            QueueEvent::Up => QueueEvent::Up,
            QueueEvent::Down => QueueEvent::Down,
            QueueEvent::Answer(Matched::ById(id, reply)) => {
                QueueEvent::Answer(Matched::ById(id, reply))
            }
            QueueEvent::Answer(Matched::InOrder((), reply)) => {
                let asker = self.askers.pop_front().unwrap_or(Asker::Machine);
                QueueEvent::Answer(Matched::InOrder(asker, reply))
            }
        })
    }
}

/// A queue that is silent for longer than any answer may take is lost.
pub fn silence_max(settings: &Settings) -> Span {
    let RedirectOptions { wait, queue_timeout, .. } = settings.redirect_options();
    queue_timeout + wait.longest() + Span::from_millis(100)
}

impl QueueHandle {
    /// A handle to the queue of this process.
    pub fn embedded(local: LocalHandle) -> QueueHandle {
        QueueHandle::Embedded(EmbeddedQueue { local, askers: VecDeque::new() })
    }

    /// Other settings from now on.
    pub fn reconfigure(&mut self, settings: &Settings, now: Moment) {
        if let QueueHandle::Remote(connection) = self {
            connection.set_silence_max(silence_max(settings));
            connection.set_key(settings.client_key(KeyRole::Balancer), now);
        }
    }

    /// Asks, when the turn is flushed. While the queue is away nothing is asked.
    pub fn ask(&mut self, request: Request, asker: Asker, now: Moment) {
        match self {
            QueueHandle::Remote(connection) => connection.ask(&request, asker, now),
            QueueHandle::Embedded(queue) => queue.ask(request, asker, now),
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<QueueEvent<Asker>> {
        match self {
            QueueHandle::Remote(connection) => connection.poll_event(),
            QueueHandle::Embedded(queue) => queue.poll_event(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_may_be_silent_for_the_longest_wait_of_a_service() {
        let silence = |assignments: &[&str]| {
            let assignments: Vec<String> = assignments.iter().map(ToString::to_string).collect();
            silence_max(&Settings::load(None, &assignments).unwrap())
        };
        assert!(silence(&["redirect_wait=7s"]) > Span::from_secs(7));
        let own = ["redirect_queue_timeout=1s", "service_llm_wait=30s"];
        assert!(silence(&own) > Span::from_secs(30));
    }
}
