//! Who a request is for: team, workload, customer, session, tags and trace.
//!
//! Invariants
//! - A credential beats configuration, configuration beats headers, headers beat baggage; a weaker source
//!   only fills what is missing. What contradicts a credential is dropped and marked, or refused.
//! - What is not a valid label is dropped (and counted) or refused, never stored raw.
//! - A header under our own prefix that means nothing here (a slip, nearly always) counts as a bad tag, and
//!   its name is logged once; how many names are logged is bounded.
//! - Nothing here reads a credential; what one says is given.
//!
//! Not here: refusing (`respond`), the defaults themselves (`config`).

use crate::config::suggest::nearest;
use crate::config::{BadTag, Config, Identify, RequiredTag};
use crate::credentials::Credential;
use bursar_domain::{Anomalies, Anomaly, Identity, IdentitySource, Label, Tags, TraceId};
use bursar_ledger::Caller;
use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;

/// What the headers of a request say about its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// Team, workload, customer, session, tags.
    pub identity: Identity,
    /// The caller's trace.
    pub trace: Option<TraceId>,
    /// What was dropped.
    pub anomalies: Anomalies,
    /// The last header under our own prefix that means nothing.
    pub unknown: Option<Box<str>>,
}

/// Identities seen before, by the headers that made them: most clients send the same ones each time.
#[derive(Debug, Default)]
pub struct IdentityCache {
    /// The settings by which they were made.
    by: Option<Arc<Config>>,
    key: Vec<u8>,
    known: HashMap<Box<[u8]>, (Arc<Identity>, Anomalies), RandomState>,
    /// Names of unknown headers that have been logged.
    told: HashSet<Box<str>, RandomState>,
}

/// Most identities that one worker remembers, and the longest headers it remembers them by.
const CACHE_MAX: usize = 256;
const CACHE_KEY_MAX: usize = 1024;

/// Most names of unknown headers that one worker logs, each once, and so many characters of each.
const TOLD_MAX: usize = 32;
const TOLD_CHARS_MAX: usize = 64;

impl IdentityCache {
    /// As [`identify`], with the identity shared by all requests that carry the same headers.
    pub fn identify(
        &mut self,
        headers: &HeaderMap,
        config: &Arc<Config>,
        credential: Option<&Credential>,
    ) -> Result<(Arc<Identity>, Option<TraceId>, Anomalies), IdentityError> {
        if self.by.as_ref().is_none_or(|by| !Arc::ptr_eq(by, config)) {
            self.known.clear();
            self.by = Some(Arc::clone(config));
        }
        let config = &config.identity;
        let usable = config.trust_headers && self.make_key(headers, config.aliases, credential);
        if usable && let Some((identity, anomalies)) = self.known.get(self.key.as_slice()) {
            let trace = headers.get(&TRACEPARENT).and_then(trace_id);
            return Ok((Arc::clone(identity), trace, *anomalies));
        }
        let found = identify(headers, config, credential)?;
        if let Some(header) = found.unknown {
            self.tell_of(&header);
        }
        let identity = Arc::new(found.identity);
        if usable {
            if self.known.len() >= CACHE_MAX {
                self.known.clear();
            }
            self.known.insert(self.key.as_slice().into(), (Arc::clone(&identity), found.anomalies));
        }
        Ok((identity, found.trace, found.anomalies))
    }

    fn tell_of(&mut self, header: &str) {
        let name: Box<str> = header.chars().take(TOLD_CHARS_MAX).collect();
        if self.told.len() >= TOLD_MAX || self.told.contains(&name) {
            return;
        }
        tracing::warn!(
            header = %name,
            "a header under x-bursar- is unknown and was dropped: {}", meant(header)
        );
        self.told.insert(name);
    }

    /// Writes the headers that make an identity into the key; `false` when they are too long, or
    /// when one of them is different for every request.
    fn make_key(&mut self, headers: &HeaderMap, aliases: bool, credential: Option<&Credential>) -> bool {
        self.key.clear();
        if let Some(credential) = credential {
            // No header's name begins with a zero.
            self.key.push(0);
            self.key.extend_from_slice(&credential.serial.to_le_bytes());
        }
        for (name, value) in headers {
            let header = name.as_str();
            if header == "x-portkey-trace-id" {
                return false;
            }
            if header.starts_with(OWN_PREFIX) || header == BAGGAGE.as_str() || (aliases && is_alias(header)) {
                self.key.extend_from_slice(header.as_bytes());
                self.key.push(b':');
                self.key.extend_from_slice(value.as_bytes());
                self.key.push(b'\n');
            }
        }
        self.key.len() <= CACHE_KEY_MAX
    }
}

