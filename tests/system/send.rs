//! `pegasus send`, as scripts use it.

use crate::support::pegasus::{closed_address, pegasus, program, Queue};
use crate::support::process::run;
use crate::support::Directory;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

#[test]
fn answers_go_to_standard_output_and_the_status_tells_errors() {
    let queue = Queue::start(&[]);
    let to = |message: &str| format!("pegasus://{}/{message}", queue.address);
    let (status, out, _) =
        pegasus(&["send", &to("ticket?provider=10.0.0.7:80&tickets=1&capacity=1")]);
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
fn a_message_that_names_no_queue_goes_to_that_of_the_configuration() {
    let queue = Queue::start(&[]);
    let directory = Directory::new();
    queue.offer("10.0.0.7:80", 3);
    let port = queue.address.port();
    let away = closed_address();
    for (text, set) in [
        (format!("redirect_queue={}\nqueue_listen={away}\n", queue.address), None),
        (format!("redirect_queue=embedded\nqueue_listen='*:{port} {away}'\n"), None),
        (format!("queue_listen={away}\n"), Some(format!("queue_listen=0.0.0.0:{port}"))),
    ] {
        let conf = directory.write("pegasus.conf", &text);
        let set = set.iter().flat_map(|set| ["-o", set]);
        let arguments: Vec<&str> = ["send", "-c", &conf].into_iter().chain(set).collect();
        let (status, out, errors) =
            pegasus(&[&arguments[..], &["pegasus:///next?service=web"]].concat());
        assert_eq!((status, out.as_str(), errors.as_str()), (0, "10.0.0.7:80\n", ""), "{text}");
    }
    let conf = directory.write("pegasus.conf", "nonsense\n");
    let (status, _, errors) = pegasus(&["send", "-c", &conf, "pegasus:///status"]);
    assert!(status == 78 && errors.contains("pegasus.conf:1: "), "{errors}");
    let named = format!("pegasus://{}/status", queue.address);
    assert_eq!(pegasus(&["send", "-c", &conf, &named]).0, 78, "it might name a key");
    let empty = directory.write("empty.conf", "");
    assert_eq!(pegasus(&["send", "-c", &empty, &named]).0, 0);
}

#[test]
fn what_is_no_message_is_wrong_usage() {
    for text in [
        "http://127.0.0.1/next",
        "next",
        "pegasus:next",
        &format!("pegasus://b/{}", "x".repeat(2000)),
    ] {
        let (status, out, err) = pegasus(&["send", text]);
        assert_eq!((status, out.as_str()), (64, ""), "{text}: {err}");
        assert!(err.starts_with("pegasus: "), "{err}");
    }
    assert_eq!(pegasus(&["send", "--nonsense"]).0, 64);
}

#[test]
fn a_queue_that_is_not_there_is_unreachable() {
    let (status, out, err) = pegasus(&["send", &format!("pegasus://{}/next", closed_address())]);
    assert_eq!((status, out.as_str()), (69, ""));
    assert!(err.contains("refused"), "{err}");
}

#[test]
fn the_lines_of_standard_input_are_messages_too() {
    let queue = Queue::start(&[]);
    let at = queue.address;
    let input = format!(
        "pegasus://{at}/ticket?provider=10.0.0.7&tickets=2&capacity=2\n\n  \
         pegasus://{at}/next\npegasus://{at}/next"
    );
    let (status, out, _) = run(program().arg("send"), input.as_bytes());
    assert_eq!(status, 0);
    let answers: Vec<&str> = out.lines().skip(1).collect();
    assert_eq!(answers, ["10.0.0.7", "10.0.0.7"]);
    assert_eq!(run(program().arg("send"), b"").0, 0, "nothing to send is no error");
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_reader_that_left_is_none() {
    let queue = Queue::start(&[]);
    let status = format!("pegasus://{}/status", queue.address);
    let offer = "service_web_provider=127.0.0.1:9";
    let once = ["monitor", "--once", "-o", offer, "-o", "service_web_check=off"];
    let all: [&[&str]; 6] = [
        &["send", &status],
        &["help"],
        &["help", "config"],
        &["--version"],
        &["queue", "-t"],
        &once,
    ];
    for arguments in all {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = program().args(arguments).stdout(full).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(74), "{arguments:?}: {errors}");
        assert!(errors.contains("standard output: "), "{arguments:?}: {errors}");
        let (reader, pipe) = UnixStream::pair().unwrap();
        drop(reader);
        let pipe = OwnedFd::from(pipe);
        let output = program().args(arguments).stdout(pipe).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), errors.as_ref()), (Some(0), ""), "{arguments:?}");
    }
}
