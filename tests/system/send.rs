//! `pegasus send`, as scripts use it.

use crate::support::pegasus::{nobody, pegasus, program, Queue};
use crate::support::process::run;

#[test]
fn answers_go_to_standard_output_and_the_status_tells_errors() {
    let queue = Queue::start(&[]);
    let to = |message: &str| format!("pegasus://{}/{message}", queue.address);
    let (status, out, _) = pegasus(&["send", &to("ticket?provider=10.0.0.7:80&tickets=1&capacity=1")]);
    assert_eq!(status, 0);
    assert!(out.starts_with("ok "), "{out}");
    let (status, out, err) = pegasus(&["send", &to("next"), &to("next")]);
    assert_eq!((status, out.as_str(), err.as_str()), (1, "10.0.0.7:80\nerror no-ticket\n", ""));
}

#[test]
fn status_is_printed_without_its_dot() {
    let queue = Queue::start(&[]);
    let (status, out, _) = pegasus(&["send", &format!("pegasus://{}/status", queue.address)]);
    assert_eq!(status, 0);
    assert!(out.starts_with("queue ") && !out.contains("\n."), "{out}");
}

#[test]
fn what_is_no_message_is_wrong_usage() {
    for text in ["http://127.0.0.1/next", "next", "pegasus:next", &format!("pegasus://b/{}", "x".repeat(2000))] {
        let (status, out, err) = pegasus(&["send", text]);
        assert_eq!((status, out.as_str()), (64, ""), "{text}: {err}");
        assert!(err.starts_with("pegasus: "), "{err}");
    }
    assert_eq!(pegasus(&["send", "--nonsense"]).0, 64);
}

#[test]
fn a_queue_that_is_not_there_is_unreachable() {
    let (status, out, err) = pegasus(&["send", &format!("pegasus://{}/next", nobody())]);
    assert_eq!((status, out.as_str()), (69, ""));
    assert!(err.contains("refused"), "{err}");
}

#[test]
fn the_lines_of_standard_input_are_messages_too() {
    let queue = Queue::start(&[]);
    let at = queue.address;
    let input = format!(
        "pegasus://{at}/ticket?provider=10.0.0.7&tickets=2&capacity=2\n\n  pegasus://{at}/next\npegasus://{at}/next"
    );
    let (status, out, _) = run(program().arg("send"), input.as_bytes());
    assert_eq!(status, 0);
    let answers: Vec<&str> = out.lines().skip(1).collect();
    assert_eq!(answers, ["10.0.0.7", "10.0.0.7"]);
    assert_eq!(run(program().arg("send"), b"").0, 0, "nothing to send is no error");
}
