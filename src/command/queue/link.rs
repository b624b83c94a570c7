//! What the bytes of a control connection are, and the keys that are good for it.
//!
//! Owns the choice between lines and records, and which connection of a stranger gives way.
//! Knows no socket.

use crate::config::settings::Settings;
use crate::net::secure_link::{self, SecureLink};
use pegasus_core::base::cidr::Cidr;
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::Moment;
use pegasus_core::protocol::peer_key::{KeyName, KeyTable, PeerKey, Secret};
use pegasus_core::protocol::send_buffer::SendBuffer;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Handshakes of one turn: half a millisecond, tens of them on a small host.
const HANDSHAKES_PER_TURN: u32 = 2;

/// What the bytes of a connection are.
pub(super) enum Link {
    /// These may still become the first line of an encrypted one.
    Undecided(Vec<u8>),
    /// Lines.
    Plain,
    /// Records.
    Secure {
        /// What is in them.
        link: Box<SecureLink>,
        /// The peer has proved this key.
        proved: Option<Arc<PeerKey>>,
    },
}

impl Link {
    /// What is to be written to the socket: the lines, or the records that hold them. None:
    /// they cannot be sent.
    pub(super) fn wire<'a>(&'a mut self, lines: &'a mut SendBuffer) -> Option<&'a mut SendBuffer> {
        match self {
            Link::Secure { link, .. } => {
                link.send_some(lines);
                Some(&mut link.out).filter(|out| !out.is_empty())
            }
            Link::Undecided(_) | Link::Plain => Some(lines),
        }
    }
}

/// The keys that are good, and the connections that have not proved one.
pub(super) struct Security {
    pub(super) keys: Arc<KeyTable>,
    /// The secret of every name that does not exist.
    pub(super) decoy: Secret,
    /// All addresses that a list lets speak in plain.
    pub(super) listed: Vec<Cidr>,
    /// Handshakes that this turn still bears.
    pub(super) budget: u32,
    /// With their networks, in order of arrival; some may have gone, or proved a key.
    pub(super) strangers: VecDeque<(Key, IpAddr)>,
    pub(super) strangers_now: usize,
    /// When a peer must have proved its key, in order.
    pub(super) deadlines: VecDeque<(Moment, Key)>,
    pub(super) refusals: LogThrottle,
    /// Where each provider's key was used last, and whether another place was reported.
    pub(super) sources: HashMap<KeyName, (IpAddr, bool)>,
    pub(super) lines: Vec<u8>,
}

impl Security {
    pub(super) fn new(settings: &Settings) -> Security {
        let mut decoy = Secret([0; Secret::BYTES]);
        // Without randomness no handshake gets that far either.
        let _ = secure_link::random(&mut decoy.0);
        let mut security = Security {
            keys: Arc::default(),
            decoy,
            listed: Vec::new(),
            budget: HANDSHAKES_PER_TURN,
            strangers: VecDeque::new(),
            strangers_now: 0,
            deadlines: VecDeque::new(),
            refusals: LogThrottle::default(),
            sources: HashMap::new(),
            lines: Vec::new(),
        };
        security.reconfigure(settings);
        security
    }

    pub(super) fn reconfigure(&mut self, settings: &Settings) {
        self.keys = Arc::clone(&settings.keys);
        let queue = &settings.queue;
        let lists =
            [&queue.allow_ticket, &queue.allow_next, &queue.allow_drain, &queue.allow_status];
        self.listed = lists.into_iter().flatten().copied().collect();
        self.sources.retain(|name, _| self.keys.named(*name).next().is_some());
    }

    /// How a new connection begins, and whether it comes from an unknown address.
    pub(super) fn begin(&self, from: IpAddr) -> (Link, bool) {
        let from = from.to_canonical();
        let is_listed = self.listed.iter().any(|net| net.contains(from));
        if self.keys.is_empty() {
            return (Link::Plain, !is_listed);
        }
        (Link::Undecided(Vec::new()), !is_listed && !self.keys.expects(from))
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Takes out the oldest one of the network that most of them come from: one host that
    /// opens connection after connection takes the place of its own ones.
    pub(super) fn pop_stranger(&mut self) -> Option<Key> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (_, network) in &self.strangers {
            *counts.entry(*network).or_default() += 1;
        }
        let most = counts.values().max()?;
        let place =
            self.strangers.iter().position(|(_, network)| counts.get(network) == Some(most))?;
        self.strangers.remove(place).map(|(key, _)| key)
    }

    /// Handshakes may be made again.
    pub(super) fn renew_budget(&mut self) {
        self.budget = HANDSHAKES_PER_TURN;
    }

    /// A connection is gone, or no stranger any more.
    pub(super) fn forget_stranger(&mut self, is_stranger: &mut bool) {
        self.strangers_now -= usize::from(std::mem::take(is_stranger));
    }
}
