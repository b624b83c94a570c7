//! Clients that are not relayed: their HTTP requests are redirected.
//!
//! Owns what such clients and the worker have to do with each other.

use super::{TcpWorker, TunnelPhase};
use crate::command::redirect::access_log::log_note;
use crate::command::redirect::http::Step;
use crate::command::redirect::proxy_protocol::Arrival;
use crate::net::event_loop::Context;
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::slab::Key;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::Moment;
use pegasus_core::redirect::answers::{Input, Wanted};
use pegasus_core::redirect::redirector::{RedirectLog, Redirector};

impl TcpWorker {
    /// A client is identified whose request is redirected.
    pub(super) fn begin_redirect(&mut self, key: Key, arrival: Arrival, now: Moment) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.phase = TunnelPhase::Redirecting;
        self.redirects.begin(key, arrival, &mut client.tunnel, now);
        self.advance_redirect(key, now);
    }

    /// Does what can be done for such a client now.
    pub(super) fn advance_redirect(&mut self, key: Key, now: Moment) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match self.redirects.advance(key, &mut client.tunnel, now) {
            Step::Wait => {}
            Step::Ask(Arrival { service, from, .. }) => {
                let (client, wanted) = (from.ip(), Wanted::One);
                let asked = Input::Asked { question: key, service, client, wanted };
                self.base.answerer.handle_input(asked, now);
            }
            Step::Over(note) => self.close_redirect(key, &note),
        }
    }

    /// Such a client is closed by this side, or has left.
    pub(super) fn end_redirect(&mut self, key: Key, outcome: Outcome, now: Moment) {
        if let Some(note) = self.redirects.end(key, outcome, now) {
            self.close_redirect(key, &note);
        }
    }

    fn close_redirect(&mut self, key: Key, note: &RedirectLog) {
        self.base.metrics.record(note, false);
        if let RedirectLog::Closed { outcome, .. } = note {
            self.last_outcome = Some(*outcome);
        }
        log_note(note, self.base.proxy_protocol.is_check(note));
        self.drop_client(key);
    }

    /// Those whose time is over.
    pub(super) fn end_late_redirects(&mut self, now: Moment) {
        while let Some((key, note)) = self.redirects.pop_late(now) {
            match note {
                Some(note) => self.close_redirect(key, &note),
                None => self.advance_redirect(key, now),
            }
        }
    }

    /// Sends the redirects whose providers are known now.
    pub(super) fn send_redirects(&mut self, redirector: &mut Redirector, cx: &mut Context) {
        while let Some((key, answer)) = self.base.poll_answer(redirector, cx.now) {
            self.redirects.answered(key, &answer, cx.now);
            self.advance_redirect(key, cx.now);
        }
    }
}
