//! Base64 (RFC 4648 §4) with padding, into a buffer that is used again.
//!
//! Not here: what is in it (`invoke`).

/// Decodes `text` into `out`, which is cleared first; `false` when it is no base64. Like most readers
/// of JSON, takes `\/` for `/`.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let (mut bits, mut count, mut padding) = (0_u32, 0_u32, 0_u32);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'\\' => continue,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return false,
        };
        if padding > 0 {
            return false;
        }
        bits = bits << 6 | u32::from(value);
        count += 1;
        if count == 4 {
            let [_, bytes @ ..] = bits.to_be_bytes();
            out.extend_from_slice(&bytes);
            (bits, count) = (0, 0);
        }
    }
    match (count, padding) {
        (0, 0) => {}
        (2, 2) => out.extend((bits >> 4).to_be_bytes().last()),
        (3, 1) => {
            let [_, _, high, low] = (bits >> 2).to_be_bytes();
            out.extend_from_slice(&[high, low]);
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
pub(in crate::usage) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The other direction, for transcripts.
    pub(in crate::usage) fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let mut bits = [0; 4];
            bits[1..=group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes(bits);
            for place in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= group.len() { char::from(digit) } else { '=' });
            }
        }
        text
    }

    fn check(text: &str, expected: Option<&str>) {
        let mut out = vec![1, 2, 3];
        assert_eq!(decode(text.as_bytes(), &mut out), expected.is_some(), "{text}");
        if let Some(expected) = expected {
            assert_eq!(out, expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn the_standards_own_examples_are_decoded() {
        for (text, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
            ("Pz8\\/", "???"),
        ] {
            check(text, Some(plain));
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in ["Z", "Zg", "Zg=", "Zm8", "Zg==Zg==", "Zm9v=", "Zm 9", "Zm-_", "=", "===="] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            prop_assert!(decode(encode(&bytes).as_bytes(), &mut out));
            prop_assert_eq!(out, bytes);
        }
    }
}
