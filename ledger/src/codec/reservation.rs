//! The bytes of an opened exchange: a record of kind `Reservation` in a frame, and a row of the store
//! that stands alone.
//!
//! Invariants
//! - What was encoded is decoded to an equal opening.
//!
//! Not here: when openings are written and settled (`opening`, `writer`, `open`).

use super::intern::Interner;
use super::wire::WireContext;
use super::{DecodeError, label};
use crate::batch::{decode_identity, encode_identity};
use crate::opening::Opening;
use bursar_domain::{Currency, Label, Metering, Money, RequestId, Timestamp};
use std::sync::Arc;

const STREAM: u8 = 1;

/// An amount: the currency's letters and pico-units.
type WireMoney = ([u8; 3], i128);

/// The body in a frame. Like every body it begins with the id and the start.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct WireReservation {
    id: [u8; 16],
    started: i64,
    flags: u8,
    metering: u8,
    identity: u32,
    route: u32,
    provider: u32,
    api: u32,
    model: u32,
    region: u32,
    held_tokens: Option<u64>,
    held_cost: Option<WireMoney>,
}

impl WireReservation {
    pub(super) fn new(opening: &Opening, base_micros: i64, identity: u32, strings: &mut Interner) -> Self {
        let mut number = |text: Option<&Label>| text.map_or(0, |t| strings.number_of_shared(t.shared()));
        Self {
            id: opening.id.bits().to_be_bytes(),
            started: opening.started_at.micros().wrapping_sub(base_micros),
            flags: if opening.stream { STREAM } else { 0 },
            metering: opening.metering.number(),
            identity,
            route: number(Some(&opening.route)),
            provider: number(Some(&opening.provider)),
            api: number(Some(&opening.api)),
            model: number(opening.model.as_ref()),
            region: number(opening.region.as_ref()),
            held_tokens: opening.held_tokens,
            held_cost: opening.held_cost.map(wire_money),
        }
    }

    pub(super) fn into_opening(self, context: &WireContext) -> Result<Opening, DecodeError> {
        Ok(Opening {
            id: RequestId::from_bits(u128::from_be_bytes(self.id)),
            started_at: Timestamp::from_micros(context.base_micros.wrapping_add(self.started)),
            identity: context.identity(self.identity)?,
            route: context.label(self.route)?,
            provider: context.label(self.provider)?,
            api: context.label(self.api)?,
            model: context.optional(self.model)?,
            region: context.optional(self.region)?,
            stream: self.flags & STREAM != 0,
            metering: metering(self.metering)?,
            held_tokens: self.held_tokens,
            held_cost: self.held_cost.map(money).transpose()?,
        })
    }
}

fn wire_money(money: Money) -> WireMoney {
    let mut code = [b'X'; 3];
    code.iter_mut().zip(money.currency().code().bytes()).for_each(|(to, from)| *to = from);
    (code, money.pico())
}

fn money((code, pico): WireMoney) -> Result<Money, DecodeError> {
    let code = std::str::from_utf8(&code).ok().and_then(|code| Currency::parse(code).ok());
    let currency = code.ok_or(DecodeError::Malformed("a currency is none"))?;
    Ok(Money::from_pico(currency, pico))
}

fn metering(number: u8) -> Result<Metering, DecodeError> {
    let unknown = DecodeError::UnknownNumber { what: "metering", number: u64::from(number) };
    Metering::from_number(number).ok_or(unknown)
}

/// A row of the store.
#[derive(serde::Serialize, serde::Deserialize)]
struct Row<'a> {
    id: u128,
    started: i64,
    flags: u8,
    metering: u8,
    #[serde(borrow)]
    identity: &'a [u8],
    #[serde(borrow)]
    texts: [&'a str; 3],
    #[serde(borrow)]
    model: Option<&'a str>,
    #[serde(borrow)]
    region: Option<&'a str>,
    held_tokens: Option<u64>,
    held_cost: Option<WireMoney>,
}

