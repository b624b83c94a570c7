//! Plug-in schedulers that are slow, dead or wrong: every request is answered in time.

use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::{command, Queue};
use crate::support::process::run;
use crate::support::{tool, until, until_some, Directory};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const FIRST: &str = "10.0.0.1:80";
const SECOND: &str = "10.0.0.2:80";
const NEXT: &str = "next?service=web";
/// More than any test uses.
const PLENTY: u32 = 1_000_000;
/// Longer than any test waits: a program is never late, however busy the machine is, and
/// a lost question stays lost.
const UNHURRIED: &str = "queue_plugin_timeout=10m";

/// The setting for one of the samples.
fn sample(name: &str) -> String {
    format!("queue_scheduler=exec:'{}/conf/plugins/{name}'", env!("CARGO_MANIFEST_DIR"))
}

/// Both providers, the later one first, so that an order is the program's choice.
fn offer(queue: &Queue, tickets: u32) {
    queue.offer(SECOND, tickets);
    queue.offer(FIRST, tickets);
}

/// Returns the program that the queue started, once there is one.
fn program(queue: &Queue) -> Option<i32> {
    let (status, out, _) = run(tool("pgrep").args(["-P", &queue.id().to_string()]), b"");
    (status == 0).then(|| out.split_whitespace().next()?.parse().ok())?
}

/// Asks until this is the reply: a program is asked as soon as it runs.
#[track_caller]
fn chooses(queue: &Queue, message: &str, provider: &str) {
    until(&format!("{provider} is chosen"), || queue.ask(message) == provider);
}

/// Sends `count` requests at once and returns the replies, none of which may be missing.
#[track_caller]
fn ask_many(line: &mut ControlConnection, count: usize) -> Vec<String> {
    (0..count).for_each(|_| line.say(NEXT));
    (0..count).map(|_| line.hear()).collect()
}

#[test]
fn a_shell_script_fills_one_provider_before_the_next() {
    let queue = Queue::start(&[&sample("first.sh"), UNHURRIED]);
    offer(&queue, PLENTY);
    until("it is started", || program(&queue).is_some());
    // The default scheduler would let them take turns.
    assert_eq!(ask_many(&mut queue.connect(), 500), [FIRST; 500]);
    queue.offer(FIRST, 2);
    assert_eq!(ask_many(&mut queue.connect(), 3), [FIRST, FIRST, SECOND]);
    queue.status();
    assert!(queue.log_with(&["WARN"]).is_empty(), "{:?}", queue.log());
}

#[test]
fn a_perl_script_finds_the_nearest_and_among_equals_the_idlest() {
    let queue = Queue::start(&[
        &sample("nearest.pl").replace("queue_scheduler", "service_web_scheduler"),
        UNHURRIED,
    ]);
    for provider in ["10.2.0.1:80", "10.1.0.1:80", "192.168.0.1:80", "192.168.0.1:81"] {
        queue.offer(provider, 10);
    }
    let from = |client: &str| format!("{NEXT}&client={client}");
    chooses(&queue, &from("10.1.77.7"), "10.1.0.1:80");
    for (client, nearest) in [
        ("10.2.200.1", "10.2.0.1:80"),
        ("10.1.0.2", "10.1.0.1:80"),
        ("10.3.0.1", "10.2.0.1:80"),
        ("8.8.8.8", "10."),
    ] {
        assert!(queue.ask(&from(client)).starts_with(nearest), "{client}");
    }
    let mut line = queue.connect();
    let mut ports = Vec::new();
    for id in 1..=6 {
        let answer = line.ask(&format!("{}&id={id}", from("192.168.7.7")));
        ports.push(answer.strip_prefix("192.168.0.1:").unwrap()[..2].to_string());
    }
    ports.sort();
    assert_eq!(ports, ["80", "80", "80", "81", "81", "81"], "who has fewer requests in progress");
}

