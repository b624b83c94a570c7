//! The redirector: a provider for each TCP client and each UDP flow.

pub mod flows;
pub mod redirector;
mod resend_buffer;
pub mod source_limit;
