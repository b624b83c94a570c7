//! The sockets of flows, one each, that lead to their providers.
//!
//! Owns what is known of such a socket: its flow, the PROXY header that is still to be
//! sent, and whether an answer is due. Not responsible for which provider a flow gets.

use super::blocked::is_forbidden;
use crate::net::event_loop::Context;
use crate::os::datagram;
use crate::os::socket::is_port_exhausted;
use crate::os::udp_interest;
use log::debug;
use mio::net::UdpSocket;
use mio::Token;
use pegasus_core::base::slab::Key;
use pegasus_core::protocol::proxy_header::Header;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// What became of a datagram to a provider, as far as this host knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendResult {
    /// It is on its way.
    Sent,
    /// It could not be sent; the next one may.
    Lost,
    /// Nothing listens at the provider's address, or no route leads there.
    Unreachable,
    /// A local firewall or policy forbids to send there.
    Blocked,
}

/// A socket that leads to a flow's provider.
pub struct Upstream {
    flow: Key,
    socket: UdpSocket,
    /// It is connected, where a socket that is not would get no error of a closed port.
    connected: bool,
    /// What goes before the first datagram, until that is sent.
    header: Option<Box<Header>>,
    /// Something was sent since the provider was last heard. What comes then is
    /// mostly one answer, behind which there is no need to look for more.
    reply_expected: bool,
}

impl Upstream {
    /// One that leads there. `port_may_change`: answers will come from another port.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn open(
        flow: Key,
        to: SocketAddr,
        port_may_change: bool,
        header: Option<Header>,
        token: Token,
        cx: &Context,
    ) -> io::Result<Upstream> {
        let any =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        let connected = !datagram::prepare_upstream(&socket, to) && !port_may_change;
        if connected {
            // It has its port already: what is missing is an address to call from.
            let unreachable = |error| {
                if is_port_exhausted(&error) {
                    ErrorKind::HostUnreachable.into()
                } else {
                    error
                }
            };
            socket.connect(to).map_err(unreachable)?;
        }
        udp_interest::register_readable(&cx.registry, &mut socket, token)?;
        Ok(Upstream {
            flow,
            socket,
            connected,
            header: header.map(Box::new),
            reply_expected: false,
        })
    }

    /// Sends a datagram to the provider, behind the header if that is still due.
    /// Other errors than an unreachable provider lose the datagram, as UDP may;
    /// the header then waits for the next one.
    pub fn send(&mut self, bytes: &[u8], to: SocketAddr) -> SendResult {
        self.reply_expected = true;
        let send = |bytes: &[u8]| {
            if self.connected {
                self.socket.send(bytes)
            } else {
                self.socket.send_to(bytes, to)
            }
        };
        let sent = match &self.header {
            None => send(bytes),
            Some(header) => send(&[header, bytes].concat()).inspect(|_| self.header = None),
        };
        match sent {
            Ok(_) => SendResult::Sent,
            Err(error) => {
                debug!(target: "redirect", "{to}: a datagram of {} bytes: {error}", bytes.len());
                if datagram::is_unreachable(&error) {
                    SendResult::Unreachable
                } else if is_forbidden(&error) {
                    SendResult::Blocked
                } else {
                    SendResult::Lost
                }
            }
        }
    }

    /// Takes a datagram: its length, and its source.
    ///
    /// # Errors
    /// Returns the OS error; `WouldBlock` if there is no datagram.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer)
    }

    /// Whether what was just received is enough for one event: it was expected,
    /// and should there be more, another event reports it. Then none is expected any more.
    pub fn take_answered(&mut self) -> bool {
        std::mem::take(&mut self.reply_expected) && udp_interest::LEVEL_TRIGGERED
    }

    /// Discards errors of the network, which would be reported again and again.
    pub fn clear_errors(&self) {
        datagram::clear_errors(&self.socket);
    }
}

/// All of them, by the slots of their flows.
#[derive(Default)]
pub struct Upstreams(Vec<Option<Upstream>>);

impl Upstreams {
    /// The one of a flow, if that has one.
    pub fn get(&mut self, flow: Key) -> Option<&mut Upstream> {
        self.0.get_mut(flow.index())?.as_mut().filter(|upstream| upstream.flow == flow)
    }

    /// The flow in a slot.
    pub fn flow(&self, slot: usize) -> Option<Key> {
        self.0.get(slot)?.as_ref().map(|upstream| upstream.flow)
    }

    /// Adds the one of a flow.
    pub fn add(&mut self, upstream: Upstream) -> &mut Upstream {
        let slot = upstream.flow.index();
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot].insert(upstream)
    }

    /// Closes the one of a flow.
    pub fn close(&mut self, flow: Key) {
        if let Some(slot) = self.0.get_mut(flow.index()) {
            slot.take_if(|upstream| upstream.flow == flow);
        }
    }
}
