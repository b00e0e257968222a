//! What totals and groupings look at of a usage record, read where it lies in its frame: no text is copied
//! and nothing is allocated for a record, which makes it several times as fast as a whole record.
//!
//! Invariants
//! - A glance says what the decoded record says.
//! - Bytes that are not a valid record are an error with a reason, never a panic.
//!
//! Not here: whole records (`codec`, `wire`), what is made of glances (`query`, `roi`).

use super::wire::{COUNTED, WireIdentity, currency};
use super::{DecodeError, RecordKind, has_facts, split, table, take_record};
use crate::journal::format::FrameHead;
use bursar_domain::{
    Anomalies, Cost, CostStatus, Money, Outcome, Quantity, Timestamp, TokenClass, Usage, UsageSource,
};

const SHORT: DecodeError = DecodeError::Malformed("a usage record is too short");

/// A frame of usage with its tables.
#[derive(Debug)]
pub(crate) struct GlanceFrame<'p> {
    base_micros: i64,
    records: &'p [u8],
    left: u32,
    /// Records of any kind that were read or passed over.
    passed: u64,
    strings: Vec<&'p str>,
    identities: Vec<WireIdentity>,
}

/// A usage record in its frame. Texts are numbers in the frame's table; 0 is *absent*.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance<'p> {
    pub(crate) id: u128,
    pub(crate) started_at: Timestamp,
    /// Whether its tokens and cost count.
    pub(crate) counted: bool,
    /// A number in the frame's table of identities.
    pub(crate) identity: u32,
    pub(crate) route: u32,
    pub(crate) provider: u32,
    pub(crate) api: u32,
    pub(crate) model_requested: u32,
    pub(crate) model_served: u32,
    pub(crate) tier: u32,
    pub(crate) outcome: Outcome,
    pub(crate) source: UsageSource,
    /// From the counts on.
    rest: Cursor<'p>,
}

/// What a record adds to totals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) usage: Usage,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) anomalies: Anomalies,
    pub(crate) provider_cost: Option<Money>,
    /// Without the rows of the price book that it was made from.
    pub(crate) cost: Option<Cost>,
    pub(crate) trace_id: Option<u128>,
}

impl<'p> GlanceFrame<'p> {
    /// Reads the frame's tables; the records follow by `next`. A frame of facts has none.
    pub(crate) fn new(head: &FrameHead, payload: &'p [u8]) -> Result<Self, DecodeError> {
        if has_facts(head) {
            let (strings, identities) = (Vec::new(), Vec::new());
            return Ok(Self { base_micros: 0, records: &[], left: 0, passed: 0, strings, identities });
        }
        let (base_micros, records, tables) = split(head, payload)?;
        let (texts, tables) = table(tables)?;
        let (people, _) = table(tables)?;
        let mut strings = Vec::with_capacity(texts.len());
        for bytes in texts {
            let text = std::str::from_utf8(bytes);
            strings.push(text.map_err(|_| DecodeError::Malformed("a text is no UTF-8"))?);
        }
        let mut identities = Vec::with_capacity(people.len());
        for bytes in people {
            let identity = postcard::from_bytes(bytes);
            identities.push(identity.map_err(|_| DecodeError::Malformed("an identity cannot be read"))?);
        }
        Ok(Self { base_micros, records, left: head.count, passed: 0, strings, identities })
    }

    /// The next usage record; records of other kinds are passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Glance<'p>>, DecodeError> {
        while self.left > 0 {
            let (kind, body, after) = take_record(self.records)?;
            (self.records, self.left) = (after, self.left.saturating_sub(1));
            self.passed = self.passed.saturating_add(1);
            if kind == RecordKind::Usage as u8 {
                return Glance::read(Cursor(body), self.base_micros).map(Some);
            }
        }
        match self.records {
            [] => Ok(None),
            _ => Err(DecodeError::Malformed("bytes follow the last record")),
        }
    }

    /// How many records of any kind were read so far.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// The text with this number; `None` for 0.
    pub(crate) fn text(&self, number: u32) -> Result<Option<&'p str>, DecodeError> {
        let Some(at) = number.checked_sub(1) else { return Ok(None) };
        let found = usize::try_from(at).ok().and_then(|at| self.strings.get(at));
        found.copied().map(Some).ok_or(DecodeError::Malformed("a text is not in the frame's table"))
    }

    /// The identity with this number.
    pub(crate) fn identity(&self, number: u32) -> Result<&WireIdentity, DecodeError> {
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let found = at.and_then(|at| self.identities.get(at));
        found.ok_or(DecodeError::Malformed("an identity is not in the frame's table"))
    }
}

impl<'p> Glance<'p> {
    fn read(mut body: Cursor<'p>, base_micros: i64) -> Result<Self, DecodeError> {
        let head = (|| {
            let id = u128::from_be_bytes(body.array()?);
            let started = body.signed()?;
            let _took = body.signed()?;
            let flags = body.byte()?;
            let numbers = body.numbers::<8>()?;
            if body.byte()? != 0 {
                let _status = body.varint()?;
            }
            let outcome = body.byte()?;
            let _metering = body.byte()?;
            Some((id, started, flags, numbers, outcome, body.byte()?))
        })();
        let (id, started, flags, numbers, outcome, source) = head.ok_or(SHORT)?;
        let [identity, route, provider, api, model_requested, model_served, tier, _region] = numbers;
        Ok(Self {
            id,
            started_at: Timestamp::from_micros(base_micros.wrapping_add(started)),
            counted: flags & COUNTED != 0,
            identity,
            route,
            provider,
            api,
            model_requested,
            model_served,
            tier,
            outcome: Outcome::from_number(outcome).ok_or(unknown("outcome", outcome))?,
            source: UsageSource::from_number(source).ok_or(unknown("usage source", source))?,
            rest: Cursor(body.0),
        })
    }

