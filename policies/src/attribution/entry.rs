//! Revenue events as they are written, and which of them may stand beside those that are there.
//!
//! Invariants
//! - Source and id name an event for ever: the same words again change nothing, others are refused.
//! - An event has one text: however it was written, equal events are equal byte for byte.
//! - A refund finds what it takes back from, in that currency, and never takes more than is left.
//!
//! Not here: envelopes and files (`bursar`), who gets what (`credit`).

use super::resolve::MatchKeys;
use super::revenue::{Kind, RevenueError, RevenueEvent, check_sign};
use crate::exact::Decimal;
use crate::price::overlay::Decimal as Written;
use bursar_domain::{Currency, Label, Money, RequestId, Timestamp, TraceId};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The source of an event that names none.
const UNNAMED: &str = "import";

/// An event as a file or a request writes it; nothing checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RevenueEntry {
    /// Names the event within its source.
    pub id: Option<String>,
    /// Who sent it; `import` when absent.
    pub source: Option<String>,
    /// `revenue` (when absent), `saving`, `refund`, `chargeback` or `adjustment`.
    pub kind: Option<String>,
    /// How much, in units of the currency; what is taken back is below zero.
    pub amount: Option<Written>,
    /// Its currency.
    pub currency: Option<String>,
    /// When it happened: an instant, or a day, which stands for the end of that day in UTC.
    #[serde(alias = "event_time", alias = "occurred_at", alias = "at")]
    pub time: Option<String>,
    /// When the sender got it: not kept, the ledger notes when it became known here.
    #[serde(alias = "received_time")]
    pub received_at: Option<String>,
    /// The id of the event that it takes back from or adds to.
    pub refers_to: Option<String>,
    /// The source of that event; its own when absent.
    pub refers_to_source: Option<String>,
    /// Matches one request.
    #[serde(alias = "request")]
    pub request_id: Option<String>,
    /// Matches a trace: 32 hexadecimal digits.
    #[serde(alias = "trace")]
    pub trace_id: Option<String>,
    /// Matches a session.
    #[serde(alias = "session_id")]
    pub session: Option<String>,
    /// With a workload, matches a customer.
    #[serde(alias = "customer_id")]
    pub customer: Option<String>,
    /// Matches a workload.
    pub workload: Option<String>,
    /// Matches a tag: `name=value`.
    pub tag: Option<String>,
    /// The same as an object of one name and value.
    pub tags: Option<BTreeMap<String, String>>,
    /// How sure the sender is, from 0 to 1: kept, and not used.
    pub confidence: Option<Written>,
    /// Where the proof is: kept, and not used.
    pub evidence: Option<String>,
}

/// An event that is well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revenue {
    /// What it says about money.
    pub event: RevenueEvent,
    /// The source of the event it refers to.
    pub refers_to_source: Option<Label>,
    /// What it is matched by.
    pub keys: MatchKeys,
    /// How sure the sender is.
    pub confidence: Option<Decimal>,
    /// Where the proof is.
    pub evidence: Option<Label>,
}

/// Why an event is not well formed, or cannot stand beside those that are there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The fields are not those of an event.
    #[error("{0}")]
    Fields(String),
    /// A field that is needed.
    #[error("{key} is missing: {remedy}")]
    Missing {
        /// The field.
        key: &'static str,
        /// What to write.
        remedy: &'static str,
    },
    /// A value that cannot be.
    #[error("{key}: {value:?} {remedy}")]
    Bad {
        /// The field.
        key: &'static str,
        /// What it says.
        value: String,
        /// What is wrong and what to write instead.
        remedy: String,
    },
    /// Events that contradict one another.
    #[error(transparent)]
    Event(#[from] RevenueError),
}

fn bad(key: &'static str, value: &str, remedy: impl Into<String>) -> EntryError {
    EntryError::Bad { key, value: value.chars().take(60).collect(), remedy: remedy.into() }
}

fn label(key: &'static str, text: &str) -> Result<Label, EntryError> {
    Label::new(text).map_err(|error| bad(key, text, format!("is not usable: {error}")))
}

