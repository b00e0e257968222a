//! Price rows: what one thing costs, where, on which tier, from when, and who says so.
//!
//! Invariants
//! - An id says everything that decides the amount, the price included, so a changed price is
//!   another row and an id on an old record keeps its meaning.
//! - A price is exact: pico-units per token, or per a whole number of other units.
//!
//! Not here: which row applies to a call (`compile`, `mod`), where rows come from (`builtin`,
//! `overlay`).

use bursar_domain::money::{div_half_even, format_pico};
use bursar_domain::{Currency, Quantity, Rate, Timestamp, TokenClass};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// The tier that holds when nothing else is said.
pub const STANDARD: &str = "standard";
/// As a tier of a discount or uplift: all of them.
pub const EVERY_TIER: &str = "*";
/// As a region of a row: any region that is named, unlike no particular one.
pub const ANY_REGION: &str = "*";
/// Token prices are published per this many tokens.
pub const MILLION: u32 = 1_000_000;

/// What a row prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// Tokens of one class.
    Token(TokenClass),
    /// Another billed quantity, such as web searches.
    Quantity(Quantity),
    /// The request itself.
    Request,
    /// A request for which the provider searched the web at least once, in place of each search
    /// (Gemini before version 3).
    GroundedRequest,
}

impl Item {
    /// The name in price files: that of the class or quantity, `request` or `grounded_request`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token(class) => class.name(),
            Self::Quantity(quantity) => quantity.name(),
            Self::Request => "request",
            Self::GroundedRequest => "grounded_request",
        }
    }

    /// The item with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "request" => return Some(Self::Request),
            "grounded_request" => return Some(Self::GroundedRequest),
            _ => {}
        }
        let token = TokenClass::from_name(name).map(Self::Token);
        token.or_else(|| Quantity::from_name(name).map(Self::Quantity))
    }

    /// Whether it is a class of tokens.
    #[must_use]
    pub const fn is_token(self) -> bool {
        matches!(self, Self::Token(_))
    }
}

/// A price: `rate` for every `per` units. Tokens always have `per` 1 (the rate is per token).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Price {
    /// Price of `per` units.
    pub rate: Rate,
    /// How many units the rate is for; never zero.
    pub per: u32,
}

/// A factor in millionths: `1_100_000` is 1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Millionths(pub u32);

impl Millionths {
    /// One.
    pub const ONE: Self = Self(MILLION);

    /// Parses a plain decimal with at most 6 decimals.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let pico = bursar_domain::money::parse_pico(text).ok()?;
        let exact = pico.checked_rem(i128::from(MILLION))? == 0;
        let millionths = u32::try_from(pico.checked_div(i128::from(MILLION))?).ok()?;
        exact.then_some(Self(millionths))
    }

    /// What is left of one: `1 - self`.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(MILLION.saturating_sub(self.0))
    }

    /// `pico × self`, rounded half-even to a pico-unit. Published prices have at most 6 decimals
    /// per million and factors at most 3, so only a price below 10⁻⁹ per million is ever rounded.
    /// `None` when it does not fit.
    #[must_use]
    pub fn times(self, pico: u64) -> Option<u64> {
        let product = i128::from(pico).checked_mul(i128::from(self.0))?;
        u64::try_from(div_half_even(product, i128::from(MILLION)).ok()?).ok()
    }

    fn text(self) -> String {
        format_pico(i128::from(self.0).saturating_mul(i128::from(MILLION)))
    }
}

/// A part of every day by the clock in UTC: `16:30-00:30` begins at 16:30 and has ended at 00:30.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hours {
    /// First minute of the day.
    from: u16,
    /// First minute that is no more in it; before `from` when midnight is in it.
    until: u16,
}

/// Minutes in a day.
const DAY_MINUTES: u16 = 1_440;

impl Hours {
    /// Parses `HH:MM-HH:MM`. `24:00` is midnight at the end; a part without a minute is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, until) = text.split_once('-')?;
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            let (hour, minute): (u16, u16) = match (digits(hour), digits(minute)) {
                (true, true) => (hour.parse().ok()?, minute.parse().ok()?),
                _ => return None,
            };
            let minutes = hour.checked_mul(60)?.checked_add(minute)?;
            (minute < 60 && minutes <= DAY_MINUTES).then_some(minutes)
        };
        let (from, until) = (minute(from)?, minute(until)?);
        let until = if until == DAY_MINUTES { 0 } else { until };
        (from != until && from < DAY_MINUTES).then_some(Self { from, until })
    }

    /// Whether the minute of the day is in it.
    #[must_use]
    pub const fn holds(self, minute: u16) -> bool {
        if self.from < self.until {
            self.from <= minute && minute < self.until
        } else {
            minute >= self.from || minute < self.until
        }
    }

    /// The part from one minute of the day to before another; `None` for the whole day.
    pub(super) const fn between(from: u16, until: u16) -> Option<Self> {
        if from == until { None } else { Some(Self { from, until }) }
    }

    /// The minutes at which something changes.
    pub(super) const fn edges(self) -> [u16; 2] {
        [self.from, self.until]
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |minutes: u16| (minutes.wrapping_div(60), minutes.wrapping_rem(60));
        let ((from_hour, from_minute), (until_hour, until_minute)) = (part(self.from), part(self.until));
        write!(f, "{from_hour:02}:{from_minute:02}-{until_hour:02}:{until_minute:02}")
    }
}

