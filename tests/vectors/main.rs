//! The codecs against bytes and texts written by hand, field by field, from the description of the
//! protocol: never from what our own encoder gives. Digests are those that `sha256sum` prints.

mod handshake;
mod message;
mod mux;
mod payload;

use uuid::{Uuid, uuid};

const ID: Uuid = uuid!("00112233-4455-6677-8899-aabbccddeeff");

/// The JSON of an acknowledgement of message 7, 176 bytes.
const ACK_JSON: &[u8] = br#"{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":"00112233-4455-6677-8899-aabbccddeeff","AcknowledgedMessageSequenceNumber":7,"IsSequentialMessage":true}"#;
