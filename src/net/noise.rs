//! The cipher of the control channel: `Noise_NNpsk0_25519_ChaChaPoly_SHA256`.
//!
//! Owns every use of the cryptography crates, so that they can be exchanged here. Does
//! not know what is sent, where a secret comes from, or how messages are framed.
//!
//! `noise-protocol` is the state machine of the Noise framework and `orion` has the
//! primitives: five more crates, all of them without `unsafe` but for `subtle`, `zeroize`
//! and `arrayvec`, and field arithmetic that Fiat Crypto generated from a proof. Neither
//! has had an audit. `snow` with `curve25519-dalek` has not either, and is larger and, built
//! for size, slower; it is the other end in the tests.

use noise_protocol::patterns::noise_nn_psk0;
use noise_protocol::{Cipher, CipherState, HandshakeState, Hash, DH};
use orion::hazardous::aead::chacha20poly1305;
use orion::hazardous::ecc::x25519;
use orion::hazardous::hash::sha2::sha256;
use orion::hazardous::stream::chacha20;
use pegasus_core::protocol::peer_key::Secret;
use pegasus_core::protocol::record::{HANDSHAKE_BYTES, TAG_BYTES};
use std::io;

/// Whether this program has the cipher.
pub const BUILT_IN: bool = true;

/// Fills `bytes` from the randomness of the system. Early after a start of the system
/// it waits until there is any.
///
/// # Errors
/// The system has none.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))
}

enum X25519 {}

impl DH for X25519 {
    type Key = [u8; 32];
    type Pubkey = [u8; 32];
    type Output = [u8; 32];

    fn name() -> &'static str {
        "25519"
    }

    fn genkey() -> [u8; 32] {
        // The callers below bring their own, because this cannot fail in good order.
        let mut key = [0; 32];
        random(&mut key).expect("randomness");
        key
    }

    fn pubkey(key: &[u8; 32]) -> [u8; 32] {
        x25519::PublicKey::try_from(&x25519::PrivateKey::from(*key))
            .expect("every 32 bytes are a private key")
            .to_bytes()
    }

    fn dh(key: &[u8; 32], public: &[u8; 32]) -> Result<[u8; 32], ()> {
        let public = x25519::PublicKey::from_slice(public).map_err(drop)?;
        let shared = x25519::key_agreement(&x25519::PrivateKey::from(*key), &public);
        shared.map_err(drop)?.unprotected_as_bytes().try_into().map_err(drop)
    }
}

enum ChaChaPoly {}

fn chacha_key(key: &[u8; 32]) -> chacha20::SecretKey {
    chacha20::SecretKey::from(*key)
}

fn chacha_nonce(number: u64) -> chacha20poly1305::Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_le_bytes());
    chacha20poly1305::Nonce::from(nonce)
}

impl Cipher for ChaChaPoly {
    type Key = [u8; 32];

    fn name() -> &'static str {
        "ChaChaPoly"
    }

    fn encrypt(key: &[u8; 32], nonce: u64, ad: &[u8], plain: &[u8], out: &mut [u8]) {
        chacha20poly1305::seal(&chacha_key(key), &chacha_nonce(nonce), plain, Some(ad), out)
            .expect("room for the tag");
    }

    fn encrypt_in_place(
        key: &[u8; 32],
        nonce: u64,
        ad: &[u8],
        in_out: &mut [u8],
        plain_bytes: usize,
    ) -> usize {
        let plain = in_out[..plain_bytes].to_vec();
        let sealed = plain_bytes + TAG_BYTES;
        Self::encrypt(key, nonce, ad, &plain, &mut in_out[..sealed]);
        sealed
    }

    fn decrypt(
        key: &[u8; 32],
        nonce: u64,
        ad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), ()> {
        chacha20poly1305::open(&chacha_key(key), &chacha_nonce(nonce), sealed, Some(ad), out)
            .map_err(drop)
    }

    fn decrypt_in_place(
        key: &[u8; 32],
        nonce: u64,
        ad: &[u8],
        in_out: &mut [u8],
        sealed_bytes: usize,
    ) -> Result<usize, ()> {
        let sealed = in_out[..sealed_bytes].to_vec();
        let plain = sealed_bytes - TAG_BYTES;
        Self::decrypt(key, nonce, ad, &sealed, &mut in_out[..plain])?;
        Ok(plain)
    }
}

