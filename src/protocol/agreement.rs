//! Whether what the agent asks for in its handshake is a session that we can carry.

use super::handshake::{HandshakeRequest, SessionTypeParameters, Version};
use crate::words::plain;

/// Characters of a word of the agent's that are repeated to people.
pub(super) const WORD_CHARS_MAX: usize = 64;

/// Whether the agent asks for a port session with the multiplexer and nothing more; its version, or why not.
pub(super) fn check_request(request: &HandshakeRequest) -> Result<Version, String> {
    let Some(version) = Version::parse(&request.agent_version) else {
        return Err(format!(
            "the agent's version {:?} can't be read",
            cut(&request.agent_version, WORD_CHARS_MAX)
        ));
    };
    let mut port_session = false;
    for action in &request.requested_client_actions {
        if action.action_type != "SessionType" {
            return Err(format!(
                "the agent asks for {:?}",
                cut(&action.action_type, WORD_CHARS_MAX)
            ));
        }
        let parameters: SessionTypeParameters =
            serde_json::from_value(action.action_parameters.clone())
                .map_err(|error| format!("the agent's session type can't be read: {error}"))?;
        let properties = parameters.properties.unwrap_or_default();
        let kind = properties
            .get("type")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        if parameters.session_type != "Port" {
            let what = cut(&parameters.session_type, WORD_CHARS_MAX);
            return Err(format!(
                "the document starts a session of type {what:?}, not Port"
            ));
        }
        if kind != "LocalPortForwarding" {
            let what = "the document starts a port session without the multiplexer";
            return Err(format!(
                "{what} (its type is {:?})",
                cut(kind, WORD_CHARS_MAX)
            ));
        }
        port_session = true;
    }
    if !port_session {
        return Err("the agent names no session type".to_owned());
    }
    if version <= Version::LAST_WITHOUT_MUX {
        let what = cut(&request.agent_version, WORD_CHARS_MAX);
        return Err(format!(
            "the agent's version {what} is too old for the multiplexer: update it"
        ));
    }
    Ok(version)
}

/// Words of the far end, trimmed, on one line, and at a length that fits a message for people.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    plain(text).trim().chars().take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_of_the_far_end_are_short_and_on_one_line(text in any::<String>(), chars_max in 0..50_usize) {
            let cut = cut(&text, chars_max);
            prop_assert!(cut.chars().count() <= chars_max);
            prop_assert!(!cut.chars().any(char::is_control));
        }
    }
}
