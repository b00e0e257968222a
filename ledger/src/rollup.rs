//! Totals: what many records add up to, and the hourly rollups in which they are kept.
//!
//! Invariants
//! - Totals are the same in whatever order and grouping records are added: money is summed in 192
//!   bits, counts saturate at 2⁶⁴−1. A sum of money that does not fit into 128 bits is marked, never
//!   wrapped.
//! - A record that does not count adds to requests, bytes and outcomes, not to tokens or cost.
//! - A rollup's key begins with its hour, so a range of time is a range of keys.
//!
//! Not here: where rollups are kept (`store`), how they become report rows (`query`).

use crate::codec::{self, Figures, Glance};
use bursar_domain::{
    Anomalies, Anomaly, Cost, CostStatus, Currency, Label, Money, Outcome, Quantity, Timestamp, TokenClass,
    Usage, UsageRecord, UsageSource,
};
use std::collections::HashMap;

/// Microseconds in an hour.
pub(crate) const HOUR_MICROS: i64 = 3_600_000_000;

const OUTCOMES: usize = Outcome::ALL.len();
const SOURCES: usize = UsageSource::ALL.len();
const TOTALS_VERSION: u8 = 3;

/// A sum of amounts of one currency, exact far beyond 128 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoneySum {
    low: u128,
    high: i64,
    terms: u64,
}

impl MoneySum {
    /// Adds an amount in pico-units.
    pub fn add(&mut self, pico: i128) {
        let (low, carry) = self.low.overflowing_add(pico.cast_unsigned());
        let sign = if pico < 0 { -1 } else { 0 };
        self.low = low;
        self.high = self.high.saturating_add(i64::from(carry)).saturating_add(sign);
        self.terms = self.terms.saturating_add(1);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        let (low, carry) = self.low.overflowing_add(other.low);
        self.low = low;
        self.high = self.high.saturating_add(other.high).saturating_add(i64::from(carry));
        self.terms = self.terms.saturating_add(other.terms);
    }

    /// Takes another sum away. The number of amounts adds up all the same.
    pub(crate) fn take(&mut self, other: &Self) {
        let (low, borrow) = self.low.overflowing_sub(other.low);
        self.low = low;
        self.high = self.high.saturating_sub(other.high).saturating_sub(i64::from(borrow));
        self.terms = self.terms.saturating_add(other.terms);
    }

    /// Whether it is zero, or nothing was added.
    pub(crate) fn is_zero(&self) -> bool {
        self.low == 0 && self.high == 0
    }

    /// The sum in pico-units; `None` when nothing was added or it does not fit.
    #[must_use]
    pub fn pico(&self) -> Option<i128> {
        let low = self.low.cast_signed();
        let fits = (self.high == 0 && low >= 0) || (self.high == -1 && low < 0);
        (self.terms > 0 && fits).then_some(low)
    }

    /// How many amounts were added.
    #[must_use]
    pub fn terms(&self) -> u64 {
        self.terms
    }

    /// Whether the sum does not fit into 128 bits of pico-units.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.terms > 0 && self.pico().is_none()
    }
}

/// Sums of money in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoneyTotals {
    /// The currency of all four.
    pub currency: Currency,
    /// At public prices.
    pub list: MoneySum,
    /// At negotiated prices.
    pub contracted: MoneySum,
    /// What invoices will say.
    pub billed: MoneySum,
    /// What providers themselves said they charged.
    pub provider: MoneySum,
    /// The steps from the public price to the invoice, each of which takes the one before it where its own
    /// amount is not known: what postings are made of.
    pub(crate) steps: Steps,
}

/// See [`MoneyTotals`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// At public prices, else what else is known.
    pub(crate) gross: MoneySum,
    /// At negotiated prices.
    pub(crate) net: MoneySum,
    /// What is owed.
    pub(crate) due: MoneySum,
}

impl MoneyTotals {
    fn new(currency: Currency) -> Self {
        let zero = MoneySum::default();
        let steps = Steps::default();
        Self { currency, list: zero, contracted: zero, billed: zero, provider: zero, steps }
    }
}

/// What one record adds to totals.
struct Addend<'a> {
    counted: bool,
    outcome: Outcome,
    source: UsageSource,
    usage: &'a Usage,
    /// Of the request and of the reply.
    bytes: (u64, u64),
    anomalies: Anomalies,
    provider_cost: Option<Money>,
    cost: Option<&'a Cost>,
}

