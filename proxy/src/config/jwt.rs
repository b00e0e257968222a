//! `identity.jwt`: from the list in the file to issuers of tokens.
//!
//! Invariants
//! - An issuer with any mistake is left out, and each of its mistakes is reported.
//! - Only asymmetric signatures can be named, and keys only come from one place, over TLS or from this machine.
//!
//! Not here: what tokens do (`credentials::tokens`), reading the files that are named (`load::jwt`), lists of
//! named items (`budgets`).

use super::budgets::{Item, named_items};
use super::error::{Fault, Wrong};
use super::keys::{list_schema, tags_of};
use super::suggest::nearest;
use super::value::{PathKind, Range, Shape, Value, tag_name};
use super::yaml::{Content, Entry, Node};
use crate::credentials::Grant;
use crate::credentials::claims::ClaimPath;
use crate::credentials::jwks::ALGORITHMS;
use crate::credentials::tokens::{IssuerRules, Remote, Source, TOKEN_HEADER, Told};
use bursar_domain::Label;
use http::Uri;
use http::header::HeaderName;
use http::uri::Scheme;
use jsonwebtoken::Algorithm;
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use std::time::Duration;

/// Most issuers in a file: a token is compared with each.
const ISSUERS_MAX: usize = 100;
/// Most claims that one issuer's tokens must have.
const REQUIRED_MAX: usize = 32;

const KEYS: &[&str] = &[
    "name",
    "issuer",
    "audience",
    "jwks_url",
    "jwks_file",
    "public_key_file",
    "ca_file",
    "token_file",
    "algorithms",
    "header",
    "leeway",
    "max_age",
    "refresh",
    "stale",
    "scopes",
    "require",
    "team",
    "workload",
    "customer",
    "tags",
    "claims",
    "routes",
    "models",
    "providers",
];
const CLAIM_KEYS: &[&str] = &["team", "workload", "customer", "tags"];
const SOURCES: &[&str] = &["jwks_url", "jwks_file", "public_key_file"];

const LEEWAY: Range<Duration> = seconds(0, 300);
const AGE: Range<Duration> = seconds(1, 366 * 86_400);
const REFRESH: Range<Duration> = seconds(30, 7 * 86_400);
const STALE: Range<Duration> = seconds(60, 30 * 86_400);

const fn seconds(min: u64, max: u64) -> Range<Duration> {
    Range { min: Duration::from_secs(min), max: Duration::from_secs(max) }
}

/// The list of issuers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IssuerList(pub(super) Vec<IssuerRules>);

impl Value for IssuerList {
    type Limits = ();
    const SHAPE: Shape = Shape::List;

    fn read(node: &Node, (): &()) -> Result<Self, Vec<Fault>> {
        named_items(node, "issuer", ISSUERS_MAX, issuer, |issuer| &issuer.name).map(Self)
    }

    fn show(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|issuer| issuer.name.as_str()).collect();
        names.join(", ")
    }

    fn describe((): &()) -> String {
        "list of issuers of tokens".to_owned()
    }

    fn schema((): &()) -> Json {
        let text = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
        let names = json!({ "anyOf": [text, list_schema()] });
        let duration = json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" });
        let algorithms: Vec<&str> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
        let texts = json!({ "type": ["object", "null"], "additionalProperties": text });
        json!({ "type": ["array", "null"], "maxItems": ISSUERS_MAX, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "issuer", "audience"],
            "oneOf": SOURCES.iter().map(|source| json!({ "required": [source] })).collect::<Vec<_>>(),
            "properties": {
                "name": text,
                "issuer": text,
                "audience": names,
                "jwks_url": { "type": "string", "format": "uri", "pattern": "^https?://[^@#]+$" },
                "jwks_file": text,
                "public_key_file": text,
                "ca_file": text,
                "token_file": text,
                "algorithms": { "type": "array", "minItems": 1, "items": { "enum": algorithms } },
                "header": text,
                "leeway": duration,
                "max_age": duration,
                "refresh": duration,
                "stale": duration,
                "scopes": names,
                "require": { "type": ["object", "null"], "additionalProperties": names },
                "team": text,
                "workload": text,
                "customer": text,
                "tags": texts,
                "claims": {
                    "type": ["object", "null"],
                    "additionalProperties": false,
                    "properties": { "team": text, "workload": text, "customer": text, "tags": texts },
                },
                "routes": list_schema(),
                "models": list_schema(),
                "providers": list_schema(),
            },
        } })
    }

    fn json(&self) -> Option<Json> {
        self.0.is_empty().then(|| json!([]))
    }
}

