//! Byte classes and the small grammars of a head: names, values, hosts, lengths.
//!
//! Invariants
//! - Each table is built by the compiler; a lookup is one load.
//! - Nothing here knows about state, limits on size, or which header a value belongs to.
//!
//! Not here: the request target (`target`), whole lines (`head`).

use super::rejection::Rejection;

/// RFC 9110 §5.6.2 `tchar`.
pub(super) const TOKEN: u8 = 1;
/// RFC 3986 §3.3 `pchar` without `%`, and `/`.
pub(super) const PATH: u8 = 2;
/// `PATH`, `?`, and the brackets, braces, bar, caret and backquote that clients send unencoded.
pub(super) const QUERY: u8 = 4;
/// What a registered name in `Host` may consist of here: letters, digits, `-`, `.`, `_`.
const HOST_NAME: u8 = 8;
/// RFC 3986 §2.3 `unreserved`.
pub(super) const UNRESERVED: u8 = 16;

static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0_usize;
    while at < 256 {
        table[at] = class_of(at as u8);
        at += 1;
    }
    table
}

const fn class_of(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            TOKEN | PATH | QUERY | HOST_NAME | UNRESERVED
        }
        b'~' => TOKEN | PATH | QUERY | UNRESERVED,
        b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' => TOKEN | PATH | QUERY,
        b'(' | b')' | b',' | b';' | b'=' | b':' | b'@' | b'/' => PATH | QUERY,
        b'^' | b'`' | b'|' => TOKEN | QUERY,
        b'?' | b'[' | b']' | b'{' | b'}' => QUERY,
        b'#' | b'%' => TOKEN,
        _ => 0,
    }
}

/// Whether `byte` belongs to `class`.
pub(super) fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// Checks a header value: visible ASCII, spaces and tabs.
pub(super) fn check_value(value: &[u8]) -> Result<(), Rejection> {
    // Without an early exit the compiler checks sixteen bytes at a time.
    let flaws = value.iter().fold(0_u8, |flaws, &byte| flaws | u8::from(is_flaw(byte)));
    if flaws == 0 {
        return Ok(());
    }
    Err(match value.iter().find(|&&byte| is_flaw(byte)) {
        Some(b'\r') => Rejection::LineEnding,
        Some(byte) if *byte >= 0x80 => Rejection::ObsoleteText,
        _ => Rejection::HeaderValue,
    })
}

fn is_flaw(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') | (byte >= 0x7f)
}

/// Checks `Host`: a name, IPv4 address or bracketed IPv6 address, and perhaps a port.
pub(super) fn check_host(host: &[u8]) -> Result<(), Rejection> {
    let port = if let Some(bracketed) = host.strip_prefix(b"[") {
        let end = memchr::memchr(b']', bracketed).ok_or(Rejection::HostInvalid)?;
        let (address, after) = bracketed.split_at_checked(end).ok_or(Rejection::HostInvalid)?;
        let text = std::str::from_utf8(address).map_err(|_| Rejection::HostInvalid)?;
        text.parse::<std::net::Ipv6Addr>().map_err(|_| Rejection::HostInvalid)?;
        after.strip_prefix(b"]").unwrap_or(after)
    } else {
        let end = host.iter().position(|&byte| !is(byte, HOST_NAME)).unwrap_or(host.len());
        let (name, port) = host.split_at_checked(end).ok_or(Rejection::HostInvalid)?;
        if name.is_empty() {
            return Err(Rejection::HostInvalid);
        }
        port
    };
    match port {
        [] => Ok(()),
        [b':', digits @ ..] if is_port(digits) => Ok(()),
        _ => Err(Rejection::HostInvalid),
    }
}

fn is_port(digits: &[u8]) -> bool {
    decimal(digits).is_some_and(|port| (1..=65_535).contains(&port))
}

/// Parses a `Content-Length`: decimal digits without sign or leading zero, at most 2^53.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Rejection> {
    const LENGTH_MAX: u64 = 1 << 53;
    decimal(value).filter(|&length| length <= LENGTH_MAX).ok_or(Rejection::ContentLength)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 || (digits.len() > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    digits
        .iter()
        .try_fold(0_u64, |sum, &byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// The header names that the guard treats in a way of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum HeaderKind {
    /// Any other name.
    Plain,
    Host,
    ContentLength,
    TransferEncoding,
    ContentType,
    ContentEncoding,
    Authorization,
    /// `x-api-key`.
    XApiKey,
    /// `api-key`.
    ApiKey,
    /// `x-goog-api-key`.
    GoogleApiKey,
    Expect,
    Connection,
    Upgrade,
    Te,
    /// `keep-alive`, `proxy-connection`: forbidden in HTTP/2.
    HopByHop,
    /// Never a trailer: `trailer`, `content-range`, `cookie` and others.
    HeaderOnly,
    /// Begins with `x-bursar-`.
    Ours,
    /// `x-http-method-override` and its like: another method for whoever heeds it.
    MethodOverride,
}

impl HeaderKind {
    /// Classifies a name in any case.
    pub(super) fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => Self::Te,
            4 if is(b"host") => Self::Host,
            6 if is(b"expect") => Self::Expect,
            6 if is(b"cookie") => Self::HeaderOnly,
            7 if is(b"upgrade") => Self::Upgrade,
            7 if is(b"api-key") => Self::ApiKey,
            7 if is(b"trailer") => Self::HeaderOnly,
            9 if is(b"x-api-key") => Self::XApiKey,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::HopByHop,
            10 if is(b"set-cookie") => Self::HeaderOnly,
            12 if is(b"content-type") => Self::ContentType,
            12 if is(b"max-forwards") => Self::HeaderOnly,
            13 if is(b"authorization") => Self::Authorization,
            13 if is(b"x-http-method") => Self::MethodOverride,
            13 if is(b"content-range") || is(b"cache-control") => Self::HeaderOnly,
            14 if is(b"content-length") => Self::ContentLength,
            14 if is(b"x-goog-api-key") => Self::GoogleApiKey,
            16 if is(b"content-encoding") => Self::ContentEncoding,
            16 if is(b"proxy-connection") => Self::HopByHop,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            17 if is(b"x-method-override") => Self::MethodOverride,
            19 if is(b"proxy-authorization") => Self::HeaderOnly,
            22 if is(b"x-http-method-override") => Self::MethodOverride,
            _ if begins_with_ours(name) => Self::Ours,
            _ => Self::Plain,
        }
    }

    /// Whether a second header of this kind is refused.
    pub(super) const fn is_single(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::ContentLength
                | Self::TransferEncoding
                | Self::ContentType
                | Self::ContentEncoding
                | Self::Authorization
                | Self::XApiKey
                | Self::ApiKey
                | Self::GoogleApiKey
                | Self::Expect
        )
    }

    /// Whether it may stand in a trailer section.
    pub(super) const fn is_trailer(self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Its place in a set of kinds.
    pub(super) const fn bit(self) -> u32 {
        1 << self as u8
    }
}

