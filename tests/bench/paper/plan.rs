//! What happens when in a run.
//!
//! Owns the providers' speeds, which of them has which misfortune, and the times of these.

use std::time::Duration;

/// From when to when, since the first request.
pub type Span = (Duration, Duration);

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Work that a slot does in a second, by provider.
    pub speeds: Vec<f64>,
    /// Requests that a provider works on at once.
    pub slots: usize,
    /// Mean work of a request.
    pub work: Duration,
    /// Requests a second.
    pub rate: f64,
    /// Not measured, and the part that is.
    pub warm: Duration,
    pub length: Duration,
    /// The provider with tasks of others, the one that dies and is drained, the sick one.
    pub busy: usize,
    pub dies: usize,
    pub sick: usize,
    pub antagonist: Span,
    pub crash: Span,
    pub sickness: Span,
    pub drain: Span,
}

impl Plan {
    /// `count` providers of speed 1, 2, 4 in turn; `load` is the part of their capacity that
    /// the requests need.
    pub fn new(count: usize, load: f64, warm: f64, length: f64) -> Plan {
        let speeds: Vec<f64> = (0..count).map(|place| [1.0, 2.0, 4.0][place % 3]).collect();
        let (slots, work) = (2, Duration::from_millis(100));
        let capacity = slots as f64 * speeds.iter().sum::<f64>() / work.as_secs_f64();
        let at = |part: f64| Duration::from_secs_f64(warm + part * length);
        let span = |from: f64, to: f64| (at(from), at(to));
        let place = |wanted: usize| wanted.min(count - 1);
        Plan {
            speeds,
            slots,
            work,
            rate: load * capacity,
            warm: Duration::from_secs_f64(warm),
            length: Duration::from_secs_f64(length),
            busy: place(2),
            dies: place(1),
            sick: 0,
            antagonist: span(0.12, 0.30),
            crash: span(0.38, 0.52),
            sickness: span(0.62, 0.76),
            drain: span(0.84, 0.94),
        }
    }

    pub fn all(&self) -> Duration {
        self.warm + self.length
    }

    /// The troubles by name.
    pub fn spans(&self) -> [(&'static str, Span); 3] {
        [("antagonist", self.antagonist), ("crash", self.crash), ("sick", self.sickness)]
    }

    /// When there is none.
    pub fn calm(&self) -> [Span; 3] {
        [
            (self.warm, self.antagonist.0),
            (self.antagonist.1, self.crash.0),
            (self.crash.1, self.sickness.0),
        ]
    }
}
