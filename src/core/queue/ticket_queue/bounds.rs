//! What one source may take of what all share.
//!
//! Owns the shares of providers, of waiting requests and of ids. A source is what one host
//! can choose its address from. Knows no socket.

use super::{
    ConnectionState, PendingNext, ProviderEvent, QueueOptions, RequestState, TicketQueue,
    IDS_ALL_MAX, IDS_MAX, IDS_PLENTY,
};
use crate::base::cidr::host_network;
use crate::base::provider::Provider;
use crate::base::slab::Key;
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::protocol::reply::{ErrorCode, ProtocolError};
use crate::queue::provider_pool::{PoolMember, ProviderPool};
use crate::queue::wait_queue::Waiter;
use std::mem::size_of;
use std::net::IpAddr;

/// Waiting requests in all services, and those of one source, in units of what one service
/// may hold.
pub const WAITING_ALL_SERVICES: usize = 16;
const WAITING_OF_SOURCE_SERVICES: usize = 4;

/// Providers in all services, in units of what one service may have.
pub const PROVIDERS_ALL_SERVICES: usize = 4;

/// Bytes of a provider beside its record: its places in the indexes, and the names and
/// requests of askers that it remembers.
const PROVIDER_EXTRA_BYTES: usize = 6 * 1024;
/// Bytes of a request with an id beside its record: its slot, and its entries in the map of
/// ids, of which a part is empty.
const REQUEST_EXTRA_BYTES: usize = 24;
/// Bytes of a waiting request beside its record: its `avoid` list and its timers.
const WAITING_EXTRA_BYTES: usize = 1024;

impl TicketQueue {
    /// The most memory that a queue with these options takes, in bytes; connections and
    /// answers on their way not included.
    pub fn memory_max(options: &QueueOptions) -> usize {
        let each = |record: usize, extra: usize, many: usize| many.saturating_mul(record + extra);
        let of_all = |most: usize, services: usize| {
            most.saturating_mul(services.min(options.services_max.max(1)))
        };
        let providers = of_all(options.providers_max, PROVIDERS_ALL_SERVICES);
        let waiting = of_all(options.waiting_max, WAITING_ALL_SERVICES);
        each(size_of::<PoolMember>(), PROVIDER_EXTRA_BYTES, providers)
            .saturating_add(each(size_of::<Waiter<PendingNext>>(), WAITING_EXTRA_BYTES, waiting))
            .saturating_add(each(size_of::<RequestState>(), REQUEST_EXTRA_BYTES, 2 * IDS_ALL_MAX))
    }

    /// What one host can choose the address of this connection from.
    pub(super) fn source(&self, connection: Key) -> IpAddr {
        host_network(self.peer(connection))
    }

    /// Where a provider comes from: the host that offers it. This host speaks for others, and
    /// there it is the provider's own.
    pub(super) fn provider_source(&self, connection: Key, provider: Provider) -> IpAddr {
        let peer = self.peer(connection);
        host_network(if peer.is_loopback() { provider.ip } else { peer })
    }

    /// An offer without what is beyond the bounds: then what these are.
    pub(super) fn within_bounds(&self, offer: Offer) -> (Offer, Option<u32>, Option<Span>) {
        let (tickets, lease) = (self.options.tickets_max, self.options.lease_max);
        let cut =
            Offer { tickets: offer.tickets.min(tickets), lease: offer.lease.min(lease), ..offer };
        (
            cut,
            Some(tickets).filter(|_| offer.tickets > tickets),
            Some(lease).filter(|_| offer.lease > lease),
        )
    }

    /// Makes room for a provider that is new to a service. Where the service is full, the
    /// youngest one of the source that has most gives way.
    pub(super) fn admit_provider(
        &mut self,
        key: Key,
        connection: Key,
        provider: Provider,
        now: Moment,
    ) -> Result<(), ProtocolError> {
        let Some(state) = self.services.get(key).filter(|state| !state.pool.contains(provider))
        else {
            return Ok(());
        };
        let source = self.provider_source(connection, provider);
        let is_limited = !self.peer(connection).is_loopback();
        let most_of_source = self.options.source_providers_max;
        let is_greedy =
            |pool: &ProviderPool| is_limited && pool.count_of_source(source) >= most_of_source;
        let most = self.options.providers_max;
        if state.pool.len() >= most || is_greedy(&state.pool) {
            self.sweep_service(key, now);
        }
        let busy = |why| Err(ProtocolError::new(ErrorCode::Busy, why));
        let pools = || self.services.iter().map(|(_, state)| &state.pool);
        let all: usize = pools().map(ProviderPool::len).sum();
        if all >= most.saturating_mul(PROVIDERS_ALL_SERVICES) {
            return busy("too many providers in all services");
        }
        let of_source: usize = pools().map(|pool| pool.count_of_source(source)).sum();
        let Some(state) = self.services.get(key) else { return Ok(()) };
        let most_everywhere = most_of_source.saturating_mul(PROVIDERS_ALL_SERVICES);
        if is_greedy(&state.pool) || is_limited && of_source >= most_everywhere {
            return busy("too many providers of this address, see queue_source_providers_max");
        }
        if state.pool.len() < most {
            return Ok(());
        }
        let Some(displaced) = state.pool.to_displace(source) else {
            return busy("too many providers");
        };
        let service = state.name;
        self.log_presence_change(service, displaced, ProviderEvent::Displaced);
        if let Some(state) = self.services.get_mut(key) {
            state.pool.remove(displaced);
        }
        Ok(())
    }

    /// Whether a connection may use no further id.
    pub(super) fn lacks_ids(&self, conn: &ConnectionState) -> bool {
        if conn.requests.len() >= IDS_MAX || self.ids >= IDS_ALL_MAX {
            return true;
        }
        // While there are plenty, no source has to be counted.
        let source = host_network(conn.peer);
        self.ids >= IDS_PLENTY && {
            let same = self.connections_by_slot.iter().flatten();
            let same = same.filter(|other| host_network(other.peer) == source);
            same.map(|other| other.requests.len()).sum::<usize>() >= IDS_MAX
        }
    }

    /// Whether one more request of this connection may wait for this service. Where the
    /// service is full, the youngest one of the source that has most gives way.
    pub(super) fn make_room_to_wait(&mut self, key: Key, connection: Key) -> bool {
        let most = self.options.waiting_max;
        let source = self.source(connection);
        if self.waiting >= most.saturating_mul(WAITING_ALL_SERVICES)
            || self.sources.of(source) >= most.saturating_mul(WAITING_OF_SOURCE_SERVICES)
        {
            return false;
        }
        let Some(state) = self.services.get(key) else { return false };
        if state.waiting.len() < most {
            return true;
        }
        let Some(largest) = state.sources.larger_than(source) else { return false };
        let of_largest = |connection: Key| self.source(connection) == largest;
        let youngest = state
            .waiting
            .positions()
            .rev()
            .find(|(_, waiter)| of_largest(waiter.request.connection))
            .map(|(position, _)| position);
        let Some(position) = youngest else { return false };
        self.reject(key, position, ErrorCode::Crowded);
        true
    }
}
