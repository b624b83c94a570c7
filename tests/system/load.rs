//! Load sources and checks: they decide what a monitor offers.

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

/// The provider does not exist, and is not checked.
const UNCHECKED: &str = "service_web_check=off";
/// Slots of a host for which no source reports utilisation.
const SLOTS_PER_CPU: f64 = 4.0;
/// No ceiling, while there is no evidence of overload.
const UNLIMITED: f64 = 1_000_000.0;

fn provider() -> SocketAddr {
    "10.0.0.7:80".parse().unwrap()
}

/// A check may take half of it, and one sample takes at most a second.
const UNHURRIED: &str = "monitor_interval=4s";
/// Enough for one sample without a command.
const QUICK: &str = "monitor_interval=100ms";

/// Returns what `--once` prints: the sample, then the checks and messages.
#[track_caller]
fn look(interval: &str, settings: &[&str]) -> String {
    let own = [interval, "service_web_provider=10.0.0.7:80"];
    let settings: Vec<&str> = own.into_iter().chain(settings.iter().copied()).collect();
    let (status, out, err) = run(command("monitor", &settings).arg("--once"), b"");
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    out
}

/// Returns a value in one of its lines: `cpus=2`, or of the message, `tickets=8`.
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

/// Returns the tickets and the capacity that the queue knows.
fn held(queue: &Queue) -> (f64, f64) {
    let status = queue.status();
    let number = |key| status.provider(provider()).map_or(0.0, |row| row.number(key) as f64);
    (number("tickets"), number("capacity"))
}

/// Waits until the monitor offers this many slots, which are rounded at random.
#[track_caller]
fn offers(queue: &Queue, slots: f64) {
    until(&format!("{slots} slots are offered"), || {
        let (tickets, capacity) = held(queue);
        (tickets - slots).abs() < 1.0 && capacity == if slots > 0.0 { UNLIMITED } else { 0.0 }
    });
}

/// A file that is kept up to date, as by a script.
struct Kept {
    directory: Directory,
    /// Its time is kept new.
    fresh: Arc<AtomicBool>,
}

impl Kept {
    fn with(text: &str) -> Kept {
        let kept = Kept { directory: Directory::new(), fresh: Arc::default() };
        kept.say(text);
        let path = kept.path();
        let fresh = Arc::downgrade(&kept.fresh);
        thread::spawn(move || {
            while let Some(fresh) = fresh.upgrade() {
                if fresh.load(Ordering::SeqCst) {
                    // It may be gone just now.
                    let file = fs::File::options().write(true).open(&path);
                    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
                }
                drop(fresh);
                thread::sleep(Duration::from_millis(50));
            }
        });
        kept
    }

    fn path(&self) -> String {
        self.directory.file("load")
    }

    /// Complete or not at all, as a reader sees it.
    fn say(&self, text: &str) {
        self.directory.write("new", text);
        fs::rename(self.directory.file("new"), self.path()).unwrap();
        self.fresh.store(true, Ordering::SeqCst);
    }

    /// With this time from now on.
    fn dated(&self, when: SystemTime) {
        self.fresh.store(false, Ordering::SeqCst);
        until("it keeps the time", || {
            let file = fs::File::options().write(true).open(self.path()).unwrap();
            file.set_modified(when).unwrap();
            thread::sleep(Duration::from_millis(60));
            file.metadata().unwrap().modified().unwrap() == when
        });
    }
}

/// A queue and a monitor that reads this.
fn bidding(source: &str) -> (Queue, Process) {
    let queue = Queue::start(&[]);
    let monitor =
        monitor(queue.address, provider(), &[&format!("monitor_load={source}"), UNCHECKED]);
    (queue, monitor)
}

/// The slots of this host, all of them free.
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
        &|| kept.dated(SystemTime::now() - Duration::from_secs(60)),
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
    kept.directory.write("load.hang", "");
    offers(&queue, 0.0);
    monitor.idles();
    fs::remove_file(kept.directory.file("load.hang")).unwrap();
    offers(&queue, all);
}

#[test]
fn utilisation_queue_and_workers_may_be_told() {
    let kept = Kept::with("u=0.2 q=0 c=3\n");
    let (queue, _monitor) = bidding(&format!("file:{}", kept.path()));
    // Nothing is in progress, so nothing is learned: the workers.
    offers(&queue, 3.0);
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
        (
            count(&["INFO", "service web is healthy"]),
            count(&["WARN", "service web fails its check"]),
        )
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
        let message =
            "provider=10.0.0.7:80&service=web&tickets=2&capacity=1000000&weight=2.000&lease=20s";
        assert_eq!(*line, format!("pegasus://{place}/ticket?{message}"));
    }
}

/// Ends the busy loops, also when the test fails.
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
    // SAFETY: asks about this process only.
    let niced = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } > 0;
    let _spinning = Spinning::start(3 * cpus);
    until("the CPUs are busy and as many tasks wait", || {
        let out = look(QUICK, &[UNCHECKED, "monitor_load=cpu"]);
        // Where the tests themselves are niced, what they use is not busy; and niced
        // jobs of others may take their part.
        let busy = niced || number(&out, "utilisation") > 0.5;
        busy && number(&out, "queued") >= cpus as f64
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

#[test]
fn a_check_that_leaves_a_daemon_or_prints_much_is_a_good_check() {
    let (queue, provider) = (Queue::start(&[]), provider());
    let check = "service_web_check=exec:setsid sleep 100 & head -c 300000 /dev/zero | tr '\\\\0' x";
    let monitor = monitor(queue.address, provider, &[check]);
    let lease = |queue: &Queue| queue.status().tickets(provider);
    until("it offers", || lease(&queue) > 0);
    // It goes on: a lease of ours would have ended otherwise.
    queue.ask(&format!("withdraw?provider={provider}&service=web"));
    until("it offers again", || lease(&queue) > 0);
    assert!(monitor.log_with(&["fails its check"]).is_empty());
}

#[test]
fn a_load_file_that_is_a_fifo_or_comes_from_the_future_calls_the_host_full() {
    let kept = Kept::with("0.0");
    let (queue, mut monitor) = bidding(&format!("file:{}", kept.path()));
    offers(&queue, slots());
    kept.dated(SystemTime::now() + Duration::from_secs(3600));
    offers(&queue, 0.0);
    monitor.says(&["its time is in the future"]);
    kept.say("0.0");
    offers(&queue, slots());
    kept.fresh.store(false, Ordering::SeqCst);
    std::fs::remove_file(kept.path()).unwrap();
    let name = std::ffi::CString::new(kept.path()).unwrap();
    // SAFETY: the name is a text that lives for the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    offers(&queue, 0.0);
}
