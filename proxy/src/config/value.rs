//! Types that a setting can have: how each is read, shown, described and put into a schema.
//!
//! Invariants
//! - What `show` writes, `read` accepts, and it is the same value again.
//! - A refusal says what is wrong and what to write instead.
//!
//! Not here: which settings there are (`settings`), rules between settings (`load`).

use super::error::{Fault, Wrong};
use super::providers;
use super::routes::{Dialect, Pattern, Upstream, UpstreamError};
use super::suggest::nearest;
use super::yaml::{Content, Entry, Node, Position};
use super::{LogFilter, RequiredTag};
use bursar_domain::event::TAGS_MAX;
use bursar_domain::{Currency, Label, LabelError, Tags};
use http::header::HeaderName;
use serde_json::{Value as Json, json};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Scalar,
    List,
    Map,
}

/// A type of settings, in any shape.
pub(super) trait Value: Sized + Send + Sync + 'static {
    /// Bounds and the like, given with each setting.
    type Limits: Send + Sync + 'static;
    const SHAPE: Shape = Shape::Scalar;

    /// Reads a value, or reports all that is wrong with it.
    fn read(node: &Node, limits: &Self::Limits) -> Result<Self, Vec<Fault>>;
    /// The value as one would write it; empty when there is none.
    fn show(&self) -> String;
    /// The type in words, with its bounds.
    fn describe(limits: &Self::Limits) -> String;
    /// The type in JSON Schema.
    fn schema(limits: &Self::Limits) -> Json;
    /// The value in JSON, for a schema's default.
    fn json(&self) -> Option<Json> {
        Some(Json::String(self.show()))
    }
}

/// A type whose values are written as one piece of text.
pub(super) trait Scalar: Sized + Send + Sync + 'static {
    type Limits: Send + Sync + 'static;

    fn parse(text: &str, limits: &Self::Limits) -> Result<Self, Wrong>;
    fn show(&self) -> String;
    fn describe(limits: &Self::Limits) -> String;
    fn schema(limits: &Self::Limits) -> Json;
    fn json(&self) -> Json {
        Json::String(self.show())
    }
}

impl<T: Scalar> Value for T {
    type Limits = T::Limits;

    fn read(node: &Node, limits: &T::Limits) -> Result<Self, Vec<Fault>> {
        let wrong = match &node.content {
            _ if node.is_null() => {
                let remedy = format!("give it one ({}), or remove the key", T::describe(limits));
                Wrong::absent("there is no value", &remedy)
            }
            Content::Scalar { text, .. } => match T::parse(text, limits) {
                Ok(value) => return Ok(value),
                Err(wrong) => wrong,
            },
            Content::List(_) | Content::Map(_) => {
                let wrong = format!("this is {}", node.kind());
                Wrong::absent(&wrong, &format!("write one value: {}", T::describe(limits)))
            }
        };
        Err(vec![Fault::at(node.at, wrong)])
    }

    fn show(&self) -> String {
        Scalar::show(self)
    }

    fn describe(limits: &T::Limits) -> String {
        <T as Scalar>::describe(limits)
    }

    fn schema(limits: &T::Limits) -> Json {
        <T as Scalar>::schema(limits)
    }

    fn json(&self) -> Option<Json> {
        Some(Scalar::json(self))
    }
}

impl<T: Scalar> Value for Option<T> {
    type Limits = T::Limits;

    fn read(node: &Node, limits: &T::Limits) -> Result<Self, Vec<Fault>> {
        <T as Value>::read(node, limits).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map(Scalar::show).unwrap_or_default()
    }

    fn describe(limits: &T::Limits) -> String {
        <T as Scalar>::describe(limits)
    }

    fn schema(limits: &T::Limits) -> Json {
        <T as Scalar>::schema(limits)
    }

    fn json(&self) -> Option<Json> {
        self.as_ref().map(Scalar::json)
    }
}

/// Text from an environment variable as a node of the given shape: lists are separated by commas,
/// maps are `name=value` pairs separated by commas.
pub(super) fn node_from_text(shape: Shape, text: &str) -> Result<Node, Wrong> {
    let at = Position::START;
    let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let content = match shape {
        Shape::Scalar => return Ok(Node::text(at, text.trim())),
        Shape::List => Content::List(parts().map(|part| Node::text(at, part)).collect()),
        Shape::Map => Content::Map(parts().map(|part| pair(part, at)).collect::<Result<_, _>>()?),
    };
    Ok(Node { at, content })
}

