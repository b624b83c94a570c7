//! Where the program was built without redirects of HTTP requests.
//!
//! Owns the face of `http` that the worker sees, and no more.

use super::proxy_protocol::Arrival;
use crate::config::settings::Settings;
use crate::net::tunnel::Tunnel;
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::Moment;
use pegasus_core::redirect::answers::Answer;
use pegasus_core::redirect::redirector::RedirectLog;

/// What is to be done for a client.
pub enum Step {
    Wait,
    Ask(Arrival),
    Over(RedirectLog),
}

/// No client is redirected.
pub struct HttpRedirects;

impl HttpRedirects {
    pub fn new(_: &Settings) -> HttpRedirects {
        HttpRedirects
    }
    pub fn reconfigure(&mut self, _: &Settings) {}
    pub fn includes(&self, _: ServiceName) -> bool {
        false
    }
    pub fn begin(&mut self, _: Key, _: Arrival, _: &mut Tunnel, _: Moment) {}
    pub fn forget(&mut self, _: Key) -> bool {
        false
    }
    pub fn advance(&mut self, _: Key, _: &mut Tunnel, _: Moment) -> Step {
        Step::Wait
    }
    pub fn answered(&mut self, _: Key, _: &Answer, _: Moment) {}
    pub fn pop_late(&mut self, _: Moment) -> Option<(Key, Option<RedirectLog>)> {
        None
    }
    pub fn end(&mut self, _: Key, _: Outcome, _: Moment) -> Option<RedirectLog> {
        None
    }
    pub fn next_timeout(&self) -> Option<Moment> {
        None
    }
}
