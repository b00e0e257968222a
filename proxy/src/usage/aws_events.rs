//! AWS event-stream framing (`application/vnd.amazon.eventstream`): bytes into checked messages.
//!
//! A message is a prelude (total length, length of the headers, CRC-32 of these eight bytes), headers,
//! a payload, and the CRC-32 of everything before it; all numbers are big-endian (AWS, "Event stream
//! encoding"; Smithy, `application/vnd.amazon.eventstream`).
//!
//! Invariants
//! - A message is shown only after both checksums were found right. After a wrong one nothing more is
//!   read: where the next message begins is not known.
//! - A message over [`MESSAGE_BYTES_MAX`] is stepped over, not collected; its checksums still count.
//! - How the bytes are cut into slices never changes what is shown.
//!
//! Not here: what messages mean (`bedrock`).

use crc32fast::Hasher;

/// Longest message that is read, the same as for other events. A longer one is stepped over.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

/// Receives the messages.
pub trait Messages {
    /// One message, complete and with the right checksums.
    fn message(&mut self, message: &Message<'_>);
}

/// A message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The text of the header called `name`, if there is such a header and it holds text.
    #[must_use]
    pub fn text(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut headers = Headers(self.headers);
        headers.find_map(|(known, value)| if known == name { value } else { None })
    }

    /// Whether the headers are well formed.
    #[must_use]
    pub fn has_sound_headers(&self) -> bool {
        let mut headers = Headers(self.headers);
        headers.by_ref().for_each(drop);
        headers.0.is_empty()
    }
}

/// Walks over headers: names, with the value of those that hold text. Stops at the first that is not
/// well formed, and then has bytes left.
struct Headers<'a>(&'a [u8]);

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        const TEXT: u8 = 7;
        let (name_length, rest) = self.0.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*name_length))?;
        let (kind, rest) = rest.split_first()?;
        let (length, rest) = match *kind {
            0 | 1 => (0, rest),
            2 => (1, rest),
            3 => (2, rest),
            4 => (4, rest),
            5 | 8 => (8, rest),
            6 | TEXT => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            9 => (16, rest),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((name, (*kind == TEXT).then_some(value)))
    }
}

/// The lengths that a prelude states, once its checksum was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lengths {
    total: usize,
    headers: usize,
}

impl Lengths {
    /// Reads the prelude at the start of `bytes`; `None` when it is damaged.
    fn read(bytes: &[u8; PRELUDE_BYTES]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, checksum @ ..] = *bytes;
        if crc32fast::hash(&[a, b, c, d, e, f, g, h]) != u32::from_be_bytes(checksum) {
            return None;
        }
        let total = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        let headers = usize::try_from(u32::from_be_bytes([e, f, g, h])).ok()?;
        let room = total.checked_sub(PRELUDE_BYTES + CHECKSUM_BYTES)?;
        (headers <= room).then_some(Self { total, headers })
    }
}

#[derive(Debug, Default)]
enum State {
    /// Collecting a message; its lengths are known once its prelude is there.
    #[default]
    Collecting,
    /// Stepping over a message that is too long.
    Passing { left: usize, sum: Hasher },
    /// Something was damaged.
    Stopped,
}

/// The framing machine.
#[derive(Debug, Default)]
pub struct AwsEvents {
    state: State,
    /// The beginning of a message that is not complete yet.
    begun: Vec<u8>,
    passed_over: bool,
}

