//! Commitments and prepayments: what is used, what lapses, what is still there, and how a purchase
//! is spread over its time.
//!
//! Invariants
//! - Used + unused = billed, to the minor unit.
//! - A schedule sums to what was bought.
//! - A prepaid lot is drawn earliest expiry first; what is left when it expires is breakage, a cost
//!   of the period in which it expires.
//!
//! Not here: which usage a commitment covers (`cost::waterfall`).

use super::calendar::Window;
use crate::exact::{Decimal, ExactError, Ratio, shares};
use bursar_domain::{Currency, Label, Money};
use jiff::civil::Date;
use std::collections::BTreeMap;

/// A commitment after a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What was used, at the committed price.
    pub used: Money,
    /// What was paid for and not used.
    pub unused: Money,
    /// Both: what is billed.
    pub billed: Money,
}

/// Take-or-pay: `committed` units at `price` are billed whatever is used (FINANCE §4).
pub fn take_or_pay(
    committed: Ratio,
    price: Ratio,
    consumed: Ratio,
    currency: Currency,
) -> Result<Taken, ExactError> {
    let billed = committed.times(price)?.money_half_even(currency)?;
    let used = consumed.min(committed).times(price)?.money_half_even(currency)?;
    Ok(Taken { used, unused: billed.checked_sub(used)?, billed })
}

/// Provisioned throughput after a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// Weighted tokens per minute that were bought.
    pub capacity: Ratio,
    /// Weighted tokens per minute that were used: input + ratio · output.
    pub weighted: Ratio,
    /// Used part of the capacity; above one means throttled or spilled.
    pub utilisation: Ratio,
    /// Cost split into used and idle.
    pub taken: Taken,
}

/// How much provisioned capacity was bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Units.
    pub units: Decimal,
    /// Weighted tokens per minute of one unit.
    pub tokens_per_minute: Decimal,
    /// How many input tokens an output token counts as.
    pub output_weight: Decimal,
}

/// Utilisation and idle cost of provisioned units over `hours` at `price` per unit and hour.
pub fn provisioned(
    capacity: Capacity,
    (input_tpm, output_tpm): (Decimal, Decimal),
    (price, hours): (Decimal, Decimal),
    currency: Currency,
) -> Result<Provisioned, ExactError> {
    let bought = capacity.units.times(capacity.tokens_per_minute)?;
    let weighted = input_tpm.ratio().plus(capacity.output_weight.times(output_tpm)?)?;
    let utilisation = weighted.over(bought)?;
    let cost = capacity.units.times(price)?.times(hours.ratio())?;
    let taken = take_or_pay(Ratio::ONE, cost, utilisation, currency)?;
    Ok(Provisioned { capacity: bought, weighted, utilisation, taken })
}

/// A prepaid amount with its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    /// Names the lot.
    pub id: Label,
    /// What is left.
    pub balance: Money,
    /// The last day on which it can be drawn; `None` never expires.
    pub expires: Option<Date>,
}

/// What happened to a lot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LotEvent {
    /// Drawn for usage.
    Drawn {
        /// When.
        date: Date,
        /// Which.
        lot: Label,
        /// How much.
        amount: Money,
    },
    /// Lapsed with money in it.
    Expired {
        /// Its last day.
        date: Date,
        /// Which.
        lot: Label,
        /// How much was lost.
        amount: Money,
    },
}

/// Prepaid lots, drawn earliest expiry first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lots {
    lots: Vec<Lot>,
}

impl Lots {
    /// Lots in the order in which they are drawn: expiry, then id.
    #[must_use]
    pub fn new(mut lots: Vec<Lot>) -> Self {
        lots.sort_by(|a, b| expiry_order(a).cmp(&expiry_order(b)));
        Self { lots }
    }

    /// The lots as they stand.
    #[must_use]
    pub fn lots(&self) -> &[Lot] {
        &self.lots
    }

    /// Lets lapse what expired before `date`.
    pub fn expire_before(&mut self, date: Date) -> Vec<LotEvent> {
        let mut events = Vec::new();
        for lot in &mut self.lots {
            if let Some(expires) = lot.expires.filter(|expires| *expires < date)
                && lot.balance.pico() > 0
            {
                let amount = lot.balance;
                lot.balance = Money::zero(amount.currency());
                events.push(LotEvent::Expired { date: expires, lot: lot.id.clone(), amount });
            }
        }
        events
    }

    /// Draws up to `wanted` on `date`; the second value is what no lot covered.
    pub fn draw(&mut self, date: Date, wanted: Money) -> Result<(Vec<LotEvent>, Money), ExactError> {
        let mut events = self.expire_before(date);
        let mut open = wanted;
        for lot in &mut self.lots {
            let pico = lot.balance.pico().min(open.pico());
            if pico <= 0 {
                continue;
            }
            let amount = Money::from_pico(wanted.currency(), pico);
            lot.balance = lot.balance.checked_sub(amount)?;
            open = open.checked_sub(amount)?;
            events.push(LotEvent::Drawn { date, lot: lot.id.clone(), amount });
        }
        Ok((events, open))
    }

