//! Effective cost: the waterfall of FINANCE §4, shared out by team, with a residual that makes every
//! component sum to the book.
//!
//! Invariants
//! - For every line, Σ rows + residual = book, to the minor unit. The book is computed from the
//!   totals, the rows from the shares, and [`CostReport::check`] compares them on every run.
//! - Over-hedge gains and losses are the residual's, never a team's.
//! - A unit is covered once: what one position took is not there for the next.
//! - The order in which usage and positions are given does not matter.
//!
//! How positions take part
//! - Units at a fixed price and cash contracts take open units by rank, then what lapses first, then
//!   id. A unit that a contract delivers is charged at the contract's price and its spot cost is displaced.
//! - Pools of money (prepaid credit, spend commitments) fix no price per unit, so they take no units
//!   from cash contracts; they pay for what is still charged at spot, after the units are delivered.
//! - Binaries and undesignated positions cover nothing: all of theirs is the residual's.
//!
//! Not here: what a position pays (`legs`, `payoff`), marks (`risk`).

mod book;
mod legs;
mod take;
mod waterfall;

pub use book::{Book, Consumed};
pub use legs::{Gap, LegAsk, Unpriced, leg};
pub use waterfall::waterfall;

use super::position::{Facets, Selector, named};
use super::profile::Unit;
use crate::exact::{Decimal, ExactError, Ratio};
use bursar_domain::{Currency, Label, Money, Timestamp};
use jiff::civil::Date;
use std::collections::BTreeMap;

/// Usage as the waterfall sees it: one record, or many of the same facets added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// When; orders `fifo` and finds the hour of a commitment.
    pub at: Timestamp,
    /// Breaks ties of `at`.
    pub id: u128,
    /// Team and what selectors ask for.
    pub facets: Facets,
    /// The row of the report it is shown in; its team's when absent. A row is of one team.
    pub row: Option<Label>,
    /// Volume in hedge units.
    pub volume: Decimal,
    /// Spot cost in the reporting currency, not rounded.
    pub spot: Money,
}

/// Who gets what of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// By open volume.
    ProRata,
    /// By time, then id.
    Fifo,
    /// By these shares.
    Designated(BTreeMap<Label, Decimal>),
}

/// Who carries an unused commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnusedTo {
    /// The residual.
    Residual,
    /// One team.
    Owner(Label),
    /// All teams by volume.
    ProRata,
}

/// Units that must be taken within a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// First instant.
    pub from: Timestamp,
    /// First instant outside.
    pub until: Timestamp,
    /// Hedge units.
    pub quantity: Ratio,
}

/// Whether what is left at the end of the period is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// It is a cost of this period.
    Lapses,
    /// It stays for the next.
    Stays,
}

/// How a leg takes part in the waterfall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// It has charges only.
    Nothing,
    /// Settles in cash: covers units, displaces nothing.
    Cash {
        /// Hedge units.
        quantity: Ratio,
        /// What it settled for.
        payoff: Money,
    },
    /// Settles in cash and covers nothing: a binary, or a position that is not designated.
    Uncounted {
        /// What it settled for.
        payoff: Money,
    },
    /// A currency forward: lowers or raises the cost of all usage by volume.
    Currency {
        /// What it settled for.
        payoff: Money,
    },
    /// Delivers units at a price instead of spot.
    Units {
        /// What can be taken, and when.
        buckets: Vec<Bucket>,
        /// Price per hedge unit.
        price: Ratio,
        /// Price per hedge unit beyond the buckets; `None` is spot.
        overage: Option<Ratio>,
        /// What becomes of what is not taken.
        leftover: Leftover,
    },
    /// Pays for usage out of a balance.
    Pool {
        /// What is there.
        balance: Money,
        /// Part taken off the spot cost of what it pays for.
        benefit: Ratio,
        /// What becomes of what is not drawn.
        leftover: Leftover,
    },
}

/// One position in one period, in hedge units and the reporting currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The position.
    pub position: Label,
    /// Its place in the waterfall.
    pub rank: u16,
    /// The last day on which what it has left can be used: of one rank, what lapses first is used first.
    pub lapses: Option<Date>,
    /// The usage that it hedges.
    pub selector: Selector,
    /// When such usage counts: from, and the first instant outside; always when absent.
    pub window: Option<(Timestamp, Timestamp)>,
    /// Who gets what.
    pub allocation: Allocation,
    /// How it takes part.
    pub cover: Cover,
    /// Premium recognised in the period.
    pub premium: Money,
    /// Fees of the period.
    pub fees: Money,
    /// Unused commitment of the period beyond what the waterfall finds.
    pub unused: Money,
    /// Who carries unused commitment.
    pub unused_to: UnusedTo,
    /// Whether its settlement price is still an average to date.
    pub provisional: bool,
}

impl Leg {
    /// A leg of everything by volume, with nothing in it yet.
    #[must_use]
    pub fn plain(position: Label, cover: Cover, currency: Currency) -> Self {
        let zero = Money::zero(currency);
        Self {
            position,
            rank: 0,
            lapses: None,
            selector: Selector::default(),
            window: None,
            allocation: Allocation::ProRata,
            cover,
            premium: zero,
            fees: zero,
            unused: zero,
            unused_to: UnusedTo::Residual,
            provisional: false,
        }
    }
}

