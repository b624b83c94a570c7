//! Whose the tasks of this host are: of clients of its services, or of others.
//!
//! Owns a thread, because the system's list of sockets may be long. Both readings are of
//! the same moment: what runs beyond the connections of that moment is of others.

use crate::os::{connections, cpu};
use pegasus_core::base::time::Span;
use std::sync::mpsc::{sync_channel, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Readings for each sample, and the shortest time between two.
const READINGS_PER_SAMPLE: u64 = 10;
const READING_MIN: Duration = Duration::from_millis(20);
/// A reading takes at most this part of the time: the pause after it is so many times as
/// long.
const PAUSE: u32 = 20;

/// Sums since the last sample.
#[derive(Default)]
struct Sums {
    readings: f64,
    connections: u64,
    own: f64,
    foreign: f64,
}

/// Reads until it is dropped.
pub struct TaskSampler {
    sums: Arc<Mutex<Sums>>,
    /// The thread ends when this is dropped.
    _alive: SyncSender<()>,
}

impl TaskSampler {
    /// A sampler for services at these ports, for samples every `interval`; none where the
    /// system has no thread for it.
    pub fn start(ports: Vec<u16>, interval: Span) -> Option<TaskSampler> {
        let (alive, ended) = sync_channel::<()>(0);
        let sums: Arc<Mutex<Sums>> = Arc::default();
        let shared = sums.clone();
        let pause = Duration::from(interval.part(READINGS_PER_SAMPLE)).max(READING_MIN);
        let read = move || loop {
            let start = Instant::now();
            let (connections, tasks) = (connections::established(&ports), cpu::runnable());
            if let (Some(connections), Some(tasks)) = (connections, tasks) {
                let own = u64::from(tasks).min(connections);
                let mut sums = shared.lock().unwrap_or_else(PoisonError::into_inner);
                sums.readings += 1.0;
                sums.connections += connections;
                sums.own += own as f64;
                sums.foreign += (u64::from(tasks) - own) as f64;
            }
            let pause = pause.max(start.elapsed() * PAUSE);
            if ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        };
        thread::Builder::new().name("tasks".into()).spawn(read).ok()?;
        Some(TaskSampler { sums, _alive: alive })
    }

    /// Mean tasks of clients and of others since the last call; none where that is not
    /// known. Without any connection the services may be of another kind.
    pub fn sample(&mut self) -> Option<(f64, f64)> {
        let sums = std::mem::take(&mut *self.sums.lock().unwrap_or_else(PoisonError::into_inner));
        let known = sums.readings > 0.0 && sums.connections > 0;
        known.then(|| (sums.own / sums.readings, sums.foreign / sums.readings))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn wait(sampler: &mut TaskSampler, mut holds: impl FnMut(Option<(f64, f64)>) -> bool) {
        let start = Instant::now();
        while !holds(sampler.sample()) {
            assert!(start.elapsed() < Duration::from_secs(30), "never");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn tasks_are_known_while_there_are_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut sampler = TaskSampler::start(vec![port], Span::from_millis(10)).unwrap();
        assert_eq!(sampler.sample(), None);
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // One connection is at most one task.
        wait(&mut sampler, |tasks| tasks.is_some_and(|(own, _)| own <= 1.0));
        drop((client, listener));
        wait(&mut sampler, |tasks| tasks.is_none());
    }
}
