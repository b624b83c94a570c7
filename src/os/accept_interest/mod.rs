//! Registers a listener that several event loops share.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn register(&Registry, &mut TcpListener, Token) -> io::Result<()>`: events report that
//!   clients came, to this loop or to another one.
//! - `fn deregister(&Registry, &mut TcpListener)`: this loop hears no more of them, although
//!   other copies of the listener stay open.
//! - `fn take_turns(&Registry, &mut TcpListener, Token)`: this loop has accepted some clients,
//!   and other loops should have the next ones.

#[cfg_attr(pegasus_linux, path = "exclusive.rs")]
#[cfg_attr(not(pegasus_linux), path = "shared.rs")]
mod backend;
pub use backend::{deregister, register, take_turns};

/// The portable back end, so that the tests run both.
#[cfg(all(test, pegasus_linux))]
mod shared;

#[cfg(test)]
mod tests {
    use super::*;
    use mio::net::TcpListener;
    use mio::{Events, Poll, Registry, Token};
    use std::io;
    use std::net::TcpStream;
    use std::time::Duration;

    /// What a back end supplies.
    #[derive(Clone, Copy)]
    struct Backend {
        register: fn(&Registry, &mut TcpListener, Token) -> io::Result<()>,
        deregister: fn(&Registry, &mut TcpListener),
        take_turns: fn(&Registry, &mut TcpListener, Token),
    }

    const OWN: Backend = Backend { register, deregister, take_turns };
    #[cfg(not(pegasus_linux))]
    const PORTABLE: Backend = OWN;
    #[cfg(pegasus_linux)]
    const PORTABLE: Backend = Backend {
        register: shared::register,
        deregister: shared::deregister,
        take_turns: shared::take_turns,
    };

    const WAIT: Option<Duration> = Some(Duration::from_secs(30));
    const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

    /// Whether an event is there.
    fn is_ready(poll: &mut Poll, wait: Option<Duration>) -> bool {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, wait).unwrap();
        events.iter().any(|event| event.token() == Token(7) && event.is_readable())
    }

    /// A listener, and one of its copies for each of two loops.
    fn shared_listener(backend: Backend) -> (std::net::TcpListener, [(Poll, TcpListener); 2]) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let loops = [(); 2].map(|()| {
            let poll = Poll::new().unwrap();
            let mut copy = TcpListener::from_std(listener.try_clone().unwrap());
            (backend.register)(poll.registry(), &mut copy, Token(7)).unwrap();
            (poll, copy)
        });
        (listener, loops)
    }

    #[test]
    fn each_client_is_heard_of_also_after_a_turn() {
        for backend in [OWN, PORTABLE] {
            let (listener, [(mut poll, mut copy), _]) = shared_listener(backend);
            for round in 0..4 {
                let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                if round % 2 == 1 {
                    (backend.take_turns)(poll.registry(), &mut copy, Token(7));
                }
                assert!(is_ready(&mut poll, WAIT), "round {round}");
                copy.accept().unwrap();
                assert!(copy.accept().is_err());
            }
        }
    }

    #[test]
    fn a_loop_that_left_keeps_no_client_from_the_others() {
        for backend in [OWN, PORTABLE] {
            let (listener, [(mut gone, mut copy), (mut poll, other)]) = shared_listener(backend);
            (backend.deregister)(gone.registry(), &mut copy);
            drop(copy);
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(is_ready(&mut poll, WAIT));
            other.accept().unwrap();
            assert!(!is_ready(&mut gone, AT_ONCE));
        }
    }

    /// Whether the thread of this name sleeps.
    #[cfg(pegasus_linux)]
    fn sleeps(name: &str) -> bool {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let stats = tasks.flat_map(|task| std::fs::read_to_string(task.path().join("stat")));
        stats.into_iter().any(|stat| stat.contains(&format!("({name}) S")))
    }

    #[test]
    #[cfg(pegasus_linux)]
    fn a_client_wakes_one_of_the_loops_that_sleep() {
        let (listener, loops) = shared_listener(OWN);
        let (woken, accepted) = std::sync::mpsc::channel();
        let names = ["accepts-one", "accepts-two"];
        let threads: Vec<_> = std::iter::zip(names, loops)
            .map(|(name, (mut poll, copy))| {
                let woken = woken.clone();
                let run = move || {
                    assert!(is_ready(&mut poll, WAIT));
                    woken.send(copy.accept().is_ok()).unwrap();
                };
                std::thread::Builder::new().name(name.into()).spawn(run).unwrap()
            })
            .collect();
        while !names.into_iter().all(sleeps) {
            std::thread::yield_now();
        }
        let _clients = [(); 2].map(|()| {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(accepted.recv().unwrap(), "a loop woke for a client of another one");
            client
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
