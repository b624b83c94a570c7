//! `pegasus status`: what queues hold, for people or as JSON.
//!
//! Owns the output. A queue that cannot be reached does not hide the others.

use super::table::{write_report, Style};
use super::{ask_status, queues, service};
use crate::command::exit;
use crate::command::status_report::{quoted, Report};
use crate::command::terminal::{print_error, print_line};
use getopts::Matches;

/// Runs the command; the result is its exit status.
pub fn run(matches: &Matches) -> i32 {
    let queues = match queues("status", matches, &matches.free) {
        Ok(queues) => queues,
        Err(status) => return status,
    };
    let service = match service("status", matches) {
        Ok(service) => service,
        Err(status) => return status,
    };
    let as_json = matches.opt_present("json");
    let mut status = exit::OK;
    let mut json = String::from("{\"queues\":[");
    for (number, queue) in queues.iter().enumerate() {
        let answer = ask_status(&mut None, queue, service);
        let address = quoted(&queue.to_string());
        json.push_str(if number == 0 { "" } else { "," });
        match &answer {
            Ok(text) if as_json => {
                json.push_str(&format!("{{\"address\":{address},"));
                Report::parse(text).write_json(&mut json);
                json.push('}');
            }
            Ok(text) => {
                let style = Style { unicode: false, bar: 0, columns: usize::MAX };
                let mut lines = Vec::new();
                write_report(&Report::parse(text), &format!("{queue} "), style, &mut lines);
                if number > 0 {
                    print_line("");
                }
                lines.iter().for_each(print_line);
            }
            Err(error) => {
                let why = quoted(&error.to_string());
                json.push_str(&format!("{{\"address\":{address},\"error\":{why}}}"));
                print_error(format_args!("pegasus: {queue}: {error}"));
                status = exit::UNAVAILABLE;
            }
        }
    }
    if as_json {
        print_line(json + "]}");
    }
    status
}
