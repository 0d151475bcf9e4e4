//! What happens in a port session, what its streams say, and what they may use up.

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::data_channel::{End, Established};
use crate::protocol::mux::frame::StreamId;

/// What happens in a port session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete.
    Established(Established),
    /// [`read`](super::PortSession::read) has something new to say.
    Readable(StreamId),
    /// [`write`](super::PortSession::write) takes bytes again, or says that the stream is over.
    Writable(StreamId),
    /// The agent has reached the destination of a stream.
    DestinationReached,
    /// The agent could not reach the destination of a stream.
    DestinationRefused,
    /// A stream was reset since it had kept the others waiting for too long.
    StreamStalled(StreamId),
    /// The agent took so long to acknowledge a message that was sent to it once; told once a second at most.
    RoundTrip(Duration),
    /// The session is over, or has to be ended.
    Ended(End),
}

/// What reading a stream gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes, never none.
    Bytes(Bytes),
    /// Nothing yet.
    Pending,
    /// The far end has closed, and all its bytes were read.
    Finished,
    /// The stream broke.
    Reset(ResetCause),
}

/// Why a stream broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetCause {
    /// The destination refused.
    Refused,
    /// Its client did not read, and kept the others waiting.
    Stalled,
    /// The session is over, or the stream was forgotten.
    SessionEnded,
}

/// What streams may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams at once. One that nobody uses any more counts until what it had to send is on its way.
    pub streams_max: usize,
    /// How long the receive budget may be used up while several streams share it, before the fullest is reset.
    pub stall_limit: Duration,
}
