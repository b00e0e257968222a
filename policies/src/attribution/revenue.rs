//! Revenue events and what they book: credits in the reporting currency, refunds that take back
//! what was given.
//!
//! Invariants
//! - An event is booked once; the same again changes nothing, another under its id is refused.
//! - A refund is converted at the rate of the event it refers to; the difference to today's rate is
//!   a line of its own.
//! - A refund is split by what each still has, so nobody is taken more than it was given, and a full
//!   refund leaves exactly nothing.
//! - Savings are a class of their own and never mix with revenue.
//!
//! Not here: matching (`resolve`), closed periods (`periods`).

use super::model::Credits;
use crate::exact::{Decimal, ExactError, Ratio, shares, sum};
use bursar_domain::{Currency, Label, Money, MoneyError, Timestamp};
use std::collections::BTreeMap;

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Money earned.
    Revenue,
    /// Money not spent.
    Saving,
    /// Money given back.
    Refund,
    /// Money taken back by a bank.
    Chargeback,
    /// A correction of an amount, up or down.
    Adjustment,
}

impl Kind {
    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "revenue" => Some(Self::Revenue),
            "saving" => Some(Self::Saving),
            "refund" => Some(Self::Refund),
            "chargeback" => Some(Self::Chargeback),
            "adjustment" => Some(Self::Adjustment),
            _ => None,
        }
    }

    /// The name used in files and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revenue => "revenue",
            Self::Saving => "saving",
            Self::Refund => "refund",
            Self::Chargeback => "chargeback",
            Self::Adjustment => "adjustment",
        }
    }
}

/// Which total an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueClass {
    /// Revenue, less refunds.
    Revenue,
    /// Savings.
    Savings,
}

/// A revenue event as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevenueEvent {
    /// Idempotency key.
    pub id: Label,
    /// Who sent it.
    pub source: Label,
    /// What kind.
    pub kind: Kind,
    /// How much; refunds and chargebacks below zero.
    pub amount: Money,
    /// When it happened.
    pub at: Timestamp,
    /// The event that it takes back from or adds to.
    pub refers_to: Option<Label>,
}

/// What an event booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    /// Revenue or savings.
    pub class: ValueClass,
    /// The amount in the reporting currency.
    pub amount: Money,
    /// Who got or gave what.
    pub credits: Credits,
    /// What today's rate makes different, of a refund in another currency.
    pub fx_difference: Money,
}

/// Why an event cannot be booked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevenueError {
    /// Another event has this id.
    #[error("event {0} is there already and says something else; send the change as an adjustment")]
    Changed(Label),
    /// A refund that refers to nothing.
    #[error("event {event} is a {kind} and must say which event it refers to")]
    NoReference {
        /// The event.
        event: Label,
        /// Its kind.
        kind: &'static str,
    },
    /// It refers to an event that is not there.
    #[error("event {event} refers to {missing}, which is not there")]
    UnknownReference {
        /// The event.
        event: Label,
        /// What it names.
        missing: Label,
    },
    /// A sign that its kind cannot have.
    #[error("event {event} is a {kind} of {amount}: {remedy}")]
    Sign {
        /// The event.
        event: Label,
        /// Its kind.
        kind: &'static str,
        /// The amount.
        amount: Money,
        /// What to send.
        remedy: &'static str,
    },
    /// More taken back than was given.
    #[error("event {event} takes back {amount}, but only {left} is left of {of}")]
    TooMuch {
        /// The event.
        event: Label,
        /// What it takes back.
        amount: Money,
        /// What is left.
        left: Money,
        /// Of which event.
        of: Label,
    },
    /// Another currency than the event it refers to.
    #[error("event {event} is in {found}, but {of} is in {expected}")]
    OtherCurrency {
        /// The event.
        event: Label,
        /// Its currency.
        found: Currency,
        /// The event it refers to.
        of: Label,
        /// Its currency.
        expected: Currency,
    },
    /// A rate that is zero or less.
    #[error("event {0} has a rate that is not above zero")]
    BadRate(Label),
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
}

