//! `pegasus drain` and `pegasus resume`: no new clients for a provider, for a while.
//!
//! Owns the words about it. Several queues are told one after the other; one that
//! cannot be reached does not keep the others from being told.

use super::{ask, queues, service, AskedQueue};
use crate::command::exit;
use crate::command::status_report::in_words;
use crate::command::terminal::{print_error, print_line};
use getopts::Matches;
use pegasus_core::base::provider::Provider;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use pegasus_core::protocol::reply::{DrainState, Reply};
use pegasus_core::protocol::request::Request;

/// Runs `drain`; the result is its exit status.
pub fn run_drain(matches: &Matches) -> i32 {
    let duration = match matches.opt_str("for").map(|text| (text.parse::<Span>(), text)) {
        Some((Err(why), text)) => {
            print_error(format_args!("pegasus: drain: --for: `{text}` is {why}"));
            return exit::USAGE;
        }
        Some((Ok(duration), _)) => Some(duration),
        None => None,
    };
    send_to_all("drain", matches, |provider, service| {
        let request = Request::Drain { provider: provider.into(), service, duration };
        let until = duration.map_or("until `pegasus resume`".to_string(), |duration| {
            format!("for {}", in_words(duration))
        });
        (request, format!("{provider} gets no new clients {until}"))
    })
}

/// Runs `resume`; the result is its exit status.
pub fn run_resume(matches: &Matches) -> i32 {
    send_to_all("resume", matches, |provider, service| {
        let request = Request::Resume { provider: provider.into(), service };
        (request, format!("{provider} gets clients again"))
    })
}

fn send_to_all(
    name: &str,
    matches: &Matches,
    request: impl Fn(Provider, Option<ServiceName>) -> (Request, String),
) -> i32 {
    let Some((provider, addresses)) = matches.free.split_first() else {
        print_error(format_args!("pegasus: {name}: which provider? (IP, IP:PORT or [IPv6]:PORT)"));
        return exit::USAGE;
    };
    let provider: Provider = match provider.parse() {
        Ok(provider) => provider,
        Err(why) => {
            print_error(format_args!("pegasus: {name}: `{provider}` is {why}"));
            return exit::USAGE;
        }
    };
    let (queues, service) = match (queues(name, matches, addresses), service(name, matches)) {
        (Ok(queues), Ok(service)) => (queues, service),
        (Err(status), _) | (_, Err(status)) => return status,
    };
    let mut status = exit::OK;
    for queue in &queues {
        let (request, done) = request(provider, service);
        status = status.max(send(queue, &request, &done));
    }
    status
}

fn send(queue: &AskedQueue, request: &Request, done: &str) -> i32 {
    let mut line = Vec::new();
    request.write(queue, &mut line);
    let answer = ask(&mut None, queue, String::from_utf8_lossy(&line).trim_end());
    let answer = match answer {
        Ok(lines) => lines.into_iter().next().unwrap_or_default(),
        Err(error) => {
            print_error(format_args!("pegasus: {queue}: {error}"));
            return exit::UNAVAILABLE;
        }
    };
    match Reply::parse(answer.as_bytes()) {
        Ok(Reply::Drained(state)) => {
            print_line(format_args!("{queue}: {done} ({})", describe(state)));
            exit::OK
        }
        _ => {
            print_error(format_args!("pegasus: {queue}: the queue answers: {answer}"));
            exit::ANSWER
        }
    }
}

fn describe(state: DrainState) -> String {
    let services = match state.services {
        0 => return "this queue does not know it".to_string(),
        1 => "1 service".to_string(),
        many => format!("{many} services"),
    };
    let offering = if state.offering { "" } else { ", offers no tickets now" };
    format!("{services}, {} active{offering}", state.active)
}
