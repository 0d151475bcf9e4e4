//! The Session Manager data channel, without a socket and without a clock.
//!
//! Bytes and `now` go in; transmits, events and a deadline come out. Nothing here reads a clock, opens a socket,
//! spawns, or panics on input. The codecs (`message`, `payload`, `handshake`, `mux::frame`) are used by both ends;
//! the machines are the client's alone.

mod agreement;
pub mod data_channel;
pub mod handshake;
pub mod inbox;
pub mod memory;
pub mod message;
pub mod mux;
pub mod outbox;
pub mod payload;
pub mod port_session;

pub use data_channel::{Config, End, Established};
pub use memory::Memory;
pub use mux::frame::StreamId;
pub use port_session::{Event, Limits, PortSession, Read, ResetCause};