fn pair(part: &str, at: Position) -> Result<Entry, Wrong> {
    match part.split_once('=') {
        Some((name, value)) => {
            Ok(Entry { key: name.trim().to_owned(), at, value: Node::text(at, value.trim()) })
        }
        None => Err(Wrong::value(part, "is not a pair", "write name=value, pairs separated by commas")),
    }
}

// === one of a few words ===

/// A type with a few named values.
pub(super) trait Choice: Copy + PartialEq + Send + Sync + 'static {
    const CHOICES: &'static [(&'static str, Self)];
}

impl<T: Choice> Scalar for T {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        let found = T::CHOICES.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = T::CHOICES.iter().map(|(name, _)| *name).collect();
            let what = format!("is not one of {}", names.join(", "));
            match nearest(text, names) {
                Some(name) => Wrong::value(text, &what, &format!("did you mean {name:?}?")),
                None => Wrong::value(text, &what, "use one of these"),
            }
        })
    }

    fn show(&self) -> String {
        let found = T::CHOICES.iter().find(|(_, value)| value == self);
        found.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
    }

    fn describe((): &()) -> String {
        let names: Vec<String> = T::CHOICES.iter().map(|(name, _)| format!("`{name}`")).collect();
        names.join(", ")
    }

    fn schema((): &()) -> Json {
        let names: Vec<&str> = T::CHOICES.iter().map(|(name, _)| *name).collect();
        json!({ "enum": names })
    }
}

impl Choice for Dialect {
    const CHOICES: &'static [(&'static str, Self)] = &[
        (Dialect::OpenAi.as_str(), Dialect::OpenAi),
        (Dialect::Anthropic.as_str(), Dialect::Anthropic),
        (Dialect::Gemini.as_str(), Dialect::Gemini),
        (Dialect::Bedrock.as_str(), Dialect::Bedrock),
        (Dialect::Cohere.as_str(), Dialect::Cohere),
        (Dialect::Ollama.as_str(), Dialect::Ollama),
        (Dialect::PassThrough.as_str(), Dialect::PassThrough),
    ];
}

// === plain types ===

impl Scalar for bool {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Wrong::value(text, "is not a truth value", "write true or false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn describe((): &()) -> String {
        "`true` or `false`".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "boolean" })
    }

    fn json(&self) -> Json {
        Json::Bool(*self)
    }
}

/// An address to listen on, or anything else that is exactly IP and port.
impl Scalar for SocketAddr {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        text.parse().map_err(|_| {
            let remedy = "write an IP address and a port, such as 127.0.0.1:4141 or [::1]:4141";
            Wrong::value(text, "is not an address to listen on", remedy)
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn describe((): &()) -> String {
        "IP address and port".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "examples": ["127.0.0.1:4141", "[::1]:4141"] })
    }
}

/// How a path's value may appear in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathKind {
    /// Any file or directory.
    Ordinary,
    /// A file with a secret in it: someone may have written the secret itself.
    OfSecret,
}

impl Scalar for PathBuf {
    type Limits = PathKind;

    fn parse(text: &str, kind: &PathKind) -> Result<Self, Wrong> {
        if text.is_empty() || text.contains(char::is_control) {
            return Err(wrong_path(text, *kind, "is not a path", "write the path of a file or directory"));
        }
        Ok(Self::from(text))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }

    fn describe(_: &PathKind) -> String {
        "path, relative to the working directory".to_owned()
    }

    fn schema(_: &PathKind) -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A mistake about a path. A path of a secret is shown only when it cannot be the secret itself.
pub(super) fn wrong_path(text: &str, kind: PathKind, what: &str, remedy: &str) -> Wrong {
    let plainly_a_path = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
    match kind {
        PathKind::OfSecret if !plainly_a_path => Wrong::hidden(what, remedy),
        PathKind::OfSecret | PathKind::Ordinary => Wrong::value(text, what, remedy),
    }
}

/// The name of an environment variable that holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretVariable(pub(super) String);

impl Scalar for SecretVariable {
    type Limits = ();

