//! The marker at the end of Reason: the only mark of a session that survives a crash.
//!
//! It promises that what it writes is what it reads, whatever the user's reason holds, and that a reason with
//! its marker is never longer than StartSession takes.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What StartSession takes as Reason. AWS does not say in what it counts: UTF-16 units are at least as many as
/// characters, so that this many of them fit either way.
const REASON_UNITS_MAX: usize = 256;
const INSTALLATION_CHARS: usize = 8;
const LISTENER_CHARS: usize = 26;
const HEAD: &str = " [ssm-operator ";
const MARKER_BYTES: usize = HEAD.len() + INSTALLATION_CHARS + 1 + LISTENER_CHARS + 1;

/// Names the installation and the listener for which a session was started.
///
/// Written ` [ssm-operator <installation>/<listener>]`: 8 characters of a hash of the UID of the operator's
/// namespace, so that two installations in one account do not sweep each other, and the listener's UID in base32.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Marker {
    /// 8 characters, lower-case base32.
    pub installation: String,
    /// 26 characters, lower-case base32 of the listener's UID.
    pub listener: String,
}

impl Marker {
    /// The marker of a listener: `namespace_uid` is the UID of the operator's namespace.
    #[must_use]
    pub fn new(namespace_uid: &str, listener_uid: &str) -> Self {
        Self {
            installation: Self::installation_of(namespace_uid),
            listener: Self::listener_of(listener_uid),
        }
    }

    /// What markers of the installation say whose namespace has this UID.
    #[must_use]
    pub fn installation_of(namespace_uid: &str) -> String {
        let mut hash = base32(&Sha256::digest(namespace_uid.as_bytes()));
        hash.truncate(INSTALLATION_CHARS);
        hash
    }

    /// What markers of the listener with this UID say.
    ///
    /// UIDs of Kubernetes are UUIDs; another one would be named by its hash, so that every UID has a marker.
    #[must_use]
    pub fn listener_of(listener_uid: &str) -> String {
        match Uuid::parse_str(listener_uid) {
            Ok(uuid) => base32(uuid.as_bytes()),
            Err(_) => base32(&Sha256::digest(listener_uid.as_bytes())[..16]),
        }
    }

    /// `reason` with the marker behind it; the reason is cut where both would pass 256 characters.
    #[must_use]
    pub fn append_to(&self, reason: &str) -> String {
        let Self {
            installation,
            listener,
        } = self;
        let marker = format!("{HEAD}{installation}/{listener}]");
        let mut room = REASON_UNITS_MAX.saturating_sub(marker.len());
        let kept = reason
            .chars()
            .take_while(|char| match room.checked_sub(char.len_utf16()) {
                Some(left) => {
                    room = left;
                    true
                }
                None => false,
            });
        let mut whole: String = kept.collect();
        whole.push_str(&marker);
        whole
    }

    /// The marker at the very end of `reason`, if there is one.
    #[must_use]
    pub fn parse(reason: &str) -> Option<Self> {
        let start = reason.len().checked_sub(MARKER_BYTES)?;
        let marker = reason.get(start..)?.strip_prefix(HEAD)?.strip_suffix(']')?;
        let (installation, listener) = marker.split_once('/')?;
        let sound = installation.len() == INSTALLATION_CHARS
            && listener.len() == LISTENER_CHARS
            && installation
                .bytes()
                .chain(listener.bytes())
                .all(|b| ALPHABET.contains(&b));
        sound.then(|| Self {
            installation: installation.to_owned(),
            listener: listener.to_owned(),
        })
    }
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// RFC 4648 base32 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let (mut held, mut held_bits) = (0_u32, 0_u32);
    for &byte in bytes {
        held = (held << 8) | u32::from(byte);
        held_bits += 8;
        while held_bits >= 5 {
            held_bits -= 5;
            text.push(letter(held >> held_bits));
        }
        held &= (1 << held_bits) - 1;
    }
    if held_bits > 0 {
        text.push(letter(held << (5 - held_bits)));
    }
    text
}