const OURS: &[u8] = b"x-bursar-";
const OUR_TAGS: &[u8] = b"x-bursar-tag-";

/// Whether `name` is, with underscores read as hyphens, one of ours.
fn begins_with_ours(name: &[u8]) -> bool {
    matches!(name.first(), Some(b'x' | b'X')) && begins_loosely(name, OURS)
}

fn begins_loosely(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| {
        start.iter().zip(prefix).all(|(&byte, &wanted)| {
            let hyphenated = if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
            hyphenated == wanted
        })
    })
}

/// Refuses one of our names (see [`HeaderKind::Ours`]) spelled with underscores, which other software
/// would take for the hyphenated one. The free part of a tag's name may contain them.
pub(super) fn check_our_name(name: &[u8]) -> Result<(), Rejection> {
    let fixed = if begins_loosely(name, OUR_TAGS) { OUR_TAGS.len() } else { name.len() };
    match memchr::memchr(b'_', name.get(..fixed).unwrap_or(name)) {
        Some(_) => Err(Rejection::UnderscoreName),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_agree_with_the_rfcs() {
        for byte in 0..=255_u8 {
            let alnum = byte.is_ascii_alphanumeric();
            assert_eq!(is(byte, TOKEN), alnum || b"!#$%&'*+-.^_`|~".contains(&byte), "{byte}");
            assert_eq!(is(byte, PATH), alnum || b"-._~!$&'()*+,;=:@/".contains(&byte), "{byte}");
            assert_eq!(is(byte, UNRESERVED), alnum || b"-._~".contains(&byte), "{byte}");
            assert!(!is(byte, QUERY) || byte.is_ascii_graphic());
        }
        for byte in b"\"<>#\\% \x7f" {
            assert!(!is(*byte, QUERY), "{byte}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port() {
        for good in ["a", "api.openai.com", "a:1", "a_b-c", "127.0.0.1:65535", "[::1]", "[::1]:80"] {
            assert_eq!(check_host(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:080",
            "a:+1",
            "a b",
            "a,b",
            "a@b",
            "a/b",
            "a%41",
            "[::1",
            "[::g]",
            "[]",
            "[::1]x",
            "::1",
            "a:1:2",
            "a\t",
            "a;b",
            "[fe80::1%25eth0]",
        ] {
            assert_eq!(check_host(bad.as_bytes()), Err(Rejection::HostInvalid), "{bad}");
        }
    }

    #[test]
    fn lengths_are_plain_decimal_up_to_two_to_the_53rd() {
        for (text, length) in [("0", 0), ("5", 5), ("10", 10), ("9007199254740992", 1 << 53)] {
            assert_eq!(content_length(text.as_bytes()), Ok(length));
        }
        for bad in [
            "",
            "00",
            "010",
            "+5",
            "-5",
            "5 ",
            "5,5",
            "0x5",
            "1e3",
            "9007199254740993",
            "18446744073709551616",
        ] {
            assert_eq!(content_length(bad.as_bytes()), Err(Rejection::ContentLength), "{bad}");
        }
    }

    #[test]
    fn underscores_are_refused_in_our_names_but_not_in_a_tags_free_part() {
        for bad in
            ["x_bursar_team", "X-Bursar_Team", "x_bursar-tag-a", "x-bursar-tag_a", "x-bursar-cost_center"]
        {
            assert_eq!(HeaderKind::of(bad.as_bytes()), HeaderKind::Ours, "{bad}");
            assert_eq!(check_our_name(bad.as_bytes()), Err(Rejection::UnderscoreName), "{bad}");
        }
        for good in ["x-bursar-team", "X-BURSAR-Tag-cost_center", "x-bursar-tag-a"] {
            assert_eq!(HeaderKind::of(good.as_bytes()), HeaderKind::Ours, "{good}");
            assert_eq!(check_our_name(good.as_bytes()), Ok(()), "{good}");
        }
        assert_eq!(HeaderKind::of(b"x_other"), HeaderKind::Plain);
    }
}
