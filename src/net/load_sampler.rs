//! The load sources: samples the load of this host for the monitor.
//!
//! Owns the readings between two samples, and the notation of a source. Not
//! responsible for what follows from a sample.

use super::background_command::BackgroundCommand;
use super::one_shot::OneShot;
use crate::os::{cpu, cpus, loadavg};
use mio::Waker;
use pegasus_core::base::decimal;
use pegasus_core::base::key_value;
use pegasus_core::base::sample::Sample;
use pegasus_core::base::time::{Moment, Span};
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Readings of the run queue between two samples.
const READINGS_PER_SAMPLE: u64 = 10;
const READING_MIN: Span = Span::from_millis(50);
/// A file or command that gave no reading for so many intervals makes the host count as full.
const STALE_INTERVALS: u64 = 3;
/// The largest file that is read as a reading, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// Where a load comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoadSource {
    /// CPU utilisation and run queue, where the system reports them.
    Cpu,
    /// The load average of the last minute.
    Loadavg,
    /// Pressure stall information of Linux: the share of time in which a task
    /// waited for a CPU, over ten seconds.
    Psi,
    /// A file that something else keeps up to date.
    File(PathBuf),
    /// A command that prints a reading.
    Exec(String),
}

impl LoadSource {
    /// What is read where nothing is configured.
    pub fn default_list() -> Vec<LoadSource> {
        vec![if cpu::MECHANISM == "none" { LoadSource::Loadavg } else { LoadSource::Cpu }]
    }
}

impl fmt::Display for LoadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadSource::Cpu => f.write_str("cpu"),
            LoadSource::Loadavg => f.write_str("loadavg"),
            LoadSource::Psi => f.write_str("psi"),
            LoadSource::File(path) => write!(f, "file:{}", path.display()),
            LoadSource::Exec(command) => write!(f, "exec:{command}"),
        }
    }
}

impl FromStr for LoadSource {
    type Err = String;

    fn from_str(text: &str) -> Result<LoadSource, String> {
        match text.split_once(':') {
            None if text == "cpu" && cpu::MECHANISM == "none" => {
                Err("this system does not report `cpu`".into())
            }
            None if text == "cpu" => Ok(LoadSource::Cpu),
            None if text == "loadavg" && loadavg::MECHANISM == "none" => {
                Err("this system does not report `loadavg`".into())
            }
            None if text == "loadavg" => Ok(LoadSource::Loadavg),
            None if text == "psi" && !cfg!(target_os = "linux") => {
                Err("this system does not report `psi`".into())
            }
            None if text == "psi" => Ok(LoadSource::Psi),
            Some(("file", path)) if !path.is_empty() => Ok(LoadSource::File(path.into())),
            Some(("exec", command)) if !command.is_empty() => Ok(LoadSource::Exec(command.into())),
            _ => Err(format!(
                "no such load source: `{text}` (cpu, loadavg, psi, file:PATH, exec:COMMAND)"
            )),
        }
    }
}

/// What a file or command may say: how full the host is, 0 to 1, or
/// `u=… q=… c=…`: utilisation, requests or tasks queued, workers (each optional).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Reading {
    full: Option<f64>,
    utilisation: Option<f64>,
    queued: Option<f64>,
    cpus: Option<f64>,
}

impl Reading {
    const FULL: Reading = Reading { full: Some(1.0), utilisation: None, queued: None, cpus: None };

    /// None if it is not a reading.
    fn parse(text: &str) -> Option<Reading> {
        let line = text.lines().next()?.trim();
        if !line.contains('=') {
            return Some(Reading {
                full: Some(decimal::parse(line)?.min(1.0)),
                ..Reading::default()
            });
        }
        let mut reading = Reading::default();
        for word in line.split_whitespace() {
            let (key, value) = word.split_once('=')?;
            let value = Some(decimal::parse(value)?);
            match key {
                "u" => reading.utilisation = value.map(|value| value.min(1.0)),
                "q" => reading.queued = value,
                "c" => reading.cpus = value.filter(|cpus| *cpus > 0.0),
                _ => return None,
            }
        }
        Some(reading)
    }
}

