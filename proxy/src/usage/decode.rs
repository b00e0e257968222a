//! The side decoder: reads compressed bodies for the meter. What is forwarded stays as it was sent.
//!
//! Invariants
//! - Decoded bytes come in pieces of at most 16 KiB; nothing is collected.
//! - A body that inflates beyond [`DECODED_BYTES_MAX`] and [`RATIO_MAX`] at once stops the meter, as
//!   does a window of zstd or brotli above 8 MiB: the meter says that it was capped.
//! - A body that ends early gives everything that could be decoded so far.
//!
//! Not here: what happens to a capped body (`usage::ReplyMeter`, `request`).

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as Zstd, InBuffer, Operation, OutBuffer};

/// Decoded bytes up to which any ratio is fine.
pub const DECODED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The largest ratio of decoded to encoded bytes beyond [`DECODED_BYTES_MAX`].
pub const RATIO_MAX: u64 = 100;
/// Binary logarithm of the largest zstd window: 8 MiB, as RFC 9659 recommends for HTTP.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Most codings that are undone one after another.
const CODINGS_MAX: usize = 3;
/// How a brotli stream begins whose window has 16 MiB, the only size above 8 MiB (RFC 7932 §9.1).
const BROTLI_WINDOW_16_MIB: u8 = 0b1111;
const PIECE_BYTES: usize = 16 * 1024;

/// A content encoding that the meter cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content encoding is not one the meter can read")]
pub struct UnknownEncoding;

/// Undoes the codings of one body.
pub struct Decoder {
    /// Outermost first.
    stages: Vec<Stage>,
    budget: Budget,
    stopped: bool,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("stages", &self.stages.len()).field("stopped", &self.stopped).finish()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    encoded: u64,
    decoded: u64,
}

impl Budget {
    fn spend(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.decoded = self.decoded.saturating_add(bytes as u64);
        let allowed = self.encoded.saturating_mul(RATIO_MAX).max(DECODED_BYTES_MAX);
        if self.decoded > allowed { Err(Stopped) } else { Ok(()) }
    }
}

/// The body cannot be decoded any further.
struct Stopped;

impl Decoder {
    /// A decoder for the value of a `content-encoding` header; `None` when nothing is encoded.
    pub fn new(content_encoding: &str) -> Result<Option<Self>, UnknownEncoding> {
        let mut stages = Vec::new();
        for coding in content_encoding.split(',').map(str::trim).rev() {
            match coding.to_ascii_lowercase().as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" => stages.push(Stage::gzip()),
                "deflate" => stages.push(Stage::deflate()),
                "br" => stages.push(Stage::brotli()),
                "zstd" => stages.push(Stage::zstd()?),
                _ => return Err(UnknownEncoding),
            }
        }
        if stages.len() > CODINGS_MAX {
            return Err(UnknownEncoding);
        }
        Ok((!stages.is_empty()).then_some(Self { stages, budget: Budget::default(), stopped: false }))
    }

    /// Decodes `bytes` and hands what comes out to `sink`.
    pub fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) {
        if self.stopped || bytes.is_empty() {
            return;
        }
        self.budget.encoded = self.budget.encoded.saturating_add(bytes.len() as u64);
        if push(&mut self.stages, bytes, &mut self.budget, &mut sink).is_err() {
            self.stopped = true;
        }
    }

    /// Whether decoding stopped before the end of the input: damaged data, or too much of it.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// Runs `input` through the first stage and its output through the others.
