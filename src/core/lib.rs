//! The pure half of PEGASUS: words and notations, the language between hosts,
//! the schedulers, and the three state machines. Values in, values out, `now` an
//! argument; no socket, clock, file or thread, and nothing but the standard
//! library. A crate of its own, so that the compiler keeps it so, and so that it
//! can be built for speed where the rest is built for size.
//!
//! The modules, in floor order; arrows point down only.

#![forbid(unsafe_code)]

pub mod base;
pub mod monitor;
pub mod protocol;
pub mod queue;
pub mod redirect;
pub mod scheduler;
