//! What the owner gives a data channel.

use std::time::Instant;

/// What the owner gives a data channel.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instant that `epoch_ms` names.
    pub origin: Instant,
    /// Milliseconds since the Unix epoch at `origin`.
    pub epoch_ms: u64,
    /// Seed of message ids.
    pub seed: u64,
    /// Bytes of messages sent and not acknowledged.
    pub outbox_bytes_max: usize,
}
