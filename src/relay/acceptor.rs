//! Takes clients from a listener's sockets.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
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
    let accepted = poll_fn(|cx| bound.poll_accept(cx)).await;
    if accepted.is_err() {
        sleep(ERROR_PAUSE).await;
    }
    accepted.map(|(stream, from)| (stream, from.ip().to_canonical()))
}
