//! What happens to positions: events that are added and never changed, the status that follows from
//! them, and the versions of a position.
//!
//! Invariants
//! - Adding the same event or version again changes nothing; another one under the same name is
//!   refused.
//! - A correction names the event it replaces; both stay.
//! - At most one version of a position counts; a new one says which it supersedes.
//!
//! Not here: what an event means for cost (`cost::legs`).

use super::calendar::Month;
use super::market::Added;
use super::position::{Position, named};
use crate::exact::{Decimal, ExactError};
use bursar_domain::{Label, Money, Timestamp};
use jiff::civil::Date;
use std::collections::BTreeMap;

named!(
    /// Where a position stands.
    Status {
        /// Entered, not agreed.
        Proposed = "Proposed",
        /// Agreed, not yet in its window.
        Pending = "Pending",
        /// In its window.
        Active = "Active",
        /// Nothing left to draw.
        Exhausted = "Exhausted",
        /// Its window is over.
        Expired = "Expired",
        /// Withdrawn.
        Canceled = "Canceled",
        /// A later version counts.
        Superseded = "Superseded",
        /// Its window is over and its last month is settled.
        Settled = "Settled",
        /// Closed before its end.
        ClosedOut = "ClosedOut",
    }
);

/// Whether the purchases that a closed position hedged are still expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purchases {
    /// The result stays with their months.
    Expected,
    /// The result is the treasury's, when the position is closed.
    NoLongerExpected,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Agreed with the other side.
    Trade,
    /// A fixing that the counterparty sent; evidence.
    Fixing {
        /// Its value.
        value: Decimal,
    },
    /// Variation margin received (above zero) or paid.
    VariationMargin(Money),
    /// Funding of a perpetual received (above zero) or paid.
    Funding(Money),
    /// A month was settled for this amount, received (above zero) or paid.
    Settlement {
        /// The month.
        month: Month,
        /// The amount.
        amount: Money,
    },
    /// Rolled into another position.
    Roll {
        /// Which.
        into: Label,
    },
    /// Closed before its end.
    CloseOut {
        /// The part of the position, above 0 and at most 1.
        part: Decimal,
        /// Price of the closing trade per unit; of an option, its premium.
        price: Decimal,
        /// What about the hedged purchases.
        purchases: Purchases,
    },
    /// Withdrawn.
    Cancel,
    /// Another event was wrong; this holds instead, or nothing.
    Correction {
        /// The wrong event.
        of: Label,
        /// What is right.
        instead: Option<Box<What>>,
    },
}

impl What {
    /// Whether it closes a part of the position, also by correction.
    #[must_use]
    pub fn closes(&self) -> bool {
        match self {
            Self::CloseOut { .. } => true,
            Self::Correction { instead, .. } => instead.as_deref().is_some_and(Self::closes),
            _ => false,
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Names the event.
    pub id: Label,
    /// The day on which it counts.
    pub date: Date,
    /// When it became known here.
    pub known_at: Timestamp,
    /// What happened.
    pub what: What,
}

/// Why an event or version cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleError {
    /// Another event has this id.
    #[error("event {0} is there already and says something else; add a correction under a new id")]
    Changed(Label),
    /// A correction of an event that is not there.
    #[error("event {of} corrects {missing}, which is not there")]
    NothingToCorrect {
        /// The correction.
        of: Label,
        /// What it names.
        missing: Label,
    },
    /// Two corrections of one event.
    #[error("{0} is corrected already; correct the correction")]
    CorrectedTwice(Label),
    /// More than the whole position closed.
    #[error("event {0} closes more of the position than is open")]
    OverClosed(Label),
    /// A part that is not above 0 and at most 1.
    #[error("event {event} closes a part of {part}; it must be above 0 and at most 1")]
    BadPart {
        /// The event.
        event: Label,
        /// The part.
        part: Decimal,
    },
    /// A first version that supersedes one that is not there.
    #[error(
        "position {id} version {version} supersedes version {missing}, which is not there: enter that one \
         first, or leave supersedes out"
    )]
    NothingToSupersede {
        /// The position.
        id: Label,
        /// The new version.
        version: u32,
        /// The version that it names.
        missing: u32,
    },
    /// An event after a withdrawal.
    #[error("the position was withdrawn; event {0} cannot follow")]
    AfterCancel(Label),
    /// Another version has this number.
    #[error("position {id} version {version} is there already and says something else; enter a new version")]
    VersionChanged {
        /// The position.
        id: Label,
        /// The version.
        version: u32,
    },
    /// A second version that supersedes nothing.
    #[error(
        "position {id} has version {open} in force; version {version} overlaps it: write supersedes: {open}"
    )]
    Overlap {
        /// The position.
        id: Label,
        /// The version in force.
        open: u32,
        /// The new version.
        version: u32,
    },
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
}

