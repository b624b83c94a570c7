//! What the checks find, and what they look for on which host.
//!
//! Owns how a finding is written.

use crate::command::status_report::quoted;
use crate::config::settings::{QueueLocation, Settings};

/// Something that will go wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The check that found it.
    pub check: &'static str,
    /// Whether it is a peer that cannot be reached; otherwise a mistake here.
    pub unreachable: bool,
    /// The file and line, or the setting; empty where `what` names it.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// The line to change, as it should be; empty where `what` says it.
    pub mend: String,
}

impl Finding {
    /// A mistake here.
    pub fn new(
        check: &'static str,
        place: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        let (place, what, mend) = (place.into(), what.into(), mend.into());
        Finding { check, unreachable: false, place, what, mend }
    }

    /// The same of a peer.
    pub fn unreachable(self) -> Finding {
        Finding { unreachable: true, ..self }
    }

    /// For people, in lines.
    pub fn text(&self) -> String {
        let separator = if self.place.is_empty() { "" } else { ": " };
        let mut text = format!("{}{separator}{}", self.place, self.what);
        for line in self.mend.lines() {
            text.push_str("\n    -> ");
            text.push_str(line);
        }
        text
    }

    /// For scripts.
    pub fn json(&self) -> String {
        format!(
            "{{\"check\":{},\"unreachable\":{},\"place\":{},\"what\":{},\"mend\":{}}}",
            quoted(self.check),
            self.unreachable,
            quoted(&self.place),
            quoted(&self.what),
            quoted(&self.mend)
        )
    }
}

/// What a host does with a configuration that may be for several hosts.
pub struct Part {
    /// It listens for clients.
    pub redirects: bool,
    /// The queue is in the redirector, or beside it.
    pub has_queue: bool,
    /// It offers services.
    pub offers: bool,
}

impl Part {
    /// `started`: a superserver starts redirectors here.
    pub fn of(settings: &Settings, started: bool) -> Part {
        let redirects = settings.services.iter().any(|service| !service.listen.is_empty())
            || !settings.redirect_dns.is_empty();
        let offers = settings.services.iter().any(|service| service.offered);
        let remote = matches!(settings.redirect_queue, Some(QueueLocation::Remote(_)));
        Part { redirects, has_queue: !remote && (redirects || started || !offers), offers }
    }
}
