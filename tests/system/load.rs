//! Load sources and checks: what the machine and its services say decides what
//! a monitor offers.

use crate::support::pegasus::{command, monitor, monitor_of, Queue, SERVICE};
use crate::support::process::{run, Process};
use crate::support::{until, Directory};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

/// Nobody is there, and nobody looks.
const UNCHECKED: &str = "service_web_check=off";
/// What a machine is thought to run at once, where nothing tells more.
const SLOTS_PER_CPU: f64 = 4.0;
/// Requests that may be at a provider, per slot.
const DEPTH: f64 = 4.0;

fn provider() -> SocketAddr {
    "10.0.0.7:80".parse().unwrap()
}

/// A check may take half of it, and one look takes at most a second.
const UNHURRIED: &str = "monitor_interval=4s";
/// Enough for one look where no command is to be run.
const QUICK: &str = "monitor_interval=100ms";

/// What one look prints: the sample, then the checks and messages.
#[track_caller]
fn look(interval: &str, settings: &[&str]) -> String {
    let own = [interval, "service_web_provider=10.0.0.7:80"];
    let settings: Vec<&str> = own.into_iter().chain(settings.iter().copied()).collect();
    let (status, out, err) = run(command("monitor", &settings).arg("--once"), b"");
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    out
}

/// A word of a line of it: `cpus=2`, or of the message, `tickets=8`.
#[track_caller]
fn word<'a>(out: &'a str, key: &str) -> &'a str {
    let mut words = out.split([' ', '\n', '?', '&']);
    words
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {key}: {out}"))
}

#[track_caller]
fn number(out: &str, key: &str) -> f64 {
    word(out, key).parse().unwrap_or_else(|_| panic!("{key} is no number: {out}"))
}

/// What the queue holds: tickets, and capacity.
fn held(queue: &Queue) -> (f64, f64) {
    let status = queue.status();
    let number = |key| status.provider(provider()).map_or(0.0, |row| row.number(key) as f64);
    (number("tickets"), number("capacity"))
}

/// Waits until the monitor offers so many slots, which are rounded at random.
#[track_caller]
fn offers(queue: &Queue, slots: f64) {
    until(&format!("{slots} slots are offered"), || {
        let (tickets, capacity) = held(queue);
        (tickets - slots).abs() < 1.0 && (capacity - (DEPTH * slots).round()).abs() < 1.0
    });
}

/// A file that is kept up to date, as by somebody's script.
struct Kept(Directory);

impl Kept {
    fn with(text: &str) -> Kept {
        let kept = Kept(Directory::new());
        kept.say(text);
        kept
    }

    fn path(&self) -> String {
        self.0.file("load")
    }

    /// Complete or not at all, as a reader sees it, and new until far beyond the test.
    fn say(&self, text: &str) {
        self.0.write("new", text);
        self.dated(SystemTime::now() + Duration::from_secs(3600), "new");
        fs::rename(self.0.file("new"), self.path()).unwrap();
    }

    fn dated(&self, when: SystemTime, name: &str) {
        fs::File::options()
            .write(true)
            .open(self.0.file(name))
            .unwrap()
            .set_modified(when)
            .unwrap();
    }
}

/// A queue and a monitor that reads this.
fn bidding(source: &str) -> (Queue, Process) {
    let queue = Queue::start(&[]);
    let monitor =
        monitor(queue.address, provider(), &[&format!("monitor_load={source}"), UNCHECKED]);
    (queue, monitor)
}

/// The slots of this machine, none of them taken.
fn slots() -> f64 {
    SLOTS_PER_CPU * number(&look(QUICK, &[UNCHECKED]), "cpus")
}

#[test]
fn tickets_follow_a_file() {
    let kept = Kept::with("0\n");
    let all = slots();
    let (queue, _monitor) = bidding(&format!("file:{}", kept.path()));
    for (text, slots) in
        [("0", all), ("0.5\n", all * 0.5), ("1\n", 0.0), ("0.25\nmore", all * 0.75), ("17", 0.0)]
    {
        kept.say(text);
        offers(&queue, slots);
    }
}

