//! Client and stream, both ways.
//!
//! Each way is slowed by its reader alone. The agent takes our FIN for a full close, so a half-closed client's FIN is
//! held until the answer has come. What went wrong reaches the client as RST, what ended in order as FIN.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::task::coop::{consume_budget, has_budget_remaining};
use tokio::time::{Instant, sleep_until, timeout};

use super::metrics::Metrics;
use super::tunnel::{TunnelStream, WriteError};
use crate::protocol::ResetCause;

/// Bytes read from a client at once, if its stream has room for as many; two buffers' worth fits what a stream takes.
const CLIENT_READ_BYTES: usize = 32 << 10;

/// Bytes read from a stream at once.
const STREAM_READ_BYTES: usize = 64 << 10;

/// How long a client may take to close after the destination has, and to read what came before a session's end:
/// closing on it earlier could destroy bytes that it has not read yet.
const CLIENT_LINGER: Duration = Duration::from_secs(20);

/// How long the agent may take to close a stream after it was told to.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Both sides closed in order.
    Finished,
    /// The client went away.
    ClientGone,
    /// The client was reset.
    Reset(ResetCause),
}

/// Since when nothing was heard of the destination; none while the client has not taken what it said.
struct SilentSince(Mutex<Option<Instant>>);

impl SilentSince {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// The rest of `limit`, if the silence has not lasted for so long. While the far end can't be heard, the silence
    /// is ours.
    fn left_of(&self, limit: Duration, heard_since: Option<Instant>) -> Option<Duration> {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = since
            .zip(heard_since)
            .map(|(silent, heard)| silent.max(heard));
        let left = since.map_or(limit, |since| limit.saturating_sub(since.elapsed()));
        (!left.is_zero()).then_some(left)
    }
}

#[derive(Debug)]
enum Upload {
    /// The client will send no more.
    HalfClosed,
    /// The client broke.
    ClientGone,
    /// The far end takes no more.
    NotWanted,
}