    /// The value is never shown: it may be the secret, written here by mistake.
    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        let charset = text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if text.is_empty() || !charset {
            let remedy = "write the variable's name, in capital letters, not the secret";
            return Err(Wrong::hidden("is not the name of an environment variable", remedy));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn describe((): &()) -> String {
        "name of an environment variable".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "pattern": "^[A-Z0-9_]+$" })
    }
}

// === numbers ===

/// A closed range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range<T> {
    pub(super) min: T,
    pub(super) max: T,
}

impl<T: PartialOrd + Copy> Range<T> {
    fn check(&self, text: &str, value: T, show: impl Fn(T) -> String) -> Result<T, Wrong> {
        let what = if value < self.min {
            format!("is below the least, {}", show(self.min))
        } else if value > self.max {
            format!("is above the most, {}", show(self.max))
        } else {
            return Ok(value);
        };
        let remedy = format!("use a value from {} to {}", show(self.min), show(self.max));
        Err(Wrong::value(text, &what, &remedy))
    }
}

/// A number of things.
impl Scalar for u32 {
    type Limits = Range<u32>;

    fn parse(text: &str, limits: &Range<u32>) -> Result<Self, Wrong> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits {
            return Err(Wrong::value(text, "is not a whole number", "write digits only"));
        }
        limits.check(text, text.parse().unwrap_or(u32::MAX), |n| n.to_string())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn describe(limits: &Range<u32>) -> String {
        format!("whole number, {} to {}", limits.min, limits.max)
    }

    fn schema(limits: &Range<u32>) -> Json {
        json!({ "type": "integer", "minimum": limits.min, "maximum": limits.max })
    }

    fn json(&self) -> Json {
        json!(self)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) usize);

const KIB: usize = 1 << 10;
const SIZE_UNITS: &[(&str, usize)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", KIB), ("B", 1)];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: &usize| self.0 != 0 && self.0.is_multiple_of(*unit);
        match SIZE_UNITS.iter().find(|(_, unit)| *unit > 1 && fits(unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => self.0.fmt(f),
        }
    }
}

impl Scalar for Size {
    type Limits = Range<Size>;

    fn parse(text: &str, limits: &Range<Size>) -> Result<Self, Wrong> {
        let (digits, unit) = split_number(text);
        let factor = match unit {
            "" => Some(1),
            _ => SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
        };
        match (digits.is_empty(), factor) {
            (false, Some(factor)) => {
                let bytes = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(factor));
                limits.check(text, Size(bytes.unwrap_or(usize::MAX)), |size| size.to_string())
            }
            _ => Err(Wrong::value(text, "is not a size", "write bytes, or a number with KiB, MiB or GiB")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn describe(limits: &Range<Size>) -> String {
        format!("size, {} to {}", limits.min, limits.max)
    }

    fn schema(limits: &Range<Size>) -> Json {
        json!({ "anyOf": [
            { "type": "integer", "minimum": limits.min.0, "maximum": limits.max.0 },
            { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$" },
        ] })
    }
}

const DURATION_UNITS: &[(&str, u64)] = &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A span of time in milliseconds' steps.
impl Scalar for Duration {
    type Limits = Range<Duration>;

    fn parse(text: &str, limits: &Range<Duration>) -> Result<Self, Wrong> {
        let (digits, unit) = split_number(text);
        let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let remedy = "write a whole number with ms, s, m or h, such as 250ms or 5s";
        match (digits.is_empty(), unit, factor) {
            (false, "", _) => Err(Wrong::value(text, "has no unit", remedy)),
            (false, _, Some(factor)) => {
                let millis = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
                limits.check(text, Duration::from_millis(millis.unwrap_or(u64::MAX)), show_duration)
            }
            _ => Err(Wrong::value(text, "is not a duration", remedy)),
        }
    }

    fn show(&self) -> String {
        show_duration(*self)
    }

    fn describe(limits: &Range<Duration>) -> String {
        format!("duration, {} to {}", show_duration(limits.min), show_duration(limits.max))
    }

    fn schema(_: &Range<Duration>) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" })
    }
}

fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match DURATION_UNITS.iter().find(|(_, unit)| millis != 0 && millis.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// How many worker threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workers {
    /// One per core, up to a few.
    Auto,
    Fixed(u32),
}

impl Scalar for Workers {
    type Limits = Range<u32>;

    fn parse(text: &str, limits: &Range<u32>) -> Result<Self, Wrong> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => <u32 as Scalar>::parse(text, limits).map(Self::Fixed),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Fixed(count) => count.to_string(),
        }
    }

