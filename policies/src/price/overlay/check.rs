//! From the rows of an overlay file to price rows, with every mistake found.
//!
//! Invariants
//! - A mistake in one key does not hide one in another.
//!
//! Not here: the shape of the file and the texts of the mistakes (`mod`).

use super::super::names::{canonical_region, canonical_tier};
use super::super::row::{
    ANY_REGION, EVERY_TIER, Hours, Item, MILLION, Millionths, Origin, Price, PriceKind, PriceRow, Term,
    instant_text, parse_instant,
};
use super::{Decimal, OverlayError, OverlayErrors, OverlayFile, OverlayRow};
use bursar_domain::ids::check_label;
use bursar_domain::{Currency, Quantity, Rate, RateError, Timestamp, TokenClass};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Other units that may have a price: name in the file, quantity, how many of it make one unit.
const UNITS: &[(&str, Quantity, u32)] = &[
    ("images", Quantity::Images, 1),
    ("input_images", Quantity::InputImages, 1),
    ("medium_search_context", Quantity::MediumSearchContext, 1),
    ("high_search_context", Quantity::HighSearchContext, 1),
    ("pages", Quantity::Pages, 1),
    ("search_units", Quantity::SearchUnits, 1),
    ("audio_seconds", Quantity::AudioMillis, 1_000),
    ("audio_minutes", Quantity::AudioMillis, 60_000),
];

/// ISO 4217 codes in use, and CNH, which is a currency of its own for hedging (FINANCE §1).
const CURRENCIES: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP \
    BYN BZD CAD CDF CHF CLP CNH CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP \
    GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK \
    LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB \
    PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB \
    TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG";

pub(super) fn rows(file: &OverlayFile) -> Result<Vec<PriceRow>, OverlayErrors> {
    let source: Arc<str> = Arc::from(file.source.as_deref().unwrap_or("overlay"));
    let mut errors = Vec::new();
    let mut rows: Vec<(usize, PriceRow)> = Vec::new();
    for (number, row) in (1_usize..).zip(&file.rows) {
        let mut check = Check { number, row, errors: &mut errors };
        if let Some(made) = check.run(&source) {
            rows.extend(made.into_iter().map(|row| (number, row)));
        }
    }
    clashes(&rows, &mut errors);
    if errors.is_empty() {
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    } else {
        Err(OverlayErrors(errors))
    }
}

/// One row being checked.
struct Check<'a> {
    number: usize,
    row: &'a OverlayRow,
    errors: &'a mut Vec<OverlayError>,
}

