//! WebSocket frames (RFC 6455 §5): finds the messages in one direction of a connection as its bytes pass.
//!
//! Invariants
//! - How the bytes are cut into reads changes nothing.
//! - Nothing is buffered but a frame's header: payloads are shown as they come, unmasked.
//! - After the first thing that is no frame nothing more is read: what follows could be anything.
//!
//! Not here: what messages mean (`realtime`, `bidi`), forwarding the bytes (`tunnel`).

/// A message is shown up to here; the rest of a longer one is only counted. Providers' longest
/// messages (a whole conversation repeated at the end of a response) are a tenth of it.
pub const MESSAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// Unmasked at a time.
const SCRATCH_BYTES: usize = 1024;

/// Which side sends the frames: a client masks them, a server does not (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opened the connection.
    Client,
    /// The other one.
    Server,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A reserved bit is set: an extension such as `permessage-deflate` is in use.
    #[error("a reserved bit is set")]
    Reserved,
    /// An opcode that is none.
    #[error("an unknown opcode")]
    Opcode,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("a control frame that is fragmented or too long")]
    Control,
    /// A message begins inside another, or goes on without having begun.
    #[error("fragments out of order")]
    Fragments,
    /// A client's frame without a mask, or a server's with one.
    #[error("a mask where none belongs, or none where one does")]
    Mask,
    /// A length of 2⁶³ or more.
    #[error("an impossible length")]
    Length,
}

/// Receives the messages of one direction.
pub trait Messages {
    /// A piece of a text or binary message.
    fn data(&mut self, piece: &[u8]);
    /// The message is over.
    fn end(&mut self);
    /// The message is longer than [`MESSAGE_BYTES_MAX`]; its rest is not shown. Told once per message.
    fn too_long(&mut self);
    /// The sender closes, with this status code if it gives one. Nothing follows.
    fn close(&mut self, code: Option<u16>);
}

