//! The demo for people: a table that moves, and keys that break things.
//!
//! Owns the screen, the keys and the words of both. Without a terminal it prints table
//! after table, and takes keys by lines.

use super::clients::{Clients, Seen, CLIENTS, CLIENTS_MAX};
use super::cluster::Cluster;
use super::screen::Screen;
use crate::command::exit;
use crate::command::terminal::{print_line, shows_unicode};
use crate::os::keyboard::Keyboard;
use std::fmt::Display;
use std::io::{self, IsTerminal, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Columns of the longest bar.
const BAR: usize = 12;
/// How many clients `+` adds, and `-` takes away.
const STEP: usize = 4;
/// How often it is looked whether a key wants another table at once.
const LOOK: Duration = Duration::from_millis(20);
/// Ctrl-C and Ctrl-D, where they are keys.
const ENDING: [u8; 2] = [3, 4];

/// What the keys did, for the table.
#[derive(Default)]
struct Typed {
    /// Lines that were shown while they were typed.
    lines: AtomicUsize,
    changed: AtomicBool,
    over: AtomicBool,
}

/// Runs until the user has enough; the result is an exit status.
///
/// # Errors
/// The queue does not answer.
pub fn run(cluster: Cluster) -> io::Result<i32> {
    let at_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let keyboard = if at_terminal { Keyboard::start() } else { None };
    introduce(&cluster, keyboard.is_some());
    let cluster = Arc::new(cluster);
    let clients = Arc::new(Clients::of(cluster.address));
    if at_terminal {
        clients.set_wanted(CLIENTS);
    }
    let typed = Arc::new(Typed::default());
    let (shared, asked, told) = (cluster.clone(), clients.clone(), typed.clone());
    let by_lines = keyboard.is_none();
    thread::spawn(move || read_keys(&shared, &asked, &told, by_lines));
    let start = Instant::now();
    let mut screen = Screen::default();
    let mut before: Option<(Vec<u64>, Instant)> = None;
    while !typed.over.load(Ordering::SeqCst) {
        // Each Enter moved the cursor down a line.
        screen.lines += typed.lines.swap(0, Ordering::SeqCst);
        screen.show(&table(&cluster, &clients, &mut before)?);
        let shown = Instant::now();
        while shown.elapsed() < screen.interval()
            && !typed.over.load(Ordering::SeqCst)
            && !typed.changed.swap(false, Ordering::SeqCst)
        {
            thread::sleep(LOOK);
        }
    }
    clients.wait_for_the_end();
    drop(keyboard);
    screen.show(&table(&cluster, &clients, &mut None)?);
    if at_terminal {
        let Seen { answered, failed, longest } = clients.seen();
        print_line(format_args!(
            "\nIn {} s: {answered} requests answered, {failed} failed; the longest took {}.\n\
             No weight was configured: the providers' tickets led the clients.",
            start.elapsed().as_secs(),
            in_seconds(longest)
        ));
    }
    Ok(exit::OK)
}

fn introduce(cluster: &Cluster, single_keys: bool) {
    let Cluster { address, queue, .. } = cluster;
    // As it was typed, so that what is printed can be typed.
    let program = std::env::args().next().unwrap_or_else(|| "pegasus".into());
    print_line(format_args!("Three providers compete for the clients of http://{address}/"));
    print_line("\nIn another terminal:");
    print_line(format_args!("  while sleep 0.1; do curl -s http://{address}/; done"));
    print_line(format_args!("  {program} top {queue}"));
    if let Some(page) = cluster.page {
        print_line(format_args!("In a browser, live:\n  http://{page}/"));
    }
    let enter = if single_keys { "" } else { ", with Enter" };
    print_line(format_args!("\nHere{enter}: 1, 2 or 3 kills a provider or brings it back;"));
    print_line("s makes the first one slow, or quick again; c stops clients or starts them;");
    print_line("+ and - change their number; q ends.\n");
}

/// The table with rates and bars, and a line of what the clients saw.
fn table(
    cluster: &Cluster,
    clients: &Clients,
    before: &mut Option<(Vec<u64>, Instant)>,
) -> io::Result<Vec<String>> {
    let (served, mut lines) = cluster.rows()?;
    let now = Instant::now();
    let rates: Vec<u64> = match before {
        Some((last, at)) => {
            let millis = (now - *at).as_millis().max(1) as u64;
            let rate = |(now, last): (&u64, &u64)| now.saturating_sub(*last) * 1000 / millis;
            served.iter().zip(last.iter()).map(rate).collect()
        }
        None => Vec::new(),
    };
    let most = rates.iter().copied().max().unwrap_or(0).max(1);
    let block = if shows_unicode() { "█" } else { "#" };
    lines[0].push_str("    now");
    for (number, provider) in cluster.providers.iter().enumerate() {
        let line = &mut lines[number + 1];
        if !provider.is_alive() {
            line.push_str("  dead");
        } else if let Some(rate) = rates.get(number) {
            let bar = block.repeat((rate * BAR as u64).div_ceil(most) as usize);
            let slow = if provider.is_slowed() { " slow" } else { "" };
            line.push_str(&format!("{rate:>5}/s {bar}{slow}"));
        }
    }
    *before = Some((served, now));
    let Seen { answered, failed, longest } = clients.seen();
    lines.push(format!(
        "{:>2} clients: answered {answered}, failed {failed}, longest wait {}",
        clients.wanted(),
        in_seconds(longest)
    ));
    Ok(lines)
}

fn in_seconds(time: Duration) -> impl Display {
    format!("{}.{:02} s", time.as_secs(), time.subsec_millis() / 10)
}

fn read_keys(cluster: &Cluster, clients: &Clients, typed: &Typed, by_lines: bool) {
    let mut before = CLIENTS;
    for key in io::stdin().lock().bytes().map_while(Result::ok) {
        let wanted = clients.wanted();
        match key {
            b'q' => return typed.over.store(true, Ordering::SeqCst),
            key if !by_lines && ENDING.contains(&key) => {
                return typed.over.store(true, Ordering::SeqCst)
            }
            b'\n' if by_lines => drop(typed.lines.fetch_add(1, Ordering::SeqCst)),
            b's' => cluster.providers[0].toggle_speed(),
            b'c' if wanted > 0 => {
                before = wanted;
                clients.set_wanted(0);
            }
            b'c' => clients.set_wanted(before),
            b'+' => clients.set_wanted((wanted + STEP).min(CLIENTS_MAX)),
            b'-' => clients.set_wanted(wanted.saturating_sub(STEP)),
            b'1'..=b'9' => {
                if let Some(provider) = cluster.providers.get(usize::from(key - b'1')) {
                    provider.toggle();
                }
            }
            _ => continue,
        }
        typed.changed.store(true, Ordering::SeqCst);
    }
    // Standard input is over, as in a script: the table goes on.
}
