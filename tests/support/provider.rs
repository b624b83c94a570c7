//! Providers in the test process: a closure serves each client.

use super::PATIENCE;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

/// A server that runs until it is dropped, with a thread for each client.
pub struct Provider {
    pub address: SocketAddr,
    clients: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Provider {
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Provider {
        Provider::start_at(Ipv4Addr::LOCALHOST.into(), serve)
    }

    pub fn start_at(ip: IpAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Provider {
        Provider::at((ip, 0).into(), serve)
    }

    /// A provider of which the address is given.
    #[track_caller]
    pub fn at(place: SocketAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Provider {
        let listener = TcpListener::bind(place).unwrap();
        let address = listener.local_addr().unwrap();
        let (clients, over): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let count = clients.clone();
        let ended = over.clone();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.set_write_timeout(Some(PATIENCE));
                let _ = stream.set_nodelay(true);
                let serve = serve.clone();
                thread::spawn(move || serve(stream));
            }
        });
        Provider { address, clients, over }
    }

    /// Sends its name to each client and closes.
    pub fn named(name: &'static str) -> Provider {
        Provider::named_at(Ipv4Addr::LOCALHOST.into(), name)
    }

    /// The same at this address of this host.
    pub fn named_at(ip: IpAddr, name: &'static str) -> Provider {
        Provider::start_at(ip, move |mut stream| drop(stream.write_all(name.as_bytes())))
    }

    /// Echoes.
    pub fn echo() -> Provider {
        Provider::start(|mut stream| {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
        })
    }

    /// Returns how many clients it has had.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::SeqCst)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