impl From<MoneyError> for RevenueError {
    fn from(error: MoneyError) -> Self {
        Self::Exact(ExactError::Money(error))
    }
}

/// What is still there of an original event.
#[derive(Clone, Debug)]
struct Open {
    class: ValueClass,
    rate: Decimal,
    /// In the event's currency.
    left: Money,
    /// In the reporting currency, by workload; `None` is nobody's.
    credits: BTreeMap<Option<Label>, Money>,
}

/// All events booked, and what is left of each.
#[derive(Clone, Debug)]
pub struct RevenueBook {
    currency: Currency,
    events: BTreeMap<Label, (RevenueEvent, Booking)>,
    open: BTreeMap<Label, Open>,
}

impl RevenueBook {
    /// An empty book in a reporting currency.
    #[must_use]
    pub const fn new(currency: Currency) -> Self {
        Self { currency, events: BTreeMap::new(), open: BTreeMap::new() }
    }

    /// Books an event. `rate` is reporting currency per unit of the event's currency on its day (one
    /// for the same currency); `share` shares an original amount out. Refunds do not ask it.
    pub fn book(
        &mut self,
        event: RevenueEvent,
        rate: Decimal,
        share: impl FnOnce(Money) -> Result<Credits, ExactError>,
    ) -> Result<&Booking, RevenueError> {
        if let Some((there, _)) = self.events.get(&event.id)
            && *there != event
        {
            return Err(RevenueError::Changed(event.id));
        }
        if !self.events.contains_key(&event.id) {
            if !rate.is_positive() {
                return Err(RevenueError::BadRate(event.id));
            }
            let booking = self.new_booking(&event, rate, share)?;
            self.events.insert(event.id.clone(), (event.clone(), booking));
        }
        let found = self.events.get(&event.id).map(|(_, booking)| booking);
        found.ok_or(RevenueError::Changed(event.id))
    }

    fn new_booking(
        &mut self,
        event: &RevenueEvent,
        rate: Decimal,
        share: impl FnOnce(Money) -> Result<Credits, ExactError>,
    ) -> Result<Booking, RevenueError> {
        check_sign(event)?;
        match (&event.refers_to, event.kind) {
            (None, Kind::Refund | Kind::Chargeback) => {
                Err(RevenueError::NoReference { event: event.id.clone(), kind: event.kind.name() })
            }
            (Some(of), _) if event.amount.pico() < 0 => self.take_back(event, of, rate),
            _ => self.give(event, rate, share),
        }
    }

    fn give(
        &mut self,
        event: &RevenueEvent,
        rate: Decimal,
        share: impl FnOnce(Money) -> Result<Credits, ExactError>,
    ) -> Result<Booking, RevenueError> {
        let amount = self.convert(event.amount, rate)?;
        let credits = share(amount)?;
        let about = event.refers_to.as_ref().and_then(|of| self.open.get(of)).map(|open| open.class);
        let own = if event.kind == Kind::Saving { ValueClass::Savings } else { ValueClass::Revenue };
        let class = about.unwrap_or(own);
        let mut by_key: BTreeMap<Option<Label>, Money> =
            credits.parts.iter().map(|(workload, part)| (Some(workload.clone()), *part)).collect();
        by_key.insert(None, credits.unattributed);
        let open = Open { class, rate, left: event.amount, credits: by_key };
        self.open.insert(event.id.clone(), open);
        Ok(Booking { class, amount, credits, fx_difference: Money::zero(self.currency) })
    }