/// Samples the sources; the fullest one counts.
pub struct LoadSampler {
    sources: Vec<LoadSource>,
    cpus: f64,
    interval: Span,
    times: Option<cpu::Times>,
    /// CPU time that was used of a quota, and when that was.
    used: Option<(f64, Moment)>,
    runnable: u64,
    readings: u64,
    next_reading: Moment,
    jobs: Vec<LoadJob>,
    /// Sources that failed, which is logged.
    failed: Vec<LoadSource>,
    log_lines: Vec<String>,
    waker: Arc<Waker>,
}

/// A source that may block, read again and again outside of the loop.
struct LoadJob {
    source: LoadSource,
    run: Option<LoadRun>,
    started_at: Moment,
    next_start: Moment,
    last: Option<(Moment, Reading)>,
    /// Why there is none, or no newer one.
    why: String,
}

/// One reading under way.
enum LoadRun {
    Command(BackgroundCommand),
    /// Even a file blocks where its server does not answer.
    File(OneShot<Result<Reading, String>>),
}

impl LoadRun {
    fn start(source: &LoadSource, timeout: Span, waker: Arc<Waker>) -> Option<LoadRun> {
        match source {
            LoadSource::Exec(command) => {
                let command = BackgroundCommand::start(command, timeout.into(), waker);
                Some(LoadRun::Command(command))
            }
            LoadSource::File(path) => {
                let path = path.clone();
                Some(LoadRun::File(OneShot::spawn("file", waker, move || {
                    read_file(&path, timeout)
                })))
            }
            _ => None,
        }
    }

    fn result(&self) -> Option<Result<Reading, String>> {
        match self {
            LoadRun::Command(command) => command.result().map(|output| {
                let parse =
                    |text: String| Reading::parse(&text).ok_or_else(|| invalid_reading(&text));
                output.and_then(parse)
            }),
            LoadRun::File(file) => file.take().map(|result| {
                result.unwrap_or_else(|_| Err("the system had no thread for it".into()))
            }),
        }
    }
}

impl LoadSampler {
    /// A sampler of these sources, for samples every `interval`; `waker` is woken
    /// when a command has ended.
    pub fn new(sources: &[LoadSource], interval: Span, waker: Arc<Waker>) -> LoadSampler {
        let blocking =
            |source: &&LoadSource| matches!(source, LoadSource::Exec(_) | LoadSource::File(_));
        let jobs = sources.iter().filter(blocking).map(|source| LoadJob {
            source: source.clone(),
            run: None,
            started_at: Moment::ZERO,
            next_start: Moment::ZERO,
            last: None,
            why: String::new(),
        });
        LoadSampler {
            cpus: cpus::cpus(),
            interval,
            used: None,
            times: if sources.contains(&LoadSource::Cpu) { cpu::times() } else { None },
            runnable: 0,
            readings: 0,
            next_reading: Moment::ZERO,
            jobs: jobs.collect(),
            failed: Vec::new(),
            log_lines: Vec::new(),
            waker,
            sources: sources.to_vec(),
        }
    }

    /// CPUs that this process may use.
    pub fn cpus(&self) -> f64 {
        self.cpus
    }

    /// Whether the load is that of all tasks of the host, as the system tells it: not of a
    /// part of it, and not what another source says.
    pub fn is_of_all_tasks(&self) -> bool {
        self.sources == [LoadSource::Cpu] && cpus::used().is_none()
    }

    /// When [`handle_timeout`](LoadSampler::handle_timeout) must be called.
    pub fn next_timeout(&self) -> Option<Moment> {
        let cpu = self.sources.contains(&LoadSource::Cpu).then_some(self.next_reading);
        let jobs = self.jobs.iter().filter_map(|job| match job.run {
            None => Some(job.next_start),
            // Then the sample does not wait for it any more.
            Some(_) if job.last.is_none() && job.why.is_empty() => {
                Some(job.started_at + self.timeout())
            }
            Some(_) => None,
        });
        jobs.chain(cpu).min()
    }