#[test]
fn a_file_that_is_gone_or_old_or_nonsense_calls_the_machine_full() {
    let kept = Kept::with("0");
    let all = slots();
    let (queue, _monitor) = bidding(&format!("file:{}", kept.path()));
    for break_it in [
        &|| fs::remove_file(kept.path()).unwrap() as (),
        &|| kept.dated(SystemTime::now() - Duration::from_secs(60), "load"),
        &|| kept.say("busy"),
        &|| kept.say(""),
        &|| kept.say("u=0.5 x=3"),
        &|| kept.say(&"0.1 ".repeat(2000)),
    ] as [&dyn Fn(); 6]
    {
        offers(&queue, all);
        break_it();
        offers(&queue, 0.0);
        kept.say("0");
    }
    offers(&queue, all);
}

#[test]
fn tickets_follow_a_command_and_none_are_offered_when_it_says_nothing() {
    let kept = Kept::with("0");
    let all = slots();
    let (queue, _monitor) = bidding(&format!("exec:cat '{}' || exit 3", kept.path()));
    for (text, slots) in [("0", all), ("0.5", all * 0.5), ("1", 0.0), ("0", all)] {
        kept.say(text);
        offers(&queue, slots);
    }
    fs::remove_file(kept.path()).unwrap();
    offers(&queue, 0.0);
    kept.say("0");
    offers(&queue, all);
}

#[test]
fn a_command_that_hangs_is_one_that_says_nothing() {
    let kept = Kept::with("0");
    let all = slots();
    let (queue, monitor) =
        bidding(&format!("exec:test ! -e '{0}.hang' || sleep 10; cat '{0}'", kept.path()));
    offers(&queue, all);
    kept.0.write("load.hang", "");
    offers(&queue, 0.0);
    monitor.idles();
    fs::remove_file(kept.0.file("load.hang")).unwrap();
    offers(&queue, all);
}

#[test]
fn utilisation_queue_and_workers_may_be_told() {
    let kept = Kept::with("u=0.2 q=0 c=3\n");
    let (queue, _monitor) = bidding(&format!("file:{}", kept.path()));
    // Nothing is in progress, so nothing is learned: the start, but at least the workers.
    offers(&queue, 25.0);
    kept.say("u=0.2 q=0 c=40");
    offers(&queue, 40.0);
    kept.say("c=3");
    offers(&queue, SLOTS_PER_CPU * 3.0);
    let out = look(QUICK, &[UNCHECKED, &format!("monitor_load=file:{}", kept.path())]);
    assert!(out.starts_with("sample cpus=3 utilisation=- queued=- load=- full=-\n"), "{out}");
    kept.say("q=1.5 u=0.25");
    let out = look(QUICK, &[UNCHECKED, &format!("monitor_load=file:{}", kept.path())]);
    assert!(out.contains(" utilisation=0.250 queued=1.500 load=- full=-\n"), "{out}");
}

#[test]
fn of_several_sources_the_fullest_counts() {
    let files = ["0.25", "0.5", "0.4"].map(Kept::with);
    let [calm, busy, third] = files.each_ref().map(Kept::path);
    let all = format!("monitor_load=file:{calm} file:{busy} file:{third}");
    assert_eq!(number(&look(QUICK, &[UNCHECKED, &all]), "full"), 0.5);
    files[1].say("0");
    assert_eq!(number(&look(QUICK, &[UNCHECKED, &all]), "full"), 0.4);
    fs::remove_file(calm).unwrap();
    let out = look(QUICK, &[UNCHECKED, &all]);
    assert_eq!(
        (number(&out, "full"), word(&out, "tickets"), word(&out, "capacity")),
        (1.0, "0", "0")
    );
}

