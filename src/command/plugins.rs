//! The programs of the operator's that schedule: one for each service that is
//! configured so.
//!
//! Owns the children and what the log is told of them: once when one is of no
//! use, once when it answers again. What is asked is the machine's business.

use crate::net::plugin::{Heard, Plugin};
use log::{info, warn};
use mio::Waker;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Moment;
use pegasus_core::queue::ticket_queue::Input;
use std::collections::HashMap;
use std::sync::Arc;

struct Known {
    plugin: Plugin,
    /// The log knows that it is of no use.
    told: bool,
}

/// See the file's head.
#[derive(Default)]
pub struct Plugins {
    known: HashMap<ServiceName, Known>,
}

impl Plugins {
    /// Starts a program for a service, or ends the one it has.
    pub fn engage(&mut self, service: ServiceName, command: Option<&str>, waker: Arc<Waker>) {
        match command {
            None => self.known.retain(|known, _| *known != service),
            Some(command) => {
                let seed = u64::from(std::process::id());
                let known = Known { plugin: Plugin::new(command, waker, seed), told: false };
                self.known.insert(service, known);
            }
        }
    }

    /// Tells a program a line. One that does not listen is ended: then the
    /// machine has to know.
    pub fn tell(&mut self, service: ServiceName, line: String, now: Moment) -> Option<Input> {
        let known = self.known.get_mut(&service)?;
        if known.plugin.tell(line) {
            return None;
        }
        self.restart(service, "it does not read", now);
        Some(Input::PluginState { service, up: false })
    }

    /// Ends a program that is of no use; it is started again later.
    pub fn restart(&mut self, service: ServiceName, why: &'static str, now: Moment) {
        if let Some(known) = self.known.get_mut(&service) {
            known.plugin.end(now, why);
            known.useless(service, why);
        }
    }

    /// What a program said was an answer.
    pub fn heeded(&mut self, service: ServiceName) {
        if let Some(known) = self.known.get_mut(&service) {
            if std::mem::take(&mut known.told) {
                info!(target: "queue", "{} answers again for service {service}", known.plugin.command());
            }
        }
    }

    /// What the programs said or did, as inputs of the machine.
    pub fn hear(&mut self, now: Moment) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (&service, known) in &mut self.known {
            while let Some(heard) = known.plugin.hear(now) {
                inputs.push(match heard {
                    Heard::Started => Input::PluginState { service, up: true },
                    Heard::Gone(why) => {
                        known.useless(service, why);
                        Input::PluginState { service, up: false }
                    }
                    Heard::Line(line) => Input::PluginReply { service, line },
                });
            }
        }
        inputs
    }

    /// When one is to be started again.
    pub fn deadline(&self) -> Option<Moment> {
        self.known.values().filter_map(|known| known.plugin.deadline()).min()
    }
}

impl Known {
    fn useless(&mut self, service: ServiceName, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            let command = self.plugin.command();
            warn!(target: "queue", "{command}: {why}; service {service} is scheduled without it until it answers again");
        }
    }
}
