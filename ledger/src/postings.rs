//! Double-entry postings: what each fact about money does to accounts, and the balance of them all.
//!
//! Postings are not stored: they are a function of the facts, and of usage of the totals that facts add up
//! to, so they cannot disagree with them. Debits are above zero, credits below.
//!
//! | fact | debit | credit |
//! |---|---|---|
//! | usage of a provider | `usage` at list prices | `discounts` list − contracted; `adjustments` contracted − billed; `payable` billed, or `unbilled` where the bill is not known |
//! | revenue, adjustment | `receivable` | `revenue`, `adjusted` |
//! | refund, chargeback (amounts below zero) | `receivable` | `refunds`, `chargebacks` |
//! | saving: a value class of its own | `saved` | `savings` |
//! | what a contract delivered or paid for | `covered` its spot cost | `balance` what was drawn; `gain` the difference |
//! | what was paid for and not used | `unused` | `balance` |
//! | what a hedge settled for | `settlement` | `hedge_result` |
//! | premium and fees of a contract | `premium`, `fees` | `owed` |
//!
//! An account is one of these words and whose it is: `payable:openai`, `receivable:billing`,
//! `balance:prepaid-1`.
//!
//! Invariants
//! - Every set of postings sums to zero in each currency, so the balance does.
//! - `payable` is the billed cost of usage reports, and the four accounts of a provider sum to it exactly.
//! - Sums are exact beyond 128 bits; one that cannot be shown is absent, never wrapped.
//!
//! Not here: totals (`rollup`), what contracts cost (`policies::hedge::cost`), how it is shown (`bursar`).

use crate::hedge::{HedgeAsk, HedgeError, HedgeSource, State, Unusable, report_of, state};
use crate::query::{GroupKey, KeyValue, QueryError, UsageQuery};
use crate::revenue::revenue_events;
use crate::rollup::{MoneySum, Totals, decode_key};
use bursar_domain::{Cost, Currency, Label, Money, Timestamp, UsageRecord};
use bursar_policies::attribution::{Kind, Revenue};
use bursar_policies::hedge::cost::LegResult;
use std::collections::BTreeMap;

/// List, contracted and billed cost of a record, each of which takes the one before it where its own amount
/// is not known; `None` when none is.
pub(crate) fn steps(cost: &Cost) -> Option<[i128; 3]> {
    let gross = cost.list_pico.or(cost.contracted_pico).or(cost.billed_pico)?;
    let net = cost.contracted_pico.unwrap_or(gross);
    Some([gross, net, cost.billed_pico.unwrap_or(net)])
}

/// Sums of postings by account and currency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balances(BTreeMap<(String, Currency), MoneySum>);

impl Balances {
    fn debit(&mut self, account: &str, of: &str, currency: Currency, amount: &MoneySum) {
        self.0.entry((format!("{account}:{of}"), currency)).or_default().merge(amount);
    }

    fn credit(&mut self, account: &str, of: &str, currency: Currency, amount: &MoneySum) {
        self.0.entry((format!("{account}:{of}"), currency)).or_default().take(amount);
    }

    /// Debits one account and credits another one.
    fn pair(&mut self, debit: &str, credit: &str, of: &str, money: Money) {
        let mut amount = MoneySum::default();
        amount.add(money.pico());
        self.debit(debit, of, money.currency(), &amount);
        self.credit(credit, of, money.currency(), &amount);
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        for (key, sum) in &other.0 {
            self.0.entry(key.clone()).or_default().merge(sum);
        }
    }

    /// The sum of all accounts in each currency.
    #[must_use]
    pub fn sums(&self) -> BTreeMap<Currency, MoneySum> {
        let mut sums: BTreeMap<Currency, MoneySum> = BTreeMap::new();
        for ((_, currency), sum) in &self.0 {
            sums.entry(*currency).or_default().merge(sum);
        }
        sums
    }

