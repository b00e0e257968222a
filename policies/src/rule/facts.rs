//! What expressions may ask: the table of variables, and their values for one request.
//!
//! Invariants
//! - The table is all there is: what is not in it does not compile, and what is in it has a value, except
//!   where it says that it may be missing.
//! - Only what a condition uses is made.
//!
//! Not here: the types of expressions (`check`).

use super::Needs;
use bursar_domain::{Money, Tags, Timestamp};
use cel::objects::{Key, Map};
use cel::{Context, Value};
use jiff::Zoned;
use jiff::tz::TimeZone;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The type of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text; empty where there is none.
    Text,
    /// A whole number.
    Int,
    /// A whole number that may be missing: test it with `has()`.
    MaybeInt,
    /// True or false.
    Truth,
    /// Texts by name.
    Texts,
    /// Percent by the name of a budget.
    Percents,
}

impl Kind {
    /// The type as CEL names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Int => "int",
            Self::MaybeInt => "int, may be missing",
            Self::Truth => "bool",
            Self::Texts => "map(string, string)",
            Self::Percents => "map(string, int)",
        }
    }
}

/// Something that an expression may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name; the part before a dot is a group.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it means.
    pub about: &'static str,
    pub(super) of: Of,
}

/// What must be known for a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Head,
    Body,
    Estimate,
    Cost,
    Budgets,
    Time,
}

const fn variable(name: &'static str, kind: Kind, of: Of, about: &'static str) -> Variable {
    Variable { name, kind, about, of }
}

/// Everything that an expression may ask.
pub const VARIABLES: &[Variable] = &[
    variable("request.model", Kind::Text, Of::Body, "the model that is asked for, in the body or the path"),
    variable("request.provider", Kind::Text, Of::Head, "the route's provider, such as `openai`"),
    variable("request.route", Kind::Text, Of::Head, "the route's prefix, such as `/openai`"),
    variable(
        "request.api",
        Kind::Text,
        Of::Head,
        "the API as records name it, such as `openai-chat`; `unmetered` for other calls",
    ),
    variable("request.method", Kind::Text, Of::Head, "the HTTP method"),
    variable("request.path", Kind::Text, Of::Head, "the path at the upstream, without its query"),
    variable("request.stream", Kind::Truth, Of::Body, "whether a stream is asked for"),
    variable(
        "request.max_tokens",
        Kind::MaybeInt,
        Of::Body,
        "the bound of output tokens under any of its names; of several the highest",
    ),
    variable(
        "request.choices",
        Kind::Int,
        Of::Body,
        "how many answers or pictures are asked for; 1 if unsaid",
    ),
    variable("request.tier", Kind::Text, Of::Body, "the service tier that is asked for"),
    variable(
        "request.background",
        Kind::Truth,
        Of::Body,
        "whether the reply is to be made in the background",
    ),
    variable("request.searches", Kind::Truth, Of::Body, "whether the provider may search the web"),
    variable("request.bytes", Kind::Int, Of::Body, "the length of the body, decoded"),
    variable("team", Kind::Text, Of::Head, "the team"),
    variable("workload", Kind::Text, Of::Head, "the workload"),
    variable("customer", Kind::Text, Of::Head, "the customer"),
    variable("session", Kind::Text, Of::Head, "the session"),
    variable("tags", Kind::Texts, Of::Head, "the tags: `tags.env`, `\"env\" in tags`, `has(tags.env)`"),
    variable(
        "identity_source",
        Kind::Text,
        Of::Head,
        "what the team rests on: `credential` (a key), `jwt`, `config`, `header`, `baggage` or `none`",
    ),
    variable(
        "estimated.input_tokens",
        Kind::MaybeInt,
        Of::Estimate,
        "the most input tokens that the request can have",
    ),
    variable(
        "estimated.output_tokens",
        Kind::MaybeInt,
        Of::Estimate,
        "the most output tokens that it can make",
    ),
    variable("estimated.tokens", Kind::MaybeInt, Of::Estimate, "both"),
    variable(
        "estimated.cost_micros",
        Kind::MaybeInt,
        Of::Cost,
        "the most that it can cost, in millionths of the books' currency, rounded up; missing without a price",
    ),
    variable(
        "budget.used_percent",
        Kind::Int,
        Of::Budgets,
        "how far the fullest budget of the request is spent and reserved; 0 without one",
    ),
    variable(
        "budgets",
        Kind::Percents,
        Of::Budgets,
        "how far a budget is spent and reserved, by its name: `budgets[\"checkout-month\"]`",
    ),
    variable("time.hour", Kind::Int, Of::Time, "the hour in the rule's `zone`, 0 to 23"),
    variable("time.minute", Kind::Int, Of::Time, "the minute, 0 to 59"),
    variable("time.weekday", Kind::Int, Of::Time, "the day of the week, 1 (Monday) to 7"),
    variable("time.day", Kind::Int, Of::Time, "the day of the month, 1 to 31"),
    variable("time.month", Kind::Int, Of::Time, "the month, 1 to 12"),
    variable("time.year", Kind::Int, Of::Time, "the year"),
    variable("time.date", Kind::Text, Of::Time, "the date, such as `2026-11-23`; dates compare as texts"),
];

