//! The ground floor: words and notations. Owns no policy and no side effect.

pub mod address;
pub mod backoff;
pub mod decimal;
pub mod machine;
pub mod name;
pub mod order;
pub mod outcome;
pub mod pairs;
pub mod random;
pub mod roster;
pub mod sample;
pub mod seldom;
pub mod slab;
pub mod ticket;
pub mod time;
pub mod timers;
pub mod url;
