//! Records ↔ the payload of a frame. The wire types here are the format on disk; domain types are
//! not serialised themselves, so renaming a field cannot change a byte.
//!
//! ```text
//! payload (version 1, postcard):
//!   base time: microseconds; every start is a difference to it
//!   records:   byte length, then for each: kind (u8), byte length, body
//!   strings:   count, then each once: teams, models, routes, price rows, tag names and values …
//!   identities: count, then each once, as numbers of strings
//!   marks (version 2 only): see `marks`
//! payload (version 3): finance facts alone, see `facts`
//! ```
//! A string or identity is named by its number, from 1; 0 is *absent*. Every record body, of every
//! kind, begins with its id (16 bytes) and its time, so ids can be listed without reading the rest.
//!
//! Invariants
//! - What was encoded is decoded to an equal record.
//! - Bytes that are not a valid record are an error with a reason, never a panic; a kind or number
//!   from a newer version says so.
//!
//! Not here: checksums and the chain (`journal::format`).

mod facts;
mod glance;
mod intern;
mod marks;
mod reservation;
mod wire;

use crate::journal::Payload;
use crate::journal::format::{FrameHead, Ranges};
use crate::opening::Opening;
use bursar_domain::{Identity, Label, RequestId, Tags, Timestamp, UsageRecord};
use intern::Interner;
use marks::Marks;
use reservation::WireReservation;
use serde::Serialize;
use std::sync::Arc;
use wire::{
    WireContext, WireCountedBy, WireIdentity, WireText, WireUsage, counted_flag, has_counted_by, sink,
};

pub(crate) use facts::{facts, from_row, has_facts, to_row};
pub(crate) use glance::{Figures, Glance, GlanceFrame};
pub(crate) use marks::Mark;
pub(crate) use reservation::{decode_row, encode_row};
pub(crate) use wire::{code, currency};

/// Version of the payload of nearly every frame.
pub(crate) const PAYLOAD_VERSION: u16 = 1;
/// Version of a payload with marks. A newer one is refused.
const PAYLOAD_VERSION_MARKS: u16 = 2;
/// Version of a payload of facts.
const PAYLOAD_VERSION_FACTS: u16 = 3;
/// The newest of them.
pub(crate) const PAYLOAD_VERSION_MAX: u16 = PAYLOAD_VERSION_FACTS;

/// The kinds of record and their numbers on disk; a number is never reused. Those of finance facts
/// are `FactKind`'s too; what is not written today is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A settled exchange.
    Usage = 1,
    /// An exchange that is about to be sent, with what is held for it.
    Reservation = 2,
    /// A reservation given back.
    Void = 3,
    /// A row of the price book.
    PriceRow = 4,
    /// An exchange rate.
    Fx = 5,
    /// A fixing of an index.
    Fixing = 6,
    /// A contract position or an event in its life.
    Contract = 7,
    /// A revenue event.
    Revenue = 8,
    /// The close of a period.
    PeriodClose = 9,
    /// A correction of an earlier record.
    Correction = 10,
    /// A temporary change of a budget.
    BudgetOverride = 11,
    /// The head of an import.
    ImportBatch = 12,
    /// A signed statement of totals, count and chain hash.
    Checkpoint = 13,
    /// Who made a change.
    Audit = 14,
}

/// Why the payload of a frame, or a record in it, cannot be read although its checksums are right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A version this program does not know.
    #[error("it has payload version {0}; this program reads versions 1 to 3: use a newer one")]
    NewerPayload(u16),
    /// A kind this program does not know.
    #[error("it has a record of kind {0}, which this program does not know: use a newer one")]
    UnknownKind(u8),
    /// A number in a list that has grown since.
    #[error("it has {what} number {number}, which this program does not know: use a newer one")]
    UnknownNumber {
        /// The list.
        what: &'static str,
        /// The number.
        number: u64,
    },
    /// Not what any version writes.
    #[error("{0}")]
    Malformed(&'static str),
}

/// Longest body of one record; far above any real one.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A record could not be encoded: it is larger than any real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EncodeError;

/// Gathers records for one frame. Its buffers are used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    strings: Interner,
    identities: Interner,
    last_identity: Option<(Arc<Identity>, u32)>,
    records: Vec<u8>,
    marks: Marks,
    body: Vec<u8>,
    base_micros: i64,
    count: u32,
    ranges: Option<Ranges>,
    /// Whether the frame holds facts.
    facts: bool,
}

impl Encoder {
    /// Forgets all records.
    pub(crate) fn clear(&mut self) {
        self.strings.clear();
        self.identities.clear();
        self.last_identity = None;
        self.records.clear();
        self.marks.clear();
        self.count = 0;
        self.ranges = None;
        self.facts = false;
    }