    fn describe(limits: &Range<u32>) -> String {
        format!("`auto`, or {}", <u32 as Scalar>::describe(limits))
    }

    fn schema(limits: &Range<u32>) -> Json {
        json!({ "anyOf": [{ "const": "auto" }, <u32 as Scalar>::schema(limits)] })
    }
}

// === names ===

fn label(text: &str) -> Result<Label, Wrong> {
    Label::new(text).map_err(|error| match error {
        LabelError::Empty => Wrong::value(text, "is empty", "write a name, or remove the key"),
        LabelError::TooLong => Wrong::value(text, "is longer than 256 bytes", "shorten it"),
        LabelError::BadCharacter => {
            Wrong::value(text, "has a control or invisible character", "use visible characters only")
        }
    })
}

impl Scalar for Label {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        label(text)
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }

    fn describe((): &()) -> String {
        "text, up to 256 bytes".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": 256 })
    }
}

/// A provider's name; whether an unknown one is right depends on the rest of its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProviderName(pub(super) Label);

impl Scalar for ProviderName {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        let name = label(text)?;
        let charset = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if text.bytes().all(charset) {
            return Ok(Self(name));
        }
        let remedy = "use lower-case letters, digits, `.`, `_` and `-`";
        Err(Wrong::value(text, "is not a provider's name", remedy))
    }

    fn show(&self) -> String {
        self.0.as_str().to_owned()
    }

    fn describe((): &()) -> String {
        let names: Vec<String> = providers::PROVIDERS.iter().map(|p| format!("`{}`", p.name)).collect();
        format!("{}, or another name beside `dialect`", names.join(", "))
    }

    fn schema((): &()) -> Json {
        let names: Vec<&str> = providers::PROVIDERS.iter().map(|p| p.name).collect();
        json!({ "type": "string", "pattern": "^[a-z0-9._-]+$", "examples": names })
    }
}

/// The currency of the books.
impl Scalar for Currency {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        match Currency::parse(text) {
            Ok(Currency::USD) => Ok(Currency::USD),
            Ok(_) => {
                let remedy = "write USD or remove the key";
                Err(Wrong::value(text, "is not supported: this version keeps its books in USD only", remedy))
            }
            Err(_) => Err(Wrong::value(text, "is not a currency code", "write USD or remove the key")),
        }
    }

    fn show(&self) -> String {
        self.code().to_owned()
    }

    fn describe((): &()) -> String {
        "`USD`".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "const": "USD" })
    }
}

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

impl Scalar for LogFilter {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        let is_target =
            |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
        let is_directive = |directive: &str| match directive.split_once('=') {
            Some((target, level)) => is_target(target) && LEVELS.contains(&level),
            None => LEVELS.contains(&directive),
        };
        if text.split(',').all(|directive| is_directive(directive.trim())) {
            return Ok(Self(text.to_owned()));
        }
        let remedy = "write off, error, warn, info, debug or trace, for one module as module=level, \
                      separated by commas";
        Err(Wrong::value(text, "is not a log level", remedy))
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn describe((): &()) -> String {
        "`off`, `error`, `warn`, `info`, `debug`, `trace`; `module=level` for one module, separated by \
         commas"
            .to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "examples": ["info", "warn,bursar=debug"] })
    }
}

// === identity ===

impl Scalar for RequiredTag {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        match text {
            "team" => Ok(Self::Team),
            "workload" => Ok(Self::Workload),
            "customer" => Ok(Self::Customer),
            "session" => Ok(Self::Session),
            _ => match text.strip_prefix("tag:").map(tag_name) {
                Some(Ok(name)) => Ok(Self::Tag(name)),
                Some(Err(wrong)) => Err(wrong),
                None => {
                    let remedy = "use team, workload, customer, session or tag:<name>";
                    Err(Wrong::value(text, "cannot be required", remedy))
                }
            },
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn describe((): &()) -> String {
        "`team`, `workload`, `customer`, `session` or `tag:<name>`".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "pattern": "^(team|workload|customer|session|tag:[a-z0-9][a-z0-9._-]*)$" })
    }
}

