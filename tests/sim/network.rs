//! The network of the simulation: control connections that are slow, deliver
//! in pieces, and break.
//!
//! Owns the connections and the moments at which bytes arrive. Knows no
//! machine and no message.

use pegasus_core::base::random::Random;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::time::{Moment, Span};
use std::fmt;

/// Who asks on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// A redirector.
    Redirector(usize),
    /// A monitor, to its queue of this number.
    Monitor(usize, usize),
    /// Somebody who asks as the paper does.
    Plain(usize),
}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The one that opened it.
    Asker,
    /// The ticket queue.
    Queue,
}

/// A connection.
pub struct Link {
    /// Who opened it.
    pub asker: Asker,
    /// To which queue.
    pub queue: usize,
    /// The queue's key of it.
    pub connection: Key,
    open: [bool; 2],
    /// What is sent now is lost.
    broken: bool,
    /// What was on its way when it broke is lost too.
    lost: bool,
    arrival: [Moment; 2],
}

/// Something that arrives at an end.
pub enum Arrival {
    /// Bytes.
    Bytes(Vec<u8>),
    /// The other end will send no more.
    Half,
    /// The connection is over.
    Over,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arrival::Bytes(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Arrival::Half => f.write_str("half"),
            Arrival::Over => f.write_str("over"),
        }
    }
}

/// All connections.
#[derive(Default)]
pub struct Network {
    links: Slab<Link>,
}

impl Network {
    /// A new connection.
    pub fn open(&mut self, asker: Asker, queue: usize, connection: Key, now: Moment) -> Key {
        let link = Link {
            asker,
            queue,
            connection,
            open: [true; 2],
            broken: false,
            lost: false,
            arrival: [now; 2],
        };
        self.links.insert(link)
    }

    /// Any one of them.
    pub fn any(&self, random: &mut Random) -> Option<Key> {
        let keys = self.links.keys();
        (!keys.is_empty()).then(|| keys[random.below(keys.len())])
    }

    /// The connection.
    pub fn link(&self, key: Key) -> Option<&Link> {
        self.links.get(key)
    }

    /// Connections of a queue.
    pub fn of_queue(&self, queue: usize) -> Vec<Key> {
        self.links.iter().filter(|(_, link)| link.queue == queue).map(|(key, _)| key).collect()
    }

    /// Sends from the other end to `to`: what arrives there and when.
    pub fn send(
        &mut self,
        key: Key,
        to: End,
        bytes: &[u8],
        random: &mut Random,
        now: Moment,
    ) -> Vec<(Moment, Arrival)> {
        let Some(link) = self.links.get_mut(key).filter(|link| !link.broken) else {
            return Vec::new();
        };
        let (mut rest, mut arrivals) = (bytes, Vec::new());
        while !rest.is_empty() {
            let most = if random.below(4) == 0 { 1 + random.below(rest.len()) } else { rest.len() };
            let (piece, later) = rest.split_at(most);
            let arrival = &mut link.arrival[to as usize];
            *arrival = (*arrival).max(now + delay(random));
            arrivals.push((*arrival, Arrival::Bytes(piece.to_vec())));
            rest = later;
        }
        arrivals
    }

    /// The other end than `to` sends no more: when `to` hears of it.
    pub fn half_close(
        &mut self,
        key: Key,
        to: End,
        random: &mut Random,
        now: Moment,
    ) -> Option<Moment> {
        let link = self.links.get_mut(key).filter(|link| !link.broken)?;
        let arrival = &mut link.arrival[to as usize];
        *arrival = (*arrival).max(now + delay(random));
        Some(*arrival)
    }

    /// It breaks now: each end that is open hears of it, at its own time.
    pub fn cut(&mut self, key: Key, random: &mut Random, now: Moment) -> Vec<(Moment, End)> {
        let Some(link) = self.links.get_mut(key).filter(|link| !link.broken) else {
            return Vec::new();
        };
        link.broken = true;
        link.lost = random.below(2) == 0;
        let mut told = Vec::new();
        for end in [End::Asker, End::Queue] {
            if link.open[end as usize] {
                let slow = if random.below(5) == 0 {
                    Span::from_millis(random.below(1500) as u64)
                } else {
                    Span::ZERO
                };
                told.push((link.arrival[end as usize].max(now) + delay(random) + slow, end));
            }
        }
        told
    }

    /// One end closes it for itself, at once.
    pub fn close(&mut self, key: Key, end: End) {
        if let Some(link) = self.links.get_mut(key) {
            link.open[end as usize] = false;
            if link.open == [false; 2] {
                self.links.remove(key);
            }
        }
    }

    /// Whether this end may hear of this arrival.
    pub fn arrives(&self, key: Key, end: End, arrival: &Arrival) -> bool {
        let lost = |link: &Link| link.lost && !matches!(arrival, Arrival::Over);
        self.links.get(key).is_some_and(|link| link.open[end as usize] && !lost(link))
    }
}

/// How long a piece is on its way.
pub fn delay(random: &mut Random) -> Span {
    let most = if random.below(20) == 0 { 200_000_000 } else { 10_000_000 };
    Span::from_nanos(10_000 + random.below(most) as u64)
}
