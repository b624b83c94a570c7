//! PEGASUS: competitive load balancing.
//!
//! Providers compete for work: each runs a *monitor* that watches its load and
//! sends *tickets* to any number of balancers; each balancer keeps a *ticket
//! queue*; for each client a *redirector* asks the queue for the next provider
//! and joins the two.
//!
//! The modules, in floor order; arrows point down only. What is not `net`,
//! `os` or `command` is pure: values in, values out.

#[forbid(unsafe_code)]
pub mod base;
pub mod command;
#[forbid(unsafe_code)]
pub mod monitor;
pub mod net;
pub mod os;
#[forbid(unsafe_code)]
pub mod queue;
#[forbid(unsafe_code)]
pub mod redirect;
#[forbid(unsafe_code)]
pub mod schedule;
#[forbid(unsafe_code)]
pub mod wire;
