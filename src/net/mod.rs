//! The loop: the only place that knows mio and reads a clock.

pub mod accept;
pub mod drive;
pub mod gauge;
pub mod helper;
pub mod mailbox;
pub mod names;
pub mod peer;
pub mod plugin;
pub mod probe;
pub mod pump;
pub mod tally;
