//! One request head, line by line: what each line may be and what the head as a whole must be.
//!
//! Invariants
//! - The verdict depends on the lines alone, in their order; lines are judged as soon as they are whole.
//! - A head that is accepted has exactly one framing.
//!
//! Not here: finding lines in received bytes and their total size (`framing`), byte classes (`grammar`).

use super::grammar::{self, HeaderKind, TOKEN, is};
use super::limits::Limits;
use super::rejection::Rejection;
use super::target::check_target;

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes; zero without a `Content-Length`.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What a whole head says about its message and connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadInfo {
    /// How the body is delimited.
    pub framing: Framing,
    /// There is an `Upgrade` header or a `Connection: upgrade`.
    pub upgrade: bool,
    /// The client waits for `100 Continue`.
    pub expects_continue: bool,
}

/// Whether more lines follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    More,
    Last(HeadInfo),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// GET or HEAD.
    Bodyless,
    Options,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// The head being read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    request_line: Option<(Method, Version)>,
    /// An empty line came before the request line.
    led: bool,
    headers: usize,
    /// Kinds of header seen, as a set of [`HeaderKind::bit`].
    seen: u32,
    length: u64,
    connection_upgrade: bool,
}

impl Head {
    /// Whether the next line is the request line (or the one empty line before it).
    pub(super) const fn expects_request_line(&self) -> bool {
        self.request_line.is_none()
    }

    /// Judges the next line, given without its line end.
    pub(super) fn line(&mut self, line: &[u8], limits: &Limits) -> Result<Line, Rejection> {
        match self.request_line {
            None => self.first_line(line, limits).map(|()| Line::More),
            Some((method, version)) if line.is_empty() => {
                self.finish(method, version, limits).map(Line::Last)
            }
            Some(_) => self.header_line(line, limits).map(|()| Line::More),
        }
    }

    fn first_line(&mut self, line: &[u8], limits: &Limits) -> Result<(), Rejection> {
        if !line.is_empty() {
            self.request_line = Some(request_line(line, limits)?);
        } else if self.led {
            return Err(Rejection::LeadingLines);
        } else {
            self.led = true;
        }
        Ok(())
    }

    fn header_line(&mut self, line: &[u8], limits: &Limits) -> Result<(), Rejection> {
        if self.headers >= limits.headers_max {
            return Err(Rejection::TooManyHeaders);
        }
        self.headers += 1;
        let (name, value) = split_header(line)?;
        let kind = HeaderKind::of(name);
        if kind == HeaderKind::Plain {
            return Ok(());
        }
        if kind.is_single() && self.has(kind) {
            return Err(Rejection::RepeatedHeader);
        }
        self.seen |= kind.bit();
        self.known_header(kind, name, value)
    }

    fn known_header(&mut self, kind: HeaderKind, name: &[u8], value: &[u8]) -> Result<(), Rejection> {
        match kind {
            HeaderKind::Host => grammar::check_host(bare(value)),
            HeaderKind::ContentLength => {
                self.length = grammar::content_length(bare(value))?;
                Ok(())
            }
            HeaderKind::TransferEncoding if !bare(value).eq_ignore_ascii_case(b"chunked") => {
                Err(Rejection::TransferEncoding)
            }
            HeaderKind::Expect if !bare(value).eq_ignore_ascii_case(b"100-continue") => {
                Err(Rejection::Expectation)
            }
            HeaderKind::Connection => {
                self.connection_upgrade |= names_upgrade(value);
                Ok(())
            }
            HeaderKind::Ours => grammar::check_our_name(name),
            _ => Ok(()),
        }
    }

