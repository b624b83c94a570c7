//! Which networks may send which kind of message.

use crate::support::pegasus::Queue;
use crate::support::process::run;
use crate::support::tool;

#[test]
fn each_list_guards_its_messages() {
    let messages = [
        ("ticket?tickets=1&capacity=1", "queue_allow_ticket="),
        ("withdraw", "queue_allow_ticket="),
        ("next", "queue_allow_next="),
        ("next?id=1&wait=30s", "queue_allow_next="),
        ("failure?provider=10.0.0.7", "queue_allow_next="),
        ("done?id=1", "queue_allow_next="),
        ("status", "queue_allow_status="),
        ("drain?provider=10.0.0.7", "queue_allow_drain="),
        ("resume?provider=10.0.0.7", "queue_allow_drain="),
    ];
    let lists =
        ["queue_allow_ticket=", "queue_allow_next=", "queue_allow_status=", "queue_allow_drain="];
    for list in lists {
        let queue = Queue::start(&[list]);
        for (message, guard) in messages {
            if message == "next?id=1&wait=30s" && guard != list {
                continue;
            }
            let denied = queue.ask(message).starts_with("error denied");
            assert_eq!(denied, guard == list, "{message} with {list}");
        }
    }
}

/// Returns the reply to netcat with this source address.
fn from(source: &str, queue: &Queue, message: &str) -> String {
    let mut nc = tool("nc");
    nc.args(["-N", "-s", source, "127.0.0.1", &queue.address.port().to_string()]);
    run(&mut nc, format!("pegasus://b/{message}\n").as_bytes()).1.trim_end().to_string()
}

#[test]
fn the_whole_of_127_is_this_host() {
    let queue = Queue::start(&[]);
    assert!(from("127.9.8.7", &queue, "ticket?tickets=1&capacity=1").starts_with("ok "));
    assert_eq!(from("127.1.2.3", &queue, "next"), "127.9.8.7");
}

#[test]
fn a_list_tells_networks_apart() {
    let queue = Queue::start(&["queue_allow_next=127.0.0.2/32 127.0.4.0/22"]);
    for (source, may) in [
        ("127.0.0.1", false),
        ("127.0.0.2", true),
        ("127.0.0.3", false),
        ("127.0.7.255", true),
        ("127.0.8.0", false),
    ] {
        let answer = from(source, &queue, "next");
        let expected = if may { "error no-ticket" } else { "error denied" };
        assert!(answer.starts_with(expected), "{source}: {answer}");
    }
}

#[test]
fn this_host_may_speak_for_any_provider() {
    let queue = Queue::start(&[]);
    assert!(from("127.0.0.2", &queue, "ticket?provider=10.0.0.7:80&tickets=1&capacity=1")
        .starts_with("ok "));
    assert_eq!(queue.ask("next"), "10.0.0.7:80");
}

#[test]
fn the_open_world_is_written_out_and_a_half_open_one_is_told() {
    let mut queue = Queue::listening("0.0.0.0:0", &[]);
    queue.says(&["WARN", "accepts requests from this host only"]);
    let open = ["ticket", "next", "drain"].map(|what| format!("queue_allow_{what}=0.0.0.0/0 ::/0"));
    let open = open.each_ref().map(String::as_str);
    let mut queue = Queue::listening("0.0.0.0:0", &open);
    queue.says(&["WARN", "any host in 0.0.0.0/0 ::/0 may register", "without a key"]);
    queue.says(&["WARN", "any host in 0.0.0.0/0 ::/0 may take tickets", "without a key"]);
    queue.says(&["WARN", "any host in 0.0.0.0/0 ::/0 may keep clients away", "without a key"]);
    assert!(queue.log_with(&["from this host only"]).is_empty());
    // Who reads the status of a queue of this host needs no advice.
    let queue = Queue::listening("0.0.0.0:0", &["queue_allow_status=10.0.0.0/8"]);
    assert!(queue.log_with(&["WARN"]).is_empty(), "{:#?}", queue.log());
}
