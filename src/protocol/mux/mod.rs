//! The multiplexer: smux version 1 over the concatenated Output payloads of a port session.

pub mod frame;
pub mod multiplexer;
pub mod stream;
