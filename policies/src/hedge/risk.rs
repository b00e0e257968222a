//! The risk report: marks beside cost, coverage by month, margin under stress, limits, index
//! concentration, missing fixings, the designation log. Exact.
//!
//! Invariants
//! - A mark is never part of a cost: it is computed here and nowhere enters `cost`.
//! - It is evidence; it does not decide whether a hedge qualifies for hedge accounting.
//!
//! Not here: series, regressions and simulation (`analytics`).

use super::calendar::{Month, Window};
use super::lifecycle::{History, What};
use super::margin::{LimitStatus, Margins, limit_use};
use super::market::{Fallback, Irregular, Market, MarketError};
use super::payoff::Side;
use super::position::{Group, Kind, Limits, Position, SettlementRule};
use super::profile::{INDEX_WEIGHT_MAX_PERCENT, ProfileError, Profiles, Unit};
use crate::exact::{Decimal, ExactError, Ratio};
use bursar_domain::{Currency, Label, Money, Timestamp};
use jiff::civil::Date;
use std::collections::BTreeMap;

/// What this report is and is not; printed with it.
pub const DISCLAIMER: &str = "This report is evidence about positions and their effect. \
    It does not decide whether a hedge qualifies for hedge accounting.";

/// The part of a limit from which a warning is given, in percent.
pub const LIMIT_WARN_PERCENT: u32 = 90;

/// One month of a position by settlement: realised or still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthMark {
    /// The month.
    pub month: Month,
    /// Units, times side.
    pub units: Ratio,
    /// Mark or settlement price.
    pub price: Ratio,
}

/// Realised and unrealised result of a position with a fixed price, exact.
pub fn realised_and_unrealised(
    side: Side,
    fixed: Decimal,
    settled: &[MonthMark],
    open: &[MonthMark],
) -> Result<(Ratio, Ratio), ExactError> {
    let result = |months: &[MonthMark]| {
        let one = |mark: &MonthMark| side.signed(mark.units.times(mark.price.minus(fixed.ratio())?)?);
        months.iter().map(one).try_fold(Ratio::ZERO, |sum, part| sum.plus(part?))
    };
    Ok((result(settled)?, result(open)?))
}

/// The unrealised result of a position: months after `today` at the last fixing (of a currency forward, the
/// last rate), by its price terms (options at intrinsic value). In the price currency; a column beside cost.
pub fn mark_to_market(
    position: &Position,
    history: &History,
    market: &Market,
    today: Date,
    as_of: Timestamp,
) -> Result<Option<Money>, MarketError> {
    let terms = position.terms();
    let Some(shape) = position.shape() else { return Ok(None) };
    if is_withdrawn(history, as_of) {
        return Ok(None);
    }
    let mark = match (&terms.underlying, &terms.fx) {
        (_, Some(fx)) if terms.kind == Kind::FxForward => {
            let (from, to, source_name) = (fx.pair.base, fx.pair.quote, fx.source.clone());
            let rate = market.rate(fx.pair, today, fx.source.as_ref(), as_of);
            rate.ok_or(MarketError::NoRate { from, to, date: today, source_name })?.ratio()
        }
        (Some(underlying), _) => {
            market.index_priced_in(&underlying.index, terms.economics.price_currency)?;
            market.fixing_or(&underlying.index, today, Fallback::LastPublished, as_of)?
        }
        _ => return Ok(None),
    };
    let open = Ratio::ONE.minus(history.closed(as_of)?.ratio())?;
    let mut value = Ratio::ZERO;
    for month in terms.timing.effective.months().filter(|month| *month > Month::of(today)) {
        let units = position.units_in(month)?.times(open)?;
        value = value.plus(shape.payoff(terms.economics.side, units, mark)?)?;
    }
    Ok(Some(value.money_half_even(terms.economics.price_currency)?))
}

fn is_withdrawn(history: &History, as_of: Timestamp) -> bool {
    history.counting(as_of).any(|(_, what)| *what == What::Cancel)
}

/// What of a position is still open after a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// The position.
    pub position: &'a Position,
    /// The part of it that was not closed.
    pub part: Ratio,
    /// The months that are not over; one that is running counts whole.
    pub months: Vec<Month>,
}

