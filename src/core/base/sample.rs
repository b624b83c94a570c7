//! A look at the host: what a load source tells and the load law reads.

/// What was seen of the host over the last interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// CPUs that may be used; perhaps a fraction of one.
    pub cpus: f64,
    /// Utilisation of these, 0..=1, where the system tells.
    pub utilisation: Option<f64>,
    /// Mean number of tasks that waited for a CPU, where the system tells.
    pub queued: Option<f64>,
    /// The load average of the last minute, where that is a source.
    pub load: Option<f64>,
    /// How full the host is, 0..=1, where a source says just that.
    pub full: Option<f64>,
}
