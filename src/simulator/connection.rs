//! One connection to the simulator, as its handlers see it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// One HTTP connection, for handlers that end it without an answer, or without a close.
#[derive(Clone)]
pub(super) struct Connection {
    abort: CancellationToken,
    /// The same socket once more, under TLS too; the connection closes when this is gone as well.
    socket: Arc<Socket>,
}

impl Connection {
    /// # Errors
    /// The process has no file descriptor left.
    pub(super) fn new(stream: &TcpStream, abort: CancellationToken) -> io::Result<Self> {
        let socket = Arc::new(SockRef::from(stream).try_clone()?);
        Ok(Self { abort, socket })
    }

    /// Waits until a handler has aborted it.
    pub(super) async fn aborted(&self) {
        self.abort.cancelled().await;
    }

    /// Closes the connection; what was being answered never is.
    pub(super) async fn abort(&self) -> std::convert::Infallible {
        self.abort.cancel();
        std::future::pending().await
    }

    /// Once it closes, it is reset, and what is still to be sent on it is thrown away.
    pub(super) fn reset_on_close(&self) {
        // It fails only for a socket that is gone already.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }
}