/// What a set of records adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All records.
    pub requests: u64,
    /// Records whose tokens and cost count.
    pub counted: u64,
    outcomes: [u64; OUTCOMES],
    sources: [u64; SOURCES],
    /// Tokens and quantities of counted records. What no record knew is unknown.
    pub usage: Usage,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of reply bodies.
    pub bytes_out: u64,
    /// Counted records whose cost is complete.
    pub priced: u64,
    /// Counted records without a price.
    pub unpriced: u64,
    /// Counted records with a price for some parts.
    pub partly_priced: u64,
    /// Records with an anomaly.
    pub anomalous: u64,
    /// How many records have which anomaly: (number, records), by number.
    anomalies: Vec<(u8, u64)>,
    money: Vec<MoneyTotals>,
}

impl Totals {
    /// Adds one record.
    pub(crate) fn add_record(&mut self, record: &UsageRecord, counted: bool) {
        self.add(&Addend {
            counted,
            outcome: record.outcome,
            source: record.usage_source,
            usage: &record.usage,
            bytes: (record.bytes_in, record.bytes_out),
            anomalies: record.anomalies,
            provider_cost: record.provider_cost.map(|charge| charge.amount),
            cost: record.cost.as_ref(),
        });
    }

    /// Adds a record that was not taken out of its frame.
    pub(crate) fn add_glance(&mut self, glance: &Glance<'_>, figures: &Figures) {
        self.add(&Addend {
            counted: glance.counted,
            outcome: glance.outcome,
            source: glance.source,
            usage: &figures.usage,
            bytes: (figures.bytes_in, figures.bytes_out),
            anomalies: figures.anomalies,
            provider_cost: figures.provider_cost,
            cost: figures.cost.as_ref(),
        });
    }

    fn add(&mut self, record: &Addend<'_>) {
        bump(&mut self.requests, 1);
        bump_at(&mut self.outcomes, record.outcome.number(), 1);
        bump(&mut self.bytes_in, record.bytes.0);
        bump(&mut self.bytes_out, record.bytes.1);
        bump(&mut self.anomalous, u64::from(!record.anomalies.is_empty()));
        for anomaly in record.anomalies.iter() {
            self.add_anomaly(anomaly.number(), 1);
        }
        if record.counted {
            self.add_counted(record);
        }
    }

    fn add_counted(&mut self, record: &Addend<'_>) {
        bump(&mut self.counted, 1);
        bump_at(&mut self.sources, record.source.number(), 1);
        self.usage.add(record.usage);
        if let Some(charge) = record.provider_cost {
            self.money_in(charge.currency()).provider.add(charge.pico());
        }
        let Some(cost) = record.cost else {
            bump(&mut self.unpriced, 1);
            return;
        };
        match cost.status {
            CostStatus::Priced => bump(&mut self.priced, 1),
            CostStatus::Unpriced => bump(&mut self.unpriced, 1),
            CostStatus::PartlyPriced => bump(&mut self.partly_priced, 1),
        }
        let amounts = [cost.list_pico, cost.contracted_pico, cost.billed_pico];
        if amounts.iter().all(Option::is_none) {
            return;
        }
        let money = self.money_in(cost.currency);
        for (sum, amount) in
            [&mut money.list, &mut money.contracted, &mut money.billed].into_iter().zip(amounts)
        {
            if let Some(pico) = amount {
                sum.add(pico);
            }
        }
        if let Some([gross, net, due]) = crate::postings::steps(cost) {
            money.steps.gross.add(gross);
            money.steps.net.add(net);
            money.steps.due.add(due);
        }
    }