    /// Records so far.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// About how long the payload would be.
    pub(crate) fn bytes(&self) -> usize {
        let tables = self.strings.bytes().saturating_add(self.identities.bytes());
        self.records.len().saturating_add(self.marks.len()).saturating_add(tables)
    }

    /// The number of `text` in this frame.
    pub(crate) fn number_of(&mut self, text: &Label) -> u32 {
        self.strings.number_of_shared(text.shared())
    }

    /// The text with `number` in this frame; `None` for 0.
    pub(crate) fn text(&self, number: u32) -> Option<&str> {
        self.strings.get(number).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Adds a usage record. `counted` is whether its tokens and cost count.
    pub(crate) fn add_usage(&mut self, record: &UsageRecord, counted: bool) -> Result<(), EncodeError> {
        if self.count == 0 {
            self.base_micros = record.started_at.micros();
        }
        let identity = self.identity(&record.identity)?;
        let wire = WireUsage::new(record, counted, self.base_micros, identity, &mut self.strings);
        let mut rest = Vec::new();
        if let Some(text) = &record.counted_by {
            let wire = WireCountedBy::new(text, &mut self.strings);
            postcard::to_extend(&wire, sink(&mut rest)).map_err(|_| EncodeError)?;
        }
        let body = to_buffer(&wire, &mut self.body)?;
        self.records.push(RecordKind::Usage as u8);
        let length = body.len().saturating_add(rest.len());
        postcard::to_extend(&length, sink(&mut self.records)).map_err(|_| EncodeError)?;
        self.records.extend_from_slice(body);
        self.records.extend_from_slice(&rest);
        self.count = self.count.saturating_add(1);
        self.ranges.get_or_insert(Ranges::EMPTY).add(record.id.bits(), record.started_at.micros());
        Ok(())
    }

    /// Adds an exchange that is under way.
    pub(crate) fn add_reservation(&mut self, opening: &Opening) -> Result<(), EncodeError> {
        if self.count == 0 {
            self.base_micros = opening.started_at.micros();
        }
        let identity = self.identity(&opening.identity)?;
        let wire = WireReservation::new(opening, self.base_micros, identity, &mut self.strings);
        let body = to_buffer(&wire, &mut self.body)?;
        self.records.push(RecordKind::Reservation as u8);
        postcard::to_extend(&body.len(), sink(&mut self.records)).map_err(|_| EncodeError)?;
        self.records.extend_from_slice(body);
        self.count = self.count.saturating_add(1);
        self.ranges.get_or_insert(Ranges::EMPTY).add(opening.id.bits(), opening.started_at.micros());
        Ok(())
    }

    /// Adds a mark to the frame of the record before it.
    pub(crate) fn add_mark(&mut self, mark: &Mark) -> Result<(), EncodeError> {
        let identity = match mark {
            Mark::Counted(_) => 0,
            Mark::Owner(_, identity) => self.identity(identity)?,
        };
        self.marks.add(mark, identity)
    }

    /// Appends the payload to `out`.
    pub(crate) fn finish(&self, out: &mut Vec<u8>) -> Result<Payload, EncodeError> {
        postcard::to_extend(&(self.base_micros, self.records.len()), sink(out)).map_err(|_| EncodeError)?;
        out.extend_from_slice(&self.records);
        for table in [&self.strings, &self.identities] {
            postcard::to_extend(&table.len(), sink(out)).map_err(|_| EncodeError)?;
            for bytes in table.iter() {
                postcard::to_extend(&bytes.len(), sink(out)).map_err(|_| EncodeError)?;
                out.extend_from_slice(bytes);
            }
        }
        let ranges = self.ranges.unwrap_or(Ranges::EMPTY);
        if self.facts {
            return Ok(Payload { count: self.count, version: PAYLOAD_VERSION_FACTS, ranges });
        }
        if self.marks.is_empty() {
            return Ok(Payload { count: self.count, version: PAYLOAD_VERSION, ranges });
        }
        self.marks.finish(out)?;
        Ok(Payload { count: self.count, version: PAYLOAD_VERSION_MARKS, ranges })
    }

    fn identity(&mut self, identity: &Arc<Identity>) -> Result<u32, EncodeError> {
        if let Some((last, number)) = &self.last_identity
            && Arc::ptr_eq(last, identity)
        {
            return Ok(*number);
        }
        let wire = WireIdentity::new(identity, &mut self.strings);
        let number = self.identities.number_of(to_buffer(&wire, &mut self.body)?);
        self.last_identity = Some((identity.clone(), number));
        Ok(number)
    }
}

/// Encodes `value` into `buffer`, which grows as needed and keeps its length for the next one: writing
/// into a slice costs a third of appending byte by byte.
fn to_buffer<'b, T: Serialize>(value: &T, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], EncodeError> {
    loop {
        let written = postcard::to_slice(value, buffer.as_mut_slice()).map(|body| body.len());
        match written {
            Ok(length) => return buffer.get(..length).ok_or(EncodeError),
            Err(postcard::Error::SerializeBufferFull) if buffer.len() < RECORD_BYTES_MAX => {
                buffer.resize(buffer.len().saturating_mul(2).clamp(1024, RECORD_BYTES_MAX), 0);
            }
            Err(_) => return Err(EncodeError),
        }
    }
}

