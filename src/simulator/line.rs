//! What becomes of frames between the two sides of a data channel: most pass as they are, and on demand some are lost or
//! reach the client broken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::protocol::Message as Frame;

use super::seat::Side;
use crate::protocol::message::{Message, MessageType, PayloadType};

/// Bytes of noise in one frame at most: some more than a header has.
const NOISE_BYTES_MAX: usize = 512;

/// Bytes changed in a damaged frame at most.
const DAMAGED_BYTES_MAX: usize = 4;

/// Where fields are in a frame.
const HEADER_LENGTH_FIELD: usize = 0;
const MESSAGE_TYPE_FIELD: usize = 4;
const MESSAGE_TYPE_BYTES: usize = 32;
const DIGEST_FIELD: usize = 80;
const PAYLOAD_LENGTH_FIELD: usize = 116;

/// What a frame of the agent becomes before the client gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Mangling {
    /// Random bytes, 512 at most; another seed, other bytes.
    Noise {
        /// Of the random numbers.
        seed: u64,
    },
    /// Up to four of its bytes are changed, wherever they are: it may be a message still.
    Damage {
        /// Of the random numbers.
        seed: u64,
    },
    /// Its first bytes.
    CutTo {
        /// How many.
        bytes: usize,
    },
    /// Its `HeaderLength` lies.
    HeaderLength {
        /// What it says.
        length: u32,
    },
    /// Its `PayloadLength` lies.
    PayloadLength {
        /// What it says.
        length: u32,
    },
    /// Its digest is that of another payload.
    WrongDigest,
    /// Its `MessageType` is this, up to 32 bytes of it.
    MessageType {
        /// The name, which is padded with spaces.
        name: String,
    },
    /// A well-formed message whose payload begins with another version of the multiplexer. Passes over frames that are not
    /// data of the multiplexer.
    MultiplexerVersion {
        /// What stands where 1 should.
        version: u8,
    },
    /// A frame of text.
    Text,
    /// So many zeros.
    Huge {
        /// How many.
        bytes: usize,
    },
}

impl Mangling {
    /// What `frame` becomes; `None` when this is not a frame for it.
    fn apply(&self, frame: &Bytes, random: &mut Rng) -> Option<Frame> {
        let mut bytes = BytesMut::from(frame.as_ref());
        let put = |bytes: &mut BytesMut, at: usize, field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        match self {
            Self::Noise { .. } => {
                bytes = BytesMut::zeroed(random.usize(..=NOISE_BYTES_MAX));
                random.fill(&mut bytes);
            }
            Self::Damage { .. } => {
                for _ in 0..random.usize(1..=DAMAGED_BYTES_MAX) {
                    if let Some(byte) = bytes.get_mut(random.usize(..frame.len().max(1))) {
                        *byte = random.u8(..);
                    }
                }
            }
            Self::CutTo { bytes: kept } => bytes.truncate(*kept),
            Self::HeaderLength { length } => {
                put(&mut bytes, HEADER_LENGTH_FIELD, &length.to_be_bytes());
            }
            Self::PayloadLength { length } => {
                put(&mut bytes, PAYLOAD_LENGTH_FIELD, &length.to_be_bytes());
            }
            Self::WrongDigest => {
                if let Some(byte) = bytes.get_mut(DIGEST_FIELD) {
                    *byte ^= 1;
                }
            }
            Self::MessageType { name } => {
                let padded = name.bytes().chain(std::iter::repeat(b' '));
                let field: Vec<u8> = padded.take(MESSAGE_TYPE_BYTES).collect();
                put(&mut bytes, MESSAGE_TYPE_FIELD, &field);
            }
            Self::MultiplexerVersion { version } => return with_version(frame, *version),
            Self::Text => return Some(Frame::text("{\"MessageType\":\"output_stream_data\"}")),
            Self::Huge { bytes: count } => bytes = BytesMut::zeroed(*count),
        }
        Some(Frame::Binary(bytes.freeze()))
    }

    fn seed(&self) -> u64 {
        match self {
            Self::Noise { seed } | Self::Damage { seed } => *seed,
            Self::CutTo { .. }
            | Self::HeaderLength { .. }
            | Self::PayloadLength { .. }
            | Self::WrongDigest
            | Self::MessageType { .. }
            | Self::MultiplexerVersion { .. }
            | Self::Text
            | Self::Huge { .. } => 0,
        }
    }
}

/// The same message of data with another first byte, and the digest of that.
fn with_version(frame: &Bytes, version: u8) -> Option<Frame> {
    let mut message = Message::decode(frame).ok()?;
    let data = message.message_type == MessageType::OutputStreamData
        && message.payload_type == PayloadType::Output;
    let mut payload = BytesMut::from(message.payload.as_ref());
    *payload.first_mut().filter(|_| data)? = version;
    message.payload = payload.freeze();
    Some(Frame::Binary(message.encode()))
}

/// Frames that are lost, of all sessions.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// Each how manyth frame of a direction is lost; 0 for none.
    every: AtomicU32,
    lost: AtomicU64,
}

impl Loss {
    pub(super) fn set(&self, every: u32) {
        self.every.store(every, Ordering::Relaxed);
    }

    /// Frames lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// The way of one session's frames, in both directions.
pub(super) struct Line {
    loss: Arc<Loss>,
    from_client: AtomicU32,
    from_agent: AtomicU32,
    mangled: Mutex<VecDeque<Mangled>>,
}

/// What the next frames of the agent become.
struct Mangled {
    frames: u32,
    mangling: Mangling,
    random: Rng,
}

impl Line {
    pub(super) fn new(loss: Arc<Loss>) -> Self {
        Self {
            loss,
            from_client: AtomicU32::new(0),
            from_agent: AtomicU32::new(0),
            mangled: Mutex::default(),
        }
    }

    fn mangled(&self) -> MutexGuard<'_, VecDeque<Mangled>> {
        self.mangled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `frames` of the agent become what `mangling` says, behind those that are to be mangled already.
    pub(super) fn mangle(&self, frames: u32, mangling: Mangling) {
        let random = Rng::with_seed(mangling.seed());
        self.mangled().push_back(Mangled {
            frames,
            mangling,
            random,
        });
    }

    /// Frames pass as they are again.
    pub(super) fn mend(&self) {
        self.mangled().clear();
    }

    /// What a frame of `side` is when it has passed; `None` when it is lost.
    pub(super) fn pass(&self, side: Side, frame: Bytes) -> Option<Frame> {
        if self.loses(side) {
            self.loss.lost.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if side == Side::Client {
            return Some(Frame::Binary(frame));
        }
        let mut mangled = self.mangled();
        while mangled.front().is_some_and(|next| next.frames == 0) {
            mangled.pop_front();
        }
        let changed = mangled.front_mut().and_then(|next| {
            let changed = next.mangling.apply(&frame, &mut next.random)?;
            next.frames -= 1;
            Some(changed)
        });
        Some(changed.unwrap_or(Frame::Binary(frame)))
    }

    fn loses(&self, side: Side) -> bool {
        let count = match side {
            Side::Client => &self.from_client,
            Side::Agent => &self.from_agent,
        };
        let every = self.loss.every.load(Ordering::Relaxed);
        every > 0 && (count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every)
    }
}