    /// Time passed, or a command ended: reads what is to be read between samples.
    pub fn handle_timeout(&mut self, now: Moment) {
        if self.sources.contains(&LoadSource::Cpu) && now >= self.next_reading {
            self.next_reading = now + self.interval.part(READINGS_PER_SAMPLE).max(READING_MIN);
            if let Some(runnable) = cpu::runnable() {
                self.runnable += u64::from(runnable);
                self.readings += 1;
            }
        }
        let timeout = self.timeout();
        for job in &mut self.jobs {
            if let Some(result) = job.run.as_ref().and_then(LoadRun::result) {
                job.run = None;
                match result {
                    Ok(reading) => {
                        job.last = Some((now, reading));
                        job.why.clear();
                    }
                    Err(why) => job.why = why,
                }
            }
            if job.run.is_none() && now >= job.next_start {
                job.started_at = now;
                job.next_start = now + self.interval;
                job.run = LoadRun::start(&job.source, timeout, self.waker.clone());
            } else if job.why.is_empty() && now >= job.started_at + timeout {
                job.why = format!("no reading within {timeout}");
            }
        }
    }

    /// How long a reading may take, and how old it may get.
    fn timeout(&self) -> Span {
        self.interval.times(STALE_INTERVALS)
    }

    /// Whether every source has given a reading, or had the time to.
    pub fn is_ready(&self) -> bool {
        self.jobs.iter().all(|job| job.last.is_some() || job.run.is_none() || !job.why.is_empty())
    }

    /// The load since the last sample. With several sources the fullest counts.
    pub fn sample(&mut self, now: Moment) -> Sample {
        let mut sample =
            Sample { cpus: self.cpus, utilisation: None, queued: None, load: None, full: None };
        let stale = self.timeout();
        for source in self.sources.clone() {
            let reading = match &source {
                LoadSource::Cpu => Ok(self.read_cpus(now)),
                LoadSource::Loadavg => {
                    sample.load = loadavg::averages().map(|averages| averages[0]);
                    sample
                        .load
                        .map(|_| Reading::default())
                        .ok_or_else(|| "the system does not report it".to_string())
                }
                LoadSource::Psi => {
                    pressure().ok_or_else(|| "/proc/pressure/cpu cannot be read".to_string())
                }
                LoadSource::File(_) | LoadSource::Exec(_) => {
                    match self.jobs.iter().find(|job| job.source == source) {
                        Some(LoadJob { last: Some((at, reading)), why, .. })
                            if now.since(*at) <= stale
                                && (why.is_empty() || matches!(source, LoadSource::Exec(_))) =>
                        {
                            Ok(*reading)
                        }
                        Some(LoadJob { why, .. }) if !why.is_empty() => Err(why.clone()),
                        _ => Err(format!("nothing new for {stale}")),
                    }
                }
            };
            let reading = self.accept_reading(source, reading);
            let larger = |one: Option<f64>, other: Option<f64>| {
                one.into_iter().chain(other).reduce(f64::max)
            };
            sample.full = larger(sample.full, reading.full);
            sample.utilisation = larger(sample.utilisation, reading.utilisation);
            sample.queued = larger(sample.queued, reading.queued);
            sample.cpus = reading.cpus.unwrap_or(sample.cpus);
        }
        sample
    }

    /// The reading of a source. One that failed counts as full, which is logged once.
    fn accept_reading(&mut self, source: LoadSource, reading: Result<Reading, String>) -> Reading {
        let position = self.failed.iter().position(|failed| *failed == source);
        match (reading, position) {
            (Ok(reading), None) => reading,
            (Ok(reading), Some(position)) => {
                self.failed.remove(position);
                self.log_lines.push(format!("monitor_load={source} works again"));
                reading
            }
            (Err(why), position) => {
                if position.is_none() {
                    self.log_lines
                        .push(format!("monitor_load={source}: {why}; the host counts as full"));
                    self.failed.push(source);
                }
                Reading::FULL
            }
        }
    }