/// The keys of one issuer.
struct Keys<'n> {
    entries: &'n [Entry],
    node: &'n Node,
}

impl<'n> Keys<'n> {
    fn find(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }
}

fn issuer(reader: &mut Item, node: &Node) -> Option<IssuerRules> {
    let before = reader.faults();
    let remedy = "write keys: name, issuer, audience, jwks_url and so on";
    let keys = Keys { entries: reader.entries(node, "", KEYS, remedy), node };
    if matches!(node.content, Content::Map(_)) {
        for key in ["name", "issuer", "audience"] {
            if keys.find(key).is_none() {
                let remedy = "every issuer needs one";
                reader.wrong(node, &format!(".{key}"), Wrong::absent("the key is missing", remedy));
            }
        }
    }
    let label = |reader: &mut Item, key: &str| {
        keys.find(key).and_then(|node| reader.scalar::<Label>(node, &format!(".{key}"), &()))
    };
    let labels = |reader: &mut Item, key: &str| {
        keys.find(key).and_then(|node| reader.labels(node, &format!(".{key}")))
    };
    let time = |reader: &mut Item, key: &str, limits: &Range<Duration>| {
        keys.find(key).and_then(|node| reader.scalar::<Duration>(node, &format!(".{key}"), limits))
    };
    let (name, issuer) = (label(reader, "name"), label(reader, "issuer"));
    let audience = labels(reader, "audience");
    if let (Some([]), Some(node)) = (audience.as_deref(), keys.find("audience")) {
        reader.wrong(node, ".audience", Wrong::absent("there is none", "write what tokens are meant for"));
    }
    let source = source(reader, &keys);
    let algorithms = algorithms(reader, &keys);
    let header = keys.find("header").and_then(|node| header(reader, node));
    let leeway = time(reader, "leeway", &LEEWAY).unwrap_or(Duration::from_secs(30));
    let age_max = time(reader, "max_age", &AGE);
    let refresh = time(reader, "refresh", &REFRESH).unwrap_or(Duration::from_secs(15 * 60));
    let stale = time(reader, "stale", &STALE).unwrap_or(Duration::from_secs(24 * 3_600));
    if stale < refresh {
        let wrong = Wrong::absent(
            "keys would be too old before they are read anew",
            "write a longer time than that of refresh",
        );
        reader.wrong(keys.find("stale").unwrap_or(node), ".stale", wrong);
    }
    let scopes = labels(reader, "scopes").unwrap_or_default();
    let require = keys.find("require").map(|node| required(reader, node)).unwrap_or_default();
    let tags = keys.find("tags").map(|node| reader.tags(node, ".tags")).unwrap_or_default();
    let claims = claims(reader, &keys);
    let (team, workload, customer) = (
        told(reader, &keys, &claims, "team"),
        told(reader, &keys, &claims, "workload"),
        told(reader, &keys, &claims, "customer"),
    );
    if team.is_none() && reader.faults() == before {
        let remedy = "write team for one that pays for all, or the claim that names it under claims.team";
        reader.wrong(node, ".team", Wrong::absent("nothing says the team", remedy));
    }
    let tag_claims = claims.find("tags").map(|node| tag_claims(reader, node)).unwrap_or_default();
    let grant = Grant {
        routes: labels(reader, "routes"),
        models: labels(reader, "models"),
        providers: labels(reader, "providers"),
    };
    (reader.faults() == before).then_some(IssuerRules {
        name: name?,
        issuer: issuer?,
        audience: audience?,
        algorithms,
        source: source?,
        header,
        leeway,
        age_max,
        refresh,
        stale,
        scopes,
        require,
        team: team?,
        workload,
        customer,
        tags: tags_of(tags),
        tag_claims,
        grant,
    })
}

