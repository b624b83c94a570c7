//! The clients: one loop in one thread for each kind of load.
//!
//! Each takes the doors of a balancer and how long it goes on, and gives a
//! [`Sample`]. Knows balancers only by the addresses where clients come.

pub mod bulk;
pub mod datagrams;
pub mod fresh;
pub mod talk;

use std::time::{Duration, Instant};

/// Requests in progress at the end are waited for so long.
const GRACE: Duration = Duration::from_secs(1);

/// What became of a load.
pub struct Sample {
    begun: Instant,
    ended: Instant,
    /// Connections, messages or bytes that came as they should.
    pub done: u64,
    /// Those that did not.
    pub failed: u64,
    /// Seconds.
    latencies: Vec<f32>,
}

impl Sample {
    fn new() -> Sample {
        let now = Instant::now();
        Sample { begun: now, ended: now, done: 0, failed: 0, latencies: Vec::new() }
    }

    /// So many more are done, which took since then.
    fn did(&mut self, count: u64, since: Instant) {
        self.ended = Instant::now();
        self.done += count;
        self.latencies.push((self.ended - since).as_secs_f32());
    }

    /// From the beginning until the last was done.
    pub fn seconds(&self) -> f64 {
        (self.ended - self.begun).as_secs_f64()
    }

    /// A quantile of the latencies, in seconds.
    pub fn quantile(&mut self, quantile: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1) as f64;
        self.latencies.sort_by(f32::total_cmp);
        self.latencies
            .get((last * quantile).round() as usize)
            .map_or(f64::NAN, |latency| f64::from(*latency))
    }
}
