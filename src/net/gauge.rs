//! The load sources: looks at the machine for the monitor.
//!
//! Owns the readings between two looks, and the notation of a source. What
//! follows from a look is the law's business.

use super::helper::Helper;
use crate::os::{cpu, cpus, load};
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

/// Looks at the run queue between two looks at the machine.
const READINGS: u64 = 10;
const READING_MIN: Span = Span::from_millis(50);
/// A file or command that said nothing for so many intervals calls the machine full.
const STALE_INTERVALS: u64 = 3;
/// The largest file that is read as a reading, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// Where a load comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// CPU utilisation and run queue, where the system tells them.
    Cpu,
    /// The load average of the last minute.
    Loadavg,
    /// Pressure stall information of Linux: the share of time in which somebody
    /// waited for a CPU, over ten seconds.
    Psi,
    /// A file that something else keeps up to date.
    File(PathBuf),
    /// A command that prints a reading.
    Exec(String),
}

impl Source {
    /// What is read where nothing is configured.
    pub fn default_list() -> Vec<Source> {
        vec![if cpu::MECHANISM == "none" { Source::Loadavg } else { Source::Cpu }]
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Cpu => f.write_str("cpu"),
            Source::Loadavg => f.write_str("loadavg"),
            Source::Psi => f.write_str("psi"),
            Source::File(path) => write!(f, "file:{}", path.display()),
            Source::Exec(command) => write!(f, "exec:{command}"),
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Source, String> {
        match text.split_once(':') {
            None if text == "cpu" && cpu::MECHANISM == "none" => Err("this system does not tell `cpu`".into()),
            None if text == "cpu" => Ok(Source::Cpu),
            None if text == "loadavg" && load::MECHANISM == "none" => Err("this system does not tell `loadavg`".into()),
            None if text == "loadavg" => Ok(Source::Loadavg),
            None if text == "psi" && !cfg!(target_os = "linux") => Err("this system does not tell `psi`".into()),
            None if text == "psi" => Ok(Source::Psi),
            Some(("file", path)) if !path.is_empty() => Ok(Source::File(path.into())),
            Some(("exec", command)) if !command.is_empty() => Ok(Source::Exec(command.into())),
            _ => Err(format!("no such load source: `{text}` (cpu, loadavg, psi, file:PATH, exec:COMMAND)")),
        }
    }
}

/// What a file or command may say: how full the machine is, 0 to 1, or
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
            return Some(Reading { full: Some(decimal::parse(line)?.min(1.0)), ..Reading::default() });
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

/// See the file's head.
pub struct Gauge {
    sources: Vec<Source>,
    cpus: f64,
    interval: Span,
    times: Option<cpu::Times>,
    runnable: u64,
    readings: u64,
    next: Moment,
    commands: Vec<Running>,
    /// Sources of which it is known that they say nothing of use.
    useless: Vec<Source>,
    news: Vec<String>,
    waker: Arc<Waker>,
}

/// A command that is run again and again.
struct Running {
    command: String,
    helper: Option<Helper>,
    next: Moment,
    last: Option<(Moment, Reading)>,
    /// Why there is none, or no newer one.
    why: String,
}

impl Gauge {
    /// A gauge of these sources, for looks every `interval`; `waker` is woken
    /// when a command has ended.
    pub fn new(sources: &[Source], interval: Span, waker: Arc<Waker>) -> Gauge {
        let commands = sources.iter().filter_map(|source| match source {
            Source::Exec(command) => Some(Running {
                command: command.clone(),
                helper: None,
                next: Moment::ZERO,
                last: None,
                why: String::new(),
            }),
            _ => None,
        });
        Gauge {
            cpus: cpus::cpus(),
            interval,
            times: if sources.contains(&Source::Cpu) { cpu::times() } else { None },
            runnable: 0,
            readings: 0,
            next: Moment::ZERO,
            commands: commands.collect(),
            useless: Vec::new(),
            news: Vec::new(),
            waker,
            sources: sources.to_vec(),
        }
    }

    /// CPUs that this process may use.
    pub fn cpus(&self) -> f64 {
        self.cpus
    }

    /// When [`expire`](Gauge::expire) must be called.
    pub fn deadline(&self) -> Option<Moment> {
        let cpu = self.sources.contains(&Source::Cpu).then_some(self.next);
        let idle = self.commands.iter().filter(|running| running.helper.is_none());
        idle.map(|running| running.next).chain(cpu).min()
    }

    /// Time passed, or a command ended: reads what is to be read between looks.
    pub fn expire(&mut self, now: Moment) {
        if self.sources.contains(&Source::Cpu) && now >= self.next {
            self.next = now + self.interval.part(READINGS).max(READING_MIN);
            if let Some(runnable) = cpu::runnable() {
                self.runnable += u64::from(runnable);
                self.readings += 1;
            }
        }
        let timeout = self.interval.times(STALE_INTERVALS);
        for running in &mut self.commands {
            if let Some(output) = running.helper.as_ref().and_then(Helper::done) {
                running.helper = None;
                let parse = |text: String| Reading::parse(&text).ok_or_else(|| no_reading(&text));
                match output.and_then(parse) {
                    Ok(reading) => running.last = Some((now, reading)),
                    Err(why) => running.why = why,
                }
            }
            if running.helper.is_none() && now >= running.next {
                running.next = now + self.interval;
                running.helper = Some(Helper::start(&running.command, timeout.into(), self.waker.clone()));
            }
        }
    }