    /// What all lots hold together.
    pub fn balance(&self, currency: Currency) -> Result<Money, ExactError> {
        crate::exact::sum(currency, self.lots.iter().map(|lot| lot.balance))
    }
}

fn expiry_order(lot: &Lot) -> (bool, Option<Date>, &Label) {
    (lot.expires.is_none(), lot.expires, &lot.id)
}

/// Spreads a purchase over the months that `over` touches, by days: the parts sum to the purchase.
/// The whole schedule is made at once; a period takes its entries.
pub fn amortise(
    purchase: Money,
    over: Window,
) -> Result<BTreeMap<super::calendar::Month, Money>, ExactError> {
    let mut weights = BTreeMap::new();
    for month in over.months() {
        let days = month.window().ok().and_then(|window| window.overlap(over)).map_or(0, Window::days);
        weights.insert(month, Ratio::whole(days.into()));
    }
    let shared = shares(purchase, &weights)?;
    let mut schedule = shared.parts;
    if shared.residual.pico() != 0
        && let Some(mut last) = schedule.last_entry()
    {
        *last.get_mut() = last.get().checked_add(shared.residual)?;
    }
    Ok(schedule)
}

/// The shortfall of a spend commitment at the end of its term: what was promised and not spent.
pub fn true_up(committed: Money, spent: Money) -> Result<Money, ExactError> {
    let short = committed.checked_sub(spent)?;
    Ok(if short.pico() > 0 { short } else { Money::zero(committed.currency()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hedge::calendar::parse_day;
    use proptest::prelude::*;

    fn usd(text: &str) -> Money {
        Money::parse(Currency::USD, text).unwrap()
    }

    fn day(text: &str) -> Date {
        parse_day(text).unwrap()
    }

    #[test]
    fn a_lot_can_be_drawn_on_its_last_day_and_not_after() {
        let lot = Lot { id: Label::fixed("L"), balance: usd("10"), expires: Some(day("2026-03-31")) };
        let mut lots = Lots::new(vec![lot.clone()]);
        let (events, open) = lots.draw(day("2026-03-31"), usd("4")).unwrap();
        assert_eq!((events.len(), open), (1, usd("0")));
        let (events, open) = lots.draw(day("2026-04-01"), usd("4")).unwrap();
        let lost = LotEvent::Expired { date: day("2026-03-31"), lot: lot.id, amount: usd("6") };
        assert_eq!((events, open), (vec![lost], usd("4")));
        assert!(lots.expire_before(day("2027-01-01")).is_empty(), "it lapses once");
    }

    #[test]
    fn a_purchase_over_a_leap_february_is_spread_by_days() {
        let over = Window::new(day("2028-01-31"), day("2028-03-02")).unwrap();
        let schedule = amortise(usd("31.00"), over).unwrap();
        let parts: Vec<String> = schedule.values().map(Money::to_string).collect();
        assert_eq!(parts, ["1", "29", "1"]);
    }

    #[test]
    fn a_shortfall_is_never_negative() {
        assert_eq!(true_up(usd("100"), usd("80.5")).unwrap(), usd("19.5"));
        assert_eq!(true_up(usd("100"), usd("120")).unwrap(), usd("0"));
    }

    proptest! {
        #[test]
        fn used_and_unused_are_what_was_billed(committed in 0_u32..1_000_000, price in 0_u32..1_000_000, consumed in 0_u32..2_000_000) {
            let price = Ratio::new(price.into(), 10_000).unwrap();
            let taken = take_or_pay(Ratio::whole(committed.into()), price, Ratio::whole(consumed.into()), Currency::USD).unwrap();
            prop_assert_eq!(taken.used.checked_add(taken.unused).unwrap(), taken.billed);
            prop_assert!(taken.unused.pico() >= 0);
        }

        #[test]
        fn drawing_neither_makes_nor_loses_money(balances in prop::collection::vec((0_u32..100_000, prop::option::of(0_i32..400)), 0..6), draws in prop::collection::vec((0_i32..30, 0_u32..50_000), 0..12)) {
            let epoch = day("2026-01-01");
            let lots = balances.iter().enumerate().map(|(n, (cents, expires))| Lot {
                id: Label::new(&format!("L{n}")).unwrap(),
                balance: Money::from_pico(Currency::USD, i128::from(*cents) * 10_000_000_000),
                expires: expires.map(|days| epoch.checked_add(jiff::Span::new().days(days)).unwrap()),
            });
            let mut lots = Lots::new(lots.collect());
            let start = lots.balance(Currency::USD).unwrap();
            let (mut date, mut gone) = (epoch, Money::zero(Currency::USD));
            for (days, cents) in draws {
                date = date.checked_add(jiff::Span::new().days(days)).unwrap();
                let (events, _) = lots.draw(date, Money::from_pico(Currency::USD, i128::from(cents) * 10_000_000_000)).unwrap();
                for event in events {
                    let (LotEvent::Drawn { amount, .. } | LotEvent::Expired { amount, .. }) = event;
                    prop_assert!(amount.pico() > 0);
                    gone = gone.checked_add(amount).unwrap();
                }
            }
            prop_assert_eq!(lots.balance(Currency::USD).unwrap().checked_add(gone).unwrap(), start);
        }
    }
}
