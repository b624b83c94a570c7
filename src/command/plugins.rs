//! Scheduler programs of the operator: one for each service that is configured so.
//!
//! Owns the children and the log lines about them: one when a program fails, one when it
//! answers again. Not responsible for what is asked.

use crate::net::plugin::{Plugin, PluginEvent};
use log::{info, warn};
use mio::Waker;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Moment;
use pegasus_core::queue::ticket_queue::Input;
use std::collections::HashMap;
use std::sync::Arc;

struct PluginState {
    plugin: Plugin,
    /// Its failure was logged.
    failure_logged: bool,
}

/// All scheduler programs of a queue.
#[derive(Default)]
pub struct Plugins {
    plugins: HashMap<ServiceName, PluginState>,
}

impl Plugins {
    /// Starts a program for a service, or ends the one it has.
    pub fn start(&mut self, service: ServiceName, command: Option<&str>, waker: Arc<Waker>) {
        match command {
            None => self.plugins.retain(|name, _| *name != service),
            Some(command) => {
                let seed = u64::from(std::process::id());
                let state = PluginState {
                    plugin: Plugin::new(command, waker, seed),
                    failure_logged: false,
                };
                self.plugins.insert(service, state);
            }
        }
    }

    /// Sends a program a line. One that does not read is restarted, and the returned input
    /// tells the queue.
    pub fn send_line(&mut self, service: ServiceName, line: String, now: Moment) -> Option<Input> {
        let state = self.plugins.get_mut(&service)?;
        if state.plugin.send_line(line) {
            return None;
        }
        self.restart(service, "it does not read", now);
        Some(Input::PluginState { service, up: false })
    }

    /// Ends a program that failed; it is started again later.
    pub fn restart(&mut self, service: ServiceName, why: &'static str, now: Moment) {
        if let Some(state) = self.plugins.get_mut(&service) {
            state.plugin.stop(now, why);
            state.log_unusable(service, why);
        }
    }

    /// A program gave a valid answer.
    pub fn replied(&mut self, service: ServiceName) {
        if let Some(state) = self.plugins.get_mut(&service) {
            if std::mem::take(&mut state.failure_logged) {
                info!(target: "queue", "{} answers again for service {service}", state.plugin.command());
            }
        }
    }

    /// Lines and events of the programs, as inputs of the queue.
    pub fn poll_inputs(&mut self, now: Moment) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (&service, state) in &mut self.plugins {
            while let Some(event) = state.plugin.poll_event(now) {
                inputs.push(match event {
                    PluginEvent::Started => Input::PluginState { service, up: true },
                    PluginEvent::Gone(why) => {
                        state.log_unusable(service, why);
                        Input::PluginState { service, up: false }
                    }
                    PluginEvent::Line(line) => Input::PluginReply { service, line },
                });
            }
        }
        inputs
    }

    /// When one is to be started again.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.plugins.values().filter_map(|state| state.plugin.next_timeout()).min()
    }
}

impl PluginState {
    fn log_unusable(&mut self, service: ServiceName, why: &str) {
        if !std::mem::replace(&mut self.failure_logged, true) {
            let command = self.plugin.command();
            warn!(target: "queue", "{command}: {why}; service {service} is scheduled without it until it answers again");
        }
    }
}
