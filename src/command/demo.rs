//! `pegasus demo`: a whole cluster on loopback, in one process.
//!
//! Owns the command's options and the timed run. The cluster, the clients and the table
//! that people watch are elsewhere.

mod clients;
mod cluster;
mod live;
mod provider;
mod screen;

use self::clients::{Clients, CLIENTS};
use self::cluster::Cluster;
use self::screen::Screen;
use super::exit;
use super::terminal::{print_error, print_line};
use getopts::Matches;
use log::{error, LevelFilter};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// Runs the command; the result is its exit status.
pub fn run(matches: &Matches) -> i32 {
    if let Some(extra) = matches.free.first() {
        print_error(format_args!("pegasus: demo: what is `{extra}`? (--seconds N)"));
        return exit::USAGE;
    }
    // People watch the table: the log shows only what is wrong.
    log::set_max_level(LevelFilter::Error);
    let seconds = match matches.opt_str("seconds").map(|text| text.parse::<u64>()) {
        None => None,
        Some(Ok(seconds)) if (1..=86_400).contains(&seconds) => Some(seconds),
        Some(_) => {
            print_error("pegasus: demo: --seconds takes a number from 1 to 86400");
            return exit::USAGE;
        }
    };
    let shown = Cluster::start().and_then(|cluster| {
        cluster.wait()?;
        match seconds {
            Some(seconds) => timed(&cluster, seconds),
            None => live::run(cluster),
        }
    });
    shown.unwrap_or_else(|error| {
        error!(target: "demo", "{error}");
        exit::of(&error)
    })
}

/// Own clients for a while, then the table.
fn timed(cluster: &Cluster, seconds: u64) -> io::Result<i32> {
    print_line(format_args!(
        "clients come to {}; three providers compete for them",
        cluster.address
    ));
    let clients = Clients::of(cluster.address);
    clients.set_wanted(CLIENTS);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut screen = Screen::default();
    while Instant::now() < until {
        thread::sleep((until - Instant::now()).min(screen.interval()));
        screen.show(&cluster.table()?);
    }
    clients.wait_for_the_end();
    screen.show(&cluster.table()?);
    let clients::Seen { answered, failed, .. } = clients.seen();
    print_line(format_args!("{answered} requests answered, {failed} failed"));
    Ok(if failed == 0 && answered > 0 { exit::OK } else { exit::ANSWER })
}
