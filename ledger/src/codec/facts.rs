//! Frames of finance facts: payload version 3. Such a frame holds facts and nothing else, so a reader
//! of usage passes it without decoding, and an import is one frame: all of it is there, or nothing.
//!
//! ```text
//! payload (version 3, postcard), laid out like version 1 with empty tables:
//!   base time, records: byte length, then for each: kind (u8), byte length, body
//!   body: id (16 bytes), time − base time, name, text
//!   strings: 0, identities: 0
//! ```
//!
//! Invariants
//! - What was encoded is decoded to an equal fact.
//! - Bytes that are not a valid fact are an error with a reason, never a panic.
//!
//! Not here: what the text says (`policies::hedge::intake`), when frames are written (`facts`).

use super::wire::sink;
use super::{DecodeError, EncodeError, Encoder, PAYLOAD_VERSION_FACTS, split};
use crate::journal::format::{FrameHead, Ranges};
use bursar_domain::fact::FACT_BYTES_MAX;
use bursar_domain::{Fact, FactKind, Label, RequestId, StoredFact, Timestamp};
use std::sync::Arc;

/// A fact's body. Order and type of every field are the format.
#[derive(serde::Serialize, serde::Deserialize)]
struct WireFact<'a> {
    id: [u8; 16],
    at: i64,
    #[serde(borrow)]
    name: &'a str,
    #[serde(borrow)]
    body: &'a str,
}

impl Encoder {
    /// Adds a fact to a frame that holds nothing but facts.
    pub(crate) fn add_fact(&mut self, fact: &Fact) -> Result<(), EncodeError> {
        if fact.body.len() > FACT_BYTES_MAX || (self.count > 0 && !self.facts) {
            return Err(EncodeError);
        }
        if self.count == 0 {
            self.base_micros = fact.at.micros();
            self.facts = true;
        }
        let body = encode(fact, self.base_micros)?;
        self.records.push(fact.kind.number());
        postcard::to_extend(&body.len(), sink(&mut self.records)).map_err(|_| EncodeError)?;
        self.records.extend_from_slice(&body);
        self.count = self.count.saturating_add(1);
        self.ranges.get_or_insert(Ranges::EMPTY).add(fact.id.bits(), fact.at.micros());
        Ok(())
    }
}

/// Whether a frame holds facts.
pub(crate) fn has_facts(head: &FrameHead) -> bool {
    head.payload_version == PAYLOAD_VERSION_FACTS
}

/// The facts of a frame; none when it holds usage.
pub(crate) fn facts(head: &FrameHead, payload: &[u8]) -> Result<Vec<StoredFact>, DecodeError> {
    if !has_facts(head) {
        return Ok(Vec::new());
    }
    let (base_micros, mut rest, _) = split(head, payload)?;
    let mut found = Vec::new();
    for offset in 0..head.count {
        let (kind, body, after) = super::take_any(rest)?;
        let kind = FactKind::from_number(kind).ok_or(DecodeError::UnknownKind(kind))?;
        let sequence = head.first_sequence.saturating_add(u64::from(offset));
        found.push(StoredFact { sequence, fact: decode(kind, body, base_micros)? });
        rest = after;
    }
    if rest.is_empty() { Ok(found) } else { Err(DecodeError::Malformed("bytes follow the last fact")) }
}

fn encode(fact: &Fact, base_micros: i64) -> Result<Vec<u8>, EncodeError> {
    let wire = WireFact {
        id: fact.id.bits().to_be_bytes(),
        at: fact.at.micros().wrapping_sub(base_micros),
        name: fact.name.as_str(),
        body: &fact.body,
    };
    postcard::to_stdvec(&wire).map_err(|_| EncodeError)
}

fn decode(kind: FactKind, body: &[u8], base_micros: i64) -> Result<Fact, DecodeError> {
    let wire: WireFact<'_> =
        postcard::from_bytes(body).map_err(|_| DecodeError::Malformed("a fact cannot be read"))?;
    Ok(Fact {
        id: RequestId::from_bits(u128::from_be_bytes(wire.id)),
        at: Timestamp::from_micros(base_micros.wrapping_add(wire.at)),
        kind,
        name: Label::new(wire.name).map_err(|_| DecodeError::Malformed("a fact's name is no label"))?,
        body: Arc::from(wire.body),
    })
}

