//! The client's side of smux version 1: streams share one ordered run of bytes, each in its turn.
//!
//! Version 1 has no flow control for a stream: the receiver as a whole stops reading when it holds too much. So the
//! budget is one for all streams, and a stream that keeps it full can be named.

mod parser;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use parser::Parser;

use crate::protocol::memory::Memory;
use crate::protocol::mux::frame::{Command, FrameError, HEADER_BYTES, Header, StreamId};
use crate::protocol::mux::stream::Stream;

/// Memory of the unread bytes of all streams together before nothing more is read: as many bytes as the agent's own end
/// holds.
pub const RECEIVE_BYTES_MAX: usize = 4 << 20;

/// The budget counts as used up until this part of it, a half, was taken: who takes a few bytes now and then keeps the others
/// waiting as much as who takes none, and who reads slower than the agent sends does not.
const RELIEF_PART: usize = 2;

/// The first stream's id; the client's are odd, and 1 is never used.
const FIRST_STREAM: StreamId = 3;

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// It has bytes to read where it had none, or the far end has closed it.
    Readable(StreamId),
    /// It takes bytes again.
    Writable(StreamId),
    /// The far end has closed it.
    Finished(StreamId),
}

/// The machine.
#[derive(Debug)]
pub struct Multiplexer {
    streams: HashMap<StreamId, Stream>,
    next_stream: Option<StreamId>,
    /// Streams with something to send, each once, in the order of their turns.
    turns: VecDeque<StreamId>,
    queued: HashSet<StreamId>,
    /// Discarded streams: they are forgotten when their FIN is on its way.
    discarded: HashSet<StreamId>,
    /// A keepalive frame waits to be sent.
    keeps_alive: bool,
    parser: Parser,
    memory: Memory,
    unread_bytes_max: usize,
    full_since: Option<Instant>,
    /// Bytes taken since then.
    relief_bytes: usize,
    events: VecDeque<StreamEvent>,
}

impl Default for Multiplexer {
    fn default() -> Self {
        Self {
            streams: HashMap::new(),
            next_stream: Some(FIRST_STREAM),
            turns: VecDeque::new(),
            queued: HashSet::new(),
            discarded: HashSet::new(),
            keeps_alive: false,
            parser: Parser::start(),
            memory: Memory::default(),
            unread_bytes_max: RECEIVE_BYTES_MAX,
            full_since: None,
            relief_bytes: 0,
            events: VecDeque::new(),
        }
    }
}

impl Multiplexer {
    /// Opens a stream; `None` when the session has used up its ids.
    pub fn open(&mut self) -> Option<StreamId> {
        let id = self.next_stream?;
        self.next_stream = id.checked_add(2);
        self.streams.insert(id, Stream::default());
        self.queue(id);
        Some(id)
    }