    /// The model that answered, else the one that was asked for.
    pub(crate) fn model(&self) -> u32 {
        if self.model_served == 0 { self.model_requested } else { self.model_served }
    }

    /// Reads on, into `found`, whose place in memory is used again and again.
    pub(crate) fn figures(&self, found: &mut Figures) -> Result<(), DecodeError> {
        let mut rest = self.rest;
        found.usage = Usage::unknown();
        rest.usage(&mut found.usage)?;
        let parts = rest.varint().ok_or(SHORT)?;
        for _ in 0..parts {
            rest.varint().ok_or(SHORT)?;
            rest.usage(&mut Usage::unknown())?;
        }
        rest.maybe(Cursor::skip_text)?;
        found.provider_cost = rest.maybe(Cursor::money)?;
        found.cost = rest.maybe(Cursor::cost)?;
        rest.maybe(Cursor::skip_text)?;
        rest.maybe(Cursor::skip_text)?;
        found.trace_id = rest.maybe(|rest| rest.array().map(u128::from_be_bytes).ok_or(SHORT))?;
        rest.varint().ok_or(SHORT)?;
        rest.maybe(|rest| rest.varint().ok_or(SHORT))?;
        found.bytes_in = rest.varint().ok_or(SHORT)?;
        found.bytes_out = rest.varint().ok_or(SHORT)?;
        let anomalies = rest.varint().and_then(|bits| u32::try_from(bits).ok()).ok_or(SHORT)?;
        found.anomalies = Anomalies::from_bits(anomalies);
        Ok(())
    }
}

fn unknown(what: &'static str, number: u8) -> DecodeError {
    DecodeError::UnknownNumber { what, number: u64::from(number) }
}

/// A place in a record, which postcard wrote: whole numbers in groups of seven bits, the lowest first;
/// signed ones folded so that small ones are short; a byte before what may be absent.
#[derive(Clone, Copy, Debug)]
struct Cursor<'p>(&'p [u8]);

impl<'p> Cursor<'p> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        match self.0.split_first() {
            Some((byte, rest)) if *byte < 0x80 => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits.wrapping_shl(shift);
            if shifted.wrapping_shr(shift) != bits {
                return None;
            }
            value |= shifted;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let folded = self.varint()?;
        Some((folded >> 1).cast_signed() ^ (folded & 1).cast_signed().wrapping_neg())
    }

    fn wide(&mut self) -> Option<i128> {
        let mut folded = 0_u128;
        for shift in (0..u128::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            let shifted = bits.wrapping_shl(shift);
            if shifted.wrapping_shr(shift) != bits {
                return None;
            }
            folded |= shifted;
            if byte < 0x80 {
                return Some((folded >> 1).cast_signed() ^ (folded & 1).cast_signed().wrapping_neg());
            }
        }
        None
    }

    fn numbers<const N: usize>(&mut self) -> Option<[u32; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = u32::try_from(self.varint()?).ok()?;
        }
        Some(numbers)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    fn skip_text(&mut self) -> Result<(), DecodeError> {
        self.varint().and_then(|bytes| self.skip(bytes)).ok_or(SHORT)
    }

    fn maybe<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.byte().ok_or(SHORT)? {
            0 => Ok(None),
            _ => read(self).map(Some),
        }
    }

    /// Counts of tokens, then amounts of quantities.
    fn usage(&mut self, usage: &mut Usage) -> Result<(), DecodeError> {
        for _ in 0..self.varint().ok_or(SHORT)? {
            let (number, count) = self.byte().zip(self.varint()).ok_or(SHORT)?;
            usage.set(TokenClass::from_number(number).ok_or(unknown("token class", number))?, count);
        }
        for _ in 0..self.varint().ok_or(SHORT)? {
            let (number, amount) = self.byte().zip(self.varint()).ok_or(SHORT)?;
            usage.set_quantity(Quantity::from_number(number).ok_or(unknown("quantity", number))?, amount);
        }
        Ok(())
    }

    fn money(&mut self) -> Result<Money, DecodeError> {
        let (code, pico) = self.array().zip(self.wide()).ok_or(SHORT)?;
        Ok(Money::from_pico(currency(code)?, pico))
    }

    fn cost(&mut self) -> Result<Cost, DecodeError> {
        let (status, code) = self.byte().zip(self.array()).ok_or(SHORT)?;
        let status = CostStatus::from_number(status).ok_or(unknown("cost status", status))?;
        let mut cost = Cost { status, ..Cost::unpriced(currency(code)?) };
        for amount in [&mut cost.list_pico, &mut cost.contracted_pico, &mut cost.billed_pico] {
            *amount = self.maybe(|rest| rest.wide().ok_or(SHORT))?;
        }
        for _ in 0..self.varint().ok_or(SHORT)? {
            self.varint().ok_or(SHORT)?;
        }
        Ok(cost)
    }
}