/// All events of one position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    events: BTreeMap<Label, Event>,
}

impl History {
    /// Adds an event.
    pub fn add(&mut self, event: Event) -> Result<Added, LifecycleError> {
        if let Some(there) = self.events.get(&event.id) {
            return if *there == event { Ok(Added::Same) } else { Err(LifecycleError::Changed(event.id)) };
        }
        self.check(&event)?;
        self.events.insert(event.id.clone(), event);
        Ok(Added::New)
    }

    fn check(&self, event: &Event) -> Result<(), LifecycleError> {
        let id = || event.id.clone();
        let cancelled =
            self.counting(Timestamp::from_micros(i64::MAX)).any(|(_, what)| *what == What::Cancel);
        match &event.what {
            What::Correction { of, instead } => {
                if !self.events.contains_key(of) {
                    return Err(LifecycleError::NothingToCorrect { of: id(), missing: of.clone() });
                }
                if self.events.values().any(|other| corrects(other, of)) {
                    return Err(LifecycleError::CorrectedTwice(of.clone()));
                }
                instead.as_deref().map_or(Ok(()), |instead| check_part(&event.id, instead))?;
                let mut after = self.clone();
                after.events.insert(event.id.clone(), event.clone());
                let closed = after.closed(Timestamp::from_micros(i64::MAX))?;
                return if closed > Decimal::ONE { Err(LifecycleError::OverClosed(id())) } else { Ok(()) };
            }
            What::CloseOut { part, .. } => {
                check_part(&event.id, &event.what)?;
                let closed = self.closed(Timestamp::from_micros(i64::MAX))?;
                if closed.plus(*part)? > Decimal::ONE {
                    return Err(LifecycleError::OverClosed(id()));
                }
            }
            _ => {}
        }
        if cancelled { Err(LifecycleError::AfterCancel(id())) } else { Ok(()) }
    }

    /// Every event as it was added, by id.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.values()
    }

    /// What counts as known at `as_of`, corrections applied, by day and id.
    pub fn counting(&self, as_of: Timestamp) -> impl Iterator<Item = (Date, &What)> {
        let known = move |event: &&Event| event.known_at <= as_of;
        let first = self.events.values().filter(known);
        let first = first.filter(|event| !matches!(event.what, What::Correction { .. }));
        let mut found: Vec<(Date, &Label, &What)> = first
            .filter_map(|event| self.corrected(event, as_of).map(|(date, what)| (date, &event.id, what)))
            .collect();
        found.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        found.into_iter().map(|(date, _, what)| (date, what))
    }

    /// What holds instead of `event`, following corrections of corrections.
    fn corrected<'a>(&'a self, event: &'a Event, as_of: Timestamp) -> Option<(Date, &'a What)> {
        let (mut date, mut id, mut what) = (event.date, &event.id, Some(&event.what));
        while let Some(next) =
            self.events.values().find(|other| other.known_at <= as_of && corrects(other, id))
        {
            if let What::Correction { instead, .. } = &next.what {
                what = instead.as_deref();
            }
            (date, id) = (next.date, &next.id);
        }
        what.map(|what| (date, what))
    }

    /// The part of the position that was closed before its end.
    pub fn closed(&self, as_of: Timestamp) -> Result<Decimal, ExactError> {
        let parts = self.counting(as_of).filter_map(|(_, what)| match what {
            What::CloseOut { part, .. } => Some(*part),
            _ => None,
        });
        parts.into_iter().try_fold(Decimal::ZERO, Decimal::plus)
    }

    /// The settled amount of a month, when it was recorded.
    #[must_use]
    pub fn settled(&self, month: Month, as_of: Timestamp) -> Option<Money> {
        let settled = self.counting(as_of).filter_map(|(_, what)| match what {
            What::Settlement { month: of, amount } if *of == month => Some(*amount),
            _ => None,
        });
        settled.last()
    }
}

