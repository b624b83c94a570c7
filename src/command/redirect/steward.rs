//! What signals mean to a redirector: it ends, reads its configuration again,
//! or lets a new process take its place.
//!
//! Owns the doors while the loops run, and tells the loops what to do. Serves
//! nobody.

use super::doors::{Change, Doors};
use super::{Loops, Queue};
use crate::command::daemon::warn_of_limit;
use crate::command::queue::{self, Places};
use crate::config::settings::Settings;
use crate::config::source::Source;
use crate::logging;
use crate::net::drive::Remote;
use crate::os::inherit::{start_successor, Successor};
use crate::os::signal::Signal;
use crate::os::socket::Socket;
use log::{error, info, warn};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// What may be wanted of a running redirector.
#[derive(Clone)]
pub enum Order {
    /// End in good order; the second time at once.
    Terminate,
    /// Another process serves whoever comes from now on: end when those who are
    /// here are gone.
    HandOver,
    /// Other options from now on.
    Reconfigure(Arc<Settings>),
    /// Clients come to other places from now on.
    Doors(Arc<Change>),
}

/// How long a new process may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Serving,
    /// A new process was started and is not ready yet.
    Upgrading,
    /// It was told to end, or another process serves.
    Ending,
}

struct State {
    loops: Loops,
    doors: Doors,
    /// The queue of this process, and its sockets.
    queue: Option<(Remote<queue::Order>, Places)>,
    stage: Stage,
    /// The process that is about to take over.
    successor: Option<Arc<Successor>>,
}

/// See the file's head.
#[derive(Clone)]
pub struct Steward {
    source: Source,
    /// Whether the places are those of the configuration, not of a starter.
    own: bool,
    state: Arc<Mutex<State>>,
}

impl Steward {
    /// The steward of these loops and doors. `own`: the places are those of the
    /// configuration. `queue`: one of this process.
    pub fn new(
        source: Source,
        loops: Loops,
        doors: Doors,
        own: bool,
        queue: Option<(Remote<queue::Order>, Places)>,
    ) -> Steward {
        let state = State { loops, doors, queue, stage: Stage::Serving, successor: None };
        Steward { source, own, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// All places where clients come.
    pub fn places(&self) -> String {
        self.state().doors.places().map(|door| door.told()).collect::<Vec<_>>().join(" ")
    }

    /// Changes the doors.
    pub fn turn(&self, change: Change) {
        self.state().turn(change);
    }

    /// Does what a signal means.
    pub fn on_signal(&self, signal: Signal) {
        let stage = self.state().stage;
        match signal {
            Signal::Reopen => logging::reopen(),
            Signal::Terminate => {
                info!(target: "redirect", "draining");
                let mut state = self.state();
                // Nobody would end it otherwise: it is not known to whoever ends this one.
                if let Some(successor) = state.successor.take() {
                    successor.end();
                }
                state.end(&Order::Terminate);
            }
            Signal::Reload | Signal::Upgrade if stage == Stage::Upgrading => {
                warn!(target: "redirect", "a new process is about to take over: nothing is done");
            }
            Signal::Reload | Signal::Upgrade if stage == Stage::Ending => {
                warn!(target: "redirect", "this process is about to end: nothing is done");
            }
            Signal::Reload => self.reload(),
            Signal::Upgrade if !self.own => {
                warn!(target: "redirect", "its starter keeps the sockets open: restart it instead");
            }
            Signal::Upgrade => self.upgrade(),
        }
    }

    fn reload(&self) {
        let mut state = self.state();
        let state = &mut *state;
        let doors = &mut state.doors;
        let prepare = |settings: &Settings| if self.own { doors.change(settings) } else { Ok(Change::default()) };
        let parts: &[&str] = if state.queue.is_some() { &["redirect", "queue"] } else { &["redirect"] };
        let running = state.loops.crew.settings.clone();
        let Some((fresh, change)) = self.source.reload_if(&running, parts, prepare) else { return };
        let fresh = Arc::new(fresh);
        warn_of_limit("redirect", &fresh);
        if let Some((remote, _)) = &state.queue {
            remote.send(queue::Order::Reconfigure(Box::new((*fresh).clone())));
        }
        state.loops.crew.settings = fresh.clone();
        state.loops.tell(&Order::Reconfigure(fresh));
        state.turn(change);
    }

    /// Starts the program anew with the sockets of this process. A thread waits
    /// until it is ready; if it never is, nothing has happened.
    fn upgrade(&self) {
        let mut state = self.state();
        let started = state.start_successor().and_then(|successor| {
            info!(target: "redirect", "process {} is about to take over", successor.id());
            let (steward, successor) = (self.clone(), Arc::new(successor));
            let waited_for = successor.clone();
            thread::Builder::new().name("upgrade".into()).spawn(move || steward.hand_over(&waited_for))?;
            Ok(successor)
        });
        match started {
            Ok(successor) => (state.stage, state.successor) = (Stage::Upgrading, Some(successor)),
            Err(error) => error!(target: "redirect", "no upgrade: {error}"),
        }
    }

    fn hand_over(&self, successor: &Successor) {
        let id = successor.id();
        let ready = successor.wait(READY_WITHIN);
        let mut state = self.state();
        if state.successor.take().is_none() {
            return; // Both were told to end.
        }
        match ready {
            Ok(()) => {
                info!(target: "redirect", "process {id} serves from now on; draining");
                if let Some((remote, _)) = &state.queue {
                    remote.send(queue::Order::HandOver);
                }
                state.end(&Order::HandOver);
            }
            Err(why) => {
                error!(target: "redirect", "no upgrade, this process goes on: {why}");
                state.stage = Stage::Serving;
            }
        }
    }
}

impl State {
    fn start_successor(&self) -> io::Result<Successor> {
        let doors = self.doors.iter().map(|door| (door.name(), &*door.socket));
        let queue = self.queue.iter().flat_map(|(_, places)| places);
        let queue: Vec<_> =
            queue.map(|(place, socket)| Ok((place, Socket::Tcp(socket.try_clone()?)))).collect::<io::Result<_>>()?;
        let queue = queue.iter().map(|(place, socket)| (format!("={place}"), socket));
        let offers = match &self.loops.crew.queue {
            Queue::Here(queue) => queue.offers(),
            Queue::At(_) => Vec::new(),
        };
        start_successor(&doors.chain(queue).collect::<Vec<_>>(), &offers)
    }

    /// Changes the doors: the loops that run are told, those that are missing started.
    fn turn(&mut self, change: Change) {
        if change.is_empty() {
            return;
        }
        info!(target: "redirect", "{}", self.doors.take(&change));
        let opened = change.opened.iter().map(|door| door.number).collect();
        self.loops.tell(&Order::Doors(Arc::new(change)));
        // These know of all doors already.
        let started = self.loops.missing(&self.doors);
        let started = started.and_then(|members| members.into_iter().try_for_each(|member| self.loops.start(member)));
        if let Err(error) = started {
            error!(target: "redirect", "no thread for the new places, they are closed again: {error}");
            let change = Change { closed: opened, ..Change::default() };
            self.doors.take(&change);
            self.loops.tell(&Order::Doors(Arc::new(change)));
        }
    }

    fn end(&mut self, order: &Order) {
        self.stage = Stage::Ending;
        self.doors.close();
        if let Some((_, places)) = &mut self.queue {
            places.clear();
        }
        self.loops.tell(order);
    }
}
