//! The protocol over plain sockets, as a program in any language would use it.

use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::{pegasus, Queue};
use crate::support::process::run;
use crate::support::{tool, until};
use std::collections::HashSet;

#[test]
fn the_example_of_the_paper() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    let answer = line.ask("ticket?provider=195.255.100.10&tickets=100&capacity=100");
    assert!(answer.starts_with("ok "), "{answer}");
    for _ in 0..100 {
        assert_eq!(line.ask("next"), "195.255.100.10");
    }
    assert_eq!(line.ask("next"), "error no-ticket");
}

#[test]
fn a_failure_discards_all_tickets() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    line.ask("ticket?provider=195.255.100.10&tickets=100&capacity=100");
    assert_eq!(line.ask("next"), "195.255.100.10");
    assert_eq!(line.ask("failure?provider=195.255.100.10"), "ok discarded=99");
    assert_eq!(line.ask("next"), "error no-ticket");
}

#[test]
fn a_message_replaces_the_earlier_one() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    for _ in 0..3 {
        line.ask("ticket?provider=10.0.0.7:80&tickets=2&capacity=2");
    }
    let answers: Vec<String> = (0..3).map(|_| line.ask("next")).collect();
    assert_eq!(answers, ["10.0.0.7:80", "10.0.0.7:80", "error no-ticket"]);
}

#[test]
fn printf_and_netcat_are_a_complete_client() {
    let queue = Queue::start(&[]);
    queue.ask("ticket?provider=10.0.0.7:80&tickets=1&capacity=1");
    let mut nc = tool("nc");
    nc.args(["-N", "127.0.0.1", &queue.address.port().to_string()]);
    let (status, answer, _) = run(&mut nc, b"pegasus://127.0.0.1/next\n");
    assert_eq!((status, answer.as_str()), (0, "10.0.0.7:80\n"));
}

#[test]
fn the_last_line_may_lack_its_end_and_lines_may_end_in_crlf() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    line.write(b"pegasus://b/ticket?tickets=1&capacity=1\r\npegasus://b/next").unwrap();
    line.end();
    assert!(line.hear().starts_with("ok "));
    assert_eq!(line.hear(), "127.0.0.1");
    assert_eq!(line.hear(), "");
}

#[test]
fn a_thousand_requests_in_one_piece_are_answered_in_order() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    let mut text = String::new();
    for number in 1..=500 {
        text += &format!(
            "pegasus://b/ticket?service=s{}&provider=10.0.0.1:{number}&tickets=1&capacity=1\n",
            number % 9
        );
        text += &format!("pegasus://b/next?service=s{}\n", number % 9);
    }
    line.write(text.as_bytes()).unwrap();
    for number in 1..=500 {
        assert!(line.hear().starts_with("ok "));
        assert_eq!(line.hear(), format!("10.0.0.1:{number}"));
    }
}

#[test]
fn a_thousand_requests_need_not_be_read_at_once() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    for number in 0..50 {
        line.ask(&format!("ticket?provider=10.0.0.{number}&tickets=1&capacity=1"));
    }
    // Some megabytes of answers: the queue stops reading until they are read.
    line.write("pegasus://b/status\n".repeat(1000).as_bytes()).unwrap();
    assert_eq!(queue.ask("next"), "10.0.0.0", "another client is served meanwhile");
    let dots = (0..).map(|_| line.hear()).filter(|text| text == ".").take(1000).count();
    assert_eq!(dots, 1000);
}

#[test]
fn a_request_with_an_id_is_active_until_it_is_done() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    line.ask("ticket?provider=10.0.0.7&tickets=1&capacity=1");
    assert_eq!(line.ask("next?id=5"), "10.0.0.7 id=5");
    assert_eq!(queue.status().active("10.0.0.7"), 1);
    assert_eq!(line.ask("next?id=6"), "error no-ticket id=6");
    assert!(line.ask("next?id=5").starts_with("error bad-parameter "), "the id is in use");
    assert_eq!(line.ask("done?id=5"), "ok");
    assert!(line.ask("done?id=5").starts_with("error bad-parameter "));
    assert_eq!(line.ask("next?id=5"), "10.0.0.7 id=5", "the ticket is free again");
    let status = queue.status();
    assert_eq!(
        (status.active("10.0.0.7"), status.provider("10.0.0.7").unwrap().number("granted")),
        (1, 2)
    );
}

