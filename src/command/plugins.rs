//! Scheduler programs of the operator: one for each command, whatever services it is for.
//!
//! Owns the children and the log lines about them: one when a program fails, one when it
//! answers again. Not responsible for what is asked.

use crate::net::plugin::{Plugin, PluginEvent};
use log::{info, warn};
use mio::Waker;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Moment;
use pegasus_core::queue::ticket_queue::Input;
use std::sync::Arc;

/// A program and the services that it schedules for.
struct PluginState {
    plugin: Plugin,
    /// At least one.
    services: Vec<ServiceName>,
    /// It was started and is not gone.
    is_up: bool,
    /// Its failure was logged.
    failure_logged: bool,
}

/// All scheduler programs of a queue.
#[derive(Default)]
pub struct Plugins {
    /// As many as there are commands in the configuration, at most.
    plugins: Vec<PluginState>,
    /// What the queue is still to be told.
    inputs: Vec<Input>,
}

impl Plugins {
    /// Lets a program schedule for a service, in place of the one it has; starts it unless
    /// it runs already. Ends a program without a service.
    pub fn start(&mut self, service: ServiceName, command: Option<&str>, waker: Arc<Waker>) {
        for state in &mut self.plugins {
            state.services.retain(|name| *name != service);
        }
        if let Some(command) = command {
            let known = self.plugins.iter_mut().find(|state| state.plugin.command() == command);
            if let Some(state) = known {
                state.services.push(service);
                if state.is_up {
                    self.inputs.push(Input::PluginState { service, up: true });
                }
            } else {
                let seed = u64::from(std::process::id());
                self.plugins.push(PluginState {
                    plugin: Plugin::new(command, waker, seed),
                    services: vec![service],
                    is_up: false,
                    failure_logged: false,
                });
            }
        }
        self.plugins.retain(|state| !state.services.is_empty());
    }

    fn of(&mut self, service: ServiceName) -> Option<&mut PluginState> {
        self.plugins.iter_mut().find(|state| state.services.contains(&service))
    }

    /// Sends a program a line. One that does not read is restarted, and the returned input
    /// tells the queue.
    pub fn send_line(&mut self, service: ServiceName, line: String, now: Moment) -> Option<Input> {
        let state = self.of(service)?;
        if state.plugin.send_line(line) {
            return None;
        }
        self.restart(service, "it does not read", now);
        Some(Input::PluginState { service, up: false })
    }

    /// Ends a program that failed the requests of a service; it is started again later. The
    /// queue will hear that its other services have none meanwhile.
    pub fn restart(&mut self, service: ServiceName, why: &'static str, now: Moment) {
        let Some(state) = self.of(service) else { return };
        state.plugin.stop(now, why);
        state.is_up = false;
        state.log_unusable(why);
        let others: Vec<Input> = state
            .services
            .iter()
            .filter(|other| **other != service)
            .map(|other| Input::PluginState { service: *other, up: false })
            .collect();
        self.inputs.extend(others);
    }

    /// A program gave a valid answer.
    pub fn replied(&mut self, service: ServiceName) {
        if let Some(state) = self.of(service) {
            if std::mem::take(&mut state.failure_logged) {
                let (command, services) = (state.plugin.command(), state.services_text());
                info!(target: "queue", "{command} answers again for {services}");
            }
        }
    }

    /// Lines and events of the programs, as inputs of the queue.
    pub fn poll_inputs(&mut self, now: Moment) -> Vec<Input> {
        let mut inputs = std::mem::take(&mut self.inputs);
        for state in &mut self.plugins {
            while let Some(event) = state.plugin.poll_event(now) {
                match event {
                    PluginEvent::Started => state.is_up = true,
                    PluginEvent::Gone(why) => {
                        state.is_up = false;
                        state.log_unusable(why);
                    }
                    PluginEvent::Line(line) => {
                        // Questions have numbers of their own over all services.
                        if let Some(service) = state.services.first().copied() {
                            inputs.push(Input::PluginReply { service, line });
                        }
                        continue;
                    }
                }
                let up = state.is_up;
                let told = state.services.iter();
                inputs.extend(told.map(|service| Input::PluginState { service: *service, up }));
            }
        }
        inputs
    }

    /// When one is to be started again, or the queue is to be told something.
    pub fn next_timeout(&self) -> Option<Moment> {
        let starts = self.plugins.iter().filter_map(|state| state.plugin.next_timeout());
        starts.chain((!self.inputs.is_empty()).then_some(Moment::ZERO)).min()
    }
}

impl PluginState {
    fn services_text(&self) -> String {
        let names: Vec<String> = self.services.iter().map(ToString::to_string).collect();
        let word = if names.len() == 1 { "service" } else { "services" };
        format!("{word} {}", names.join(", "))
    }

    fn log_unusable(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failure_logged, true) {
            let (command, services) = (self.plugin.command(), self.services_text());
            let verb = if self.services.len() == 1 { "is" } else { "are" };
            warn!(
                target: "queue",
                "{command}: {why}; {services} {verb} scheduled without it until it answers again"
            );
        }
    }
}
