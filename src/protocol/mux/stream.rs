//! One stream of the multiplexer: bytes on their way out, bytes that nobody has read yet, and how it ends.
//!
//! ```text
//! Open ──finish──► Finishing ──its FIN is sent──► Finished
//!   └──────────────────discard, at any time (forgotten once its FIN is sent)
//! ```
//!
//! The agent takes a FIN for a full close, so that none is sent while an answer is still wanted.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes that one stream may have waiting to be sent: as much as a socket's buffer, so that a fast client is slowed
/// down by its own stream and not by the session's.
pub const SEND_BYTES_MAX: usize = 64 << 10;

/// One stream.
#[derive(Debug, Default)]
pub struct Stream {
    syn_sent: bool,
    outgoing: BytesMut,
    fin: Fin,
    incoming: BytesMut,
    received_bytes: u64,
    remote_finished: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fin {
    #[default]
    Open,
    Wanted,
    Sent,
}

impl Stream {
    /// Takes as many bytes as there is room for; none when it is full, finished, or closed by the far end.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if self.fin != Fin::Open || self.remote_finished {
            return 0;
        }
        let taken = bytes
            .len()
            .min(SEND_BYTES_MAX.saturating_sub(self.outgoing.len()));
        self.outgoing
            .extend_from_slice(bytes.get(..taken).unwrap_or_default());
        taken
    }

    /// Whether [`Self::write`] would take a byte.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.fin == Fin::Open && !self.remote_finished && self.outgoing.len() < SEND_BYTES_MAX
    }

    /// Whether more than half of the room is taken. Who waits for room is woken when it no longer is, and so for many
    /// bytes instead of each message's.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.outgoing.len() > SEND_BYTES_MAX / 2
    }

    /// Sends FIN behind what is queued.
    pub fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Wanted;
        }
    }

    /// Nobody uses the stream any more: what is unread is forgotten, and so is what is queued, unless the stream was
    /// finished in order.
    pub fn discard(&mut self) {
        if self.fin == Fin::Open {
            self.forget_outgoing();
            self.finish();
        }
        self.incoming = BytesMut::new();
    }

    /// What is queued is not sent any more, and its memory is given back.
    pub fn forget_outgoing(&mut self) {
        self.outgoing = BytesMut::new();
    }

    /// Takes bytes of the far end. They are copied: a piece would keep the whole message that it came in.
    pub fn handle_data(&mut self, bytes: &[u8]) {
        self.received_bytes = self.received_bytes.saturating_add(bytes.len() as u64);
        self.incoming.extend_from_slice(bytes);
    }

    /// The far end has closed: what is still queued would be thrown away.
    pub fn handle_finish(&mut self) {
        self.remote_finished = true;
        self.forget_outgoing();
    }

    /// Up to `bytes_max` unread bytes.
    pub fn read(&mut self, bytes_max: usize) -> Option<Bytes> {
        let bytes = self.incoming.len().min(bytes_max);
        if bytes == self.incoming.len() {
            // A buffer that was emptied piece by piece would keep all the memory that it ever had.
            let all = std::mem::take(&mut self.incoming);
            return (bytes > 0).then(|| all.freeze());
        }
        (bytes > 0).then(|| self.incoming.split_to(bytes).freeze())
    }

    /// What there is to send.
    #[must_use]
    pub fn pending(&self) -> Pending {
        Pending {
            syn: !self.syn_sent,
            data_bytes: self.outgoing.len(),
            fin: self.fin == Fin::Wanted,
        }
    }

    /// SYN is on its way.
    pub fn syn_sent(&mut self) {
        self.syn_sent = true;
    }

    /// Moves the next `bytes` of the queue into `payload`.
    pub fn take_data(&mut self, bytes: usize, payload: &mut BytesMut) {
        let bytes = bytes.min(self.outgoing.len());
        payload.extend_from_slice(self.outgoing.get(..bytes).unwrap_or_default());
        self.outgoing.advance(bytes);
        if self.outgoing.is_empty() {
            self.outgoing = BytesMut::new();
        }
    }

    /// FIN is on its way.
    pub fn fin_sent(&mut self) {
        self.fin = Fin::Sent;
    }

    /// Unread bytes.
    #[must_use]
    pub fn incoming_bytes(&self) -> usize {
        self.incoming.len()
    }

    /// Whether any byte of the far end has ever come.
    #[must_use]
    pub fn received_any(&self) -> bool {
        self.received_bytes > 0
    }

    /// Whether all bytes that have ever come are still unread.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.received_bytes == self.incoming.len() as u64
    }

    /// Whether the far end has closed.
    #[must_use]
    pub fn remote_finished(&self) -> bool {
        self.remote_finished
    }

    /// Whether we have closed, or are about to.
    #[must_use]
    pub fn is_finishing(&self) -> bool {
        self.fin != Fin::Open
    }

    /// Whether our FIN is on its way.
    #[must_use]
    pub fn is_fin_sent(&self) -> bool {
        self.fin == Fin::Sent
    }
}

/// What a stream has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// SYN comes first.
    pub syn: bool,
    /// Bytes of data.
    pub data_bytes: usize,
    /// FIN comes behind them.
    pub fin: bool,
}

impl Pending {
    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self {
            syn: false,
            data_bytes: 0,
            fin: false,
        }
    }
}
