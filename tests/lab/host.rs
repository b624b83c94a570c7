//! A host that provides: CPUs shared evenly by whatever runs.
//!
//! Owns the requests in it, their progress and what a load source would see of
//! it. Knows no balancer, no network and no ticket.

use pegasus_core::base::time::{Moment, Span};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// How often, and over how long, an operating system averages its load.
const LOAD_STEP: f64 = 5.0;
const LOAD_MEMORY: f64 = 60.0;

/// Work done or to be done, in seconds of a CPU of speed 1.
#[derive(Clone, Copy, PartialEq)]
struct Work(f64);

impl Eq for Work {}

impl PartialOrd for Work {
    fn partial_cmp(&self, other: &Work) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Work {
    fn cmp(&self, other: &Work) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// What was seen since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Mean part of the CPUs that was busy.
    pub utilisation: f64,
    /// Mean number of runnable tasks beyond the CPUs.
    pub queued: f64,
    /// The load average.
    pub load: f64,
}

/// A host whose CPUs are shared evenly by whatever runs.
pub struct Host {
    pub cpus: f64,
    pub speed: f64,
    /// Tasks of others that always run.
    hogs: f64,
    /// By the work that each running task will have seen done when it ends.
    running: BinaryHeap<Reverse<(Work, usize)>>,
    /// Work that a task running since the beginning would have seen done.
    done: f64,
    updated: Moment,
    busy: f64,
    queued: f64,
    looked: Moment,
    load: f64,
    load_at: Moment,
    /// Of the completion that was announced last; earlier ones are void.
    pub announced: u64,
    /// How often it lost all that was in it.
    pub life: u32,
    /// The service runs: connections are not refused.
    pub up: bool,
    /// The host hears and says nothing.
    pub silent: bool,
    /// Its check fails, though it serves.
    pub unfit: bool,
    /// It answers errors at once, or ends at once without an answer.
    pub errs: bool,
    pub ends: bool,
    /// Requests take so many times as long, without using a CPU.
    pub drags: f64,
    /// Part of its requests that is never answered.
    pub hangs: f64,
}

impl Host {
    pub fn new(cpus: f64, speed: f64) -> Host {
        Host {
            cpus,
            speed,
            hogs: 0.0,
            running: BinaryHeap::new(),
            done: 0.0,
            updated: Moment::ZERO,
            busy: 0.0,
            queued: 0.0,
            looked: Moment::ZERO,
            load: 0.0,
            load_at: Moment::ZERO,
            announced: 0,
            life: 0,
            up: true,
            silent: false,
            unfit: false,
            errs: false,
            ends: false,
            drags: 1.0,
            hangs: 0.0,
        }
    }

    /// Requests in it.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    fn runnable(&self) -> f64 {
        self.running.len() as f64 + self.hogs
    }

    /// Work a second that each task gets done.
    fn pace(&self) -> f64 {
        self.speed * (self.cpus / self.runnable().max(1e-9)).min(1.0)
    }

    fn advance(&mut self, now: Moment) {
        let seconds = now.since(self.updated).as_secs_f64();
        let runnable = self.runnable();
        self.done += seconds * self.pace();
        self.busy += seconds * (runnable / self.cpus).min(1.0);
        self.queued += seconds * (runnable - self.cpus).max(0.0);
        self.updated = now;
        while now.since(self.load_at).as_secs_f64() >= LOAD_STEP {
            self.load_at = self.load_at + Span::from_secs_f64(LOAD_STEP);
            let kept = (-LOAD_STEP / LOAD_MEMORY).exp();
            self.load = self.load * kept + runnable * (1.0 - kept);
        }
    }

    /// A request wants so much work done.
    pub fn run(&mut self, request: usize, work: f64, now: Moment) {
        self.advance(now);
        self.running.push(Reverse((Work(self.done + work), request)));
    }

    /// Another speed from now on.
    pub fn set_speed(&mut self, speed: f64, now: Moment) {
        self.advance(now);
        self.speed = speed;
    }

    /// How many tasks of others run from now on.
    pub fn set_hogs(&mut self, hogs: f64, now: Moment) {
        self.advance(now);
        self.hogs = hogs;
    }

    /// Requests that are ready now.
    pub fn completed(&mut self, now: Moment) -> Vec<usize> {
        self.advance(now);
        let mut completed = Vec::new();
        while let Some(Reverse((Work(_), request))) =
            self.running.peek().filter(|next| next.0 .0 .0 <= self.done)
        {
            completed.push(*request);
            self.running.pop();
        }
        completed
    }

    /// When the next request will be ready, if nothing changes.
    pub fn next_completion(&self) -> Option<Moment> {
        let Reverse((Work(at), _)) = self.running.peek()?;
        // A nanosecond later rather than earlier, so that it is ready then.
        let seconds = (at - self.done).max(0.0) / self.pace();
        Some(self.updated + Span::from_secs_f64(seconds) + Span::from_nanos(1))
    }

    /// All that is in it is lost.
    pub fn lose(&mut self, now: Moment) {
        self.advance(now);
        self.running.clear();
        self.life += 1;
    }

    /// What happened since the last look.
    pub fn look(&mut self, now: Moment) -> Seen {
        self.advance(now);
        let seconds = now.since(self.looked).as_secs_f64().max(1e-9);
        let seen = Seen {
            utilisation: self.busy / seconds,
            queued: self.queued / seconds,
            load: self.load,
        };
        (self.busy, self.queued, self.looked) = (0.0, 0.0, now);
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::after_start(Span::from_millis(millis))
    }

    #[test]
    fn tasks_share_the_cpus_evenly_and_others_take_their_part() {
        let mut host = Host::new(1.0, 2.0);
        for request in [7, 8] {
            host.run(request, 0.1, at(0));
        }
        // Two tasks on one CPU of speed 2: each at speed 1.
        let ready = host.next_completion().unwrap();
        assert!(ready >= at(100) && ready < at(101));
        host.set_hogs(2.0, at(50));
        // Then four: at half of that.
        let ready = host.next_completion().unwrap();
        assert!(ready >= at(150) && ready < at(151));
        assert_eq!(host.completed(at(149)), []);
        let mut both = host.completed(at(151));
        both.sort_unstable();
        assert_eq!(both, [7, 8]);
        let seen = host.look(at(200));
        assert!((seen.utilisation - 1.0).abs() < 1e-6);
        assert!((seen.queued - (0.05 + 0.101 * 3.0 + 0.049) / 0.2).abs() < 1e-6, "{seen:?}");
    }

    #[test]
    fn a_load_average_lags_by_a_minute() {
        let mut host = Host::new(4.0, 1.0);
        host.set_hogs(10.0, at(0));
        assert!((host.look(at(60_000)).load - 6.3).abs() < 0.1);
        assert!(host.look(at(600_000)).load > 9.9);
    }
}