fn push(
    stages: &mut [Stage],
    input: &[u8],
    budget: &mut Budget,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<(), Stopped> {
    let Some((first, rest)) = stages.split_first_mut() else {
        sink(input);
        return Ok(());
    };
    let Stage { codec, piece } = first;
    if piece.is_empty() {
        piece.resize(PIECE_BYTES, 0);
    }
    let mut input = input;
    loop {
        let step = codec.step(input, piece)?;
        input = input.get(step.read..).unwrap_or_default();
        if step.written > 0 {
            budget.spend(step.written)?;
            push(rest, piece.get(..step.written).unwrap_or_default(), budget, sink)?;
        }
        if step.damaged {
            return Err(Stopped);
        }
        let stuck = step.read == 0 && step.written == 0;
        if stuck || (input.is_empty() && step.written < piece.len()) {
            return Ok(());
        }
    }
}

struct Stage {
    codec: Codec,
    piece: Vec<u8>,
}

impl Stage {
    fn of(codec: Codec) -> Self {
        Self { codec, piece: Vec::new() }
    }

    fn gzip() -> Self {
        Self::of(Codec::Gzip { inflate: Decompress::new(false), part: GzipPart::Head(GzipHead::default()) })
    }

    fn deflate() -> Self {
        Self::of(Codec::Deflate { inflate: None, first: None })
    }

    fn brotli() -> Self {
        let alloc = StandardAlloc::default;
        let state = Box::new(BrotliState::new_strict(alloc(), alloc(), alloc()));
        Self::of(Codec::Brotli { state, has_begun: false })
    }

    fn zstd() -> Result<Self, UnknownEncoding> {
        let mut zstd = Zstd::new().map_err(|_| UnknownEncoding)?;
        zstd.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(|_| UnknownEncoding)?;
        Ok(Self::of(Codec::Zstd(zstd)))
    }
}

enum Codec {
    Gzip {
        inflate: Decompress,
        part: GzipPart,
    },
    /// `inflate` is known after the first two bytes: `deflate` means zlib (RFC 9110), but some
    /// servers send it raw.
    Deflate {
        inflate: Option<Decompress>,
        first: Option<u8>,
    },
    Brotli {
        state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
        has_begun: bool,
    },
    Zstd(Zstd<'static>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Step {
    read: usize,
    written: usize,
    /// The data is damaged behind what was written.
    damaged: bool,
}

impl Codec {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Stopped> {
        match self {
            Self::Gzip { inflate, part } => gzip_step(inflate, part, input, output),
            Self::Deflate { inflate, first } => deflate_step(inflate, first, input, output),
            Self::Brotli { state, has_begun } => {
                if let Some(first) = input.first().filter(|_| !*has_begun) {
                    if first & BROTLI_WINDOW_16_MIB == BROTLI_WINDOW_16_MIB {
                        return Err(Stopped);
                    }
                    *has_begun = true;
                }
                let (mut available_in, mut read) = (input.len(), 0);
                let (mut available_out, mut written, mut total) = (output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut available_in,
                    &mut read,
                    input,
                    &mut available_out,
                    &mut written,
                    output,
                    &mut total,
                    state,
                );
                Ok(Step { read, written, damaged: matches!(result, BrotliResult::ResultFailure) })
            }
            Self::Zstd(zstd) => {
                let (mut source, mut target) = (InBuffer::around(input), OutBuffer::around(output));
                zstd.run(&mut source, &mut target).map_err(|_| Stopped)?;
                Ok(Step { read: source.pos(), written: target.pos(), damaged: false })
            }
        }
    }
}

/// One step of inflating, and whether the stream ended with it.
fn inflate_step(inflate: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<(Step, bool), Stopped> {
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, output, FlushDecompress::None);
    let step = Step {
        read: usize::try_from(inflate.total_in().wrapping_sub(read)).map_err(|_| Stopped)?,
        written: usize::try_from(inflate.total_out().wrapping_sub(written)).map_err(|_| Stopped)?,
        damaged: status.is_err(),
    };
    Ok((step, matches!(status, Ok(Status::StreamEnd))))
}

fn deflate_step(
    inflate: &mut Option<Decompress>,
    first: &mut Option<u8>,
    input: &[u8],
    output: &mut [u8],
) -> Result<Step, Stopped> {
    if let Some(inflate) = inflate {
        return inflate_step(inflate, input, output).map(|(step, _)| step);
    }
    let Some((byte, _)) = input.split_first() else { return Ok(Step::default()) };
    let Some(head) = *first else {
        *first = Some(*byte);
        return Ok(Step { read: 1, ..Step::default() });
    };
    let check = u32::from(head) * 256 + u32::from(*byte);
    let zlib = head & 0x0F == 8 && check.is_multiple_of(31);
    let inflate = inflate.insert(Decompress::new(zlib));
    let (held, _) = inflate_step(inflate, &[head], output)?;
    // The held byte alone yields nothing; go on with the rest so that this step is progress.
    let (next, _) = inflate_step(inflate, input, output.get_mut(held.written..).unwrap_or_default())?;
    Ok(Step { written: held.written + next.written, damaged: held.damaged || next.damaged, ..next })
}

/// Parts of a gzip member (RFC 1952).
enum GzipPart {
    Head(GzipHead),
    Data,
    /// The trailer, with the bytes of it that are still to come.
    Trailer(u8),
    /// After a trailer: another member begins, or padding that is none of ours.
    Between,
    Padding,
}

#[derive(Default)]
struct GzipHead {
    read: usize,
    flags: u8,
    extra_left: Option<u16>,
    extra_low: Option<u8>,
}

impl GzipHead {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const CHECKSUM: u8 = 2;

    /// Takes one byte; `true` when the head is complete with it.
    fn take(&mut self, byte: u8) -> Result<bool, Stopped> {
        self.read = self.read.saturating_add(1);
        match (self.read, byte) {
            (1, 0x1F) | (2, 0x8B) | (3, 8) => return Ok(false),
            (1..=3, _) => return Err(Stopped),
            (4, flags) => {
                self.flags = flags;
                return Ok(false);
            }
            (5..=9, _) => return Ok(false),
            (10, _) => return Ok(self.is_done()),
            _ => {}
        }
        if self.flags & Self::EXTRA != 0 {
            self.take_extra(byte);
        } else if self.flags & Self::NAME != 0 {
            self.take_text(byte, Self::NAME);
        } else if self.flags & Self::COMMENT != 0 {
            self.take_text(byte, Self::COMMENT);
        } else {
            // Two bytes of checksum: the flag goes with the second.
            match self.extra_low.take() {
                None => self.extra_low = Some(byte),
                Some(_) => self.flags &= !Self::CHECKSUM,
            }
        }
        Ok(self.is_done())
    }

    fn take_extra(&mut self, byte: u8) {
        self.extra_left = match (self.extra_left, self.extra_low) {
            (None, None) => {
                self.extra_low = Some(byte);
                None
            }
            (None, Some(low)) => Some(u16::from_le_bytes([low, byte])),
            (Some(left), _) => Some(left.saturating_sub(1)),
        };
        if self.extra_left == Some(0) {
            self.flags &= !Self::EXTRA;
            self.extra_low = None;
        }
    }

    fn take_text(&mut self, byte: u8, flag: u8) {
        if byte == 0 {
            self.flags &= !flag;
        }
    }

    fn is_done(&self) -> bool {
        self.flags & (Self::EXTRA | Self::NAME | Self::COMMENT | Self::CHECKSUM) == 0
    }
}

fn gzip_step(
    inflate: &mut Decompress,
    part: &mut GzipPart,
    input: &[u8],
    output: &mut [u8],
) -> Result<Step, Stopped> {
    let mut read = 0;
    loop {
        match part {
            GzipPart::Data => {
                let (step, ended) = inflate_step(inflate, input.get(read..).unwrap_or_default(), output)?;
                if ended {
                    *part = GzipPart::Trailer(8);
                }
                return Ok(Step { read: read + step.read, ..step });
            }
            GzipPart::Head(head) => {
                let Some(byte) = input.get(read) else { return Ok(Step { read, ..Step::default() }) };
                read += 1;
                if head.take(*byte)? {
                    inflate.reset(false);
                    *part = GzipPart::Data;
                }
            }
            GzipPart::Trailer(left) => {
                if input.get(read).is_none() {
                    return Ok(Step { read, ..Step::default() });
                }
                read += 1;
                *left = left.saturating_sub(1);
                if *left == 0 {
                    *part = GzipPart::Between;
                }
            }
            GzipPart::Between => match input.get(read) {
                None => return Ok(Step { read, ..Step::default() }),
                Some(0x1F) => *part = GzipPart::Head(GzipHead::default()),
                Some(_) => *part = GzipPart::Padding,
            },
            GzipPart::Padding => return Ok(Step { read: input.len(), ..Step::default() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Write;

    fn text() -> Vec<u8> {
        (0..4_000_u32)
            .flat_map(|n| format!("line {} of nothing in particular\n", n * n).into_bytes())
            .collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn encode(coding: &str, bytes: &[u8]) -> Vec<u8> {
        match coding {
            "gzip" => gzip(bytes),
            "zlib" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "raw" => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "zstd" => zstd::encode_all(bytes, 3).unwrap(),
            other => panic!("{other}"),
        }
    }

    fn decode(header: &str, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut decoder = Decoder::new(header).unwrap().unwrap();
        let mut out = Vec::new();
        for piece in pieces {
            decoder.feed(piece, |bytes| out.extend_from_slice(bytes));
        }
        (out, decoder.is_stopped())
    }

    fn check(header: &str, encoded: &[u8], expected: &[u8]) {
        for size in [1, 7, 1_000, encoded.len()] {
            let pieces: Vec<&[u8]> = encoded.chunks(size).collect();
            let (out, stopped) = decode(header, &pieces);
            assert!(out == expected && !stopped, "{header} in pieces of {size}");
        }
    }

    #[test]
    fn every_coding_gives_the_text_back_in_any_pieces() {
        let text = text();
        check("gzip", &encode("gzip", &text), &text);
        check("X-GZip", &encode("gzip", &text), &text);
        check("deflate", &encode("zlib", &text), &text);
        check("deflate", &encode("raw", &text), &text);
        check("zstd", &encode("zstd", &text), &text);
        check("gzip, zstd", &encode("zstd", &encode("gzip", &text)), &text);
        check("identity, gzip", &encode("gzip", &text), &text);
    }

    #[test]
    fn brotli_gives_the_text_back_in_any_pieces() {
        // "hello hello hello" by the reference encoder.
        let encoded = [0x1b, 0x10, 0x00, 0x00, 0xa4, 0xb0, 0xb2, 0x6a, 0x81, 0x91, 0x0d, 0x12];
        for size in [1, 3, encoded.len()] {
            let pieces: Vec<&[u8]> = encoded.chunks(size).collect();
            let (out, _) = decode("br", &pieces);
            // The exact stream is checked by the property that pieces do not matter.
            assert_eq!(out, decode("br", &[&encoded]).0);
        }
        // An uncompressed meta-block: any decoder must give it back.
        let stored = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(decode("br", &[&stored]), (b"hello".to_vec(), false));
        let pieces: Vec<&[u8]> = stored.chunks(1).collect();
        assert_eq!(decode("br", &pieces), (b"hello".to_vec(), false));
    }

    #[test]
    fn gzip_members_and_optional_head_fields_are_read() {
        let text = text();
        let mut two = gzip(&text);
        two.extend(gzip(b"more"));
        let mut expected = text.clone();
        expected.extend(b"more");
        check("gzip", &two, &expected);
        two.extend([0; 20]);
        check("gzip", &two, &expected);

        let plain = gzip(b"hello");
        let mut dressed = vec![0x1F, 0x8B, 8, 4 | 8 | 16 | 2, 0, 0, 0, 0, 0, 3];
        dressed.extend([3, 0, 1, 2, 3]);
        dressed.extend(b"name\0comment\0");
        dressed.extend([9, 9]);
        dressed.extend(plain.get(10..).unwrap());
        check("gzip", &dressed, b"hello");
    }

    #[test]
    fn a_truncated_body_gives_what_was_decodable() {
        let text = text();
        for coding in ["gzip", "zlib", "raw", "zstd"] {
            let encoded = encode(coding, &text);
            let header = if coding == "zlib" || coding == "raw" { "deflate" } else { coding };
            let half = encoded.get(..encoded.len() / 2).unwrap();
            let (out, stopped) = decode(header, &[half]);
            assert!(!stopped && text.starts_with(&out), "{coding}");
            // Zstandard gives whole blocks only, and this text is one or two.
            assert!(coding == "zstd" || out.len() > text.len() / 4, "{coding}: {} bytes", out.len());
        }
    }

    #[test]
    fn damaged_and_unknown_codings_stop_the_meter_only() {
        let mut damaged = gzip(&text());
        damaged.truncate(10);
        damaged.extend([0xFF; 400]);
        assert!(decode("gzip", &[&damaged]).1);
        assert!(decode("gzip", &[b"no gzip at all"]).1);
        assert!(decode("zstd", &[b"no zstd at all"]).1);
        assert_eq!(Decoder::new("compress").unwrap_err(), UnknownEncoding);
        assert_eq!(Decoder::new("gzip,gzip,gzip,gzip").unwrap_err(), UnknownEncoding);
        assert!(Decoder::new("identity").unwrap().is_none());
        assert!(Decoder::new("").unwrap().is_none());
    }

    #[test]
    fn a_bomb_stops_the_meter_at_the_cap() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..80 {
            encoder.write_all(&vec![0; 1024 * 1024]).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let mut decoder = Decoder::new("gzip").unwrap().unwrap();
        let (mut total, mut largest) = (0, 0);
        decoder.feed(&bomb, |piece| {
            total += piece.len();
            largest = largest.max(piece.len());
        });
        assert!(decoder.is_stopped());
        assert!(total as u64 <= DECODED_BYTES_MAX && largest <= PIECE_BYTES);
    }

    #[test]
    fn a_brotli_window_above_the_limit_is_refused_and_one_at_it_is_not() {
        // 32 MiB of spaces (`brotli -q 11`) with a window of 4 MiB; then the size alone is another.
        let bytes = "cbffff3ff82540e2b14020f7fe8fffff7ff04b00c4611180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0110870500baf77f03";
        let digit = |at: usize| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap();
        let spaces: Vec<u8> = (0..bytes.len()).step_by(2).map(digit).collect();
        for (window_bits, expected) in [(22, Some(32 << 20)), (23, Some(32 << 20)), (24, None)] {
            let mut spaces = spaces.clone();
            spaces[0] = (spaces[0] & 0xF0) | 1 | ((window_bits - 17) << 1);
            let mut decoder = Decoder::new("br").unwrap().unwrap();
            let mut decoded = 0_usize;
            decoder.feed(&spaces, |piece| decoded += piece.len());
            assert_eq!(decoder.is_stopped(), expected.is_none(), "{window_bits}");
            assert_eq!(decoded, expected.unwrap_or(0), "{window_bits}");
        }
    }

    #[test]
    fn a_zstd_window_above_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(25)).unwrap();
        encoder.write_all(&text()).unwrap();
        let encoded = encoder.finish().unwrap();
        assert!(decode("zstd", &[&encoded]).1);
    }
}
