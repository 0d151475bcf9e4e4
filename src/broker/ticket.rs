//! What StartSession gives: a stream URL and a token, which is a bearer secret.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{Identity, SessionId, StreamUrl, UrlPolicy};

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

/// Headers that sign a websocket upgrade; they hold credentials and print as `[redacted]`.
#[derive(Clone, Default)]
pub struct SignedHeaders(pub Vec<(String, SecretString)>);

impl fmt::Debug for SignedHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedHeaders([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_print_as_redacted() {
        let id = SessionId::parse("john-0a1b2c").unwrap();
        let url = "wss://ssmmessages.eu-central-1.amazonaws.com/v1?cell=SECRET".to_owned();
        let ticket = Ticket::new(id, url, "SECRET".to_owned());
        let headers = SignedHeaders(vec![("authorization".to_owned(), "SECRET".into())]);
        for printed in [format!("{ticket:?}"), format!("{headers:?}")] {
            assert!(
                !printed.contains("SECRET") && printed.contains("[redacted]"),
                "{printed}"
            );
        }
    }

    #[test]
    fn a_ticket_without_token_says_so() {
        let id = SessionId::parse("john-0a1b2c").unwrap();
        assert!(!Ticket::new(id.clone(), String::new(), String::new()).has_token());
        assert!(Ticket::new(id, String::new(), "x".to_owned()).has_token());
    }
}
