//! `pegasus top`: the status of queues, live.
//!
//! Owns the screen and the rhythm. Each queue is asked by a thread of its own, so that
//! one that does not answer delays no other. Where standard output is no terminal, the
//! tables follow each other without a control sequence.

use super::table::{cut, write_report, Style};
use super::{ask_status, queues, service, AskedQueue};
use crate::command::exit;
use crate::command::status_report::Report;
use crate::command::terminal::{print_error, shows_unicode};
use crate::os::terminal_size;
use getopts::Matches;
use pegasus_core::base::service_name::ServiceName;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a queue, and two frames.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the size of the terminal is looked at.
const SIZE_INTERVAL: Duration = Duration::from_millis(100);
/// Columns of the bars, where there is room.
const BAR: usize = 20;
/// Narrower terminals have no bars.
const BAR_COLUMNS_MIN: usize = 120;

/// What is known of a queue: the lines of its status, or why there are none.
type Latest = Arc<Mutex<Option<Result<String, String>>>>;

struct Watched {
    queue: AskedQueue,
    latest: Latest,
    /// Grants at the last frame, and when that was.
    before: Option<(u64, Instant)>,
}

/// Runs the command; the result is its exit status.
pub fn run(matches: &Matches) -> i32 {
    let (queues, service) = match (queues("top", matches, &matches.free), service("top", matches)) {
        (Ok(queues), Ok(service)) => (queues, service),
        (Err(status), _) | (_, Err(status)) => return status,
    };
    let frames: Option<u64> = match matches.opt_str("n").map(|text| text.parse()) {
        Some(Err(_)) => {
            print_error("pegasus: top: -n: not a number");
            return exit::USAGE;
        }
        Some(Ok(frames)) => Some(frames),
        None => None,
    };
    let mut watched: Vec<Watched> = queues.into_iter().map(|queue| watch(queue, service)).collect();
    // The first answers, so that the first frame is not empty.
    let start = Instant::now();
    while watched.iter().any(|watched| read(&watched.latest).is_none())
        && start.elapsed() < INTERVAL
    {
        thread::sleep(Duration::from_millis(5));
    }
    let live = io::stdout().is_terminal();
    for frame in 1.. {
        let lines = draw(&mut watched, live);
        if show(&lines, live).is_err() {
            // The reader left, as with `| head`.
            return exit::OK;
        }
        if frames.is_some_and(|frames| frame >= frames) {
            break;
        }
        wait_for_next(live);
    }
    let reachable = watched.iter().all(|watched| matches!(read(&watched.latest), Some(Ok(_))));
    if reachable {
        exit::OK
    } else {
        exit::UNAVAILABLE
    }
}

fn read(latest: &Latest) -> Option<Result<String, String>> {
    latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Asks a queue again and again; the thread ends with the process.
fn watch(queue: AskedQueue, service: Option<ServiceName>) -> Watched {
    let latest = Latest::default();
    let (asked, shared) = (queue.clone(), latest.clone());
    thread::spawn(move || {
        let mut connection = None;
        loop {
            let answer = ask_status(&mut connection, &asked, service);
            if answer.is_err() {
                connection = None;
            }
            let answer = answer.map_err(|error| error.to_string());
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            thread::sleep(INTERVAL);
        }
    });
    Watched { queue, latest, before: None }
}

/// Until the next frame is due; on a terminal that changes its size, at once.
fn wait_for_next(live: bool) {
    let (start, size) = (Instant::now(), terminal_size::get());
    while start.elapsed() < INTERVAL {
        thread::sleep(SIZE_INTERVAL);
        if live && terminal_size::get() != size {
            return;
        }
    }
}

fn draw(watched: &mut [Watched], live: bool) -> Vec<String> {
    let columns = if live { terminal_size::get().map(|(columns, _)| columns) } else { None };
    let wide = columns.is_none_or(|columns| columns >= BAR_COLUMNS_MIN);
    let style = Style {
        unicode: live && shows_unicode(),
        bar: if wide { BAR } else { 0 },
        columns: columns.unwrap_or(usize::MAX),
    };
    let mut lines = Vec::new();
    for watched in watched {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        match read(&watched.latest) {
            Some(Ok(text)) => {
                let report = Report::parse(&text);
                let rate = watched.rate(report.queue.number("granted"));
                let title = format!("{}  {rate} grants/s,", watched.queue);
                write_report(&report, &title, style, &mut lines);
            }
            Some(Err(why)) => lines.push(format!("{}  {why}", watched.queue)),
            None => lines.push(format!("{}  no answer yet", watched.queue)),
        }
    }
    lines
}

impl Watched {
    /// Grants a second since the last frame.
    fn rate(&mut self, granted: u64) -> u64 {
        let now = Instant::now();
        let before = self.before.replace((granted, now));
        let Some((count, since)) = before else { return 0 };
        let millis = (now - since).as_millis().max(1) as u64;
        (granted.saturating_sub(count) * 1000 + millis / 2) / millis
    }
}

/// Shows a frame. On a terminal it takes the place of the one before, and lines that
/// do not fit are cut; the rows below are cleared.
fn show(lines: &[String], live: bool) -> io::Result<()> {
    let mut frame = String::new();
    match terminal_size::get().filter(|_| live) {
        Some((columns, rows)) => {
            // The cursor goes home; each line clears what it does not cover.
            frame.push_str("\x1b[H");
            let shown = rows.saturating_sub(1).max(1);
            for line in lines.iter().take(shown) {
                frame.push_str(&cut(line, columns));
                frame.push_str("\x1b[K\n");
            }
            frame.push_str("\x1b[J");
            if lines.len() > shown {
                frame.push_str(&cut(&format!("… {} more lines", lines.len() - shown), columns));
            }
        }
        None => {
            lines.iter().for_each(|line| frame.extend([line.as_str(), "\n"]));
            frame.push('\n');
        }
    }
    let mut out = io::stdout().lock();
    out.write_all(frame.as_bytes())?;
    out.flush()
}
