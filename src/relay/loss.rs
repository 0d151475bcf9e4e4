//! Why websockets are lost: a word of ours for the metrics, and everybody's words for logs and statuses.

use std::io::{self, ErrorKind};

use prometheus_client::encoding::EncodeLabelValue;
use tokio_rustls::rustls;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

/// A websocket that was lost, so that its session is to be resumed over another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What it was, in a word.
    pub reason: LossReason,
    /// Why, for a status too.
    pub why: String,
}

/// What ends a websocket whose session lives on.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum LossReason {
    /// The service closed it, as it does about hourly.
    ClosedByService,
    /// The connection was reset, or ended before the service had closed the websocket.
    ConnectionReset,
    /// The gateway did not answer a ping before the next was due, or the socket took nothing for so long.
    PingUnanswered,
    /// What came was no TLS, or not what the gateway had sent.
    TlsError,
    /// The connection failed in another way, such as a host that can't be reached any more.
    IoError,
}

impl LossReason {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::ClosedByService,
        Self::ConnectionReset,
        Self::PingUnanswered,
        Self::TlsError,
        Self::IoError,
    ];

    fn of(error: &WsError) -> Self {
        match error {
            WsError::ConnectionClosed
            | WsError::AlreadyClosed
            | WsError::Protocol(
                ProtocolError::SendAfterClosing | ProtocolError::ReceivedAfterClosing,
            ) => Self::ClosedByService,
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::ConnectionReset,
            WsError::Tls(_) => Self::TlsError,
            WsError::Io(error) if is_of_tls(error) => Self::TlsError,
            WsError::Io(error) => match error.kind() {
                ErrorKind::BrokenPipe
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::UnexpectedEof => Self::ConnectionReset,
                _ => Self::IoError,
            },
            // What is left is of no websocket that was open, or breaks the rules, which is no loss.
            _ => Self::IoError,
        }
    }
}

/// TLS hands its errors on as such of the connection.
fn is_of_tls(error: &io::Error) -> bool {
    let source = error.get_ref();
    source.is_some_and(|source| source.downcast_ref::<rustls::Error>().is_some())
}

impl Loss {
    pub fn new(reason: LossReason, why: String) -> Self {
        Self { reason, why }
    }
}

impl From<WsError> for Loss {
    fn from(error: WsError) -> Self {
        Self::new(LossReason::of(&error), error.to_string())
    }
}

/// Whether an error is that of a peer that breaks the rules of websockets or our limits, so that it would be the same over
/// another websocket. All others are losses.
pub fn breaks_rules(error: &WsError) -> bool {
    match error {
        WsError::Capacity(_) | WsError::Utf8(_) | WsError::AttackAttempt => true,
        WsError::Protocol(error) => !matches!(
            error,
            ProtocolError::ResetWithoutClosingHandshake
                | ProtocolError::SendAfterClosing
                | ProtocolError::ReceivedAfterClosing
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncWriteExt as _, duplex};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    fn of(kind: ErrorKind) -> LossReason {
        LossReason::of(&io::Error::from(kind).into())
    }

    #[tokio::test]
    async fn what_is_no_tls_is_told_from_a_connection_that_ends() {
        let trusting = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        let connector = TlsConnector::from(Arc::new(trusting.with_no_client_auth()));
        let name = || "gateway.test".try_into().expect("a name");

        let (near, mut far) = duplex(1024);
        far.write_all(&[0; 64]).await.expect("it is buffered");
        let error = connector.connect(name(), near).await.expect_err("no TLS");
        assert_eq!(LossReason::of(&error.into()), LossReason::TlsError);

        let (near, far) = duplex(1024);
        drop(far);
        let error = connector.connect(name(), near).await.expect_err("an end");
        assert_eq!(LossReason::of(&error.into()), LossReason::ConnectionReset);
    }

    #[test]
    fn what_is_cut_is_told_from_what_fails_in_another_way() {
        let cut = WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake);
        assert_eq!(LossReason::of(&cut), LossReason::ConnectionReset);
        assert_eq!(of(ErrorKind::ConnectionReset), LossReason::ConnectionReset);
        assert_eq!(of(ErrorKind::BrokenPipe), LossReason::ConnectionReset);
        assert_eq!(of(ErrorKind::HostUnreachable), LossReason::IoError);
        assert_eq!(of(ErrorKind::TimedOut), LossReason::IoError);
    }
}