fn check_part(event: &Label, what: &What) -> Result<(), LifecycleError> {
    match what {
        What::CloseOut { part, .. } if !part.is_positive() || *part > Decimal::ONE => {
            Err(LifecycleError::BadPart { event: event.clone(), part: *part })
        }
        _ => Ok(()),
    }
}

fn corrects(event: &Event, id: &Label) -> bool {
    matches!(&event.what, What::Correction { of, .. } if of == id)
}

/// All versions of all positions, with their events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portfolio {
    positions: BTreeMap<Label, Versions>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Versions {
    by_number: BTreeMap<u32, Position>,
    history: History,
}

impl Portfolio {
    /// Adds a position, or a version of one.
    pub fn add(&mut self, position: Position) -> Result<Added, LifecycleError> {
        let identity = &position.terms().identity;
        let (id, version, supersedes) = (identity.id.clone(), identity.version, identity.supersedes);
        if let (Some(missing), None) = (supersedes, self.positions.get(&id)) {
            return Err(LifecycleError::NothingToSupersede { id, version, missing });
        }
        let versions = self.positions.entry(id.clone()).or_default();
        if let Some(there) = versions.by_number.get(&version) {
            let same = *there == position;
            return if same { Ok(Added::Same) } else { Err(LifecycleError::VersionChanged { id, version }) };
        }
        let open = versions.open();
        match open {
            Some(open) if supersedes != Some(open) => Err(LifecycleError::Overlap { id, open, version }),
            open => {
                versions.by_number.insert(version, position);
                Ok(if open.is_some() { Added::Restated } else { Added::New })
            }
        }
    }

    /// Adds an event to a position; `None` when there is no such position.
    pub fn record(&mut self, id: &Label, event: Event) -> Option<Result<Added, LifecycleError>> {
        self.positions.get_mut(id).map(|versions| versions.history.add(event))
    }

    /// The event of a position with this id.
    #[must_use]
    pub fn event(&self, position: &Label, event: &Label) -> Option<&Event> {
        self.positions.get(position)?.history.events.get(event)
    }

    /// All events of a position.
    #[must_use]
    pub fn history(&self, position: &Label) -> Option<&History> {
        self.positions.get(position).map(|versions| &versions.history)
    }

    /// The ids of all positions.
    pub fn ids(&self) -> impl Iterator<Item = &Label> {
        self.positions.keys()
    }

    /// The versions in force with their events, by id.
    pub fn in_force(&self) -> impl Iterator<Item = (&Position, &History)> {
        self.positions.values().filter_map(|versions| {
            let position = versions.by_number.get(&versions.open()?)?;
            Some((position, &versions.history))
        })
    }

    /// Every version of a position, oldest first.
    pub fn versions(&self, id: &Label) -> impl Iterator<Item = &Position> {
        self.positions.get(id).into_iter().flat_map(|versions| versions.by_number.values())
    }

    /// Where a version stands on a day.
    #[must_use]
    pub fn status(&self, position: &Position, on: Date, drawn: Drawn, as_of: Timestamp) -> Status {
        let Some(versions) = self.positions.get(position.id()) else { return Status::Proposed };
        let version = position.terms().identity.version;
        if versions.open().is_some_and(|open| open != version) {
            return Status::Superseded;
        }
        status(position, &versions.history, on, drawn, as_of)
    }
}

impl Versions {
    /// The version in force: the one that none supersedes.
    fn open(&self) -> Option<u32> {
        self.by_number.keys().next_back().copied()
    }
}

/// Whether anything is left to draw of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// Something is left, or it is no balance.
    Open,
    /// Nothing is left.
    Out,
}

