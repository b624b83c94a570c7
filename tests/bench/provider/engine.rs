//! A host that works by sleeping: worker slots, a queue before them, and how busy it was.
//!
//! Owns the arithmetic of time, in seconds since its own start. A request that waits for
//! a slot starts when the slot became free, not when that was noticed. Knows no socket
//! and no clock.

use std::collections::{BinaryHeap, VecDeque};

/// The properties of a host.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Requests that it works on at once.
    pub workers: usize,
    /// Work done by a worker in a second.
    pub speed: f64,
    /// Other tasks that always want a CPU. With them the host shares its workers evenly
    /// among all tasks, as an operating system does.
    pub hogs: usize,
    /// Time that a request spends elsewhere after its work, in its work at speed 1.
    pub outside: f64,
}

impl Build {
    pub const fn of(workers: usize, speed: f64) -> Build {
        Build { workers, speed, hogs: 0, outside: 0.0 }
    }
}

struct Job {
    token: usize,
    left: f64,
    outside: f64,
}

/// A request that is waiting elsewhere; the earliest is the greatest.
struct Away(f64, usize);

impl Ord for Away {
    fn cmp(&self, other: &Away) -> std::cmp::Ordering {
        other.0.total_cmp(&self.0).then(other.1.cmp(&self.1))
    }
}

impl PartialOrd for Away {
    fn partial_cmp(&self, other: &Away) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Away {
    fn eq(&self, other: &Away) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Away {}

/// How busy it was since the beginning, in seconds of workers and of requests queued.
#[derive(Clone, Copy, Default, Debug)]
pub struct Meter {
    pub at: f64,
    pub busy: f64,
    pub queued: f64,
}

/// The host. Its cost is the arithmetic of a few numbers for each request.
pub struct Engine {
    build: Build,
    jobs: VecDeque<Job>,
    away: BinaryHeap<Away>,
    meter: Meter,
}

/// Less work than this is rounding.
const NOTHING: f64 = 1e-9;

impl Engine {
    pub fn new(build: Build) -> Engine {
        Engine { build, jobs: VecDeque::new(), away: BinaryHeap::new(), meter: Meter::default() }
    }

    pub fn meter(&self) -> Meter {
        self.meter
    }

    /// How many other tasks want a CPU from now on; time must have been advanced to now.
    pub fn set_hogs(&mut self, hogs: usize) {
        self.build.hogs = hogs;
    }

    /// Requests that wait or run.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Forgets all work.
    pub fn clear(&mut self) {
        self.jobs.clear();
        self.away.clear();
    }

    /// Adds a request with this much work; time must have been advanced to its arrival.
    pub fn add(&mut self, token: usize, work: f64) {
        self.jobs.push_back(Job { token, left: work, outside: work * self.build.outside });
    }

    /// Returns how many requests run, and the speed of each.
    fn running(&self) -> (usize, f64) {
        let Build { workers, speed, hogs, .. } = self.build;
        match hogs {
            0 => (self.jobs.len().min(workers), speed),
            _ => {
                let all = self.jobs.len() + hogs;
                (self.jobs.len(), speed * (workers as f64 / all as f64).min(1.0))
            }
        }
    }

    /// Returns the time until the next one is done.
    fn step(&self) -> Option<f64> {
        let (running, rate) = self.running();
        self.jobs.iter().take(running).map(|job| job.left / rate).reduce(f64::min)
    }

    /// Returns when the next one ends, if no other comes.
    pub fn due(&self) -> Option<f64> {
        let worked = self.step().map(|step| self.meter.at + step);
        worked.into_iter().chain(self.away.peek().map(|away| away.0)).reduce(f64::min)
    }

    fn age(&mut self, time: f64) {
        let (running, rate) = self.running();
        for job in self.jobs.iter_mut().take(running) {
            job.left -= time * rate;
        }
        let wanted = self.jobs.len() + self.build.hogs;
        self.meter.at += time;
        self.meter.busy += time * wanted.min(self.build.workers) as f64;
        self.meter.queued += time * wanted.saturating_sub(self.build.workers) as f64;
    }

    /// Advances time; returns the requests that ended.
    pub fn advance(&mut self, to: f64) -> Vec<usize> {
        let mut ended = Vec::new();
        while let Some(step) = self.step().filter(|step| self.meter.at + step <= to) {
            self.age(step);
            let at = self.meter.at;
            let running = self.running().0;
            let mut place = 0;
            for _ in 0..running {
                if self.jobs[place].left > NOTHING {
                    place += 1;
                    continue;
                }
                let Some(job) = self.jobs.remove(place) else { break };
                self.away.push(Away(at + job.outside, job.token));
            }
        }
        self.age((to - self.meter.at).max(0.0));
        while self.away.peek().is_some_and(|away| away.0 <= to) {
            ended.extend(self.away.pop().map(|away| away.1));
        }
        ended
    }
}

#[test]
fn requests_queue_for_the_workers_in_their_order() {
    let mut engine = Engine::new(Build::of(2, 0.5));
    for token in 0..3 {
        engine.add(token, 1.0 + token as f64);
    }
    assert_eq!(engine.due(), Some(2.0));
    // Examined late: the third began at 2 all the same, and ends at 8.
    assert_eq!(engine.advance(3.0), [0]);
    assert_eq!((engine.advance(7.9), engine.advance(8.0)), (vec![1], vec![2]));
    let meter = engine.meter();
    assert_eq!((meter.busy, meter.queued), (12.0, 2.0));
}

#[test]
fn strangers_share_the_workers_and_other_places_need_none() {
    let mut engine = Engine::new(Build { hogs: 3, ..Build::of(1, 1.0) });
    engine.add(7, 1.0);
    assert_eq!(engine.due(), Some(4.0));
    let mut engine = Engine::new(Build { outside: 4.0, ..Build::of(1, 2.0) });
    engine.add(0, 1.0);
    engine.add(1, 1.0);
    assert_eq!((engine.advance(4.6), engine.advance(5.0)), (vec![0], vec![1]));
}
