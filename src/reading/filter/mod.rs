//! Takes out of a JSON text, as it comes in, what is not to be decoded. Bytes in, bytes out, in constant memory.
//!
//! What is taken out becomes `null`, so that the text stays JSON. A text that is no JSON comes out as something else that
//! is none.

/// What of the objects of one kind is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is left of `metadata.managedFields`.
    pub managed_fields: ManagedFields,
    /// `metadata.annotations` are read by somebody.
    pub annotations: bool,
    /// `metadata.labels` are read by somebody.
    pub labels: bool,
}

/// What is left of `metadata.managedFields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagedFields {
    /// Nothing.
    Dropped,
    /// Who owns which fields, if that is said in few words; and never when.
    Thin,
}

/// The longest list of owned fields that is kept: our own of a Service with all labels and annotations that the schema
/// takes is half as long.
const FIELDS_BYTES_MAX: usize = 16 << 10;

/// How deep such a list may be: our own are a fourth of it, and a decoder gives up at 128.
const FIELDS_DEPTH_MAX: usize = 32;

/// The longest key that is told apart, `managedFields`, and one byte more.
const KEY_BYTES_MAX: usize = 14;

const NULL: &[u8] = b"null";

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

/// A string, as far as it was read.
#[derive(Clone, Debug, Default)]
struct Text {
    escaped: bool,
}

impl Text {
    /// Whether this byte ends it.
    fn ends(&mut self, byte: u8) -> bool {
        if self.escaped {
            self.escaped = false;
            return false;
        }
        self.escaped = byte == b'\\';
        byte == b'"'
    }
}

/// A value that is taken out, or kept if it turns out small.
#[derive(Clone, Debug)]
struct Taken {
    /// What it is so far, if it may be kept.
    kept: Option<Vec<u8>>,
    depth: usize,
    text: Option<Text>,
    begun: bool,
}

/// How a byte concerns a value that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belongs {
    /// It is part of it.
    Inside,
    /// It is the last one of it.
    Last,
    /// It stands behind it.
    Behind,
}

impl Taken {
    fn new(may_keep: bool) -> Self {
        Self {
            kept: may_keep.then(Vec::new),
            depth: 0,
            text: None,
            begun: false,
        }
    }

    fn handle(&mut self, byte: u8) -> Belongs {
        let belongs = self.judge(byte);
        let ours = belongs != Belongs::Behind;
        if let Some(kept) = self.kept.as_mut().filter(|_| ours) {
            kept.push(byte);
            if kept.len() > FIELDS_BYTES_MAX || self.depth > FIELDS_DEPTH_MAX {
                self.kept = None;
            }
        }
        belongs
    }

    fn judge(&mut self, byte: u8) -> Belongs {
        if let Some(text) = &mut self.text {
            if !text.ends(byte) {
                return Belongs::Inside;
            }
            self.text = None;
            return self.closed();
        }
        if !self.begun && byte.is_ascii_whitespace() {
            return Belongs::Inside;
        }
        let first = !std::mem::replace(&mut self.begun, true);
        match byte {
            b'"' => {
                self.text = Some(Text::default());
                Belongs::Inside
            }
            b'{' | b'[' => {
                self.depth += 1;
                Belongs::Inside
            }
            // A number or a word ends where something else begins.
            b'}' | b']' | b',' if self.depth == 0 => Belongs::Behind,
            b'}' | b']' => {
                self.depth -= 1;
                self.closed()
            }
            _ if self.depth == 0 && !first && byte.is_ascii_whitespace() => Belongs::Behind,
            _ => Belongs::Inside,
        }
    }

    fn closed(&self) -> Belongs {
        if self.depth == 0 {
            Belongs::Last
        } else {
            Belongs::Inside
        }
    }
}

/// The filter of one answer.
#[derive(Clone, Debug)]
pub struct Filter {
    rule: Rule,
    frames: Vec<Frame>,
    text: Option<Text>,
    /// The string that is read is a key, or the one that was read last.
    key: Option<Vec<u8>>,
    /// The next string is a key.
    expects_key: bool,
    taken: Option<Taken>,
}

impl Filter {
    /// For one answer, or for all events of one watch.
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            frames: Vec::new(),
            text: None,
            key: None,
            expects_key: false,
            taken: None,
        }
    }

    /// What comes out for the next bytes.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
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
        let kept = taken.kept.take();
        out.extend(kept.as_deref().unwrap_or(NULL));
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
                self.taken = self.takes();
            }
            _ => {}
        }
    }

    /// What becomes of the value that begins here, if it does not pass.
    fn takes(&self) -> Option<Taken> {
        use Frame::{Array, Object};
        let inside = match self.frames.as_slice() {
            [Object(Key::Items), Array, inside @ ..]
            | [Object(Key::Object), inside @ ..]
            | inside => inside,
        };
        let [Object(Key::Metadata), inside @ ..] = inside else {
            return None;
        };
        let thin = self.rule.managed_fields == ManagedFields::Thin;
        match inside {
            [Object(Key::ManagedFields)] if !thin => Some(Taken::new(false)),
            [Object(Key::Annotations)] if !self.rule.annotations => Some(Taken::new(false)),
            [Object(Key::Labels)] if !self.rule.labels => Some(Taken::new(false)),
            [Object(Key::ManagedFields), Array, Object(Key::Time)] => Some(Taken::new(false)),
            [Object(Key::ManagedFields), Array, Object(Key::FieldsV1)] => Some(Taken::new(true)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
