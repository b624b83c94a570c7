//! Where the program was built without `secure`: no session can exist.

use pegasus_core::protocol::peer_key::Secret;
use pegasus_core::protocol::record::HANDSHAKE_BYTES;
use std::io;

/// Whether this program has the cipher.
pub const BUILT_IN: bool = false;

/// Always refused.
///
/// # Errors
/// Always.
pub fn random(_: &mut [u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The side that opens a connection.
pub enum Initiator {}

impl Initiator {
    /// Always refused.
    ///
    /// # Errors
    /// Always.
    pub fn start(_: &[u8], _: &Secret) -> io::Result<(Initiator, [u8; HANDSHAKE_BYTES])> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ends the handshake.
    pub fn finish(self, _: &[u8]) -> Option<Session> {
        match self {}
    }
}

/// No message is one of a handshake here.
pub fn respond(
    _: &[u8],
    _: &[Secret],
    _: &[u8],
) -> Option<(usize, Session, [u8; HANDSHAKE_BYTES])> {
    None
}

/// A connection whose handshake is over.
pub enum Session {}

impl Session {
    /// Encrypts.
    pub fn seal(&mut self, _: &[u8], _: &mut Vec<u8>) {
        match *self {}
    }

    /// Decrypts.
    pub fn open(&mut self, _: &[u8], _: &mut Vec<u8>) -> Option<()> {
        match *self {}
    }
}
