//! The envelope of everything on a data channel: a big-endian header of 120 bytes and a payload.

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 120;

/// What the HeaderLength field says: it does not count the PayloadLength field behind it.
const HEADER_LENGTH_FIELD: u32 = 116;

/// Bytes of the MessageType field, padded with spaces.
const MESSAGE_TYPE_BYTES: usize = 32;

/// Flag bit of the first message of a direction.
pub const FLAG_SYN: u64 = 1;

/// Flags of acknowledgements and of the agent's session state: SYN and FIN.
pub const FLAGS_CONTROL: u64 = 3;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Data from the client to the agent.
    InputStreamData,
    /// Data from the agent to the client.
    OutputStreamData,
    /// One data message has arrived.
    Acknowledge,
    /// The session is over.
    ChannelClosed,
    /// The other side's websocket is away.
    PausePublication,
    /// The other side's websocket is back.
    StartPublication,
    /// The agent tells the gateway that it is there.
    AgentSessionState,
    /// Control channel: start a session.
    InteractiveShell,
    /// Control channel: a session has ended at the agent.
    AgentTaskComplete,
    /// Control channel: the gateway has taken note of that.
    AgentTaskAcknowledge,
}

impl MessageType {
    const ALL: [Self; 10] = [
        Self::InputStreamData,
        Self::OutputStreamData,
        Self::Acknowledge,
        Self::ChannelClosed,
        Self::PausePublication,
        Self::StartPublication,
        Self::AgentSessionState,
        Self::InteractiveShell,
        Self::AgentTaskComplete,
        Self::AgentTaskAcknowledge,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InputStreamData => "input_stream_data",
            Self::OutputStreamData => "output_stream_data",
            Self::Acknowledge => "acknowledge",
            Self::ChannelClosed => "channel_closed",
            Self::PausePublication => "pause_publication",
            Self::StartPublication => "start_publication",
            Self::AgentSessionState => "agent_session_state",
            Self::InteractiveShell => "interactive_shell",
            Self::AgentTaskComplete => "agent_task_complete",
            Self::AgentTaskAcknowledge => "agent_task_acknowledge",
        }
    }

    fn from_field(field: &[u8]) -> Option<Self> {
        let padding = |b: &u8| *b == 0 || b.is_ascii_whitespace();
        let start = field.iter().position(|b| !padding(b))?;
        let end = field.iter().rposition(|b| !padding(b))?;
        let name = field.get(start..=end)?;
        Self::ALL
            .into_iter()
            .find(|t| t.as_str().as_bytes() == name)
    }
}

/// What the payload of a data message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadType {
    /// Control messages carry 0.
    None,
    /// User bytes, in both directions.
    Output,
    /// Text of an error.
    Error,
    /// Size of a terminal.
    Size,
    /// A parameter.
    Parameter,
    /// JSON [`super::handshake::HandshakeRequest`].
    HandshakeRequest,
    /// JSON [`super::handshake::HandshakeResponse`].
    HandshakeResponse,
    /// JSON [`super::handshake::HandshakeComplete`].
    HandshakeComplete,
    /// Challenge of an encrypted session.
    EncChallengeRequest,
    /// Answer to it.
    EncChallengeResponse,
    /// A [`super::payload::Flag`].
    Flag,
    /// Standard error of a command.
    StdErr,
    /// Exit code of a command.
    ExitCode,
    /// A type that we do not know.
    Other(u32),
}

impl PayloadType {
    /// The number on the wire.
    #[must_use]
    pub fn to_u32(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Output => 1,
            Self::Error => 2,
            Self::Size => 3,
            Self::Parameter => 4,
            Self::HandshakeRequest => 5,
            Self::HandshakeResponse => 6,
            Self::HandshakeComplete => 7,
            Self::EncChallengeRequest => 8,
            Self::EncChallengeResponse => 9,
            Self::Flag => 10,
            Self::StdErr => 11,
            Self::ExitCode => 12,
            Self::Other(number) => number,
        }
    }

    /// The type with that number.
    #[must_use]
    pub fn from_u32(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Output,
            2 => Self::Error,
            3 => Self::Size,
            4 => Self::Parameter,
            5 => Self::HandshakeRequest,
            6 => Self::HandshakeResponse,
            7 => Self::HandshakeComplete,
            8 => Self::EncChallengeRequest,
            9 => Self::EncChallengeResponse,
            10 => Self::Flag,
            11 => Self::StdErr,
            12 => Self::ExitCode,
            other => Self::Other(other),
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is for.
    pub message_type: MessageType,
    /// When it was made, milliseconds since the Unix epoch; never 0, which receivers reject.
    pub created_ms: u64,
    /// Number in its direction for data, 0 for all else.
    pub sequence: i64,
    /// Bit 0 SYN, bit 1 FIN; nobody reads them.
    pub flags: u64,
    /// Identifies the message in its acknowledgement.
    pub message_id: Uuid,
    /// What the payload is; meaningful for data only.
    pub payload_type: PayloadType,
    /// The payload.
    pub payload: Bytes,
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than the header says it is.
    #[error("message is cut short")]
    Truncated,
    /// HeaderLength leaves no room for the fields that every message has.
    #[error("message has a header of a length that no version uses")]
    HeaderLength,
    /// PayloadLength is not that of what follows the header.
    #[error("message lies about the length of its payload")]
    PayloadLength,
    /// A type that we do not know; receivers ignore such messages.
    #[error("message is of an unknown type")]
    UnknownType,
    /// CreatedDate is zero.
    #[error("message has no creation date")]
    NoDate,
    /// The digest does not match the payload.
    #[error("message's payload does not match its digest")]
    Digest,
}

