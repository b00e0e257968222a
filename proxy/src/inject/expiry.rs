//! When a certificate expires: its DER encoding (X.690, RFC 5280), read as far as that needs.
//!
//! Invariants
//! - Bytes that are no certificate give `None`, whatever they are.
//! - Only the time is read: nothing here says whether the certificate holds.
//!
//! Not here: whether it can be served (`certificates`), and whether the API server trusts it.

use jiff::civil::DateTime;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version of a certificate; those of the first have none.
const VERSION: u8 = 0xa0;

/// Most bytes that tell a length. A certificate is far smaller than that allows.
const LENGTH_BYTES_MAX: usize = 4;

/// Seconds since 1970 after which `certificate` holds no longer; `None` where that cannot be read.
pub(super) fn expiry_seconds(certificate: &[u8]) -> Option<i64> {
    let mut certificate = Elements(certificate);
    let mut told = Elements(certificate.next_of(SEQUENCE)?);
    let mut told = Elements(told.next_of(SEQUENCE)?);
    if told.0.first() == Some(&VERSION) {
        told.next()?;
    }
    told.next_of(INTEGER)?;
    let _algorithm = told.next_of(SEQUENCE)?;
    let _issuer = told.next_of(SEQUENCE)?;
    let mut validity = Elements(told.next_of(SEQUENCE)?);
    let _not_before = validity.next()?;
    let (tag, not_after) = validity.next()?;
    seconds(tag, std::str::from_utf8(not_after).ok()?)
}

/// Elements of an encoding, one after the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The tag and the content of the next one.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = if *first < 0x80 {
            (usize::from(*first), rest)
        } else {
            let bytes = usize::from(*first & 0x7f);
            // None at all would be a length that is not told, which DER does not have.
            if bytes == 0 || bytes > LENGTH_BYTES_MAX {
                return None;
            }
            let (bytes, rest) = rest.split_at_checked(bytes)?;
            (bytes.iter().fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte)), rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// The content of the next one, which must have this tag.
    fn next_of(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().and_then(|(tag, content)| (tag == wanted).then_some(content))
    }
}

/// A time in one of the two forms that certificates have, both in UTC and to the second.
fn seconds(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let whole = match (tag, digits.len()) {
        // Two digits of a year stand for 1950 to 2049.
        (UTC_TIME, 12) if digits >= "5" => format!("19{digits}"),
        (UTC_TIME, 12) => format!("20{digits}"),
        (GENERALIZED_TIME, 14) => digits.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", &whole).ok()?;
    let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    Some(time.duration_since(epoch).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    /// A certificate that ends at the beginning of this day.
    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["bursar-inject.bursar.svc".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_of_a_time() {
        // `date --date=YYYY-MM-DDT00:00Z +%s`; years from 2050 on are written with four digits.
        for ((year, month, day), want) in
            [((2027, 3, 1), 1_803_859_200), ((2049, 12, 31), 2_524_521_600), ((2050, 1, 1), 2_524_608_000)]
        {
            assert_eq!(expiry_seconds(&certificate(year, month, day)), Some(want), "{year}");
        }
    }

    #[test]
    fn times_that_certificates_cannot_have_are_not_read() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "500101000000Z"), Some(-631_152_000));
        // No end at all, as RFC 5280 writes it.
        assert_eq!(seconds(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        for (tag, text) in [
            (UTC_TIME, "7001010000Z"),
            (UTC_TIME, "700101000000"),
            (UTC_TIME, "700101000000+0100"),
            (UTC_TIME, "701301000000Z"),
            (GENERALIZED_TIME, "700101000000Z"),
            (GENERALIZED_TIME, "20270230000000Z"),
            (GENERALIZED_TIME, "-0270201000000Z"),
            (INTEGER, "20270101000000Z"),
        ] {
            assert_eq!(seconds(tag, text), None, "{text}");
        }
    }

    #[test]
    fn a_certificate_that_is_cut_off_before_its_end_says_nothing() {
        let whole = certificate(2027, 3, 1);
        for end in 0..whole.len() {
            assert_eq!(expiry_seconds(whole.get(..end).unwrap()), None, "{end}");
        }
        assert_eq!(expiry_seconds(&[SEQUENCE, 0x80, SEQUENCE, 0x80]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..400,
        ) {
            let _ = expiry_seconds(&bytes);
            let mut damaged = certificate(2027, 3, 1);
            for (byte, other) in damaged.iter_mut().skip(at).zip(&bytes) {
                *byte = *other;
            }
            let _ = expiry_seconds(&damaged);
        }
    }
}
