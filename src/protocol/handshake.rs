//! The handshake of port sessions, the text frame that opens a data channel, and what versions mean.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version that we advertise: four numeric parts, at least 1.2.764.0, so that agents use the multiplexer
/// without keepalive.
pub const CLIENT_VERSION: &str = "1.2.764.0";

/// The one text frame that a client sends when its websocket is open. There is no answer.
///
/// It holds the token, hence no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenDataChannel {
    /// `1.0`.
    pub message_schema_version: String,
    /// Fresh for each websocket.
    pub request_id: Uuid,
    /// The token: a secret.
    pub token_value: String,
    /// Fixed for the life of the process.
    pub client_id: Uuid,
    /// [`CLIENT_VERSION`].
    pub client_version: String,
}

impl OpenDataChannel {
    /// The frame for one websocket.
    #[must_use]
    pub fn new(request_id: Uuid, client_id: Uuid, token: &str) -> Self {
        Self {
            message_schema_version: "1.0".to_owned(),
            request_id,
            token_value: token.to_owned(),
            client_id,
            client_version: CLIENT_VERSION.to_owned(),
        }
    }
}

/// What the agent asks of the client before data may flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeRequest {
    /// Version of the agent, four numeric parts.
    pub agent_version: String,
    /// What the client has to do, SessionType first.
    pub requested_client_actions: Vec<RequestedAction>,
}

/// One thing that the agent asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestedAction {
    /// `SessionType` or `KMSEncryption`.
    pub action_type: String,
    /// Depends on the type.
    #[serde(default)]
    pub action_parameters: serde_json::Value,
}

/// `ActionParameters` of a `SessionType` action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SessionTypeParameters {
    /// `Port`, `Standard_Stream`, `InteractiveCommands` or `NonInteractiveCommands`.
    pub session_type: String,
    /// Only `Port` passes them.
    #[serde(default)]
    pub properties: Option<serde_json::Value>,
}

/// The client's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeResponse {
    /// [`CLIENT_VERSION`].
    pub client_version: String,
    /// One result for each action.
    pub processed_client_actions: Vec<ProcessedAction>,
    /// Null when there are none.
    pub errors: Option<Vec<String>>,
}

/// The result of one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessedAction {
    /// As requested.
    pub action_type: String,
    /// 1 success, 2 failed, 3 unsupported; anything but 1 makes the agent fail the session.
    pub action_status: u32,
    /// Null for `SessionType`.
    pub action_result: serde_json::Value,
    /// Empty on success.
    pub error: String,
}

impl ProcessedAction {
    /// The action was carried out.
    #[must_use]
    pub fn success(action_type: &str) -> Self {
        Self::with(action_type, 1, String::new())
    }

    /// The action is one that we do not support.
    #[must_use]
    pub fn unsupported(action_type: &str, error: String) -> Self {
        Self::with(action_type, 3, error)
    }

    fn with(action_type: &str, action_status: u32, error: String) -> Self {
        let action_type = action_type.to_owned();
        Self {
            action_type,
            action_status,
            action_result: serde_json::Value::Null,
            error,
        }
    }
}

/// The agent's last word of the handshake: now data may flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HandshakeComplete {
    /// Nanoseconds.
    pub handshake_time_to_complete: i64,
    /// For the user; may be empty.
    pub customer_message: String,
}

/// A version of four numeric parts; compared part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 4]);

impl Version {
    /// Agents up to this one do not speak the multiplexer.
    pub const LAST_WITHOUT_MUX: Self = Self([3, 0, 196, 0]);
    /// Agents up to this one close an idle multiplexer unless they hear keepalives.
    pub const LAST_WITH_KEEPALIVE: Self = Self([3, 1, 1511, 0]);

    /// Reads `a.b.c.d`; `None` for another number of parts and for anything but digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| {
            part.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| part.parse::<u32>().ok())
                .flatten()
        });
        let version = [
            parts.next()??,
            parts.next()??,
            parts.next()??,
            parts.next()??,
        ];
        parts.next().is_none().then_some(Self(version))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_version_is_compared_as_its_four_numbers(a in any::<[u32; 4]>(), b in any::<[u32; 4]>()) {
            let version = |[w, x, y, z]: [u32; 4]| Version::parse(&format!("{w}.{x}.{y}.{z}"));
            prop_assert_eq!(version(a), Some(Version(a)));
            prop_assert_eq!(version(a).cmp(&version(b)), a.cmp(&b));
        }

        #[test]
        fn arbitrary_text_is_a_version_only_with_four_numbers(text in "[0-9.+ -]{0,24}|.*") {
            let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
            let four = numbers.is_some_and(|parts| parts.len() == 4) && !text.contains('+');
            prop_assert_eq!(Version::parse(&text).is_some(), four);
        }

        #[test]
        fn a_handshake_is_read_as_it_was_written(
            version in ".*", action in ".*", error in ".*", nanoseconds in any::<i64>(),
        ) {
            let request = HandshakeRequest {
                agent_version: version.clone(),
                requested_client_actions: vec![RequestedAction {
                    action_type: action.clone(),
                    action_parameters: serde_json::json!({ "SessionType": &error }),
                }],
            };
            let response = HandshakeResponse {
                client_version: version.clone(),
                processed_client_actions: vec![ProcessedAction::unsupported(&action, error.clone())],
                errors: Some(vec![error]),
            };
            let complete = HandshakeComplete {
                handshake_time_to_complete: nanoseconds,
                customer_message: version,
            };
            let json = serde_json::to_vec(&request).expect("plain data");
            prop_assert_eq!(serde_json::from_slice::<HandshakeRequest>(&json).ok(), Some(request));
            let json = serde_json::to_vec(&response).expect("plain data");
            prop_assert_eq!(serde_json::from_slice::<HandshakeResponse>(&json).ok(), Some(response));
            let json = serde_json::to_vec(&complete).expect("plain data");
            prop_assert_eq!(serde_json::from_slice::<HandshakeComplete>(&json).ok(), Some(complete));
        }
    }
}