fn is_alias(header: &str) -> bool {
    matches!(
        header,
        "x-litellm-tags"
            | "x-litellm-end-user-id"
            | "x-portkey-metadata"
            | "openai-organization"
            | "openai-project"
            | "helicone-user-id"
            | "helicone-session-id"
    ) || header.starts_with(HELICONE_PROPERTY)
}

/// Why a request was refused for its identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A tag or label header is not valid and the configuration says to refuse.
    #[error("header {header}: {problem}; send one short printable value, or set identity.on_bad_tag: drop")]
    BadLabel {
        /// The header.
        header: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A header under our own prefix means nothing and the configuration says to refuse.
    #[error("unknown header {header}: {}; or set identity.on_bad_tag: drop", meant(.header))]
    UnknownHeader {
        /// The header.
        header: String,
    },
    /// Something contradicts the credential and the configuration says to refuse.
    #[error(
        "{header} contradicts the {kind} {name:?}, which fixes the {part}: leave it out, or set \
         identity.on_contradiction: drop"
    )]
    Contradicts {
        /// The header.
        header: String,
        /// What of it.
        part: &'static str,
        /// `key` or `token of`.
        kind: &'static str,
        /// Its name.
        name: Label,
    },
    /// The credential is for several workloads, and the request names none of them.
    #[error("the {kind} {name:?} is for several workloads: send x-bursar-workload with one of {workloads}")]
    WorkloadUnnamed {
        /// `key` or `token of`.
        kind: &'static str,
        /// Its name.
        name: Label,
        /// What may be named.
        workloads: String,
    },
    /// A required part is missing.
    #[error(
        "this sidecar requires {name}: send the header x-bursar-{header}, or set it under identity in its configuration"
    )]
    Missing {
        /// `team`, `workload`, `customer`, `session` or `tag:NAME`.
        name: String,
        /// The header's name without `x-bursar-`.
        header: String,
    },
}

impl IdentityError {
    /// The key or issuer that it is about.
    #[must_use]
    pub const fn rule(&self) -> Option<&Label> {
        match self {
            Self::Contradicts { name, .. } | Self::WorkloadUnnamed { name, .. } => Some(name),
            Self::BadLabel { .. } | Self::UnknownHeader { .. } | Self::Missing { .. } => None,
        }
    }
}

/// Prefix of Bursar's own headers; they never reach the upstream.
pub const OWN_PREFIX: &str = "x-bursar-";
/// How names of tags begin that only the sidecar sets.
pub const OWN_TAGS: &str = "bursar.";
const TAG_PREFIX: &str = "x-bursar-tag-";

/// Ours on replies and for credentials, without the prefix: whoever sends one has not misspelt anything.
const NO_TAGS: [&str; 14] = [
    "key",
    "token",
    "rule",
    "rule-warning",
    "steered",
    "request-id",
    "input-tokens",
    "output-tokens",
    "usage-source",
    "cost",
    "cost-currency",
    "cost-status",
    "budget",
    "budget-warning",
];
const HELICONE_PROPERTY: &str = "helicone-property-";
/// W3C baggage.
pub static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Reads the identity of a request from its headers, over what its credential says and the configured
/// defaults.
pub fn identify(
    headers: &HeaderMap,
    config: &Identify,
    credential: Option<&Credential>,
) -> Result<Identified, IdentityError> {
    let mut reading = Reading::new(config, credential);
    if config.trust_headers {
        reading.read_own(headers)?;
        if config.aliases {
            reading.read_aliases(headers)?;
        }
        for value in headers.get_all(&BAGGAGE) {
            reading.read_baggage(value)?;
        }
    }
    let trace = headers.get(&TRACEPARENT).and_then(trace_id).or(reading.trace);
    reading.require_workload()?;
    let identity = reading.identity();
    require(&identity, &config.required)?;
    Ok(Identified { identity, trace, anomalies: reading.anomalies, unknown: reading.unknown })
}

/// What a misspelt header of ours may have meant.
fn meant(header: &str) -> String {
    let rest = header.strip_prefix(OWN_PREFIX).unwrap_or(header);
    let name = match nearest(rest, PARTS) {
        Some(part) => part,
        None if rest.starts_with("tag") => "tag-NAME",
        None => {
            return "send x-bursar-team, -workload, -customer or -session, or x-bursar-tag-NAME".to_owned();
        }
    };
    format!("did you mean {OWN_PREFIX}{name}?")
}

