//! How quick a provider is lately, beside how quick it usually is.
//!
//! Owns the suspicion of a provider that suddenly answers much quicker than it
//! used to: bytes flow, and still they may be errors. While it is suspected, its
//! requests count for as long as they would usually have taken (its shadow), so
//! that it draws no more than its share. Owns no order of providers.

use crate::base::time::{Moment, Span};

/// Requests that must have ended before anything is usual.
const SAMPLES_MIN: u32 = 20;
/// Part of one request in what is lately.
const PART: f64 = 0.05;
/// A request counts for so many times the usual time at the most; and its natural logarithm.
const LONGEST: f64 = 8.0;
const LONGEST_LOGARITHM: f64 = 3.0 * std::f64::consts::LN_2;
/// So many times quicker than usual is suspect, and until it is only so many
/// times quicker; natural logarithms of 2.2 and 1.6.
const SUSPECT: f64 = 0.8;
const INNOCENT: f64 = 0.5;
/// Suspected requests count for this part of their usual time.
const SHADOW: f64 = 0.75;
/// What is usual follows what is lately within so many times the provider's age,
/// within these seconds.
const MEMORY_AGES: f64 = 4.0;
const MEMORY_MIN: f64 = 5.0;
const MEMORY_MAX: f64 = 300.0;

/// How quick a provider is lately, and how quick it usually is.
#[derive(Debug)]
pub(super) struct Pace {
    samples: u32,
    /// The mean time lately, in seconds.
    mean: f64,
    /// What is usual, as a natural logarithm of seconds.
    usual: f64,
    came: Moment,
    ended: Moment,
    suspected: bool,
    /// Requests of the usual time that would be in progress, at that moment.
    shadow: f64,
    at: Moment,
}

impl Pace {
    pub(super) fn new(now: Moment) -> Pace {
        Pace {
            samples: 0,
            mean: 0.0,
            usual: 0.0,
            came: now,
            ended: now,
            suspected: false,
            shadow: 0.0,
            at: now,
        }
    }

    /// A request that was served ended; it took so many seconds, of which this is the
    /// natural logarithm.
    pub(super) fn ended(&mut self, seconds: f64, logarithm: f64, now: Moment) {
        self.samples = self.samples.saturating_add(1);
        // One that stays for hours is no reason to expect that from all. This is done for
        // every request, so logarithms are compared, and a power is found for those only.
        let is_longest = self.samples > SAMPLES_MIN && logarithm > self.usual + LONGEST_LOGARITHM;
        let most = if is_longest { LONGEST * self.usual.exp() } else { f64::INFINITY };
        let part = PART.max(1.0 / f64::from(self.samples));
        self.mean += part * (seconds.clamp(1e-6, most) - self.mean);
        let lately = self.mean.ln();
        if self.samples <= SAMPLES_MIN {
            self.usual = lately;
        }
        let memory =
            (MEMORY_AGES * now.since(self.came).as_secs_f64()).clamp(MEMORY_MIN, MEMORY_MAX);
        let passed = now.since(self.ended).as_secs_f64();
        self.usual += (1.0 - (-passed / memory).exp()) * (lately - self.usual);
        self.ended = now;
        let limit = self.usual - if self.suspected { INNOCENT } else { SUSPECT };
        self.suspected = self.samples > SAMPLES_MIN && lately < limit;
    }

    /// Whether what it takes lately says nothing about its speed.
    pub(super) fn suspect(&self) -> bool {
        self.suspected
    }

    fn memory(&self) -> f64 {
        SHADOW * self.usual.exp()
    }

    fn settle(&mut self, now: Moment) {
        if self.shadow > 0.0 {
            self.shadow *= (-now.since(self.at).as_secs_f64() / self.memory().max(1e-6)).exp();
            if self.shadow < 0.37 {
                self.shadow = 0.0;
            }
        }
        self.at = now;
    }

    /// A request is granted. Returns the shadow with it.
    pub(super) fn granted(&mut self, now: Moment) -> u32 {
        self.settle(now);
        self.shadow = if self.suspect() { self.shadow + 1.0 } else { 0.0 };
        self.requests()
    }

    /// Its shadow now.
    pub(super) fn shadow(&mut self, now: Moment) -> u32 {
        self.settle(now);
        self.requests()
    }

    /// The shadow in whole requests. Mostly there is none, and rounding up is slow where the
    /// processor cannot do it.
    fn requests(&self) -> u32 {
        if self.shadow == 0.0 {
            return 0;
        }
        self.shadow.ceil() as u32
    }

    /// When the shadow will be shorter.
    pub(super) fn changes(&self) -> Moment {
        if self.shadow == 0.0 {
            return Moment::NEVER;
        }
        self.at + Span::from_secs_f64((self.memory() / 8.0).max(1e-3))
    }
}
