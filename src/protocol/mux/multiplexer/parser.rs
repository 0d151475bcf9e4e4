//! Where the reader is in the run of bytes, which may be cut anywhere.

use bytes::Bytes;

use crate::protocol::mux::frame::{Command, FrameError, HEADER_BYTES, Header, StreamId};

/// Finds frames in the run of bytes.
#[derive(Debug)]
pub(super) enum Parser {
    Header {
        bytes: [u8; HEADER_BYTES],
        have: usize,
    },
    Data {
        stream: StreamId,
        command: Command,
        left: usize,
    },
}

/// A part of a frame.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) stream: StreamId,
    pub(super) command: Command,
    pub(super) data: Bytes,
    /// It is the frame's last.
    pub(super) last: bool,
}

impl Parser {
    pub(super) fn start() -> Self {
        Self::Header {
            bytes: [0; HEADER_BYTES],
            have: 0,
        }
    }

    /// Takes the next piece off `bytes`, which are not empty; none while they end within a header.
    ///
    /// # Errors
    /// What stands where a header should is none.
    pub(super) fn take(&mut self, bytes: &mut Bytes) -> Result<Option<Piece>, FrameError> {
        if let Self::Header {
            bytes: header,
            have,
        } = self
        {
            let taken = bytes.len().min(HEADER_BYTES - *have);
            for (to, from) in header.iter_mut().skip(*have).zip(bytes.split_to(taken)) {
                *to = from;
            }
            *have += taken;
            if *have == HEADER_BYTES {
                let Header {
                    command,
                    length,
                    stream,
                } = Header::decode(*header)?;
                let left = usize::from(length);
                *self = Self::Data {
                    stream,
                    command,
                    left,
                };
            }
        }
        let Self::Data {
            stream,
            command,
            left,
        } = self
        else {
            return Ok(None);
        };
        let data = bytes.split_to(bytes.len().min(*left));
        *left -= data.len();
        let piece = Piece {
            stream: *stream,
            command: *command,
            data,
            last: *left == 0,
        };
        if piece.last {
            *self = Self::start();
        }
        Ok(Some(piece))
    }
}