impl AwsEvents {
    /// Walks on over `bytes`.
    pub fn feed<M: Messages>(&mut self, bytes: &[u8], messages: &mut M) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = match &mut self.state {
                State::Stopped => return,
                State::Passing { .. } => self.pass(rest),
                State::Collecting if self.begun.is_empty() => self.in_place(rest, messages),
                State::Collecting => self.collect(rest, messages),
            };
        }
    }

    /// Whether a checksum or a length was wrong, so that nothing more is read.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// Whether a message was too long to be read.
    #[must_use]
    pub fn passed_over(&self) -> bool {
        self.passed_over
    }

    /// Takes a message that lies whole in `bytes` without copying it; else begins to collect it.
    fn in_place<'b, M: Messages>(&mut self, bytes: &'b [u8], messages: &mut M) -> &'b [u8] {
        let Some(prelude) = bytes.first_chunk() else {
            self.begun.extend_from_slice(bytes);
            return &[];
        };
        let Some(lengths) = Lengths::read(prelude) else { return self.stop() };
        if lengths.total > MESSAGE_BYTES_MAX {
            self.start_passing(lengths.total, &[]);
            return bytes;
        }
        let Some((message, rest)) = bytes.split_at_checked(lengths.total) else {
            self.begun.extend_from_slice(bytes);
            return &[];
        };
        if show(message, lengths, messages) { rest } else { self.stop() }
    }

    /// Collects up to the end of the prelude, or else of the message.
    fn collect<'b, M: Messages>(&mut self, bytes: &'b [u8], messages: &mut M) -> &'b [u8] {
        let wanted = match self.begun.first_chunk() {
            None => PRELUDE_BYTES,
            Some(prelude) => match Lengths::read(prelude) {
                Some(lengths) => lengths.total,
                None => return self.stop(),
            },
        };
        let missing = wanted.saturating_sub(self.begun.len());
        let (piece, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        self.begun.extend_from_slice(piece);
        let Some(prelude) = self.begun.first_chunk() else { return rest };
        let Some(lengths) = Lengths::read(prelude) else { return self.stop() };
        if lengths.total > MESSAGE_BYTES_MAX {
            let begun = std::mem::take(&mut self.begun);
            self.start_passing(lengths.total, &begun);
        } else if self.begun.len() >= lengths.total {
            if !show(&self.begun, lengths, messages) {
                return self.stop();
            }
            self.begun.clear();
        }
        rest
    }

    fn start_passing(&mut self, total: usize, begun: &[u8]) {
        self.passed_over = true;
        let mut sum = Hasher::new();
        sum.update(begun);
        self.state = State::Passing { left: total.saturating_sub(begun.len()), sum };
    }

    /// Steps over a message, keeping nothing but its sum and, at the end, its checksum.
    fn pass<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let State::Passing { left, sum } = &mut self.state else { return bytes };
        let body = left.saturating_sub(CHECKSUM_BYTES).min(bytes.len());
        let (piece, rest) = bytes.split_at_checked(body).unwrap_or((bytes, &[]));
        sum.update(piece);
        *left = left.saturating_sub(piece.len());
        let end = (*left).min(rest.len());
        let (piece, rest) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        self.begun.extend_from_slice(piece);
        *left = left.saturating_sub(piece.len());
        if *left == 0 {
            let right = std::mem::take(sum).finalize().to_be_bytes();
            if self.begun != right {
                return self.stop();
            }
            self.begun.clear();
            self.state = State::Collecting;
        }
        rest
    }

    fn stop<'b>(&mut self) -> &'b [u8] {
        self.begun = Vec::new();
        self.state = State::Stopped;
        &[]
    }
}