named!(
    /// A component of effective cost.
    Line {
        /// Usage at its own spot price.
        Spot = "spot",
        /// Spot cost of what contracts delivered or balances paid; taken off.
        Displaced = "displaced",
        /// What contracts and balances charge for it.
        Contract = "contract",
        /// Payoff of cash contracts; taken off.
        Payoff = "payoff",
        /// Premiums.
        Premium = "premium",
        /// Fees.
        Fees = "fees",
        /// Commitments not used.
        Unused = "unused",
        /// Result of currency forwards, as a cost.
        Fx = "fx",
    }
);

/// The components of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    spot: Money,
    displaced: Money,
    contract: Money,
    payoff: Money,
    premium: Money,
    fees: Money,
    unused: Money,
    fx: Money,
}

impl Lines {
    /// Nothing.
    #[must_use]
    pub const fn zero(currency: Currency) -> Self {
        let zero = Money::zero(currency);
        Self {
            spot: zero,
            displaced: zero,
            contract: zero,
            payoff: zero,
            premium: zero,
            fees: zero,
            unused: zero,
            fx: zero,
        }
    }

    /// One component.
    #[must_use]
    pub const fn get(&self, line: Line) -> Money {
        match line {
            Line::Spot => self.spot,
            Line::Displaced => self.displaced,
            Line::Contract => self.contract,
            Line::Payoff => self.payoff,
            Line::Premium => self.premium,
            Line::Fees => self.fees,
            Line::Unused => self.unused,
            Line::Fx => self.fx,
        }
    }

    /// Adds to one component.
    pub fn add(&mut self, line: Line, amount: Money) -> Result<(), ExactError> {
        let slot = match line {
            Line::Spot => &mut self.spot,
            Line::Displaced => &mut self.displaced,
            Line::Contract => &mut self.contract,
            Line::Payoff => &mut self.payoff,
            Line::Premium => &mut self.premium,
            Line::Fees => &mut self.fees,
            Line::Unused => &mut self.unused,
            Line::Fx => &mut self.fx,
        };
        *slot = slot.checked_add(amount)?;
        Ok(())
    }

    /// Adds every component.
    pub fn add_all(&mut self, other: &Self) -> Result<(), ExactError> {
        Line::ALL.iter().try_for_each(|line| self.add(*line, other.get(*line)))
    }

    /// Effective cost: spot − displaced + contract − payoff + premium + fees + unused + fx.
    pub fn effective(&self) -> Result<Money, ExactError> {
        let Self { spot, displaced, contract, payoff, premium, fees, unused, fx } = *self;
        let mut cost = spot.checked_sub(displaced)?.checked_sub(payoff)?;
        for part in [contract, premium, fees, unused, fx] {
            cost = cost.checked_add(part)?;
        }
        Ok(cost)
    }

    /// What delivered contracts saved against spot, unused commitment aside: information only,
    /// it is in the effective cost already.
    pub fn benefit(&self) -> Result<Money, ExactError> {
        Ok(self.displaced.checked_sub(self.contract)?)
    }
}

/// One team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Volume in hedge units.
    pub volume: Ratio,
    /// Units of it that a contract covered.
    pub covered: Ratio,
    /// Cost by component.
    pub lines: Lines,
}

/// What one position did in the period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegResult {
    /// The position.
    pub position: Label,
    /// Hedge units that it had.
    pub quantity: Ratio,
    /// Units that it covered: min(H, Q).
    pub covered: Ratio,
    /// Units beyond the usage: H − He.
    pub over: Ratio,
    /// All that it settled for.
    pub payoff: Money,
    /// The part of it that belongs to covered usage.
    pub effective: Money,
    /// The rest: the treasury's.
    pub over_hedge: Money,
    /// Charged for delivered units, or drawn from the balance.
    pub used: Money,
    /// Drawn from the balance before that was rounded.
    pub drawn: Ratio,
    /// Paid for and not used.
    pub unused: Money,
    /// Spot cost of what it delivered or paid for.
    pub displaced: Money,
    /// Premium.
    pub premium: Money,
    /// Fees.
    pub fees: Money,
    /// Whether it met no usage at all.
    pub covers_nothing: bool,
    /// Whether it is still an average to date.
    pub provisional: bool,
    /// Who got what of the effective payoff.
    pub shares: BTreeMap<Label, Money>,
    /// Every amount that it brought to a line of the report, in the order of posting.
    pub posted: Vec<Posted>,
}

/// An amount that a position brought to a row, or to the residual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The row; `None` is the residual.
    pub row: Option<Label>,
    /// The component of cost.
    pub line: Line,
    /// How much; not zero.
    pub amount: Money,
}

/// How much of a provider's usage is hedged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Volume in hedge units.
    pub volume: Ratio,
    /// Units of it that a contract covered.
    pub covered: Ratio,
    /// Spot cost, not rounded.
    pub spot: Ratio,
}