impl<'a> Open<'a> {
    /// What of `position` is open after `today`; nothing of one that was withdrawn.
    pub fn after(
        position: &'a Position,
        history: &History,
        today: Date,
        as_of: Timestamp,
    ) -> Result<Self, ExactError> {
        let closed = history.closed(as_of)?.ratio();
        let part = if is_withdrawn(history, as_of) { Ratio::ZERO } else { Ratio::ONE.minus(closed)? };
        let window = position.terms().timing.effective;
        let is_open = |month: &Month| {
            let covered = month.window().ok().and_then(|of| of.overlap(window));
            covered.is_some_and(|covered| covered.last() > today)
        };
        let months = if part.is_positive() { window.months().filter(is_open).collect() } else { Vec::new() };
        Ok(Self { position, part, months })
    }

    /// Open lots of a month.
    pub fn lots_in(&self, month: Month) -> Result<Ratio, ExactError> {
        self.position.lots_in(month)?.times(self.part)
    }

    /// All open lots.
    pub fn lots(&self) -> Result<Ratio, ExactError> {
        self.months.iter().try_fold(Ratio::ZERO, |sum, month| sum.plus(self.lots_in(*month)?))
    }

    /// All open units.
    pub fn units(&self) -> Result<Ratio, ExactError> {
        let of = |month: &Month| self.position.units_in(*month)?.times(self.part);
        self.months.iter().try_fold(Ratio::ZERO, |sum, month| sum.plus(of(month)?))
    }

    /// Margin of all open lots; `None` without margin terms.
    pub fn margins(&self) -> Result<Option<Margins>, ExactError> {
        let Some(margin) = self.position.terms().margin else { return Ok(None) };
        let currency = margin.initial.currency();
        let initial = Ratio::of(margin.initial).times(self.lots()?)?;
        let maintenance = initial.times(margin.maintenance_ratio.ratio())?;
        Ok(Some(Margins {
            initial: initial.money_half_even(currency)?,
            maintenance: maintenance.money_half_even(currency)?,
        }))
    }
}

/// Hedged against forecast units of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthCoverage {
    /// Hedge units of all positions that count as coverage.
    pub hedged: Ratio,
    /// Forecast units.
    pub forecast: Ratio,
    /// Hedged ÷ forecast; `None` without forecast.
    pub ratio: Option<Ratio>,
}

/// Hedged units of each month, and the positions whose units do not convert, with the reason.
pub type CoverageByMonth = (BTreeMap<Month, MonthCoverage>, Vec<(Label, ProfileError)>);

/// Hedge ratio by month, against the forecast of each month.
pub fn coverage<'a>(
    positions: impl IntoIterator<Item = &'a Open<'a>>,
    profiles: &Profiles,
    unit: Unit,
    forecast: &BTreeMap<Month, Decimal>,
) -> Result<CoverageByMonth, ExactError> {
    let mut hedged: BTreeMap<Month, Ratio> = forecast.keys().map(|month| (*month, Ratio::ZERO)).collect();
    let mut problems = Vec::new();
    for open in positions {
        let (position, terms) = (open.position, open.position.terms());
        if terms.designation.is_none() || !matches!(terms.kind.group(), Group::Cash | Group::Units) {
            continue;
        }
        for (month, sum) in &mut hedged {
            let units = position.units_in(*month)?.times(open.part)?;
            if !units.is_positive() {
                continue;
            }
            match position.factor(profiles, unit, month.first()) {
                Ok(factor) => *sum = sum.plus(terms.economics.side.signed(units.times(factor)?)?)?,
                Err(error) => {
                    problems.push((position.id().clone(), error));
                    break;
                }
            }
        }
    }
    let mut rows = BTreeMap::new();
    for (month, hedged) in hedged {
        let forecast = forecast.get(&month).map_or(Ratio::ZERO, |units| units.ratio());
        let ratio = if forecast.is_positive() { Some(hedged.over(forecast)?) } else { None };
        rows.insert(month, MonthCoverage { hedged, forecast, ratio });
    }
    Ok((rows, problems))
}

/// A margin account under a price move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stress {
    /// The move, such as −0.15.
    pub change: Decimal,
    /// Variation margin of the day.
    pub flow: Money,
    /// What would be called the next day.
    pub call: Money,
}

/// Next-day calls of `units` at `price` if it moves by each of `changes` (±15 % and ±25 % by the
/// published contract).
pub fn stress(
    (side, units, price): (Side, Ratio, Decimal),
    margins: Margins,
    equity: Money,
    changes: &[Decimal],
) -> Result<Vec<Stress>, ExactError> {
    let one = |change: &Decimal| {
        let moved = units.times(price.times(*change)?)?;
        let flow = side.signed(moved)?.money_half_even(equity.currency())?;
        let call = margins.call(equity.checked_add(flow)?)?;
        Ok(Stress { change: *change, flow, call })
    };
    changes.iter().map(one).collect()
}