impl Check<'_> {
    /// The price rows, or nothing when there was a mistake.
    fn run(&mut self, source: &Arc<str>) -> Option<Vec<PriceRow>> {
        let before = self.errors.len();
        self.names();
        let currency = self.currency();
        let kind = self.kind();
        let (from, until) =
            (self.time("from", self.row.from.as_deref()), self.time("until", self.row.until.as_deref()));
        self.window(from, until);
        let hours = self.hours();
        let terms = self.terms(currency, kind);
        if terms.is_empty() && self.errors.len() == before {
            self.errors.push(OverlayError::NoPrice { row: self.number });
        }
        if self.errors.len() > before {
            return None;
        }
        let provider: Arc<str> = Arc::from(&*self.row.provider);
        let model: Arc<str> = Arc::from(&*self.row.model);
        let region =
            canonical_region(self.row.region.as_deref()).map(|name| Arc::from(name.to_ascii_lowercase()));
        let make = |term: Term| {
            let mut row = PriceRow {
                id: Arc::clone(source),
                provider: Arc::clone(&provider),
                model: Arc::clone(&model),
                region: region.clone(),
                tier: self.tier(term),
                term,
                kind,
                origin: Origin::Overlay,
                from,
                until,
                hours,
                source: Arc::clone(source),
            };
            row.id = Arc::from(row.derived_id());
            row
        };
        Some(terms.into_iter().map(make).collect())
    }

    fn names(&mut self) {
        let row = self.row;
        let required = [("provider", Some(&row.provider)), ("model", Some(&row.model))];
        for (key, value) in
            required.into_iter().chain([("region", row.region.as_ref()), ("tier", row.tier.as_ref())])
        {
            let Some(value) = value else { continue };
            let stars = if key == "model" { value.strip_suffix('*').unwrap_or(value) } else { value };
            let reason = match check_label(value) {
                Err(error) => error.to_string(),
                Ok(()) if value.trim() != value => "it begins or ends with a space".to_owned(),
                Ok(()) if key == "region" && value == ANY_REGION => continue,
                Ok(()) if stars.contains('*') => {
                    "only a model may have a `*`, and only at its end".to_owned()
                }
                Ok(()) => continue,
            };
            self.errors.push(OverlayError::BadName { row: self.number, key, value: value.clone(), reason });
        }
    }

    fn currency(&mut self) -> Currency {
        let Some(code) = &self.row.currency else { return Currency::USD };
        let known = CURRENCIES.split_ascii_whitespace().any(|known| known == code);
        match Currency::parse(code) {
            Ok(currency) if known => currency,
            _ => {
                self.errors.push(OverlayError::UnknownCurrency { row: self.number, value: code.clone() });
                Currency::USD
            }
        }
    }

    fn kind(&mut self) -> PriceKind {
        match self.row.kind.as_deref() {
            None | Some("list") => PriceKind::List,
            Some("contracted") => PriceKind::Contracted,
            Some(other) => {
                self.errors.push(OverlayError::UnknownKind { row: self.number, value: other.to_owned() });
                PriceKind::List
            }
        }
    }

    fn time(&mut self, key: &'static str, text: Option<&str>) -> Option<Timestamp> {
        let text = text?;
        let instant = parse_instant(text);
        if instant.is_none() {
            self.errors.push(OverlayError::BadTime { row: self.number, key, value: text.to_owned() });
        }
        instant
    }

    fn hours(&mut self) -> Option<Hours> {
        let text = self.row.hours.as_deref()?;
        let hours = Hours::parse(text);
        if hours.is_none() {
            self.errors.push(OverlayError::BadHours { row: self.number, value: text.to_owned() });
        }
        hours
    }

    fn window(&mut self, from: Option<Timestamp>, until: Option<Timestamp>) {
        if let (Some(from), Some(until)) = (from, until)
            && until <= from
        {
            let (from, until) = (instant_text(from), instant_text(until));
            self.errors.push(OverlayError::EmptyWindow { row: self.number, from, until });
        }
    }

    fn tier(&self, term: Term) -> Arc<str> {
        match (&self.row.tier, term) {
            (None, Term::Discount(_)) => Arc::from(EVERY_TIER),
            (tier, _) => Arc::from(canonical_tier(tier.as_deref().unwrap_or("")).to_ascii_lowercase()),
        }
    }

    fn terms(&mut self, currency: Currency, kind: PriceKind) -> Vec<Term> {
        let row = self.row;
        let mut terms = self.classes(currency, "per_million", 0, &row.per_million);
        terms.extend(self.thresholds(currency));
        let requests = row.per_request.as_ref().map(|price| ("per_request", Item::Request, price));
        let searches = Item::Quantity(Quantity::WebSearchRequests);
        let searches = row.per_web_search.as_ref().map(|price| ("per_web_search", searches, price));
        let grounded = row.per_grounded_request.as_ref();
        let grounded = grounded.map(|price| ("per_grounded_request", Item::GroundedRequest, price));
        for (key, item, price) in requests.into_iter().chain(searches).chain(grounded) {
            terms.extend(self.price(currency, key.to_owned(), item, 1, price));
        }
        for (name, price) in &row.per_unit {
            let key = format!("per_unit.{name}");
            match UNITS.iter().find(|(unit, _, _)| unit == name) {
                Some((_, quantity, per)) => {
                    terms.extend(self.price(currency, key, Item::Quantity(*quantity), *per, price))
                }
                None => {
                    let known = UNITS.iter().map(|(unit, _, _)| *unit).collect::<Vec<_>>().join(", ");
                    self.errors.push(OverlayError::UnknownClass {
                        row: self.number,
                        key,
                        what: "unit",
                        known,
                    });
                }
            }
        }
        if let Some(percent) = &row.discount_percent {
            let alone = terms.is_empty() && row.per_million.is_empty() && row.above_context.is_empty();
            terms.extend(self.discount(percent, kind, alone));
        }
        terms
    }

    fn thresholds(&mut self, currency: Currency) -> Vec<Term> {
        let row = self.row;
        let mut terms = Vec::new();
        let mut seen = BTreeSet::new();
        for above in &row.above_context {
            let text = above.tokens.text();
            let Some(tokens) = text.parse::<u64>().ok().filter(|tokens| *tokens > 0) else {
                self.bad_price(
                    "above_context.tokens".to_owned(),
                    text,
                    "is no whole number of tokens above zero",
                );
                continue;
            };
            if !seen.insert(tokens) {
                self.errors.push(OverlayError::TwiceAbove { row: self.number, tokens });
            }
            terms.extend(self.classes(currency, "above_context.per_million", tokens, &above.per_million));
            for class in above.per_million.keys().filter(|class| !row.per_million.contains_key(*class)) {
                let key = format!("above_context.per_million.{class}");
                self.errors.push(OverlayError::NoBasePrice { row: self.number, key, class: class.clone() });
            }
        }
        terms
    }

    /// Prices of token classes.
    fn classes(
        &mut self,
        currency: Currency,
        path: &str,
        above: u64,
        prices: &BTreeMap<String, Decimal>,
    ) -> Vec<Term> {
        let mut terms = Vec::new();
        for (name, price) in prices {
            let key = format!("{path}.{name}");
            let Some(class) = TokenClass::from_name(name) else {
                let known = TokenClass::ALL.iter().map(|class| class.name()).collect::<Vec<_>>().join(", ");
                self.errors.push(OverlayError::UnknownClass {
                    row: self.number,
                    key,
                    what: "token class",
                    known,
                });
                continue;
            };
            match Rate::per_million(currency, price.text()) {
                Ok(rate) => {
                    terms.push(Term::Price { item: Item::Token(class), above, price: Price { rate, per: 1 } })
                }
                Err(error) => self.rate_error(key, price.text(), &error, "6 decimals per million tokens"),
            }
        }
        terms
    }

    /// The price of `per` of another item.
    fn price(
        &mut self,
        currency: Currency,
        key: String,
        item: Item,
        per: u32,
        price: &Decimal,
    ) -> Option<Term> {
        match Rate::per_unit(currency, price.text()) {
            Ok(rate) => Some(Term::Price { item, above: 0, price: Price { rate, per } }),
            Err(error) => {
                self.rate_error(key, price.text(), &error, "12 decimals");
                None
            }
        }
    }

    fn rate_error(&mut self, key: String, text: &str, error: &RateError, decimals: &str) {
        let decimal = bursar_domain::money::parse_pico(text);
        let finer = text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let reason = match (error, decimal) {
            (RateError::Negative, _) => "is negative; a price is zero or more".to_owned(),
            (RateError::Inexact(_), Ok(pico)) if pico > i128::from(u64::MAX) => {
                "is too large to be a price; check its unit".to_owned()
            }
            (RateError::Inexact(_), _) => {
                format!("is finer than can be billed exactly; round it to {decimals}")
            }
            (RateError::Money(_), _) if finer => {
                format!("is not a decimal with at most {decimals}; round it")
            }
            (RateError::Money(_), _) => {
                "is no plain decimal; write it like 2.5, without exponent or unit".to_owned()
            }
        };
        self.bad_price(key, text, &reason);
    }

    fn bad_price(&mut self, key: String, value: &str, reason: &str) {
        let (value, reason) = (value.to_owned(), reason.to_owned());
        self.errors.push(OverlayError::BadPrice { row: self.number, key, value, reason });
    }

    fn discount(&mut self, percent: &Decimal, kind: PriceKind, alone: bool) -> Option<Term> {
        let mut mixed = |with, remedy| {
            self.errors.push(OverlayError::MixedDiscount { row: self.number, with, remedy });
        };
        if kind == PriceKind::List {
            mixed("a list price", "a discount makes the contracted price; write kind: contracted");
        }
        if !alone {
            mixed("prices in one row", "put the prices into a row of their own");
        }
        let part = percent_of(percent.text());
        if part.is_none() {
            self.errors
                .push(OverlayError::BadDiscount { row: self.number, value: percent.text().to_owned() });
        }
        part.map(Term::Discount)
    }
}

