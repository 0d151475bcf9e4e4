//! Takes out of a JSON text, as it comes in, what is not to be decoded. Bytes in, bytes out.
//!
//! It holds back no more than one value that may turn out too large, [`PART_BYTES_MAX`] at most, and the keys that are open
//! around the place where it reads: what it keeps does not grow with the length of a text, only with its depth.
//!
//! What nobody reads becomes `null`. What somebody reads, and is larger than any that the schemas take, becomes
//! [`TOO_LARGE`] as a whole, and so is read by nobody: a part of a list, written back, would drop the rest of it. The text
//! stays JSON either way. A text that is no JSON comes out as something else that is none.

mod taken;

use taken::{Belongs, Limits, Taken, Text};

/// What of the objects of one kind is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is left of `metadata.managedFields`.
    pub managed_fields: ManagedFields,
    /// `metadata.annotations` are read by somebody.
    pub annotations: bool,
    /// `metadata.labels` are read by somebody.
    pub labels: bool,
    /// `metadata.ownerReferences` are read by somebody.
    pub owners: bool,
    /// How large its parts may be.
    pub size: Size,
}

/// How large the parts of an object may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As large as they come: nobody but administrators writes them.
    Any,
    /// Users may write them: what is too large is not decoded.
    Bounded,
}

/// What is left of `metadata.managedFields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagedFields {
    /// Nothing.
    Dropped,
    /// Who owns which fields, if that is said in few words; and never when.
    Thin,
}

/// What stands for a value that is too large. Nothing that is bounded is a boolean, so that it decodes as none of it.
pub const TOO_LARGE: bool = false;

const TOO_LARGE_TEXT: &[u8] = b"false";

const NULL: &[u8] = b"null";

/// The longest list of owned fields that is kept: our own of a Service with all labels and annotations that the schema
/// takes is half as long.
const FIELDS_BYTES_MAX: usize = 16 << 10;

/// How deep such a list may be: our own are a fourth of it, and a decoder gives up at 128.
const FIELDS_DEPTH_MAX: usize = 32;

/// The largest `spec`, `status` or `annotations` that is decoded. The schema's largest is the spec of an `SsmSession`: 16
/// annotations of 4096 characters, each of which JSON may write in six bytes (384 KiB), 16 labels, 8 ports and their names
/// (12 KiB). The status of a listener with 64 sessions in the words that relays write has about 300 KiB.
pub const PART_BYTES_MAX: usize = 416 << 10;

/// Entries and values in one of them, each of which takes some hundred bytes once decoded: those 64 sessions have 1,600.
const ELEMENTS_MAX: usize = 4096;

/// How deep one may be: those of the schemas are a fourth of it, and a decoder gives up at 128.
const DEPTH_MAX: usize = 64;

/// Finalizers: 16, which is what the chart's admission policy lets through, of 317 characters, and those of installations.
const FINALIZERS_BYTES_MAX: usize = 8 << 10;

/// Labels and ownerReferences: 40 labels of the largest size, or as many owners with names of the largest.
const NAMES_BYTES_MAX: usize = 16 << 10;

/// `managedFields`, without which nothing is read wrongly: those of some managers.
const MANAGERS_BYTES_MAX: usize = 64 << 10;

/// Any other value of an object's or a list's metadata: names, a UID, and where the list goes on.
const WORD_BYTES_MAX: usize = 4 << 10;

/// The longest key that is told apart, `ownerReferences`, and one byte more.
const KEY_BYTES_MAX: usize = 16;

/// A key that leads to something that is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// Of a list: its objects.
    Items,
    /// Of an event of a watch: its object.
    Object,
    Metadata,
    ManagedFields,
    Annotations,
    Labels,
    OwnerReferences,
    Finalizers,
    Time,
    FieldsV1,
    Other,
}

impl Key {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            b"items" => Self::Items,
            b"object" => Self::Object,
            b"metadata" => Self::Metadata,
            b"managedFields" => Self::ManagedFields,
            b"annotations" => Self::Annotations,
            b"labels" => Self::Labels,
            b"ownerReferences" => Self::OwnerReferences,
            b"finalizers" => Self::Finalizers,
            b"time" => Self::Time,
            b"fieldsV1" => Self::FieldsV1,
            _ => Self::Other,
        }
    }
}

/// What is open around the place where the text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Array,
    /// With the key whose value is read.
    Object(Key),
}

/// The filter of one answer.
#[derive(Clone, Debug)]
pub struct Filter {
    unread: Pass,
    bounded: Option<Pass>,
}

impl Filter {
    /// For one answer, or for all events of one watch.
    pub fn new(rule: Rule) -> Self {
        Self {
            unread: Pass::new(Takes::Unread(rule)),
            bounded: (rule.size == Size::Bounded).then(|| Pass::new(Takes::TooLarge)),
        }
    }

    /// What comes out for the next bytes, with no memory beyond it.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = self.unread.handle_bytes(bytes);
        if let Some(bounded) = &mut self.bounded {
            out = bounded.handle_bytes(&out);
        }
        // Whoever collects a body keeps these for as long as it comes in.
        out.shrink_to_fit();
        out
    }
}

#[cfg(test)]
impl Filter {
    /// Bytes that are held back.
    fn held(&self) -> usize {
        let passes = std::iter::once(&self.unread).chain(&self.bounded);
        let taken = passes.filter_map(|pass| pass.taken.as_ref());
        taken.map(Taken::held).sum()
    }
}

