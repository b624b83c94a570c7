//! A system that tells its run queue or its CPU times, but averages neither:
//! Windows. A thread samples them as a Unix kernel does, every five seconds.

use crate::os::{cpu, cpus};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// As in Unix since the 1970s, and in no step with any program's whole seconds.
const PERIOD: Duration = Duration::from_millis(5_010);
/// Some ticks of a system's clock, enough to tell busy from idle.
const FIRST: Duration = Duration::from_millis(100);
/// The periods of the three averages, in seconds.
const MEMORIES: [f64; 3] = [60.0, 300.0, 900.0];

/// The averages after `seconds` with `load` tasks that ran or waited: each
/// forgets with `e^(-seconds/memory)`, however long the step was. The first
/// sample is taken as what always was, lest a host that is full looks idle when
/// its monitor starts.
fn damped(averages: Option<[f64; 3]>, load: f64, seconds: f64) -> [f64; 3] {
    let Some(mut averages) = averages else { return [load; 3] };
    for (average, memory) in averages.iter_mut().zip(MEMORIES) {
        let kept = (-seconds / memory).exp();
        *average = *average * kept + load * (1.0 - kept);
    }
    averages
}

static AVERAGES: Mutex<Option<[f64; 3]>> = Mutex::new(None);
static SAMPLER: OnceLock<()> = OnceLock::new();

/// Tasks that run or wait now; without a run queue, the busy CPUs since `earlier`.
fn sample(earlier: Option<cpu::Times>, times: Option<cpu::Times>) -> Option<f64> {
    let busy = || Some(times?.utilisation(&earlier?)? * cpus::cpus());
    cpu::runnable().map(f64::from).or_else(busy)
}

/// Waits, then takes one sample.
fn step(pause: Duration) {
    let start = Instant::now();
    let earlier = cpu::times();
    thread::sleep(pause);
    if let (Some(load), Ok(mut averages)) = (sample(earlier, cpu::times()), AVERAGES.lock()) {
        *averages = Some(damped(*averages, load, start.elapsed().as_secs_f64()));
    }
}

/// Mean tasks that ran or waited over the last 1, 5 and 15 minutes, as far as
/// they were seen: the first call takes the first sample, for a tenth of a second.
pub fn averages() -> Option<[f64; 3]> {
    SAMPLER.get_or_init(|| {
        step(FIRST);
        thread::spawn(|| loop {
            step(PERIOD);
        });
    });
    *AVERAGES.lock().ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What n periods with that load make of it.
    fn after(mut averages: [f64; 3], load: f64, periods: usize) -> [f64; 3] {
        for _ in 0..periods {
            averages = damped(Some(averages), load, 5.0);
        }
        averages
    }

    #[test]
    fn one_period_forgets_as_unix_does() {
        // e^(-5/60), e^(-5/300), e^(-5/900)
        let kept = [0.9200444146293233, 0.9834714538216175, 0.9944598480048967];
        assert_eq!(damped(Some([1.0; 3]), 0.0, 5.0), kept);
        let rising = damped(Some([0.0; 3]), 4.0, 5.0);
        for (rising, kept) in rising.iter().zip(kept) {
            assert!((rising - 4.0 * (1.0 - kept)).abs() < 1e-12, "{rising}");
        }
    }

    #[test]
    fn a_step_is_seen_by_two_thirds_after_the_memory() {
        let share = 1.0 - (-1.0f64).exp();
        for (average, periods) in [12, 60, 180].into_iter().enumerate() {
            assert!((after([0.0; 3], 2.0, periods)[average] - 2.0 * share).abs() < 1e-9);
        }
    }

    #[test]
    fn the_first_sample_is_what_always_was() {
        assert_eq!(damped(None, 7.0, 0.1), [7.0; 3]);
    }

    #[test]
    fn one_long_step_is_as_many_short_ones() {
        let long = damped(Some([3.0; 3]), 1.0, 3600.0);
        let short = after([3.0; 3], 1.0, 720);
        assert!(
            long.iter().zip(short).all(|(long, short)| (long - short).abs() < 1e-9),
            "{long:?} {short:?}"
        );
    }

    #[test]
    fn steady_load_stays() {
        assert!(after([1.5; 3], 1.5, 1000).iter().all(|load| (load - 1.5).abs() < 1e-9));
    }

    #[test]
    fn the_first_question_is_answered() {
        assert!(averages().is_some_and(|averages| averages.iter().all(|load| *load >= 0.0)));
    }
}
