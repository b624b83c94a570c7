//! Three providers, their monitors, a balancer under a shell loop, and a redirector beside it.

use super::clients::Outages;
use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::path;
use crate::support::process::{bind_to_parent, Process};
use crate::support::{free_port, free_ports, tool, until, Directory};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A supervisor that knows nothing of its program: it starts it again when it ends.
const LOOP: &str =
    "while :; do \"$@\"; echo $? >>\"$ENDS\"; [ ! -e \"$ENDS.last\" ] || exit 0; done";
/// Memory that a process may have gained, in KiB: what a busy allocator keeps.
const GAIN: u64 = 4096;
const PROVIDERS: usize = 3;

pub struct Site {
    directory: Directory,
    ports: Vec<u16>,
    providers: Vec<Process>,
    monitors: Vec<Process>,
    /// It is never upgraded, so that what piles up shows.
    beside: Process,
    balancer: Supervised,
    queue: SocketAddr,
    fronts: [SocketAddr; 2],
    counts: BTreeMap<&'static str, usize>,
}

/// Descriptors and memory in KiB of each process.
#[derive(Debug)]
pub struct Figures(Vec<(&'static str, usize, u64)>);

impl Figures {
    #[track_caller]
    pub fn is_like(&self, before: &Figures) {
        for (now, then) in self.0.iter().zip(&before.0) {
            assert!(now.1 <= then.1, "descriptors of the {}: {} after {}", now.0, now.1, then.1);
            let most = then.2 + then.2 / 4 + GAIN;
            assert!(now.2 <= most, "memory of the {}: {} after {}", now.0, now.2, then.2);
        }
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn beside(name: &str) -> String {
    format!("{}/tests/system/soak/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn provider(port: u16) -> Process {
    let mut command = tool("python3");
    let mut process =
        Process::start("provider", command.args([&beside("provider.py"), &port.to_string()]));
    process.says(&["ready"]);
    process
}

impl Site {
    /// A flow must outlive a freeze of this length, and ends soon after it.
    pub fn start(freeze: Duration) -> Site {
        let idle = freeze.as_millis() * 2 + 1000;
        let directory = Directory::new();
        let ports: Vec<u16> = free_ports(PROVIDERS as u16).collect();
        let providers = ports.iter().map(|port| provider(*port)).collect();
        let [queue, front, other] = [free_port(), free_port(), free_port()].map(local);
        let conf = |name: &str, own: &str, front: SocketAddr| {
            let common = format!(
                "service_web_listen={front}\nservice_names_listen={front}/udp\n\
                 service_names_udp_idle={idle}ms\nredirect_wait=20s\nredirect_queue_timeout=20s\n\
                 redirect_threads=2\n"
            );
            directory.write(name, &(common + own))
        };
        let own = format!("redirect_queue=embedded\nqueue_listen={queue}\n");
        let main = conf("balancer.conf", &own, front);
        let own = format!("redirect_queue={queue}\nredirect_splice=off\n");
        let second = conf("beside.conf", &own, other);
        let balancer = Supervised::start(&directory, &main);
        until("the queue listens", || TcpStream::connect(queue).is_ok());
        let mut beside =
            Process::start("redirect", Command::new(path()).args(["redirect", "-c", &second]));
        beside.says(&["[redirect] ready "]);
        let monitors = ports.iter().map(|port| monitor(&directory, queue, *port)).collect();
        Site {
            fronts: [front, other],
            counts: BTreeMap::new(),
            directory,
            ports,
            providers,
            monitors,
            beside,
            balancer,
            queue,
        }
    }

    /// Returns the addresses for clients, TCP and UDP.
    pub fn places(&self) -> [SocketAddr; 2] {
        self.fronts
    }

    fn counted(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Each file changes, so that there is something to read.
    pub fn reload(&mut self) {
        self.counted("reloads");
        for name in fs::read_dir(self.directory.path()).unwrap().flatten() {
            let name = name.path();
            if name.extension().is_none_or(|end| end != "conf") {
                continue;
            }
            let text = fs::read_to_string(&name).unwrap();
            let text = match text.strip_suffix("log_level=debug\n") {
                Some(text) => text.to_string(),
                None => text + "log_level=debug\n",
            };
            fs::write(&name, text).unwrap();
        }
        self.balancer.signal(libc::SIGHUP);
        self.beside.signal(libc::SIGHUP);
        self.monitors.iter().for_each(|monitor| monitor.signal(libc::SIGHUP));
    }

    /// A monitor has nothing to hand over, and ignores it.
    pub fn upgrade(&mut self) {
        self.counted("upgrades");
        self.balancer.upgrade();
        self.monitors.iter().for_each(|monitor| monitor.signal(libc::SIGUSR2));
    }

    pub fn toggle_log(&mut self) {
        let reads = !self.balancer.reads.load(Ordering::SeqCst);
        self.counted(if reads { "times the log was read again" } else { "times nobody read" });
        self.balancer.reads.store(reads, Ordering::SeqCst);
    }

    /// It is gone for a moment, and started again at its port.
    pub fn kill_provider(&mut self, number: usize, outages: &Outages) {
        self.counted("providers killed");
        outages.during(|| self.providers[number].kill());
        thread::sleep(Duration::from_millis(300));
        self.providers[number] = provider(self.ports[number]);
    }

    pub fn freeze_provider(&mut self, number: usize, pause: Duration) {
        self.counted("providers frozen");
        self.providers[number].signal(libc::SIGSTOP);
        thread::sleep(pause);
        self.providers[number].signal(libc::SIGCONT);
    }

    /// The process that serves; the supervisor starts the next one.
    pub fn kill_balancer(&mut self, outages: &Outages) {
        self.counted("balancers killed");
        outages.during(|| {
            self.balancer.kill();
            // It serves again when a client gets a provider.
            until("the balancer is back", || {
                fronts_answer(&self.fronts) && self.registered(self.queue)
            });
        });
    }

    fn registered(&self, queue: SocketAddr) -> bool {
        let status = ControlConnection::to(queue).status();
        let rows = || status.providers().filter(|row| row.text("service") != "odd");
        rows().filter(|row| row.number("tickets") > 0).count() == 2 * PROVIDERS
    }

    /// Nothing has ended that was not killed.
    #[track_caller]
    pub fn sound(&mut self) {
        assert!(self.beside.runs(), "the redirector ended: {:?}", self.beside.log());
        for monitor in &mut self.monitors {
            assert!(monitor.runs(), "a monitor ended: {:?}", monitor.log());
        }
        let ends = self.balancer.ends();
        let killed = self.counts.get("balancers killed").copied().unwrap_or(0);
        assert_eq!(ends, vec!["137"; killed], "the balancer ended: {}", self.balancer.tail());
    }

    /// Waits until no client is there and the processes before an upgrade are gone.
    pub fn settles(&mut self) {
        self.balancer.reads.store(true, Ordering::SeqCst);
        until("all offers are there", || self.registered(self.queue));
        until("nothing is in progress", || {
            let status = ControlConnection::to(self.queue).status();
            status.check();
            let idle = status.providers().all(|row| row.number("active") == 0);
            idle
        });
        until("only the first and the last process are left", || {
            self.balancer.descendants().len() <= 2
        });
        for process in self.monitors.iter().chain([&self.beside]) {
            until("no zombie stays", || zombies(process.id()) == 0);
        }
    }

    /// Returns the least of several looks: the last flows end by their silence, and a check
    /// under way has a socket.
    pub fn figures(&self) -> Figures {
        let mut least = self.look();
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(700));
            for (least, now) in least.0.iter_mut().zip(self.look().0) {
                *least = (least.0, least.1.min(now.1), least.2.min(now.2));
            }
        }
        least
    }

    fn look(&self) -> Figures {
        let serves = *self.balancer.descendants().last().unwrap();
        let mut figures = vec![("balancer", descriptors(serves), memory(serves))];
        figures.push(("redirector", self.beside.descriptors(), self.beside.memory()));
        // A check under way has a pipe or two.
        let monitors = || self.monitors.iter();
        let open = monitors().map(|monitor| monitor.descriptors() - monitor.open("pipe:"));
        figures.push(("monitors", open.sum(), monitors().map(Process::memory).sum()));
        Figures(figures)
    }

    pub fn told(&self) -> String {
        let lines = self.balancer.lines.load(Ordering::SeqCst);
        let lost = self.balancer.lost.lock().unwrap().len();
        let counts: Vec<String> =
            self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        format!("{}; {lines} lines of log, {lost} gaps in it", counts.join(", "))
    }

    /// All ends well, and nothing of it stays.
    #[track_caller]
    pub fn ends(mut self) {
        for monitor in &mut self.monitors {
            monitor.signal(libc::SIGTERM);
            assert_eq!(monitor.ends(), 0);
        }
        self.beside.signal(libc::SIGTERM);
        assert_eq!(self.beside.ends(), 0);
        self.balancer.terminate();
        let marker = format!("SOAK={}", self.directory.path().display());
        until("no check and no process stays", || marked(&marker) == 0);
        let panics = self.balancer.tail().matches("panicked").count();
        assert_eq!(panics, 0, "{}", self.balancer.tail());
    }
}

fn fronts_answer(fronts: &[SocketAddr]) -> bool {
    fronts.iter().all(|front| crate::support::visits::visit(*front, "x").is_ok())
}

fn monitor(directory: &Directory, queue: SocketAddr, port: u16) -> Process {
    let check = beside("check.sh");
    let text = format!(
        "monitor_balancers={queue}\nmonitor_interval=500ms\ndrain_timeout=2s\n\
         service_web_provider=127.0.0.1:{port}\nservice_names_provider=127.0.0.1:{port}\n\
         service_odd_provider=127.0.0.1:{port}\nservice_odd_check=\"exec:sh {check}\"\n"
    );
    let conf = directory.write(&format!("monitor-{port}.conf"), &text);
    let mut command = Command::new(path());
    command.args(["monitor", "-c", &conf]);
    command.env("SOAK", directory.path());
    let mut process = Process::start("monitor", &mut command);
    process.says(&["[monitor] ready "]);
    process
}

/// The balancer under the loop, and the reader of its log.
struct Supervised {
    shell: Child,
    ends: String,
    reads: Arc<AtomicBool>,
    lines: Arc<AtomicUsize>,
    /// What it said of lines that nobody read.
    lost: Arc<Mutex<Vec<String>>>,
    tail: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Supervised {
    fn start(directory: &Directory, conf: &str) -> Supervised {
        let ends = directory.write("ends", "");
        let mut command = tool("sh");
        command.args(["-c", LOOP, "sh", path(), "redirect", "-c", conf]);
        command.env("ENDS", &ends).env("SOAK", directory.path());
        command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut shell = bind_to_parent(&mut command).spawn().unwrap();
        let mut pipe = shell.stderr.take().unwrap();
        let (reads, lines) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicUsize>::default());
        let (lost, tail): (Arc<Mutex<Vec<String>>>, Arc<Mutex<String>>) = Default::default();
        let (on, count, gaps, last) = (reads.clone(), lines.clone(), lost.clone(), tail.clone());
        let reader = thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                while !on.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(20));
                }
                let Ok(got @ 1..) = pipe.read(&mut buffer) else { return };
                let text = String::from_utf8_lossy(&buffer[..got]).into_owned();
                count.fetch_add(text.matches('\n').count(), Ordering::SeqCst);
                let told = text.lines().filter(|line| line.contains(" lines lost"));
                gaps.lock().unwrap().extend(told.map(String::from));
                let mut last = last.lock().unwrap();
                last.push_str(&text);
                let from = last.len().saturating_sub(64 * 1024);
                let from = (from..).find(|at| last.is_char_boundary(*at)).unwrap();
                last.drain(..from);
            }
        });
        Supervised { shell, ends, reads, lines, lost, tail, reader: Some(reader) }
    }

    /// Returns the process that the shell started, and its successors.
    fn descendants(&self) -> Vec<u32> {
        fn below(id: u32) -> Vec<u32> {
            let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            let list = list.unwrap_or_default();
            let ids = list.split_whitespace().filter_map(|id| id.parse().ok());
            ids.flat_map(|id| [vec![id], below(id)].concat()).collect()
        }
        below(self.shell.id())
    }

    /// The loop's own child passes it on.
    fn signal(&self, signal: i32) {
        let Some(first) = self.descendants().first().copied() else { return };
        // SAFETY: plain numbers; the process is below a child of this test.
        unsafe { libc::kill(first as i32, signal) };
    }

    #[track_caller]
    fn upgrade(&self) {
        let before = self.descendants();
        self.signal(libc::SIGUSR2);
        until("a successor is there", || self.descendants().iter().any(|id| !before.contains(id)));
    }

    /// Kills the process that serves.
    #[track_caller]
    fn kill(&self) {
        let before = self.ends().len();
        for id in self.descendants().iter().skip(1) {
            // SAFETY: plain numbers; the process is below a child of this test.
            unsafe { libc::kill(*id as i32, libc::SIGKILL) };
        }
        if self.descendants().len() == 1 {
            self.signal(libc::SIGKILL);
        }
        until("the supervisor sees its end", || self.ends().len() > before);
    }

    fn ends(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.ends).unwrap_or_default();
        text.lines().map(String::from).collect()
    }

    fn tail(&self) -> String {
        self.tail.lock().unwrap().clone()
    }

    /// The loop ends with its program.
    #[track_caller]
    fn terminate(&mut self) {
        fs::write(format!("{}.last", self.ends), "").unwrap();
        self.signal(libc::SIGTERM);
        until("the loop ends", || self.shell.try_wait().unwrap().is_some());
        assert_eq!(self.ends().last().map(String::as_str), Some("0"), "{}", self.tail());
        self.reader.take().unwrap().join().unwrap();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.reads.store(true, Ordering::SeqCst);
        // SAFETY: plain numbers; it is the group of a child that may be gone already.
        unsafe { libc::kill(-(self.shell.id() as i32), libc::SIGKILL) };
        let _ = self.shell.wait();
        if thread::panicking() {
            eprintln!("--- the last of the balancer's log:\n{}", self.tail());
        }
    }
}

fn descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
}

/// Returns the resident memory of a process, in KiB.
fn memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Returns the processes whose environment has this.
fn marked(marker: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let environments = processes.filter_map(|entry| fs::read(entry.path().join("environ")).ok());
    environments
        .filter(|text| text.split(|byte| *byte == 0).any(|pair| pair == marker.as_bytes()))
        .count()
}

/// Returns the children of a process that nobody has waited for.
fn zombies(id: u32) -> usize {
    let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let dead = |id: &&str| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    };
    list.split_whitespace().filter(dead).count()
}
