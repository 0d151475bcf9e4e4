//! The agent's side of the handshake: what it asks for, and what it makes of the answer.

use serde_json::json;

use super::order::Order;
use crate::protocol::handshake::{HandshakeRequest, HandshakeResponse, RequestedAction, Version};

/// What the real agent says when nobody answers in time.
pub(super) const TIMED_OUT: &str = "Handshake timed out. Please ensure that you have the latest \
                                    version of the session manager plugin.";

/// Stands in front of a failed handshake's text.
const ERROR_PREFIX: &str = "\n----------ERROR-------\n";

/// What the client is asked for.
pub(super) fn request(order: &Order, agent_version: &str) -> HandshakeRequest {
    HandshakeRequest {
        agent_version: agent_version.to_owned(),
        requested_client_actions: vec![RequestedAction {
            action_type: "SessionType".to_owned(),
            action_parameters: json!({
                "SessionType": order.session_type.as_str(),
                "Properties": order.properties,
            }),
        }],
    }
}

/// How the port session runs, as the client's version has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// The client speaks the multiplexer.
    pub(super) multiplexer: bool,
    /// The multiplexer keeps itself alive.
    pub(super) keepalive: bool,
}

/// Reads the client's answer.
///
/// # Errors
/// The text that the session fails with.
pub(super) fn agree(payload: &[u8]) -> Result<Agreed, String> {
    let response: HandshakeResponse =
        serde_json::from_slice(payload).map_err(|error| failure(&error.to_string()))?;
    for action in &response.processed_client_actions {
        if action.action_status != 1 {
            return Err(failure(&format!(
                "{} failed on client with status {} error: {}",
                action.action_type, action.action_status, action.error
            )));
        }
    }
    let version = Version::parse(&response.client_version);
    let at_least = |text: &str| version.is_some() && version >= Version::parse(text);
    let above = |text: &str| version.is_some() && version > Version::parse(text);
    Ok(Agreed {
        multiplexer: at_least("1.1.70.0"),
        keepalive: !above("1.2.331.0"),
    })
}

/// The text of a failed handshake.
pub(super) fn failure(text: &str) -> String {
    format!("{ERROR_PREFIX}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::handshake::{CLIENT_VERSION, ProcessedAction};

    fn response(client_version: &str, action: ProcessedAction) -> Vec<u8> {
        let response = HandshakeResponse {
            client_version: client_version.to_owned(),
            processed_client_actions: vec![action],
            errors: None,
        };
        serde_json::to_vec(&response).expect("plain data")
    }

    #[test]
    fn the_clients_version_decides_on_multiplexer_and_keepalive() {
        let cases = [
            (CLIENT_VERSION, true, false),
            ("1.2.331.0", true, true),
            ("1.1.70.0", true, true),
            ("1.1.69.0", false, true),
            ("unknown", false, true),
        ];
        for (version, multiplexer, keepalive) in cases {
            let agreed = agree(&response(version, ProcessedAction::success("SessionType")));
            assert_eq!(
                agreed,
                Ok(Agreed {
                    multiplexer,
                    keepalive
                }),
                "{version}"
            );
        }
    }

    #[test]
    fn an_action_that_the_client_refuses_fails_the_session() {
        let action = ProcessedAction::unsupported("SessionType", "not here".to_owned());
        let text = agree(&response(CLIENT_VERSION, action)).expect_err("refused");
        let expected = "SessionType failed on client with status 3 error: not here";
        assert!(text.ends_with(expected), "{text}");
    }
}
