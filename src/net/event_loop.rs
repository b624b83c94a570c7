//! The one loop, which drives the state machine of the command.
//!
//! Owns the poll, the clock and the order of a turn: timers, outputs, one flush, sleep,
//! events. Not responsible for what an event means and how an output is done.

use crate::os::notify;
use crate::os::service_manager;
use crate::os::signal::{Signal, Signals};
use mio::event::Event;
use mio::{Events, Poll, Registry, Token, Waker};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

const WAKE: Token = Token(usize::MAX);
const SIGNAL: Token = Token(usize::MAX - 1);
/// Events that one sleep may bring.
const EVENTS_MAX: usize = 256;

/// The time. All loops of a process have one clock: they may share a state machine.
pub fn now() -> Moment {
    static START: OnceLock<Instant> = OnceLock::new();
    Moment::after_start(Span::from(START.get_or_init(Instant::now).elapsed()))
}

/// What the handler may use of the loop.
pub struct Context {
    /// Where sockets are registered. Tokens belong to the handler, but for the
    /// two largest.
    pub registry: Registry,
    /// The time of this turn.
    pub now: Moment,
    /// Some work is left because its budget was used up: poll again without sleeping.
    pub skip_sleep: bool,
    waker: Arc<Waker>,
}

impl Context {
    /// Wakes this loop from another thread.
    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

/// Does the I/O for a state machine.
pub trait Handler {
    /// The state machine that decides.
    type StateMachine: StateMachine;
    /// What other threads and signals may ask for.
    type Command;

    /// A socket became ready.
    fn on_event(&mut self, event: &Event, state_machine: &mut Self::StateMachine, cx: &mut Context);
    /// The state machine wants this done.
    fn on_output(
        &mut self,
        output: <Self::StateMachine as StateMachine>::Output,
        state_machine: &mut Self::StateMachine,
        cx: &mut Context,
    );
    /// Another thread, or a signal, asks for this.
    fn on_command(
        &mut self,
        command: Self::Command,
        state_machine: &mut Self::StateMachine,
        cx: &mut Context,
    );
    /// Time passed.
    fn on_timeout(&mut self, state_machine: &mut Self::StateMachine, cx: &mut Context);
    /// When [`on_timeout`](Handler::on_timeout) must be called.
    fn next_timeout(&self) -> Option<Moment>;
    /// The turn is over: send what has gathered. Returns whether the loop is over.
    fn end_turn(&mut self, state_machine: &mut Self::StateMachine, cx: &mut Context) -> bool;
}

/// Gives commands to a loop from another thread.
pub struct LoopHandle<C> {
    commands: Arc<Mutex<VecDeque<C>>>,
    waker: Arc<Waker>,
}

impl<C> Clone for LoopHandle<C> {
    fn clone(&self) -> Self {
        LoopHandle { commands: self.commands.clone(), waker: self.waker.clone() }
    }
}

impl<C> LoopHandle<C> {
    fn pop(&self) -> Option<C> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Sends a command; one to a loop that is over is lost.
    pub fn send(&self, command: C) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        let _ = self.waker.wake();
    }
}

type OnSignal<C> = Box<dyn FnMut(Signal) -> Option<C> + Send>;

/// A poll, a clock, and the sources of commands.
pub struct EventLoop<C> {
    poll: Poll,
    loop_handle: LoopHandle<C>,
    signals: Option<(Signals, OnSignal<C>)>,
    /// How often a service manager hears that this loop turns, and when it does next.
    watchdog: Option<(Span, Moment)>,
    cx: Context,
}

impl<C> EventLoop<C> {
    /// A loop that does not run yet.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn new() -> io::Result<EventLoop<C>> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let registry = poll.registry().try_clone()?;
        let cx = Context { registry, now: Moment::ZERO, skip_sleep: false, waker: waker.clone() };
        let loop_handle = LoopHandle { commands: Arc::default(), waker };
        Ok(EventLoop { poll, loop_handle, signals: None, watchdog: None, cx })
    }

    /// Gives this loop commands.
    pub fn loop_handle(&self) -> LoopHandle<C> {
        self.loop_handle.clone()
    }

    /// What the handler may use, to set it up.
    pub fn context(&mut self) -> &mut Context {
        self.cx.now = now();
        &mut self.cx
    }

    /// Catches the signals of this process; `on_signal` makes commands of them.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn catch_signals(
        &mut self,
        on_signal: impl FnMut(Signal) -> Option<C> + Send + 'static,
    ) -> io::Result<()> {
        let signals = Signals::install(
            &self.cx.registry,
            SIGNAL,
            &self.loop_handle.waker,
            service_manager::is_managed(),
        )?;
        self.signals = Some((signals, Box::new(on_signal)));
        // The loop that has the signals stands for the process.
        self.watchdog =
            notify::watchdog_interval().map(|interval| (Span::from(interval), Moment::ZERO));
        Ok(())
    }

    fn report_alive(&mut self) {
        if let Some((interval, next)) = &mut self.watchdog {
            if self.cx.now >= *next {
                notify::alive();
                *next = self.cx.now + *interval;
            }
        }
    }

    /// Runs until the handler says that all is over.
    ///
    /// # Errors
    /// Returns the OS error of polling.
    pub fn run<H: Handler<Command = C>>(
        &mut self,
        state_machine: &mut H::StateMachine,
        handler: &mut H,
    ) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            self.context();
            self.cx.skip_sleep = false;
            self.report_alive();
            state_machine.handle_timeout(self.cx.now);
            handler.on_timeout(state_machine, &mut self.cx);
            // What an output brings about may bring further outputs.
            let finished = loop {
                while let Some(output) = state_machine.poll_output() {
                    handler.on_output(output, state_machine, &mut self.cx);
                }
                let finished = handler.end_turn(state_machine, &mut self.cx);
                match state_machine.poll_output() {
                    Some(output) => handler.on_output(output, state_machine, &mut self.cx),
                    None => break finished,
                }
            };
            if finished {
                return Ok(());
            }
            let deadline = state_machine.next_timeout().into_iter().chain(handler.next_timeout());
            let watchdog = self.watchdog.map(|(_, next)| next);
            let deadline = deadline.chain(watchdog).min();
            let sleep = match deadline {
                _ if self.cx.skip_sleep => Some(Duration::ZERO),
                None | Some(Moment::NEVER) => None,
                // The clock went on since the turn began; a sleep is rounded up,
                // or one cut from 0.4 ms to none would spin until its time.
                Some(at) => {
                    let remaining = Duration::from(at.since(self.context().now));
                    Some(if remaining.is_zero() {
                        remaining
                    } else {
                        remaining.max(Duration::from_millis(1))
                    })
                }
            };
            match self.poll.poll(&mut events, sleep) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Err(_) => events.clear(),
                Ok(()) => {}
            }
            self.context();
            let mut woken = false;
            for event in &events {
                if event.token() == WAKE || event.token() == SIGNAL {
                    woken = true;
                } else {
                    handler.on_event(event, state_machine, &mut self.cx);
                }
            }
            if !woken {
                continue;
            }
            if let Some((signals, on_signal)) = &mut self.signals {
                for command in signals.take().into_iter().filter_map(&mut *on_signal) {
                    handler.on_command(command, state_machine, &mut self.cx);
                }
            }
            while let Some(command) = self.loop_handle.pop() {
                handler.on_command(command, state_machine, &mut self.cx);
            }
        }
    }
}
