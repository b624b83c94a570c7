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

/// A socket that leads to a flow's provider.
pub struct Upstream {
    flow: Key,
    socket: UdpSocket,
    /// It takes datagrams from the provider's port only.
    connected: bool,
    /// Datagrams that the provider refused, and that the flow does not know of yet.
    refusals: usize,
    /// A local firewall or policy forbids to send there.
    blocked: bool,
    /// What goes before the first datagram, until that is sent.
    header: Option<Box<Header>>,
    /// Something was sent since the provider was last heard. What comes then is
    /// mostly one answer, behind which there is no need to look for more.
    reply_expected: bool,
}

impl Upstream {
    /// One that leads there. `roams`: any port of the provider may reply.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn open(
        flow: Key,
        to: SocketAddr,
        roams: bool,
        header: Option<Header>,
        token: Token,
        cx: &Context,
    ) -> io::Result<Upstream> {
        let any =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        datagram::prepare_upstream(&socket, to);
        if !roams {
            // It has its port already: what is missing is an address to send from.
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
            connected: !roams,
            refusals: 0,
            blocked: false,
            header: header.map(Box::new),
            reply_expected: false,
        })
    }

    /// The one of a flow that another process began.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn adopt(
        flow: Key,
        socket: std::net::UdpSocket,
        token: Token,
        cx: &Context,
    ) -> io::Result<Upstream> {
        let connected = socket.peer_addr().is_ok();
        let mut socket = UdpSocket::from_std(socket);
        udp_interest::register_readable(&cx.registry, &mut socket, token)?;
        Ok(Upstream {
            flow,
            socket,
            connected,
            refusals: 0,
            blocked: false,
            header: None,
            reply_expected: false,
        })
    }

    /// Sends a datagram to the provider, behind the header if that is still due. An error
    /// loses the datagram, as UDP may; the header then waits for the next one.
    pub fn send(&mut self, bytes: &[u8], to: SocketAddr) {
        self.reply_expected = true;
        let header = self.header.take();
        let sent = match &header {
            None => self.send_raw(bytes, to),
            Some(header) => self.send_raw(&[header, bytes].concat(), to),
        };
        if let Err(error) = sent {
            debug!(target: "redirect", "{to}: a datagram of {} bytes: {error}", bytes.len());
            self.header = header;
        }
    }

    /// The next datagram goes behind this header.
    pub fn set_header(&mut self, header: Option<Header>) {
        self.header = header.map(Box::new);
    }

    /// The first error may be that of an earlier datagram, which the system reports in
    /// the place of this one: then the second attempt succeeds.
    fn send_raw(&mut self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        let send = || {
            if self.connected {
                self.socket.send(bytes)
            } else {
                self.socket.send_to(bytes, to)
            }
        };
        let sent = send().or_else(|error| {
            self.refusals += datagram::take_refusals(&self.socket, to, Some(&error));
            send()
        });
        // This host itself has no way there.
        sent.inspect_err(|error| {
            self.refusals += usize::from(datagram::is_unreachable(error));
            self.blocked |= is_forbidden(error);
        })
    }

    /// Takes a datagram: its length, and its source.
    ///
    /// # Errors
    /// Returns the OS error; `WouldBlock` if there is no datagram. Others are of datagrams
    /// that were sent: see [`read_errors`](Upstream::read_errors).
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer)
    }

    /// Counts what the provider refused. The system would report such errors again and
    /// again until they are read. `error`: one that `receive` returned.
    pub fn read_errors(&mut self, to: SocketAddr, error: Option<&io::Error>) {
        self.refusals += datagram::take_refusals(&self.socket, to, error);
    }

    /// Whether this host forbade to send to the provider since the last call.
    pub fn take_blocked(&mut self) -> bool {
        std::mem::take(&mut self.blocked)
    }

    /// How many datagrams the provider refused since the last call, as far as is known.
    pub fn take_refusals(&mut self) -> usize {
        std::mem::take(&mut self.refusals)
    }

    /// Whether what was just received is enough for one event: it was expected,
    /// and should there be more, another event reports it. Then none is expected any more.
    pub fn take_answered(&mut self) -> bool {
        std::mem::take(&mut self.reply_expected) && udp_interest::LEVEL_TRIGGERED
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

    /// Takes the socket of a flow out of the event loop.
    pub fn release(&mut self, flow: Key, cx: &Context) -> Option<std::net::UdpSocket> {
        let slot = self.0.get_mut(flow.index())?;
        let mut upstream = slot.take_if(|upstream| upstream.flow == flow)?;
        // Otherwise events would come to this loop as long as the other process has it.
        udp_interest::deregister(&cx.registry, &mut upstream.socket).ok()?;
        Some(upstream.socket.into())
    }

    /// Closes the one of a flow.
    pub fn close(&mut self, flow: Key) {
        if let Some(slot) = self.0.get_mut(flow.index()) {
            slot.take_if(|upstream| upstream.flow == flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::event_loop::EventLoop;
    use pegasus_core::base::slab::Slab;
    use std::time::Duration;

    #[test]
    fn an_error_of_an_earlier_datagram_does_not_eat_the_next_one() {
        for roams in [false, true] {
            let mut event_loop: EventLoop<()> = EventLoop::new().unwrap();
            let flow = Slab::default().insert(());
            let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let cx = event_loop.context();
            let mut upstream = Upstream::open(flow, gone, roams, None, Token(0), cx).unwrap();
            upstream.send(b"refused", gone);
            let back = std::net::UdpSocket::bind(gone).unwrap();
            back.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            upstream.send(b"next", gone);
            let mut buffer = [0; 10];
            assert_eq!(back.recv(&mut buffer).unwrap(), 4, "roams: {roams}");
            // Elsewhere a socket that is not connected hears of no error.
            if cfg!(pegasus_linux) || !roams {
                assert_eq!(upstream.take_refusals(), 1, "roams: {roams}");
            }
        }
    }
}