/// Tag names are what can stand in a header's name, in lower case.
pub(super) fn tag_name(text: &str) -> Result<Label, Wrong> {
    let charset = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if text.starts_with(crate::layers::identify::OWN_TAGS) {
        let what = "begins with `bursar.`, as only the sidecar's own tags do";
        return Err(Wrong::value(text, what, "use another name"));
    }
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && text.len() <= 64 && text.bytes().all(charset) {
        return label(text);
    }
    let remedy = "use up to 64 lower-case letters, digits, `.`, `_` and `-`, a letter or digit first";
    Err(Wrong::value(text, "is not a tag's name", remedy))
}

impl Value for Vec<RequiredTag> {
    type Limits = ();
    const SHAPE: Shape = Shape::List;

    fn read(node: &Node, (): &()) -> Result<Self, Vec<Fault>> {
        let items = match &node.content {
            Content::List(items) => items.as_slice(),
            Content::Scalar { .. } if node.is_null() => &[],
            Content::Scalar { .. } | Content::Map(_) => {
                let wrong = format!("this is {}", node.kind());
                return Err(vec![Fault::at(
                    node.at,
                    Wrong::absent(&wrong, "write a list, such as [team, workload]"),
                )]);
            }
        };
        let mut faults = Vec::new();
        let mut required = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match <RequiredTag as Value>::read(item, &()) {
                Ok(tag) if required.contains(&tag) => {}
                Ok(tag) => required.push(tag),
                Err(found) => {
                    faults.extend(found.into_iter().map(|fault| within(fault, &format!("[{index}]"))))
                }
            }
        }
        if faults.is_empty() { Ok(required) } else { Err(faults) }
    }

    fn show(&self) -> String {
        let names: Vec<String> = self.iter().map(ToString::to_string).collect();
        names.join(",")
    }

    fn describe((): &()) -> String {
        format!("list of {}", <RequiredTag as Scalar>::describe(&()))
    }

    fn schema((): &()) -> Json {
        json!({ "type": "array", "items": <RequiredTag as Scalar>::schema(&()), "uniqueItems": true })
    }

    fn json(&self) -> Option<Json> {
        Some(Json::Array(self.iter().map(Scalar::json).collect()))
    }
}

fn within(fault: Fault, outer: &str) -> Fault {
    Fault { below: format!("{outer}{}", fault.below), ..fault }
}

impl Value for Tags {
    type Limits = ();
    const SHAPE: Shape = Shape::Map;

    fn read(node: &Node, (): &()) -> Result<Self, Vec<Fault>> {
        let entries = match &node.content {
            Content::Map(entries) => entries.as_slice(),
            Content::Scalar { .. } if node.is_null() => &[],
            Content::Scalar { .. } | Content::List(_) => {
                let wrong = format!("this is {}", node.kind());
                let remedy = "write names and values, such as { environment: production }";
                return Err(vec![Fault::at(node.at, Wrong::absent(&wrong, remedy))]);
            }
        };
        let mut tags = Self::default();
        let mut faults = Vec::new();
        for entry in entries {
            match read_tag(entry) {
                Ok((name, _)) if tags.get(name.as_str()).is_some() => {
                    faults.push(Fault::at(
                        entry.at,
                        Wrong::value(name.as_str(), "is here twice", "keep one of them"),
                    ));
                }
                Ok((name, value)) => {
                    if !tags.insert(name, value) {
                        let wrong = format!("this is one tag more than the {TAGS_MAX} a record can hold");
                        faults.push(Fault::at(entry.at, Wrong::absent(&wrong, "remove some")));
                    }
                }
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(tags) } else { Err(faults) }
    }

    fn show(&self) -> String {
        let pairs: Vec<String> = self.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(",")
    }

    fn describe((): &()) -> String {
        format!("map of up to {TAGS_MAX} names to text")
    }

    fn schema((): &()) -> Json {
        json!({
            "type": "object",
            "maxProperties": TAGS_MAX,
            "propertyNames": { "pattern": "^[a-z0-9][a-z0-9._-]*$", "maxLength": 64 },
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        })
    }

    fn json(&self) -> Option<Json> {
        let pairs = self.iter().map(|(name, value)| (name.to_string(), Json::String(value.to_string())));
        Some(Json::Object(pairs.collect()))
    }
}

fn read_tag(entry: &Entry) -> Result<(Label, Label), Vec<Fault>> {
    let name = tag_name(&entry.key).map_err(|wrong| vec![Fault::at(entry.at, wrong)]);
    let value = <Label as Value>::read(&entry.value, &());
    let value = value.map_err(|faults| {
        faults.into_iter().map(|fault| within(fault, &format!(".{}", entry.key))).collect::<Vec<_>>()
    });
    match (name, value) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (name, value) => Err(name.err().into_iter().chain(value.err()).flatten().collect()),
    }
}

