//! The language between hosts: messages, lines, and one side of a connection.
//! Owns the protocol. Touches no socket.

pub mod line_decoder;
pub mod peer_key;
pub mod proxy_header;
pub mod record;
pub mod reply;
pub mod request;
pub mod requester;
pub mod responder;
pub mod send_buffer;

#[cfg(test)]
mod mangled;
