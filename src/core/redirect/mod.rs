//! Leading clients to providers.

pub mod flows;
mod kept;
pub mod redirector;
pub mod sources;
