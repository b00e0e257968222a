//! Undoing JSON escapes of text that comes in pieces.
//!
//! Invariants
//! - Pieces may be cut anywhere, within an escape too; at most one escape is held.
//! - A surrogate without its other half becomes the replacement character.
//!
//! Not here: finding strings in JSON (`usage::json`).

/// Where the text of JSON strings is put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Unescape {
    /// An escape that is not complete.
    open: Vec<u8>,
    /// The first half of a character beyond the basic plane.
    high: Option<u16>,
}

impl Unescape {
    /// Adds the text of `raw`, the next piece of the inside of a string, to `out`.
    pub(super) fn push(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let mut rest = raw;
        while let Some((first, after)) = rest.split_first() {
            if !self.open.is_empty() {
                self.open.push(*first);
                self.close(out);
                rest = after;
                continue;
            }
            let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
            let (text, escape) = rest.split_at_checked(plain).unwrap_or((rest, &[]));
            if !text.is_empty() {
                self.end_half(out);
                out.extend_from_slice(text);
            }
            rest = match escape.split_first() {
                Some((backslash, after)) => {
                    self.open.push(*backslash);
                    after
                }
                None => &[],
            };
        }
    }

    /// Ends the escape, if it is complete.
    fn close(&mut self, out: &mut Vec<u8>) {
        let plain = match self.open.get(1) {
            Some(b'u') if self.open.len() < 6 => return,
            Some(b'u') => return self.unit(out),
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(other) => *other,
            None => return,
        };
        self.open.clear();
        self.end_half(out);
        out.push(plain);
    }

    fn unit(&mut self, out: &mut Vec<u8>) {
        let digits = self.open.get(2..).and_then(|digits| std::str::from_utf8(digits).ok());
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()).unwrap_or(0xfffd);
        self.open.clear();
        if let (Some(high), 0xdc00..=0xdfff) = (self.high, unit) {
            self.high = None;
            let code = 0x1_0000 + ((u32::from(high) & 0x3ff) << 10) + (u32::from(unit) & 0x3ff);
            return put(code, out);
        }
        self.end_half(out);
        if matches!(unit, 0xd800..=0xdbff) {
            self.high = Some(unit);
        } else {
            put(u32::from(unit), out);
        }
    }

    fn end_half(&mut self, out: &mut Vec<u8>) {
        if self.high.take().is_some() {
            put(0xfffd, out);
        }
    }
}

fn put(code: u32, out: &mut Vec<u8>) {
    let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(raw: &[u8], size: usize) -> String {
        let (mut unescape, mut out) = (Unescape::default(), Vec::new());
        for piece in raw.chunks(size) {
            unescape.push(piece, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_escape_is_undone_and_halves_become_the_replacement() {
        for size in [1, 2, 3, 5, 100] {
            assert_eq!(text(br#"a\n\t\r\b\f\"\\\/b"#, size), "a\n\t\r\u{8}\u{c}\"\\/b");
            assert_eq!(text(br"\u00e9\ud83d\ude00\u4e2d", size), "é😀中");
            assert_eq!(text(br"\ud83dx\ude00\ud83d\ud83d\ude00", size), "\u{fffd}x\u{fffd}\u{fffd}😀");
            assert_eq!(text(br"\uzzzz", size), "\u{fffd}");
            assert_eq!(text(br"open\u00", size), "open");
        }
    }

    proptest! {
        #[test]
        fn what_serde_wrote_comes_back(original in any::<String>(), size in 1_usize..20) {
            let json = serde_json::to_string(&original).unwrap();
            prop_assert_eq!(text(&json.as_bytes()[1..json.len() - 1], size), original);
        }
    }
}