/// Copies until one side ends. The client's socket has a linger time of zero: whatever ends this early resets it.
///
/// `half_close_hold` is asked when it matters, since it depends on how many others wait for a place.
pub async fn splice(
    mut client: TcpStream,
    stream: TunnelStream,
    half_close_hold: impl Fn() -> Duration,
    connected_at: Instant,
    metrics: &Metrics,
) -> Outcome {
    let silent_since = SilentSince(Mutex::new(None));
    let (reader, mut writer) = client.split();
    let ended = {
        let mut upload = pin!(upload(&reader, &stream, metrics));
        let mut download = pin!(download(
            &stream,
            &mut writer,
            &silent_since,
            connected_at,
            metrics
        ));
        let (mut uploading, mut downloading) = (true, true);
        let (mut hold_until, mut finish_by, mut deliver_by) = (None, None, None);
        loop {
            tokio::select! {
                result = &mut download, if downloading => match result {
                    // A client that takes nothing more may still have said something.
                    Err(Outcome::ClientGone) if uploading => {
                        downloading = false;
                        finish_by = Some(Instant::now() + FINISH_TIMEOUT);
                    }
                    result => break result,
                },
                result = &mut upload, if uploading => {
                    uploading = false;
                    match result {
                        Upload::HalfClosed if downloading => hold_until = Some(Instant::now() + half_close_hold()),
                        // What the far end said before it closed is still to be delivered.
                        Upload::NotWanted if downloading => {}
                        Upload::HalfClosed | Upload::ClientGone | Upload::NotWanted => {
                            break Err(Outcome::ClientGone);
                        }
                    }
                }
                // A client that does not read would otherwise never hear of it.
                cause = stream.broken(), if deliver_by.is_none() => match cause {
                    ResetCause::SessionEnded => deliver_by = Some(Instant::now() + CLIENT_LINGER),
                    ResetCause::Refused | ResetCause::Stalled => break Err(Outcome::Reset(cause)),
                },
                () = at(hold_until), if hold_until.is_some() => {
                    let left = silent_since.left_of(half_close_hold(), stream.heard_since());
                    hold_until = left.map(|left| Instant::now() + left);
                    if hold_until.is_none() {
                        stream.finish();
                        finish_by = Some(Instant::now() + FINISH_TIMEOUT);
                    }
                }
                () = at(finish_by), if finish_by.is_some() => {
                    if !downloading {
                        break Err(Outcome::ClientGone);
                    }
                    let left = silent_since.left_of(FINISH_TIMEOUT, stream.heard_since());
                    finish_by = left.map(|left| Instant::now() + left);
                    if finish_by.is_none() {
                        // Whether the answer was whole is not known, so it does not end in order.
                        break Err(Outcome::Reset(ResetCause::SessionEnded));
                    }
                }
                () = at(deliver_by), if deliver_by.is_some() => {
                    break Err(Outcome::Reset(ResetCause::SessionEnded));
                }
            }
        }
    };
    match ended {
        Ok(()) => {
            drop(stream);
            close_in_order(client).await;
            Outcome::Finished
        }
        Err(outcome) => {
            if outcome == Outcome::ClientGone {
                // What it said before it went is still delivered.
                stream.finish();
            }
            outcome
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn upload(client: &ReadHalf<'_>, stream: &TunnelStream, metrics: &Metrics) -> Upload {
    loop {
        if client.readable().await.is_err() {
            return Upload::ClientGone;
        }
        // What can't go on waits in the client's socket, and no buffer waits with it.
        let room = match room(client, stream).await {
            Ok(room) => room,
            Err(end) => return end,
        };
        let write = |bytes: &[u8]| {
            metrics.bytes_up(bytes.len());
            stream.write(bytes)
        };
        if let Err(end) = pour(client, room, write).await {
            return end;
        }
    }
}

/// Hands to `write` what the client has said, `room` bytes at most and then as many as each write leaves room for, until
/// others have a turn.
async fn pour(
    client: &ReadHalf<'_>,
    mut room: usize,
    write: impl Fn(&[u8]) -> Result<usize, WriteError>,
) -> Result<(), Upload> {
    // Only while there is something to read: most connections say nothing most of the time.
    let mut buffer = Vec::new();
    while room > 0 {
        // Neither reading nor writing waits, so that nobody else would have a turn before both had nothing to do.
        let others_come_first = !has_budget_remaining();
        consume_budget().await;
        if others_come_first {
            // They have taken what room there was, for all that is known here.
            break;
        }
        let bytes_max = CLIENT_READ_BYTES.min(room);
        buffer.clear();
        buffer.reserve_exact(bytes_max);
        match client.try_read_buf(&mut (&mut buffer).limit(bytes_max)) {
            Ok(0) => return Err(Upload::HalfClosed),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return Err(Upload::ClientGone),
        }
        room = write(&buffer).map_err(|WriteError| Upload::NotWanted)?;
    }
    Ok(())
}

/// How many bytes the stream takes, once it takes some. While it takes none, a client that breaks would be noticed by
/// nobody: it keeps its place for as long as the last of what it said may take, and no longer.
async fn room(client: &ReadHalf<'_>, stream: &TunnelStream) -> Result<usize, Upload> {
    let mut give_up_at = None;
    loop {
        tokio::select! {
            biased;
            room = stream.room() => return room.map_err(|_| Upload::NotWanted),
            _ = client.ready(Interest::ERROR), if give_up_at.is_none() => {
                give_up_at = Some(Instant::now() + FINISH_TIMEOUT);
            }
            () = at(give_up_at), if give_up_at.is_some() => return Err(Upload::ClientGone),
        }
    }
}

async fn download(
    stream: &TunnelStream,
    client: &mut WriteHalf<'_>,
    silent_since: &SilentSince,
    connected_at: Instant,
    metrics: &Metrics,
) -> Result<(), Outcome> {
    let mut waits_since = Some(connected_at);
    loop {
        silent_since.set(Some(Instant::now()));
        let read = stream.read(STREAM_READ_BYTES).await;
        silent_since.set(None);
        match read {
            Ok(Some(bytes)) => {
                if client.write_all(&bytes).await.is_err() {
                    return Err(Outcome::ClientGone);
                }
                if let Some(since) = waits_since.take() {
                    metrics.first_byte(since.elapsed());
                }
                metrics.bytes_down(bytes.len());
            }
            Ok(None) => return Ok(()),
            Err(cause) => return Err(Outcome::Reset(cause)),
        }
    }
}

/// Sends FIN behind the last byte, and waits for the client's: a socket closed with unread bytes in it sends RST,
/// which destroys what the client has not read.
async fn close_in_order(mut client: TcpStream) {
    let orderly = socket2::SockRef::from(&client).set_linger(None);
    if orderly.is_err() || client.shutdown().await.is_err() {
        return;
    }
    let mut buffer = vec![0; 4 << 10];
    let drained = async { while client.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
    // Past the deadline the kernel goes on delivering what is left.
    let _ = timeout(CLIENT_LINGER, drained).await;
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures::poll;
    use tokio::net::TcpListener;
    use tokio::time::advance;

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A client that has said so many bytes, all of which are there.
    async fn said(bytes: usize) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (far, near) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut far, (near, _)) = (far.expect("connected"), near.expect("accepted"));
        far.write_all(&vec![7; bytes]).await.expect("sent");
        let mut there = vec![0; bytes];
        while near.peek(&mut there).await.expect("it is there") < bytes {}
        (far, near)
    }

    #[tokio::test]
    async fn a_stream_that_was_nearly_full_is_not_filled_byte_by_byte() {
        let (_far, mut near) = said(20_000).await;
        let (reader, _) = near.split();
        let writes = RefCell::new(Vec::new());
        let write = |bytes: &[u8]| {
            writes.borrow_mut().push(bytes.len());
            Ok(64 << 10)
        };
        assert!(pour(&reader, 6, write).await.is_ok());
        assert_eq!(writes.into_inner(), [6, 20_000 - 6]);
    }

    #[tokio::test]
    async fn a_client_that_is_as_fast_as_its_stream_keeps_nobody_waiting() {
        let (_far, mut near) = said(1000).await;
        let (reader, _) = near.split();
        let writes = Cell::new(0);
        let write = |_: &[u8]| {
            writes.set(writes.get() + 1);
            Ok(1)
        };
        let mut pouring = pin!(pour(&reader, 1, write));
        assert!(poll!(&mut pouring).is_pending(), "others have their turn");
        let before = writes.get();
        assert!(before > 0 && pouring.await.is_ok());
        assert_eq!(writes.get(), before, "the room may be theirs by now");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_word() {
        let (silent, up) = (SilentSince(Mutex::new(None)), Some(Instant::now()));
        silent.set(Some(Instant::now()));
        advance(seconds(20)).await;
        assert_eq!(silent.left_of(LIMIT, up), Some(seconds(40)));
        // A word, which the client took at once.
        silent.set(Some(Instant::now()));
        advance(seconds(59)).await;
        assert_eq!(silent.left_of(LIMIT, up), Some(seconds(1)));
        advance(seconds(1)).await;
        assert_eq!(silent.left_of(LIMIT, up), None);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_only_while_a_websocket_is_up() {
        let silent = SilentSince(Mutex::new(Some(Instant::now())));
        advance(10 * LIMIT).await;
        assert_eq!(silent.left_of(LIMIT, None), Some(seconds(60)));
        let up = Some(Instant::now());
        assert_eq!(silent.left_of(LIMIT, up), Some(seconds(60)));
        advance(seconds(45)).await;
        assert_eq!(silent.left_of(LIMIT, up), Some(seconds(15)));
        advance(seconds(15)).await;
        assert_eq!(silent.left_of(LIMIT, up), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_not_taken_the_last_word_hears_no_silence() {
        let silent = SilentSince(Mutex::new(Some(Instant::now())));
        let up = Some(Instant::now());
        silent.set(None);
        advance(10 * LIMIT).await;
        assert_eq!(silent.left_of(LIMIT, up), Some(seconds(60)));
    }
}
