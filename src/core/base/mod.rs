//! The ground floor: words and notations. Owns no policy and no side effect.

pub mod backoff;
pub mod cidr;
pub mod decimal;
pub mod endpoint;
pub mod id_map;
pub mod key_value;
pub mod log_throttle;
pub mod ordered_index;
pub mod outcome;
pub mod printable;
pub mod provider;
pub mod quota;
pub mod random;
pub mod sample;
pub mod service_name;
pub mod slab;
pub mod source_key;
pub mod state_machine;
#[cfg(test)]
pub mod story;
pub mod ticket;
pub mod time;
pub mod timer_queue;
pub mod url;
