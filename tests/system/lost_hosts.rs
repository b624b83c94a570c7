//! Hosts that vanish while bytes are on their way to them.

use crate::support::pegasus::Balancer;
use crate::support::provider::Provider;
use crate::support::socket::{connect, deafen};
use crate::support::until;
use std::io::{Read, Write};
use std::sync::{mpsc, Mutex};
use std::time::Duration;

/// Longer than `help redirect` promises.
const PROMISED: Duration = Duration::from_secs(120);

/// A provider that sends without end, and reports for each client, by the byte
/// that this one sent, when it takes no more.
fn pouring() -> (Provider, mpsc::Receiver<u8>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let provider = Provider::start(move |mut stream| {
        let mut name = [0];
        stream.read_exact(&mut name).unwrap();
        stream.set_write_timeout(Some(2 * PROMISED)).unwrap();
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        let _ = sender.lock().unwrap().send(name[0]);
    });
    (provider, receiver)
}

/// Both take no bytes. The host of one is gone, so that its place is free again
/// soon; the other one only pauses, and loses nothing.
#[test]
fn a_lost_host_frees_its_place_and_a_client_that_pauses_keeps_its_own() {
    let (provider, ended) = pouring();
    let mut balancer = Balancer::before(&[provider.address], &[]);
    let mut clients = [b'l', b'p'].map(|name| {
        let mut client = connect(balancer.address());
        client.write_all(&[name]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        client
    });
    let port = clients[0].local_addr().unwrap().port();
    deafen(&clients[0]);
    assert_eq!(ended.recv_timeout(PROMISED), Ok(b'l'));
    balancer.redirect.closed(&["outcome=client-reset", &format!("client=127.0.0.1:{port} ")]);
    until("its place is free", || balancer.queue.status().active(provider.address) == 1);
    // Much more than what was on its way.
    let mut much = vec![0; 32 << 20];
    clients[1].read_exact(&mut much).unwrap();
    assert!(much.iter().all(|byte| *byte == b'x'));
}
