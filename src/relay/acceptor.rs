//! Takes clients from a listener's sockets.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use super::ports::Bound;

/// The pause after an accept that failed: most likely the process is out of file descriptors, and would spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The next client on any of the sockets, and from where it comes; never without a port.
///
/// # Errors
/// The kernel's.
pub(super) async fn accept(bound: Option<&Bound>) -> io::Result<(TcpStream, IpAddr)> {
    let Some(bound) = bound else {
        return std::future::pending().await;
    };
    let accepted = poll_fn(|cx| {
        let ready = bound
            .sockets()
            .iter()
            .find_map(|socket| match socket.poll_accept(cx) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await;
    if accepted.is_err() {
        sleep(ERROR_PAUSE).await;
    }
    accepted.map(|(stream, from)| (stream, from.ip().to_canonical()))
}