fn optional(key: &'static str, text: Option<&String>) -> Result<Option<Label>, EntryError> {
    text.map(|text| label(key, text)).transpose()
}

fn needed<'a, T>(key: &'static str, value: Option<&'a T>, remedy: &'static str) -> Result<&'a T, EntryError> {
    value.ok_or(EntryError::Missing { key, remedy })
}

impl RevenueEntry {
    /// The entry in a JSON text.
    pub fn read(text: &str) -> Result<Self, EntryError> {
        serde_json::from_str(text).map_err(|error| {
            let text = error.to_string();
            EntryError::Fields(text.split(" at line ").next().unwrap_or(&text).to_owned())
        })
    }

    /// The event, if every field is as it must be.
    pub fn check(&self) -> Result<Revenue, EntryError> {
        let id = needed("id", self.id.as_ref(), "give each event a name of its own, so that it counts once")?;
        let source = self.source.as_deref().unwrap_or(UNNAMED);
        let kind = self.kind.as_deref().unwrap_or("revenue");
        let remedy = "is unknown: use revenue, saving, refund, chargeback or adjustment";
        let event = RevenueEvent {
            id: label("id", id)?,
            source: label("source", source)?,
            kind: Kind::from_name(kind).ok_or_else(|| bad("kind", kind, remedy))?,
            amount: self.money()?,
            at: self.at()?,
            refers_to: optional("refers_to", self.refers_to.as_ref())?,
        };
        check_sign(&event)?;
        if event.refers_to.is_none() && matches!(event.kind, Kind::Refund | Kind::Chargeback) {
            return Err(RevenueError::NoReference { event: event.id, kind: event.kind.name() }.into());
        }
        if event.refers_to.is_some() && matches!(event.kind, Kind::Revenue | Kind::Saving) {
            return Err(bad("refers_to", kind, "refers to nothing: what changes an event is an adjustment"));
        }
        let refers_to_source = optional("refers_to_source", self.refers_to_source.as_ref())?;
        let refers_to_source = refers_to_source.filter(|other| *other != event.source);
        Ok(Revenue {
            event,
            refers_to_source,
            keys: self.keys()?,
            confidence: self.confidence()?,
            evidence: optional("evidence", self.evidence.as_ref())?,
        })
    }

    fn money(&self) -> Result<Money, EntryError> {
        let remedy = "write how much, in units of the currency, such as 12.50";
        let amount = needed("amount", self.amount.as_ref(), remedy)?;
        let code = needed("currency", self.currency.as_ref(), "write its code, such as USD")?;
        let remedy = "is not a currency code of three capital letters";
        let currency = Currency::parse(code).map_err(|_| bad("currency", code, remedy))?;
        if !currency.is_listed() {
            return Err(bad(
                "currency",
                code,
                "is no currency that ISO 4217 lists: write its code, such as USD",
            ));
        }
        let remedy = "is not a plain decimal with at most 12 decimals";
        Money::parse(currency, amount.text()).map_err(|_| bad("amount", amount.text(), remedy))
    }

