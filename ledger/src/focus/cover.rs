//! What contracts did to the usage of a month: what they cover of each row, and charges of their own.
//!
//! Invariants
//! - What a position took of a row of the report, and what it charges for that, is laid on the hours of
//!   usage that it may cover in proportion to what is still billed there, to the pico-unit; nothing is
//!   lost and nothing covered twice. What finds no usage is a charge of its own.
//! - A purchase is billed and not effective; what was used or lost of it is effective and not billed.
//! - Derivatives are in the `x_Hedge` columns alone: they are no charge of a provider.
//!
//! Not here: how much a position covers (`policies::hedge::cost`).

use super::charge::{Charge, Hedged, Priced, Sku};
use super::usage::Row;
use super::{FocusError, MonthOf, name_of};
use crate::query::{GroupKey, KeyValue};
use bursar_domain::money::{format_pico, parse_pico};
use bursar_domain::{Label, Money};
use bursar_policies::exact::{ExactError, Ratio};
use bursar_policies::hedge::cost::{LegResult, Line};
use bursar_policies::hedge::position::{Group, Position, Selector};
use std::collections::BTreeMap;

/// What contracts took of a row of usage.
#[derive(Clone, Debug, Default)]
pub(super) struct Covered {
    /// Of what would be billed, in pico-units.
    pub(super) displaced: i128,
    /// What they charge for it.
    pub(super) charged: i128,
    /// Which, and how much each charges.
    pub(super) by: Vec<(Label, i128)>,
}

impl Covered {
    /// As FOCUS tells it.
    pub(super) fn applied(&self) -> Option<String> {
        (!self.by.is_empty()).then(|| elements(self.by.iter().map(|(id, cost)| (id.as_str(), *cost))))
    }
}

/// What `ContractApplied` says: contracts, and what they were applied with.
pub(super) fn applied_costs(text: &str) -> Option<Vec<(String, i128)>> {
    let parts = text.split("\"ContractCommitmentId\":").skip(1);
    let part = |part: &str| {
        let (id, cost) = part.split_once(",\"ContractCommitmentAppliedCost\":")?;
        Some((serde_json::from_str(id).ok()?, parse_pico(cost.split('}').next()?).ok()?))
    };
    parts.map(part).collect()
}

/// `ContractApplied` of these contracts with what they were applied with.
pub(super) fn elements<'a>(parts: impl Iterator<Item = (&'a str, i128)>) -> String {
    let element = |(id, cost): (&str, i128)| {
        let id = serde_json::Value::from(id);
        let cost = format_pico(cost);
        format!(
            "{{\"ContractId\":{id},\"ContractCommitmentId\":{id},\"ContractCommitmentAppliedCost\":{cost}}}"
        )
    };
    format!("{{\"Elements\":[{}]}}", parts.map(element).collect::<Vec<_>>().join(","))
}

/// What a position posted to one row of the report.
#[derive(Default)]
struct Part {
    displaced: i128,
    charged: i128,
    unused: i128,
    hedged: Hedged,
}

impl Part {
    fn add(&mut self, line: Line, pico: i128) -> Result<(), ExactError> {
        let slot = match line {
            Line::Spot => return Ok(()),
            Line::Displaced => &mut self.displaced,
            Line::Contract => &mut self.charged,
            Line::Unused => &mut self.unused,
            Line::Payoff => &mut self.hedged.payoff,
            Line::Premium => &mut self.hedged.premium,
            Line::Fees => &mut self.hedged.fees,
            Line::Fx => &mut self.hedged.fx,
        };
        *slot = slot.checked_add(pico).ok_or(ExactError::Overflow)?;
        Ok(())
    }
}

