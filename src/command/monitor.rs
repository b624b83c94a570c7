//! `pegasus monitor`: the handler of the monitor.
//!
//! Owns the connections to the balancers, the load sources and the checks.
//! Not responsible for what is offered.

mod agent;

use self::agent::Agent;
use super::admin::{self, Admin, Metrics, Subject};
use super::daemon::{become_user, Daemon, PidFile, SignalAction};
use super::names::{self, MonitorNames};
use super::terminal::print_line;
use super::{exit, seed};
use crate::config::settings::{Check, ServiceSettings, Settings};
use crate::config::source::ConfigSource;
use crate::net::background_command::{self, BackgroundCommand};
use crate::net::event_loop::{Context, EventLoop, Handler};
use crate::net::http_check;
use crate::net::listeners;
use crate::net::load_sampler::LoadSampler;
use crate::net::queue_connection::{QueueConnection, QueueEvent};
use crate::net::task_sampler::TaskSampler;
use crate::net::tcp_check::{CheckResult, TcpChecks};
use crate::os::signal::Signal;
use crate::os::{notify, service_manager};
use log::{debug, error, info, warn};
use mio::event::Event;
use mio::{Token, Waker};
use pegasus_core::base::decimal::Thousandths;
use pegasus_core::base::provider::ProviderSpec;
use pegasus_core::base::sample::Sample;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::monitor::engine::Tasks;
use pegasus_core::monitor::monitor::{Input, Monitor, MonitorLog, Output};
use pegasus_core::protocol::peer_key::KeyRole;
use pegasus_core::protocol::reply::{Mode, Reply};
use pegasus_core::protocol::request::Request;
use pegasus_core::protocol::requester::Matched;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The first wait before a balancer is tried again; the longest is half an interval.
const RETRY: Span = Span::from_millis(100);
/// A balancer that owes an answer for so many intervals, and so long, is away.
/// That is well before the lease of what it was told ends, five intervals and at
/// least 5 s, so that another connection can be opened in time.
const SILENCE_INTERVALS: u64 = 2;
const SILENCE_MIN: Span = Span::from_secs(2);

/// After so many intervals without the word of a balancer no engine leads clients.
const ENGINE_INTERVALS: u64 = 5;

/// Commands to a running monitor.
pub enum MonitorCommand {
    /// Withdraw and end in good order; the second time at once.
    Terminate,
    /// Another configuration from now on.
    Reconfigure(Box<Settings>),
}

struct MonitorHandler {
    settings: Settings,
    connections: Vec<QueueConnection<usize>>,
    load_sampler: LoadSampler,
    /// The monitor asked for a sample, but a command gave no reading yet.
    sample_due: bool,
    /// Where an engine leads clients, and when a balancer said so last.
    task_sampler: Option<TaskSampler>,
    engine_at: Moment,
    tcp_checks: TcpChecks,
    /// Checks by command, with the number of the service.
    command_checks: Vec<(usize, BackgroundCommand)>,
    /// Why services failed their last bad check.
    failure_reasons: HashMap<usize, String>,
    draining: bool,
    /// Nothing is in progress, or the time is over.
    finished: bool,
    agent: Agent,
    /// Until then those who ask the agent may hear that this host drains.
    agent_until: Moment,
    metrics: Metrics,
}

impl Handler for MonitorHandler {
    type StateMachine = Monitor;
    type Command = MonitorCommand;

    fn on_event(&mut self, event: &Event, monitor: &mut Monitor, cx: &mut Context) {
        if self.agent.on_event(event.token()) {
            return;
        }
        let Token(token) = event.token();
        let number = token / 2;
        if token % 2 == 0 {
            if let Some(connection) = self.connections.get_mut(number) {
                connection.on_event(event, cx);
                self.handle_queue_events(monitor, cx);
            }
        } else if let Some(result) = self.tcp_checks.on_event(number) {
            self.on_check_result(number, result, monitor, cx);
        }
    }

    fn on_output(&mut self, output: Output, monitor: &mut Monitor, cx: &mut Context) {
        match output {
            Output::TakeSample => {
                self.sample_due = true;
                self.sample_if_ready(monitor, cx);
            }
            Output::Check { service } => {
                if let Some(result) = self.start_check(service, cx) {
                    self.on_check_result(service, result, monitor, cx);
                }
            }
            Output::SendToQueue { balancer, service, request } => {
                self.note_offer(balancer, &request);
                if let Some(connection) = self.connections.get_mut(balancer) {
                    connection.ask(&request, service, cx.now);
                }
            }
            Output::Log(note) => self.log_note(&note),
            Output::Finished => self.finished = true,
        }
    }

