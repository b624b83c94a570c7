//! The one loop, which drives whichever machine the command chose.
//!
//! Owns the poll, the clock and the order of a turn: timers, outputs, one
//! flush, sleep, events. Knows no machine: what an event means and how an
//! output is done is the hands' business.

use crate::os::service;
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

/// The time: all loops of a process have one clock, as they may share a machine.
fn now() -> Moment {
    static START: OnceLock<Instant> = OnceLock::new();
    Moment::after_start(Span::from(START.get_or_init(Instant::now).elapsed()))
}

/// What the hands may use of the loop.
pub struct Desk {
    /// Where sockets are registered. Tokens belong to the hands, but for the
    /// two largest.
    pub registry: Registry,
    /// The time of this turn.
    pub now: Moment,
    /// Somebody used up its budget: look again before the loop sleeps.
    pub again: bool,
    waker: Arc<Waker>,
}

impl Desk {
    /// Wakes this loop from another thread.
    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

/// What acts for a machine.
pub trait Hands {
    /// The machine that decides.
    type Machine: StateMachine;
    /// What other threads and signals may want.
    type Order;

    /// A socket became ready.
    fn ready(&mut self, event: &Event, machine: &mut Self::Machine, desk: &mut Desk);
    /// The machine wants this done.
    fn act(&mut self, output: <Self::Machine as StateMachine>::Output, machine: &mut Self::Machine, desk: &mut Desk);
    /// Somebody outside the loop wants this.
    fn order(&mut self, order: Self::Order, machine: &mut Self::Machine, desk: &mut Desk);
    /// Time passed.
    fn expire(&mut self, machine: &mut Self::Machine, desk: &mut Desk);
    /// When [`expire`](Hands::expire) must be called.
    fn deadline(&self) -> Option<Moment>;
    /// The turn is over: send what has gathered. Answers whether all is over.
    fn settle(&mut self, machine: &mut Self::Machine, desk: &mut Desk) -> bool;
}

/// Gives orders to a loop from another thread.
pub struct Remote<O> {
    orders: Arc<Mutex<VecDeque<O>>>,
    waker: Arc<Waker>,
}

impl<O> Clone for Remote<O> {
    fn clone(&self) -> Self {
        Remote { orders: self.orders.clone(), waker: self.waker.clone() }
    }
}

impl<O> Remote<O> {
    fn next(&self) -> Option<O> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Gives an order; one to a loop that is over is lost.
    pub fn send(&self, order: O) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        let _ = self.waker.wake();
    }
}

type OnSignal<O> = Box<dyn FnMut(Signal) -> Option<O> + Send>;

/// A poll, a clock, and who may interrupt.
pub struct Loop<O> {
    poll: Poll,
    remote: Remote<O>,
    signals: Option<(Signals, OnSignal<O>)>,
    desk: Desk,
}

impl<O> Loop<O> {
    /// A loop that nobody runs yet.
    ///
    /// # Errors
    /// What the system says to a new poll.
    pub fn new() -> io::Result<Loop<O>> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let registry = poll.registry().try_clone()?;
        let desk = Desk { registry, now: Moment::ZERO, again: false, waker: waker.clone() };
        let remote = Remote { orders: Arc::default(), waker };
        Ok(Loop { poll, remote, signals: None, desk })
    }

    /// Gives this loop orders.
    pub fn remote(&self) -> Remote<O> {
        self.remote.clone()
    }

    /// What the hands may use, to set them up.
    pub fn desk(&mut self) -> &mut Desk {
        self.desk.now = now();
        &mut self.desk
    }

    /// Catches the signals of this process; `on_signal` makes orders of them.
    ///
    /// # Errors
    /// What the system says.
    pub fn catch_signals(&mut self, on_signal: impl FnMut(Signal) -> Option<O> + Send + 'static) -> io::Result<()> {
        let signals = Signals::install(&self.desk.registry, SIGNAL, &self.remote.waker, service::managed())?;
        self.signals = Some((signals, Box::new(on_signal)));
        Ok(())
    }

    /// Runs until the hands say that all is over.
    ///
    /// # Errors
    /// What the system says to polling.
    pub fn run<H: Hands<Order = O>>(&mut self, machine: &mut H::Machine, hands: &mut H) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            self.desk();
            self.desk.again = false;
            machine.handle_timeout(self.desk.now);
            hands.expire(machine, &mut self.desk);
            // What an output brings about may bring further outputs.
            let over = loop {
                while let Some(output) = machine.poll_output() {
                    hands.act(output, machine, &mut self.desk);
                }
                let over = hands.settle(machine, &mut self.desk);
                match machine.poll_output() {
                    Some(output) => hands.act(output, machine, &mut self.desk),
                    None => break over,
                }
            };
            if over {
                return Ok(());
            }
            let deadline = machine.next_timeout().into_iter().chain(hands.deadline()).min();
            let sleep = match deadline {
                _ if self.desk.again => Some(Duration::ZERO),
                None | Some(Moment::NEVER) => None,
                // The clock went on since the turn began; a sleep is rounded up,
                // or one cut from 0.4 ms to none would spin until its time.
                Some(at) => {
                    let left = Duration::from(at.since(self.desk().now));
                    Some(if left.is_zero() { left } else { left.max(Duration::from_millis(1)) })
                }
            };
            match self.poll.poll(&mut events, sleep) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Err(_) => events.clear(),
                Ok(()) => {}
            }
            self.desk();
            let mut called = false;
            for event in &events {
                if event.token() == WAKE || event.token() == SIGNAL {
                    called = true;
                } else {
                    hands.ready(event, machine, &mut self.desk);
                }
            }
            if !called {
                continue;
            }
            if let Some((signals, on_signal)) = &mut self.signals {
                for order in signals.take().into_iter().filter_map(&mut *on_signal) {
                    hands.order(order, machine, &mut self.desk);
                }
            }
            while let Some(order) = self.remote.next() {
                hands.order(order, machine, &mut self.desk);
            }
        }
    }
}