    /// Adds other totals.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            requests,
            counted,
            outcomes,
            sources,
            usage,
            bytes_in,
            bytes_out,
            priced,
            unpriced,
            partly_priced,
            anomalous,
            anomalies,
            money,
        } = other;
        bump(&mut self.requests, *requests);
        bump(&mut self.counted, *counted);
        self.outcomes.iter_mut().zip(outcomes).for_each(|(sum, n)| bump(sum, *n));
        self.sources.iter_mut().zip(sources).for_each(|(sum, n)| bump(sum, *n));
        self.usage.add(usage);
        bump(&mut self.bytes_in, *bytes_in);
        bump(&mut self.bytes_out, *bytes_out);
        bump(&mut self.priced, *priced);
        bump(&mut self.unpriced, *unpriced);
        bump(&mut self.partly_priced, *partly_priced);
        bump(&mut self.anomalous, *anomalous);
        for (number, count) in anomalies {
            self.add_anomaly(*number, *count);
        }
        for theirs in money {
            let ours = self.money_in(theirs.currency);
            ours.list.merge(&theirs.list);
            ours.contracted.merge(&theirs.contracted);
            ours.billed.merge(&theirs.billed);
            ours.provider.merge(&theirs.provider);
            ours.steps.gross.merge(&theirs.steps.gross);
            ours.steps.net.merge(&theirs.steps.net);
            ours.steps.due.merge(&theirs.steps.due);
        }
    }

    /// Records that ended with `outcome`.
    #[must_use]
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(usize::from(outcome.number())).copied().unwrap_or(0)
    }

    /// Counted records whose counts come from `source`.
    #[must_use]
    pub fn source(&self, source: UsageSource) -> u64 {
        self.sources.get(usize::from(source.number())).copied().unwrap_or(0)
    }

    /// Records that have `anomaly`. One record may have several.
    #[must_use]
    pub fn anomaly(&self, anomaly: Anomaly) -> u64 {
        let found = self.anomalies.iter().find(|(number, _)| *number == anomaly.number());
        found.map_or(0, |(_, count)| *count)
    }

    fn add_anomaly(&mut self, number: u8, by: u64) {
        match self.anomalies.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => {
                if let Some((_, count)) = self.anomalies.get_mut(at) {
                    bump(count, by);
                }
            }
            Err(at) => self.anomalies.insert(at, (number, by)),
        }
    }

    /// Sums of money by currency, in the order of their codes.
    #[must_use]
    pub fn money(&self) -> &[MoneyTotals] {
        &self.money
    }

    fn money_in(&mut self, currency: Currency) -> &mut MoneyTotals {
        let at = match self.money.binary_search_by_key(&currency, |money| money.currency) {
            Ok(at) => at,
            Err(at) => {
                self.money.insert(at, MoneyTotals::new(currency));
                at
            }
        };
        #[expect(clippy::indexing_slicing, reason = "the search found it or it was just inserted there")]
        &mut self.money[at]
    }
}

fn bump(sum: &mut u64, by: u64) {
    *sum = sum.saturating_add(by);
}

fn bump_at(sums: &mut [u64], number: u8, by: u64) {
    if let Some(sum) = sums.get_mut(usize::from(number)) {
        bump(sum, by);
    }
}

/// What a rollup is kept by, beside its hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct Dimensions<'a> {
    pub(crate) team: Option<&'a str>,
    pub(crate) workload: Option<&'a str>,
    pub(crate) provider: &'a str,
    /// The model served, else the one requested.
    pub(crate) model: Option<&'a str>,
    pub(crate) route: &'a str,
    pub(crate) api: &'a str,
    pub(crate) tier: Option<&'a str>,
    pub(crate) outcome: u8,
    pub(crate) source: u8,
}

impl<'a> Dimensions<'a> {
    pub(crate) fn of(record: &'a UsageRecord) -> Self {
        let [team, workload, provider, model, route, api, tier] =
            Self::labels(record).map(|label| label.map(Label::as_str));
        Self {
            team,
            workload,
            provider: provider.unwrap_or_default(),
            model,
            route: route.unwrap_or_default(),
            api: api.unwrap_or_default(),
            tier,
            outcome: record.outcome.number(),
            source: record.usage_source.number(),
        }
    }
}

impl Dimensions<'_> {
    /// Team, workload, provider, model, route, API and tier of a record.
    pub(crate) fn labels(record: &UsageRecord) -> [Option<&Label>; 7] {
        [
            record.identity.team.as_ref(),
            record.identity.workload.as_ref(),
            Some(&record.provider),
            record.model_served.as_ref().or(record.model_requested.as_ref()),
            Some(&record.route),
            Some(&record.api),
            record.tier.as_ref(),
        ]
    }
}

/// An hour of UTC: hours since 1970, offset so that keys sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hour(u32);

impl Hour {
    const OFFSET: i64 = 1 << 31;

    /// The hour that `at` is in. Times beyond 245,000 years from 1970 are put into the last hour.
    pub(crate) fn of(at: Timestamp) -> Self {
        let hours = at.micros().div_euclid(HOUR_MICROS).saturating_add(Self::OFFSET);
        Self(u32::try_from(hours.max(0)).unwrap_or(u32::MAX))
    }

    /// Its first microsecond.
    pub(crate) fn start(self) -> Timestamp {
        Timestamp::from_micros((i64::from(self.0) - Self::OFFSET).saturating_mul(HOUR_MICROS))
    }