    fn at(&self) -> Result<Timestamp, EntryError> {
        let remedy = "write when it happened, such as 2026-09-30T12:00:00Z";
        let text = needed("time", self.time.as_ref(), remedy)?;
        let remedy = "is not a time such as 2026-09-30T12:00:00Z, and not a day such as 2026-09-30";
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Timestamp::from_micros(at.as_microsecond()));
        }
        let day = crate::hedge::calendar::parse_day(text).map_err(|_| bad("time", text, remedy))?;
        let next = day.tomorrow().map_err(|_| bad("time", text, remedy))?;
        let midnight = next.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| bad("time", text, remedy))?;
        Ok(Timestamp::from_micros(midnight.timestamp().as_microsecond().saturating_sub(1)))
    }

    fn keys(&self) -> Result<MatchKeys, EntryError> {
        let request = self.request_id.as_deref().map(|text| {
            let remedy = "is no request id: write the reply's x-bursar-request-id";
            RequestId::parse(text).ok_or_else(|| bad("request_id", text, remedy))
        });
        let trace = self.trace_id.as_deref().map(|text| {
            let bits = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32);
            let remedy = "is no trace id: write its 32 hexadecimal digits";
            bits.and_then(TraceId::from_bits).ok_or_else(|| bad("trace_id", text, remedy))
        });
        Ok(MatchKeys {
            request: request.transpose()?,
            trace: trace.transpose()?,
            session: optional("session", self.session.as_ref())?,
            customer: optional("customer", self.customer.as_ref())?,
            workload: optional("workload", self.workload.as_ref())?,
            tag: self.one_tag()?,
        })
    }

    fn one_tag(&self) -> Result<Option<(Label, Label)>, EntryError> {
        let pair = |name: &str, value: &str| Ok((label("tag", name)?, label("tag", value)?));
        match (&self.tag, &self.tags) {
            (None, None) => Ok(None),
            (Some(text), None) => {
                let (name, value) =
                    text.split_once('=').ok_or_else(|| bad("tag", text, "must be name=value"))?;
                pair(name, value).map(Some)
            }
            (None, Some(tags)) if tags.len() <= 1 => {
                tags.iter().next().map(|(name, value)| pair(name, value)).transpose()
            }
            _ => Err(bad("tags", "several", "are too many: an event is matched by one tag")),
        }
    }

    fn confidence(&self) -> Result<Option<Decimal>, EntryError> {
        let Some(written) = &self.confidence else { return Ok(None) };
        let value = Decimal::parse(written.text()).ok();
        let inside = value.filter(|value| !value.is_negative() && *value <= Decimal::ONE);
        inside.map(Some).ok_or_else(|| bad("confidence", written.text(), "is not between 0 and 1"))
    }
}

impl Revenue {
    /// Its text: one JSON object on one line, which [`RevenueEntry::read`] reads back.
    #[must_use]
    pub fn body(&self) -> String {
        let Self { event, refers_to_source, keys, confidence, evidence } = self;
        let RevenueEvent { id, source, kind, amount, at, refers_to } = event;
        let MatchKeys { request, trace, session, customer, workload, tag } = keys;
        let mut fields = Map::new();
        let mut say = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), Value::from(value));
            }
        };
        let text = |label: &Option<Label>| label.as_ref().map(ToString::to_string);
        say("id", Some(id.to_string()));
        say("source", Some(source.to_string()));
        say("kind", Some(kind.name().to_owned()));
        say("amount", Some(amount.to_string()));
        say("currency", Some(amount.currency().code().to_owned()));
        let time = jiff::Timestamp::from_microsecond(at.micros());
        say("time", Some(time.map_or_else(|_| String::new(), |time| time.to_string())));
        say("refers_to", text(refers_to));
        say("refers_to_source", text(refers_to_source));
        say("request_id", request.map(|id| id.to_string()));
        say("trace_id", trace.map(|id| format!("{:032x}", id.bits())));
        say("session", text(session));
        say("customer", text(customer));
        say("workload", text(workload));
        say("tag", tag.as_ref().map(|(name, value)| format!("{name}={value}")));
        say("confidence", confidence.map(|value| value.to_string()));
        say("evidence", text(evidence));
        Value::Object(fields).to_string()
    }

    /// What names the event: its source and its id.
    #[must_use]
    pub fn key(&self) -> EventKey {
        (self.event.source.clone(), self.event.id.clone())
    }

    /// What names the event that it takes from or adds to.
    #[must_use]
    pub fn refers_to(&self) -> Option<EventKey> {
        let of = self.event.refers_to.clone()?;
        Some((self.refers_to_source.clone().unwrap_or_else(|| self.event.source.clone()), of))
    }

    /// Whether it takes back from another event.
    #[must_use]
    pub fn takes_back(&self) -> bool {
        self.event.refers_to.is_some() && self.event.amount.pico() < 0
    }
}

