//! What only a real API server can tell: one control plane for all tests of this program.
#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "tables of JSON read better without ampersands"
)]

#[path = "../support/control_plane.rs"]
mod control_plane;
#[path = "../support/dial.rs"]
mod dial;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/transfer.rs"]
mod transfer;

mod admission;
mod aws_errors;
mod classes;
mod edits;
mod examples;
mod ground;
mod history;
mod kubectl;
mod lifecycle;
mod looks;
mod replaced;
mod services;
mod world;