/// Sends requests without a pause, on several connections, while something happens. Every
/// reply must be a provider.
#[track_caller]
fn under_load(queue: &Queue, happens: impl FnOnce(&dyn Fn() -> usize)) {
    let over = AtomicBool::new(false);
    let count = AtomicUsize::new(0);
    // Also after a panic.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread::scope(|scope| {
        for pipelined in [1, 1, 16] {
            let over = &over;
            let count = &count;
            scope.spawn(move || {
                let mut line = queue.connect();
                while !over.load(Ordering::SeqCst) {
                    for answer in ask_many(&mut line, pipelined) {
                        assert!([FIRST, SECOND].contains(&answer.as_str()), "{answer}");
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        let _over = Over(&over);
        happens(&|| count.load(Ordering::SeqCst));
    });
    let status = queue.status();
    let row = status.service("web").unwrap();
    assert_eq!((row.number("refused"), row.number("waiting")), (0, 0));
}

#[test]
fn one_that_is_killed_under_load_leaves_no_question_open_and_comes_back() {
    let queue = Queue::start(&[&sample("first.sh"), UNHURRIED]);
    offer(&queue, PLENTY);
    under_load(&queue, |answered| {
        for kills in 1..=3 {
            let before = answered();
            let program = until_some("it runs", || program(&queue));
            // SAFETY: plain numbers; it is a child of the queue, which has not reaped it
            // as long as it is found.
            unsafe { libc::kill(program, libc::SIGKILL) };
            until("it answers again", || {
                queue.log_with(&["INFO", "answers again for service web"]).len() == kills
            });
            // Its end is noticed first by the reading or by the writing thread.
            assert_eq!(
                queue.log_with(&["WARN", "service web is scheduled without it"]).len(),
                kills
            );
            until("questions are answered", || answered() > before + 100);
        }
    });
    assert_eq!(queue.log_with(&["WARN"]).len(), 3);
}

#[test]
fn one_that_never_answers_costs_its_time_and_one_warning() {
    let directory = Directory::new();
    let starts =
        || fs::read_to_string(directory.file("starts")).map_or(0, |text| text.lines().count());
    let program = format!("sh -c 'echo >>{}; sleep 60'", directory.file("starts"));
    let mut queue =
        Queue::start(&[&format!("queue_scheduler=exec:{program}"), "queue_plugin_timeout=20ms"]);
    offer(&queue, PLENTY);
    under_load(&queue, |answered| {
        until("it is started anew, and is no better", || starts() >= 3);
        let before = answered();
        until("questions are answered", || answered() > before + 100);
    });
    queue.says(&["WARN", "it takes longer than queue_plugin_timeout"]);
    let usual = ["[limits]", " ready ", " registered "];
    let others: Vec<String> = queue
        .log()
        .into_iter()
        .filter(|line| !usual.iter().any(|usual| line.contains(usual)))
        .collect();
    assert_eq!(others.len(), 1, "nothing else is said: {others:?}");
    queue.idles();
    // A program that does not read would not notice that its queue was killed.
    queue.signal(libc::SIGTERM);
    assert_eq!(queue.ends(), 0);
}

#[test]
fn one_that_does_not_exist_or_talks_nonsense_is_done_without() {
    for (scheduler, why) in [
        ("exec:/no/such/program", "it ended"),
        ("exec:yes", "no answer"),
        ("exec:echo id=0 provider=9.9.9.9", "it "),
    ] {
        let mut queue = Queue::start(&[&format!("queue_scheduler={scheduler}"), UNHURRIED]);
        offer(&queue, PLENTY);
        queue.says(&["WARN", why]);
        // For as long as some more starts take: the log knows their result already.
        under_load(&queue, |answered| {
            until("questions are answered", || answered() > 1000);
            thread::sleep(Duration::from_millis(500));
        });
        assert_eq!(queue.log_with(&["WARN"]).len(), 1, "said once: {:?}", queue.log());
    }
}

#[test]
fn hup_takes_a_program_and_leaves_it_again() {
    let directory = Directory::new();
    let write = |scheduler: &str| {
        directory
            .write("pegasus.conf", &format!("queue_listen=127.0.0.1:0\n{UNHURRIED}\n{scheduler}\n"))
    };
    let conf = write("queue_scheduler=fifo");
    let queue = Queue::of(crate::support::pegasus::program().args(["queue", "-c", &conf]));
    // The ticket that came first is the other one's.
    offer(&queue, PLENTY);
    assert_eq!(queue.ask(NEXT), SECOND);
    for round in 1..=3 {
        // A question is always pending when the one or the other is taken away.
        under_load(&queue, |answered| {
            write(&format!(
                "queue_scheduler=\"exec:{}/conf/plugins/first.sh\"",
                env!("CARGO_MANIFEST_DIR")
            ));
            queue.signal(libc::SIGHUP);
            chooses(&queue, NEXT, FIRST);
            assert_eq!(ask_many(&mut queue.connect(), 50), [FIRST; 50]);
            write("queue_scheduler=fifo");
            queue.signal(libc::SIGHUP);
            chooses(&queue, NEXT, SECOND);
            let before = answered();
            until("questions are answered", || answered() > before + 100);
        });
        assert_eq!(ask_many(&mut queue.connect(), 50), [SECOND; 50]);
        until("the program is gone", || program(&queue).is_none());
        until("it is reloaded", || queue.log_with(&["configuration reloaded"]).len() == 2 * round);
    }
    assert!(queue.log_with(&["WARN"]).is_empty(), "{:?}", queue.log());
}

#[test]
fn a_program_ends_with_its_queue() {
    let mut queue =
        Queue::of(&mut command("queue", &["queue_listen=127.0.0.1:0", &sample("first.sh")]));
    offer(&queue, 1);
    let program = until_some("it runs", || program(&queue));
    queue.signal(libc::SIGTERM);
    assert_eq!(queue.ends(), 0);
    until("it is gone", || !std::path::Path::new(&format!("/proc/{program}")).exists());
}