    fn finish(&self, method: Method, version: Version, limits: &Limits) -> Result<HeadInfo, Rejection> {
        let is_chunked = self.has(HeaderKind::TransferEncoding);
        if version == Version::Http11 && !self.has(HeaderKind::Host) {
            return Err(Rejection::HostMissing);
        }
        if is_chunked && self.has(HeaderKind::ContentLength) {
            return Err(Rejection::TransferEncodingWithLength);
        }
        if is_chunked && version == Version::Http10 {
            return Err(Rejection::TransferEncodingVersion);
        }
        if method == Method::Bodyless && !limits.body_of_get && (is_chunked || self.length > 0) {
            return Err(Rejection::UnexpectedBody);
        }
        if self.length > limits.body_bytes_max {
            return Err(Rejection::BodyTooLarge);
        }
        Ok(HeadInfo {
            framing: if is_chunked { Framing::Chunked } else { Framing::Length(self.length) },
            upgrade: self.connection_upgrade || self.has(HeaderKind::Upgrade),
            expects_continue: self.has(HeaderKind::Expect),
        })
    }

    const fn has(&self, kind: HeaderKind) -> bool {
        self.seen & kind.bit() != 0
    }
}

/// The trailer section being read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trailers {
    trailers: usize,
}

impl Trailers {
    /// Judges the next line; `true` when it was the empty last one.
    pub(super) fn line(&mut self, line: &[u8], limits: &Limits) -> Result<bool, Rejection> {
        if line.is_empty() {
            return Ok(true);
        }
        if self.trailers >= limits.trailers_max {
            return Err(Rejection::TooManyTrailers);
        }
        self.trailers += 1;
        let (name, _) = split_header(line)?;
        if HeaderKind::of(name).is_trailer() { Ok(false) } else { Err(Rejection::ForbiddenTrailer) }
    }
}

/// Whether a request can begin with `byte`: anything else (a TLS hello, say) is refused at once.
pub(super) fn may_begin(byte: u8) -> bool {
    is(byte, TOKEN) || byte == b'\r' || byte == b'\n'
}

fn request_line(line: &[u8], limits: &Limits) -> Result<(Method, Version), Rejection> {
    let (method, rest) = split_at_space(line).ok_or(Rejection::RequestLine)?;
    let (target, version) = split_at_space(rest).ok_or(Rejection::RequestLine)?;
    let version = parse_version(version)?;
    let method = parse_method(method)?;
    if target.len() > limits.target_bytes_max {
        return Err(Rejection::TargetTooLong);
    }
    if target.is_empty() {
        return Err(Rejection::RequestLine);
    }
    if !(method == Method::Options && target == b"*") {
        check_target(target)?;
    }
    Ok((method, version))
}

fn split_at_space(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (before, from) = line.split_at_checked(memchr::memchr(b' ', line)?)?;
    Some((before, from.get(1..)?))
}

fn parse_method(method: &[u8]) -> Result<Method, Rejection> {
    match method {
        b"GET" | b"HEAD" => Ok(Method::Bodyless),
        b"POST" | b"PUT" | b"PATCH" | b"DELETE" => Ok(Method::Other),
        b"OPTIONS" => Ok(Method::Options),
        b"CONNECT" | b"TRACE" => Err(Rejection::ForbiddenMethod),
        [_, ..] if method.iter().all(|&byte| is(byte, TOKEN)) => Err(Rejection::UnknownMethod),
        _ => Err(Rejection::RequestLine),
    }
}

fn parse_version(version: &[u8]) -> Result<Version, Rejection> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Rejection::HttpVersion)
        }
        _ => Err(Rejection::RequestLine),
    }
}

/// Splits a header line at its colon and checks both sides.
fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), Rejection> {
    let end = line.iter().position(|&byte| !is(byte, TOKEN)).ok_or(Rejection::HeaderName)?;
    let (name, rest) = line.split_at_checked(end).ok_or(Rejection::HeaderName)?;
    match rest {
        [b' ' | b'\t', ..] if name.is_empty() => Err(Rejection::FoldedHeader),
        [b' ' | b'\t', ..] => Err(Rejection::SpaceBeforeColon),
        [b':', value @ ..] if !name.is_empty() => {
            grammar::check_value(value)?;
            Ok((name, value))
        }
        _ => Err(Rejection::HeaderName),
    }
}

/// A value after at most one space. The headers that decide framing get no more leniency than that.
fn bare(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

fn names_upgrade(value: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}
