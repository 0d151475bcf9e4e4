//! Two ends on virtual time: our port session, and an agent that shares none of its code, over a
//! network that loses, doubles, delays and reorders by a seed. Nothing waits for real.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "so does a test fail, and tables read better without ampersands"
)]

mod agent;
mod delivery;
mod frugality;
mod handshake;
mod limits;
mod malformed;
mod refusal;
mod transport;
mod wire;
mod world;
