//! What a monitor says of itself, with and without admin addresses.

use pegasus_core::base::service_name::ServiceName;
use std::collections::BTreeMap;

/// What a monitor offers.
#[derive(Clone, Debug, Default)]
pub struct MonitorState {
    /// The last sample, as `monitor --once` prints it.
    pub sample: String,
    /// The part of the processors in use, in thousandths, if that is known.
    pub utilisation: Option<u64>,
    /// By service and balancer: tickets and capacity that were sent last.
    pub offers: BTreeMap<(ServiceName, String), (u32, u32)>,
    /// By service: its slots and the requests in progress, in thousandths.
    pub slots: BTreeMap<ServiceName, (u64, u64)>,
    /// By balancer: whether it is connected.
    pub balancers: BTreeMap<String, bool>,
}
