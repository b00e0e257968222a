//! The framing of one connection's request stream: where each head, body and chunk begins and ends.
//!
//! A state machine without I/O. The caller shows it all bytes that it has not passed on yet, oldest
//! first, and is told how many of them may pass.
//!
//! Invariants
//! - What passes, and the verdict, depend on the bytes alone, not on how they were cut.
//! - A head or trailer section passes whole or not at all; body bytes pass at once.
//! - Fewer bytes than [`Limits::head_bytes_max`] (or `trailer_bytes_max`) wait at any time.
//!
//! Not here: lines (`head`), buffers and sockets (`io`).

use super::head::{Framing, Head, HeadInfo, Line, Trailers, may_begin};
use super::limits::Limits;
use super::rejection::Rejection;
use super::target::hex_digit;

/// What to do after an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass what may pass, keep the rest, come back with more.
    Continue,
    /// Pass what may pass, then nothing more: the next request has no acceptable head.
    RejectHead(Rejection),
    /// Pass what may pass, then nothing more: the body of the last passed head is broken.
    RejectBody(Rejection),
}

/// The result of an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the window may pass now.
    pub pass: usize,
    /// How many of these belong to bodies.
    pub body: usize,
    /// How many heads end among them.
    pub heads: u32,
    /// Whether anything may follow.
    pub verdict: Verdict,
}

/// Where in its stream of requests a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Before the first byte of a request.
    Between,
    /// In a request head.
    Head,
    /// In a request body or its trailers.
    Body,
}

/// Tracks and checks the requests of one HTTP/1 connection.
#[derive(Debug)]
pub struct Http1Guard {
    limits: Limits,
    stage: Stage,
    lines: Lines,
    last_head: Option<HeadInfo>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Head(Head),
    Body { left: u64 },
    Chunks(Chunks),
    Trailers(Trailers),
    Rejected(Verdict),
}

/// Where in a chunked body we are.
#[derive(Clone, Copy, Debug)]
struct Chunks {
    /// Body bytes announced so far.
    total: u64,
    at: ChunkAt,
}

#[derive(Clone, Copy, Debug)]
enum ChunkAt {
    Size { digits: u8, size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
}

/// Finds lines in bytes that are shown again and again until they may pass.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    /// Where the unfinished line begins.
    start: usize,
    /// Up to where there is no further line end.
    searched: usize,
}

/// What one stage makes of its bytes.
enum Advance {
    Hold,
    Pass(usize),
}

