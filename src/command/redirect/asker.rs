//! The queue that a loop asks: another process's, or this one's.
//!
//! Owns the choice. What is asked and what an answer means is the machine's
//! business.

use crate::command::queue::Member;
use crate::config::settings::Settings;
use crate::net::drive::Desk;
use crate::net::peer::{News, Peer};
use mio::event::Event;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::message::Request;

/// See the file's head.
pub enum Asker {
    /// By a control connection.
    Connected(Box<Peer<()>>),
    /// It lives in this process.
    Inside(Member),
}

/// Longer silence of a queue than any answer may take means that nobody is there.
pub fn silence_max(settings: &Settings) -> Span {
    settings.redirect.queue_timeout + settings.redirect.wait + Span::from_millis(100)
}

impl Asker {
    /// Other settings from now on.
    pub fn reconfigure(&mut self, settings: &Settings) {
        if let Asker::Connected(peer) = self {
            peer.set_silence_max(silence_max(settings));
        }
    }

    /// Asks, when the turn is flushed. While the queue is away nothing is asked.
    pub fn ask(&mut self, request: Request, now: Moment) {
        match self {
            Asker::Connected(peer) => peer.ask(&request, (), now),
            Asker::Inside(member) => member.ask(request, now),
        }
    }

    /// The next piece of news.
    pub fn poll(&mut self) -> Option<News<()>> {
        match self {
            Asker::Connected(peer) => peer.poll(),
            Asker::Inside(member) => member.poll(),
        }
    }

    /// The connection's socket became ready.
    pub fn ready(&mut self, event: &Event, desk: &mut Desk) {
        if let Asker::Connected(peer) = self {
            peer.ready(event, desk);
        }
    }

    /// Time passed.
    pub fn expire(&mut self, desk: &mut Desk) {
        if let Asker::Connected(peer) = self {
            peer.expire(desk);
        }
    }

    /// When [`expire`](ConnectionState::expire) must be called.
    pub fn deadline(&self) -> Option<Moment> {
        match self {
            Asker::Connected(peer) => peer.deadline(),
            Asker::Inside(_) => None,
        }
    }

    /// Nothing may wait to be sent: this loop is about to leave.
    pub fn hurry(&mut self) {
        if let Asker::Connected(peer) = self {
            peer.hurry();
        }
    }

    /// Sends what was asked in this turn.
    pub fn flush(&mut self, desk: &mut Desk) {
        if let Asker::Connected(peer) = self {
            peer.flush(desk);
        }
    }

    /// Whether everything asked was sent, or nobody is there to send it to.
    pub fn flushed(&self) -> bool {
        match self {
            Asker::Connected(peer) => peer.flushed(),
            Asker::Inside(_) => true,
        }
    }
}
