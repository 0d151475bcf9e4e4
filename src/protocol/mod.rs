//! The Session Manager data channel, without a socket and without a clock.
//!
//! Bytes and `now` go in; transmits, events and a deadline come out. Nothing here reads a clock, opens a socket,
//! spawns, or panics on input. The codecs (`message`, `payload`, `handshake`, `mux::frame`) are used by both ends;
//! the machines are the client's alone.

pub mod handshake;
pub mod message;
pub mod mux;
pub mod payload;
