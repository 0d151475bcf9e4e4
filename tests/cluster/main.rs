//! What only a real API server can tell: one control plane for all tests of this program.
#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "tables of JSON read better without ampersands"
)]

#[path = "../support/audit.rs"]
mod audit;
#[path = "../support/collector.rs"]
mod collector;
#[path = "../support/control_plane/mod.rs"]
mod control_plane;
#[path = "../support/dial.rs"]
mod dial;
#[path = "../support/forwarder.rs"]
mod forwarder;
#[path = "../support/front.rs"]
mod front;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/iam.rs"]
mod iam;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/tally.rs"]
mod tally;
#[path = "../support/token.rs"]
mod token;
#[path = "../support/transfer.rs"]
mod transfer;
#[path = "../support/wait.rs"]
mod wait;

mod access;
mod actions;
mod admission;
mod api_away;
mod aws_errors;
mod bytes;
mod classes;
mod copied;
mod credentials;
mod deletion;
mod drain;
mod edits;
mod election;
mod examples;
mod failing_starts;
mod ground;
mod held;
mod history;
mod hostile;
mod huge;
mod identities;
mod installations;
mod kinds;
mod kubectl;
mod lifecycle;
mod listeners;
mod looks;
mod ownership;
mod probes;
mod processes;
mod proxied;
#[path = "../support/proxy.rs"]
mod proxy;
mod replaced;
mod request_ids;
mod rights;
mod roles;
mod scopes;
mod secrets;
mod services;
mod shutdown;
mod sweeper;
mod traces;
mod world;
