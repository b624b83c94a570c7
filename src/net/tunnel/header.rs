//! What comes before a client's bytes: the header of a front proxy, which is
//! read here, and the header that each provider receives.
//!
//! Owns what was taken of the client's bytes before there was a provider. Parses
//! and composes no header.

use super::Tunnel;
use mio::net::TcpStream;
use pegasus_core::protocol::proxy_header::Header;
use std::io;
use std::net::Shutdown;

impl Tunnel {
    /// The client's connection.
    pub fn client(&self) -> &TcpStream {
        &self.client.socket
    }

    /// Takes what the client sent, up to the length of `buffer`, before it has a
    /// provider: how many bytes, 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` until an event says that there is more; else the OS error.
    pub fn read_client(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Not read again for an event that says something else: on Windows a read
        // in vain brings the next event that the socket takes bytes, at once.
        if !self.client.readable {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.client.read(buffer)?.ok_or(io::ErrorKind::WouldBlock.into())
    }

    /// Puts back some of what was taken, before there is a provider: it will
    /// receive these first.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.up.take_pending();
        self.up.keep_unsent(bytes, 0, 0);
    }

    /// Takes what was put back.
    pub fn take_unread(&mut self) -> Vec<u8> {
        self.up.take_pending().map_or(Vec::new(), |pending| pending.unsent().to_vec())
    }

    /// Writes bytes of ours to a client that has no provider: how many were taken.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn write_client(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.client.write(bytes, true)
    }

    /// The client is sent nothing more.
    pub fn end_client(&self) {
        let _ = self.client.socket.shutdown(Shutdown::Write);
    }

    /// Each provider receives this first. It is not counted among the client's bytes.
    pub fn set_header(&mut self, header: Header) {
        self.header = Some(Box::new(header));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConnectStatus, RelayBuffers, TunnelStatus};
    use super::*;
    use crate::os::loopback::pair;
    use mio::{Events, Interest, Poll, Token};
    use pegasus_core::base::endpoint::Transport;
    use pegasus_core::protocol::proxy_header::ProxyAddrs;
    use std::io::{Read, Write};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A connection that takes nothing for now, its other end, and how much was
    /// put into it.
    fn full() -> (TcpStream, std::net::TcpStream, usize) {
        let ((mut ours, theirs), mut count) = (pair(), 0);
        while let Ok(more) = ours.write(&[0; 65_536]) {
            count += more;
        }
        (ours, theirs, count)
    }

    #[test]
    fn a_client_that_said_nothing_is_not_asked_again_before_an_event_says_that_it_did() {
        let (mut client, mut clients_end) = pair();
        let mut poll = Poll::new().unwrap();
        poll.registry()
            .register(&mut client, Token(0), Interest::READABLE | Interest::WRITABLE)
            .unwrap();
        let (mut tunnel, mut buffer) = (Tunnel::new(client), [0; 10]);
        let blocks = |tunnel: &mut Tunnel, buffer: &mut [u8]| {
            tunnel.read_client(buffer).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        assert!(blocks(&mut tunnel, &mut buffer));

        // It takes bytes, which says nothing of what it has.
        let mut events = Events::with_capacity(1);
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(events.iter().any(|event| event.is_writable() && !event.is_readable()));
        clients_end.write_all(b"hello").unwrap();
        while tunnel.client().peek(&mut [0; 1]).is_err() {
            std::thread::yield_now();
        }
        assert!(events.iter().all(|event| tunnel.on_client_event(event)));
        assert!(blocks(&mut tunnel, &mut buffer), "it was read for nothing");

        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty() && events.iter().all(|event| tunnel.on_client_event(event)));
        assert_eq!(tunnel.read_client(&mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
    }

    #[test]
    fn a_header_that_had_to_wait_goes_before_what_the_client_says_meanwhile() {
        let (client, mut clients_end) = pair();
        let (mut tunnel, mut buffers) =
            (Tunnel::new(client), RelayBuffers::new(true, Default::default()));
        let header = Header::v2(
            Transport::Tcp,
            ProxyAddrs::new(clients_end.local_addr().unwrap(), clients_end.peer_addr().unwrap()),
            &[],
        );
        tunnel.set_header(header.clone());

        // The first provider fails before it took anything.
        let (provider, _theirs, _) = full();
        assert_eq!(
            tunnel.connect(&mut buffers, |_| io::Result::Ok(provider)).unwrap(),
            ConnectStatus::Pending
        );
        tunnel.drop_provider();

        let (mut provider, mut theirs, count) = full();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut provider, Token(0), Interest::WRITABLE).unwrap();
        assert_eq!(
            tunnel.connect(&mut buffers, |_| io::Result::Ok(provider)).unwrap(),
            ConnectStatus::Pending
        );
        clients_end.write_all(b"hello").unwrap();
        while tunnel.client().peek(&mut [0; 1]).is_err() {
            std::thread::yield_now();
        }
        tunnel.client.readable = true;
        assert_eq!(tunnel.transfer(&mut buffers), TunnelStatus::Open);
        let pending = tunnel.up.pending().expect("it takes nothing yet");
        assert_eq!(pending.unsent(), [&header[..], b"hello"].concat());
        assert_eq!(tunnel.moved(), (0, 0));

        theirs.read_exact(&mut vec![0; count]).unwrap();
        let mut events = Events::with_capacity(1);
        while tunnel.moved() == (0, 0) {
            poll.poll(&mut events, Some(PATIENCE)).unwrap();
            assert!(!events.is_empty(), "nothing moved");
            events.iter().for_each(|event| tunnel.on_provider_event(event));
            assert_eq!(tunnel.transfer(&mut buffers), TunnelStatus::Open);
        }
        let mut came = vec![0; header.len() + 5];
        theirs.read_exact(&mut came).unwrap();
        assert_eq!(came, [&header[..], b"hello"].concat());
        assert_eq!(tunnel.moved(), (0, 5));
    }
}
