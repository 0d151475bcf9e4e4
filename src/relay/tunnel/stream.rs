//! One stream of a tunnel, as a splice sees it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::Shared;
use crate::protocol::{Read, ResetCause, StreamId};

/// A stream. Dropping it closes it at once, and what the agent still sends for it is thrown away.
pub struct TunnelStream {
    shared: Arc<Shared>,
    id: StreamId,
}

impl TunnelStream {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self { shared, id }
    }

    /// Reads up to `bytes_max` bytes; `None` when the far end has closed.
    ///
    /// # Errors
    /// The stream broke, and why.
    pub async fn read(&self, bytes_max: usize) -> Result<Option<Bytes>, ResetCause> {
        poll_fn(|cx| self.poll_read(cx, bytes_max)).await
    }

    /// Waits until bytes may be taken from the client; how many.
    ///
    /// # Errors
    /// The far end has closed, or the stream broke: nothing more is wanted.
    pub async fn room(&self) -> Result<usize, WriteError> {
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// Takes `bytes`, which are no more than there was [room](Self::room) for; how much room is left.
    ///
    /// # Errors
    /// The far end has closed, or the stream broke: nothing more is wanted.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, WriteError> {
        let mut inner = self.shared.lock();
        let was_queued = inner.session.is_queued(self.id);
        let taken = inner.session.write(self.id, bytes);
        self.shared.settle(&mut inner);
        let room = inner.session.room(self.id);
        let over = inner.closed || taken != Some(bytes.len());
        drop(inner);
        if over {
            return Err(WriteError);
        }
        // The driver knows of a stream in the queue, and sleeps only while none of it may be sent.
        if !was_queued {
            self.shared.wake_driver();
        }
        Ok(room.unwrap_or_default())
    }

    /// Why the stream broke, once it has: for who waits for a client and does not read. It shares its waker with
    /// [`Self::read`], so both are for one task.
    pub async fn broken(&self) -> ResetCause {
        poll_fn(|cx| self.poll_broken(cx)).await
    }

    /// Since when the far end could have answered what was written, and could be heard; none while some of that waits to
    /// be sent, while there is no websocket, and while it is not read.
    pub fn heard_since(&self) -> Option<Instant> {
        let inner = self.shared.lock();
        let waits = !inner.session.wants_to_read() || inner.session.has_unsent(self.id);
        let connected = inner.connected_since.filter(|_| !waits)?;
        let sent = inner.session.last_sent(self.id).map(Instant::from_std);
        Some(sent.map_or(connected, |sent| connected.max(sent)))
    }

    /// Closes the stream behind what was written. The agent then closes both ways.
    pub fn finish(&self) {
        self.shared.lock().session.finish(self.id);
        self.shared.wake_driver();
    }

    fn poll_read(
        &self,
        cx: &mut Context<'_>,
        bytes_max: usize,
    ) -> Poll<Result<Option<Bytes>, ResetCause>> {
        let mut inner = self.shared.lock();
        let was_full = !inner.session.wants_to_read();
        let read = inner.session.read(self.id, bytes_max);
        self.shared.settle(&mut inner);
        // What was read before is with the client now.
        let has_room_again = was_full && inner.session.wants_to_read();
        if matches!(read, Read::Pending) && !inner.closed {
            inner.readers.insert(self.id, cx.waker().clone());
        }
        let closed = inner.closed;
        drop(inner);
        if has_room_again {
            self.shared.wake_driver();
        }
        match read {
            Read::Bytes(bytes) => Poll::Ready(Ok(Some(bytes))),
            Read::Finished => Poll::Ready(Ok(None)),
            Read::Reset(cause) => Poll::Ready(Err(cause)),
            Read::Pending if closed => Poll::Ready(Err(ResetCause::SessionEnded)),
            Read::Pending => Poll::Pending,
        }
    }

    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<ResetCause> {
        let mut inner = self.shared.lock();
        let ended = inner.closed.then_some(ResetCause::SessionEnded);
        if let Some(cause) = inner.session.reset_cause(self.id).or(ended) {
            return Poll::Ready(cause);
        }
        inner.readers.insert(self.id, cx.waker().clone());
        Poll::Pending
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<usize, WriteError>> {
        let mut inner = self.shared.lock();
        if inner.closed {
            return Poll::Ready(Err(WriteError));
        }
        self.shared.settle(&mut inner);
        match inner.session.room(self.id) {
            None => Poll::Ready(Err(WriteError)),
            Some(0) => {
                inner.held_back |= !inner.session.takes();
                inner.writers.insert(self.id, cx.waker().clone());
                Poll::Pending
            }
            Some(room) => Poll::Ready(Ok(room)),
        }
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.session.discard(self.id);
        self.shared.settle(&mut inner);
        inner.readers.remove(&self.id);
        inner.writers.remove(&self.id);
        drop(inner);
        self.shared.wake_driver();
    }
}

/// Nothing more can be written: the far end has closed, or the stream broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream takes nothing more")]
pub struct WriteError;