/// Source and id.
pub type EventKey = (Label, Label);

/// Whether an event is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// It is.
    New,
    /// It is there, word for word.
    Same,
}

/// One event that is there.
#[derive(Clone, Debug)]
struct Seen {
    body: Arc<str>,
    /// What has not been taken back; `None` of an event that itself takes back.
    left: Option<Money>,
}

/// Which events are there, and what is left of each.
#[derive(Clone, Debug, Default)]
pub struct RevenueLog {
    seen: HashMap<EventKey, Seen>,
}

impl RevenueLog {
    /// How many events are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Takes an event in; `body` is its text. A refused one leaves everything as it was.
    pub fn admit(&mut self, revenue: &Revenue, body: &Arc<str>) -> Result<Admission, RevenueError> {
        let event = &revenue.event;
        let key = revenue.key();
        if let Some(seen) = self.seen.get(&key) {
            let same = *seen.body == **body;
            return if same { Ok(Admission::Same) } else { Err(RevenueError::Changed(event.id.clone())) };
        }
        let left = match revenue.refers_to() {
            Some(of) => self.refer(revenue, &of)?,
            None => Some(event.amount),
        };
        self.seen.insert(key, Seen { body: body.clone(), left });
        Ok(Admission::New)
    }

    /// Forgets an event that was taken in last, as if it had not been.
    pub fn retract(&mut self, revenue: &Revenue) {
        self.seen.remove(&revenue.key());
        let of = revenue.refers_to().filter(|_| revenue.takes_back());
        let seen = of.and_then(|of| self.seen.get_mut(&of));
        if let Some(left) = seen.and_then(|seen| seen.left.as_mut())
            && let Ok(before) = left.checked_sub(revenue.event.amount)
        {
            *left = before;
        }
    }