/// Margin that positions need, by currency: initial and maintenance of their open lots.
pub fn margin_by_currency<'a>(
    positions: impl IntoIterator<Item = &'a Open<'a>>,
) -> Result<BTreeMap<Currency, Margins>, ExactError> {
    let mut sums: BTreeMap<Currency, Margins> = BTreeMap::new();
    for open in positions {
        let Some(margins) = open.margins()? else { continue };
        let currency = margins.initial.currency();
        let zero = Money::zero(currency);
        let sum = sums.entry(currency).or_insert(Margins { initial: zero, maintenance: zero });
        sum.initial = sum.initial.checked_add(margins.initial)?;
        sum.maintenance = sum.maintenance.checked_add(margins.maintenance)?;
    }
    Ok(sums)
}

/// Lots against one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRow {
    /// `spot`, `single_month` or `all_months`.
    pub name: &'static str,
    /// Net lots.
    pub lots: Decimal,
    /// The limit.
    pub limit: Decimal,
    /// Used part.
    pub used: Ratio,
    /// What to say.
    pub status: LimitStatus,
}

/// Net lots of one contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetLots {
    /// In the month that settles next.
    pub spot: Decimal,
    /// In the largest single month.
    pub single_month: Decimal,
    /// In all months.
    pub all_months: Decimal,
}

/// The limits that exist, and whether the position must be reported.
pub fn limits(net: NetLots, limits: &Limits) -> Result<(Vec<LimitRow>, Option<bool>), ExactError> {
    let warn_at = Decimal::whole(LIMIT_WARN_PERCENT).over(Decimal::whole(100))?.decimal_half_even(2)?;
    let asked = [
        ("spot", net.spot, limits.spot),
        ("single_month", net.single_month, limits.single_month),
        ("all_months", net.all_months, limits.all_months),
    ];
    let mut rows = Vec::new();
    for (name, lots, limit) in asked {
        if let Some((limit, kind)) = limit {
            let (used, status) = limit_use(lots, limit, kind, warn_at)?;
            rows.push(LimitRow { name, lots, limit, used, status });
        }
    }
    let largest = [net.spot, net.single_month, net.all_months].map(|lots| lots.pico().unsigned_abs());
    let largest = largest.into_iter().max().unwrap_or(0);
    let reportable = limits.reportable.map(|level| largest >= level.pico().unsigned_abs());
    Ok((rows, reportable))
}

/// Weight of each provider in an index before the cap, and whether it is above 30 %.
pub fn concentration<K: Ord + Clone>(
    volumes: &BTreeMap<K, Decimal>,
) -> Result<BTreeMap<K, (Ratio, bool)>, ExactError> {
    let total = Ratio::sum(volumes.values().map(|volume| volume.ratio()))?;
    let cap = Ratio::new(INDEX_WEIGHT_MAX_PERCENT.into(), 100)?;
    if !total.is_positive() {
        return Ok(BTreeMap::new());
    }
    let weigh = |(key, volume): (&K, &Decimal)| {
        let weight = volume.ratio().over(total)?;
        Ok((key.clone(), (weight, weight > cap)))
    };
    volumes.iter().map(weigh).collect()
}

/// One line of the designation log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesignationLine {
    /// The position.
    pub position: Label,
    /// Its version.
    pub version: u32,
    /// From when it is designated.
    pub designated_at: Date,
    /// The day of the trade: a designation after it is late, and said so.
    pub trade_date: Date,
    /// Target hedge ratio.
    pub hedge_ratio: Decimal,
    /// Method by which effectiveness is judged.
    pub method: Option<Label>,
    /// The risk objective.
    pub objective: Option<String>,
}

/// When and why each position was designated, in order of time.
pub fn designation_log<'a>(positions: impl IntoIterator<Item = &'a Position>) -> Vec<DesignationLine> {
    let line = |position: &Position| {
        let terms = position.terms();
        let held = terms.designation.as_ref()?;
        Some(DesignationLine {
            position: position.id().clone(),
            version: terms.identity.version,
            designated_at: held.designated_at,
            trade_date: terms.timing.trade_date,
            hedge_ratio: held.hedge_ratio,
            method: held.effectiveness.as_ref().map(|terms| terms.method.clone()),
            objective: held.objective.clone(),
        })
    };
    let mut log: Vec<DesignationLine> = positions.into_iter().filter_map(line).collect();
    log.sort_by(|a, b| (a.designated_at, &a.position).cmp(&(b.designated_at, &b.position)));
    log
}

