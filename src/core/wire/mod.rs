//! The language between hosts: messages, lines, and one side of a connection.
//! Owns the protocol; touches no socket.

pub mod channel;
pub mod frame;
pub mod message;
pub mod proxy;
