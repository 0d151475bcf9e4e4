//! The envelope: a header of 120 bytes, written byte by byte, and a payload.

use bytes::Bytes;
use ssm_session_operator::protocol::message::{Message, MessageError, MessageType, PayloadType};
use uuid::uuid;

use crate::{ACK_JSON, ID};

/// Epoch milliseconds 1,700,000,000,000.
const CREATED: &[u8] = b"\x00\x00\x01\x8b\xcf\xe5\x68\x00";

/// [`ID`] in a header: its second half comes first.
const ID_FIELD: &[u8] = b"\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x00\x11\x22\x33\x44\x55\x66\x77";

/// `printf abc | sha256sum`
const DIGEST_ABC: &[u8] = b"\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23\
    \xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad";

/// `printf hello | sha256sum`
const DIGEST_HELLO: &[u8] = b"\x2c\xf2\x4d\xba\x5f\xb0\xa3\x0e\x26\xe8\x3b\x2a\xc5\xb9\xe2\x9e\
    \x1b\x16\x1e\x5c\x1f\xa7\x42\x5e\x73\x04\x33\x62\x93\x8b\x98\x24";

/// `sha256sum` of [`ACK_JSON`].
const DIGEST_ACK: &[u8] = b"\x62\xd5\x7c\xa2\xdf\xb7\xaa\x0e\xee\x6a\x8e\x12\x49\x1c\x3e\x9f\
    \xef\xfd\x16\x6f\x2b\x0f\x36\xb9\x6e\xba\x41\x86\x66\x69\xe8\x54";

/// The first message of a client's bytes: sequence number 0, SYN, payload `abc`.
fn input_abc() -> Vec<u8> {
    [
        &b"\x00\x00\x00\x74"[..],            //   0 HeaderLength 116
        b"input_stream_data               ", //   4 MessageType
        b"\x00\x00\x00\x01",                 //  36 SchemaVersion
        CREATED,                             //  40 CreatedDate
        b"\x00\x00\x00\x00\x00\x00\x00\x00", //  48 SequenceNumber
        b"\x00\x00\x00\x00\x00\x00\x00\x01", //  56 Flags: SYN
        ID_FIELD,                            //  64 MessageId
        DIGEST_ABC,                          //  80 PayloadDigest
        b"\x00\x00\x00\x01",                 // 112 PayloadType: Output
        b"\x00\x00\x00\x03",                 // 116 PayloadLength
        b"abc",                              // 120
    ]
    .concat()
}

/// A later message of an agent, with the padding and the digest that the test wants: payload
/// `hello`, sequence number 258.
fn output_hello(message_type: &[u8; 32], digest: &[u8]) -> Bytes {
    [
        &b"\x00\x00\x00\x74"[..],
        message_type,
        b"\x00\x00\x00\x01",
        CREATED,
        b"\x00\x00\x00\x00\x00\x00\x01\x02",
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        ID_FIELD,
        digest,
        b"\x00\x00\x00\x01",
        b"\x00\x00\x00\x05",
        b"hello",
    ]
    .concat()
    .into()
}

fn message_hello(message_type: MessageType) -> Message {
    Message {
        message_type,
        created_ms: 1_700_000_000_000,
        sequence: 258,
        flags: 0,
        message_id: ID,
        payload_type: PayloadType::Output,
        payload: Bytes::from_static(b"hello"),
    }
}

fn decode(bytes: impl Into<Bytes>) -> Result<Message, MessageError> {
    Message::decode(&bytes.into())
}

#[test]
fn an_acknowledgement_is_this_message() {
    let vector = [
        &b"\x00\x00\x00\x74"[..],
        b"acknowledge                     ",
        b"\x00\x00\x00\x01",
        CREATED,
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x00\x00\x00\x00\x03", // SYN and FIN
        b"\x7f\x88\x99\xaa\xbb\xcc\xdd\xee\xfe\xed\xfa\xce\xca\xfe\x4b\xad",
        DIGEST_ACK,
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\xb0", // 176
        ACK_JSON,
    ]
    .concat();
    let message = Message {
        message_type: MessageType::Acknowledge,
        created_ms: 1_700_000_000_000,
        sequence: 0,
        flags: 3,
        message_id: uuid!("feedface-cafe-4bad-7f88-99aabbccddee"),
        payload_type: PayloadType::None,
        payload: Bytes::from_static(ACK_JSON),
    };
    assert_eq!(message.encode(), vector);
    assert_eq!(decode(vector), Ok(message));
}

#[test]
fn the_first_data_message_of_a_client_is_this_message() {
    let message = Message {
        message_type: MessageType::InputStreamData,
        created_ms: 1_700_000_000_000,
        sequence: 0,
        flags: 1,
        message_id: ID,
        payload_type: PayloadType::Output,
        payload: Bytes::from_static(b"abc"),
    };
    assert_eq!(message.encode(), input_abc());
    assert_eq!(decode(input_abc()), Ok(message));
}

#[test]
fn a_message_type_may_be_padded_with_spaces_or_nuls_on_both_sides() {
    let message = message_hello(MessageType::OutputStreamData);
    let sent = output_hello(b"output_stream_data              ", DIGEST_HELLO);
    assert_eq!(message.encode(), sent);
    for padded in [
        b"output_stream_data              ",
        b"output_stream_data\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\0\0output_stream_data \0 \0 \0\t\n   \0",
        b"              output_stream_data",
    ] {
        let decoded = decode(output_hello(padded, DIGEST_HELLO));
        assert_eq!(decoded.as_ref(), Ok(&message), "{padded:?}");
    }
}