    fn take_back(
        &mut self,
        event: &RevenueEvent,
        of: &Label,
        rate_now: Decimal,
    ) -> Result<Booking, RevenueError> {
        let currency = self.currency;
        let missing = || RevenueError::UnknownReference { event: event.id.clone(), missing: of.clone() };
        let open = self.open.get(of).ok_or_else(missing)?;
        if open.left.currency() != event.amount.currency() {
            let (found, expected) = (event.amount.currency(), open.left.currency());
            return Err(RevenueError::OtherCurrency {
                event: event.id.clone(),
                found,
                of: of.clone(),
                expected,
            });
        }
        let left = open.left.checked_add(event.amount)?;
        if left.pico() < 0 {
            let (amount, left) = (event.amount, open.left);
            return Err(RevenueError::TooMuch { event: event.id.clone(), amount, left, of: of.clone() });
        }
        let given = sum(currency, open.credits.values().copied())?;
        // The last refund takes what is left, so that rounding of earlier ones leaves nothing.
        let amount = if left.pico() == 0 {
            Money::zero(currency).checked_sub(given)?
        } else {
            let converted = convert(event.amount, open.rate, currency)?;
            Money::from_pico(currency, converted.pico().max(given.pico().saturating_neg()))
        };
        let weights = open.credits.iter().map(|(key, part)| (key.clone(), Ratio::of(*part).or_zero()));
        let shared = shares(amount, &weights.collect())?;
        let mut parts = shared.parts;
        let unattributed =
            parts.remove(&None).unwrap_or(Money::zero(currency)).checked_add(shared.residual)?;
        let parts: BTreeMap<Label, Money> =
            parts.into_iter().filter_map(|(key, part)| Some((key?, part))).collect();
        let class = open.class;
        let now = convert(event.amount, rate_now, currency)?;
        if let Some(open) = self.open.get_mut(of) {
            open.left = left;
            for (key, credit) in &mut open.credits {
                let part = key.as_ref().map_or(Some(unattributed), |workload| parts.get(workload).copied());
                *credit = credit.checked_add(part.unwrap_or(Money::zero(currency)))?;
            }
        }
        let fx_difference = now.checked_sub(amount)?;
        Ok(Booking { class, amount, credits: Credits { parts, unattributed }, fx_difference })
    }

    fn convert(&self, amount: Money, rate: Decimal) -> Result<Money, RevenueError> {
        convert(amount, rate, self.currency)
    }

    /// Every event with what it booked, by id.
    pub fn bookings(&self) -> impl Iterator<Item = (&RevenueEvent, &Booking)> {
        self.events.values().map(|(event, booking)| (event, booking))
    }

    /// Net credit of each workload in a class, and what is nobody's.
    pub fn net(&self, class: ValueClass) -> Result<Credits, RevenueError> {
        let mut net = Credits { parts: BTreeMap::new(), unattributed: Money::zero(self.currency) };
        for (_, booking) in self.bookings().filter(|(_, booking)| booking.class == class) {
            for (workload, part) in &booking.credits.parts {
                let sum = net.parts.entry(workload.clone()).or_insert(Money::zero(self.currency));
                *sum = sum.checked_add(*part)?;
            }
            net.unattributed = net.unattributed.checked_add(booking.credits.unattributed)?;
        }
        Ok(net)
    }
}

/// `amount · rate`, rounded half-even to the minor unit.
fn convert(amount: Money, rate: Decimal, currency: Currency) -> Result<Money, RevenueError> {
    if amount.currency() == currency {
        return Ok(amount);
    }
    Ok(Ratio::of(amount).times(rate.ratio())?.money_half_even(currency)?)
}

