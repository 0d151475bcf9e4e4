//! The relay against the simulated AWS: real sockets, real websockets, an agent that really dials, no Kubernetes.
#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]

mod brokers;
mod budget;
mod bytes;
mod failures;
#[path = "../support/front.rs"]
mod front;
mod ground;
mod lives;
mod losses;
mod malformed;
mod owner;
mod panics;
mod proxies;
#[path = "../support/proxy.rs"]
mod proxy;
mod recorder;
mod secrets;
mod streams;
mod tls;
#[path = "../support/transfer.rs"]
mod transfer;
#[path = "../support/wait.rs"]
mod wait;
mod websockets;