/// What a request can use at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Input tokens.
    pub input: Option<u64>,
    /// Output tokens.
    pub output: Option<u64>,
    /// Money.
    pub cost: Option<Money>,
}

/// What is known of a request.
pub struct RuleFacts<'a> {
    /// The model that is asked for.
    pub model: Option<&'a str>,
    /// Who answers.
    pub provider: &'a str,
    /// The prefix of the route.
    pub route: &'a str,
    /// The API.
    pub api: &'a str,
    /// The method.
    pub method: &'a str,
    /// The path at the upstream.
    pub path: &'a str,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// The bound of output tokens.
    pub max_tokens: Option<u64>,
    /// Choices.
    pub choices: Option<u64>,
    /// The tier that is asked for.
    pub tier: Option<&'a str>,
    /// Whether the reply is made in the background.
    pub background: bool,
    /// Whether the provider may search.
    pub searches: bool,
    /// Bytes of the body.
    pub bytes: u64,
    /// Whether what the body says is all known.
    pub body_is_known: bool,
    /// The team.
    pub team: Option<&'a str>,
    /// The workload.
    pub workload: Option<&'a str>,
    /// The customer.
    pub customer: Option<&'a str>,
    /// The session.
    pub session: Option<&'a str>,
    /// The tags.
    pub tags: &'a Tags,
    /// What the team rests on.
    pub identity_source: &'a str,
    /// What it can use, where [`Needs`] asks.
    pub estimate: Estimate,
    /// How far the fullest of its budgets is used, in percent; `None` when it is under none.
    pub used_percent: Option<i64>,
    /// How far a budget is used, by its name.
    pub used_of: &'a (dyn Fn(&str) -> Option<i64> + 'a),
    /// When.
    pub now: Timestamp,
}

impl std::fmt::Debug for RuleFacts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleFacts")
            .field("model", &self.model)
            .field("team", &self.team)
            .finish_non_exhaustive()
    }
}

/// What a condition uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// Places in [`VARIABLES`].
    pub(super) variables: BTreeSet<usize>,
    /// Budgets by name.
    pub(super) budgets: BTreeSet<Box<str>>,
    pub(super) needs: Needs,
}

impl Uses {
    pub(super) fn add(&mut self, place: usize) {
        self.variables.insert(place);
        match VARIABLES.get(place).map(|variable| variable.of) {
            Some(Of::Body) => self.needs.body = true,
            Some(Of::Estimate) => (self.needs.body, self.needs.estimate) = (true, true),
            Some(Of::Cost) => (self.needs.body, self.needs.cost) = (true, true),
            Some(Of::Budgets) => self.needs.budgets = true,
            Some(Of::Head | Of::Time) | None => {}
        }
    }
}