    /// Whether all accounts sum to zero in each currency.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.sums().values().all(MoneySum::is_zero)
    }

    /// Whether the other ones have the same sums, however many postings made them.
    pub(crate) fn sums_are_those_of(&self, other: &Self) -> bool {
        let mut difference = self.clone();
        for (key, sum) in &other.0 {
            difference.0.entry(key.clone()).or_default().take(sum);
        }
        difference.0.values().all(MoneySum::is_zero)
    }

    /// The sum of one account.
    #[must_use]
    pub fn of(&self, account: &str, currency: Currency) -> Option<MoneySum> {
        self.0.get(&(account.to_owned(), currency)).copied()
    }

    /// Account, currency and sum, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Currency, &MoneySum)> {
        self.0.iter().map(|((account, currency), sum)| (account.as_str(), *currency, sum))
    }
}

/// What the usage of one provider posts.
pub(crate) fn of_totals(provider: &str, totals: &Totals, balances: &mut Balances) {
    for money in totals.money() {
        let (currency, steps) = (money.currency, &money.steps);
        if steps.gross.terms() == 0 {
            continue;
        }
        let difference = |from: &MoneySum, to: &MoneySum| {
            let mut difference = *from;
            difference.take(to);
            difference
        };
        balances.debit("usage", provider, currency, &steps.gross);
        balances.credit("discounts", provider, currency, &difference(&steps.gross, &steps.net));
        balances.credit("adjustments", provider, currency, &difference(&steps.net, &steps.due));
        balances.credit("payable", provider, currency, &money.billed);
        balances.credit("unbilled", provider, currency, &difference(&steps.due, &money.billed));
    }
}

/// What a rollup posts; `None` when its key cannot be read.
pub(crate) fn of_rollup(key: &[u8], totals: &Totals, balances: &mut Balances) -> Option<()> {
    let (_, dimensions) = decode_key(key)?;
    of_totals(dimensions.provider, totals, balances);
    Some(())
}

const USAGE: [&str; 5] = ["usage", "discounts", "adjustments", "payable", "unbilled"];

/// What records post one by one, by provider and currency: told from each record's own amounts, so that it
/// can be held against what their totals post.
#[derive(Clone, Debug, Default)]
pub(crate) struct OneByOne {
    sums: Vec<(Label, Currency, [MoneySum; 5])>,
}

impl OneByOne {
    /// Adds what one record that counts posts; false when that does not sum to zero.
    pub(crate) fn add(&mut self, record: &UsageRecord) -> bool {
        let Some(cost) = &record.cost else { return true };
        let (list, contracted, billed) = (cost.list_pico, cost.contracted_pico, cost.billed_pico);
        let Some(usage) = list.or(contracted).or(billed) else { return true };
        let net = contracted.unwrap_or(usage);
        let due = billed.unwrap_or(net);
        // Debit and credit of each account.
        let set = match billed {
            Some(_) => [(usage, 0), (net, usage), (due, net), (0, due), (0, 0)],
            None => [(usage, 0), (net, usage), (0, 0), (0, 0), (0, net)],
        };
        let is_it = |(provider, currency, _): &(Label, Currency, _)| {
            *provider == record.provider && *currency == cost.currency
        };
        let at = self.sums.iter().position(is_it).unwrap_or_else(|| {
            self.sums.push((record.provider.clone(), cost.currency, Default::default()));
            self.sums.len().saturating_sub(1)
        });
        let Some((_, _, sums)) = self.sums.get_mut(at) else { return false };
        let mut all = MoneySum::default();
        for (sum, (debit, credit)) in sums.iter_mut().zip(set) {
            let (mut more, mut less) = (MoneySum::default(), MoneySum::default());
            more.add(debit);
            less.add(credit);
            more.take(&less);
            sum.merge(&more);
            all.merge(&more);
        }
        all.is_zero()
    }

