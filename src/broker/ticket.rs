//! What StartSession gives: a stream URL and a token, which is a bearer secret.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{Identity, SessionId};

/// Admission to the data channel of one session, good for a short time and for one websocket.
#[derive(Clone)]
pub struct Ticket {
    /// The session.
    pub session_id: SessionId,
    /// Where its websocket is, exactly as AWS gave it.
    stream_url: SecretString,
    /// The token; empty when AWS gave none.
    token: SecretString,
}

impl Ticket {
    /// A ticket as AWS gave it.
    #[must_use]
    pub fn new(session_id: SessionId, stream_url: String, token: String) -> Self {
        Self {
            session_id,
            stream_url: stream_url.into(),
            token: token.into(),
        }
    }

    /// Whether AWS gave a token: without one the session can't be opened.
    #[must_use]
    pub fn has_token(&self) -> bool {
        !self.token.expose_secret().is_empty()
    }

    /// The token, for the one text frame that opens the data channel.
    #[must_use]
    pub fn expose_token(&self) -> &str {
        self.token.expose_secret()
    }

    /// The stream URL, once it is known to lead to the identity's message gateway.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the URL, without its query.
    pub fn stream_url(&self, identity: &Identity, policy: UrlPolicy) -> Result<StreamUrl, String> {
        StreamUrl::check(self.stream_url.expose_secret(), identity, policy)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ticket {{ session_id: {}, [redacted] }}",
            self.session_id
        )
    }
}

/// Which stream URLs are trusted with a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UrlPolicy {
    /// `wss://` on the host of the identity's message gateway only.
    #[default]
    Strict,
    /// Any host, also without TLS: for the simulator, on loopback.
    Insecure,
}

/// A checked stream URL, used verbatim.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamUrl {
    url: String,
    host: String,
    port: u16,
    tls: bool,
}

impl StreamUrl {
    /// Checks scheme, host and port; never rebuilds the URL.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the URL, without its path and query.
    pub fn check(url: &str, identity: &Identity, policy: UrlPolicy) -> Result<Self, String> {
        let _ = (url, identity, policy);
        Err(String::new())
    }

    /// The URL exactly as AWS gave it. Its query may identify the session: it is not for logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// The host to connect to, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is `wss://`.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Debug for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}/[redacted]", self.host, self.port)
    }
}

/// Headers that sign a websocket upgrade; they hold credentials and print as `[redacted]`.
#[derive(Clone, Default)]
pub struct SignedHeaders(pub Vec<(String, SecretString)>);

impl fmt::Debug for SignedHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedHeaders([redacted])")
    }
}