/// A fact as the store keeps it: its kind, then its body.
pub(crate) fn to_row(fact: &Fact) -> Vec<u8> {
    let mut row = vec![fact.kind.number()];
    // Writing to memory cannot fail, and what could not be encoded is not in the journal.
    row.extend(encode(fact, 0).unwrap_or_default());
    row
}

/// The fact of a row; `None` when it cannot be read.
pub(crate) fn from_row(row: &[u8]) -> Option<Fact> {
    let (kind, body) = row.split_first()?;
    decode(FactKind::from_number(*kind)?, body, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(kind: FactKind, number: u128) -> Fact {
        Fact {
            id: RequestId::from_bits(0x0190_0000_0000_7000_8000_0000_0000_0000 + number),
            at: Timestamp::from_micros(1_790_000_000_000_000 + i64::try_from(number).unwrap()),
            kind,
            name: Label::new(&format!("{kind} {number}")).unwrap(),
            body: Arc::from(format!("{{\"n\":{number}}}")),
        }
    }

    fn encoded(facts: &[Fact]) -> (FrameHead, Vec<u8>) {
        let mut encoder = Encoder::default();
        for fact in facts {
            encoder.add_fact(fact).unwrap();
        }
        let mut payload = Vec::new();
        let about = encoder.finish(&mut payload).unwrap();
        let head = FrameHead {
            payload_bytes: u32::try_from(payload.len()).unwrap(),
            first_sequence: 7,
            count: about.count,
            payload_version: about.version,
            synced_sequence: 0,
            payload_crc: 0,
        };
        (head, payload)
    }

    fn all() -> Vec<Fact> {
        (0_u128..).zip(FactKind::ALL).map(|(number, kind)| fact(*kind, number)).collect()
    }

    #[test]
    fn every_kind_of_fact_comes_back_as_it_was_and_its_bytes_stay() {
        let (head, payload) = encoded(&all());
        let found = facts(&head, &payload).unwrap();
        assert_eq!(found.iter().map(|stored| stored.fact.clone()).collect::<Vec<_>>(), all());
        // The bytes were taken when there were no checkpoints, no overrides and no notes of who changed what.
        let later = [FactKind::Checkpoint, FactKind::BudgetOverride, FactKind::Audit];
        let known: Vec<Fact> = (0_u128..)
            .zip(FactKind::ALL.iter().filter(|kind| !later.contains(kind)))
            .map(|(number, kind)| fact(*kind, number))
            .collect();
        let (head, payload) = encoded(&known);
        assert_eq!(head.payload_version, 3);
        let found = facts(&head, &payload).unwrap();
        assert_eq!(found[2].sequence, 9);
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden-facts-v3.hex").trim(), "the format on disk has changed");
        for fact in all() {
            assert_eq!(from_row(&to_row(&fact)), Some(fact));
        }
    }

    #[test]
    fn bytes_that_are_no_facts_are_refused() {
        let (head, payload) = encoded(&all());
        for cut in 0..payload.len() {
            assert!(facts(&head, &payload[..cut]).is_err() || cut + 2 >= payload.len(), "{cut}");
        }
        let mut other = payload.clone();
        let at = other.windows(5).position(|bytes| bytes == b"fx 0\x07").unwrap() - 17 - 1;
        let kind = other[..at].iter().rposition(|byte| *byte == FactKind::Fx.number()).unwrap();
        other[kind] = 99;
        assert_eq!(facts(&head, &other), Err(DecodeError::UnknownKind(99)));
    }

    #[test]
    fn a_frame_never_mixes_usage_and_facts_and_no_fact_is_endless() {
        let mut encoder = Encoder::default();
        let record = crate::codec::tests::plain_record(1);
        encoder.add_usage(&record, true).unwrap();
        assert!(encoder.add_fact(&all()[0]).is_err());
        let endless = Fact { body: Arc::from("x".repeat(FACT_BYTES_MAX + 1)), ..fact(FactKind::Fx, 1) };
        assert!(Encoder::default().add_fact(&endless).is_err());
    }
}
