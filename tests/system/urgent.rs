//! Urgent data (RFC 6093) is relayed where it stands among the other bytes.

use crate::support::pegasus::Balancer;
use crate::support::provider::Provider;
use crate::support::random::{Random, Stream};
use crate::support::socket::{connect, drain, send_urgent, End};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

/// What one side sends: pieces, of which the last byte may be urgent.
struct Pieces {
    all: Vec<u8>,
    /// How long each is, and whether its last byte is urgent.
    each: Vec<(usize, bool)>,
}

impl Pieces {
    fn of(pieces: &[(&[u8], bool)]) -> Pieces {
        Pieces {
            all: pieces.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect(),
            each: pieces.iter().map(|(bytes, urgent)| (bytes.len(), *urgent)).collect(),
        }
    }

    /// Small and large ones, which differ at each place.
    fn random(random: &mut Random) -> Pieces {
        let sizes = [1, 2, 100, 5_000, 70_000, 150_000];
        let each: Vec<(usize, bool)> =
            (0..6).map(|_| (sizes[random.below(6) as usize], random.below(2) == 0)).collect();
        let length = each.iter().map(|(length, _)| length).sum();
        Pieces { all: Stream::new(random.next()).next(length).to_vec(), each }
    }

    fn send(&self, mut stream: &TcpStream) {
        let mut rest = &self.all[..];
        for (length, urgent) in &self.each {
            let (bytes, left) = rest.split_at(*length);
            rest = left;
            let (last, first) = bytes.split_last().unwrap();
            stream.write_all(first).unwrap();
            if *urgent {
                send_urgent(stream, *last);
            } else {
                stream.write_all(&[*last]).unwrap();
            }
        }
        stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// A client and a provider send each other these pieces, one after the other.
#[track_caller]
fn arrive(all: Vec<Pieces>, settings: &[&str]) {
    let all: Arc<[Pieces]> = all.into();
    let answers = all.clone();
    // It answers with the same pieces.
    let provider = Provider::start(move |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let pieces = answers.iter().find(|pieces| pieces.all == bytes);
        if let Some(pieces) = pieces {
            pieces.send(&stream);
        }
    });
    let balancer = Balancer::before(&[provider.address], settings);
    for (number, pieces) in all.iter().enumerate() {
        let mut client = connect(balancer.address());
        pieces.send(&client);
        let (answer, end) = drain(&mut client);
        assert_eq!(end, End::Fin, "{number}: {:?}", pieces.each);
        assert_eq!(answer.len(), pieces.all.len(), "{number}: {:?}", pieces.each);
        assert!(answer == pieces.all, "{number}: {:?}", pieces.each);
    }
}

#[test]
fn urgent_bytes_are_relayed_in_their_place() {
    let much = [b'x'; 300_000];
    for _ in 0..10 {
        arrive(
            vec![
                Pieces::of(&[(b"!", true)]),
                Pieces::of(&[(b"!", true), (b"abc", false)]),
                Pieces::of(&[(b"abc!", true), (b"def", false)]),
                Pieces::of(&[(b"a!", true), (b"?", true), (b"b", false)]),
                Pieces::of(&[(&much, true), (&much, false), (b"!", true)]),
            ],
            &[],
        );
    }
}

#[test]
fn urgent_bytes_at_random_places_are_relayed_in_their_place() {
    let mut random = Random::told();
    let all: Vec<Pieces> = (0..40).map(|_| Pieces::random(&mut random)).collect();
    arrive(all, &[]);
}

/// As when a terminal's output is interrupted: the session goes on afterwards.
#[test]
fn a_stream_goes_on_behind_urgent_data() {
    const BEFORE: usize = 400_000;
    const AFTER: usize = 100_000;
    let provider = Provider::start(|mut stream| {
        stream.read_exact(&mut [0; 2]).unwrap();
        stream.write_all(&[b'x'; BEFORE]).unwrap();
        send_urgent(&stream, b'!');
        stream.write_all(&[b'y'; AFTER]).unwrap();
        let _ = stream.read(&mut [0]);
    });
    let balancer = Balancer::before(&[provider.address], &[]);
    for _ in 0..10 {
        let mut client = connect(balancer.address());
        client.write_all(b"go").unwrap();
        let mut bytes = vec![0; BEFORE + 1 + AFTER];
        client.read_exact(&mut bytes).unwrap();
        let expected = [&[b'x'; BEFORE][..], b"!", &[b'y'; AFTER]].concat();
        assert!(bytes == expected);
    }
}
