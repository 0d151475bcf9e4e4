//! Frames of the multiplexer.

use ssm_session_operator::protocol::mux::frame::{Command, FrameError, Header};

#[test]
fn a_frame_of_the_multiplexer_is_little_endian() {
    for (vector, command, length, stream) in [
        (b"\x01\x00\x00\x00\x03\x00\x00\x00", Command::Syn, 0, 3),
        (b"\x01\x01\x00\x00\x05\x00\x00\x00", Command::Fin, 0, 5),
        (b"\x01\x02\xf0\x03\x03\x00\x00\x00", Command::Push, 1008, 3),
        (
            b"\x01\x02\xff\xff\x04\x03\x02\x01",
            Command::Push,
            65_535,
            0x0102_0304,
        ),
        (b"\x01\x03\x00\x00\x00\x00\x00\x00", Command::Nop, 0, 0),
    ] {
        let header = Header {
            command,
            length,
            stream,
        };
        assert_eq!(&header.encode(), vector);
        assert_eq!(Header::decode(*vector), Ok(header));
    }
}

#[test]
fn a_frame_of_another_version_or_with_an_unknown_command_is_refused() {
    let decoded = Header::decode(*b"\x02\x02\x01\x00\x03\x00\x00\x00");
    assert_eq!(decoded, Err(FrameError::Version(2)));
    // UPD, which only version 2 has.
    let decoded = Header::decode(*b"\x01\x04\x08\x00\x03\x00\x00\x00");
    assert_eq!(decoded, Err(FrameError::Command(4)));
}