/// An opening as the store keeps it.
pub(crate) fn encode_row(opening: &Opening) -> Box<[u8]> {
    let identity = encode_identity(&opening.identity);
    let row = Row {
        id: opening.id.bits(),
        started: opening.started_at.micros(),
        flags: if opening.stream { STREAM } else { 0 },
        metering: opening.metering.number(),
        identity: &identity,
        texts: [opening.route.as_str(), opening.provider.as_str(), opening.api.as_str()],
        model: opening.model.as_ref().map(Label::as_str),
        region: opening.region.as_ref().map(Label::as_str),
        held_tokens: opening.held_tokens,
        held_cost: opening.held_cost.map(wire_money),
    };
    // Writing to memory cannot fail.
    postcard::to_stdvec(&row).unwrap_or_default().into_boxed_slice()
}

/// The opening that the store kept.
pub(crate) fn decode_row(bytes: &[u8]) -> Result<Opening, DecodeError> {
    let row: Row<'_> =
        postcard::from_bytes(bytes).map_err(|_| DecodeError::Malformed("a reservation cannot be read"))?;
    let [route, provider, api] = row.texts;
    let identity =
        decode_identity(row.identity).ok_or(DecodeError::Malformed("an identity cannot be read"))?;
    Ok(Opening {
        id: RequestId::from_bits(row.id),
        started_at: Timestamp::from_micros(row.started),
        identity: Arc::new(identity),
        route: label(route)?,
        provider: label(provider)?,
        api: label(api)?,
        model: row.model.map(label).transpose()?,
        region: row.region.map(label).transpose()?,
        stream: row.flags & STREAM != 0,
        metering: metering(row.metering)?,
        held_tokens: row.held_tokens,
        held_cost: row.held_cost.map(money).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::{head, plain_record};
    use crate::codec::{Encoder, Fact, FrameDecoder, Listed, RecordKind, for_each_id};
    use crate::opening::tests::opening;

    fn all_filled() -> Opening {
        Opening {
            stream: true,
            metering: Metering::Never,
            region: Label::new("eu-west-1").ok(),
            held_tokens: Some(u64::MAX),
            held_cost: Some(Money::from_pico(Currency::USD, -1)),
            ..opening(3)
        }
    }

    #[test]
    fn openings_and_records_of_one_frame_come_back_in_order() {
        let openings = [opening(1), all_filled(), Opening { model: None, ..opening(4) }];
        let mut encoder = Encoder::default();
        encoder.add_reservation(&openings[0]).unwrap();
        encoder.add_usage(&plain_record(2), true).unwrap();
        encoder.add_reservation(&openings[1]).unwrap();
        encoder.add_reservation(&openings[2]).unwrap();
        let mut payload = Vec::new();
        let about = encoder.finish(&mut payload).unwrap();
        let head = head(about.count, &payload);

        let mut listed = Vec::new();
        for_each_id(&head, &payload, |Listed { kind, id, started }| listed.push((kind, id, started)))
            .unwrap();
        let at = |n| plain_record(n).started_at;
        let (usage, reservation) = (RecordKind::Usage as u8, RecordKind::Reservation as u8);
        assert_eq!(
            listed,
            [
                (reservation, opening(1).id, at(1)),
                (usage, plain_record(2).id, at(2)),
                (reservation, opening(3).id, at(3)),
                (reservation, opening(4).id, at(4)),
            ]
        );

        let mut decoder = FrameDecoder::new(&head, payload.clone()).unwrap();
        let (mut read, mut records) = (Vec::new(), 0);
        while let Some(fact) = decoder.next_fact() {
            match fact.unwrap() {
                Fact::Usage(decoded) => {
                    assert_eq!(decoded.record.id, plain_record(2).id);
                    records += 1;
                }
                Fact::Reservation(opening) => read.push(*opening),
                Fact::Finance { .. } => panic!("none was written"),
            }
        }
        assert_eq!((read, records), (openings.to_vec(), 1));
        let mut decoder = FrameDecoder::new(&head, payload).unwrap();
        assert_eq!(decoder.next().unwrap().unwrap().record, plain_record(2));
        assert_eq!((decoder.passed(), decoder.next()), (2, None));
    }

    #[test]
    fn a_row_of_the_store_comes_back_and_noise_is_an_error() {
        for opening in [opening(1), all_filled()] {
            let row = encode_row(&opening);
            assert_eq!(decode_row(&row), Ok(opening));
            for cut in 0..row.len() {
                let _ = decode_row(&row[..cut]);
            }
        }
        assert!(decode_row(&[0xFF; 40]).is_err());
    }
}
