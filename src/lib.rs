//! A Kubernetes operator that makes AWS SSM Session Manager sessions a Kubernetes resource.
//!
//! The map of the house and its invariants are in `src/README.md`.

pub mod admin;
pub mod aws;
pub mod backoff;
pub mod binding;
pub mod broker;
pub mod cli;
pub mod controller;
pub mod crd;
pub mod drain;
pub mod election;
pub mod identity;
pub mod lease;
pub mod operator;
pub mod protocol;
pub mod proxy;
pub mod reading;
pub mod relay;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod telemetry;
pub mod words;