impl Http1Guard {
    /// A guard for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, stage: Stage::Head(Head::default()), lines: Lines::default(), last_head: None }
    }

    /// Inspects `window`: the bytes that were not allowed to pass last time, followed by new ones.
    pub fn inspect(&mut self, window: &[u8]) -> Step {
        let mut step = Step { pass: 0, body: 0, heads: 0, verdict: Verdict::Continue };
        loop {
            if let Stage::Rejected(verdict) = self.stage {
                return Step { verdict, ..step };
            }
            let rest = window.get(step.pass..).unwrap_or_default();
            match self.advance(rest, &mut step) {
                Advance::Hold => return step,
                Advance::Pass(count) => step.pass += count,
            }
        }
    }

    /// Where the connection is after the last inspection.
    #[must_use]
    pub fn position(&self) -> Position {
        match self.stage {
            Stage::Head(_) if self.lines.searched == 0 => Position::Between,
            Stage::Head(_) => Position::Head,
            Stage::Body { .. } | Stage::Chunks(_) | Stage::Trailers(_) => Position::Body,
            Stage::Rejected(_) => Position::Between,
        }
    }

    /// The last head that passed.
    #[must_use]
    pub const fn last_head(&self) -> Option<HeadInfo> {
        self.last_head
    }

    fn advance(&mut self, rest: &[u8], step: &mut Step) -> Advance {
        match self.stage {
            Stage::Head(head) => self.advance_head(head, rest, step),
            Stage::Body { left } => self.advance_body(left, rest, step),
            Stage::Chunks(chunks) => self.advance_chunks(chunks, rest, step),
            Stage::Trailers(trailers) => self.advance_trailers(trailers, rest, step),
            Stage::Rejected(_) => Advance::Hold,
        }
    }

    fn advance_head(&mut self, mut head: Head, rest: &[u8], step: &mut Step) -> Advance {
        match self.read_head(&mut head, rest) {
            Err(rejection) => self.reject(Verdict::RejectHead(rejection)),
            Ok(None) => {
                self.stage = Stage::Head(head);
                Advance::Hold
            }
            Ok(Some(info)) => {
                self.last_head = Some(info);
                step.heads = step.heads.saturating_add(1);
                self.stage = match info.framing {
                    Framing::Length(0) => Stage::Head(Head::default()),
                    Framing::Length(left) => Stage::Body { left },
                    Framing::Chunked => Stage::Chunks(Chunks { total: 0, at: ChunkAt::SIZE }),
                };
                Advance::Pass(self.lines.take())
            }
        }
    }

    fn read_head(&mut self, head: &mut Head, rest: &[u8]) -> Result<Option<HeadInfo>, Rejection> {
        loop {
            let is_first = head.expects_request_line();
            if is_first && rest.get(self.lines.start).is_some_and(|&byte| !may_begin(byte)) {
                return Err(Rejection::RequestLine);
            }
            let too_long = if is_first { Rejection::TargetTooLong } else { Rejection::HeadTooLarge };
            let Some(line) = self.lines.next(rest, self.limits.head_bytes_max, too_long)? else {
                return Ok(None);
            };
            if let Line::Last(info) = head.line(line, &self.limits)? {
                return Ok(Some(info));
            }
        }
    }

    fn advance_body(&mut self, left: u64, rest: &[u8], step: &mut Step) -> Advance {
        let count = take(left, rest);
        step.body += count;
        self.stage = match left - count as u64 {
            0 => Stage::Head(Head::default()),
            left => Stage::Body { left },
        };
        pass_or_hold(count)
    }

    fn advance_chunks(&mut self, mut chunks: Chunks, rest: &[u8], step: &mut Step) -> Advance {
        let mut count = 0;
        let outcome = loop {
            match chunks.advance(rest.get(count..).unwrap_or_default(), self.limits.body_bytes_max) {
                Ok(ChunkStep::Took(0)) => break Ok(Stage::Chunks(chunks)),
                Ok(ChunkStep::Took(more)) => count += more,
                Ok(ChunkStep::LastSize) => {
                    count += 1;
                    break Ok(Stage::Trailers(Trailers::default()));
                }
                Err(rejection) => break Err(rejection),
            }
        };
        step.body += count;
        match outcome {
            Ok(stage) => self.stage = stage,
            Err(rejection) => {
                self.stage = Stage::Rejected(Verdict::RejectBody(rejection));
                return Advance::Pass(count);
            }
        }
        pass_or_hold(count)
    }

    fn advance_trailers(&mut self, mut trailers: Trailers, rest: &[u8], step: &mut Step) -> Advance {
        match self.read_trailers(&mut trailers, rest) {
            Err(rejection) => self.reject(Verdict::RejectBody(rejection)),
            Ok(false) => {
                self.stage = Stage::Trailers(trailers);
                Advance::Hold
            }
            Ok(true) => {
                self.stage = Stage::Head(Head::default());
                let count = self.lines.take();
                step.body += count;
                Advance::Pass(count)
            }
        }
    }

    fn read_trailers(&mut self, trailers: &mut Trailers, rest: &[u8]) -> Result<bool, Rejection> {
        let max = self.limits.trailer_bytes_max;
        while let Some(line) = self.lines.next(rest, max, Rejection::TrailersTooLarge)? {
            if trailers.line(line, &self.limits)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn reject(&mut self, verdict: Verdict) -> Advance {
        self.stage = Stage::Rejected(verdict);
        Advance::Pass(0)
    }
}

// === impl Lines ===

impl Lines {
    /// The next whole line of `section`, without its line end.
    ///
    /// The section may grow to `bytes_max`; beyond that the answer is `too_long`.
    fn next<'a>(
        &mut self,
        section: &'a [u8],
        bytes_max: usize,
        too_long: Rejection,
    ) -> Result<Option<&'a [u8]>, Rejection> {
        let unsearched = section.get(self.searched..).unwrap_or_default();
        let Some(at) = memchr::memchr(b'\n', unsearched) else {
            self.searched = section.len();
            return if section.len() < bytes_max { Ok(None) } else { Err(too_long) };
        };
        let line_feed = self.searched + at;
        if line_feed >= bytes_max {
            return Err(too_long);
        }
        let line = section.get(self.start..line_feed).unwrap_or_default();
        self.start = line_feed + 1;
        self.searched = self.start;
        line.strip_suffix(b"\r").map(Some).ok_or(Rejection::LineEnding)
    }

    /// Ends the section; returns its length.
    fn take(&mut self) -> usize {
        std::mem::take(self).start
    }
}

