//! A UDP socket that clients send to.
//!
//! Owns what a worker knows of it. Not responsible for which flow a datagram belongs to.

use super::address_sockets::AddressSockets;
use super::listen_sockets::ListenSocket;
use crate::net::event_loop::Context;
use crate::os::datagram::{self, Received};
use mio::net::UdpSocket;
use mio::{Interest, Token};
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Moment;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;

/// A socket that clients come to.
pub struct UdpListener {
    pub socket: UdpSocket,
    pub service: ServiceName,
    pub address: SocketAddr,
    pub port: u16,
    /// It is not of one address: each datagram tells which one it was sent to.
    pub wildcard: bool,
    /// The socket that it came to does: there is one for each address.
    pub per_address: bool,
    pub address_sockets: AddressSockets,
    /// Which of the sockets at its address it is. The first one takes what is sent to a
    /// group: each of them gets a copy of that.
    pub shard: usize,
    /// Its datagrams wait until the flows of the predecessor are here.
    pub awaits_flows: bool,
    /// The superserver connected it to its only client.
    pub connected: bool,
    /// Something may be there to be taken.
    pub readable: bool,
    /// It is about to be closed: until when its flows may last.
    pub closing_at: Option<Moment>,
    /// How many sockets of its place are in use, and whether this is one.
    pub shards_in_use: Arc<AtomicUsize>,
    pub counted: bool,
}

impl UdpListener {
    /// A copy of a listen socket, on the event loop. `may_watch`: it may open sockets of
    /// single addresses beside it.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn open(
        listen_socket: &ListenSocket,
        socket: &std::net::UdpSocket,
        may_watch: bool,
        token: Token,
        cx: &Context,
    ) -> io::Result<UdpListener> {
        let socket = socket.try_clone()?;
        let knows_destination = datagram::prepare(&socket);
        let connected = socket.peer_addr().is_ok();
        let address = socket.local_addr()?;
        let mut socket = UdpSocket::from_std(socket);
        cx.registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(UdpListener {
            socket,
            service: listen_socket.service,
            address,
            port: address.port(),
            wildcard: address.ip().is_unspecified(),
            per_address: may_watch && !knows_destination && !connected,
            shard: listen_socket.shard,
            awaits_flows: listen_socket.awaits_flows,
            address_sockets: AddressSockets::default(),
            connected,
            readable: true,
            closing_at: None,
            shards_in_use: listen_socket.shards_in_use.clone(),
            counted: true,
        })
    }

    /// Whether datagrams may be there that can be taken now.
    pub fn has_work(&self) -> bool {
        self.readable && !self.awaits_flows
    }

    /// Takes a datagram from the socket, or from one of an address.
    pub fn take(&self, address_socket: Option<usize>, buffer: &mut [u8]) -> io::Result<Received> {
        if address_socket.is_none() && self.wildcard {
            return datagram::receive(&self.socket, buffer);
        }
        let mut socket = &self.socket;
        let mut local = None;
        if let Some(index) = address_socket {
            let (ip, own) = self.address_sockets.get(index).ok_or(io::ErrorKind::WouldBlock)?;
            socket = own;
            local = Some(*ip);
        }
        let (count, from) = socket.recv_from(buffer)?;
        Ok(Received { count, from, local, to_group: false })
    }
}