/// Shows a complete message; `false` when its checksum is wrong.
fn show<M: Messages>(message: &[u8], lengths: Lengths, messages: &mut M) -> bool {
    let Some((body, checksum)) = message.split_last_chunk::<CHECKSUM_BYTES>() else { return false };
    if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
        return false;
    }
    let parts = body.get(PRELUDE_BYTES..).and_then(|parts| parts.split_at_checked(lengths.headers));
    let Some((headers, payload)) = parts else { return false };
    messages.message(&Message { headers, payload });
    true
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message with these headers of text and this payload.
    pub(in crate::usage) fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        for (name, value) in headers {
            lines.push(u8::try_from(name.len()).unwrap());
            lines.extend_from_slice(name.as_bytes());
            lines.push(7);
            lines.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
            lines.extend_from_slice(value.as_bytes());
        }
        raw(&lines, payload)
    }

    fn raw(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let total = u32::try_from(headers.len() + payload.len() + 16).unwrap();
        let mut bytes = total.to_be_bytes().to_vec();
        bytes.extend_from_slice(&u32::try_from(headers.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        bytes.extend_from_slice(headers);
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        messages: Vec<(Option<String>, usize, Vec<u8>)>,
        damaged: bool,
        passed_over: bool,
    }

    impl Messages for Seen {
        fn message(&mut self, message: &Message<'_>) {
            let name = message.text(b":event-type").map(|text| String::from_utf8(text.to_vec()).unwrap());
            let sound = usize::from(message.has_sound_headers());
            self.messages.push((name, sound, message.payload.to_vec()));
        }
    }

    fn read(bytes: &[u8], size: usize) -> Seen {
        let (mut events, mut seen) = (AwsEvents::default(), Seen::default());
        for piece in bytes.chunks(size) {
            events.feed(piece, &mut seen);
        }
        (seen.damaged, seen.passed_over) = (events.is_damaged(), events.passed_over());
        seen
    }

    fn check(bytes: &[u8], expected: &[&[u8]], damaged: bool, passed_over: bool) {
        let seen = read(bytes, usize::MAX);
        let payloads: Vec<&[u8]> = seen.messages.iter().map(|(_, _, payload)| payload.as_slice()).collect();
        assert_eq!(payloads, expected);
        assert_eq!((seen.damaged, seen.passed_over), (damaged, passed_over));
        for size in [1, 2, 3, 7, 11, 12, 13, 17, 4096] {
            assert_eq!(read(bytes, size), seen, "pieces of {size}");
        }
    }

    fn event(payload: &[u8]) -> Vec<u8> {
        message(&[(":message-type", "event"), (":event-type", "chunk")], payload)
    }

    #[test]
    fn the_published_empty_message_is_read() {
        // The smallest message of the encoding's own test suite: no headers, no payload.
        let bytes = [0, 0, 0, 0x10, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        check(&bytes, &[b""], false, false);
    }

    #[test]
    fn messages_come_whole_and_in_order() {
        let bytes = [event(b"one"), event(b""), event(&[7; 3_000])].concat();
        check(&bytes, &[b"one", b"", &[7; 3_000]], false, false);
        assert_eq!(read(&bytes, 5).messages.first().unwrap().0.as_deref(), Some("chunk"));
    }

    #[test]
    fn an_incomplete_message_is_not_shown_at_any_cut() {
        let bytes = [event(b"one"), event(b"two")].concat();
        let first = event(b"one").len();
        for cut in 0..bytes.len() {
            let seen = read(&bytes[..cut], usize::MAX);
            assert_eq!((seen.messages.len(), seen.damaged), (usize::from(cut >= first), false), "{cut}");
        }
    }

    #[test]
    fn any_damaged_bit_stops_the_reading() {
        let good = event(b"one");
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let bytes = [good.as_slice(), &bad, &good].concat();
                let seen = read(&bytes, usize::MAX);
                assert_eq!((seen.messages.len(), seen.damaged), (1, true), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_damage() {
        for (total, headers) in [(0_u32, 0_u32), (15, 0), (16, 1), (100, 85), (20, u32::MAX)] {
            let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
            bytes.extend_from_slice(&[0; 100]);
            check(&bytes, &[], true, false);
        }
    }

    #[test]
    fn a_message_over_the_limit_is_stepped_over_and_the_next_is_read() {
        let largest = vec![b'x'; MESSAGE_BYTES_MAX - 16];
        let (fits, too_long) = (raw(&[], &largest), raw(&[], &[b'x'; MESSAGE_BYTES_MAX - 15]));
        let seen = read(&[fits, too_long.clone(), event(b"next")].concat(), 100_000);
        let sizes: Vec<usize> = seen.messages.iter().map(|(_, _, payload)| payload.len()).collect();
        assert_eq!((sizes, seen.damaged, seen.passed_over), (vec![largest.len(), 4], false, true));

        let mut damaged = too_long;
        damaged[500] ^= 1;
        let seen = read(&[damaged, event(b"next")].concat(), 1_000);
        assert_eq!((seen.messages.len(), seen.damaged, seen.passed_over), (0, true, true));
    }

    #[test]
    fn a_length_of_gigabytes_holds_no_memory() {
        let mut bytes = [u32::MAX.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        let (mut events, mut seen) = (AwsEvents::default(), Seen::default());
        events.feed(&bytes, &mut seen);
        for _ in 0..4_096 {
            events.feed(&[1; 4_096], &mut seen);
        }
        assert!(events.passed_over() && events.begun.capacity() < 64, "{}", events.begun.capacity());
    }

    #[test]
    fn headers_of_every_kind_are_stepped_over() {
        let mut headers = Vec::new();
        for (kind, value) in [
            (0_u8, &b""[..]),
            (1, b""),
            (2, b"1"),
            (3, b"12"),
            (4, b"1234"),
            (5, b"12345678"),
            (6, b"\x00\x02ab"),
            (8, b"12345678"),
            (9, b"1234567890123456"),
            (7, b"\x00\x05chunk"),
        ] {
            let name = if kind == 7 { ":event-type" } else { "n" };
            headers.push(u8::try_from(name.len()).unwrap());
            headers.extend_from_slice(name.as_bytes());
            headers.push(kind);
            headers.extend_from_slice(value);
        }
        let seen = read(&raw(&headers, b"{}"), usize::MAX);
        assert_eq!(seen.messages, [(Some("chunk".to_owned()), 1, b"{}".to_vec())]);
    }

    #[test]
    fn malformed_headers_are_told_and_framing_goes_on() {
        for headers in [&b"\x05ab"[..], b"\x01a", b"\x01a\x0a", b"\x01a\x07\x00", b"\x01a\x07\x00\x09x"] {
            let seen = read(&[raw(headers, b"1"), event(b"2")].concat(), usize::MAX);
            assert_eq!((seen.messages.len(), seen.damaged), (2, false));
            assert_eq!(seen.messages[0], (None, 0, b"1".to_vec()), "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn any_slicing_of_any_bytes_shows_the_same(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6),
            noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cuts in prop::collection::vec(1_usize..300, 1..20),
        ) {
            let mut bytes: Vec<u8> = payloads.iter().flat_map(|payload| event(payload)).collect();
            for (at, byte) in noise {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            let whole = read(&bytes, usize::MAX);
            let (mut events, mut seen) = (AwsEvents::default(), Seen::default());
            let (mut rest, mut sizes) = (bytes.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                events.feed(piece, &mut seen);
                rest = after;
            }
            (seen.damaged, seen.passed_over) = (events.is_damaged(), events.passed_over());
            prop_assert_eq!(seen, whole);
        }
    }
}