/// The minute of the day in UTC.
pub(super) fn minute_of_day(at: Timestamp) -> u16 {
    let minutes = at.micros().div_euclid(60_000_000).rem_euclid(i64::from(DAY_MINUTES));
    u16::try_from(minutes).unwrap_or(0)
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// The price of an item; above a context threshold when `above` is not zero.
    Price {
        /// What is priced.
        item: Item,
        /// Holds for requests whose total input is larger than this.
        above: u64,
        /// The price.
        price: Price,
    },
    /// A factor on the token prices of one region.
    Uplift(Millionths),
    /// A part taken off every list price to give the contracted price.
    Discount(Millionths),
}

/// Whose price it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PriceKind {
    /// The public price.
    List,
    /// The negotiated price.
    Contracted,
}

/// Where a row comes from; overlay rows win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The book that is compiled in.
    Builtin,
    /// The user's own file.
    Overlay,
}

/// One row of a price book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceRow {
    /// Names the row for ever; it is stored with every record that was priced by it.
    pub id: Arc<str>,
    /// Provider, as on the record.
    pub provider: Arc<str>,
    /// Model; a name that ends in `*` stands for all names with that beginning.
    pub model: Arc<str>,
    /// Region; `None` holds everywhere.
    pub region: Option<Arc<str>>,
    /// Tier; [`EVERY_TIER`] only for uplifts and discounts.
    pub tier: Arc<str>,
    /// What it says.
    pub term: Term,
    /// Public or negotiated.
    pub kind: PriceKind,
    /// Where it comes from.
    pub origin: Origin,
    /// First instant at which it holds; `None` is the beginning of time.
    pub from: Option<Timestamp>,
    /// First instant at which it holds no more; `None` until a later row takes its place.
    pub until: Option<Timestamp>,
    /// The part of each day in which it holds; `None` is all day.
    pub hours: Option<Hours>,
    /// Who published it, with the version.
    pub source: Arc<str>,
}

impl PriceRow {
    /// Whether the row holds at `at`, later rows aside.
    #[must_use]
    pub fn holds(&self, at: Timestamp) -> bool {
        self.in_window(at) && self.hours.is_none_or(|hours| hours.holds(minute_of_day(at)))
    }

    /// Whether `at` is between start and end, at whatever time of day.
    pub(super) fn in_window(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }

    /// The price as published: per million for tokens, else per unit; the factor of an uplift, the
    /// part of a discount. Without currency.
    #[must_use]
    pub fn value_text(&self) -> String {
        match self.term {
            Term::Price { item, price, .. } => {
                let scale = if item.is_token() { i128::from(MILLION) } else { 1 };
                format_pico(i128::from(price.rate.pico_per_unit()).saturating_mul(scale))
            }
            Term::Uplift(factor) | Term::Discount(factor) => factor.text(),
        }
    }

    /// What the value is for: `1000000 tokens`, `1000 audio_millis`, `request`, `factor` …
    #[must_use]
    pub fn unit_text(&self) -> String {
        match self.term {
            Term::Price { item: Item::Token(_), .. } => "1000000 tokens".to_owned(),
            Term::Price { item, price, .. } if price.per == 1 => item.name().to_owned(),
            Term::Price { item, price, .. } => format!("{} {}", price.per, item.name()),
            Term::Uplift(_) => "factor".to_owned(),
            Term::Discount(_) => "part off".to_owned(),
        }
    }

    /// What is priced: the item's name, `uplift` or `discount`.
    #[must_use]
    pub const fn term_name(&self) -> &'static str {
        match self.term {
            Term::Price { item, .. } => item.name(),
            Term::Uplift(_) => "uplift",
            Term::Discount(_) => "discount",
        }
    }

    /// The price, for rows that are one.
    #[must_use]
    pub const fn price(&self) -> Option<(Item, u64, Price)> {
        match self.term {
            Term::Price { item, above, price } => Some((item, above, price)),
            Term::Uplift(_) | Term::Discount(_) => None,
        }
    }

    /// The id that the row's content calls for:
    /// `[overlay/][contracted/]provider/model[region][/tier]/item[>above][@from][..until][#hours]=price`.
    #[must_use]
    pub fn derived_id(&self) -> String {
        let mut id = String::new();
        if self.origin == Origin::Overlay {
            id.push_str("overlay/");
        }
        if self.kind == PriceKind::Contracted {
            id.push_str("contracted/");
        }
        id.push_str(&self.provider);
        id.push('/');
        id.push_str(&self.model);
        if let Some(region) = &self.region {
            id.push('[');
            id.push_str(region);
            id.push(']');
        }
        if &*self.tier != STANDARD && &*self.tier != EVERY_TIER {
            id.push('/');
            id.push_str(&self.tier);
        }
        let value = self.push_term(&mut id);
        if let Some(from) = self.from {
            id.push('@');
            id.push_str(&instant_text(from));
        }
        if let Some(until) = self.until {
            id.push_str("..");
            id.push_str(&instant_text(until));
        }
        if let Some(hours) = self.hours {
            let _ = write!(id, "#{hours}");
        }
        id.push('=');
        id.push_str(&value);
        id
    }

    /// Writes what is priced and returns the price as text.
    fn push_term(&self, id: &mut String) -> String {
        match self.term {
            Term::Price { item, above, price } => {
                id.push('/');
                id.push_str(item.name());
                if above > 0 {
                    let _ = write!(id, ">{above}");
                }
                price_text(item, price)
            }
            Term::Uplift(factor) => {
                id.push_str("/uplift");
                factor.text()
            }
            Term::Discount(part) => {
                id.push_str("/discount");
                part.text()
            }
        }
    }
}