impl MonthOf<'_> {
    /// Lays what contracts covered on the rows, and returns the charges of their own.
    pub(super) fn cover(&self, rows: &mut [Row<'_>]) -> Result<Vec<Charge<'_>>, FocusError> {
        let mut charges = Vec::new();
        if self.cost.legs.is_empty() {
            return Ok(charges);
        }
        let labels: BTreeMap<&[KeyValue], &Label> =
            self.report.rows.iter().map(|(label, row)| (row.key.as_slice(), label)).collect();
        let mut places: BTreeMap<&Label, Vec<usize>> = BTreeMap::new();
        for (place, row) in rows.iter().enumerate() {
            let counts = row.currency == self.ask.hedge.currency;
            if let Some(label) = labels.get(row.key).filter(|_| counts) {
                places.entry(label).or_default().push(place);
            }
        }
        let positions: BTreeMap<&Label, &Position> =
            self.state.intake.portfolio.in_force().map(|(position, _)| (position.id(), position)).collect();
        for leg in &self.cost.legs {
            let Some(position) = positions.get(&leg.position) else { continue };
            let mut parts: BTreeMap<Option<&Label>, Part> = BTreeMap::new();
            for posted in &leg.posted {
                parts.entry(posted.row.as_ref()).or_default().add(posted.line, posted.amount.pico())?;
            }
            for (label, part) in parts {
                let at = label.and_then(|label| places.get(label)).map_or(&[][..], Vec::as_slice);
                let left = self.lay(rows, at, position, &part)?;
                charges.extend(self.own(position, label, &part, left)?);
            }
            charges.extend(self.purchase(position, leg)?);
        }
        Ok(charges)
    }

    /// Lays what a position took of these rows on them; returns what found no place.
    fn lay(
        &self,
        rows: &mut [Row<'_>],
        at: &[usize],
        position: &Position,
        part: &Part,
    ) -> Result<(i128, i128), FocusError> {
        if part.displaced == 0 && part.charged == 0 {
            return Ok((0, 0));
        }
        let selector = self.selector(position);
        let by = &self.ask.hedge.by;
        let eligible: Vec<usize> = at
            .iter()
            .copied()
            .filter(|place| rows.get(*place).is_some_and(|row| selector.covers(&row.facets(by))))
            .collect();
        let open = |rows: &[Row<'_>], places: &[usize]| -> Vec<u128> {
            let open = |place: &usize| {
                let row = rows.get(*place)?;
                u128::try_from(row.spot().checked_sub(row.covered.displaced)?).ok()
            };
            places.iter().map(|place| open(place).unwrap_or(0)).collect()
        };
        let enough = |weights: &[u128]| {
            let sum = weights.iter().fold(0_u128, |sum, weight| sum.saturating_add(*weight));
            sum >= part.displaced.unsigned_abs()
        };
        let mut places = eligible;
        let mut weights = open(rows, &places);
        if !enough(&weights) {
            places = at.to_vec();
            weights = open(rows, &places);
        }
        let currency = self.ask.hedge.currency;
        let (taken, mut left) = if enough(&weights) {
            let (parts, rest) = Money::from_pico(currency, part.displaced).split_exact(&weights)?;
            (parts.iter().map(|part| part.pico()).collect::<Vec<_>>(), rest.pico())
        } else {
            // Rounding to the minor unit can take more than there is: the rest is a charge of its own.
            let all: Vec<i128> = weights.iter().map(|weight| i128::try_from(*weight).unwrap_or(0)).collect();
            let sum = all.iter().try_fold(0_i128, |sum, pico| sum.checked_add(*pico));
            let sum = sum.ok_or(ExactError::Overflow)?;
            (all, part.displaced.checked_sub(sum).ok_or(ExactError::Overflow)?)
        };
        let shares: Vec<u128> = taken.iter().map(|pico| pico.unsigned_abs()).collect();
        let (charged, rest) = Money::from_pico(currency, part.charged).split_exact(&shares)?;
        for ((place, taken), charged) in places.iter().zip(&taken).zip(&charged) {
            let Some(row) = rows.get_mut(*place) else { continue };
            if *taken == 0 && charged.pico() == 0 {
                continue;
            }
            let sum = |a: i128, b: i128| a.checked_add(b).ok_or(ExactError::Overflow);
            row.covered.displaced = sum(row.covered.displaced, *taken)?;
            row.covered.charged = sum(row.covered.charged, charged.pico())?;
            row.covered.by.push((position.id().clone(), charged.pico()));
        }
        if places.is_empty() {
            left = part.displaced;
        }
        Ok((left, rest.pico()))
    }

    /// The usage that a position may cover in this month; a team only where rows tell it.
    fn selector(&self, position: &Position) -> Selector {
        let held = position.terms().designation.as_ref();
        let held = held.filter(|held| held.designated_at <= self.window.from());
        let mut selector = held.map(|held| held.selector.clone()).unwrap_or_default();
        if !self.ask.hedge.by.contains(&GroupKey::Team) {
            selector.teams.clear();
        }
        selector
    }

    /// What a position charges a row of the report beside usage: what found no hour, what was not used,
    /// and what derivatives brought.
    fn own<'s>(
        &'s self,
        position: &'s Position,
        label: Option<&Label>,
        part: &Part,
        (displaced, charged): (i128, i128),
    ) -> Result<Vec<Charge<'s>>, FocusError> {
        let key =
            label.and_then(|label| self.report.rows.get(label)).map_or(&[][..], |row| row.key.as_slice());
        let id = position.id().as_str();
        let base = |category: &'static str| -> Result<Charge<'s>, FocusError> {
            Ok(Charge {
                provider: provider(position),
                by: &self.ask.hedge.by,
                key,
                position: Some(id),
                ..self.new_charge(self.days()?, category)
            })
        };
        let mut charges = Vec::new();
        let residual = |amount: i128| if label.is_none() { amount } else { 0 };
        let difference = charged.checked_sub(displaced).ok_or(ExactError::Overflow)?;
        if displaced != 0 || charged != 0 {
            let billed = displaced.checked_neg().ok_or(ExactError::Overflow)?;
            charges.push(Charge {
                description: format!("Covered by {id}, beyond what its hours were billed"),
                frequency: "Recurring",
                list: billed,
                contracted: billed,
                billed,
                effective: difference,
                hedged_cost: difference,
                ..base("Adjustment")?
            });
        }
        if part.unused != 0 {
            let hedged = Hedged { residual: residual(part.unused), ..Hedged::default() };
            charges.push(Charge {
                description: format!("Not used of {id}"),
                sku: Some(sku(position, "unused")),
                priced: Some(Priced::whole(0, 0)),
                effective: part.unused,
                applied: Some(elements([(id, part.unused)].into_iter())),
                is_position: true,
                hedged_cost: part.unused,
                hedged,
                ..base("Usage")?
            });
        }
        let cost = [part.hedged.premium, part.hedged.fees, part.hedged.fx]
            .into_iter()
            .try_fold(0_i128, i128::checked_add)
            .and_then(|cost| cost.checked_sub(part.hedged.payoff))
            .ok_or(ExactError::Overflow)?;
        if part.hedged != Hedged::default() {
            charges.push(Charge {
                description: format!("Result, premium and fees of {id}: no charge of a provider"),
                frequency: "Recurring",
                hedged_cost: cost,
                hedged: Hedged { residual: residual(cost), ..part.hedged },
                ..base("Adjustment")?
            });
        }
        Ok(charges)
    }

    /// What was bought of a contract in this month.
    fn purchase<'s>(
        &'s self,
        position: &'s Position,
        leg: &LegResult,
    ) -> Result<Option<Charge<'s>>, FocusError> {
        let terms = position.terms();
        let group = terms.kind.group();
        if !matches!(group, Group::Units | Group::Pool) {
            return Ok(None);
        }
        let once = group == Group::Pool || position.carries_over();
        let amount = if !once {
            leg.used.checked_add(leg.unused)?.pico()
        } else if self.window.contains(terms.timing.effective.from()) {
            self.bought(position)?
        } else {
            0
        };
        if amount == 0 {
            return Ok(None);
        }
        let id = position.id().as_str();
        Ok(Some(Charge {
            description: format!("Purchase of {id}"),
            frequency: if once { "One-Time" } else { "Recurring" },
            provider: provider(position),
            sku: Some(sku(position, "purchase")),
            priced: Some(Priced::whole(amount, amount)),
            list: amount,
            contracted: amount,
            billed: amount,
            applied: Some(elements([(id, amount)].into_iter())),
            position: Some(id),
            is_position: true,
            ..self.new_charge(self.days()?, "Purchase")
        }))
    }

    /// What a contract that is bought once costs, in pico-units of the reporting currency.
    fn bought(&self, position: &Position) -> Result<i128, FocusError> {
        let terms = position.terms();
        let units = position.units()?;
        let price = match terms.kind.group() {
            Group::Pool => Ratio::ONE,
            _ => terms.economics.fixed_price.map_or(Ratio::ZERO, |price| price.ratio()),
        };
        let date = terms.timing.effective.from().min(self.ask.hedge.today);
        let pair = (terms.economics.price_currency, self.ask.hedge.currency);
        let source = terms.fx.as_ref().and_then(|fx| fx.source.as_ref());
        let market = &self.state.intake.market;
        let found = market.convert(units.times(price)?, pair, date, source, self.ask.hedge.as_of);
        // Without a rate the position is unpriced, which the notes say.
        let Ok(cost) = found else { return Ok(0) };
        Ok(cost.money_half_even(self.ask.hedge.currency)?.pico())
    }
}

/// Who sells a contract: the only provider that it is designated for, else the other side.
pub(super) fn provider(position: &Position) -> &str {
    let terms = position.terms();
    let mut providers = terms.designation.iter().flat_map(|held| &held.selector.providers);
    match (providers.next(), providers.next()) {
        (Some(only), None) => only.as_str(),
        _ => name_of(terms.identity.counterparty.as_ref()),
    }
}

fn sku(position: &Position, what: &str) -> Sku {
    let id = format!("contract/{}", position.id());
    let kind = position.terms().kind.name();
    Sku { price_id: format!("{id}/{what}"), id, meter: format!("{kind} ({what})"), details: None }
}