/// Where its keys are: one place.
fn source(reader: &mut Item, keys: &Keys<'_>) -> Option<Source> {
    let named: Vec<&str> = SOURCES.iter().copied().filter(|key| keys.find(key).is_some()).collect();
    let path = |reader: &mut Item, key: &str, kind: PathKind| {
        keys.find(key).and_then(|node| reader.scalar::<PathBuf>(node, &format!(".{key}"), &kind))
    };
    let (ca_file, token_file) =
        (path(reader, "ca_file", PathKind::Ordinary), path(reader, "token_file", PathKind::OfSecret));
    let [only] = named.as_slice() else {
        let what =
            if named.is_empty() { "nothing says where its keys are" } else { "its keys are in two places" };
        let remedy = "write one of jwks_url, jwks_file and public_key_file";
        reader.wrong(keys.node, "", Wrong::absent(what, remedy));
        return None;
    };
    if *only != "jwks_url" {
        for key in ["ca_file", "token_file"] {
            if let Some(node) = keys.find(key) {
                let wrong = Wrong::absent("it is only used to fetch keys from jwks_url", "remove it");
                reader.wrong(node, &format!(".{key}"), wrong);
            }
        }
    }
    match *only {
        "jwks_url" => {
            let url = keys.find("jwks_url").and_then(|node| url(reader, node))?;
            Some(Source::Remote(Remote { url, ca_file, token_file }))
        }
        "jwks_file" => path(reader, "jwks_file", PathKind::Ordinary).map(Source::JwksFile),
        _ => path(reader, "public_key_file", PathKind::Ordinary).map(Source::PublicKeyFile),
    }
}

/// An address of keys. Whoever can answer in its place can make tokens, so that it needs TLS.
fn url(reader: &mut Item, node: &Node) -> Option<Uri> {
    let text = reader.text(node, ".jwks_url")?;
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        is_plain && !text.contains('#') && uri.host().is_some_and(|host| !host.is_empty())
    });
    let scheme = uri.as_ref().and_then(Uri::scheme);
    let remedy = "write an address such as https://issuer.example/.well-known/jwks.json";
    match (&uri, scheme) {
        (Some(_), Some(scheme)) if *scheme == Scheme::HTTPS => uri,
        (Some(local), Some(scheme)) if *scheme == Scheme::HTTP && is_this_machine(local) => uri,
        (Some(_), Some(scheme)) if *scheme == Scheme::HTTP => {
            let what = "is not over TLS: whoever answers in its place can make tokens";
            reader.wrong(node, ".jwks_url", Wrong::value(text, what, "write https://"));
            None
        }
        _ => {
            reader.wrong(node, ".jwks_url", Wrong::hidden("is no address of keys", remedy));
            None
        }
    }
}

fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback())
}

/// How tokens may be signed; all that is safe, unless fewer are named.
fn algorithms(reader: &mut Item, keys: &Keys<'_>) -> Vec<Algorithm> {
    let Some(node) = keys.find("algorithms") else {
        return ALGORITHMS.iter().map(|(_, algorithm)| *algorithm).collect();
    };
    let names = ALGORITHMS.map(|(name, _)| name);
    let mut found = Vec::new();
    let named = reader.labels(node, ".algorithms").unwrap_or_default();
    for name in &named {
        let text = name.as_str();
        match ALGORITHMS.iter().find(|(known, _)| *known == text) {
            Some((_, algorithm)) => found.push(*algorithm),
            None if text.starts_with("HS") || text.eq_ignore_ascii_case("none") => {
                let what = "is no signature that only the issuer can make";
                let remedy =
                    "let the issuer sign with a private key, and name one of RS256, ES256, EdDSA and so on";
                reader.wrong(node, ".algorithms", Wrong::value(text, what, remedy));
            }
            None => {
                let remedy = match nearest(text, names) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("use one of {}", names.join(", ")),
                };
                reader.wrong(
                    node,
                    ".algorithms",
                    Wrong::value(text, "is no algorithm that is known", &remedy),
                );
            }
        }
    }
    if named.is_empty() {
        reader.wrong(node, ".algorithms", Wrong::absent("there is none", "name one, or remove the key"));
    }
    found
}

