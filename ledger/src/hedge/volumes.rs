//! Volumes and costs of usage by day and constituent, for an index that is made of them.
//!
//! Invariants
//! - A record enters with its volume and its cost, or not at all; what does not enter is counted by its
//!   reason.
//! - Sums are exact; each is converted and rounded once.
//!
//! Not here: weights and values (`policies::hedge::compose`).

use super::report::{SpotCost, UsageGap};
use super::{HedgeSource, State};
use crate::journal::read::ReadError;
use crate::{RecordRange, StoredRecord};
use bursar_domain::{Currency, Label, Money, Timestamp, UsageRecord};
use bursar_policies::exact::{ExactError, Ratio};
use bursar_policies::hedge::calendar::Window;
use bursar_policies::hedge::compose::Observations;
use bursar_policies::hedge::profile::Unit;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// Decimals of an amount that is converted.
const PLACES: u32 = 12;

/// What constituents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constituents {
    /// Providers.
    Providers,
    /// Models, each of its provider.
    Models,
}

/// What volumes are asked for.
#[derive(Clone, Copy, Debug)]
pub struct VolumesAsk {
    /// The days, in UTC.
    pub days: Window,
    /// By what.
    pub by: Constituents,
    /// `Mtok` or `MSIT`.
    pub unit: Unit,
    /// Currency of the costs.
    pub currency: Currency,
    /// Which cost.
    pub spot: SpotCost,
    /// With the rates that were known then.
    pub as_of: Timestamp,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// By day and constituent.
    pub seen: Observations,
    /// Records that are in it.
    pub records: u64,
    /// Records that are not, by reason.
    pub gaps: BTreeMap<UsageGap, u64>,
}

/// Why there are no volumes.
#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A sum does not fit.
    #[error(transparent)]
    Exact(#[from] ExactError),
    /// The days are out of range.
    #[error("the days are out of any calendar")]
    Days,
}

/// Sums of one day, constituent, model and currency.
#[derive(Default)]
struct Sum {
    tokens: u128,
    pico: i128,
    records: u64,
}

type Key = (Date, Label, Option<Label>, Currency);

/// Adds up usage.
pub fn volumes(source: &dyn HedgeSource, state: &State, ask: &VolumesAsk) -> Result<Volumes, VolumesError> {
    let instant = |day: Date| {
        let at = day.to_zoned(TimeZone::UTC).map_err(|_| VolumesError::Days)?;
        Ok::<_, VolumesError>(Some(Timestamp::from_micros(at.timestamp().as_microsecond())))
    };
    let (from, to) = (instant(ask.days.from())?, instant(ask.days.until())?);
    let mut found = Volumes::default();
    let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
    for stored in source.read_records(RecordRange { from, to, after_sequence: 0 }) {
        let StoredRecord { record, counted, .. } = stored?;
        if !counted {
            continue;
        }
        match part_of(&record, ask) {
            Ok(None) => {}
            Ok(Some((key, tokens, pico))) => {
                let sum = sums.entry(key).or_default();
                sum.tokens = sum.tokens.saturating_add(tokens.into());
                sum.pico = sum.pico.checked_add(pico).ok_or(ExactError::Overflow)?;
                sum.records = sum.records.saturating_add(1);
            }
            Err(gap) => found.miss(gap, 1),
        }
    }
    for (key, sum) in sums {
        found.add(key, &sum, state, ask)?;
    }
    Ok(found)
}

/// What a record adds to, its tokens and its cost; nothing when it used no tokens.
fn part_of(record: &UsageRecord, ask: &VolumesAsk) -> Result<Option<(Key, u64, i128)>, UsageGap> {
    let (input, output) = (record.usage.input_total(), record.usage.output_total());
    if (input, output) == (None, None) {
        return Err(UsageGap::Uncounted);
    }
    let tokens = input.unwrap_or(0).saturating_add(output.unwrap_or(0));
    if tokens == 0 {
        return Ok(None);
    }
    let cost = record.cost.as_ref().filter(|cost| cost.status == bursar_domain::CostStatus::Priced);
    let cost = cost.ok_or(UsageGap::Unpriced)?;
    let pico = match ask.spot {
        SpotCost::List => cost.list_pico,
        SpotCost::Contracted => cost.contracted_pico,
        SpotCost::Billed => cost.billed_pico,
    };
    let pico = pico.ok_or(UsageGap::Unpriced)?;
    let model = record.model_served.as_ref().or(record.model_requested.as_ref());
    let named = |model: &Label| Label::lossy(&format!("{}/{model}", record.provider));
    let constituent = match ask.by {
        Constituents::Providers => Some(record.provider.clone()),
        Constituents::Models => model.and_then(named),
    };
    let constituent = constituent.ok_or(UsageGap::Uncounted)?;
    let at = jiff::Timestamp::from_microsecond(record.started_at.micros()).map_err(|_| UsageGap::Overflow)?;
    let day = at.to_zoned(TimeZone::UTC).date();
    let model = model.filter(|_| ask.unit == Unit::Msit).cloned();
    Ok(Some(((day, constituent, model, cost.currency), tokens, pico)))
}

impl Volumes {
    fn miss(&mut self, gap: UsageGap, records: u64) {
        let sum = self.gaps.entry(gap).or_insert(0);
        *sum = sum.saturating_add(records);
    }

    /// Adds a sum in the units and the currency of the question; what has no rate or profile is missed.
    fn add(&mut self, key: Key, sum: &Sum, state: &State, ask: &VolumesAsk) -> Result<(), VolumesError> {
        let (date, constituent, model, currency) = key;
        let mut factor = Ratio::ONE;
        if ask.unit == Unit::Msit {
            let profile = model.as_ref().and_then(|model| state.intake.quality_of(model));
            let pair = (Unit::Mtok, Unit::Msit);
            let found = profile.map(|profile| state.intake.profiles.factor(pair, Some(profile), date));
            match found {
                Some(Ok(found)) => factor = found,
                _ => {
                    self.miss(UsageGap::NoQuality { model }, sum.records);
                    return Ok(());
                }
            }
        }
        let cost = Ratio::of(Money::from_pico(currency, sum.pico));
        let market = &state.intake.market;
        let Ok(cost) = market.convert(cost, (currency, ask.currency), date, None, ask.as_of) else {
            self.miss(UsageGap::NoRate { currency, date }, sum.records);
            return Ok(());
        };
        let tokens = i128::try_from(sum.tokens).map_err(|_| ExactError::Overflow)?;
        let volume = Ratio::new(tokens, 1_000_000)?.times(factor)?.decimal_half_even(PLACES)?;
        let place = self.seen.entry((date, constituent)).or_default();
        place.volume = place.volume.plus(volume)?;
        place.cost = place.cost.plus(cost.decimal_half_even(PLACES)?)?;
        self.records = self.records.saturating_add(sum.records);
        Ok(())
    }
}