/// The price as published: per million for tokens, else per unit (or `/per`), in USD unless said.
fn price_text(item: Item, price: Price) -> String {
    let pico = i128::from(price.rate.pico_per_unit());
    let scale = if item.is_token() { i128::from(MILLION) } else { 1 };
    let mut text = format_pico(pico.saturating_mul(scale));
    if price.per != 1 {
        let _ = write!(text, "/{}", price.per);
    }
    if price.rate.currency() != Currency::USD {
        text.push_str(price.rate.currency().code());
    }
    text
}

/// A day when the instant is midnight UTC, else the whole instant.
#[must_use]
pub fn instant_text(at: Timestamp) -> String {
    let Ok(instant) = jiff::Timestamp::from_microsecond(at.micros()) else {
        return format!("{}us", at.micros());
    };
    let text = instant.to_string();
    text.strip_suffix("T00:00:00Z").map_or_else(|| text.clone(), str::to_owned)
}

/// Parses a day (its midnight UTC) or an RFC 3339 instant.
pub(super) fn parse_instant(text: &str) -> Option<Timestamp> {
    let instant = match text.parse::<jiff::civil::Date>() {
        Ok(day) if text.len() == 10 => day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp(),
        _ => text.parse::<jiff::Timestamp>().ok()?,
    };
    Some(Timestamp::from_micros(instant.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_instants_round_trip_and_other_text_is_refused() {
        for text in ["2026-08-21", "2026-08-21T13:45:00Z", "1970-01-01"] {
            assert_eq!(instant_text(parse_instant(text).unwrap()), text);
        }
        for text in ["", "2026", "2026-13-01", "2026-02-30", "21.08.2026", "2026-08-21T10:00", "tomorrow"] {
            assert_eq!(parse_instant(text), None, "{text}");
        }
    }

    #[test]
    fn hours_hold_from_their_first_minute_to_before_their_last_also_over_midnight() {
        for (text, inside, outside) in [
            ("00:30-16:30", [30, 600, 989], [29, 990, 1439]),
            ("16:30-00:30", [990, 1439, 29], [30, 600, 989]),
            ("01:00-24:00", [60, 720, 1439], [0, 30, 59]),
        ] {
            let hours = Hours::parse(text).unwrap();
            assert!(inside.iter().all(|minute| hours.holds(*minute)), "{text}");
            assert!(!outside.iter().any(|minute| hours.holds(*minute)), "{text}");
        }
        assert_eq!(Hours::parse("16:30-00:30").unwrap().to_string(), "16:30-00:30");
        for text in [
            "",
            "1:00-2:00",
            "01:00",
            "01:00-01:00",
            "25:00-26:00",
            "01:60-02:00",
            "00:00-24:00",
            "+1:00-02:00",
        ] {
            assert_eq!(Hours::parse(text), None, "{text}");
        }
        assert_eq!(minute_of_day(parse_instant("2026-08-21T16:30:59Z").unwrap()), 990);
        assert_eq!(minute_of_day(Timestamp::from_micros(-1)), 1439);
    }

    #[test]
    fn factors_are_exact_for_published_prices_and_half_even_below() {
        let us = Millionths::parse("1.1").unwrap();
        assert_eq!(us.times(75_000), Some(82_500));
        assert_eq!(us.times(5), Some(6), "5.5 goes to the even 6");
        assert_eq!(us.times(15), Some(16), "16.5 goes to the even 16");
        assert_eq!(us.times(u64::MAX), None);
        assert_eq!(Millionths::parse("0.2").unwrap().complement(), Millionths::parse("0.8").unwrap());
        assert_eq!(Millionths::parse("1.0000001"), None);
        assert_eq!(Millionths::parse("-1"), None);
    }

    #[test]
    fn items_have_unique_names_that_lead_back() {
        let tokens = TokenClass::ALL.iter().map(|class| Item::Token(*class));
        let quantities = Quantity::ALL.iter().map(|quantity| Item::Quantity(*quantity));
        for item in tokens.chain(quantities).chain([Item::Request, Item::GroundedRequest]) {
            assert_eq!(Item::from_name(item.name()), Some(item));
        }
        assert_eq!(Item::from_name("inputs"), None);
    }
}