/// A usage record as it comes from the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) record: UsageRecord,
    pub(crate) counted: bool,
}

/// A record of any kind as it comes from the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are usage, which must not cost an allocation")]
pub(crate) enum Fact {
    Usage(Decoded),
    Reservation(Box<Opening>),
    /// So many finance facts, which have a frame of their own.
    Finance {
        count: u64,
    },
}

/// Reads the records of one frame, one after the other.
#[derive(Debug)]
pub(crate) struct FrameDecoder {
    payload: Vec<u8>,
    at: usize,
    records_end: usize,
    left: u32,
    /// Records that `next` has read or passed over.
    passed: u64,
    context: WireContext,
    marks: Vec<Mark>,
}

impl FrameDecoder {
    /// Reads the frame's tables; the records follow by `next`.
    pub(crate) fn new(head: &FrameHead, payload: Vec<u8>) -> Result<Self, DecodeError> {
        let (base_micros, records, tables) = split(head, &payload)?;
        let records_end = payload.len().saturating_sub(tables.len());
        let at = records_end.saturating_sub(records.len());
        let (strings, tables) = table(tables)?;
        let (identities, rest) = table(tables)?;
        let has_marks = has_marks(head);
        if !rest.is_empty() && !has_marks {
            return Err(DecodeError::Malformed("bytes follow the frame's tables"));
        }
        let mut context = WireContext { base_micros, strings: Vec::new(), identities: Vec::new() };
        for bytes in strings {
            let text =
                std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("a text is no UTF-8"))?;
            context.strings.push(WireText::new(text));
        }
        for bytes in identities {
            let wire: WireIdentity = postcard::from_bytes(bytes)
                .map_err(|_| DecodeError::Malformed("an identity cannot be read"))?;
            let identity = wire.into_identity(&context)?;
            context.identities.push(Arc::new(identity));
        }
        let marks = if has_marks { marks::read(rest, &context)? } else { Vec::new() };
        // A frame of finance facts has no record of usage.
        let (at, left) = if has_facts(head) { (records_end, 0) } else { (at, head.count) };
        Ok(Self { at, records_end, left, passed: 0, context, marks, payload })
    }

    /// The frame's marks, once.
    pub(crate) fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// The next usage record; records of other kinds are passed over.
    pub(crate) fn next(&mut self) -> Option<Result<Decoded, DecodeError>> {
        loop {
            match self.next_fact()? {
                Ok(Fact::Usage(decoded)) => return Some(Ok(decoded)),
                Ok(Fact::Reservation(_) | Fact::Finance { .. }) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// How many records of any kind were read so far.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// The next record, of whatever kind.
    pub(crate) fn next_fact(&mut self) -> Option<Result<Fact, DecodeError>> {
        let rest = self.payload.get(self.at..self.records_end).unwrap_or_default();
        if self.left == 0 {
            if rest.is_empty() {
                return None;
            }
            self.at = self.records_end;
            return Some(Err(DecodeError::Malformed("bytes follow the last record")));
        }
        self.left = self.left.saturating_sub(1);
        self.passed = self.passed.saturating_add(1);
        match take_record(rest) {
            Ok((kind, body, after)) => {
                self.at = self.records_end.saturating_sub(after.len());
                Some(decode_fact(kind, body, &self.context))
            }
            Err(error) => {
                self.left = 0;
                self.at = self.records_end;
                Some(Err(error))
            }
        }
    }

    /// Gives the payload's buffer back.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.payload
    }
}

/// Whether a frame has marks.
pub(crate) fn has_marks(head: &FrameHead) -> bool {
    head.payload_version == PAYLOAD_VERSION_MARKS
}

/// What every record says of itself, whatever its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) kind: u8,
    pub(crate) id: RequestId,
    pub(crate) started: Timestamp,
}

impl Listed {
    pub(crate) fn is_usage(&self) -> bool {
        self.kind == RecordKind::Usage as u8
    }
}

