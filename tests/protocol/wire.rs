//! The agent's own reading and writing of messages and multiplexer frames, by offsets, so that a
//! misreading in our codecs finds no friend here.

use sha2::{Digest, Sha256};

pub const OUTPUT: u32 = 1;
pub const HANDSHAKE_REQUEST: u32 = 5;
pub const HANDSHAKE_RESPONSE: u32 = 6;
pub const HANDSHAKE_COMPLETE: u32 = 7;
pub const FLAG: u32 = 10;

pub const SYN: u8 = 0;
pub const FIN: u8 = 1;
pub const PSH: u8 = 2;
pub const NOP: u8 = 3;

/// A message as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    pub sequence: i64,
    pub flags: u64,
    /// The id as text, halves put back into order.
    pub id: String,
    pub payload_type: u32,
    pub payload: Vec<u8>,
}

fn number<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    frame[at..at + N].try_into().expect("N bytes")
}

/// Reads a message of the client, and holds it to all that a client has to write.
pub fn read(frame: &[u8]) -> Seen {
    assert_eq!(u32::from_be_bytes(number(frame, 0)), 116, "HeaderLength");
    assert_eq!(u32::from_be_bytes(number(frame, 36)), 1, "SchemaVersion");
    assert_ne!(u64::from_be_bytes(number(frame, 40)), 0, "CreatedDate");
    let payload = frame[120..].to_vec();
    assert!(
        !payload.is_empty(),
        "real serializers have no empty payloads"
    );
    assert_eq!(
        u32::from_be_bytes(number(frame, 116)) as usize,
        payload.len()
    );
    assert_eq!(
        Sha256::digest(&payload).as_slice(),
        &frame[80..112],
        "PayloadDigest"
    );
    let name = std::str::from_utf8(&frame[4..36])
        .expect("ASCII")
        .trim_end_matches(' ');
    let hex: String = [&frame[72..80], &frame[64..72]]
        .concat()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let id = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-");
    Seen {
        name: name.to_owned(),
        sequence: i64::from_be_bytes(number(frame, 48)),
        flags: u64::from_be_bytes(number(frame, 56)),
        id,
        payload_type: u32::from_be_bytes(number(frame, 112)),
        payload,
    }
}

/// Writes a message; its id is made of `salt`.
pub fn write(name: &str, sequence: i64, payload_type: u32, salt: u64, payload: &[u8]) -> Vec<u8> {
    let flags: u64 = match name {
        "output_stream_data" => u64::from(sequence == 0),
        _ => 3,
    };
    let mut frame = 116_u32.to_be_bytes().to_vec();
    frame.extend(format!("{name:<32}").as_bytes());
    frame.extend(1_u32.to_be_bytes());
    frame.extend(1_700_000_000_000_u64.to_be_bytes());
    frame.extend(sequence.to_be_bytes());
    frame.extend(flags.to_be_bytes());
    frame.extend(salt.to_be_bytes());
    frame.extend((!salt).to_be_bytes());
    frame.extend(Sha256::digest(payload));
    frame.extend(payload_type.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).expect("short").to_be_bytes());
    frame.extend(payload);
    frame
}

/// The acknowledgement of a message of the client.
pub fn write_acknowledgement(seen: &Seen, salt: u64) -> Vec<u8> {
    let json = format!(
        "{{\"AcknowledgedMessageType\":\"{}\",\"AcknowledgedMessageId\":\"{}\",\
         \"AcknowledgedMessageSequenceNumber\":{},\"IsSequentialMessage\":true}}",
        seen.name, seen.id, seen.sequence
    );
    write("acknowledge", 0, 0, salt, json.as_bytes())
}

/// A frame of the multiplexer.
pub fn frame(command: u8, stream: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a frame is short");
    let mut frame = vec![1, command];
    frame.extend(length.to_le_bytes());
    frame.extend(stream.to_le_bytes());
    frame.extend(data);
    frame
}

/// Takes one whole frame from the front of the run: command, stream, data.
pub fn take_frame(run: &mut Vec<u8>) -> Option<(u8, u32, Vec<u8>)> {
    let header: [u8; 8] = run.get(..8)?.try_into().ok()?;
    assert_eq!(header[0], 1, "version of the multiplexer");
    let length = usize::from(u16::from_le_bytes([header[2], header[3]]));
    let data = run.get(8..8 + length)?.to_vec();
    run.drain(..8 + length);
    let stream = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    Some((header[1], stream, data))
}