// === impl Chunks ===

enum ChunkStep {
    /// This many bytes are fine; none means more are needed.
    Took(usize),
    /// The line feed after the size of the last chunk.
    LastSize,
}

impl ChunkAt {
    const SIZE: Self = Self::Size { digits: 0, size: 0 };
}

impl Chunks {
    fn advance(&mut self, rest: &[u8], body_bytes_max: u64) -> Result<ChunkStep, Rejection> {
        let Some(&byte) = rest.first() else { return Ok(ChunkStep::Took(0)) };
        self.at = match self.at {
            ChunkAt::Data { left } => {
                let count = take(left, rest);
                let left = left - count as u64;
                self.at = if left == 0 { ChunkAt::DataCr } else { ChunkAt::Data { left } };
                return Ok(ChunkStep::Took(count));
            }
            ChunkAt::Size { digits, size } => size_byte(digits, size, byte)?,
            ChunkAt::SizeLf { .. } if byte != b'\n' => return Err(Rejection::ChunkSize),
            ChunkAt::SizeLf { size: 0 } => return Ok(ChunkStep::LastSize),
            ChunkAt::SizeLf { size } => {
                self.total += size;
                if self.total > body_bytes_max {
                    return Err(Rejection::BodyTooLarge);
                }
                ChunkAt::Data { left: size }
            }
            ChunkAt::DataCr if byte == b'\r' => ChunkAt::DataLf,
            ChunkAt::DataLf if byte == b'\n' => ChunkAt::SIZE,
            ChunkAt::DataCr | ChunkAt::DataLf => return Err(Rejection::ChunkEnd),
        };
        Ok(ChunkStep::Took(1))
    }
}

fn size_byte(digits: u8, size: u64, byte: u8) -> Result<ChunkAt, Rejection> {
    const DIGITS_MAX: u8 = 8;
    match (byte, hex_digit(byte)) {
        (_, Some(digit)) if digits < DIGITS_MAX => {
            Ok(ChunkAt::Size { digits: digits + 1, size: size << 4 | u64::from(digit) })
        }
        (b'\r', _) if digits > 0 => Ok(ChunkAt::SizeLf { size }),
        (b';' | b' ' | b'\t', _) if digits > 0 => Err(Rejection::ChunkExtension),
        _ => Err(Rejection::ChunkSize),
    }
}

/// How many of `rest` belong to the next `left` bytes.
fn take(left: u64, rest: &[u8]) -> usize {
    usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()))
}

const fn pass_or_hold(count: usize) -> Advance {
    if count == 0 { Advance::Hold } else { Advance::Pass(count) }
}

#[cfg(test)]
mod tests;
