//! What the workers for TCP and for UDP do alike: queue events, commands, look-ups of
//! fallbacks, deadlines, and the end of a turn.
//!
//! Owns the parts that both have. Not responsible for sockets of clients and providers.

use super::blocked::BlockedLog;
use super::exit_policy::ExitPolicy;
use super::fallbacks::Fallbacks;
use super::listen_sockets::ListenSocket;
use super::own_listeners::OwnListeners;
use super::proxy_protocol::ProxyProtocol;
use super::queue_handle::{Asker, QueueHandle};
use super::shared::{AdoptedFlows, MovedSocket, SharedState, WorkerCommand};
use crate::command::admin::WorkerMetrics;
use crate::config::settings::Settings;
use crate::net::event_loop::{Context, Handler};
use crate::net::queue_connection::QueueEvent;
use crate::net::shared_counter::SharedCounter;
use log::error;
use mio::event::Event;
use mio::Token;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::state_machine::{NoStateMachine, StateMachine};
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::Request;
use pegasus_core::protocol::requester::Matched;
use pegasus_core::redirect::answers::{Answer, AnswerOptions, Answerer, Input, Output};
use pegasus_core::redirect::redirector::RedirectOptions;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::Arc;

/// How long clients that are told where to go may wait.
fn answer_options(settings: &Settings) -> AnswerOptions {
    let RedirectOptions { wait, queue_timeout, .. } = settings.redirect_options();
    AnswerOptions { wait, queue_timeout }
}

/// What a socket of a worker is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketRole {
    /// Connections of clients come by it.
    Listener,
    /// Datagrams of clients come by it.
    Datagrams,
    /// The worker's connection to its queue.
    Queue,
    /// It leads to a client.
    Client,
    /// It leads to a provider.
    Provider,
}

impl SocketRole {
    const ALL: [SocketRole; 5] = {
        use SocketRole::{Client, Datagrams, Listener, Provider, Queue};
        [Listener, Datagrams, Queue, Client, Provider]
    };

    /// The token of the socket with this number among those of its role.
    pub fn token(self, number: usize) -> Token {
        Token(number * Self::ALL.len() + self as usize)
    }

    /// The role of the socket with this token, and its number.
    pub fn of(Token(token): Token) -> (SocketRole, usize) {
        (Self::ALL[token % Self::ALL.len()], token / Self::ALL.len())
    }
}

/// An input that the state machines of both kinds of worker have.
pub enum CommonInput {
    /// The queue can be asked.
    QueueUp,
    /// The queue cannot be reached.
    QueueDown,
    /// The queue answered the question with this id.
    QueueReply { id: u32, reply: Reply },
    /// The queue answered a question without an id.
    QueueAnswer(Reply),
    /// The static providers of a service, resolved.
    Fallback { service: ServiceName, addresses: Vec<SocketAddr> },
}

/// A state machine of a worker.
pub trait WorkerMachine: StateMachine {
    /// Handles an input that both kinds have.
    fn handle_common(&mut self, input: CommonInput, now: Moment);
}

/// For a worker that has none but the answerer.
impl WorkerMachine for NoStateMachine {
    fn handle_common(&mut self, _: CommonInput, _: Moment) {}
}

/// The parts of a worker that both kinds have.
pub struct WorkerBase {
    pub queue: QueueHandle,
    /// For clients that are told where to go.
    pub answerer: Answerer,
    pub fallbacks: Fallbacks,
    pub proxy_protocol: ProxyProtocol,
    pub exit_policy: ExitPolicy,
    pub settings: Arc<Settings>,
    /// Where this process listens.
    pub own_listeners: OwnListeners,
    /// What is logged of providers that cannot be reached from here.
    pub blocked_log: BlockedLog,
    /// TCP clients of all workers.
    pub client_count: SharedCounter,
    /// Flows of all workers.
    pub flow_count: Arc<AtomicUsize>,
    /// What this worker counts.
    pub metrics: WorkerMetrics,
}

impl WorkerBase {
    /// See [`SharedState::queue_handle`].
    ///
    /// # Errors
    /// As many workers as were announced ask the queue of this process already.
    pub fn new(shared: &SharedState, seed: u64, cx: &Context) -> io::Result<WorkerBase> {
        Ok(WorkerBase {
            queue: shared.queue_handle(SocketRole::Queue.token(0), seed, cx)?,
            answerer: Answerer::new(answer_options(&shared.settings)),
            fallbacks: Fallbacks::new(&shared.settings),
            proxy_protocol: ProxyProtocol::new(&shared.settings),
            exit_policy: ExitPolicy::new(shared.run_mode),
            settings: shared.settings.clone(),
            own_listeners: shared.own_listeners.clone(),
            blocked_log: shared.blocked_log.clone(),
            client_count: shared.client_count.clone(),
            flow_count: shared.flow_count.clone(),
            metrics: shared.metrics.worker(),
        })
    }

