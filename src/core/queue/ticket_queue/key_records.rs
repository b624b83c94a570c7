//! Which keys the providers have to do with.
//!
//! Owns the key that registered each provider, and the balancers' keys that were given it.

use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::protocol::peer_key::KeyName;
use std::collections::HashMap;

/// What the queue knows of the keys of one provider of one service.
#[derive(Debug, Default)]
pub(super) struct ProviderKeys {
    /// The key of its last offer.
    pub(super) registered: Option<KeyName>,
    /// The keys of the balancers that it was given to, sorted. At most as many as there
    /// are keys.
    pub(super) given: Vec<KeyName>,
}

/// Which keys the providers have to do with. Bounded by providers and keys.
#[derive(Debug, Default)]
pub(super) struct KeyRecords {
    pub(super) providers: HashMap<(ServiceName, Provider), ProviderKeys>,
    /// Handshakes that failed and records that were forged, since the start.
    pub(super) refusals: u64,
}