    fn on_command(&mut self, command: MonitorCommand, monitor: &mut Monitor, cx: &mut Context) {
        match command {
            MonitorCommand::Terminate if self.draining => {
                (self.finished, self.agent_until) = (true, cx.now);
            }
            MonitorCommand::Terminate => {
                info!(target: "monitor", "draining");
                self.metrics.set_draining();
                self.draining = true;
                self.agent_until = cx.now + self.settings.drain_timeout;
                monitor.handle_input(Input::Drain, cx.now);
            }
            MonitorCommand::Reconfigure(settings) => self.reconfigure(*settings, monitor, cx),
        }
    }

    fn on_timeout(&mut self, monitor: &mut Monitor, cx: &mut Context) {
        self.load_sampler.handle_timeout(cx.now);
        self.sample_if_ready(monitor, cx);
        let mut results = Vec::new();
        self.command_checks.retain(|(service, command)| match command.result() {
            Some(output) => {
                results.push((*service, output.map(drop)));
                false
            }
            None => true,
        });
        for (service, result) in results {
            self.on_check_result(service, result, monitor, cx);
        }
        self.connections.iter_mut().for_each(|connection| connection.handle_timeout(cx));
        self.handle_queue_events(monitor, cx);
        while let Some(service) = self.tcp_checks.pop_expired(cx.now) {
            self.on_check_result(service, Err("no answer in time".into()), monitor, cx);
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        let connections = self.connections.iter().filter_map(QueueConnection::next_timeout);
        connections
            .chain(self.load_sampler.next_timeout())
            .chain(self.tcp_checks.next_timeout())
            .chain(self.agent.next_timeout())
            .min()
    }

    fn end_turn(&mut self, monitor: &mut Monitor, cx: &mut Context) -> bool {
        self.connections.iter_mut().for_each(|connection| connection.flush(cx));
        self.handle_queue_events(monitor, cx);
        if self.agent.is_used() {
            let services: Vec<ServiceName> =
                self.settings.offered().iter().map(|service| service.name).collect();
            self.agent.end_turn(&services, |number| monitor.standing(number), cx);
        }
        self.finished && (cx.now >= self.agent_until || !self.agent.is_expected(cx.now))
    }
}

impl MonitorHandler {
    fn new(settings: Settings, waker: Arc<Waker>) -> MonitorHandler {
        MonitorHandler {
            connections: connections(&settings),
            load_sampler: LoadSampler::new(
                &settings.monitor_load,
                settings.monitor_interval,
                waker,
            ),
            sample_due: false,
            task_sampler: None,
            engine_at: Moment::ZERO,
            tcp_checks: TcpChecks::default(),
            command_checks: Vec::new(),
            failure_reasons: HashMap::new(),
            draining: false,
            finished: false,
            agent: Agent::default(),
            agent_until: Moment::ZERO,
            metrics: Metrics::default(),
            settings,
        }
    }

    fn new_monitor(&self) -> Monitor {
        Monitor::new(self.settings.monitor_options(), self.load_sampler.cpus(), seed())
    }

    fn on_check_result(
        &mut self,
        service: usize,
        result: CheckResult,
        monitor: &mut Monitor,
        cx: &Context,
    ) {
        let good = result.is_ok();
        if let Err(why) = result {
            debug!(target: "monitor", "check of service {service}: {why}");
            self.failure_reasons.insert(service, why);
        }
        monitor.handle_input(Input::Checked { service, good }, cx.now);
    }

