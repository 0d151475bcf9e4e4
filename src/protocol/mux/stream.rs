//! One stream of the multiplexer: bytes on their way out, bytes that nobody has read yet, and how it ends.
//!
//! ```text
//! Open ──finish──► Finishing ──its FIN is sent──► Finished
//!   └──────────────────discard, at any time (forgotten once its FIN is sent)
//! ```
//!
//! The agent takes a FIN for a full close, so that none is sent while an answer is still wanted.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use crate::protocol::memory::{Memory, shrink};

/// Bytes that one stream may have waiting to be sent: as much as a socket's buffer, so that a fast client is slowed
/// down by its own stream and not by the session's.
pub const SEND_BYTES_MAX: usize = 64 << 10;

/// Unread bytes are kept in pieces that have at most so much memory, so that who holds one of them keeps no more than that.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// One stream.
#[derive(Debug, Default)]
pub struct Stream {
    syn_sent: bool,
    outgoing: VecDeque<u8>,
    last_sent: Option<Instant>,
    fin: Fin,
    incoming: VecDeque<BytesMut>,
    incoming_bytes: usize,
    /// What the pieces keep of memory.
    incoming_memory: usize,
    /// What was read last, and is given back by the next read.
    lent_bytes: usize,
    lent_memory: usize,
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
        let bytes = bytes.get(..self.room()).unwrap_or(bytes);
        let needed = self.outgoing.len() + bytes.len();
        if needed > self.outgoing.capacity() {
            // In few steps, and never beyond the limit.
            let capacity = needed.next_power_of_two().min(SEND_BYTES_MAX);
            self.outgoing
                .reserve_exact(capacity.saturating_sub(self.outgoing.len()));
        }
        self.outgoing.extend(bytes);
        bytes.len()
    }

    /// How many bytes [`Self::write`] would take.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.fin != Fin::Open || self.remote_finished {
            return 0;
        }
        SEND_BYTES_MAX.saturating_sub(self.outgoing.len())
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
        self.incoming = VecDeque::new();
        (self.incoming_bytes, self.incoming_memory) = (0, 0);
        (self.lent_bytes, self.lent_memory) = (0, 0);
    }

    /// What is queued is not sent any more, and its memory is given back.
    pub fn forget_outgoing(&mut self) {
        self.outgoing = VecDeque::new();
    }

    /// Takes bytes of the far end. They are copied: a piece would keep the whole message that it came in.
    pub fn handle_data(&mut self, mut bytes: &[u8]) {
        self.received_bytes = self.received_bytes.saturating_add(bytes.len() as u64);
        self.incoming_bytes += bytes.len();
        while !bytes.is_empty() {
            let last = self.incoming.back();
            if last.is_none_or(|last| last.len() >= PIECE_BYTES_MAX) {
                self.incoming.push_back(BytesMut::new());
            }
            let Some(last) = self.incoming.back_mut() else {
                return;
            };
            let (part, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES_MAX - last.len()));
            let before = last.capacity();
            extend(last, part);
            self.incoming_memory += last.capacity() - before;
            bytes = rest;
        }
    }

    /// The far end has closed: what is still queued would be thrown away.
    pub fn handle_finish(&mut self) {
        self.remote_finished = true;
        self.forget_outgoing();
    }

    /// Up to `bytes_max` unread bytes. They count until they are [given back](Self::give_back).
    pub fn read(&mut self, bytes_max: usize) -> Option<Bytes> {
        let piece = self.incoming.front_mut().filter(|_| bytes_max > 0)?;
        let before = piece.capacity();
        let bytes = match piece.get(..bytes_max) {
            Some(part) if part.len() < piece.len() => {
                // A part would keep all of the piece.
                let part = Bytes::copy_from_slice(part);
                piece.advance(bytes_max);
                self.incoming_memory -= before - piece.capacity();
                self.lent_memory = part.len();
                part
            }
            Some(_) | None => {
                self.incoming_memory -= before;
                self.lent_memory = before;
                self.incoming.pop_front()?.freeze()
            }
        };
        self.incoming_bytes -= bytes.len();
        self.lent_bytes = bytes.len();
        Some(bytes)
    }

    /// What was read last is no longer held by who read it; how many bytes that were.
    pub fn give_back(&mut self) -> usize {
        self.lent_memory = 0;
        std::mem::take(&mut self.lent_bytes)
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
    pub fn take_data(&mut self, bytes: usize, payload: &mut BytesMut, now: Instant) {
        self.last_sent = Some(now);
        let bytes = bytes.min(self.outgoing.len());
        let (first, second) = self.outgoing.as_slices();
        let (first, wrapped) = (first.get(..bytes).unwrap_or(first), second);
        payload.extend_from_slice(first);
        payload.extend_from_slice(wrapped.get(..bytes - first.len()).unwrap_or_default());
        self.outgoing.drain(..bytes);
        shrink(&mut self.outgoing);
    }

    /// When bytes were last moved into a payload.
    #[must_use]
    pub fn last_sent(&self) -> Option<Instant> {
        self.last_sent
    }

    /// FIN is on its way.
    pub fn fin_sent(&mut self) {
        self.fin = Fin::Sent;
    }

    /// Unread bytes, and those that were read and not given back.
    #[must_use]
    pub fn incoming_bytes(&self) -> usize {
        self.incoming_bytes + self.lent_bytes
    }

    /// Whether a read would give nothing.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.incoming.is_empty()
    }

    /// Memory of what is to be sent, and of what came and was not given back.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            outgoing: self.outgoing.capacity(),
            incoming: self.incoming_memory + self.lent_memory,
        }
    }

    /// Whether any byte of the far end has ever come.
    #[must_use]
    pub fn received_any(&self) -> bool {
        self.received_bytes > 0
    }

    /// Whether all bytes that have ever come are still unread.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.received_bytes == self.incoming_bytes as u64
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

/// Puts `part` behind a piece, which grows by a quarter and not by doubling: what clients do not take is what there is most
/// of in memory.
fn extend(piece: &mut BytesMut, part: &[u8]) {
    let needed = piece.len() + part.len();
    if needed > piece.capacity() {
        let spare = if piece.is_empty() { 0 } else { needed / 4 };
        let mut larger = BytesMut::with_capacity((needed + spare).min(PIECE_BYTES_MAX));
        larger.extend_from_slice(piece);
        *piece = larger;
    }
    piece.extend_from_slice(part);
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