pub(super) fn check_sign(event: &RevenueEvent) -> Result<(), RevenueError> {
    let negative = event.amount.pico() < 0;
    let remedy = match event.kind {
        Kind::Revenue | Kind::Saving if negative => "send a refund that refers to the revenue",
        Kind::Refund | Kind::Chargeback if !negative => "its amount must be below zero",
        Kind::Adjustment if negative && event.refers_to.is_none() => "say which event it refers to",
        _ => return Ok(()),
    };
    let (amount, kind) = (event.amount, event.kind.name());
    Err(RevenueError::Sign { event: event.id.clone(), kind, amount, remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Money {
        Money::parse(Currency::USD, text).unwrap()
    }

    fn event(id: &'static str, kind: Kind, amount: Money, refers_to: Option<&'static str>) -> RevenueEvent {
        RevenueEvent {
            id: Label::fixed(id),
            source: Label::fixed("shop"),
            kind,
            amount,
            at: Timestamp::from_micros(0),
            refers_to: refers_to.map(Label::fixed),
        }
    }

    fn thirds(amount: Money) -> Result<Credits, ExactError> {
        let weights = ["a", "b", "c"].map(|name| (Label::fixed(name), Ratio::ONE)).into();
        let shared = shares(amount, &weights)?;
        Ok(Credits { parts: shared.parts, unattributed: shared.residual })
    }

    fn refused(_: Money) -> Result<Credits, ExactError> {
        panic!("a refund is not shared out anew")
    }

    fn book_all(book: &mut RevenueBook, kind: Kind, amount: Money, rate: &str) {
        book.book(event("sale", kind, amount, None), Decimal::parse(rate).unwrap(), thirds).unwrap();
    }

    #[test]
    fn refunds_in_parts_leave_exactly_nothing_whatever_the_rounding() {
        let eur = |text| Money::parse(Currency::parse("EUR").unwrap(), text).unwrap();
        let mut book = RevenueBook::new(Currency::USD);
        book_all(&mut book, Kind::Revenue, eur("820.00"), "1.0874");
        let rate = Decimal::parse("1.1010").unwrap();
        let first = event("r1", Kind::Refund, eur("-410"), Some("sale"));
        let booking = book.book(first.clone(), rate, refused).unwrap().clone();
        assert_eq!((booking.amount, booking.fx_difference), (usd("-445.83"), usd("-5.58")));
        book.book(first, rate, refused).unwrap();
        book.book(event("r2", Kind::Chargeback, eur("-410"), Some("sale")), rate, refused).unwrap();
        let net = book.net(ValueClass::Revenue).unwrap();
        assert!(net.parts.values().chain([&net.unattributed]).all(|part| part.pico() == 0), "{net:?}");
        let more = event("r3", Kind::Refund, eur("-0.01"), Some("sale"));
        assert!(matches!(book.book(more, rate, refused), Err(RevenueError::TooMuch { .. })));
    }

    #[test]
    fn events_that_cannot_be_are_refused_and_change_nothing() {
        let mut book = RevenueBook::new(Currency::USD);
        book_all(&mut book, Kind::Revenue, usd("10"), "1");
        let mut refuse = |event: RevenueEvent, text: &str| {
            let error = book.book(event, Decimal::ONE, thirds).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        };
        refuse(event("sale", Kind::Revenue, usd("11"), None), "says something else");
        refuse(event("x", Kind::Refund, usd("-1"), None), "must say which event");
        refuse(event("x", Kind::Refund, usd("-1"), Some("nothing")), "which is not there");
        refuse(event("x", Kind::Refund, usd("1"), Some("sale")), "must be below zero");
        refuse(event("x", Kind::Revenue, usd("-1"), None), "send a refund");
        refuse(event("x", Kind::Adjustment, usd("-1"), None), "say which event");
        let euros = Money::parse(Currency::parse("EUR").unwrap(), "-1").unwrap();
        refuse(event("x", Kind::Refund, euros, Some("sale")), "is in EUR, but sale is in USD");
        let error = book.book(event("x", Kind::Revenue, usd("1"), None), Decimal::ZERO, thirds);
        assert_eq!(error.unwrap_err(), RevenueError::BadRate(Label::fixed("x")));
        assert_eq!(book.bookings().count(), 1);
    }

    #[test]
    fn savings_are_a_class_of_their_own() {
        let mut book = RevenueBook::new(Currency::USD);
        book_all(&mut book, Kind::Saving, usd("9"), "1");
        assert_eq!(book.net(ValueClass::Savings).unwrap().parts[&Label::fixed("a")], usd("3"));
        assert!(book.net(ValueClass::Revenue).unwrap().parts.is_empty());
        let taken = event("r", Kind::Adjustment, usd("-9"), Some("sale"));
        let class = book.book(taken, Decimal::ONE, refused).unwrap().class;
        assert_eq!(class, ValueClass::Savings);
    }
}