    fn sample_if_ready(&mut self, monitor: &mut Monitor, cx: &Context) {
        if self.sample_due && self.load_sampler.is_ready() {
            self.sample_due = false;
            let sample = self.load_sampler.sample(cx.now);
            self.load_sampler
                .take_log_lines()
                .into_iter()
                .for_each(|line| warn!(target: "monitor", "{line}"));
            self.metrics.update_monitor(|state| {
                state.sample = describe(&sample).replacen("sample ", "", 1);
                state.utilisation = sample.utilisation.map(|part| (part * 1000.0) as u64);
            });
            if let Some((own, foreign)) = self.task_sampler.as_mut().and_then(TaskSampler::sample) {
                monitor.handle_input(Input::Tasks(Tasks { own, foreign }), cx.now);
            }
            let memory = self.settings.monitor_interval.times(ENGINE_INTERVALS);
            if cx.now.since(self.engine_at) > memory {
                self.task_sampler = None;
            }
            monitor.handle_input(Input::Sampled(sample), cx.now);
            self.note_slots(monitor);
        }
    }

    /// How many slots each service has, and how many are in use, for those who look.
    fn note_slots(&self, monitor: &Monitor) {
        let thousandths = |value: f64| (value * 1000.0).round() as u64;
        let services = self.settings.offered().into_iter().enumerate();
        let slots = services.filter_map(|(number, service)| {
            let (slots, active) = monitor.use_of_slots(number)?;
            Some((service.name, (thousandths(slots), thousandths(active))))
        });
        self.metrics.update_monitor(|state| state.slots = slots.collect());
    }

    /// A balancer says that an engine leads its clients: what they do is to be seen here.
    fn engine_leads(&mut self, now: Moment) {
        self.engine_at = now;
        if self.task_sampler.is_none() && self.load_sampler.is_of_all_tasks() {
            let ports = self
                .settings
                .offered()
                .into_iter()
                .filter_map(|service| service.provider.and_then(|provider| provider.port));
            let ports: Vec<u16> = ports.collect();
            if !ports.is_empty() {
                self.task_sampler = TaskSampler::start(ports, self.settings.monitor_interval);
            }
        }
    }

    /// Begins to check a service: at its provider's address, or at the one by
    /// which the balancers see this host. Answers at once where it can.
    fn start_check(&mut self, service: usize, cx: &mut Context) -> Option<CheckResult> {
        let timeout = check_timeout(&self.settings);
        let Some(settings) = self.settings.offered().get(service).copied().cloned() else {
            return Some(Ok(()));
        };
        match settings.effective_check() {
            Some(Check::Exec(command)) => {
                self.command_checks.push((
                    service,
                    BackgroundCommand::start(&command, timeout.into(), cx.waker()),
                ));
                None
            }
            Some(ref check @ (Check::Tcp(Some(port)) | Check::Http(Some(port), _))) => {
                let path = match check {
                    Check::Http(_, path) => Some(path.as_str()),
                    _ => None,
                };
                let seen = || {
                    self.connections
                        .iter()
                        .find_map(QueueConnection::local_ip)
                        .unwrap_or(Ipv4Addr::LOCALHOST.into())
                };
                let ip = settings.provider.and_then(|provider| provider.ip).unwrap_or_else(seen);
                self.tcp_checks.start(
                    service,
                    (SocketAddr::new(ip, port), path),
                    timeout,
                    Token(service * 2 + 1),
                    cx,
                )
            }
            _ => Some(Ok(())),
        }
    }

    /// What was sent to a balancer last, for those who look.
    fn note_offer(&self, balancer: usize, request: &Request) {
        let (service, offer) = match request {
            Request::Ticket { service, tickets, capacity, .. } => (*service, (*tickets, *capacity)),
            Request::Withdraw { service, .. } => (*service, (0, 0)),
            _ => return,
        };
        if let Some(target) = self.settings.monitor_balancers.get(balancer) {
            let key = (service, target.to_string());
            self.metrics.update_monitor(|state| {
                state.offers.insert(key, offer);
            });
        }
    }

