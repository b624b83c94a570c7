//! The paper's redirector: it asks for each client on a connection of its own, without an
//! id, so that nothing is counted.
//!
//! Owns the connection of one client with one provider. Our own redirector always uses
//! ids, so `mode=paper` needs another one.

use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::SERVICE;
use crate::support::socket::reset;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;

/// Runs until it is dropped; each client has a thread.
pub struct Paper {
    pub address: SocketAddr,
    /// Providers that were reported.
    pub failures: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Paper {
    pub fn start(queue: SocketAddr) -> Paper {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (failures, over): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let reported = failures.clone();
        let ended = over.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let reported = reported.clone();
                thread::spawn(move || serve(client, queue, &reported));
            }
        });
        Paper { address, failures, over }
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(client: TcpStream, queue: SocketAddr, reported: &AtomicU64) {
    loop {
        let answer = ControlConnection::to(queue).ask(&format!("next?service={SERVICE}"));
        let Ok(address) = answer.parse::<SocketAddr>() else { return reset(client) };
        match TcpStream::connect(address) {
            Ok(provider) => {
                let _ = join(&client, provider);
                return;
            }
            Err(_) => {
                reported.fetch_add(1, Ordering::SeqCst);
                ControlConnection::to(queue)
                    .ask(&format!("failure?provider={address}&service={SERVICE}"));
            }
        }
    }
}

/// The bench's requests are one line; its replies end with the connection.
fn join(mut client: &TcpStream, mut provider: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut answer = Vec::new();
    BufReader::new(client).read_until(b'\n', &mut request)?;
    provider.write_all(&request)?;
    provider.read_to_end(&mut answer)?;
    client.write_all(&answer)
}
