//! A Kubernetes operator that makes AWS SSM Session Manager sessions a Kubernetes resource.
//!
//! The map of the house and its invariants are in `src/README.md`.

pub mod aws;
pub mod broker;
pub mod controller;
pub mod crd;
pub mod protocol;
pub mod relay;
#[cfg(feature = "simulator")]
pub mod simulator;