    /// Log lines about the sources since the last call.
    pub fn take_log_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log_lines)
    }

    /// Within a quota, the part of it that was used.
    fn read_quota(&mut self, now: Moment) -> Option<Reading> {
        let used = cpus::used()?;
        let before = self.used.replace((used, now));
        let part = before.map(|(before, at)| {
            (used - before) / now.since(at).as_secs_f64().max(1e-3) / self.cpus.max(1e-3)
        });
        let utilisation = Some(part.unwrap_or(0.0).clamp(0.0, 1.0));
        // Who waits for the end of a period is not in any run queue.
        Some(Reading { utilisation, queued: Some(0.0), ..Reading::default() })
    }

    fn read_cpus(&mut self, now: Moment) -> Reading {
        if let Some(reading) = self.read_quota(now) {
            return reading;
        }
        let times = cpu::times();
        // Before the first tick there is nothing to compare.
        let utilisation = times.and_then(|times| times.utilisation(&self.times?));
        let mut reading = Reading {
            utilisation: times.map(|_| utilisation.unwrap_or(0.0)),
            ..Reading::default()
        };
        if self.readings > 0 {
            let runnable = self.runnable as f64 / self.readings as f64;
            let busy = reading.utilisation.unwrap_or(0.0) * self.cpus;
            reading.queued = Some((runnable - busy).max(0.0));
        } else if utilisation.is_none() {
            reading.queued = Some(0.0);
        }
        (self.times, self.runnable, self.readings) = (times, 0, 0);
        reading
    }
}

/// `some avg10` of `/proc/pressure/cpu`, a percentage.
fn pressure() -> Option<Reading> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let percent = decimal::parse(key_value::find(some, "avg10")?)?;
    Some(Reading { full: Some((percent / 100.0).clamp(0.0, 1.0)), ..Reading::default() })
}

fn invalid_reading(text: &str) -> String {
    let start: String = text.trim().chars().take(40).collect();
    format!("`{start}` is not a reading (a number from 0 to 1, or u=… q=… c=…)")
}

/// The reading in a file, unless it is missing, old or not a reading.
fn read_file(path: &Path, stale: Span) -> Result<Reading, String> {
    let message = |error: std::io::Error| error.to_string();
    let meta = fs::metadata(path).map_err(message)?;
    // A FIFO would wait for its writer, and its time says nothing.
    if !meta.is_file() {
        return Err("not a regular file".into());
    }
    // Files keep their time in whole seconds on some systems.
    let tolerance = Span::from_secs(1);
    match meta.modified().map_err(message)?.elapsed() {
        Ok(age) if Span::from(age) > stale + tolerance => {
            return Err(format!("older than {stale}"))
        }
        Err(ahead) if Span::from(ahead.duration()) > tolerance => {
            return Err("its time is in the future".into())
        }
        _ => {}
    }
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(message)?;
    Reading::parse(&text).ok_or_else(|| invalid_reading(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_a_number_or_pairs() {
        let full = |number| Some(Reading { full: Some(number), ..Reading::default() });
        assert_eq!((Reading::parse("0.25\n"), Reading::parse("7")), (full(0.25), full(1.0)));
        let reading = Reading::parse("u=0.5 q=3 c=4\nmore").unwrap();
        assert_eq!(
            (reading.utilisation, reading.queued, reading.cpus),
            (Some(0.5), Some(3.0), Some(4.0))
        );
        for bad in ["", "busy", "-1", "NaN", "u=0.5 x=1", "u=", "u=0.5 0.3"] {
            assert_eq!(Reading::parse(bad), None, "{bad:?} was taken");
        }
    }

    #[test]
    fn a_file_that_is_missing_or_old_means_full() {
        let path = std::env::temp_dir().join(format!("pegasus-gauge-{}", std::process::id()));
        let stale = Span::from_secs(2);
        assert!(read_file(&path, stale).is_err());
        fs::write(&path, "0.5").unwrap();
        assert_eq!(read_file(&path, stale).unwrap().full, Some(0.5));
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(10);
        let dated = |time| {
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            read_file(&path, stale)
        };
        assert!(dated(old).is_err());
        assert!(dated(std::time::SystemTime::now() + std::time::Duration::from_secs(60)).is_err());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn sources_have_names() {
        assert_eq!("file:/run/load".parse(), Ok(LoadSource::File("/run/load".into())));
        assert_eq!("exec:/bin/x -y".parse(), Ok(LoadSource::Exec("/bin/x -y".into())));
        for bad in ["", "cpus", "file:", "exec:", "file"] {
            assert!(bad.parse::<LoadSource>().is_err(), "{bad:?} was taken");
        }
    }
}