    /// Whether every command has said something, or had the time to.
    pub fn ready(&self) -> bool {
        self.commands.iter().all(|running| running.last.is_some() || running.helper.is_none())
    }

    /// What was seen since the last look. With several sources the fullest counts.
    pub fn look(&mut self, now: Moment) -> Sample {
        let mut sample = Sample { cpus: self.cpus, utilisation: None, queued: None, load: None, full: None };
        let stale = self.interval.times(STALE_INTERVALS);
        for source in self.sources.clone() {
            let reading = match &source {
                Source::Cpu => Ok(self.look_at_cpus()),
                Source::Loadavg => {
                    sample.load = load::averages().map(|averages| averages[0]);
                    sample.load.map(|_| Reading::default()).ok_or_else(|| "the system does not tell it".to_string())
                }
                Source::Psi => pressure().ok_or_else(|| "/proc/pressure/cpu cannot be read".to_string()),
                Source::File(path) => read_file(path, stale),
                Source::Exec(command) => match self.commands.iter().find(|running| running.command == *command) {
                    Some(Running { last: Some((at, reading)), .. }) if now.since(*at) <= stale => Ok(*reading),
                    Some(Running { why, .. }) if !why.is_empty() => Err(why.clone()),
                    _ => Err(format!("nothing new for {stale}")),
                },
            };
            let reading = self.judge(source, reading);
            let most = |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).reduce(f64::max);
            sample.full = most(sample.full, reading.full);
            sample.utilisation = most(sample.utilisation, reading.utilisation);
            sample.queued = most(sample.queued, reading.queued);
            sample.cpus = reading.cpus.unwrap_or(sample.cpus);
        }
        sample
    }

    /// What a source that says nothing of use means, and telling so once.
    fn judge(&mut self, source: Source, reading: Result<Reading, String>) -> Reading {
        let known = self.useless.iter().position(|useless| *useless == source);
        match (reading, known) {
            (Ok(reading), None) => reading,
            (Ok(reading), Some(known)) => {
                self.useless.remove(known);
                self.news.push(format!("monitor_load={source} is of use again"));
                reading
            }
            (Err(why), known) => {
                if known.is_none() {
                    self.news.push(format!("monitor_load={source}: {why}; the machine counts as full"));
                    self.useless.push(source);
                }
                Reading::FULL
            }
        }
    }

    /// What became of the sources since the last call, for the log.
    pub fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    fn look_at_cpus(&mut self) -> Reading {
        let times = cpu::times();
        // Before the first tick nothing is known, and nothing can be learned.
        let utilisation = times.and_then(|times| times.utilisation(&self.times?));
        let mut reading = Reading { utilisation: times.map(|_| utilisation.unwrap_or(0.0)), ..Reading::default() };
        if self.readings > 0 {
            let running = self.runnable as f64 / self.readings as f64;
            let busy = reading.utilisation.unwrap_or(0.0) * self.cpus;
            reading.queued = Some((running - busy).max(0.0));
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

fn no_reading(text: &str) -> String {
    let start: String = text.trim().chars().take(40).collect();
    format!("`{start}` is no reading (a number from 0 to 1, or u=… q=… c=…)")
}

/// What a file says, unless it is missing, old or no reading.
fn read_file(path: &Path, stale: Span) -> Result<Reading, String> {
    let told = |error: std::io::Error| error.to_string();
    let changed = fs::metadata(path).and_then(|meta| meta.modified()).map_err(told)?;
    // Files keep their time in whole seconds on some systems.
    if Span::from(changed.elapsed().unwrap_or_default()) > stale + Span::from_secs(1) {
        return Err(format!("older than {stale}"));
    }
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)).map_err(told)?;
    Reading::parse(&text).ok_or_else(|| no_reading(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_a_number_or_pairs() {
        let full = |number| Some(Reading { full: Some(number), ..Reading::default() });
        assert_eq!((Reading::parse("0.25\n"), Reading::parse("7")), (full(0.25), full(1.0)));
        let reading = Reading::parse("u=0.5 q=3 c=4\nmore").unwrap();
        assert_eq!((reading.utilisation, reading.queued, reading.cpus), (Some(0.5), Some(3.0), Some(4.0)));
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
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        assert!(read_file(&path, stale).is_err());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn sources_have_names() {
        assert_eq!("file:/run/load".parse(), Ok(Source::File("/run/load".into())));
        assert_eq!("exec:/bin/x -y".parse(), Ok(Source::Exec("/bin/x -y".into())));
        for bad in ["", "cpus", "file:", "exec:", "file"] {
            assert!(bad.parse::<Source>().is_err(), "{bad:?} was taken");
        }
    }
}
