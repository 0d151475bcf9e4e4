//! One value of a JSON text that is taken out, or kept if it turns out small.

/// A string, as far as it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    escaped: bool,
}

impl Text {
    /// Whether this byte ends it.
    pub(super) fn ends(&mut self, byte: u8) -> bool {
        if self.escaped {
            self.escaped = false;
            return false;
        }
        self.escaped = byte == b'\\';
        byte == b'"'
    }
}

/// How large a value may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    /// Values inside it.
    pub(super) elements: usize,
    pub(super) depth: usize,
}

/// A value that is taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// What it is so far, while it may be kept.
    kept: Option<Vec<u8>>,
    limits: Limits,
    /// What comes out instead of one that is not kept.
    instead: &'static [u8],
    elements: usize,
    depth: usize,
    text: Option<Text>,
    begun: bool,
}

/// How a byte concerns a value that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belongs {
    /// It is part of it.
    Inside,
    /// It is the last one of it.
    Last,
    /// It stands behind it.
    Behind,
}

impl Taken {
    /// A value that is kept within limits.
    pub(super) fn within(limits: Limits, instead: &'static [u8]) -> Self {
        Self {
            kept: Some(Vec::new()),
            limits,
            instead,
            elements: 0,
            depth: 0,
            text: None,
            begun: false,
        }
    }

    /// A value that is not kept.
    pub(super) fn dropped(instead: &'static [u8]) -> Self {
        let limits = Limits {
            bytes: 0,
            elements: 0,
            depth: 0,
        };
        Self {
            kept: None,
            ..Self::within(limits, instead)
        }
    }

    pub(super) fn handle(&mut self, byte: u8) -> Belongs {
        let belongs = self.judge(byte);
        let ours = belongs != Belongs::Behind;
        if let Some(kept) = self.kept.as_mut().filter(|_| ours) {
            kept.push(byte);
            let Limits {
                bytes,
                elements,
                depth,
            } = self.limits;
            if kept.len() > bytes || self.elements > elements || self.depth > depth {
                self.kept = None;
            }
        }
        belongs
    }

    /// What comes out, once it has ended.
    pub(super) fn left(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or(self.instead)
    }

    /// Bytes that are held back.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.kept.as_ref().map_or(0, Vec::capacity)
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
                self.elements += 1;
                Belongs::Inside
            }
            // A number or a word ends where something else begins.
            b'}' | b']' | b',' if self.depth == 0 => Belongs::Behind,
            b',' => {
                self.elements += 1;
                Belongs::Inside
            }
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