/// Days of a position's index that are missing, late or restated in a window.
pub fn irregular_fixings(
    position: &Position,
    market: &Market,
    window: Window,
    today: Date,
    as_of: Timestamp,
) -> Result<Option<Irregular>, MarketError> {
    let terms = position.terms();
    if terms.timing.settlement == SettlementRule::Physical {
        return Ok(None);
    }
    let Some(underlying) = &terms.underlying else { return Ok(None) };
    market.irregular(&underlying.index, window, today, as_of).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hedge::calendar::{Calendar, parse_day};
    use crate::hedge::lifecycle::{Event, Purchases};
    use crate::hedge::market::{Fixing, FxRate, Index, IndexKey, Pair};
    use crate::hedge::position::Entry;
    use serde_json::json;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    fn usd(text: &str) -> Money {
        Money::parse(Currency::USD, text).unwrap()
    }

    fn swap() -> Position {
        let entry = json!({
            "position_id": "swap", "kind": "swap_fixed_float", "quantity": "100", "unit": "Mtok",
            "fixed_price": "2.00", "index_id": "TPI", "trade_date": "2026-08-01", "volumes": "each_month",
            "effective_from": "2026-09-01", "effective_until": "2026-12-01",
            "margin": {"initial": "40", "maintenance_ratio": "0.75"},
            "designation": {"objective": "fix the cost of output tokens", "hedge_ratio": "0.8"}
        });
        serde_json::from_value::<Entry>(entry).unwrap().check().unwrap()
    }

    fn market() -> Market {
        let key = IndexKey { id: Label::fixed("TPI"), version: 1 };
        let mut market = Market::default();
        market.declare(Index {
            key: key.clone(),
            currency: Currency::USD,
            calendar: Calendar::daily(),
            last: None,
        });
        let fixing = Fixing {
            index: key,
            date: parse_day("2026-09-15").unwrap(),
            value: decimal("2.30"),
            currency: Currency::USD,
            source: Label::fixed("exchange"),
            known_at: Timestamp::from_micros(0),
        };
        let _ = market.add_fixing(fixing).unwrap();
        market
    }

    #[test]
    fn marks_take_the_months_to_come_only() {
        let today = parse_day("2026-09-16").unwrap();
        let now = Timestamp::from_micros(1);
        let mark = mark_to_market(&swap(), &History::default(), &market(), today, now);
        assert_eq!(mark.unwrap(), Some(usd("60")), "October and November at 0.30");
    }

    #[test]
    fn coverage_is_hedged_by_forecast_and_absent_without_one() {
        let month = |text| Month::parse(text).unwrap();
        let forecast = BTreeMap::from([
            (month("2026-09"), decimal("125")),
            (month("2026-10"), Decimal::ZERO),
            (month("2026-12"), decimal("10")),
        ]);
        let (swap, history) = (swap(), History::default());
        let open = Open::after(&swap, &history, parse_day("2026-08-31").unwrap(), Timestamp::from_micros(1));
        let (rows, problems) =
            coverage([&open.unwrap()], &Profiles::default(), Unit::Mtok, &forecast).unwrap();
        assert_eq!(problems, []);
        assert_eq!(rows[&month("2026-09")].ratio, Some(Ratio::new(4, 5).unwrap()));
        assert_eq!(rows[&month("2026-10")].ratio, None);
        assert_eq!(rows[&month("2026-12")].hedged, Ratio::ZERO);
    }

    #[test]
    fn stress_calls_restore_to_initial() {
        let margins = Margins { initial: usd("4000"), maintenance: usd("3000") };
        let changes = ["-0.15", "0.15", "-0.25", "0.25"].map(decimal);
        let position = (Side::Long, Ratio::whole(5_000), decimal("2.00"));
        let rows = stress(position, margins, usd("4200"), &changes).unwrap();
        let rows: Vec<(String, String)> =
            rows.iter().map(|row| (row.flow.to_string(), row.call.to_string())).collect();
        let expected = [("-1500", "1300"), ("1500", "0"), ("-2500", "2300"), ("2500", "0")];
        assert_eq!(rows, expected.map(|(flow, call)| (flow.to_owned(), call.to_owned())));
    }

    #[test]
    fn a_currency_forward_is_marked_at_the_last_rate() {
        let forward = json!({
            "position_id": "f", "kind": "fx_forward", "quantity": "100", "unit": "USD", "fixed_price": "7.0",
            "price_currency": "CNY", "fx": {"pair": "USD/CNY"}, "trade_date": "2026-08-01",
            "volumes": "each_month", "effective_from": "2026-09-01", "effective_until": "2026-12-01"
        });
        let forward = serde_json::from_value::<Entry>(forward).unwrap().check().unwrap();
        let (today, now) = (parse_day("2026-09-16").unwrap(), Timestamp::from_micros(1));
        let mark = |market: &Market| mark_to_market(&forward, &History::default(), market, today, now);
        let mut market = market();
        assert!(matches!(mark(&market), Err(MarketError::NoRate { .. })));
        let rate = FxRate {
            pair: Pair::parse("USD/CNY").unwrap(),
            date: parse_day("2026-09-15").unwrap(),
            rate: decimal("7.1"),
            source: Label::fixed("bank"),
            known_at: Timestamp::from_micros(0),
        };
        let _ = market.add_rate(rate).unwrap();
        assert_eq!(mark(&market).unwrap().unwrap().to_string(), "20", "October and November at 0.10");
    }

    #[test]
    fn nothing_below_the_threshold_is_called() {
        let entry = json!({"initial": "40", "maintenance_ratio": "0.75", "threshold": "100"});
        let margin = |entry| {
            let swap = json!({
                "position_id": "swap", "kind": "swap_fixed_float", "quantity": "100", "unit": "Mtok",
                "fixed_price": "2.00", "index_id": "TPI", "trade_date": "2026-08-01",
                "effective_from": "2026-09-01", "effective_until": "2026-10-01", "margin": entry
            });
            serde_json::from_value::<Entry>(swap).unwrap().check().unwrap().terms().margin.unwrap()
        };
        let threshold = margin(entry);
        assert_eq!(threshold.called(usd("99.99")), usd("0"));
        assert_eq!(threshold.called(usd("100")), usd("100"));
        let none = margin(json!({"initial": "40", "maintenance_ratio": "0.75"}));
        assert_eq!(none.called(usd("0.01")), usd("0.01"));
    }

    #[test]
    fn a_mark_in_another_currency_than_the_contract_is_no_mark() {
        let mut market = market();
        let key = IndexKey { id: Label::fixed("TPI"), version: 1 };
        let yuan = Currency::parse("CNY").unwrap();
        market.declare(Index { key, currency: yuan, calendar: Calendar::daily(), last: None });
        let today = parse_day("2026-09-16").unwrap();
        let mark = mark_to_market(&swap(), &History::default(), &market, today, Timestamp::from_micros(1));
        assert!(matches!(mark, Err(MarketError::PricedOtherwise { .. })), "{mark:?}");
    }

    #[test]
    fn margin_concentration_and_the_log_are_listed() {
        let (position, mut history, now) = (swap(), History::default(), Timestamp::from_micros(1));
        let day = |text| parse_day(text).unwrap();
        let initial = |history: &History, today| {
            let open = Open::after(&position, history, day(today), now).unwrap();
            let margins = margin_by_currency([&open]).unwrap();
            (margins[&Currency::USD].initial, margins[&Currency::USD].maintenance)
        };
        // Three months of a hundred lots; one that is running is still to settle.
        assert_eq!(initial(&history, "2026-08-31"), (usd("12000"), usd("9000")));
        assert_eq!(initial(&history, "2026-09-29"), (usd("12000"), usd("9000")));
        assert_eq!(initial(&history, "2026-09-30"), (usd("8000"), usd("6000")));
        let close =
            What::CloseOut { part: decimal("0.5"), price: decimal("2"), purchases: Purchases::Expected };
        let event = |id: &'static str, what| Event {
            id: Label::fixed(id),
            date: day("2026-09-05"),
            known_at: now,
            what,
        };
        let _ = history.add(event("half", close)).unwrap();
        assert_eq!(initial(&history, "2026-09-30"), (usd("4000"), usd("3000")));
        let _ = history.add(event("gone", What::Cancel)).unwrap();
        assert_eq!(initial(&history, "2026-09-30").0, usd("0"));
        assert_eq!(mark_to_market(&position, &history, &market(), day("2026-09-16"), now).unwrap(), None);
        let volumes = BTreeMap::from([("a", decimal("31")), ("b", decimal("30")), ("c", decimal("39"))]);
        let over: Vec<bool> = concentration(&volumes).unwrap().values().map(|(_, over)| *over).collect();
        assert_eq!(over, [true, false, true]);
        let log = designation_log([&swap()]);
        assert_eq!(log[0].objective.as_deref(), Some("fix the cost of output tokens"));
        let window = Month::parse("2026-09").unwrap().window().unwrap();
        let today = parse_day("2026-09-16").unwrap();
        let found = irregular_fixings(&swap(), &market(), window, today, Timestamp::from_micros(1));
        assert_eq!(found.unwrap().unwrap().missing.len(), 15);
    }
}