#[test]
fn the_system_tells_its_load_average_and_pressure() {
    let out = look(QUICK, &[UNCHECKED, "monitor_load=loadavg"]);
    let load = number(&out, "load");
    let offered = SLOTS_PER_CPU * (number(&out, "cpus") - load).max(0.0);
    assert!(
        (number(&out, "tickets") - offered).abs() <= 1.0,
        "what the load leaves of the CPUs: {out}"
    );
    assert_eq!((word(&out, "utilisation"), word(&out, "full")), ("-", "-"));

    let out = look(QUICK, &[UNCHECKED, "monitor_load=psi"]);
    let told =
        fs::read_to_string("/proc/pressure/cpu").is_ok_and(|text| text.contains("some avg10="));
    let full = number(&out, "full");
    assert!(if told { (0.0..=1.0).contains(&full) } else { full == 1.0 }, "{out}");

    let out = look(QUICK, &[UNCHECKED, "monitor_load=cpu psi loadavg"]);
    for key in ["utilisation", "queued", "load", "full"] {
        assert!(number(&out, key) >= 0.0, "{out}");
    }
}

#[test]
fn a_failing_check_withdraws_and_passing_ones_bring_it_back() {
    let kept = Kept::with("0");
    let queue = Queue::start(&[]);
    let all = slots();
    let well = Directory::new();
    let file = well.write("well", "");
    let settings = [
        format!("monitor_load=file:{}", kept.path()),
        format!("service_web_check=exec:test -e '{file}'"),
        "service_web_check_rise=3".into(),
        "service_web_check_interval=200ms".into(),
        UNHURRIED.into(),
    ];
    let settings = settings.each_ref().map(String::as_str);
    let mut monitor = monitor_of(SERVICE, queue.address, provider(), &settings);
    let said = |monitor: &Process| {
        let count = |words: &[&str]| monitor.log_with(words).len();
        (count(&["INFO", "service web is well"]), count(&["WARN", "service web fails its check"]))
    };
    for round in 1..=2 {
        offers(&queue, all);
        until("it is called well", || said(&monitor) == (round, round - 1));
        fs::remove_file(&file).unwrap();
        offers(&queue, 0.0);
        until("it is called unwell", || said(&monitor) == (round, round));
        well.write("well", "");
    }
    offers(&queue, all);
    monitor.signal(libc::SIGTERM);
    assert_eq!(monitor.ends(), 0);
    assert_eq!(held(&queue).0, 0.0);
    for (check, well) in
        [("service_web_check=exec:exit 0", true), ("service_web_check=exec:exit 1", false)]
    {
        let out = look(UNHURRIED, &[check]);
        assert_eq!(
            (word(&out, "well") == "yes", number(&out, "capacity") > 0.0),
            (well, well),
            "{out}"
        );
    }
}

#[test]
fn one_look_prints_the_message_to_each_balancer() {
    let settings =
        ["monitor_balancers=127.0.0.1:1 lb2.example:2", "monitor_load=exec:echo c=1", UNCHECKED];
    let out = look(UNHURRIED, &settings);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "sample cpus=1 utilisation=- queued=- load=- full=-");
    assert_eq!(lines.len(), 3, "{out}");
    for (line, place) in lines[1..].iter().zip(["127.0.0.1:1", "lb2.example:2"]) {
        let message = "provider=10.0.0.7:80&service=web&tickets=2&capacity=8&lease=20s";
        assert_eq!(*line, format!("pegasus://{place}/ticket?{message}"));
    }
}

/// Ends what spins, also when the test fails.
struct Spinning(Arc<AtomicBool>);

impl Spinning {
    fn start(threads: usize) -> Spinning {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let over = over.clone();
            thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        Spinning(over)
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn busy_loops_raise_the_reading() {
    let cpus = thread::available_parallelism().unwrap().get();
    let _spinning = Spinning::start(3 * cpus);
    until("the CPUs are busy and as many tasks wait", || {
        let out = look(QUICK, &[UNCHECKED, "monitor_load=cpu"]);
        number(&out, "utilisation") > 0.9 && number(&out, "queued") >= cpus as f64
    });
}

#[test]
fn only_the_cpus_that_it_may_use_count() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first = allowed.trim().split([',', '-']).next().unwrap();
    let plain = command("monitor", &[UNCHECKED, QUICK, "service_web_provider=10.0.0.7:80"]);
    let mut bound = Command::new("taskset");
    bound.args(["-c", first]).arg(plain.get_program()).args(plain.get_args()).arg("--once");
    let (status, out, err) = run(&mut bound, b"");
    assert_eq!((status, err.as_str(), number(&out, "cpus")), (0, "", 1.0), "{out}");
}