/// A percentage from 0 to 100 as a part of one.
fn percent_of(text: &str) -> Option<Millionths> {
    let Millionths(percent) = Millionths::parse(text)?;
    let exact = percent.checked_rem(100)? == 0;
    let part = percent.checked_div(100)?;
    (exact && part <= MILLION).then_some(Millionths(part))
}

/// What a row prices: two rows with one key must not hold together by their own words.
fn key(row: &PriceRow) -> String {
    let mut plain = row.clone();
    (plain.from, plain.until) = (None, None);
    let id = plain.derived_id();
    id.rsplit_once('=').map_or_else(|| id.clone(), |(key, _)| key.to_owned())
}

/// Rows for one thing that begin together, or overlap by an `until`.
fn clashes(rows: &[(usize, PriceRow)], errors: &mut Vec<OverlayError>) {
    let mut by_key: BTreeMap<String, Vec<&(usize, PriceRow)>> = BTreeMap::new();
    for row in rows {
        by_key.entry(key(&row.1)).or_default().push(row);
    }
    let mut reported = BTreeSet::new();
    for (what, mut same) in by_key {
        same.sort_by_key(|(number, row)| (row.from, *number));
        for ((other, earlier), (row, later)) in same.iter().copied().zip(same.iter().copied().skip(1)) {
            let (row, other, what) = (*row, *other, what.clone());
            let clash = if earlier.from == later.from {
                OverlayError::Duplicate { row: row.max(other), other: row.min(other), what }
            } else if let (Some(until), Some(from)) = (earlier.until, later.from)
                && until > from
            {
                OverlayError::Overlap {
                    row,
                    other,
                    what,
                    from: instant_text(from),
                    until: instant_text(until),
                }
            } else {
                continue;
            };
            if reported.insert((row, other)) {
                errors.push(clash);
            }
        }
    }
}