#[test]
fn requests_with_an_id_go_beyond_the_tickets_up_to_the_capacity() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    line.ask("ticket?provider=10.0.0.7&tickets=1&capacity=3");
    let answers: Vec<String> = (1..=4).map(|id| line.ask(&format!("next?id={id}"))).collect();
    assert_eq!(
        answers,
        ["10.0.0.7 id=1", "10.0.0.7 id=2", "10.0.0.7 id=3", "error no-ticket id=4"]
    );
    assert_eq!(line.ask("next"), "error no-ticket");
}

#[test]
fn who_waits_is_served_in_order_when_tickets_come() {
    let queue = Queue::start(&[]);
    let mut waiting: Vec<ControlConnection> = Vec::new();
    for number in 1..=3 {
        let mut line = queue.connect();
        line.say("next?wait=30s");
        until("one more waits", || queue.status().queue().number("waiting") == number);
        waiting.push(line);
    }
    for (number, line) in waiting.iter_mut().enumerate() {
        let answer = queue.ask(&format!("ticket?provider=10.0.0.{number}&tickets=1&capacity=1"));
        assert!(answer.starts_with("ok "), "{answer}");
        assert_eq!(line.hear(), format!("10.0.0.{number}"));
    }
}

#[test]
fn a_waiting_answer_with_an_id_may_be_overtaken_and_one_without_may_not() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    line.say("next?service=a&wait=30s&id=1");
    assert!(line.ask("ticket?service=b&provider=10.0.0.2&tickets=2&capacity=2").starts_with("ok "));
    line.say("next?service=c&wait=30s");
    line.say("next?service=b&id=2");
    line.say("next?service=b");
    assert_eq!(line.hear(), "10.0.0.2 id=2");
    queue.ask("ticket?service=a&provider=10.0.0.1&tickets=1&capacity=1");
    assert_eq!(line.hear(), "10.0.0.1 id=1");
    queue.ask("ticket?service=c&provider=10.0.0.3&tickets=1&capacity=1");
    assert_eq!([line.hear(), line.hear()], ["10.0.0.3", "10.0.0.2"]);
}

#[test]
fn hanging_up_frees_the_places() {
    let queue = Queue::start(&[]);
    let mut busy = queue.connect();
    busy.ask("ticket?provider=10.0.0.7&tickets=2&capacity=2");
    assert_eq!([busy.ask("next?id=1"), busy.ask("next?id=2")], ["10.0.0.7 id=1", "10.0.0.7 id=2"]);
    let mut other = queue.connect();
    other.say("next?id=1&wait=30s");
    until("it waits", || queue.status().queue().number("waiting") == 1);
    drop(busy);
    assert_eq!(other.hear(), "10.0.0.7 id=1");
    until("one is active", || queue.status().active("10.0.0.7") == 1);
}

#[test]
fn who_waits_and_hangs_up_is_forgotten() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    line.say("next?wait=30s&id=1");
    until("it waits", || queue.status().queue().number("waiting") == 1);
    drop(line);
    until("it is forgotten", || queue.status().queue().number("waiting") == 0);
    queue.ask("ticket?provider=10.0.0.7&tickets=1&capacity=1");
    assert_eq!(queue.ask("next"), "10.0.0.7", "the ticket was not taken");
}

#[test]
fn who_waits_without_an_id_and_hangs_up_takes_no_ticket_along() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    line.say("next?wait=30s");
    until("it waits", || queue.status().queue().number("waiting") == 1);
    drop(line);
    // On a busy host what is sent later may be seen earlier, but not by so much.
    queue.status();
    queue.ask("ticket?provider=10.0.0.7&tickets=1&capacity=1");
    until("the ticket is back", || queue.ask("next") == "10.0.0.7");
}

