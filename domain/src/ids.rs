//! Identities: request ids, ledger ids and the checked labels that name teams, models and so on.
//!
//! Invariants
//! - A `Label` is 1 to 256 bytes of printable text without control characters.
//! - A `RequestId` is a UUIDv7, so ids made later sort later.
//!
//! Not here: where an identity comes from (`proxy::identify`).

use crate::time::Timestamp;
use std::fmt;
use std::sync::Arc;

/// Longest label in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// A short, checked piece of text that names something: a team, workload, model, tag or route.
/// Cloning is a reference count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

/// Why a text cannot be a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Over 256 bytes.
    #[error("it is longer than 256 bytes")]
    TooLong,
    /// Control characters or other text that could break a log, a terminal or a report.
    #[error("it contains a control or invisible formatting character")]
    BadCharacter,
}

impl Label {
    /// Checks and copies `text`.
    pub fn new(text: &str) -> Result<Self, LabelError> {
        check_label(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// A label that stands in the program's own text, where nothing needs checking.
    #[must_use]
    pub fn fixed(text: &'static str) -> Self {
        debug_assert!(check_label(text).is_ok());
        Self(Arc::from(text))
    }

    /// A label from text that may be anything: bad characters are replaced by `?`, too long text is
    /// cut. `None` when nothing is left. For what upstreams send, which must never be refused.
    #[must_use]
    pub fn lossy(text: &str) -> Option<Self> {
        if let Ok(label) = Self::new(text) {
            return Some(label);
        }
        let mut clean = String::new();
        for c in text.chars() {
            let c = if is_bad(c) { '?' } else { c };
            if clean.len().saturating_add(c.len_utf8()) > LABEL_BYTES_MAX {
                break;
            }
            clean.push(c);
        }
        Self::new(&clean).ok()
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as the clones of this label share it.
    #[must_use]
    pub const fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

/// Whether `text` may be a label.
pub fn check_label(text: &str) -> Result<(), LabelError> {
    if text.is_empty() {
        return Err(LabelError::Empty);
    }
    if text.len() > LABEL_BYTES_MAX {
        return Err(LabelError::TooLong);
    }
    // Nearly all are plain ASCII, and then no character needs decoding.
    let plain = text.bytes().fold(true, |plain, byte| plain & matches!(byte, 0x20..=0x7E));
    if !plain && text.chars().any(is_bad) {
        return Err(LabelError::BadCharacter);
    }
    Ok(())
}

/// Control characters, and the bidirectional and invisible formatting characters that make a
/// label look like another one.
fn is_bad(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Label {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// 128 bits as a UUID's text: 8-4-4-4-12 lower-case hex digits.
fn uuid_ascii(bits: u128) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    let mut text = [b'-'; 36];
    for (place, byte) in PLACES.into_iter().zip(bits.to_be_bytes()) {
        if let Some(pair) = text.get_mut(place..).and_then(|rest| rest.first_chunk_mut()) {
            *pair = [digit(byte >> 4), digit(byte & 0xF)];
        }
    }
    text
}

fn parse_uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    let dashes = [8, 13, 18, 23].iter().all(|i| bytes.get(*i) == Some(&b'-'));
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let valid = bytes.len() == 36 && dashes && hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if valid { u128::from_str_radix(&hex, 16).ok() } else { None }
}

/// Lays out a UUIDv7 (RFC 9562): 48 bits of milliseconds, version, 74 bits of randomness.
fn uuid_v7(at: Timestamp, random: u128) -> u128 {
    let millis = u128::from(at.millis().max(0).unsigned_abs()) & 0xFFFF_FFFF_FFFF;
    let random_high = (random >> 64) & 0xFFF;
    let random_low = random & 0x3FFF_FFFF_FFFF_FFFF;
    (millis << 80) | (0x7 << 76) | (random_high << 64) | (0b10 << 62) | random_low
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// A UUIDv7 made at `at` from 128 random bits.
            #[must_use]
            pub fn new(at: Timestamp, random: u128) -> Self {
                Self(uuid_v7(at, random))
            }

            /// From the UUID's 128 bits.
            #[must_use]
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// The UUID's 128 bits.
            #[must_use]
            pub const fn bits(self) -> u128 {
                self.0
            }

            /// The usual 36-character form.
            #[must_use]
            pub fn to_ascii(self) -> [u8; 36] {
                uuid_ascii(self.0)
            }

            /// Parses the usual 36-character form.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                parse_uuid(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&self.to_ascii()).unwrap_or_default())
            }
        }
    };
}

uuid_id!(
    /// Names one request and so one usage record, for ever.
    RequestId
);
uuid_id!(
    /// Names one ledger; (ledger id, sequence) names a record for ever.
    LedgerId
);

impl RequestId {
    /// Milliseconds since 1970 at which the id was made.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0 >> 80).unwrap_or(u64::MAX)
    }
}

/// A W3C trace id: 128 bits, not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl TraceId {
    /// From its bits; zero is not a trace id.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// The 128 bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_refuse_what_could_break_a_report() {
        assert_eq!(Label::new(""), Err(LabelError::Empty));
        assert_eq!(Label::new(&"x".repeat(257)), Err(LabelError::TooLong));
        for text in ["a\nb", "a\u{0}", "a\u{202E}b", "\u{FEFF}a", "a\u{7f}"] {
            assert_eq!(Label::new(text), Err(LabelError::BadCharacter), "{text:?}");
        }
        assert_eq!(Label::new("équipe 東京").unwrap().as_str(), "équipe 東京");
    }

    #[test]
    fn lossy_labels_are_cut_at_a_character_and_cleaned() {
        assert_eq!(Label::lossy("a\nb").unwrap().as_str(), "a?b");
        assert_eq!(Label::lossy(&"é".repeat(200)).unwrap().as_str().len(), 256);
        assert_eq!(Label::lossy(""), None);
    }

    #[test]
    fn request_ids_are_uuid_v7_and_sort_by_time() {
        let early = RequestId::new(Timestamp::from_micros(1_700_000_000_000_000), u128::MAX);
        let late = RequestId::new(Timestamp::from_micros(1_700_000_000_001_000), 0);
        assert!(early < late);
        let text = early.to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(text.as_bytes()[14], b'7');
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(RequestId::parse(&text), Some(early));
        assert_eq!(early.millis(), 1_700_000_000_000);
    }

    #[test]
    fn text_that_is_no_uuid_is_not_parsed() {
        for text in
            ["", "0-0-0-0", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz", "00000000000000000000000000000000"]
        {
            assert_eq!(RequestId::parse(text), None);
        }
    }
}