    /// Adds them to accounts.
    pub(crate) fn add_to(&self, balances: &mut Balances) {
        for (provider, currency, sums) in &self.sums {
            for (account, sum) in USAGE.into_iter().zip(sums) {
                balances.debit(account, provider.as_str(), *currency, sum);
            }
        }
    }
}

/// What a revenue event posts.
fn of_revenue(revenue: &Revenue, balances: &mut Balances) {
    let (debit, credit) = match revenue.event.kind {
        Kind::Revenue => ("receivable", "revenue"),
        Kind::Refund => ("receivable", "refunds"),
        Kind::Chargeback => ("receivable", "chargebacks"),
        Kind::Adjustment => ("receivable", "adjusted"),
        Kind::Saving => ("saved", "savings"),
    };
    balances.pair(debit, credit, revenue.event.source.as_str(), revenue.event.amount);
}

/// What a contract posts.
fn of_leg(leg: &LegResult, balances: &mut Balances) -> Result<(), HedgeError> {
    let of = leg.position.as_str();
    let gain = leg.displaced.checked_sub(leg.used).map_err(bursar_policies::exact::ExactError::Money)?;
    balances.pair("covered", "balance", of, leg.used);
    balances.pair("covered", "gain", of, gain);
    balances.pair("unused", "balance", of, leg.unused);
    balances.pair("settlement", "hedge_result", of, leg.payoff);
    balances.pair("premium", "owed", of, leg.premium);
    balances.pair("fees", "owed", of, leg.fees);
    Ok(())
}

/// What a trial balance is asked for.
#[derive(Clone, Debug)]
pub struct TrialAsk {
    /// Usage that began, and revenue that happened, at or after this.
    pub from: Option<Timestamp>,
    /// And before this.
    pub to: Option<Timestamp>,
    /// The period and terms of contracts; `None` leaves them out.
    pub contracts: Option<HedgeAsk>,
}

/// All accounts.
#[derive(Clone, Debug)]
pub struct TrialBalance {
    /// Their sums.
    pub balances: Balances,
    /// Requests that have no cost, or not all of it: they post nothing, or what is known.
    pub unpriced: u64,
    /// Facts that the checks of this program refuse: they post nothing.
    pub unusable: Vec<Unusable>,
    /// The last sequence that was looked at.
    pub as_of_sequence: u64,
}

/// Adds all postings up.
pub fn trial_balance(source: &dyn HedgeSource, ask: &TrialAsk) -> Result<TrialBalance, HedgeError> {
    let query =
        UsageQuery { from: ask.from, to: ask.to, by: vec![GroupKey::Provider], ..UsageQuery::default() };
    let usage = source.ask_usage(&query).map_err(|error: QueryError| HedgeError::from(error))?;
    let mut balances = Balances::default();
    for row in &usage.rows {
        let provider = row.key.first().and_then(KeyValue::text).unwrap_or("unknown");
        of_totals(provider, &row.totals, &mut balances);
    }
    let facts = source.finance_facts()?;
    let (events, mut unusable) = revenue_events(&facts);
    let within = |at: Timestamp| ask.from.is_none_or(|from| from <= at) && ask.to.is_none_or(|to| at < to);
    for (_, revenue) in events.iter().filter(|(_, revenue)| within(revenue.event.at)) {
        of_revenue(revenue, &mut balances);
    }
    if let Some(terms) = &ask.contracts {
        let state: State = state(&facts);
        let report = report_of(source, &state, terms)?;
        for position in &report.positions {
            if let Some(leg) = &position.result {
                of_leg(leg, &mut balances)?;
            }
        }
        unusable.extend(report.unusable);
    }
    balances.0.retain(|_, sum| !sum.is_zero());
    let unpriced = usage.totals.unpriced.saturating_add(usage.totals.partly_priced);
    Ok(TrialBalance { balances, unpriced, unusable, as_of_sequence: usage.as_of_sequence })
}

#[cfg(test)]
mod tests;
