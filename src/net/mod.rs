//! The event loop and what hangs on it.

pub mod background_command;
pub mod event_loop;
pub mod http_check;
pub mod listeners;
pub mod load_sampler;
pub mod one_shot;
pub mod plugin;
pub mod queue_connection;
pub mod resolver;
pub mod shared_counter;
pub mod tcp_check;
pub mod tunnel;