    /// Asks the queue, and handles what it answers at once.
    pub fn ask(&mut self, request: Request, machine: &mut impl WorkerMachine, now: Moment) {
        self.queue.ask(request, Asker::Machine, now);
        self.handle_queue_events(machine, now);
    }

    /// No client that is told where to go waits for longer than this.
    pub fn limit_answers(&mut self, within: Span, now: Moment) {
        let AnswerOptions { wait, queue_timeout } = answer_options(&self.settings);
        let options =
            AnswerOptions { wait: wait.at_most(within), queue_timeout: queue_timeout.min(within) };
        self.answerer.handle_input(Input::Reconfigure(options), now);
    }

    /// The next client that is told where to go, and where. Asks the queue until there is
    /// one or nothing is left to ask.
    pub fn poll_answer(
        &mut self,
        machine: &mut impl WorkerMachine,
        now: Moment,
    ) -> Option<(Key, Answer)> {
        loop {
            match self.answerer.poll_output()? {
                Output::Answer { question, answer } => return Some((question, answer)),
                Output::SendToQueue(request) => {
                    self.queue.ask(request, Asker::Answerer, now);
                    self.handle_queue_events(machine, now);
                }
            }
        }
    }

    /// The queue's socket is ready.
    pub fn on_queue_event(
        &mut self,
        event: &Event,
        machine: &mut impl WorkerMachine,
        cx: &mut Context,
    ) {
        self.queue.on_event(event, cx);
        self.handle_queue_events(machine, cx.now);
    }

    /// Handles what the queue reports.
    fn handle_queue_events(&mut self, machine: &mut impl WorkerMachine, now: Moment) {
        while let Some(event) = self.queue.poll_event() {
            if matches!(event, QueueEvent::Up | QueueEvent::Down) {
                self.metrics.queue_up(matches!(event, QueueEvent::Up));
            }
            let input = match event {
                QueueEvent::Up => {
                    self.answerer.handle_input(Input::QueueUp, now);
                    CommonInput::QueueUp
                }
                QueueEvent::Down => {
                    self.answerer.handle_input(Input::QueueDown, now);
                    CommonInput::QueueDown
                }
                QueueEvent::Answer(Matched::InOrder(Asker::Answerer, reply)) => {
                    self.answerer.handle_input(Input::QueueAnswer(reply), now);
                    continue;
                }
                QueueEvent::Answer(Matched::ById(id, reply)) => {
                    CommonInput::QueueReply { id, reply }
                }
                QueueEvent::Answer(Matched::InOrder(Asker::Machine, reply)) => {
                    CommonInput::QueueAnswer(reply)
                }
            };
            machine.handle_common(input, now);
        }
    }

    /// Time passed: the deadlines of the queue handle and of look-ups.
    fn handle_timeout(&mut self, machine: &mut impl WorkerMachine, cx: &mut Context) {
        self.queue.handle_timeout(cx);
        self.handle_queue_events(machine, cx.now);
        self.answerer.handle_timeout(cx.now);
        for (service, addresses) in self.fallbacks.resolve(cx) {
            let fallback = Input::Fallback { service, addresses: addresses.clone() };
            self.answerer.handle_input(fallback, cx.now);
            machine.handle_common(CommonInput::Fallback { service, addresses }, cx.now);
        }
    }

    /// When [`on_timeout`] must be called, or the worker may have to end.
    pub fn next_timeout(&self) -> Option<Moment> {
        let exit = self.exit_policy.next_timeout(self.settings.redirect_linger);
        let answers = self.answerer.next_timeout();
        let own = [self.queue.next_timeout(), self.fallbacks.next_timeout(), exit, answers];
        own.into_iter().flatten().min()
    }

    /// Sends the queue what this turn asked.
    pub fn flush_queue(&mut self, machine: &mut impl WorkerMachine, cx: &mut Context) {
        if self.exit_policy.is_leaving() {
            self.queue.flush_now();
        }
        self.queue.flush(cx);
        self.handle_queue_events(machine, cx.now);
        // What the queue said while it was flushed is for the next turn.
        cx.skip_sleep |= self.answerer.has_output();
    }