/// Calls `each` with kind, id and start of every record of a frame.
pub(crate) fn for_each_id(
    head: &FrameHead,
    payload: &[u8],
    mut each: impl FnMut(Listed),
) -> Result<(), DecodeError> {
    let (base_micros, mut records, _) = split(head, payload)?;
    for _ in 0..head.count {
        let (kind, body, rest) = match take_any(records)? {
            found if has_facts(head) => found,
            _ => take_record(records)?,
        };
        let ((id, started), _): (([u8; 16], i64), _) =
            postcard::take_from_bytes(body).map_err(|_| DecodeError::Malformed("a record has no id"))?;
        let started = Timestamp::from_micros(base_micros.wrapping_add(started));
        each(Listed { kind, id: RequestId::from_bits(u128::from_be_bytes(id)), started });
        records = rest;
    }
    Ok(())
}

/// Base time, records and tables of a payload.
fn split<'a>(head: &FrameHead, payload: &'a [u8]) -> Result<(i64, &'a [u8], &'a [u8]), DecodeError> {
    if !(PAYLOAD_VERSION..=PAYLOAD_VERSION_MAX).contains(&head.payload_version) {
        return Err(DecodeError::NewerPayload(head.payload_version));
    }
    let short = DecodeError::Malformed("the payload is too short");
    let ((base, len), rest): ((i64, usize), _) =
        postcard::take_from_bytes(payload).map_err(|_| short.clone())?;
    let (records, tables) = rest.split_at_checked(len).ok_or(short)?;
    Ok((base, records, tables))
}

fn table(bytes: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), DecodeError> {
    let short = |_| DecodeError::Malformed("a table is too short");
    let (count, mut rest): (usize, _) = postcard::take_from_bytes(bytes).map_err(short)?;
    let mut entries = Vec::with_capacity(count.min(rest.len()));
    for _ in 0..count {
        let (entry, after) = postcard::take_from_bytes::<&[u8]>(rest).map_err(short)?;
        entries.push(entry);
        rest = after;
    }
    Ok((entries, rest))
}

/// The same for a kind that a frame of usage may hold.
fn take_record(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), DecodeError> {
    const KNOWN: [u8; 2] = [RecordKind::Usage as u8, RecordKind::Reservation as u8];
    let found = take_any(bytes)?;
    if KNOWN.contains(&found.0) { Ok(found) } else { Err(DecodeError::UnknownKind(found.0)) }
}

/// Kind and body of the next record, whatever it is, and what follows.
fn take_any(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), DecodeError> {
    let short = DecodeError::Malformed("a record is missing");
    let (kind, rest) = bytes.split_first().ok_or_else(|| short.clone())?;
    let (body, rest) = postcard::take_from_bytes::<&[u8]>(rest).map_err(|_| short)?;
    Ok((*kind, body, rest))
}

fn decode_fact(kind: u8, body: &[u8], context: &WireContext) -> Result<Fact, DecodeError> {
    if kind == RecordKind::Usage as u8 {
        return decode_body(body, context).map(Fact::Usage);
    }
    let (wire, rest): (WireReservation, _) = postcard::take_from_bytes(body)
        .map_err(|_| DecodeError::Malformed("a reservation cannot be read"))?;
    if !rest.is_empty() {
        return Err(DecodeError::Malformed("bytes follow a reservation"));
    }
    wire.into_opening(context).map(Box::new).map(Fact::Reservation)
}

fn decode_body(body: &[u8], context: &WireContext) -> Result<Decoded, DecodeError> {
    let (wire, rest): (WireUsage<'_>, _) = postcard::take_from_bytes(body)
        .map_err(|_| DecodeError::Malformed("a usage record cannot be read"))?;
    let (counted_by, rest) = if has_counted_by(&wire) {
        let (text, rest): (WireCountedBy, _) = postcard::take_from_bytes(rest)
            .map_err(|_| DecodeError::Malformed("a usage record is too short"))?;
        (Some(text.into_label(context)?), rest)
    } else {
        (None, rest)
    };
    if !rest.is_empty() {
        return Err(DecodeError::Malformed("bytes follow a usage record"));
    }
    let counted = counted_flag(&wire);
    let mut record = wire.into_record(context)?;
    record.counted_by = counted_by;
    Ok(Decoded { record, counted })
}

fn label(text: &str) -> Result<Label, DecodeError> {
    Label::new(text).map_err(|_| DecodeError::Malformed("a text is not a valid label"))
}

fn tags(pairs: impl Iterator<Item = Result<(Label, Label), DecodeError>>) -> Result<Tags, DecodeError> {
    let mut tags = Tags::default();
    for pair in pairs {
        let (name, value) = pair?;
        if !tags.insert(name, value) {
            return Err(DecodeError::Malformed("a tag is there twice"));
        }
    }
    Ok(tags)
}

#[cfg(test)]
pub(crate) mod tests;