#[test]
fn a_withdrawal_leaves_what_runs() {
    let queue = Queue::start(&[]);
    let mut line = queue.connect();
    line.ask("ticket?provider=10.0.0.7&tickets=3&capacity=3");
    line.ask("next?id=1");
    assert_eq!(line.ask("withdraw?provider=10.0.0.7"), "ok discarded=2");
    assert_eq!(line.ask("next"), "error no-ticket");
    let status = queue.status();
    assert_eq!((status.tickets("10.0.0.7"), status.active("10.0.0.7")), (0, 1));
    assert_eq!(line.ask("done?id=1"), "ok");
}

#[test]
fn a_lease_ends_and_its_tickets_with_it() {
    let mut queue = Queue::start(&[]);
    queue.ask("ticket?provider=10.0.0.7&tickets=9&capacity=9&lease=200ms");
    until("the lease ends", || queue.status().tickets("10.0.0.7") == 0);
    assert_eq!(queue.ask("next"), "error no-ticket");
    queue.says(&["lease-ended", "10.0.0.7"]);
}

#[test]
fn every_error_word() {
    let queue =
        Queue::start(&["queue_waiting_max=1", "queue_services_max=1", "queue_allow_status="]);
    let word = |message: &str| queue.ask(message).split(' ').take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(word("next"), "error no-ticket");
    assert_eq!(word("status"), "error denied");
    assert_eq!(word("nonsense"), "error unknown-command");
    for message in [
        "next?wait=soon",
        "next?id=0",
        "next?nonsense=1",
        "next?id=1&id=2",
        "failure",
        "ticket?tickets=1",
    ] {
        assert_eq!(word(message), "error bad-parameter", "{message}");
    }
    let mut line = queue.connect();
    for bad in ["http://b/next\n", "next\n", "pegasus:/b\n"] {
        line.write(bad.as_bytes()).unwrap();
        assert!(line.hear().starts_with("error bad-url"), "{bad}");
    }
    assert_eq!(line.hear(), "", "three bad lines in a row are enough");

    assert!(word("ticket?service=a&tickets=1&capacity=1").starts_with("ok "));
    let mut waiting = queue.connect();
    waiting.say("next?service=b&wait=30s");
    until("one waits, and no other may", || word("next?service=b&wait=1ms") == "error crowded");
    assert_eq!(word("ticket?service=c&tickets=1&capacity=1"), "error busy");

    let mut line = queue.connect();
    line.write(&[b'x'; 1024]).unwrap();
    assert!(line.hear().starts_with("error too-long"));
    assert_eq!(line.hear(), "");

    let mut queue = queue;
    queue.signal(libc::SIGTERM);
    assert_eq!(waiting.hear(), "error draining");
    drop((waiting, line));
    assert_eq!(queue.ends(), 0);
}

#[test]
fn ipv6_is_a_network_like_the_other() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return println!("this host has no IPv6");
    }
    let queue = Queue::listening("[::1]:0", &[]);
    assert!(queue.ask("ticket?tickets=1&capacity=1").starts_with("ok "));
    assert!(queue.ask("ticket?provider=[2001:db8::7]:80&tickets=1&capacity=1").starts_with("ok "));
    assert_eq!(queue.ask("next"), "[::1]", "the address that the connection comes from");
    assert_eq!(queue.ask("next"), "[2001:db8::7]:80");
}

#[test]
fn the_manual_explains_every_word_of_a_status() {
    let queue = Queue::start(&[]);
    queue.offer("10.0.0.7:80", 1);
    let (_, manual, _) = pegasus(&["help", "protocol"]);
    let (_, words) = manual.split_once("A line `queue`").unwrap();
    let words: HashSet<&str> = words.split(|letter: char| !letter.is_ascii_alphabetic()).collect();
    for row in queue.status().rows() {
        // These three identify themselves.
        for key in row.keys().filter(|key| !["name", "address", "scheduler"].contains(key)) {
            assert!(words.contains(row.kind.as_str()) && words.contains(key), "{key} of {row:?}");
        }
    }
}
