//! A connection's first answer comes as early through the redirector as without it.

use crate::support::network::{in_own_network, tcp_counter};
use crate::support::pegasus::{closed_address, Redirect};
use crate::support::provider::Provider;
use crate::support::socket::connect;
use std::io::{Read, Write};

/// A server that writes twice, as many do: a head, then a body. The system keeps
/// the body back until the head is acknowledged (Nagle, RFC 896), and nothing
/// delays that acknowledgement on a new connection.
#[test]
fn the_second_piece_of_a_first_answer_waits_for_no_delayed_acknowledgement() {
    const CLIENTS: u64 = 100;
    in_own_network(|| {
        let provider = Provider::start(|mut stream| {
            stream.set_nodelay(false).unwrap();
            while let Ok(1..) = stream.read(&mut [0; 100]) {
                stream.write_all(b"head").unwrap();
                stream.write_all(b"body").unwrap();
            }
        });
        // Without a queue, whose connection would count as well.
        let fallback = format!("service_web_fallback={}", provider.address);
        let redirect = Redirect::start(closed_address(), &[&fallback]);
        let before = tcp_counter("DelayedACKs");
        for _ in 0..CLIENTS {
            let mut client = connect(redirect.address);
            client.write_all(b"question").unwrap();
            let mut answer = [0; 8];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"headbody");
        }
        let delayed = tcp_counter("DelayedACKs") - before;
        // A process that had to wait for a processor counts, too.
        assert!(delayed < CLIENTS / 20, "{delayed} of {CLIENTS} first answers were delayed");
    });
}