    /// Whether the worker, which has so many clients or flows, may end.
    pub fn poll_finished(&mut self, here: usize, now: Moment) -> bool {
        // With none here, all that are counted are elsewhere.
        let elsewhere = self.client_count.count() + self.flow_count.load(Ordering::Relaxed);
        let (flushed, linger) = (self.queue.is_flushed(), self.settings.redirect_linger);
        self.exit_policy.poll_finished(here, elsewhere, flushed, linger, now)
    }

    fn reconfigure(&mut self, settings: Arc<Settings>, now: Moment) {
        self.fallbacks = Fallbacks::new(&settings);
        self.proxy_protocol.reconfigure(&settings);
        self.queue.reconfigure(&settings, now);
        self.answerer.handle_input(Input::Reconfigure(answer_options(&settings)), now);
        self.settings = settings;
    }
}

/// A worker: what each kind does in its own way.
pub trait Worker: Handler<Command = WorkerCommand, StateMachine: WorkerMachine> + Sized {
    /// The parts that both kinds have.
    fn base(&mut self) -> &mut WorkerBase;

    /// Clients come to this socket from now on, if it is one for this worker.
    ///
    /// # Errors
    /// Returns the OS error.
    fn listen(&mut self, listen_socket: &ListenSocket, cx: &Context) -> io::Result<()>;

    /// Closes a listen socket in good order.
    fn close_listener(&mut self, number: usize, machine: &mut Self::StateMachine, cx: &mut Context);

    /// The clients of a listen socket want another service from now on.
    fn reassign_listener(&mut self, number: usize, service: ServiceName);

    /// New clients stop coming: the process is to end.
    fn stop_listening(&mut self, machine: &mut Self::StateMachine, cx: &mut Context);

    /// New clients stop coming: they go to another process.
    /// `moved` takes what that process can go on with.
    fn hand_over(
        &mut self,
        moved: &Sender<MovedSocket>,
        machine: &mut Self::StateMachine,
        cx: &mut Context,
    );

    /// Goes on with flows of the process that this one took the place of.
    fn adopt_flows(&mut self, _: &AdoptedFlows, _: &mut Self::StateMachine, _: &mut Context) {}

    /// The settings changed.
    fn apply_settings(&mut self, machine: &mut Self::StateMachine, cx: &mut Context);
}

/// Does what a command says.
pub fn on_command<W: Worker>(
    worker: &mut W,
    command: WorkerCommand,
    machine: &mut W::StateMachine,
    cx: &mut Context,
) {
    match command {
        WorkerCommand::Terminate => terminate(worker, machine, cx),
        WorkerCommand::AdoptFlows(flows) => worker.adopt_flows(&flows, machine, cx),
        WorkerCommand::HandOver(moved) => {
            let base = worker.base();
            base.exit_policy.start_drain(base.settings.drain_timeout, cx.now);
            worker.hand_over(&moved, machine, cx);
        }
        WorkerCommand::UpdateListeners(diff) => {
            diff.closed.iter().for_each(|number| worker.close_listener(*number, machine, cx));
            for (number, service) in &diff.reassigned {
                worker.reassign_listener(*number, *service);
            }
            for listen_socket in &diff.opened {
                if let Err(error) = worker.listen(listen_socket, cx) {
                    error!(target: "redirect", "{}: {error}", listen_socket.listen);
                }
            }
        }
        WorkerCommand::SetOwnListeners(own) => worker.base().own_listeners = own,
        WorkerCommand::Reconfigure(settings) => {
            worker.base().reconfigure(settings, cx.now);
            worker.apply_settings(machine, cx);
        }
    }
}

/// Ends in good order, perhaps after a grace; the second time at once.
fn terminate<W: Worker>(worker: &mut W, machine: &mut W::StateMachine, cx: &mut Context) {
    let WorkerBase { exit_policy, settings, .. } = worker.base();
    let grace = settings.redirect_accept_grace;
    if exit_policy.is_draining() || exit_policy.is_in_grace() {
        exit_policy.start_drain(Span::ZERO, cx.now);
    } else if exit_policy.is_daemon() && !grace.is_zero() {
        return exit_policy.start_grace(grace, cx.now);
    } else {
        exit_policy.start_drain(settings.drain_timeout, cx.now);
    }
    worker.stop_listening(machine, cx);
}

/// Time passed, for what both kinds have.
pub fn on_timeout<W: Worker>(worker: &mut W, machine: &mut W::StateMachine, cx: &mut Context) {
    let base = worker.base();
    base.handle_timeout(machine, cx);
    if base.exit_policy.is_grace_over(cx.now) {
        base.exit_policy.start_drain(base.settings.drain_timeout, cx.now);
        worker.stop_listening(machine, cx);
    }
}
