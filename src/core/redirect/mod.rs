//! Leading clients to providers.

pub mod flows;
pub mod redirector;
mod resend_buffer;
pub mod source_limit;
