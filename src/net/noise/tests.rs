use super::*;

const PROLOGUE: &[u8] = b"secure NNpsk0 web3";
const SECRET: Secret = Secret([7; 32]);
const OTHER: Secret = Secret([8; 32]);

fn pair() -> (Session, Session) {
    let (initiator, message) = Initiator::start(PROLOGUE, &SECRET).unwrap();
    let (number, responder, answer) = respond(PROLOGUE, &[OTHER, SECRET], &message).unwrap();
    assert_eq!(number, 1);
    (initiator.finish(&answer).unwrap(), responder)
}

fn sealed(session: &mut Session, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    session.seal(plain, &mut out);
    out
}

#[test]
fn what_one_side_seals_the_other_opens_once_and_in_order() {
    let (mut client, mut server) = pair();
    for length in [0, 1, 63, 64, 65, 1000, 16_000] {
        let plain: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let record = sealed(&mut client, &plain);
        let mut opened = b"before ".to_vec();
        server.open(&record, &mut opened).unwrap();
        assert_eq!(&opened[7..], plain);
        assert!(server.open(&record, &mut Vec::new()).is_none(), "a record counts once");
        let record = sealed(&mut server, &plain);
        assert!(server.open(&record, &mut Vec::new()).is_none(), "its own, reflected");
        client.open(&record, &mut Vec::new()).unwrap();
    }
    let (first, second) = (sealed(&mut client, b"first"), sealed(&mut client, b"second"));
    assert!(server.open(&second, &mut Vec::new()).is_none());
    server.open(&first, &mut Vec::new()).unwrap();
}

#[test]
fn every_flipped_bit_is_seen() {
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    let (_, message) = Initiator::start(PROLOGUE, &SECRET).unwrap();
    for bit in 0..message.len() * 8 {
        assert!(respond(PROLOGUE, &[SECRET], &flipped(&message, bit)).is_none(), "{bit}");
    }
    for bit in (0..HANDSHAKE_BYTES * 8).step_by(7) {
        let (initiator, message) = Initiator::start(PROLOGUE, &SECRET).unwrap();
        let (_, _, answer) = respond(PROLOGUE, &[SECRET], &message).unwrap();
        assert!(initiator.finish(&flipped(&answer, bit)).is_none(), "{bit}");
    }
    let (mut client, mut server) = pair();
    let record = sealed(&mut client, b"pegasus://b/next\n");
    for bit in 0..record.len() * 8 {
        assert!(server.open(&flipped(&record, bit), &mut Vec::new()).is_none(), "{bit}");
    }
    server.open(&record, &mut Vec::new()).unwrap();
}

#[test]
fn another_secret_line_or_time_is_refused() {
    let (initiator, message) = Initiator::start(PROLOGUE, &SECRET).unwrap();
    assert!(respond(PROLOGUE, &[OTHER], &message).is_none());
    assert!(respond(PROLOGUE, &[], &message).is_none());
    assert!(respond(b"secure NNpsk0 web4", &[SECRET], &message).is_none());
    assert!(respond(PROLOGUE, &[SECRET], &message[1..]).is_none());
    // Replayed, the first message gets an answer that only its maker can use.
    let (_, mut server, _) = respond(PROLOGUE, &[SECRET], &message).unwrap();
    let (_, _, answer) = respond(PROLOGUE, &[SECRET], &message).unwrap();
    let mut client = initiator.finish(&answer).unwrap();
    assert!(server.open(&sealed(&mut client, b"x"), &mut Vec::new()).is_none());
}

/// An implementation of other authors, as either side.
#[test]
fn snow_is_understood() {
    let builder = || {
        let name = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
        snow::Builder::new(name.parse().unwrap())
            .prologue(PROLOGUE)
            .unwrap()
            .psk(0, &SECRET.0)
            .unwrap()
    };
    let mut buffer = [0; 200];
    let mut other = builder().build_initiator().unwrap();
    let length = other.write_message(&[], &mut buffer).unwrap();
    let (_, mut server, answer) = respond(PROLOGUE, &[SECRET], &buffer[..length]).unwrap();
    other.read_message(&answer, &mut buffer).unwrap();
    let mut other = other.into_transport_mode().unwrap();
    let length = other.write_message(b"to pegasus", &mut buffer).unwrap();
    let mut plain = Vec::new();
    server.open(&buffer[..length], &mut plain).unwrap();
    assert_eq!(plain, b"to pegasus");
    let length = other.read_message(&sealed(&mut server, b"to snow"), &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"to snow");

    let mut other = builder().build_responder().unwrap();
    let (initiator, message) = Initiator::start(PROLOGUE, &SECRET).unwrap();
    other.read_message(&message, &mut buffer).unwrap();
    let length = other.write_message(&[], &mut buffer).unwrap();
    let mut client = initiator.finish(&buffer[..length]).unwrap();
    let mut other = other.into_transport_mode().unwrap();
    let length = other.read_message(&sealed(&mut client, b"to snow"), &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"to snow");
}

/// `cargo test --release --lib handshakes_a_second -- --ignored --nocapture`, and the same
/// with `--profile small`.
#[test]
#[ignore = "a benchmark: a second each"]
fn handshakes_a_second() {
    use std::time::{Duration, Instant};
    let rate = |what: &str, mut once: Box<dyn FnMut()>| {
        let (start, mut count) = (Instant::now(), 0u32);
        while start.elapsed() < Duration::from_secs(1) {
            once();
            count += 1;
        }
        let took = start.elapsed().as_micros() / u128::from(count);
        println!("{what}: {count} a second, {took} microseconds");
    };
    let (_, message) = Initiator::start(PROLOGUE, &SECRET).unwrap();
    let once = || {
        std::hint::black_box(pair());
    };
    rate("both sides", Box::new(once));
    let once = move || {
        std::hint::black_box(respond(PROLOGUE, &[SECRET], &message));
    };
    rate("the queue's", Box::new(once));
    let (mut client, mut server) = pair();
    let once = move || {
        let mut plain = Vec::new();
        server.open(&sealed(&mut client, b"pegasus://b/next?id=7\n"), &mut plain).unwrap();
    };
    rate("a message, sealed and opened", Box::new(once));
}
