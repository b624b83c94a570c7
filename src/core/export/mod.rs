//! What another engine is told: the providers of a service, with weights, and when they
//! have changed. Grants nothing and prints nothing.

pub mod buckets;
pub mod follower;
pub mod plan;
