//! The file with a host's load, for `monitor_load=file:`.
//!
//! Owns the readings that the next report covers. Knows no client.

use super::engine::{Build, Engine, Meter};
use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Time between two reports, and the reports that a reading covers.
pub const PUBLISH: Duration = Duration::from_millis(200);
const MEAN_OF: usize = 5;

pub struct LoadFile {
    path: PathBuf,
    workers: usize,
    meters: VecDeque<Meter>,
}

impl LoadFile {
    /// Of a host that is built like this.
    pub fn new(path: PathBuf, build: &Build) -> LoadFile {
        LoadFile { path, workers: build.workers, meters: VecDeque::new() }
    }

    /// Utilisation and queue, as the mean of the last second.
    pub fn publish(&mut self, engine: &Engine) {
        let now = engine.meter();
        self.meters.push_back(now);
        let before = self.meters[0];
        if self.meters.len() > MEAN_OF {
            self.meters.pop_front();
        }
        let time = (now.at - before.at).max(1e-3);
        let busy = (now.busy - before.busy) / time / self.workers as f64;
        let queued = (now.queued - before.queued) / time;
        // A reader meanwhile sees the complete old file.
        let new = self.path.with_extension("new");
        let text = format!("u={busy:.4} q={queued:.4} c={}\n", self.workers);
        if fs::write(&new, text).is_ok() {
            let _ = fs::rename(&new, &self.path);
        }
    }
}
