//! The options of each state machine, made from the settings.

use super::settings::{QueueLocation, ServiceSettings, Settings};
use pegasus_core::monitor::monitor::{MonitorOptions, ServiceOptions};
use pegasus_core::queue::ticket_queue::QueueOptions;
use pegasus_core::redirect::redirector::{PrefetchSize, RedirectOptions};
use pegasus_core::redirect::ticket_wait::TicketWait;

impl Settings {
    /// Returns the options of a redirector. Services whose scheduler looks at the client,
    /// according to this configuration, do not prefetch. An embedded queue answers at once,
    /// so that `auto` has nothing to gain there.
    pub fn redirect_options(&self) -> RedirectOptions {
        let by_client = |service: &&ServiceSettings| {
            let scheduler = service.scheduler.as_ref().unwrap_or(&self.queue.scheduler);
            service.affinity || scheduler.uses_client()
        };
        let by_client =
            self.services.iter().filter(by_client).map(|service| service.name).collect();
        let prefetch = match (self.redirect.prefetch, self.asked_queue()) {
            (PrefetchSize::Auto, QueueLocation::Embedded) => PrefetchSize::Fixed(0),
            (size, _) => size,
        };
        let own = self.services.iter().filter_map(|service| Some((service.name, service.wait?)));
        let wait = TicketWait { own: own.collect(), ..self.redirect.wait };
        RedirectOptions { prefetch, by_client, wait, ..self.redirect.clone() }
    }

    /// Returns the options of a ticket queue.
    pub fn queue_options(&self) -> QueueOptions {
        let own = self
            .services
            .iter()
            .filter_map(|service| Some((service.name, service.scheduler.clone()?)));
        let affinities = self.services.iter().filter(|service| service.affinity);
        QueueOptions {
            schedulers: own.collect(),
            affinities: affinities
                .map(|service| (service.name, service.affinity_timeout))
                .collect(),
            ..self.queue.clone()
        }
    }

    /// Returns the options of a monitor.
    pub fn monitor_options(&self) -> MonitorOptions {
        let service = |service: &&ServiceSettings| ServiceOptions {
            service: service.name,
            provider: service.provider.unwrap_or_default(),
            capacity: service.capacity,
            check: service
                .effective_check()
                .map(|_| service.check_interval.unwrap_or(self.monitor_interval)),
            rise: service.rise,
            fall: service.fall,
        };
        MonitorOptions {
            interval: self.monitor_interval,
            balancers: self.monitor_balancers.len(),
            services: self.offered().iter().map(service).collect(),
            drain_timeout: self.drain_timeout,
        }
    }
}