#[test]
fn each_message_type_has_its_name() {
    let names: [(MessageType, &[u8; 32]); 10] = [
        (
            MessageType::InputStreamData,
            b"input_stream_data               ",
        ),
        (
            MessageType::OutputStreamData,
            b"output_stream_data              ",
        ),
        (
            MessageType::Acknowledge,
            b"acknowledge                     ",
        ),
        (
            MessageType::ChannelClosed,
            b"channel_closed                  ",
        ),
        (
            MessageType::PausePublication,
            b"pause_publication               ",
        ),
        (
            MessageType::StartPublication,
            b"start_publication               ",
        ),
        (
            MessageType::AgentSessionState,
            b"agent_session_state             ",
        ),
        (
            MessageType::InteractiveShell,
            b"interactive_shell               ",
        ),
        (
            MessageType::AgentTaskComplete,
            b"agent_task_complete             ",
        ),
        (
            MessageType::AgentTaskAcknowledge,
            b"agent_task_acknowledge          ",
        ),
    ];
    for (message_type, name) in names {
        let vector = output_hello(name, DIGEST_HELLO);
        let message = message_hello(message_type);
        assert_eq!(message.encode(), vector);
        assert_eq!(decode(vector), Ok(message));
    }
}

#[test]
fn a_message_of_an_unknown_type_is_told_from_a_broken_one() {
    for name in [
        b"output_stream_dat               ",
        b"output_stream_data2             ",
        b"OUTPUT_STREAM_DATA              ",
        b"output_ stream_data             ",
        b"\xff\xfe\xfd                             ",
        b"                                ",
        &[0; 32],
    ] {
        let decoded = decode(output_hello(name, DIGEST_HELLO));
        assert_eq!(decoded, Err(MessageError::UnknownType), "{name:?}");
    }
}

#[test]
fn a_wrong_digest_is_refused_but_on_pause_and_start() {
    for name in [
        b"output_stream_data              ",
        b"acknowledge                     ",
        b"channel_closed                  ",
    ] {
        let decoded = decode(output_hello(name, DIGEST_ABC));
        assert_eq!(decoded, Err(MessageError::Digest), "{name:?}");
    }
    for (message_type, name) in [
        (
            MessageType::PausePublication,
            b"pause_publication               ",
        ),
        (
            MessageType::StartPublication,
            b"start_publication               ",
        ),
    ] {
        let decoded = decode(output_hello(name, DIGEST_ABC));
        assert_eq!(decoded, Ok(message_hello(message_type)));
    }
}

#[test]
fn a_message_without_a_payload_needs_no_digest() {
    let mut vector = input_abc();
    vector.truncate(120);
    vector[80..112].fill(0);
    vector[116..120].fill(0);
    assert_eq!(
        decode(vector.clone()).map(|message| message.payload),
        Ok(Bytes::new())
    );
    // But one that has lost its payload is broken.
    vector[119] = 3;
    assert_eq!(decode(vector), Err(MessageError::PayloadLength));
}

#[test]
fn a_payload_length_that_lies_is_refused_but_on_pause_and_start() {
    for length in [0, 2, 4, u32::MAX] {
        let mut vector = input_abc();
        vector[116..120].copy_from_slice(&length.to_be_bytes());
        let decoded = decode(vector);
        assert_eq!(decoded, Err(MessageError::PayloadLength), "{length}");
    }
    let mut vector = output_hello(b"pause_publication               ", DIGEST_HELLO).to_vec();
    vector[116..120].copy_from_slice(&[0; 4]);
    assert_eq!(
        decode(vector),
        Ok(message_hello(MessageType::PausePublication))
    );
}

#[test]
fn a_creation_date_of_zero_is_refused() {
    let mut vector = input_abc();
    vector[40..48].fill(0);
    assert_eq!(decode(vector), Err(MessageError::NoDate));
}

#[test]
fn a_message_that_ends_inside_its_header_is_cut_short() {
    let vector = input_abc();
    for bytes in 0..120 {
        let decoded = decode(vector[..bytes].to_vec());
        assert_eq!(decoded, Err(MessageError::Truncated), "{bytes} bytes");
    }
}

#[test]
fn a_header_length_beyond_the_message_or_too_short_is_refused() {
    for (length, error) in [
        (u32::MAX, MessageError::Truncated),
        (120, MessageError::Truncated), // the payload would start one byte behind the end
        (115, MessageError::HeaderLength),
        (0, MessageError::HeaderLength),
    ] {
        let mut vector = input_abc();
        vector[..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(decode(vector), Err(error), "HeaderLength {length}");
    }
}

#[test]
fn a_longer_header_moves_the_payload_and_its_payload_length_is_not_believed() {
    let mut vector = input_abc();
    vector[..4].copy_from_slice(b"\x00\x00\x00\x77"); // 119: the payload starts at 123
    vector.splice(120..120, *b"new");
    vector[116..120].copy_from_slice(b"\xff\xff\xff\xff");
    let message = decode(vector).expect("both real peers read such a message");
    assert_eq!(message.payload, "abc");
    assert_eq!(message.payload_type, PayloadType::Output);
}

#[test]
fn a_negative_sequence_number_is_read_as_such() {
    let mut vector = input_abc();
    vector[48..56].fill(0xff);
    assert_eq!(decode(vector).map(|message| message.sequence), Ok(-1));
}
