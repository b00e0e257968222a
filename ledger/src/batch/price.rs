//! What results of a batch cost: each is priced as the request that it was, and the costs are added.
//!
//! Invariants
//! - A price above a context threshold and a fee per request are those of each result, never of the sum.
//! - Unknown is never zero: a result without a price leaves the whole partly priced, or unpriced when
//!   nothing else was charged.
//! - Amounts of two currencies are never added: the first one stays, the rest has no price.
//!
//! Not here: what one request costs (`Pricer`), which results count (`batch`).

use crate::settle::{self, Pricer};
use bursar_domain::batch::BatchLine;
use bursar_domain::{Cost, CostStatus, Currency, UsageRecord};
use std::sync::Arc;

/// What `lines` cost that were fetched by `record`. Everything that they do not tell is the record's.
pub(super) fn price<'a>(
    record: &UsageRecord,
    lines: impl Iterator<Item = BatchLine<'a>>,
    pricer: &dyn Pricer,
) -> Cost {
    let mut request = UsageRecord { usage_raw: None, provider_cost: None, ..record.clone() };
    let mut sum = CostSum::default();
    for line in lines {
        request.model_served = line.model.cloned();
        request.region = line.region.or(record.region.as_ref()).cloned();
        request.usage = line.usage;
        request.by_model = line.by_model;
        request.cost = None;
        settle::price(&mut request, true, pricer);
        if let Some(cost) = &request.cost {
            sum.add(cost);
        }
    }
    sum.total()
}

/// Costs being added up.
#[derive(Debug, Default)]
struct CostSum {
    /// Of the first cost that has amounts.
    currency: Option<Currency>,
    list: Amount,
    contracted: Amount,
    billed: Amount,
    rows: Vec<Arc<str>>,
    has_gap: bool,
    is_too_large: bool,
}

/// A sum of amounts, unknown as soon as one is.
#[derive(Clone, Copy, Debug)]
struct Amount(Option<i128>);

impl Default for Amount {
    fn default() -> Self {
        Self(Some(0))
    }
}

impl Amount {
    /// Adds an amount; returns whether the sum fits.
    fn add(&mut self, amount: Option<i128>) -> bool {
        let (Some(sum), Some(amount)) = (self.0, amount) else {
            self.0 = None;
            return true;
        };
        self.0 = sum.checked_add(amount);
        self.0.is_some()
    }

    fn is_zero(self) -> bool {
        self.0 == Some(0)
    }
}

impl CostSum {
    fn add(&mut self, cost: &Cost) {
        self.has_gap |= cost.status != CostStatus::Priced;
        if cost.status == CostStatus::Unpriced {
            return;
        }
        if *self.currency.get_or_insert(cost.currency) != cost.currency {
            self.has_gap = true;
            return;
        }
        let fits = [
            self.list.add(cost.list_pico),
            self.contracted.add(cost.contracted_pico),
            self.billed.add(cost.billed_pico),
        ];
        self.is_too_large |= fits.contains(&false);
        for row in &cost.price_rows {
            if !self.rows.iter().any(|named| Arc::ptr_eq(named, row) || named == row) {
                self.rows.push(Arc::clone(row));
            }
        }
    }

    fn total(self) -> Cost {
        let Self { currency, list, contracted, billed, rows, has_gap, is_too_large } = self;
        let unpriced = Cost::unpriced(currency.unwrap_or(Currency::USD));
        let is_nothing = rows.is_empty() && [list, contracted, billed].into_iter().all(Amount::is_zero);
        if is_too_large || currency.is_none() || (has_gap && is_nothing) {
            return unpriced;
        }
        Cost {
            status: if has_gap { CostStatus::PartlyPriced } else { CostStatus::Priced },
            list_pico: list.0,
            contracted_pico: contracted.0,
            billed_pico: billed.0,
            price_rows: rows,
            ..unpriced
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(status: CostStatus, pico: Option<i128>, row: &str) -> Cost {
        let rows = if row.is_empty() { Vec::new() } else { vec![Arc::from(row)] };
        Cost {
            status,
            list_pico: pico,
            contracted_pico: pico,
            billed_pico: pico,
            price_rows: rows,
            ..Cost::unpriced(Currency::USD)
        }
    }

    fn sum(costs: &[Cost]) -> Cost {
        let mut sum = CostSum::default();
        costs.iter().for_each(|cost| sum.add(cost));
        sum.total()
    }

    #[test]
    fn amounts_are_added_and_each_row_is_named_once() {
        use CostStatus::Priced;
        let costs = [
            cost(Priced, Some(5), "a"),
            cost(Priced, Some(0), ""),
            cost(Priced, Some(7), "b"),
            cost(Priced, Some(1), "a"),
        ];
        let expected =
            Cost { price_rows: vec![Arc::from("a"), Arc::from("b")], ..cost(Priced, Some(13), "") };
        assert_eq!(sum(&costs), expected);
    }

    #[test]
    fn a_cost_with_a_gap_leaves_one_in_the_sum() {
        use CostStatus::{PartlyPriced, Priced, Unpriced};
        let unpriced = || cost(Unpriced, None, "");
        let partly = cost(PartlyPriced, Some(5), "a");
        assert_eq!(sum(&[unpriced(), cost(Priced, Some(5), "a")]), partly);
        assert_eq!(sum(&[cost(Priced, Some(2), "a"), cost(PartlyPriced, Some(3), "a")]), partly);
        assert_eq!(sum(&[unpriced(), unpriced()]), unpriced());
        assert_eq!(sum(&[cost(Priced, Some(0), ""), unpriced()]), unpriced());
        let euros = Cost { currency: Currency::parse("EUR").unwrap(), ..cost(Priced, Some(9), "e") };
        assert_eq!(sum(&[cost(Priced, Some(5), "a"), euros]), partly);
    }

    #[test]
    fn an_amount_that_is_unknown_or_too_large_does_not_become_a_number() {
        use CostStatus::{Priced, Unpriced};
        let no_list = Cost { list_pico: None, ..cost(Priced, Some(2), "b") };
        let total = sum(&[cost(Priced, Some(5), "a"), no_list.clone(), cost(Priced, Some(1), "a")]);
        assert_eq!((total.status, total.list_pico, total.billed_pico), (Priced, None, Some(8)));
        let large = cost(Priced, Some(i128::MAX), "a");
        assert_eq!(sum(&[large, cost(Priced, Some(1), "a")]), cost(Unpriced, None, ""));
    }
}
