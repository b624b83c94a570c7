//! Answers to questions for names (DNS): `redirect_dns`.
//!
//! Owns the sockets' worker and the form of messages. Not responsible for which providers
//! are in an answer.

mod connection;
mod message;
mod worker;

pub use worker::DnsWorker;