    fn handle_queue_events(&mut self, monitor: &mut Monitor, cx: &mut Context) {
        let mut engine = false;
        for (balancer, connection) in self.connections.iter_mut().enumerate() {
            while let Some(event) = connection.poll_event() {
                if matches!(event, QueueEvent::Up | QueueEvent::Down) {
                    let (name, up) =
                        (connection.host_port().to_string(), matches!(event, QueueEvent::Up));
                    let word = if up { "connected to" } else { "lost" };
                    self.metrics.event(|| format!("{word} balancer {name}"));
                    self.metrics.update_monitor(|state| {
                        state.balancers.insert(name, up);
                    });
                }
                match event {
                    QueueEvent::Up => {
                        if let Some(ip) = connection.local_ip() {
                            monitor.handle_input(Input::Seen { balancer, ip }, cx.now);
                        }
                        monitor.handle_input(Input::Up { balancer }, cx.now);
                    }
                    QueueEvent::Down => monitor.handle_input(Input::Down { balancer }, cx.now),
                    QueueEvent::Answer(Matched::InOrder(service, reply)) => {
                        debug!(target: "monitor", "balancer {}: {reply}", connection.host_port());
                        engine |= matches!(
                            &reply, Reply::Feedback(feedback) if feedback.mode == Mode::Engine
                        );
                        monitor
                            .handle_input(Input::QueueReply { balancer, service, reply }, cx.now);
                    }
                    QueueEvent::Answer(Matched::ById(..)) => {}
                }
            }
        }
        if engine {
            self.engine_leads(cx.now);
        }
    }

    /// Goes on with other settings; what is no longer offered is withdrawn first.
    fn reconfigure(&mut self, settings: Settings, monitor: &mut Monitor, cx: &mut Context) {
        if self.draining {
            return;
        }
        let same_balancers = settings.monitor_balancers == self.settings.monitor_balancers;
        for old in self.settings.offered() {
            let kept = settings
                .offered()
                .iter()
                .any(|new| new.name == old.name && new.provider == old.provider);
            if !(kept && same_balancers) {
                let request = Request::Withdraw {
                    provider: old.provider.unwrap_or_default(),
                    service: old.name,
                };
                self.connections
                    .iter_mut()
                    .for_each(|connection| connection.ask(&request, 0, cx.now));
            }
        }
        self.connections.iter_mut().for_each(|connection| connection.flush(cx));
        let mut fresh = MonitorHandler::new(settings, cx.waker());
        fresh.metrics = self.metrics.clone();
        fresh.agent = std::mem::take(&mut self.agent);
        fresh.metrics.event(|| "configuration read again".to_string());
        fresh.metrics.update_monitor(|state| {
            state.offers.clear();
            if !same_balancers {
                state.balancers.clear();
            }
        });
        if same_balancers {
            fresh.connections = std::mem::take(&mut self.connections);
            let silence_max = silence_max(&fresh.settings);
            fresh
                .connections
                .iter_mut()
                .for_each(|connection| connection.set_silence_max(silence_max));
            let key = fresh.settings.client_key(KeyRole::Provider);
            for connection in &mut fresh.connections {
                connection.set_key(key.clone(), cx.now);
            }
        }
        let same_gauge = fresh.settings.monitor_load == self.settings.monitor_load
            && fresh.settings.monitor_interval == self.settings.monitor_interval;
        if same_gauge {
            std::mem::swap(&mut fresh.load_sampler, &mut self.load_sampler);
        }
        monitor.reconfigure(fresh.settings.monitor_options(), same_balancers, cx.now);
        *self = fresh;
    }

    fn log_note(&self, note: &MonitorLog) {
        match note {
            MonitorLog::Healthy(service) => {
                info!(target: "monitor", "service {service} is healthy");
                self.metrics.event(|| format!("service {service} is healthy"));
            }
            MonitorLog::Unhealthy(service) => {
                let number =
                    self.settings.offered().iter().position(|offered| offered.name == *service);
                let why = number
                    .and_then(|number| self.failure_reasons.get(&number))
                    .map_or("", String::as_str);
                warn!(target: "monitor", "service {service} fails its check, no tickets: {why}");
                self.metrics.event(|| format!("service {service} fails its check: {why}"));
            }
            MonitorLog::Refused { balancer, service, answer } => {
                let target = &self.settings.monitor_balancers[*balancer];
                warn!(target: "monitor", "balancer {target} takes no tickets for {service}: \
                    {answer}");
            }
            MonitorLog::Contested { balancer, service } => {
                let target = &self.settings.monitor_balancers[*balancer];
                warn!(target: "monitor", "another monitor offers this provider of {service} too, \
                    at balancer {target}");
            }
        }
    }
}

fn connections(settings: &Settings) -> Vec<QueueConnection<usize>> {
    let most = settings.monitor_interval.part(2);
    let retry = (RETRY.min(most), most);
    let connection = |(number, host_port): (usize, &pegasus_core::base::endpoint::HostPort)| {
        QueueConnection::new(
            "monitor",
            host_port.clone(),
            Token(number * 2),
            retry,
            silence_max(settings),
            seed(),
        )
        .with_key(settings.client_key(KeyRole::Provider))
    };
    settings.monitor_balancers.iter().enumerate().map(connection).collect()
}

fn silence_max(settings: &Settings) -> Span {
    settings.monitor_interval.times(SILENCE_INTERVALS).max(SILENCE_MIN)
}

fn check_timeout(settings: &Settings) -> Span {
    settings.monitor_interval.max(Span::from_millis(500)).min(Span::from_secs(2))
}

/// A monitor that is set up.
pub struct MonitorDaemon {
    event_loop: EventLoop<MonitorCommand>,
    handler: MonitorHandler,
}

impl MonitorDaemon {
    /// Sets it up; it connects when it runs.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn new(settings: Settings) -> io::Result<MonitorDaemon> {
        let mut event_loop = EventLoop::new()?;
        let handler = MonitorHandler::new(settings, event_loop.context().waker());
        Ok(MonitorDaemon { event_loop, handler })
    }