/// Gives the variables that a condition uses their values.
pub(super) fn bind(context: &mut Context<'_, '_>, uses: &Uses, facts: &RuleFacts<'_>, zone: &TimeZone) {
    let mut groups: Vec<(&'static str, HashMap<Key, Value>)> = Vec::new();
    let mut clock = None;
    for variable in uses.variables.iter().filter_map(|place| VARIABLES.get(*place)) {
        let value =
            value(variable, uses, facts, || clock.get_or_insert_with(|| now_in(facts.now, zone)).clone());
        match variable.name.split_once('.') {
            None => {
                if let Some(value) = value {
                    context.add_variable_from_value(variable.name, value);
                }
            }
            Some((group, field)) => {
                // A group is there even if what is asked of it is missing.
                let place = groups.iter().position(|(name, _)| *name == group).unwrap_or_else(|| {
                    groups.push((group, HashMap::new()));
                    groups.len().saturating_sub(1)
                });
                if let (Some((_, fields)), Some(value)) = (groups.get_mut(place), value) {
                    fields.insert(Key::String(Arc::new(field.to_owned())), value);
                }
            }
        }
    }
    for (name, fields) in groups {
        context.add_variable_from_value(name, Value::Map(Map { map: Arc::new(fields) }));
    }
}

fn now_in(now: Timestamp, zone: &TimeZone) -> Zoned {
    jiff::Timestamp::from_microsecond(now.micros()).unwrap_or_default().to_zoned(zone.clone())
}

fn text(text: &str) -> Option<Value> {
    Some(Value::String(Arc::new(text.to_owned())))
}

fn maybe(text_of: Option<&str>) -> Option<Value> {
    text(text_of.unwrap_or_default())
}

fn count(count: Option<u64>) -> Option<Value> {
    count.map(|count| Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn int(number: i64) -> Option<Value> {
    Some(Value::Int(number))
}

/// Millionths, rounded up.
fn micros(cost: Money) -> i64 {
    const PICO_PER_MICRO: i128 = 1_000_000;
    let rounded = cost.pico().saturating_add(PICO_PER_MICRO.saturating_sub(1));
    i64::try_from(rounded.div_euclid(PICO_PER_MICRO)).unwrap_or(i64::MAX)
}

fn value(
    variable: &Variable,
    uses: &Uses,
    facts: &RuleFacts<'_>,
    mut clock: impl FnMut() -> Zoned,
) -> Option<Value> {
    match variable.name {
        "request.model" => maybe(facts.model),
        "request.provider" => text(facts.provider),
        "request.route" => text(facts.route),
        "request.api" => text(facts.api),
        "request.method" => text(facts.method),
        "request.path" => text(facts.path),
        "request.stream" => Some(Value::Bool(facts.stream)),
        "request.max_tokens" => count(facts.max_tokens),
        "request.choices" => count(Some(facts.choices.unwrap_or(1))),
        "request.tier" => maybe(facts.tier),
        "request.background" => Some(Value::Bool(facts.background)),
        "request.searches" => Some(Value::Bool(facts.searches)),
        "request.bytes" => count(Some(facts.bytes)),
        "team" => maybe(facts.team),
        "workload" => maybe(facts.workload),
        "customer" => maybe(facts.customer),
        "session" => maybe(facts.session),
        "tags" => {
            let tags = facts.tags.iter();
            let pair = |(name, value): (&bursar_domain::Label, &bursar_domain::Label)| {
                Some((Key::String(Arc::new(name.as_str().to_owned())), text(value.as_str())?))
            };
            Some(Value::Map(Map { map: Arc::new(tags.filter_map(pair).collect()) }))
        }
        "identity_source" => text(facts.identity_source),
        "estimated.input_tokens" => count(facts.estimate.input),
        "estimated.output_tokens" => count(facts.estimate.output),
        "estimated.tokens" => {
            let Estimate { input, output, .. } = facts.estimate;
            count(input.zip(output).map(|(input, output)| input.saturating_add(output)))
        }
        "estimated.cost_micros" => facts.estimate.cost.map(micros).map(Value::Int),
        "budget.used_percent" => int(facts.used_percent.unwrap_or(0)),
        "budgets" => {
            let used = |name: &str| {
                Some((Key::String(Arc::new(name.to_string())), Value::Int((facts.used_of)(name)?)))
            };
            Some(Value::Map(Map {
                map: Arc::new(uses.budgets.iter().filter_map(|name| used(name)).collect()),
            }))
        }
        "time.hour" => int(i64::from(clock().hour())),
        "time.minute" => int(i64::from(clock().minute())),
        "time.weekday" => int(i64::from(clock().weekday().to_monday_one_offset())),
        "time.day" => int(i64::from(clock().day())),
        "time.month" => int(i64::from(clock().month())),
        "time.year" => int(i64::from(clock().year())),
        "time.date" => text(&clock().date().to_string()),
        _ => None,
    }
}