struct Sha256(sha256::Sha256);

impl Default for Sha256 {
    fn default() -> Sha256 {
        Sha256(sha256::Sha256::new())
    }
}

impl Hash for Sha256 {
    type Block = [u8; 64];
    type Output = [u8; 32];

    fn name() -> &'static str {
        "SHA256"
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data).expect("not finished, and less than 2^61 bytes");
    }

    fn result(&mut self) -> [u8; 32] {
        let digest = self.0.finalize().expect("not finished yet");
        digest.as_ref().try_into().expect("32 bytes")
    }
}

type Handshake = HandshakeState<X25519, ChaChaPoly, Sha256>;

fn handshake(prologue: &[u8], secret: &Secret, first: bool, ephemeral: [u8; 32]) -> Handshake {
    let mut state =
        HandshakeState::new(noise_nn_psk0(), first, prologue, None, Some(ephemeral), None, None);
    state.push_psk(&secret.0);
    state
}

/// The side that opens a connection, between its message and the answer.
pub struct Initiator(Handshake);

impl Initiator {
    /// Begins a handshake; its first message.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn start(
        prologue: &[u8],
        secret: &Secret,
    ) -> io::Result<(Initiator, [u8; HANDSHAKE_BYTES])> {
        let mut ephemeral = [0; 32];
        random(&mut ephemeral)?;
        let mut state = handshake(prologue, secret, true, ephemeral);
        let mut message = [0; HANDSHAKE_BYTES];
        state.write_message(&[], &mut message).map_err(|_| io::ErrorKind::Other)?;
        Ok((Initiator(state), message))
    }

    /// Ends it; none: the answer is not one of a peer that has the secret.
    pub fn finish(mut self, answer: &[u8]) -> Option<Session> {
        if answer.len() != HANDSHAKE_BYTES {
            return None;
        }
        self.0.read_message(answer, &mut []).ok()?;
        let (outgoing, incoming) = self.0.get_ciphers();
        Some(Session { outgoing, incoming })
    }
}

/// Answers the first message of a handshake with the first of these secrets that it
/// was made with: the number of that secret, the session, and the answer. Where none
/// is, this takes as long as the number of secrets says, whichever they are.
pub fn respond(
    prologue: &[u8],
    secrets: &[Secret],
    message: &[u8],
) -> Option<(usize, Session, [u8; HANDSHAKE_BYTES])> {
    if message.len() != HANDSHAKE_BYTES {
        return None;
    }
    let mut ephemeral = [0; 32];
    random(&mut ephemeral).ok()?;
    let (number, mut state) = secrets.iter().enumerate().find_map(|(number, secret)| {
        let mut state = handshake(prologue, secret, false, ephemeral);
        state.read_message(message, &mut []).is_ok().then_some((number, state))
    })?;
    let mut answer = [0; HANDSHAKE_BYTES];
    state.write_message(&[], &mut answer).ok()?;
    let (incoming, outgoing) = state.get_ciphers();
    Some((number, Session { outgoing, incoming }, answer))
}

/// Both ciphers of a connection whose handshake is over.
pub struct Session {
    outgoing: CipherState<ChaChaPoly>,
    incoming: CipherState<ChaChaPoly>,
}

impl Session {
    /// Appends `plain` to `out`, encrypted, with its tag.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + plain.len() + TAG_BYTES, 0);
        self.outgoing.encrypt(plain, &mut out[start..]);
    }

    /// Appends what is in a record to `plain`; none: it was not sealed by the peer, or
    /// is not the next one.
    pub fn open(&mut self, record: &[u8], plain: &mut Vec<u8>) -> Option<()> {
        let start = plain.len();
        plain.resize(start + record.len().checked_sub(TAG_BYTES)?, 0);
        self.incoming.decrypt(record, &mut plain[start..]).ok()
    }
}

#[cfg(test)]
mod tests;
