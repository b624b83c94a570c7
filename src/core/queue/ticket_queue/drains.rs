//! Maintenance: an operator keeps new requests from a provider for a while.
//!
//! Owns what `drain` and `resume` do in each service. A drain belongs to the
//! operator: the provider's tickets, its withdrawal and the end of its lease do
//! not end it.

use super::{ProviderEvent, ServiceState, TicketQueue};
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::Moment;
use crate::protocol::reply::{DrainState, ErrorCode, ProtocolError, Reply};
use crate::protocol::request::Request;
use crate::queue::provider_pool::PoolMember;

impl TicketQueue {
    /// Keeps new requests from a provider until `drain_end`. Without a service the
    /// drain concerns every service in which the provider is known, and the default
    /// service where it is known in none.
    pub(super) fn drain(
        &mut self,
        provider: Provider,
        service: Option<ServiceName>,
        drain_end: Moment,
        now: Moment,
    ) -> Result<Reply, ProtocolError> {
        let mut services = self.services_of(provider, service);
        if services.is_empty() {
            services.push(self.service_with_room(provider, service, now)?);
        }
        for key in &services {
            let Some(state) = self.services.get_mut(*key) else { continue };
            state.pool.drain(provider, drain_end, now);
            // Requests that wait are looked at again when the drain ends by itself.
            self.serve_waiting(*key, now);
            self.log_drain(*key, provider, ProviderEvent::Drained);
        }
        Ok(Reply::Drained(self.drain_state(&services, provider, now)))
    }

    /// Ends the drains of a provider. One that is not drained, or not known, is no
    /// error: a script may repeat itself.
    pub(super) fn resume(
        &mut self,
        provider: Provider,
        service: Option<ServiceName>,
        now: Moment,
    ) -> Reply {
        let services = self.services_of(provider, service);
        for key in &services {
            let Some(pool) = self.services.get_mut(*key).map(|state| &mut state.pool) else {
                continue;
            };
            if pool.member(provider).is_some_and(|member| now < member.drain_end) {
                pool.drain(provider, Moment::ZERO, now);
                self.log_drain(*key, provider, ProviderEvent::Resumed);
                self.serve_waiting(*key, now);
            }
        }
        Reply::Drained(self.drain_state(&services, provider, now))
    }

    /// The drains as messages that make them at another queue.
    pub(super) fn drains(&self, now: Moment) -> Vec<Request> {
        let of = |state: &ServiceState| {
            let drain = |member: &PoolMember| Request::Drain {
                provider: member.stats.provider.into(),
                service: Some(state.name),
                duration: (member.drain_end != Moment::NEVER).then(|| member.drain_end.since(now)),
            };
            let drained = |member: &&PoolMember| now < member.drain_end;
            state.pool.members().filter(drained).map(drain).collect::<Vec<_>>()
        };
        self.services.iter().flat_map(|(_, state)| of(state)).collect()
    }

    /// The services in which a provider is known, or the named one of them; in the
    /// order of their names, so that the same story always ends the same way.
    fn services_of(&self, provider: Provider, only: Option<ServiceName>) -> Vec<Key> {
        let known = |(_, state): &(Key, &ServiceState)| {
            only.is_none_or(|only| only == state.name) && state.pool.contains(provider)
        };
        let mut found: Vec<_> = self.services.iter().filter(known).collect();
        found.sort_by_key(|(_, state)| state.name);
        found.into_iter().map(|(key, _)| key).collect()
    }

    /// The service in which a provider that is unknown is to be drained.
    fn service_with_room(
        &mut self,
        provider: Provider,
        service: Option<ServiceName>,
        now: Moment,
    ) -> Result<Key, ProtocolError> {
        let busy = |why| ProtocolError::new(ErrorCode::Busy, why);
        let name = service.unwrap_or(ServiceName::DEFAULT);
        let key = self.open_service(name).ok_or_else(|| busy("too many services"))?;
        let most = self.options.providers_max;
        let full = |queue: &TicketQueue| {
            let state = queue.services.get(key);
            state.is_some_and(|state| state.pool.len() >= most && !state.pool.contains(provider))
        };
        if full(self) {
            self.sweep_service(key, now);
        }
        if full(self) {
            return Err(busy("too many providers"));
        }
        Ok(key)
    }

    fn drain_state(&self, services: &[Key], provider: Provider, now: Moment) -> DrainState {
        let members =
            services.iter().filter_map(|key| self.services.get(*key)?.pool.member(provider));
        let mut state = DrainState { services: services.len() as u32, ..DrainState::default() };
        for member in members {
            state.active += u64::from(member.stats.active);
            state.offering |= now < member.lease_end;
        }
        state
    }

    fn log_drain(&mut self, key: Key, provider: Provider, event: ProviderEvent) {
        let Some(service) = self.services.get(key).map(|state| state.name) else { return };
        self.log(service, provider, event);
    }
}
