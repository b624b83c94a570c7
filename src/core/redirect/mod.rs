//! The redirector: a provider for each TCP client and each UDP flow, or an answer that names
//! one.

pub mod answers;
pub mod byte_budget;
pub mod flows;
pub mod name_table;
pub mod redirector;
mod resend_buffer;
pub mod source_limit;
pub mod ticket_wait;
