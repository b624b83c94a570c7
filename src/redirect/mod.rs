//! Leading clients to providers.

pub mod redirector;