// === routes ===

/// A route's prefix as it was written, and parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) name: Label,
    pub(super) pattern: Pattern,
}

impl Scalar for Prefix {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        let remedy = "write a path such as /openai or /team/local";
        let pattern = Pattern::configured(text).map_err(|what| Wrong::value(text, what, remedy))?;
        Ok(Self { name: label(text)?, pattern })
    }

    fn show(&self) -> String {
        self.name.to_string()
    }

    fn describe((): &()) -> String {
        "path of `/segment`s of letters, digits, `-`, `.`, `_` and `~`; `/` for everything".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "pattern": "^/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$", "maxLength": 128 })
    }
}

impl Scalar for Upstream {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        Upstream::parse(text).map_err(|error| match error {
            UpstreamError::Secretive(what) => {
                let remedy = "write scheme, host, port and path only; a secret belongs into secret_file";
                Wrong::hidden(what, remedy)
            }
            UpstreamError::Malformed(what) => {
                Wrong::value(text, what, "write a base URL such as https://api.openai.com")
            }
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn describe((): &()) -> String {
        "base URL: `https://` or `http://`, host, optional port and path".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "pattern": "^[hH][tT][tT][pP][sS]?://[^@?#]+$" })
    }
}

/// Headers that belong to the connection, the message or Bursar, and so cannot carry a secret.
const NOT_FOR_SECRETS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Scalar for HeaderName {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        let remedy = "write a header's name such as authorization or x-api-key";
        let name = HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| Wrong::value(text, "is not a header's name", remedy))?;
        let lower = name.as_str();
        let ours = lower.starts_with("x-bursar-") || lower.starts_with("proxy-");
        if ours || NOT_FOR_SECRETS.contains(&lower) {
            return Err(Wrong::value(text, "cannot carry a secret", remedy));
        }
        Ok(name)
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }

    fn describe((): &()) -> String {
        "header name".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" })
    }
}

// === retention ===

/// How long something is kept: whole days, or for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptDays(pub(super) Option<u32>);

impl Scalar for KeptDays {
    type Limits = Range<u32>;

    fn parse(text: &str, limits: &Range<u32>) -> Result<Self, Wrong> {
        if text == "forever" {
            return Ok(Self(None));
        }
        let remedy = "write whole days such as 90d, or forever";
        match split_number(text) {
            ("", _) | (_, "") => Err(Wrong::value(text, "is no retention", remedy)),
            (digits, "d") => {
                let days = digits.parse().unwrap_or(u32::MAX);
                limits.check(text, days, |days| format!("{days}d")).map(|days| Self(Some(days)))
            }
            _ => Err(Wrong::value(text, "is no retention", remedy)),
        }
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "forever".to_owned(), |days| format!("{days}d"))
    }

    fn describe(limits: &Range<u32>) -> String {
        format!("whole days, `{}d` to `{}d`, or `forever`", limits.min, limits.max)
    }

    fn schema(_: &Range<u32>) -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+d|forever)$" })
    }
}

// === settings of later versions ===

/// A retention; only `forever` for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forever;

impl Scalar for Forever {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        match text {
            "forever" => Ok(Self),
            _ => {
                let what = "is not yet supported in this version, which keeps everything";
                Err(Wrong::value(text, what, "remove it or set forever"))
            }
        }
    }

    fn show(&self) -> String {
        "forever".to_owned()
    }

    fn describe((): &()) -> String {
        "`forever`".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "const": "forever" })
    }
}