/// Effective cost of a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostReport {
    /// Reporting currency.
    pub currency: Currency,
    /// Hedge unit.
    pub unit: Unit,
    /// Teams, or the rows that usage names.
    pub rows: BTreeMap<Label, Row>,
    /// Coverage by provider, where the provider is known.
    pub providers: BTreeMap<Label, Coverage>,
    /// What is nobody's.
    pub residual: Lines,
    /// The book: what the period cost in all.
    pub book: Lines,
    /// Positions, in the order of the waterfall.
    pub legs: Vec<LegResult>,
    /// Positions that could not be priced, with the reason; the report is incomplete with any.
    pub unpriced: Vec<Unpriced>,
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    /// Usage with a volume below zero.
    #[error("team {0} has a negative volume: correct the usage first")]
    NegativeVolume(Label),
    /// Two legs of one position.
    #[error("position {0} is there twice: one version counts")]
    Twice(Label),
    /// A component of the rows does not sum to the book: a defect of this program.
    #[error("{line}: rows and residual sum to {found}, the book says {book}")]
    Unbalanced {
        /// The component.
        line: &'static str,
        /// The sum of rows and residual.
        found: Money,
        /// The book.
        book: Money,
    },
    /// Two reports that cannot be added.
    #[error("reports in different currencies or units do not add up")]
    Different,
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
}

impl From<bursar_domain::MoneyError> for CostError {
    fn from(error: bursar_domain::MoneyError) -> Self {
        Self::Exact(ExactError::Money(error))
    }
}

// === impl CostReport ===

impl CostReport {
    /// An empty report.
    #[must_use]
    pub const fn empty(currency: Currency, unit: Unit) -> Self {
        Self {
            currency,
            unit,
            rows: BTreeMap::new(),
            providers: BTreeMap::new(),
            residual: Lines::zero(currency),
            book: Lines::zero(currency),
            legs: Vec::new(),
            unpriced: Vec::new(),
        }
    }

    /// Whether any settlement price is an average to date.
    #[must_use]
    pub fn provisional(&self) -> bool {
        self.legs.iter().any(|leg| leg.provisional)
    }

    /// Whether every position could be priced.
    #[must_use]
    pub const fn complete(&self) -> bool {
        self.unpriced.is_empty()
    }

    /// Checks Σ rows + residual = book for every line and in total.
    pub fn check(&self) -> Result<(), CostError> {
        for line in Line::ALL {
            let parts = self.rows.values().map(|row| row.lines.get(*line));
            let found = parts.into_iter().try_fold(self.residual.get(*line), Money::checked_add)?;
            self.balanced(line.name(), found, self.book.get(*line))?;
        }
        let costs: Result<Vec<Money>, ExactError> =
            self.rows.values().map(|row| row.lines.effective()).collect();
        let found = costs?.into_iter().try_fold(self.residual.effective()?, Money::checked_add)?;
        self.balanced("effective cost", found, self.book.effective()?)
    }

    fn balanced(&self, line: &'static str, found: Money, book: Money) -> Result<(), CostError> {
        if found == book { Ok(()) } else { Err(CostError::Unbalanced { line, found, book }) }
    }

    /// Adds the report of another period.
    pub fn merge(&mut self, other: Self) -> Result<(), CostError> {
        if self.currency != other.currency || self.unit != other.unit {
            return Err(CostError::Different);
        }
        for (team, row) in other.rows {
            let mine = self.row(team);
            mine.volume = mine.volume.plus_near(row.volume)?;
            mine.covered = mine.covered.plus_near(row.covered)?;
            mine.lines.add_all(&row.lines)?;
        }
        for (provider, coverage) in other.providers {
            self.cover(provider, &coverage)?;
        }
        self.residual.add_all(&other.residual)?;
        self.book.add_all(&other.book)?;
        self.legs.extend(other.legs);
        self.unpriced.extend(other.unpriced);
        self.check()
    }

    fn row(&mut self, team: Label) -> &mut Row {
        let lines = Lines::zero(self.currency);
        self.rows.entry(team).or_insert(Row { volume: Ratio::ZERO, covered: Ratio::ZERO, lines })
    }

    fn cover(&mut self, provider: Label, more: &Coverage) -> Result<(), ExactError> {
        let nothing = Coverage { volume: Ratio::ZERO, covered: Ratio::ZERO, spot: Ratio::ZERO };
        let mine = self.providers.entry(provider).or_insert(nothing);
        mine.volume = mine.volume.plus_near(more.volume)?;
        mine.covered = mine.covered.plus_near(more.covered)?;
        mine.spot = mine.spot.plus_near(more.spot)?;
        Ok(())
    }

    /// Adds shares to a line of the rows, and what nobody got to the residual's.
    fn post(&mut self, line: Line, shares: &crate::exact::Shares<Label>) -> Result<(), CostError> {
        for (team, amount) in &shares.parts {
            self.row(team.clone()).lines.add(line, *amount)?;
        }
        self.residual.add(line, shares.residual)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