    /// Takes from the event referred to what `revenue` takes back; what is left of `revenue` itself.
    fn refer(&mut self, revenue: &Revenue, of: &EventKey) -> Result<Option<Money>, RevenueError> {
        let event = &revenue.event;
        let missing = || RevenueError::UnknownReference { event: event.id.clone(), missing: of.1.clone() };
        let left = self.seen.get_mut(of).and_then(|seen| seen.left.as_mut()).ok_or_else(missing)?;
        if left.currency() != event.amount.currency() {
            return Err(RevenueError::OtherCurrency {
                event: event.id.clone(),
                found: event.amount.currency(),
                of: of.1.clone(),
                expected: left.currency(),
            });
        }
        if !revenue.takes_back() {
            return Ok(Some(event.amount));
        }
        let after = left.checked_add(event.amount)?;
        if after.pico() < 0 {
            let (event, amount, left) = (event.id.clone(), event.amount, *left);
            return Err(RevenueError::TooMuch { event, amount, left, of: of.1.clone() });
        }
        *left = after;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(fields: &Value) -> Result<Revenue, EntryError> {
        RevenueEntry::read(&fields.to_string())?.check()
    }

    fn sale() -> Value {
        json!({"id": "s", "amount": "10", "currency": "USD", "time": "2026-09-05T10:00:00Z"})
    }

    fn with(more: Value) -> Value {
        let mut fields = sale();
        for (name, value) in more.as_object().unwrap() {
            fields[name] = value.clone();
        }
        fields
    }

    #[test]
    fn equal_events_have_one_text_that_reads_back() {
        let whole = with(json!({
            "source": "shop", "amount": 10.50, "request_id": "0190a0b0-0000-7000-8000-000000000001",
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "session": "s-1", "customer": "c", "workload": "w",
            "tags": {"campaign": "autumn"}, "confidence": "0.80", "evidence": "https://x/1",
            "received_at": "2026-09-06"
        }));
        let first = entry(&whole).unwrap();
        let again = RevenueEntry::read(&first.body()).unwrap().check().unwrap();
        assert_eq!((&again, again.body()), (&first, first.body()));
        let other = with(json!({
            "source": "shop", "amount": "10.500", "time": "2026-09-05T12:00:00+02:00",
        }));
        let plain = with(json!({"source": "shop", "amount": 10.5}));
        assert_eq!(entry(&other).unwrap().body(), entry(&plain).unwrap().body());
        assert!(first.body().contains(r#""tag":"campaign=autumn""#));
    }

    #[test]
    fn a_day_stands_for_its_end_so_that_the_usage_of_the_day_counts() {
        let at = |text: &str| entry(&with(json!({ "time": text }))).unwrap().event.at;
        assert_eq!(at("2026-09-05"), at("2026-09-05T23:59:59.999999Z"));
    }

    #[test]
    fn every_mistake_names_its_field_and_a_remedy() {
        let check = |more: Value, text: &str| {
            let error = entry(&with(more)).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        check(json!({"id": null}), "id is missing");
        check(json!({"amount": null}), "amount is missing");
        check(json!({"currency": null}), "currency is missing");
        check(json!({"time": null}), "time is missing");
        check(json!({"amount": "1e3"}), "amount: \"1e3\" is not a plain decimal");
        check(json!({"currency": "usd"}), "three capital letters");
        check(json!({"currency": "XXQ"}), "no currency that ISO 4217 lists");
        check(json!({"time": "yesterday"}), "is not a time");
        check(json!({"kind": "sale"}), "use revenue, saving, refund");
        check(json!({"kind": "refund", "amount": "-1"}), "must say which event");
        check(json!({"kind": "refund", "refers_to": "s"}), "must be below zero");
        check(json!({"amount": "-1"}), "send a refund");
        check(json!({"refers_to": "x"}), "is an adjustment");
        check(json!({"request_id": "x"}), "x-bursar-request-id");
        check(json!({"trace_id": "x"}), "32 hexadecimal digits");
        check(json!({"tag": "x"}), "must be name=value");
        check(json!({"tags": {"a": "b", "c": "d"}}), "one tag");
        check(json!({"confidence": "1.01"}), "between 0 and 1");
        check(json!({"ammount": "1"}), "unknown field `ammount`");
    }

    #[track_caller]
    fn admit(log: &mut RevenueLog, fields: &Value) -> Result<Admission, String> {
        let revenue = entry(fields).unwrap();
        let body = Arc::from(revenue.body());
        log.admit(&revenue, &body).map_err(|error| error.to_string())
    }

    #[test]
    fn an_event_counts_once_and_a_refund_takes_no_more_than_is_left() {
        let mut log = RevenueLog::default();
        assert_eq!(admit(&mut log, &sale()), Ok(Admission::New));
        assert_eq!(admit(&mut log, &with(json!({"amount": "10.0"}))), Ok(Admission::Same));
        assert!(admit(&mut log, &with(json!({"amount": "11"}))).unwrap_err().contains("something else"));
        assert_eq!(admit(&mut log, &with(json!({"source": "shop", "amount": "11"}))), Ok(Admission::New));
        let refund = |id: &str, amount: &str, more: Value| {
            let mut fields = with(json!({"id": id, "kind": "refund", "amount": amount, "refers_to": "s"}));
            for (name, value) in more.as_object().unwrap() {
                fields[name] = value.clone();
            }
            fields
        };
        assert_eq!(admit(&mut log, &refund("r1", "-4", json!({}))), Ok(Admission::New));
        let error = admit(&mut log, &refund("r2", "-7", json!({}))).unwrap_err();
        assert!(error.contains("takes back -7, but only 6 is left of s"), "{error}");
        assert_eq!(
            admit(&mut log, &refund("r2", "-7", json!({"refers_to_source": "shop"}))),
            Ok(Admission::New)
        );
        assert!(
            admit(&mut log, &refund("r3", "-1", json!({"currency": "EUR"}))).unwrap_err().contains("EUR")
        );
        assert!(
            admit(&mut log, &refund("r3", "-1", json!({"refers_to": "r1"})))
                .unwrap_err()
                .contains("not there")
        );
        assert_eq!(log.len(), 4);
    }
}