fn header(reader: &mut Item, node: &Node) -> Option<HeaderName> {
    match reader.text(node, ".header") {
        Some(text) if text.eq_ignore_ascii_case(TOKEN_HEADER.as_str()) => Some(TOKEN_HEADER.clone()),
        Some(_) => reader.scalar::<HeaderName>(node, ".header", &()),
        None => None,
    }
}

/// The keys below `claims`.
fn claims<'n>(reader: &mut Item, keys: &Keys<'n>) -> Keys<'n> {
    let Some(node) = keys.find("claims") else { return Keys { entries: &[], node: keys.node } };
    let remedy = "write keys: team, workload, customer, tags";
    Keys { entries: reader.entries(node, ".claims", CLAIM_KEYS, remedy), node }
}

/// A part of an identity, by what is written or by a claim.
fn told(reader: &mut Item, keys: &Keys<'_>, claims: &Keys<'_>, part: &str) -> Option<Told> {
    let fixed = keys.find(part).map(|node| reader.scalar::<Label>(node, &format!(".{part}"), &()));
    let claim = claims.find(part).map(|node| (node, path(reader, node, &format!(".claims.{part}"))));
    match (fixed, claim) {
        (Some(_), Some((node, _))) => {
            let what = format!("{part} is written here and beside it");
            let wrong = Wrong::absent(&what, "keep the name for all, or the claim");
            reader.wrong(node, &format!(".claims.{part}"), wrong);
            None
        }
        (Some(fixed), None) => fixed.map(Told::Fixed),
        (None, Some((_, claim))) => claim.map(Told::Claim),
        (None, None) => None,
    }
}

fn path(reader: &mut Item, node: &Node, key: &str) -> Option<ClaimPath> {
    let text = reader.text(node, key)?;
    let path = ClaimPath::parse(text);
    if path.is_none() {
        let remedy = "write its name, names with points between them, or a JSON pointer such as /kubernetes.io/namespace";
        reader.wrong(node, key, Wrong::value(text, "is no way to a claim", remedy));
    }
    path
}

fn tag_claims(reader: &mut Item, node: &Node) -> Vec<(Label, ClaimPath)> {
    let mut found = Vec::new();
    for entry in pairs(reader, node, ".claims.tags", "write tags and the claims that name them") {
        let key = format!(".claims.tags.{}", entry.key);
        let path = path(reader, &entry.value, &key);
        match tag_name(&entry.key) {
            Ok(name) => found.extend(path.map(|path| (name, path))),
            Err(wrong) => reader.wrong(&entry.value, &key, wrong),
        }
    }
    found
}

/// Claims and the values that they must have.
fn required(reader: &mut Item, node: &Node) -> Vec<(ClaimPath, Vec<Label>)> {
    let mut found = Vec::new();
    let entries =
        pairs(reader, node, ".require", "write claims and values, such as { repository_owner: acme }");
    if entries.len() > REQUIRED_MAX {
        let wrong = format!("there are more than {REQUIRED_MAX} claims");
        reader.wrong(node, ".require", Wrong::absent(&wrong, "remove some"));
    }
    for entry in entries.iter().take(REQUIRED_MAX) {
        let key = format!(".require.{}", entry.key);
        let values = reader.labels(&entry.value, &key);
        match (ClaimPath::parse(&entry.key), values) {
            (Some(path), Some(values)) if !values.is_empty() => found.push((path, values)),
            (None, _) => {
                let remedy = "write the claim's name, names with points between them, or a JSON pointer";
                let wrong = Wrong::value(&entry.key, "is no way to a claim", remedy);
                reader.wrong(&entry.value, &key, wrong);
            }
            (_, Some(_)) => {
                reader.wrong(&entry.value, &key, Wrong::absent("there is no value", "write at least one"));
            }
            (_, None) => {}
        }
    }
    found
}

fn pairs<'n>(reader: &mut Item, node: &'n Node, key: &str, remedy: &str) -> &'n [Entry] {
    match &node.content {
        Content::Map(entries) => entries,
        _ if node.is_null() => &[],
        _ => {
            reader.wrong(node, key, Wrong::absent(&format!("this is {}", node.kind()), remedy));
            &[]
        }
    }
}

#[cfg(test)]
mod tests;