    /// Runs it; the result is an exit status.
    pub fn serve(mut self) -> i32 {
        let mut monitor = self.handler.new_monitor();
        exit::after("monitor", self.event_loop.run(&mut monitor, &mut self.handler))
    }
}

/// Runs the command; the result is its exit status.
pub fn run(daemon: Daemon) -> i32 {
    let Daemon { settings, source, once, .. } = daemon;
    if settings.to_offer().is_empty() {
        error!(target: "config", "nothing to offer: set service_NAME_provider");
        return exit::CONFIG;
    }
    if once {
        return run_once(&names::resolved(&settings));
    }
    let offers: Vec<String> =
        settings.to_offer().iter().map(|service| describe_offer(service)).collect();
    let balancers: Vec<String> =
        settings.monitor_balancers.iter().map(ToString::to_string).collect();
    let running = settings.clone();
    let pid_file = settings.pid_file.clone();
    let start = || {
        let admin_listeners = admin::bind(&settings.monitor_admin, Vec::new())?;
        let mut agent_listeners = Vec::new();
        for listen in &settings.monitor_agent {
            agent_listeners.extend(listeners::bind::<TcpListener>(listen)?);
        }
        become_user(&settings)?;
        let metrics = Metrics::default();
        metrics.update_monitor(|_| ());
        let subject = Subject {
            role: "monitor",
            metrics: metrics.clone(),
            flows: Arc::default(),
            per_provider: true,
        };
        let mut daemon = MonitorDaemon::new(settings)?;
        daemon.handler.metrics = metrics;
        daemon.handler.agent = Agent::listen(agent_listeners, daemon.event_loop.context())?;
        let loop_handle = daemon.event_loop.loop_handle();
        let mut names = MonitorNames::start(&running, move |settings| {
            loop_handle.send(MonitorCommand::Reconfigure(Box::new(settings)));
        });
        daemon
            .event_loop
            .catch_signals(move |signal| on_signal(signal, &source, &running, &mut names))?;
        Admin::start(subject, &admin_listeners, || ())?;
        Ok(daemon)
    };
    let started: io::Result<MonitorDaemon> = start();
    match started {
        Err(error) => {
            error!(target: "monitor", "{error}");
            exit::of(&error)
        }
        Ok(daemon) => {
            info!(target: "monitor", "ready {} for {}", offers.join(" "), balancers.join(" "));
            notify::ready();
            service_manager::ready();
            let _pid_file = PidFile::write(pid_file.as_deref());
            daemon.serve()
        }
    }
}

fn describe_offer(service: &ServiceSettings) -> String {
    let host = service.provider_name.as_deref().unwrap_or_default();
    let address = match service.provider {
        None => "own-address".to_string(),
        // A name stands for the address.
        Some(provider) if provider == ProviderSpec::default() => String::new(),
        Some(provider) => provider.to_string(),
    };
    format!("{}={host}{address}", service.name)
}

fn on_signal(
    signal: Signal,
    source: &ConfigSource,
    running: &Settings,
    names: &mut MonitorNames,
) -> Option<MonitorCommand> {
    match SignalAction::of(signal, "monitor")? {
        SignalAction::End => Some(MonitorCommand::Terminate),
        SignalAction::Reload => {
            let settings = source.reload(running, &["monitor"])?;
            if settings.to_offer().is_empty() {
                error!(target: "config", "nothing to offer: set service_NAME_provider; the old \
                    configuration stays");
                return None;
            }
            names.reconfigure(settings);
            None
        }
    }
}