/// Reads the frames of one direction.
#[derive(Debug)]
pub struct Frames {
    side: Side,
    state: State,
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// Bytes of the message under way, if one is.
    message: Option<u64>,
    close_code: [u8; 2],
    shows_data: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Payload(Payload),
    /// A close frame has passed.
    Closed,
    Stopped(FrameError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Payload {
    kind: Kind,
    len: u64,
    at: u64,
    mask: [u8; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Part of a message; `last` when it ends with this frame.
    Data {
        last: bool,
    },
    /// Ping or pong.
    Beat,
    Close,
}

impl Frames {
    /// A reader for what `side` sends after the handshake.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self {
            side,
            state: State::Header,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            message: None,
            close_code: [0; 2],
            shows_data: true,
        }
    }

    /// From here on only the end of messages and the close are told.
    pub fn hide_data(&mut self) {
        self.shows_data = false;
    }

    /// Why reading stopped, if it did.
    #[must_use]
    pub const fn error(&self) -> Option<FrameError> {
        match self.state {
            State::Stopped(error) => Some(error),
            _ => None,
        }
    }

    /// Reads on.
    pub fn feed<M: Messages>(&mut self, mut bytes: &[u8], messages: &mut M) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Header => self.header(bytes, messages),
                State::Payload(payload) => self.payload(payload, bytes, messages),
                State::Closed | State::Stopped(_) => return,
            };
        }
    }

    fn header<'b, M: Messages>(&mut self, bytes: &'b [u8], messages: &mut M) -> &'b [u8] {
        let Some((byte, rest)) = bytes.split_first() else { return bytes };
        if let Some(slot) = self.header.get_mut(self.header_len) {
            *slot = *byte;
        }
        self.header_len += 1;
        if self.header_len < header_len(&self.header, self.header_len) {
            return rest;
        }
        match self.begin() {
            Ok(payload) if payload.len == 0 => self.end(payload, messages),
            Ok(payload) => self.state = State::Payload(payload),
            Err(error) => self.state = State::Stopped(error),
        }
        self.header_len = 0;
        rest
    }

    /// The frame that the complete header announces.
    fn begin(&mut self) -> Result<Payload, FrameError> {
        let [first, second, rest @ ..] = self.header;
        let (last, reserved, opcode) = (first & 0x80 != 0, first & 0x70 != 0, first & 0x0f);
        if reserved {
            return Err(FrameError::Reserved);
        }
        let is_masked = second & 0x80 != 0;
        if is_masked != (self.side == Side::Client) {
            return Err(FrameError::Mask);
        }
        let (len, mask) = match (second & 0x7f, rest) {
            (126, [a, b, m @ ..]) => (u64::from(u16::from_be_bytes([a, b])), first_four(&m)),
            (127, [a, b, c, d, e, f, g, h, m @ ..]) => {
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), first_four(&m))
            }
            (len, m) => (u64::from(len), first_four(&m)),
        };
        if len > u64::MAX / 2 {
            return Err(FrameError::Length);
        }
        let kind = self.kind(opcode, last, len)?;
        let mask = if is_masked { mask } else { [0; 4] };
        Ok(Payload { kind, len, at: 0, mask })
    }

    fn kind(&mut self, opcode: u8, last: bool, len: u64) -> Result<Kind, FrameError> {
        match (opcode, self.message) {
            (0, None) | (1 | 2, Some(_)) => Err(FrameError::Fragments),
            (0, Some(_)) => Ok(Kind::Data { last }),
            (1 | 2, None) => {
                self.message = Some(0);
                Ok(Kind::Data { last })
            }
            (8..=10, _) if !last || len > 125 => Err(FrameError::Control),
            (8, _) => Ok(Kind::Close),
            (9 | 10, _) => Ok(Kind::Beat),
            _ => Err(FrameError::Opcode),
        }
    }

    fn payload<'b, M: Messages>(
        &mut self,
        mut payload: Payload,
        bytes: &'b [u8],
        messages: &mut M,
    ) -> &'b [u8] {
        let left = payload.len.saturating_sub(payload.at);
        let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let Some((piece, rest)) = bytes.split_at_checked(count) else { return &[] };
        match payload.kind {
            Kind::Data { .. } => self.data(&payload, piece, messages),
            Kind::Beat => {}
            Kind::Close => self.close_piece(&payload, piece),
        }
        payload.at = payload.at.saturating_add(count as u64);
        if payload.at < payload.len {
            self.state = State::Payload(payload);
        } else {
            self.end(payload, messages);
        }
        rest
    }

    fn data<M: Messages>(&mut self, payload: &Payload, piece: &[u8], messages: &mut M) {
        if !self.shows_data {
            return;
        }
        let Some(shown) = &mut self.message else { return };
        let room = MESSAGE_BYTES_MAX.saturating_sub(*shown);
        let count = usize::try_from(room).map_or(piece.len(), |room| room.min(piece.len()));
        let before = *shown;
        *shown = shown.saturating_add(piece.len() as u64);
        let visible = piece.get(..count).unwrap_or_default();
        if payload.mask == [0; 4] {
            messages.data(visible);
        } else {
            unmasked(payload, visible, |plain| messages.data(plain));
        }
        if count < piece.len() && before <= MESSAGE_BYTES_MAX {
            messages.too_long();
        }
    }

    fn close_piece(&mut self, payload: &Payload, piece: &[u8]) {
        let known = usize::try_from(payload.at).unwrap_or(usize::MAX);
        let mut from = known;
        unmasked(payload, piece, |plain| {
            for (slot, byte) in self.close_code.iter_mut().skip(from).zip(plain) {
                *slot = *byte;
            }
            from = from.saturating_add(plain.len());
        });
    }

    fn end<M: Messages>(&mut self, payload: Payload, messages: &mut M) {
        self.state = State::Header;
        match payload.kind {
            Kind::Data { last: true } => {
                self.message = None;
                messages.end();
            }
            Kind::Data { last: false } | Kind::Beat => {}
            Kind::Close => {
                let code = (payload.len >= 2).then(|| u16::from_be_bytes(self.close_code));
                self.state = State::Closed;
                messages.close(code);
            }
        }
    }
}

/// How long a header is that begins with the first `known` bytes of `header`.
fn header_len(header: &[u8; HEADER_BYTES_MAX], known: usize) -> usize {
    let [_, second, ..] = *header;
    if known < 2 {
        return 2;
    }
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 != 0 { 4 } else { 0 }
}

fn first_four(bytes: &[u8]) -> [u8; 4] {
    bytes.first_chunk().copied().unwrap_or_default()
}

/// Shows `piece`, which continues `payload`, without its mask.
fn unmasked(payload: &Payload, piece: &[u8], mut show: impl FnMut(&[u8])) {
    let mut scratch = [0; SCRATCH_BYTES];
    let phase = usize::try_from(payload.at % 4).unwrap_or(0);
    let mut mask = payload.mask;
    mask.rotate_left(phase);
    // The size of the scratch is a multiple of four, so the mask's phase is the same for each chunk.
    for chunk in piece.chunks(SCRATCH_BYTES) {
        for ((slot, byte), key) in scratch.iter_mut().zip(chunk).zip(mask.iter().cycle()) {
            *slot = byte ^ key;
        }
        show(scratch.get(..chunk.len()).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
