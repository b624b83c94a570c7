//! The pure half of PEGASUS: the control protocol, the schedulers, and the three state
//! machines.
//!
//! Values in, values out, and time is the argument `now`. There is no socket, clock, file
//! or thread here, and nothing but the standard library. It is a crate of its own so that
//! the compiler keeps it so, and so that it can be built for speed where the rest is
//! built for size.

#![forbid(unsafe_code)]

pub mod base;
#[cfg(feature = "export")]
pub mod export;
pub mod monitor;
pub mod protocol;
pub mod queue;
pub mod redirect;
pub mod scheduler;
