//! How a queue starts: as a daemon, or inside of a redirector.
//!
//! Owns its places and where they come from, what signals mean to it, and the
//! thread that it has in another's process. Talks to nobody.

use super::{token, Control, Order, SharedQueue};
use crate::command::daemon::{become_user, Daemon, Wish};
use crate::command::{exit, seed};
use crate::config::settings::Settings;
use crate::config::source::Source;
use crate::net::accept;
use crate::net::drive::{Loop, Remote};
use crate::os::service;
use crate::os::signal::Signal;
use log::{error, info, warn};
use pegasus_core::base::address::{Cidr, ListenAddr};
use pegasus_core::protocol::message::Request;
use pegasus_core::queue::ticket_queue::{QueueOptions, TicketQueue};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

/// A queue that is ready to run.
struct Ready {
    turn: Loop<Order>,
    control: Control,
    machine: SharedQueue,
    places: Places,
    /// Where it listens.
    addresses: Vec<SocketAddr>,
}

/// Listening sockets, each with the place that it is of in `queue_listen`.
pub type Places = Vec<(ListenAddr, TcpListener)>;

/// Why the queue of a redirector cannot listen: perhaps there is one already.
fn explain(listen: &ListenAddr, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    let queue = listen.from_this_host();
    let advice = format!("if that is a pegasus queue, set redirect_queue={queue}; otherwise another queue_listen");
    io::Error::new(error.kind(), format!("{error}; {advice}"))
}

impl Ready {
    /// Binds everything that is not `left` by another process. So many threads of
    /// this process may join in.
    ///
    /// # Errors
    /// What the system says.
    fn new(settings: &Settings, members_max: usize, left: Places) -> io::Result<Ready> {
        let mut turn = Loop::new()?;
        let mut control = Control::new(settings, members_max);
        let (mut places, embedded) = (Places::new(), members_max > 0);
        for (place, socket) in left.into_iter().filter(|(place, _)| settings.queue_listen.contains(place)) {
            socket.set_nonblocking(true)?;
            places.push((place, socket));
        }
        let known: Vec<ListenAddr> = places.iter().map(|(place, _)| place.clone()).collect();
        for listen in &settings.queue_listen {
            if known.contains(listen) {
                continue;
            }
            for port in listen.first..=listen.last {
                let one = ListenAddr { first: port, last: port, ..listen.clone() };
                let bound = accept::bind(&one).map_err(|error| if embedded { explain(&one, error) } else { error })?;
                places.extend(bound.into_iter().map(|socket| (listen.clone(), socket)));
            }
        }
        for (number, (_, socket)) in places.iter().enumerate() {
            control.listeners.add(number, (), socket.try_clone()?, token(number, true), turn.desk())?;
        }
        let addresses = control.listeners.addresses().collect();
        let queue = TicketQueue::new(settings.queue_options(), seed());
        let machine = SharedQueue::new(queue, members_max, turn.desk().waker());
        Ok(Ready { turn, control, machine, places, addresses })
    }

    fn tell(&self, options: &QueueOptions) {
        let beyond = |list: &[Cidr]| list.iter().any(Cidr::beyond_loopback);
        let open = self.addresses.iter().any(|address| !address.ip().is_loopback());
        if open && !beyond(&options.allow_ticket) && !beyond(&options.allow_next) {
            warn!(target: "queue", "listens beyond this host, but nobody beyond it may speak (queue_allow_ticket, queue_allow_next)");
        }
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        info!(target: "queue", "ready {}", addresses.join(" "));
    }

    fn serve(mut self) -> i32 {
        exit::after("queue", self.turn.run(&mut self.machine, &mut self.control))
    }
}

/// Runs the command; the result is its exit status.
pub fn run(daemon: Daemon) -> i32 {
    let mut ready = match Ready::new(&daemon.settings, 0, Places::new()) {
        Ok(ready) => ready,
        Err(error) => {
            error!(target: "queue", "{error}");
            return exit::of(&error);
        }
    };
    // Only who may have to leave them to another process needs these copies.
    ready.places.clear();
    let mut settings = daemon.settings;
    let source = daemon.source;
    let options = settings.queue_options();
    let user = become_user(&settings);
    let caught = ready.turn.catch_signals(move |signal| on_signal(signal, &source, &mut settings));
    if let Err(error) = caught.and(user) {
        error!(target: "queue", "{error}");
        return exit::of(&error);
    }
    ready.tell(&options);
    service::ready();
    ready.serve()
}

fn on_signal(signal: Signal, source: &Source, settings: &mut Settings) -> Option<Order> {
    match Wish::of(signal, "queue")? {
        Wish::End => Some(Order::Terminate),
        Wish::Reload => {
            let fresh = source.reload(settings, &["queue"])?;
            *settings = fresh.clone();
            Some(Order::Reconfigure(Box::new(fresh)))
        }
    }
}

/// What is offered in these lines. Those of another version may be none, the last
/// one may lack its end.
fn offered(lines: &[u8]) -> impl Iterator<Item = Request> + '_ {
    let lines = lines.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let requests = lines.filter_map(|line| Request::parse(line).ok());
    requests.filter(|request| matches!(request, Request::Ticket { .. }))
}

/// A queue of this process, with a thread for its control connections.
pub struct Embedded {
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// To give it orders.
    pub remote: Remote<Order>,
    /// To ask it.
    pub shared: SharedQueue,
    /// Its sockets, to leave them to another process.
    pub places: Places,
    thread: JoinHandle<i32>,
}

impl Embedded {
    /// Starts it; it listens when this returns, also on the places that another
    /// process `left`, whose queue had these `offers`. So many threads, at least
    /// one, may join in.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(settings: &Settings, members_max: usize, left: Places, offers: &[u8]) -> io::Result<Embedded> {
        let mut ready = Ready::new(settings, members_max, left)?;
        let desk = ready.turn.desk();
        if let Some(member) = ready.machine.join(desk.waker(), desk.now) {
            offered(offers).for_each(|offer| member.ask(offer, desk.now));
        }
        let (addresses, remote, shared) = (ready.addresses.clone(), ready.turn.remote(), ready.machine.clone());
        let places = std::mem::take(&mut ready.places);
        ready.tell(&settings.queue);
        let thread = thread::Builder::new().name("queue".into()).spawn(move || ready.serve())?;
        Ok(Embedded { addresses, remote, shared, places, thread })
    }

    /// Ends it.
    pub fn stop(self) {
        self.remote.send(Order::Terminate);
        let _ = self.thread.join();
    }
}