    /// Tells it from other hours.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn from_key(key: &[u8]) -> Option<Self> {
        key.first_chunk::<4>().map(|bytes| Self(u32::from_be_bytes(*bytes)))
    }

    pub(crate) fn to_key(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

/// Writes the key of a rollup into `key`.
pub(crate) fn encode_key(key: &mut Vec<u8>, hour: Hour, dimensions: &Dimensions<'_>) {
    struct Sink<'a>(&'a mut Vec<u8>);
    impl Extend<u8> for Sink<'_> {
        fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
            self.0.extend(bytes);
        }
    }
    key.clear();
    key.extend_from_slice(&hour.to_key());
    // Writing to memory cannot fail.
    let _ = postcard::to_extend(dimensions, Sink(key));
}

/// Hour and dimensions of a rollup's key.
pub(crate) fn decode_key(key: &[u8]) -> Option<(Hour, Dimensions<'_>)> {
    let hour = Hour::from_key(key)?;
    Some((hour, postcard::from_bytes(key.get(4..)?).ok()?))
}

/// Rollups by key, summed in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rollups {
    rows: HashMap<Box<[u8]>, Totals>,
    key: Vec<u8>,
}

impl Rollups {
    pub(crate) fn add_record(&mut self, record: &UsageRecord, counted: bool) {
        let hour = Hour::of(record.started_at);
        self.change(hour, &Dimensions::of(record), |totals| totals.add_record(record, counted));
    }

    pub(crate) fn merge(&mut self, hour: Hour, dimensions: &Dimensions<'_>, totals: &Totals) {
        self.change(hour, dimensions, |sum| sum.merge(totals));
    }

