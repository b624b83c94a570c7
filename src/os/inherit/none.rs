//! A system without superservers.

use super::{Inherited, StartContext};
use crate::os::socket::Socket;
use std::io;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

/// Nothing is ever inherited.
pub fn take() -> StartContext {
    StartContext { inherited: Inherited::Nothing, stderr_was_client: false }
}

/// Never started.
#[derive(Debug)]
pub enum Successor {}

/// Always refused.
///
/// # Errors
/// Always `Unsupported`.
pub fn program() -> io::Result<PathBuf> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Always refused.
///
/// # Errors
/// Always `Unsupported`.
pub fn start_successor(_: &[(String, &Socket)], _: &[u8]) -> io::Result<Successor> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Successor {
    /// Never called.
    pub fn id(&self) -> u32 {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn wait(&self, _: Duration) -> Result<(), String> {
        match *self {}
    }

    /// Never called.
    pub fn send(&self, _: &[u8]) -> bool {
        match *self {}
    }

    /// Never called.
    pub fn end(&self) {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn send_socket(&self, _: &str, _: &UdpSocket) -> io::Result<()> {
        match *self {}
    }

    /// Never called.
    pub fn end_sockets(&self) {
        match *self {}
    }
}

/// Never there.
#[derive(Debug)]
pub enum Predecessor {}

impl Predecessor {
    /// Never called.
    pub fn read_data(&self) -> Vec<u8> {
        match *self {}
    }

    /// Never called.
    pub fn take_sockets(&mut self) -> Option<MovedSockets> {
        match *self {}
    }

    /// Never called.
    pub fn report_ready(&self) {
        match *self {}
    }

    /// Never called.
    pub fn follow(self, _: impl FnMut(&str) -> bool) {
        match self {}
    }

    /// Never called.
    pub fn report_failure(&self, _: &str) {
        match *self {}
    }
}

/// Never there.
#[derive(Debug)]
pub enum MovedSockets {}

impl Iterator for MovedSockets {
    type Item = (String, UdpSocket);

    fn next(&mut self) -> Option<(String, UdpSocket)> {
        match *self {}
    }
}