fn require(identity: &Identity, required: &[RequiredTag]) -> Result<(), IdentityError> {
    for wanted in required {
        let (there, header) = match wanted {
            RequiredTag::Team => (identity.team.is_some(), "team".to_owned()),
            RequiredTag::Workload => (identity.workload.is_some(), "workload".to_owned()),
            RequiredTag::Customer => (identity.customer.is_some(), "customer".to_owned()),
            RequiredTag::Session => (identity.session.is_some(), "session".to_owned()),
            RequiredTag::Tag(name) => (identity.tags.get(name.as_str()).is_some(), format!("tag-{name}")),
        };
        if !there {
            return Err(IdentityError::Missing { name: wanted.to_string(), header });
        }
    }
    Ok(())
}

/// The names of the four parts.
const PARTS: [&str; 4] = ["team", "workload", "customer", "session"];

/// The four named parts of an identity.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Team,
    Workload,
    Customer,
    Session,
}

impl Part {
    fn named(name: &str) -> Option<Self> {
        match name {
            "team" => Some(Self::Team),
            "workload" => Some(Self::Workload),
            "customer" => Some(Self::Customer),
            "session" => Some(Self::Session),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::Workload => "workload",
            Self::Customer => "customer",
            Self::Session => "session",
        }
    }
}

/// A value with the source it came from.
type Sourced = Option<(Label, IdentitySource)>;

struct Reading<'a> {
    config: &'a Identify,
    credential: Option<&'a Credential>,
    team: Sourced,
    workload: Sourced,
    customer: Sourced,
    session: Sourced,
    tags: Tags,
    trace: Option<TraceId>,
    anomalies: Anomalies,
    unknown: Option<Box<str>>,
}

impl<'a> Reading<'a> {
    fn new(config: &'a Identify, credential: Option<&'a Credential>) -> Self {
        let configured = |label: &Option<Label>| label.clone().map(|l| (l, IdentitySource::Config));
        let source = credential.map_or(IdentitySource::None, |credential| credential.kind.source());
        let bound = |label: Option<&Label>| label.map(|l| (l.clone(), source));
        let mut tags = credential.map_or_else(Tags::default, |credential| credential.tags.clone());
        if credential.is_some() {
            for (name, value) in config.tags.iter() {
                tags.insert(name.clone(), value.clone());
            }
        } else {
            tags = config.tags.clone();
        }
        let workload = match credential.map(|credential| credential.workloads.as_slice()) {
            None | Some([]) => configured(&config.workload),
            Some([only]) => bound(Some(only)),
            Some(several) => configured(&config.workload).filter(|(workload, _)| several.contains(workload)),
        };
        Self {
            config,
            credential,
            team: bound(credential.map(|one| &one.team)).or_else(|| configured(&config.team)),
            workload,
            customer: bound(credential.and_then(|one| one.customer.as_ref()))
                .or_else(|| configured(&config.customer)),
            session: configured(&config.session),
            tags,
            trace: None,
            anomalies: Anomalies::default(),
            unknown: None,
        }
    }

    fn read_own(&mut self, headers: &HeaderMap) -> Result<(), IdentityError> {
        for (name, value) in headers {
            let Some(rest) = name.as_str().strip_prefix(OWN_PREFIX) else { continue };
            if headers.get_all(name).iter().nth(1).is_some() {
                self.bad(name.as_str(), "it is there twice")?;
                continue;
            }
            if let Some(part) = Part::named(rest) {
                self.part(part, text_of(value), IdentitySource::Header, name.as_str())?;
            } else if let Some(tag) = name.as_str().strip_prefix(TAG_PREFIX) {
                self.tag(tag, text_of(value), name.as_str())?;
            } else if !NO_TAGS.contains(&rest) {
                self.unknown(name.as_str())?;
            }
        }
        Ok(())
    }

