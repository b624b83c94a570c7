//! The hand of a monitor.

use super::super::hosts::Health;
use super::super::network::{Asker, End};
use super::{Event, World, SERVICES};
use pegasus_core::base::provider::ProviderSpec;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::Span;
use pegasus_core::monitor::monitor::{self, Monitor, MonitorOptions, ServiceOptions};

impl World {
    pub(super) fn monitor_begins(&mut self, monitor: usize) {
        if self.monitors[monitor].machine.is_some()
            || (self.quiet && self.monitors[monitor].life > 0)
        {
            return;
        }
        let capacity = [None, Some(1), Some(2), Some(6)][self.random.below(4)];
        let fall = 1 + self.random.below(3) as u32;
        let services = SERVICES.iter().map(|(name, port)| ServiceOptions {
            service: name.parse().expect("a service"),
            provider: ProviderSpec { ip: None, port: Some(*port) },
            capacity,
            check: Some(Span::from_millis(500)),
            rise: 1,
            fall,
        });
        let options = MonitorOptions {
            interval: Span::from_millis(300 + 100 * self.random.below(8) as u64),
            balancers: self.queues.len(),
            services: services.collect(),
            drain_timeout: Span::from_secs(10),
        };
        let host = &mut self.monitors[monitor];
        host.machine = Some(Monitor::new(options, 4.0, self.random.bits()));
        host.life += 1;
        for queue in 0..self.queues.len() {
            self.soon(Event::Dial(Asker::Monitor(monitor, queue)));
        }
    }

    pub(super) fn monitor_ends(&mut self, monitor: usize) {
        if self.monitors[monitor].machine.take().is_none() {
            return;
        }
        for queue in 0..self.queues.len() {
            if let Some(link) = self.monitors[monitor].links[queue].take() {
                self.cut(link);
                self.network.close(link, End::Asker);
            }
        }
        self.within(8000, Event::MonitorBegins(monitor));
    }

    pub(super) fn tell_monitor(&mut self, monitor: usize, input: monitor::Input) {
        if let Some(machine) = &mut self.monitors[monitor].machine {
            machine.handle_input(input, self.now);
            self.act_monitor(monitor);
        }
    }

    pub(super) fn act_monitor(&mut self, monitor: usize) {
        while let Some(output) =
            self.monitors[monitor].machine.as_mut().and_then(StateMachine::poll_output)
        {
            let life = self.monitors[monitor].life;
            match output {
                monitor::Output::TakeSample => self.soon(Event::Looked(monitor, life)),
                monitor::Output::Check { service } => {
                    let millis =
                        if self.monitors[monitor].health == Health::Silent { 1000 } else { 30 };
                    self.within(millis, Event::Checked(monitor, life, service));
                }
                monitor::Output::SendToQueue { balancer, service, request } => {
                    let host = &mut self.monitors[monitor];
                    let Some(link) = host.links[balancer] else { continue };
                    host.asking[balancer].send(&"b", &request, service);
                    let bytes = host.asking[balancer].out.bytes().to_vec();
                    host.asking[balancer].out.sent(bytes.len());
                    self.send(link, End::Queue, &bytes);
                }
                monitor::Output::Log(monitor::MonitorLog::Refused { answer, .. }) => {
                    panic!("{answer}")
                }
                monitor::Output::Log(_) => {}
                monitor::Output::Finished => self.monitor_ends(monitor),
            }
        }
    }
}