    /// Adds totals under a key that was written before.
    pub(crate) fn merge_key(&mut self, key: &[u8], totals: &Totals) {
        match self.rows.get_mut(key) {
            Some(sum) => sum.merge(totals),
            None => drop(self.rows.insert(key.into(), totals.clone())),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Totals)> {
        self.rows.iter().map(|(key, totals)| (key.as_ref(), totals))
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    fn change(&mut self, hour: Hour, dimensions: &Dimensions<'_>, change: impl FnOnce(&mut Totals)) {
        encode_key(&mut self.key, hour, dimensions);
        if let Some(totals) = self.rows.get_mut(self.key.as_slice()) {
            return change(totals);
        }
        let mut totals = Totals::default();
        change(&mut totals);
        self.rows.insert(self.key.as_slice().into(), totals);
    }
}

// === the bytes of totals ===

#[derive(serde::Serialize, serde::Deserialize)]
struct WireTotals {
    version: u8,
    requests: u64,
    counted: u64,
    outcomes: Vec<(u8, u64)>,
    sources: Vec<(u8, u64)>,
    tokens: Vec<(u8, u64)>,
    quantities: Vec<(u8, u64)>,
    bytes_in: u64,
    bytes_out: u64,
    priced: u64,
    unpriced: u64,
    partly_priced: u64,
    anomalous: u64,
    anomalies: Vec<(u8, u64)>,
    money: Vec<WireMoney>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct WireMoney {
    currency: [u8; 3],
    list: (u128, i64, u64),
    contracted: (u128, i64, u64),
    billed: (u128, i64, u64),
    provider: (u128, i64, u64),
    steps: [(u128, i64, u64); 3],
}

/// The bytes of totals, for the store.
pub(crate) fn encode_totals(totals: &Totals) -> Vec<u8> {
    let sum = |sum: &MoneySum| (sum.low, sum.high, sum.terms);
    let wire = WireTotals {
        version: TOTALS_VERSION,
        requests: totals.requests,
        counted: totals.counted,
        outcomes: sparse(&totals.outcomes),
        sources: sparse(&totals.sources),
        tokens: totals.usage.tokens().map(|(class, n)| (class.number(), n)).collect(),
        quantities: totals.usage.quantities().map(|(quantity, n)| (quantity.number(), n)).collect(),
        bytes_in: totals.bytes_in,
        bytes_out: totals.bytes_out,
        priced: totals.priced,
        unpriced: totals.unpriced,
        partly_priced: totals.partly_priced,
        anomalous: totals.anomalous,
        anomalies: totals.anomalies.clone(),
        money: totals
            .money
            .iter()
            .map(|money| WireMoney {
                currency: codec::code(money.currency),
                list: sum(&money.list),
                contracted: sum(&money.contracted),
                billed: sum(&money.billed),
                provider: sum(&money.provider),
                steps: [&money.steps.gross, &money.steps.net, &money.steps.due].map(sum),
            })
            .collect(),
    };
    // Writing to memory cannot fail.
    postcard::to_stdvec(&wire).unwrap_or_default()
}

/// Totals from their bytes.
pub(crate) fn decode_totals(bytes: &[u8]) -> Option<Totals> {
    let wire: WireTotals = postcard::from_bytes(bytes).ok()?;
    if wire.version != TOTALS_VERSION {
        return None;
    }
    let sum = |(low, high, terms)| MoneySum { low, high, terms };
    let mut totals = Totals {
        requests: wire.requests,
        counted: wire.counted,
        bytes_in: wire.bytes_in,
        bytes_out: wire.bytes_out,
        priced: wire.priced,
        unpriced: wire.unpriced,
        partly_priced: wire.partly_priced,
        anomalous: wire.anomalous,
        anomalies: wire.anomalies,
        ..Totals::default()
    };
    for (number, count) in wire.outcomes {
        *totals.outcomes.get_mut(usize::from(number))? = count;
    }
    for (number, count) in wire.sources {
        *totals.sources.get_mut(usize::from(number))? = count;
    }
    for (number, count) in wire.tokens {
        totals.usage.set(TokenClass::from_number(number)?, count);
    }
    for (number, amount) in wire.quantities {
        totals.usage.set_quantity(Quantity::from_number(number)?, amount);
    }
    for money in wire.money {
        let [gross, net, due] = money.steps.map(sum);
        totals.money.push(MoneyTotals {
            steps: Steps { gross, net, due },
            currency: codec::currency(money.currency).ok()?,
            list: sum(money.list),
            contracted: sum(money.contracted),
            billed: sum(money.billed),
            provider: sum(money.provider),
        });
    }
    Some(totals)
}

fn sparse(counts: &[u64]) -> Vec<(u8, u64)> {
    (0_u8..).zip(counts).filter(|(_, n)| **n != 0).map(|(number, n)| (number, *n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::any_record;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn totals_do_not_depend_on_order_or_grouping(
            records in prop::collection::vec((any_record(), any::<bool>()), 0..12),
            cut in 0_usize..12,
        ) {
            let mut straight = Totals::default();
            records.iter().for_each(|(record, counted)| straight.add_record(record, *counted));
            let (left, right) = records.split_at(cut.min(records.len()));
            let mut parts = [Totals::default(), Totals::default()];
            left.iter().rev().for_each(|(record, counted)| parts[0].add_record(record, *counted));
            right.iter().rev().for_each(|(record, counted)| parts[1].add_record(record, *counted));
            let mut merged = Totals::default();
            merged.merge(&parts[1]);
            merged.merge(&parts[0]);
            prop_assert_eq!(&merged, &straight);
            prop_assert_eq!(decode_totals(&encode_totals(&merged)), Some(straight));
        }

        #[test]
        fn money_is_summed_exactly_and_a_sum_that_does_not_fit_is_marked(
            amounts in prop::collection::vec(prop_oneof![any::<i128>(), -1_000_i128..1_000, Just(i128::MAX), Just(i128::MIN)], 1..20)
        ) {
            let mut sum = MoneySum::default();
            amounts.iter().for_each(|pico| sum.add(*pico));
            // Halves and remainders cannot overflow over twenty amounts.
            let high: i128 = amounts.iter().map(|pico| pico >> 64).sum();
            let low: i128 = amounts.iter().map(|pico| pico & i128::from(u64::MAX)).sum();
            let carried = high + (low >> 64);
            let fits = i64::try_from(carried).is_ok();
            prop_assert_eq!(sum.overflowed(), !fits);
            if fits {
                prop_assert_eq!(sum.pico(), Some((carried << 64) | (low & i128::from(u64::MAX))));
            }
        }

        #[test]
        fn hours_sort_as_their_keys(a in any::<i64>(), b in any::<i64>()) {
            let (a, b) = (Timestamp::from_micros(a), Timestamp::from_micros(b));
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(Hour::of(low).to_key() <= Hour::of(high).to_key());
        }
    }

    #[test]
    fn nothing_added_is_unknown_and_zero_added_is_zero() {
        let mut sum = MoneySum::default();
        assert_eq!((sum.pico(), sum.overflowed()), (None, false));
        sum.add(0);
        assert_eq!(sum.pico(), Some(0));
    }
}