    fn read_aliases(&mut self, headers: &HeaderMap) -> Result<(), IdentityError> {
        for (name, value) in headers {
            let header = name.as_str();
            // Most headers are none of ours: decide by the first letter.
            if !matches!(header.as_bytes().first(), Some(b'x' | b'h' | b'o')) {
                continue;
            }
            let text = text_of(value);
            match header {
                "x-litellm-tags" => self.litellm_tags(text, header)?,
                "x-litellm-end-user-id" | "helicone-user-id" => {
                    self.part(Part::Customer, text, IdentitySource::Header, header)?;
                }
                "helicone-session-id" => self.part(Part::Session, text, IdentitySource::Header, header)?,
                "x-portkey-metadata" => self.portkey_metadata(text, header)?,
                "x-portkey-trace-id" => match text.and_then(hex_trace_id) {
                    Some(trace) => self.trace = Some(trace),
                    None => self.tag("portkey_trace_id", text, header)?,
                },
                "openai-organization" => self.tag("openai_organization", text, header)?,
                "openai-project" => self.tag("openai_project", text, header)?,
                _ => {
                    if let Some(property) = header.strip_prefix(HELICONE_PROPERTY) {
                        self.tag(property, text, header)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// LiteLLM tags: a comma-separated list of `name:value` or of bare names (value `true`).
    fn litellm_tags(&mut self, text: Option<&str>, header: &str) -> Result<(), IdentityError> {
        let Some(text) = text else { return self.bad(header, "it is not printable ASCII") };
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once(':').unwrap_or((item, "true"));
            self.tag(name.trim(), Some(value.trim()), header)?;
        }
        Ok(())
    }

    /// Portkey metadata: a JSON object of strings; `_user` is the customer.
    fn portkey_metadata(&mut self, text: Option<&str>, header: &str) -> Result<(), IdentityError> {
        let parsed = text.and_then(|t| serde_json::from_str::<serde_json::Value>(t).ok());
        let Some(serde_json::Value::Object(members)) = parsed else {
            return self.bad(header, "it is not a JSON object");
        };
        for (name, value) in &members {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Number(number) => number.to_string(),
                serde_json::Value::Bool(flag) => flag.to_string(),
                _ => {
                    self.bad(header, "a member is neither text, number nor boolean")?;
                    continue;
                }
            };
            match name.as_str() {
                "_user" => self.part(Part::Customer, Some(&value), IdentitySource::Header, header)?,
                name => self.tag(name, Some(&value), header)?,
            }
        }
        Ok(())
    }

    /// W3C baggage: `name=value;properties, …`, values percent-encoded; members are named like our headers.
    fn read_baggage(&mut self, value: &HeaderValue) -> Result<(), IdentityError> {
        let Some(text) = text_of(value) else { return Ok(()) };
        for member in text.split(',') {
            let pair = member.split(';').next().unwrap_or_default();
            let Some((name, value)) = pair.split_once('=') else { continue };
            let Some(rest) = name.trim().strip_prefix(OWN_PREFIX) else { continue };
            let decoded = percent_encoding::percent_decode_str(value.trim()).decode_utf8();
            let value = decoded.as_deref().ok();
            if let Some(part) = Part::named(rest) {
                self.part(part, value, IdentitySource::Baggage, "baggage")?;
            } else if let Some(tag) = rest.strip_prefix("tag-") {
                self.tag(tag, value, "baggage")?;
            } else {
                self.unknown(name.trim())?;
            }
        }
        Ok(())
    }

    fn part(
        &mut self,
        part: Part,
        text: Option<&str>,
        source: IdentitySource,
        header: &str,
    ) -> Result<(), IdentityError> {
        let Some(label) = self.label(text, header)? else { return Ok(()) };
        if self.contradicts(part, &label) {
            return self.contradiction(part.name(), header);
        }
        let slot = match part {
            Part::Team => &mut self.team,
            Part::Workload => &mut self.workload,
            Part::Customer => &mut self.customer,
            Part::Session => &mut self.session,
        };
        if slot.is_none() {
            *slot = Some((label, source));
        }
        Ok(())
    }

    fn tag(&mut self, name: &str, text: Option<&str>, header: &str) -> Result<(), IdentityError> {
        let Some(value) = self.label(text, header)? else { return Ok(()) };
        let Some(name) = self.label(Some(name), header)? else { return Ok(()) };
        if name.as_str().starts_with(OWN_TAGS) {
            return self.bad(header, "tags that begin with `bursar.` are the sidecar's own");
        }
        let bound = self.credential.and_then(|credential| credential.tags.get(name.as_str()));
        if bound.is_some_and(|bound| *bound != value) {
            return self.contradiction("tag", header);
        }
        if self.tags.get(name.as_str()).is_none() && !self.tags.insert(name, value) {
            return self.bad(header, "there are more than 32 tags");
        }
        Ok(())
    }

    fn label(&mut self, text: Option<&str>, header: &str) -> Result<Option<Label>, IdentityError> {
        let Some(text) = text else {
            self.bad(header, "it is not printable text")?;
            return Ok(None);
        };
        match Label::new(text.trim()) {
            Ok(label) => Ok(Some(label)),
            Err(problem) => {
                self.bad(header, &problem.to_string())?;
                Ok(None)
            }
        }
    }

    fn bad(&mut self, header: &str, problem: &str) -> Result<(), IdentityError> {
        self.anomalies.insert(Anomaly::TagDropped);
        match self.config.on_bad_tag {
            BadTag::Drop => Ok(()),
            BadTag::Refuse => {
                Err(IdentityError::BadLabel { header: header.to_owned(), problem: problem.to_owned() })
            }
        }
    }

    /// Whether the credential says otherwise.
    fn contradicts(&self, part: Part, label: &Label) -> bool {
        let Some(credential) = self.credential else { return false };
        match part {
            Part::Team => credential.team != *label,
            Part::Workload => !credential.workloads.is_empty() && !credential.workloads.contains(label),
            Part::Customer => credential.customer.as_ref().is_some_and(|customer| customer != label),
            Part::Session => false,
        }
    }

    fn contradiction(&mut self, part: &'static str, header: &str) -> Result<(), IdentityError> {
        self.anomalies.insert(Anomaly::IdentityContradicted);
        match (self.config.on_contradiction, self.credential) {
            (BadTag::Refuse, Some(credential)) => Err(IdentityError::Contradicts {
                header: header.chars().take(TOLD_CHARS_MAX).collect(),
                part,
                kind: credential.kind.name(),
                name: credential.name.clone(),
            }),
            (BadTag::Drop, _) | (_, None) => Ok(()),
        }
    }

    /// A credential for several workloads must not be used for none of them: their budgets would be passed by.
    fn require_workload(&self) -> Result<(), IdentityError> {
        match self.credential {
            Some(credential) if credential.workloads.len() > 1 && self.workload.is_none() => {
                let names: Vec<&str> = credential.workloads.iter().map(Label::as_str).collect();
                Err(IdentityError::WorkloadUnnamed {
                    kind: credential.kind.name(),
                    name: credential.name.clone(),
                    workloads: names.join(", "),
                })
            }
            _ => Ok(()),
        }
    }

    /// A name under our own prefix that is none of ours.
    fn unknown(&mut self, name: &str) -> Result<(), IdentityError> {
        self.anomalies.insert(Anomaly::TagDropped);
        match self.config.on_bad_tag {
            BadTag::Drop => {
                self.unknown = Some(name.into());
                Ok(())
            }
            BadTag::Refuse => {
                Err(IdentityError::UnknownHeader { header: name.chars().take(TOLD_CHARS_MAX).collect() })
            }
        }
    }

    fn identity(&mut self) -> Identity {
        let sources = [&self.team, &self.workload].into_iter().flatten().map(|(_, source)| *source);
        let weakest = sources.max_by_key(|source| source.weakness());
        let label = |part: &mut Sourced| part.take().map(|(label, _)| label);
        Identity {
            source: weakest.unwrap_or(IdentitySource::None),
            team: label(&mut self.team),
            workload: label(&mut self.workload),
            customer: label(&mut self.customer),
            session: label(&mut self.session),
            tags: std::mem::take(&mut self.tags),
        }
    }
}

fn text_of(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// The trace id of a W3C `traceparent`: `version-traceid-parentid-flags`.
fn trace_id(value: &HeaderValue) -> Option<TraceId> {
    let mut parts = value.to_str().ok()?.split('-');
    let version = parts.next()?;
    let trace = parts.next()?;
    let parent = parts.next()?;
    let well_formed = version.len() == 2 && version != "ff" && parent.len() == 16;
    if well_formed { hex_trace_id(trace) } else { None }
}

/// The caller's span and its decision whether its trace is sampled, by `traceparent`.
pub fn caller(headers: &HeaderMap) -> Caller {
    let parts = headers.get(&TRACEPARENT).filter(|value| trace_id(value).is_some());
    let mut parts = parts.and_then(|value| value.to_str().ok()).unwrap_or_default().split('-').skip(2);
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let parent_span = parts.next().and_then(hex).and_then(NonZeroU64::new);
    let flags = parts.next().filter(|flags| flags.len() == 2).and_then(hex);
    Caller { parent_span, sampled: flags.map(|flags| flags & 1 == 1), pieces: 0 }
}

fn hex_trace_id(text: &str) -> Option<TraceId> {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() == 32 && text.bytes().all(lower_hex) {
        u128::from_str_radix(text, 16).ok().and_then(TraceId::from_bits)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