/// `--once`: one sample, one check, and the messages that would be sent.
fn run_once(settings: &Settings) -> i32 {
    let waker = match EventLoop::<MonitorCommand>::new() {
        Ok(mut event_loop) => event_loop.context().waker(),
        Err(error) => {
            error!(target: "monitor", "{error}");
            return exit::SYSTEM;
        }
    };
    let mut load_sampler =
        LoadSampler::new(&settings.monitor_load, settings.monitor_interval, waker);
    let mut monitor = Monitor::new(settings.monitor_options(), load_sampler.cpus(), seed());
    let (interval, pieces) = (settings.monitor_interval.min(Span::from_secs(1)), 10);
    for piece in 0..pieces {
        load_sampler.handle_timeout(Moment::after_start(interval.times(piece + 1).part(pieces)));
        thread::sleep(interval.part(pieces).into());
    }
    let now = Moment::after_start(interval);
    monitor.handle_timeout(now);
    while let Some(output) = monitor.poll_output() {
        match output {
            Output::TakeSample => {
                let sample = load_sampler.sample(now);
                load_sampler
                    .take_log_lines()
                    .into_iter()
                    .for_each(|line| print_line(format_args!("# {line}")));
                print_line(format_args!("{}", describe(&sample)));
                monitor.handle_input(Input::Sampled(sample), now);
            }
            Output::Check { service } => {
                let result =
                    check_once(settings.offered()[service], check_timeout(settings).into());
                let name = settings.offered()[service].name;
                match &result {
                    Ok(()) => print_line(format_args!("check service={name} well=yes")),
                    Err(why) => {
                        print_line(format_args!("check service={name} well=no why=\"{why}\""))
                    }
                }
                let good = result.is_ok();
                monitor.handle_input(Input::Checked { service, good }, now);
            }
            Output::SendToQueue { .. } | Output::Log(_) | Output::Finished => {}
        }
    }
    for (balancer, _, request) in monitor.offers(now) {
        let mut line = Vec::new();
        let target = &settings.monitor_balancers[balancer];
        request.write(target, &mut line);
        print_line(String::from_utf8_lossy(&line).trim_end());
    }
    exit::OK
}

fn check_once(service: &ServiceSettings, timeout: Duration) -> CheckResult {
    match service.effective_check() {
        Some(Check::Exec(command)) => background_command::run(&command, timeout).map(drop),
        Some(ref check @ (Check::Tcp(Some(port)) | Check::Http(Some(port), _))) => {
            let ip = service
                .provider
                .and_then(|provider| provider.ip)
                .unwrap_or(Ipv4Addr::LOCALHOST.into());
            let to = SocketAddr::new(ip, port);
            let connected = TcpStream::connect_timeout(&to, timeout);
            let asked = connected.and_then(|stream| match check {
                Check::Http(_, path) => ask_once(stream, to, path, timeout),
                _ => Ok(Ok(())),
            });
            asked.unwrap_or_else(|error| Err(format!("{to}: {error}")))
        }
        _ => Ok(()),
    }
}

/// Asks over HTTP, and waits for the answer.
///
/// # Errors
/// Returns the OS error.
fn ask_once(
    mut stream: TcpStream,
    to: SocketAddr,
    path: &str,
    timeout: Duration,
) -> io::Result<CheckResult> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(&http_check::request(to, path))?;
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; http_check::ANSWER_BYTES_MAX];
        let count = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..count]);
        if let Some(result) = http_check::judge(&answer, count == 0) {
            return Ok(result);
        }
    }
}

fn describe(sample: &Sample) -> String {
    let number =
        |value: Option<f64>| value.map_or("-".to_string(), |value| Thousandths(value).to_string());
    // A share of CPUs has digits after the point, and whole ones have none.
    let cpus = Thousandths(sample.cpus).to_string();
    format!(
        "sample cpus={} utilisation={} queued={} load={} full={}",
        cpus.trim_end_matches('0').trim_end_matches('.'),
        number(sample.utilisation),
        number(sample.queued),
        number(sample.load),
        number(sample.full)
    )
}