/// What one pass over the text takes.
#[derive(Clone, Copy, Debug)]
enum Takes {
    Unread(Rule),
    TooLarge,
}

/// One pass over the text.
#[derive(Clone, Debug)]
struct Pass {
    takes: Takes,
    frames: Vec<Frame>,
    text: Option<Text>,
    /// The string that is read is a key, or the one that was read last.
    key: Option<Vec<u8>>,
    /// The next string is a key.
    expects_key: bool,
    taken: Option<Taken>,
}

impl Pass {
    fn new(takes: Takes) -> Self {
        Self {
            takes,
            frames: Vec::new(),
            text: None,
            key: None,
            expects_key: false,
            taken: None,
        }
    }

    fn handle_bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.handle(byte, &mut out);
        }
        out
    }

    fn handle(&mut self, byte: u8, out: &mut Vec<u8>) {
        let Some(taken) = &mut self.taken else {
            self.pass(byte, out);
            return;
        };
        let belongs = taken.handle(byte);
        if belongs == Belongs::Inside {
            return;
        }
        out.extend(taken.left());
        self.taken = None;
        if belongs == Belongs::Behind {
            self.pass(byte, out);
        }
    }

    fn pass(&mut self, byte: u8, out: &mut Vec<u8>) {
        out.push(byte);
        if let Some(text) = &mut self.text {
            if text.ends(byte) {
                self.text = None;
            } else if let Some(key) = self.key.as_mut().filter(|key| key.len() < KEY_BYTES_MAX) {
                key.push(byte);
            }
            return;
        }
        match byte {
            b'"' => {
                self.text = Some(Text::default());
                self.key = std::mem::take(&mut self.expects_key).then(Vec::new);
            }
            b'{' => {
                self.frames.push(Frame::Object(Key::Other));
                self.expects_key = true;
            }
            b'[' => {
                self.frames.push(Frame::Array);
                self.expects_key = false;
            }
            b'}' | b']' => {
                self.frames.pop();
                self.expects_key = false;
            }
            b',' => self.expects_key = matches!(self.frames.last(), Some(Frame::Object(_))),
            b':' => {
                let key = self.key.take().unwrap_or_default();
                if let Some(frame) = self.frames.last_mut() {
                    *frame = Frame::Object(Key::of(&key));
                }
                self.taken = self.take();
            }
            _ => {}
        }
    }

    /// What becomes of the value that begins here, if it does not pass.
    fn take(&self) -> Option<Taken> {
        use Frame::{Array, Object};
        let inside = match self.frames.as_slice() {
            [Object(Key::Items), Array, inside @ ..]
            | [Object(Key::Object), inside @ ..]
            | inside => inside,
        };
        match self.takes {
            Takes::Unread(rule) => unread(rule, inside),
            Takes::TooLarge => bounded(inside),
        }
    }
}

/// What nobody reads.
fn unread(rule: Rule, inside: &[Frame]) -> Option<Taken> {
    use Frame::{Array, Object};
    let [Object(Key::Metadata), inside @ ..] = inside else {
        return None;
    };
    let fields = Limits {
        bytes: FIELDS_BYTES_MAX,
        elements: usize::MAX,
        depth: FIELDS_DEPTH_MAX,
    };
    let dropped = Some(Taken::dropped(NULL));
    match inside {
        [Object(Key::ManagedFields)] if rule.managed_fields == ManagedFields::Dropped => dropped,
        [Object(Key::Annotations)] if !rule.annotations => dropped,
        [Object(Key::Labels)] if !rule.labels => dropped,
        [Object(Key::OwnerReferences)] if !rule.owners => dropped,
        [Object(Key::ManagedFields), Array, Object(Key::Time)] => dropped,
        [Object(Key::ManagedFields), Array, Object(Key::FieldsV1)] => {
            Some(Taken::within(fields, NULL))
        }
        _ => None,
    }
}

/// What may be too large: each value of an object, and of its metadata.
fn bounded(inside: &[Frame]) -> Option<Taken> {
    use Frame::Object;
    let (bytes, instead) = match inside {
        // A list's objects, and an object's metadata, are looked into.
        [Object(Key::Items | Key::Metadata)] => return None,
        [Object(_)] | [Object(Key::Metadata), Object(Key::Annotations)] => {
            (PART_BYTES_MAX, TOO_LARGE_TEXT)
        }
        [Object(Key::Metadata), Object(Key::Finalizers)] => (FINALIZERS_BYTES_MAX, TOO_LARGE_TEXT),
        [
            Object(Key::Metadata),
            Object(Key::Labels | Key::OwnerReferences),
        ] => (NAMES_BYTES_MAX, TOO_LARGE_TEXT),
        [Object(Key::Metadata), Object(Key::ManagedFields)] => (MANAGERS_BYTES_MAX, NULL),
        [Object(Key::Metadata), Object(_)] => (WORD_BYTES_MAX, TOO_LARGE_TEXT),
        _ => return None,
    };
    let limits = Limits {
        bytes,
        elements: ELEMENTS_MAX,
        depth: DEPTH_MAX,
    };
    Some(Taken::within(limits, instead))
}

#[cfg(test)]
mod tests;