/// Where a position stands on a day, by its terms and events.
#[must_use]
pub fn status(position: &Position, history: &History, on: Date, drawn: Drawn, as_of: Timestamp) -> Status {
    let timing = &position.terms().timing;
    let past: Vec<&What> =
        history.counting(as_of).filter(|(date, _)| *date <= on).map(|(_, what)| what).collect();
    if past.contains(&&What::Cancel) {
        return Status::Canceled;
    }
    let closed = past.iter().filter_map(|what| match what {
        What::CloseOut { part, .. } => Some(*part),
        _ => None,
    });
    let closed = closed.into_iter().try_fold(Decimal::ZERO, Decimal::plus);
    if closed.is_ok_and(|closed| closed >= Decimal::ONE) {
        return Status::ClosedOut;
    }
    if on >= timing.effective.until() {
        let last = Month::of(timing.effective.last());
        let settled =
            past.iter().any(|what| matches!(what, What::Settlement { month, .. } if *month == last));
        return if settled { Status::Settled } else { Status::Expired };
    }
    if drawn == Drawn::Out {
        return Status::Exhausted;
    }
    if on < timing.trade_date && !past.contains(&&What::Trade) {
        return Status::Proposed;
    }
    if timing.effective.contains(on) { Status::Active } else { Status::Pending }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hedge::calendar::parse_day;
    use crate::hedge::position::Entry;
    use bursar_domain::Currency;
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp::from_micros(100);

    fn position(fields: Value) -> Position {
        let mut swap = json!({
            "position_id": "swap-1", "kind": "swap_fixed_float", "quantity": 10, "unit": "Mtok",
            "fixed_price": "2", "index_id": "TPI", "trade_date": "2026-08-11",
            "effective_from": "2026-09-01", "effective_until": "2026-10-01"
        });
        for (key, value) in fields.as_object().unwrap() {
            swap[key] = value.clone();
        }
        serde_json::from_value::<Entry>(swap).unwrap().check().unwrap()
    }

    fn event(id: &'static str, date: &str, what: What) -> Event {
        let date = parse_day(date).unwrap();
        Event { id: Label::fixed(id), date, known_at: Timestamp::from_micros(1), what }
    }

    fn september(cents: i128) -> What {
        let amount = Money::from_pico(Currency::USD, cents * 10_000_000_000);
        What::Settlement { month: Month::parse("2026-09").unwrap(), amount }
    }

    fn close(part: &str) -> What {
        let parse = |text| Decimal::parse(text).unwrap();
        What::CloseOut { part: parse(part), price: parse("2.5"), purchases: Purchases::Expected }
    }

    #[test]
    fn a_position_walks_through_its_stations() {
        let mut portfolio = Portfolio::default();
        let swap = position(json!({}));
        let _ = portfolio.add(swap.clone()).unwrap();
        let on =
            |portfolio: &Portfolio, day| portfolio.status(&swap, parse_day(day).unwrap(), Drawn::Open, NOW);
        assert_eq!(on(&portfolio, "2026-08-10"), Status::Proposed);
        assert_eq!(on(&portfolio, "2026-08-11"), Status::Pending);
        assert_eq!(on(&portfolio, "2026-09-01"), Status::Active);
        assert_eq!(on(&portfolio, "2026-10-01"), Status::Expired);
        let out = portfolio.status(&swap, parse_day("2026-09-15").unwrap(), Drawn::Out, NOW);
        assert_eq!(out, Status::Exhausted);
        let settled = portfolio.record(swap.id(), event("s", "2026-10-02", september(5)));
        assert_eq!(settled, Some(Ok(Added::New)));
        assert_eq!(on(&portfolio, "2026-10-02"), Status::Settled);
    }

    #[test]
    fn versions_supersede_in_order_and_never_overlap() {
        let mut portfolio = Portfolio::default();
        let first = position(json!({}));
        assert_eq!(portfolio.add(first.clone()), Ok(Added::New));
        assert_eq!(portfolio.add(first.clone()), Ok(Added::Same));
        let other = position(json!({"quantity": 11}));
        assert!(matches!(portfolio.add(other), Err(LifecycleError::VersionChanged { .. })));
        let overlapping = position(json!({"quantity": 11, "version": 2}));
        let error = portfolio.add(overlapping).unwrap_err();
        assert!(error.to_string().contains("write supersedes: 1"), "{error}");
        let second = position(json!({"quantity": 11, "version": 2, "supersedes": 1}));
        assert_eq!(portfolio.add(second.clone()), Ok(Added::Restated));
        let in_force: Vec<&Position> = portfolio.in_force().map(|(position, _)| position).collect();
        assert_eq!(in_force, [&second]);
        let day = parse_day("2026-09-15").unwrap();
        assert_eq!(portfolio.status(&first, day, Drawn::Open, NOW), Status::Superseded);
        assert_eq!(portfolio.versions(first.id()).count(), 2);
    }

    #[test]
    fn a_version_supersedes_one_that_is_there() {
        let mut portfolio = Portfolio::default();
        let second = position(json!({"version": 2, "supersedes": 1}));
        let error = portfolio.add(second).unwrap_err().to_string();
        assert!(error.contains("supersedes version 1, which is not there"), "{error}");
        assert_eq!(portfolio, Portfolio::default(), "what is refused leaves nothing behind");
    }

    #[test]
    fn a_correction_closes_no_more_than_is_there() {
        let mut history = History::default();
        let _ = history.add(event("a", "2026-09-05", close("0.5"))).unwrap();
        let _ = history.add(event("b", "2026-09-06", close("0.25"))).unwrap();
        let fix = |part| What::Correction { of: Label::fixed("a"), instead: Some(Box::new(close(part))) };
        for part in ["5", "0", "-1"] {
            let error = history.add(event("c", "2026-09-07", fix(part))).unwrap_err();
            assert!(matches!(error, LifecycleError::BadPart { .. }), "{error}");
        }
        let over = history.add(event("c", "2026-09-07", fix("0.8")));
        assert!(matches!(over, Err(LifecycleError::OverClosed(_))), "0.8 beside 0.25");
        let _ = history.add(event("c", "2026-09-07", fix("0.75"))).unwrap();
        assert_eq!(history.closed(NOW), Ok(Decimal::ONE), "the 0.5 counts no more");
    }

    #[test]
    fn corrections_replace_without_erasing() {
        let month = Month::parse("2026-09").unwrap();
        let mut history = History::default();
        let _ = history.add(event("s", "2026-10-02", september(5))).unwrap();
        let fix = |of, instead: Option<What>| What::Correction {
            of: Label::fixed(of),
            instead: instead.map(Box::new),
        };
        assert_eq!(history.settled(month, NOW).unwrap().to_string(), "0.05");
        let _ = history.add(event("c1", "2026-10-03", fix("s", Some(september(7))))).unwrap();
        assert_eq!(history.settled(month, NOW).unwrap().to_string(), "0.07");
        let _ = history.add(event("c2", "2026-10-04", fix("c1", None))).unwrap();
        assert_eq!(history.settled(month, NOW), None);
        assert_eq!(history.events().count(), 3);
        let twice = history.add(event("c3", "2026-10-05", fix("s", None)));
        assert!(matches!(twice, Err(LifecycleError::CorrectedTwice(_))));
        let nothing = history.add(event("c4", "2026-10-05", fix("x", None)));
        assert!(matches!(nothing, Err(LifecycleError::NothingToCorrect { .. })));
        assert_eq!(history.add(event("s", "2026-10-02", september(5))), Ok(Added::Same));
        assert!(matches!(
            history.add(event("s", "2026-10-02", september(6))),
            Err(LifecycleError::Changed(_))
        ));
    }

    #[test]
    fn no_more_than_the_whole_is_closed_and_nothing_follows_a_withdrawal() {
        let mut history = History::default();
        let _ = history.add(event("a", "2026-09-05", close("0.75"))).unwrap();
        let over = history.add(event("b", "2026-09-06", close("0.5")));
        assert!(matches!(over, Err(LifecycleError::OverClosed(_))));
        assert!(matches!(
            history.add(event("b", "2026-09-06", close("0"))),
            Err(LifecycleError::BadPart { .. })
        ));
        let _ = history.add(event("c", "2026-09-06", close("0.25"))).unwrap();
        let swap = position(json!({}));
        let day = parse_day("2026-09-06").unwrap();
        assert_eq!(status(&swap, &history, day, Drawn::Open, NOW), Status::ClosedOut);
        let _ = history.add(event("d", "2026-09-07", What::Cancel)).unwrap();
        let after = history.add(event("e", "2026-09-08", What::Trade));
        assert!(matches!(after, Err(LifecycleError::AfterCancel(_))));
    }
}
