//! Payloads of messages: flags, acknowledgements and the gateway's last word.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::message::MessageType;

/// Payload of a [`PayloadType::Flag`](super::message::PayloadType::Flag) message: four bytes, big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Without the multiplexer: the client's connection has closed.
    DisconnectToPort,
    /// The client ends the session.
    TerminateSession,
    /// The agent could not dial the destination; carries no stream id.
    ConnectToPortError,
}

impl Flag {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(self) -> [u8; 4] {
        let number: u32 = match self {
            Self::DisconnectToPort => 1,
            Self::TerminateSession => 2,
            Self::ConnectToPortError => 3,
        };
        number.to_be_bytes()
    }

    /// Reads a flag; `None` for any other length or number.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        match u32::from_be_bytes(payload.try_into().ok()?) {
            1 => Some(Self::DisconnectToPort),
            2 => Some(Self::TerminateSession),
            3 => Some(Self::ConnectToPortError),
            _ => None,
        }
    }
}

/// Payload of an acknowledgement: one data message has arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Acknowledgement {
    /// Name of the acknowledged message's type.
    pub acknowledged_message_type: String,
    /// Its id.
    pub acknowledged_message_id: Uuid,
    /// Its number: receivers match by this alone.
    pub acknowledged_message_sequence_number: i64,
    /// Always true.
    pub is_sequential_message: bool,
}

impl Acknowledgement {
    /// Acknowledges a data message.
    #[must_use]
    pub fn of(message_type: MessageType, message_id: Uuid, sequence: i64) -> Self {
        Self {
            acknowledged_message_type: message_type.as_str().to_owned(),
            acknowledged_message_id: message_id,
            acknowledged_message_sequence_number: sequence,
            is_sequential_message: true,
        }
    }
}

/// Payload of `channel_closed`: the session is over for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ChannelClosed {
    /// `channel_closed`.
    pub message_type: String,
    /// Id of this message.
    pub message_id: String,
    /// The target.
    pub destination_id: String,
    /// The session.
    pub session_id: String,
    /// 1.
    pub schema_version: u32,
    /// When.
    pub created_date: String,
    /// Why, in words for the user; may be empty.
    pub output: String,
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_flag_is_one_of_three_or_nothing(payload in vec(any::<u8>(), 0..8)) {
            if let Some(flag) = Flag::decode(&payload) {
                prop_assert_eq!(&flag.encode()[..], &payload[..]);
            }
        }

        #[test]
        fn an_acknowledgement_is_read_as_it_was_written(id in any::<u128>(), sequence in any::<i64>()) {
            let id = Uuid::from_u128(id);
            let ack = Acknowledgement::of(MessageType::InputStreamData, id, sequence);
            let json = serde_json::to_vec(&ack).expect("plain data");
            prop_assert_eq!(serde_json::from_slice::<Acknowledgement>(&json).ok(), Some(ack));
        }

        #[test]
        fn arbitrary_bytes_are_no_acknowledgement(payload in vec(any::<u8>(), 0..256)) {
            prop_assert!(serde_json::from_slice::<Acknowledgement>(&payload).is_err());
        }

        #[test]
        fn channel_closed_is_read_as_it_was_written(output in ".*", session_id in ".*") {
            let closed = ChannelClosed { session_id, output, ..ChannelClosed::default() };
            let json = serde_json::to_vec(&closed).expect("plain data");
            prop_assert_eq!(serde_json::from_slice::<ChannelClosed>(&json).ok(), Some(closed));
        }
    }
}