    /// The stream, unless it was forgotten.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// Streams that are not forgotten.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = (StreamId, &Stream)> {
        self.streams.iter().map(|(id, stream)| (*id, stream))
    }

    /// Takes bytes for a stream; how many, 0 when it is full or over.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let taken = self.change(id, |stream| stream.write(bytes)).unwrap_or(0);
        if taken > 0 {
            self.queue(id);
        }
        taken
    }

    /// Up to `bytes_max` unread bytes of a stream. They count as unread until the next read: who reads holds them.
    pub fn read(&mut self, id: StreamId, bytes_max: usize) -> Option<Bytes> {
        let (given_back, bytes) =
            self.change(id, |stream| (stream.give_back(), stream.read(bytes_max)))?;
        if given_back > 0 {
            self.release(given_back);
        }
        bytes
    }

    /// Closes a stream behind what it has to send.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.finish();
            self.queue(id);
        }
    }

    /// Nobody uses the stream any more: it is closed, at once unless it was finished before, and then forgotten. What
    /// the far end still sends for it is thrown away.
    pub fn discard(&mut self, id: StreamId) {
        let unread = self.change(id, |stream| {
            let unread = stream.incoming_bytes();
            stream.discard();
            unread
        });
        let (Some(unread), Some(stream)) = (unread, self.streams.get(&id)) else {
            return;
        };
        let unknown = stream.pending().syn && stream.pending().data_bytes == 0;
        if stream.is_fin_sent() || unknown {
            // The far end knows of its end, or never knew of it.
            self.streams.remove(&id);
            if self.queued.remove(&id) {
                self.turns.retain(|turn| *turn != id);
            }
        } else {
            self.discarded.insert(id);
            self.queue(id);
        }
        self.release(unread);
    }

    /// Queues a keepalive frame, unless one still waits.
    pub fn keep_alive(&mut self) {
        self.keeps_alive = true;
    }

    /// Takes the next bytes of the far end's run.
    ///
    /// # Errors
    /// The run is broken: nothing that follows can be understood.
    pub fn handle_bytes(&mut self, mut bytes: Bytes, now: Instant) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            let Some(piece) = self.parser.take(&mut bytes)? else {
                break;
            };
            match piece.command {
                Command::Push => self.handle_data(piece.stream, &piece.data, now),
                Command::Fin if piece.last => self.handle_finish(piece.stream),
                Command::Fin | Command::Syn | Command::Nop => {}
            }
        }
        Ok(())
    }

    /// Whether anything waits to be sent.
    #[must_use]
    pub fn wants_to_send(&self) -> bool {
        self.keeps_alive || !self.turns.is_empty()
    }

    /// The next payload, of `bytes_max` bytes at most: the frames of the stream whose turn it is.
    pub fn poll_payload(&mut self, bytes_max: usize, now: Instant) -> Option<Bytes> {
        if !self.wants_to_send() {
            return None;
        }
        let mut payload = BytesMut::with_capacity(bytes_max);
        if std::mem::take(&mut self.keeps_alive) {
            payload.put_slice(&header(Command::Nop, 0, 0));
            return Some(payload.freeze());
        }
        while payload.is_empty() {
            let id = self.turns.pop_front()?;
            self.queued.remove(&id);
            self.fill(id, &mut payload, bytes_max, now);
        }
        Some(payload.freeze())
    }

    /// What happened to streams, in order.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// Whether the far end's next bytes have room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.memory.incoming < self.unread_bytes_max
    }

    /// Unread bytes may keep so much memory from now on.
    pub fn set_unread_bytes_max(&mut self, bytes: usize, now: Instant) {
        self.unread_bytes_max = bytes;
        if self.has_room() {
            self.full_since = None;
            self.relief_bytes = 0;
        } else {
            self.full_since.get_or_insert(now);
        }
    }

    /// What the buffers of all streams keep.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Whether a stream has its turn to send still before it.
    #[must_use]
    pub fn is_queued(&self, id: StreamId) -> bool {
        self.queued.contains(&id)
    }

    /// Whether so much was taken since the budget was used up that nobody is to blame, though it still is: it was
    /// lowered while more was unread.
    #[must_use]
    pub fn is_relieved(&self) -> bool {
        self.relief_bytes >= self.unread_bytes_max / RELIEF_PART
    }

    /// The stream that used it up is gone, or is about to be: whether others do is to be seen from now on.
    pub fn count_anew(&mut self, now: Instant) {
        self.full_since = (!self.has_room()).then_some(now);
        self.relief_bytes = 0;
    }

    /// Since when the budget is used up, without having been relieved of half of it.
    #[must_use]
    pub fn full_since(&self) -> Option<Instant> {
        self.full_since
    }

    /// The stream with the most unread bytes.
    #[must_use]
    pub fn fullest_stream(&self) -> Option<StreamId> {
        self.streams
            .iter()
            .max_by_key(|(_, stream)| stream.incoming_bytes())
            .map(|(id, _)| *id)
    }

    fn fill(&mut self, id: StreamId, payload: &mut BytesMut, bytes_max: usize, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let before = stream.memory();
        let was_crowded = stream.is_crowded();
        let pending = stream.pending();
        if pending.syn {
            stream.syn_sent();
            payload.put_slice(&header(Command::Syn, 0, id));
        }
        let room = bytes_max.saturating_sub(payload.len() + HEADER_BYTES);
        let data_bytes = pending.data_bytes.min(room).min(usize::from(u16::MAX));
        if data_bytes > 0 {
            let length = u16::try_from(data_bytes).unwrap_or(u16::MAX);
            payload.put_slice(&header(Command::Push, length, id));
            stream.take_data(data_bytes, payload, now);
        }
        let rest = stream.pending();
        if rest.fin && rest.data_bytes == 0 && payload.len() + HEADER_BYTES <= bytes_max {
            stream.fin_sent();
            payload.put_slice(&header(Command::Fin, 0, id));
        }
        if was_crowded && !stream.is_crowded() && stream.room() > 0 {
            self.events.push_back(StreamEvent::Writable(id));
        }
        let (more, fin_sent) = (!stream.pending().is_empty(), stream.is_fin_sent());
        self.memory += stream.memory();
        self.memory -= before;
        if more {
            self.queue(id);
        } else if fin_sent && self.discarded.remove(&id) {
            self.streams.remove(&id);
        }
    }

    fn handle_data(&mut self, id: StreamId, data: &[u8], now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if data.is_empty() || stream.remote_finished() || self.discarded.contains(&id) {
            return;
        }
        if stream.is_drained() {
            self.events.push_back(StreamEvent::Readable(id));
        }
        self.change(id, |stream| stream.handle_data(data));
        if !self.has_room() {
            self.full_since.get_or_insert(now);
        }
    }

    fn handle_finish(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.remote_finished() {
            self.change(id, Stream::handle_finish);
            self.events.push_back(StreamEvent::Finished(id));
        }
    }

    fn release(&mut self, bytes: usize) {
        self.relief_bytes += bytes;
        if self.full_since.is_none() || (self.has_room() && self.is_relieved()) {
            self.full_since = None;
            self.relief_bytes = 0;
        }
    }

    /// Whatever changes what a stream keeps is done in here.
    fn change<R>(&mut self, id: StreamId, change: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        let stream = self.streams.get_mut(&id)?;
        let before = stream.memory();
        let result = change(stream);
        self.memory += stream.memory();
        self.memory -= before;
        Some(result)
    }

    fn queue(&mut self, id: StreamId) {
        if self.queued.insert(id) {
            self.turns.push_back(id);
        }
    }
}

fn header(command: Command, length: u16, stream: StreamId) -> [u8; HEADER_BYTES] {
    Header {
        command,
        length,
        stream,
    }
    .encode()
}

#[cfg(test)]
mod tests;