fn letter(five_bits: u32) -> char {
    char::from(ALPHABET[(five_bits & 31) as usize])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMESPACE: &str = "6f1c0f5e-0d4c-4f5c-9a7e-2b1f3c4d5e6f";
    const LISTENER: &str = "00010203-0405-0607-0809-0a0b0c0d0e0f";

    #[test]
    fn base32_is_that_of_rfc_4648_in_lower_case_without_padding() {
        let vectors = [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("foobar", "mzxw6ytboi"),
        ];
        for (bytes, text) in vectors {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_marker_names_installation_and_listener_at_the_end_of_the_reason() {
        let reason = Marker::new(NAMESPACE, LISTENER).append_to("orders report");
        // First 5 bytes of SHA-256 of the namespace's UID, and the 16 bytes of the listener's.
        assert_eq!(
            reason,
            "orders report [ssm-operator lweo2tln/aaaqeayeaudaocajbifqydiob4]"
        );
    }

    #[test]
    fn one_listener_has_one_name_however_its_uid_is_written() {
        let upper = LISTENER.to_uppercase();
        assert_eq!(Marker::listener_of(LISTENER), Marker::listener_of(&upper));
        assert_eq!(Marker::listener_of("not a uuid").len(), LISTENER_CHARS);
    }

    #[test]
    fn only_the_marker_at_the_very_end_counts() {
        let ours = Marker::new(NAMESPACE, LISTENER);
        let theirs = Marker::new("another namespace", "another listener");
        let forged = theirs.append_to("x");
        assert_eq!(Marker::parse(&ours.append_to(&forged)), Some(ours.clone()));
        for suffix in [" ", ".", "]", "\n", "é"] {
            assert_eq!(
                Marker::parse(&format!("{}{suffix}", ours.append_to("x"))),
                None
            );
        }
    }

    #[test]
    fn what_only_looks_like_a_marker_is_none() {
        let listener = "aaaqeayeaudaocajbifqydiob4";
        let lookalikes = [
            String::new(),
            "]".to_owned(),
            format!("x[ssm-operator abcdefgh/{listener}]"),
            format!("x [ssm-operator abcdefg1/{listener}]"),
            format!("x [ssm-operator ABCDEFGH/{listener}]"),
            format!("x [ssm-operator abcdefghi/{}]", &listener[1..]),
            format!("x [ssm-operator abcdefgh {listener}]"),
            format!("x [ssm-operator abcdefgh/{listener}}}"),
            format!("é [ssm-operator abcdefgé/{}]", &listener[1..]),
        ];
        for lookalike in lookalikes {
            assert_eq!(Marker::parse(&lookalike), None, "{lookalike}");
        }
    }

    proptest! {
        #[test]
        fn what_is_appended_is_parsed_and_fits(reason in "\\PC{0,300}", namespace in "\\PC{0,40}", uid in any::<u128>()) {
            let marker = Marker::new(&namespace, &Uuid::from_u128(uid).to_string());
            let whole = marker.append_to(&reason);
            prop_assert!(whole.encode_utf16().count() <= REASON_UNITS_MAX);
            prop_assert!(reason.starts_with(&whole[..whole.len() - MARKER_BYTES]));
            if reason.encode_utf16().count() + MARKER_BYTES <= REASON_UNITS_MAX {
                prop_assert!(whole.starts_with(&reason));
            }
            prop_assert_eq!(Marker::parse(&whole), Some(marker));
        }

        #[test]
        fn different_listeners_have_different_markers(one in any::<u128>(), other in any::<u128>()) {
            let name = |uid| Marker::listener_of(&Uuid::from_u128(uid).to_string());
            prop_assert_eq!(name(one) == name(other), one == other);
        }

        #[test]
        fn parsing_never_panics(reason in any::<String>()) {
            let _ = Marker::parse(&reason);
        }
    }
}
