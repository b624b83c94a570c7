//! The language between hosts: messages, lines, and one side of a connection.
//! Owns the protocol; touches no socket.

pub mod channel;
pub mod line_decoder;
pub mod message;
pub mod peer_key;
pub mod proxy_header;
pub mod record;