impl Message {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let payload_bytes = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.payload.len());
        out.put_u32(HEADER_LENGTH_FIELD);
        let name = self.message_type.as_str().as_bytes();
        out.put_slice(name);
        out.put_bytes(b' ', MESSAGE_TYPE_BYTES.saturating_sub(name.len()));
        out.put_u32(1);
        out.put_u64(self.created_ms);
        out.put_i64(self.sequence);
        out.put_u64(self.flags);
        let (high, low) = self.message_id.as_u64_pair();
        out.put_u64(low);
        out.put_u64(high);
        out.put_slice(&Sha256::digest(&self.payload));
        out.put_u32(self.payload_type.to_u32());
        out.put_u32(payload_bytes);
        out.put_slice(&self.payload);
        out.freeze()
    }

    /// Reads one message; the payload shares the memory of `bytes`.
    ///
    /// As the real peers do, it takes all that follows the header for the payload. That PayloadLength says the same is
    /// checked where the header is as long as ours: in a longer one nobody knows where it is. The digest is checked
    /// except where the real peers leave it out, and so is the length.
    ///
    /// # Errors
    /// [`MessageError::UnknownType`] is for messages to ignore; all others are of a peer that is broken.
    pub fn decode(bytes: &Bytes) -> Result<Self, MessageError> {
        let header_length = u32::from_be_bytes(field(bytes, 0)?) as usize;
        if header_length < HEADER_LENGTH_FIELD as usize {
            return Err(MessageError::HeaderLength);
        }
        let payload_start = header_length
            .checked_add(4)
            .ok_or(MessageError::HeaderLength)?;
        if bytes.len() < payload_start {
            return Err(MessageError::Truncated);
        }
        let name: [u8; MESSAGE_TYPE_BYTES] = field(bytes, 4)?;
        let message_type = MessageType::from_field(&name).ok_or(MessageError::UnknownType)?;
        let created_ms = u64::from_be_bytes(field(bytes, 40)?);
        if created_ms == 0 {
            return Err(MessageError::NoDate);
        }
        let low = u64::from_be_bytes(field(bytes, 64)?);
        let high = u64::from_be_bytes(field(bytes, 72)?);
        let digest: [u8; 32] = field(bytes, 80)?;
        let payload = unpinned(bytes.slice(payload_start..), bytes.len());
        let digested = !matches!(
            message_type,
            MessageType::StartPublication | MessageType::PausePublication
        );
        let claimed_bytes = u32::from_be_bytes(field(bytes, 116)?) as usize;
        let usual_header = header_length == HEADER_LENGTH_FIELD as usize;
        if digested && usual_header && claimed_bytes != payload.len() {
            return Err(MessageError::PayloadLength);
        }
        // A message that was to have a payload and lost all of it is as broken as one that lost a part.
        let empty = payload.is_empty() && claimed_bytes == 0;
        if digested && !empty && Sha256::digest(&payload).as_slice() != digest {
            return Err(MessageError::Digest);
        }
        Ok(Self {
            message_type,
            created_ms,
            sequence: i64::from_be_bytes(field(bytes, 48)?),
            flags: u64::from_be_bytes(field(bytes, 56)?),
            message_id: Uuid::from_u64_pair(high, low),
            payload_type: PayloadType::from_u32(u32::from_be_bytes(field(bytes, 112)?)),
            payload,
        })
    }
}

/// `part` of a buffer of `whole_bytes`, which it keeps in memory only where it is most of it: a far end that sends a
/// byte in a large message would otherwise fill the memory and stay within every budget.
fn unpinned(part: Bytes, whole_bytes: usize) -> Bytes {
    if part.len() < whole_bytes / 2 {
        Bytes::copy_from_slice(&part)
    } else {
        part
    }
}

/// The `N` bytes at `offset`.
fn field<const N: usize>(bytes: &Bytes, offset: usize) -> Result<[u8; N], MessageError> {
    bytes
        .get(offset..offset + N)
        .and_then(|slice| slice.try_into().ok())
        .ok_or(MessageError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        (
            proptest::sample::select(MessageType::ALL.to_vec()),
            1..=u64::MAX,
            any::<i64>(),
            any::<u64>(),
            any::<u128>(),
            any::<u32>(),
            vec(any::<u8>(), 0..2048),
        )
            .prop_map(
                |(message_type, created_ms, sequence, flags, id, payload_type, payload)| Message {
                    message_type,
                    created_ms,
                    sequence,
                    flags,
                    message_id: Uuid::from_u128(id),
                    payload_type: PayloadType::from_u32(payload_type),
                    payload: payload.into(),
                },
            )
    }

    proptest! {
        #[test]
        fn a_payload_type_keeps_its_number(number in any::<u32>()) {
            prop_assert_eq!(PayloadType::from_u32(number).to_u32(), number);
        }

        #[test]
        fn a_message_is_read_as_it_was_written(message in message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_are_refused_and_never_a_panic(bytes in vec(any::<u8>(), 0..512)) {
            prop_assert!(Message::decode(&bytes.into()).is_err());
        }

        #[test]
        fn a_damaged_message_never_panics(
            message in message(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = message.encode().to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            // Its payload, if it has one still, is the end of what came.
            if let Ok(read) = Message::decode(&bytes.clone().into()) {
                prop_assert!(bytes.ends_with(&read.payload));
            }
        }
    }
}
