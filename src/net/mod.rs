//! The event loop and what hangs on it.

pub mod background_command;
pub mod event_loop;
pub mod http_check;
pub mod listeners;
pub mod load_sampler;
#[cfg(feature = "secure")]
mod noise;
pub mod one_shot;
pub mod plugin;
pub mod queue_connection;
pub mod resolver;
pub mod secure_link;
pub mod shared_counter;
#[cfg(feature = "monitor")]
pub mod task_sampler;
pub mod tcp_check;
pub mod tunnel;
