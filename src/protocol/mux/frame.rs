//! Frames of the multiplexer: a header of eight bytes, and up to 65,535 bytes of data.

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// The only version that agents speak.
const VERSION: u8 = 1;

/// What a frame does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens a stream.
    Syn,
    /// Closes a stream, both ways.
    Fin,
    /// Carries data.
    Push,
    /// Keeps the session awake.
    Nop,
}

/// Identifies a stream; those of the client are odd, and the first is 3.
pub type StreamId = u32;

/// Header of a frame: version, command, length (little endian), stream (little endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame does.
    pub command: Command,
    /// Bytes of data behind the header.
    pub length: u16,
    /// The stream.
    pub stream: StreamId,
}

/// Why bytes are not a frame: fatal for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version than 1.
    #[error("multiplexer frame of version {0}, expected 1")]
    Version(u8),
    /// A command that version 1 does not have.
    #[error("multiplexer frame with unknown command {0}")]
    Command(u8),
}

impl Header {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let command = match self.command {
            Command::Syn => 0,
            Command::Fin => 1,
            Command::Push => 2,
            Command::Nop => 3,
        };
        let [l0, l1] = self.length.to_le_bytes();
        let [s0, s1, s2, s3] = self.stream.to_le_bytes();
        [VERSION, command, l0, l1, s0, s1, s2, s3]
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Another version or an unknown command.
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [version, command, l0, l1, s0, s1, s2, s3] = bytes;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let command = match command {
            0 => Command::Syn,
            1 => Command::Fin,
            2 => Command::Push,
            3 => Command::Nop,
            other => return Err(FrameError::Command(other)),
        };
        Ok(Self {
            command,
            length: u16::from_le_bytes([l0, l1]),
            stream: u32::from_le_bytes([s0, s1, s2, s3]),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn eight_bytes_are_a_header_of_version_1_or_say_what_is_wrong(
            version in prop_oneof![Just(1), any::<u8>()],
            command in prop_oneof![0..5_u8, any::<u8>()],
            rest in any::<[u8; 6]>(),
        ) {
            let [l0, l1, s0, s1, s2, s3] = rest;
            let bytes = [version, command, l0, l1, s0, s1, s2, s3];
            match Header::decode(bytes) {
                Ok(header) => prop_assert_eq!(header.encode(), bytes),
                Err(FrameError::Version(other)) => prop_assert!(other == version && other != 1),
                Err(FrameError::Command(other)) => prop_assert!(other == command && other > 3),
            }
        }
    }
}
