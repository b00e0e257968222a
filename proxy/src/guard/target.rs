//! The request target: which bytes it may hold, and the one canonical path it stands for.
//!
//! Invariants
//! - Two accepted paths that an upstream could take for the same resource have the same canonical
//!   path (case aside), so that routing, budgets and the upstream cannot disagree.
//! - The target itself is never rewritten; it is accepted or refused.
//!
//! Not here: routes.

use super::grammar::{PATH, QUERY, UNRESERVED, is};
use super::rejection::Rejection;
use std::borrow::Cow;

/// Checks the bytes of a target: origin form, URL characters, well-formed percent-encoding, no NUL.
///
/// # Errors
/// Names the first rule that is broken.
pub fn check_target(target: &[u8]) -> Result<(), Rejection> {
    if target.first() != Some(&b'/') {
        return Err(Rejection::TargetForm);
    }
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at_checked(end).unwrap_or((target, &[]));
    check_part(path, PATH)?;
    check_part(query, QUERY)
}

fn check_part(part: &[u8], class: u8) -> Result<(), Rejection> {
    let mut rest = part;
    while let Some(at) = rest.iter().position(|&byte| !is(byte, class)) {
        let (_, special) = rest.split_at_checked(at).unwrap_or_default();
        let [b'%', after @ ..] = special else { return Err(Rejection::TargetByte) };
        let (octet, after) = encoded_octet(after).ok_or(Rejection::TargetPercent)?;
        if octet == 0 {
            return Err(Rejection::TargetPercent);
        }
        rest = after;
    }
    Ok(())
}

/// Decodes the two digits after a percent sign; also returns what follows them.
fn encoded_octet(after_percent: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = after_percent else { return None };
    Some((hex_digit(*high)? << 4 | hex_digit(*low)?, rest))
}

/// The value of a hexadecimal digit.
pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The decoded form of a path that passed [`check_target`], for routing.
///
/// Refused are all spellings of which some software makes another path: dot segments, double slashes,
/// `;` parameters, encoded delimiters, encoded plain characters, and what does not decode to UTF-8.
///
/// One exception: AWS resource names used as a model id (`/model/arn%3Aaws…%2Fname/invoke`) need an
/// encoded slash. It is accepted in a segment that begins with `arn:` and stays `%2F` in the result.
///
/// # Errors
/// Names the first rule that is broken.
pub fn canonical_path(path: &str) -> Result<Cow<'_, str>, Rejection> {
    let segments = path.strip_prefix('/').ok_or(Rejection::TargetForm)?;
    let mut left = segments.split('/').count();
    for segment in segments.split('/') {
        left = left.saturating_sub(1);
        check_segment(segment, left == 0)?;
    }
    if memchr::memchr(b'%', path.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    for segment in segments.split('/') {
        decoded.push(b'/');
        decode_segment(segment, &mut decoded)?;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Rejection::PathEncoding)
}

fn check_segment(segment: &str, is_last: bool) -> Result<(), Rejection> {
    match segment {
        "" if !is_last => Err(Rejection::EmptySegment),
        "." | ".." => Err(Rejection::DotSegment),
        _ if memchr::memchr(b';', segment.as_bytes()).is_some() => Err(Rejection::MatrixParameter),
        _ => Ok(()),
    }
}

fn decode_segment(segment: &str, decoded: &mut Vec<u8>) -> Result<(), Rejection> {
    let is_arn = is_resource_name(segment);
    let mut rest = segment.as_bytes();
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (plain, special) = rest.split_at_checked(at).unwrap_or_default();
        decoded.extend_from_slice(plain);
        let (octet, after) = special.get(1..).and_then(encoded_octet).ok_or(Rejection::TargetPercent)?;
        match octet {
            b'/' if is_arn => decoded.extend_from_slice(b"%2F"),
            b'/' | b'\\' | b'?' | b'#' | b'%' | b';' | 0..=0x1f | 0x7f => {
                return Err(Rejection::EncodedDelimiter);
            }
            _ if is(octet, UNRESERVED) => return Err(Rejection::NeedlessEncoding),
            _ => decoded.push(octet),
        }
        rest = after;
    }
    decoded.extend_from_slice(rest);
    Ok(())
}

/// Whether a segment is an AWS resource name whose parts between slashes are harmless.
fn is_resource_name(segment: &str) -> bool {
    let starts = ["arn:", "arn%3A", "arn%3a"].iter().any(|start| segment.starts_with(start));
    starts
        && segment
            .split("%2F")
            .flat_map(|part| part.split("%2f"))
            .all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests;
