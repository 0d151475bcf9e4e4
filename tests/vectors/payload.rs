//! Payloads: numbers of types, flags, acknowledgements, the gateway's last word.

use ssm_session_operator::protocol::message::{MessageType, PayloadType};
use ssm_session_operator::protocol::payload::{Acknowledgement, ChannelClosed, Flag};

use crate::{ACK_JSON, ID};

#[test]
fn payload_types_have_their_numbers() {
    let types = [
        PayloadType::None,
        PayloadType::Output,
        PayloadType::Error,
        PayloadType::Size,
        PayloadType::Parameter,
        PayloadType::HandshakeRequest,
        PayloadType::HandshakeResponse,
        PayloadType::HandshakeComplete,
        PayloadType::EncChallengeRequest,
        PayloadType::EncChallengeResponse,
        PayloadType::Flag,
        PayloadType::StdErr,
        PayloadType::ExitCode,
        PayloadType::Other(13),
    ];
    for (number, payload_type) in (0..).zip(types) {
        assert_eq!(payload_type.to_u32(), number);
        assert_eq!(PayloadType::from_u32(number), payload_type);
    }
}

#[test]
fn flags_are_four_bytes_big_endian() {
    for (flag, vector) in [
        (Flag::DisconnectToPort, b"\x00\x00\x00\x01"),
        (Flag::TerminateSession, b"\x00\x00\x00\x02"),
        (Flag::ConnectToPortError, b"\x00\x00\x00\x03"),
    ] {
        assert_eq!(&flag.encode(), vector);
        assert_eq!(Flag::decode(vector), Some(flag));
    }
    for other in [
        &b"\x00\x00\x00\x00"[..],
        b"\x03\x00\x00\x00",
        b"\x03",
        b"\x00\x00\x00\x00\x03",
        b"",
    ] {
        assert_eq!(Flag::decode(other), None, "{other:?}");
    }
}

#[test]
fn an_acknowledgement_is_this_json() {
    let ack = Acknowledgement::of(MessageType::OutputStreamData, ID, 7);
    assert_eq!(
        serde_json::to_vec(&ack).expect("it is plain data"),
        ACK_JSON
    );
    let read: Acknowledgement = serde_json::from_slice(ACK_JSON).expect("it is what peers send");
    assert_eq!(read, ack);
}

#[test]
fn channel_closed_is_this_json() {
    let text = r#"{"MessageType":"channel_closed","MessageId":"00112233-4455-6677-8899-aabbccddeeff","DestinationId":"i-0123","SessionId":"me-0abc","SchemaVersion":1,"CreatedDate":"2024-01-01T00:00:00.000Z","Output":"Forwarding to IP address 169.254.169.254 is forbidden."}"#;
    let closed = ChannelClosed {
        message_type: "channel_closed".to_owned(),
        message_id: "00112233-4455-6677-8899-aabbccddeeff".to_owned(),
        destination_id: "i-0123".to_owned(),
        session_id: "me-0abc".to_owned(),
        schema_version: 1,
        created_date: "2024-01-01T00:00:00.000Z".to_owned(),
        output: "Forwarding to IP address 169.254.169.254 is forbidden.".to_owned(),
    };
    assert_eq!(
        serde_json::to_string(&closed).expect("it is plain data"),
        text
    );
    assert_eq!(
        serde_json::from_str::<ChannelClosed>(text).expect("the same"),
        closed
    );
    let bare = r#"{"SessionId":"me-0abc","Unheard":[1]}"#;
    let closed: ChannelClosed = serde_json::from_str(bare).expect("fields may be missing");
    assert_eq!(
        (closed.session_id.as_str(), closed.output.as_str()),
        ("me-0abc", "")
    );
}
