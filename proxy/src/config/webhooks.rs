//! `webhooks`: from the list in the file to where events are sent, and signed with what.
//!
//! Invariants
//! - A webhook with any mistake is left out, and each of its mistakes is reported.
//! - Its URL may be a secret, so only scheme, host and port are ever shown of it.
//! - Plain http goes to addresses that were named alone.
//!
//! Not here: reading the files with secrets (`load::webhooks`), which addresses are called
//! (`upstream::address`), sending (`crate::webhooks`).

use super::budgets::{Item, named_items};
use super::error::{Fault, Wrong};
use super::secret::Secret;
use super::value::{Choice, PathKind, Scalar, SecretVariable, Shape, Value};
use super::yaml::{Content, Entry, Node, Position};
use crate::upstream::address::{Network, Permit};
use bursar_domain::Label;
use http::Uri;
use http::uri::Scheme;
use serde_json::{Value as Json, json};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// Most webhooks in a file: each has a queue of its own.
const WEBHOOKS_MAX: usize = 16;
/// Most entries of a webhook's lists.
const LIST_MAX: usize = 1_000;

const KEYS: &[&str] = &[
    "name",
    "url",
    "secret_file",
    "secret_env",
    "previous_secret_file",
    "previous_secret_env",
    "events",
    "budgets",
    "allow_private",
];

/// What a webhook may be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A share of a budget is spent.
    Threshold,
    /// A hard budget began to refuse.
    Refusing,
    /// A budget's window ended and another began.
    Window,
}

impl Choice for EventKind {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("threshold", Self::Threshold), ("refusing", Self::Refusing), ("window", Self::Window)];
}

/// Where events are sent.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its name.
    pub name: Label,
    /// Its address.
    pub url: WebhookUrl,
    /// What its events are signed with: the secret, and the one before it while that is given.
    pub secrets: Vec<Secret>,
    /// What it is told of.
    pub events: Vec<EventKind>,
    /// The budgets that it is told of; `None`: all but those in shadow mode.
    pub budgets: Option<Vec<Label>>,
    /// Which addresses it may have.
    pub permit: Permit,
}

/// The address of a webhook. Its path and query may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

impl WebhookUrl {
    /// The address itself. Call it only where something is sent.
    #[must_use]
    pub const fn expose(&self) -> &Uri {
        &self.0
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        write!(f, "{}://{authority}", self.0.scheme_str().unwrap_or_default())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({self}/…)")
    }
}

impl Scalar for WebhookUrl {
    type Limits = ();

    /// A wrong value is not shown: it may hold a token.
    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        let remedy = "write https://HOST/PATH, without a user and without a fragment";
        let wrong = || Wrong::hidden("is no URL that events can be sent to", remedy);
        let uri: Uri = text.parse().ok().filter(|_| !text.contains('#')).ok_or_else(wrong)?;
        let is_http = uri.scheme().is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
        let has_host = uri
            .authority()
            .is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
        if is_http && has_host { Ok(Self(uri)) } else { Err(wrong()) }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn describe((): &()) -> String {
        "URL, `https://…`".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "format": "uri", "pattern": "^https?://" })
    }
}

impl Scalar for Network {
    type Limits = ();

    fn parse(text: &str, (): &()) -> Result<Self, Wrong> {
        let remedy = "write an IP address, or a network such as 10.20.0.0/16 or fd00::/8";
        Self::read(text).ok_or_else(|| Wrong::value(text, "is no address and no network", remedy))
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn describe((): &()) -> String {
        "IP address or network".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": "string", "examples": ["127.0.0.1", "10.20.0.0/16"] })
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecretPlace {
    /// In this file.
    File(PathBuf),
    /// In this environment variable.
    Variable(SecretVariable),
}

/// One of the list, before its secrets are read.
#[derive(Clone, Debug)]
pub(super) struct RawWebhook {
    pub(super) at: Position,
    pub(super) name: Label,
    pub(super) url: WebhookUrl,
    pub(super) secret: SecretPlace,
    pub(super) previous: Option<SecretPlace>,
    pub(super) events: Vec<EventKind>,
    pub(super) budgets: Option<Vec<Label>>,
    pub(super) permit: Permit,
}

/// The list of webhooks.
#[derive(Clone, Debug, Default)]
pub(super) struct WebhookList(pub(super) Vec<RawWebhook>);

impl Value for WebhookList {
    type Limits = ();
    const SHAPE: Shape = Shape::List;

    fn read(node: &Node, (): &()) -> Result<Self, Vec<Fault>> {
        named_items(node, "webhook", WEBHOOKS_MAX, webhook, |webhook| &webhook.name).map(Self)
    }

    fn show(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|webhook| webhook.name.as_str()).collect();
        names.join(", ")
    }

    fn describe((): &()) -> String {
        "list of webhooks".to_owned()
    }

    fn schema((): &()) -> Json {
        let text = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
        let path = json!({ "type": "string", "minLength": 1 });
        let list = |items: Json| json!({ "type": ["array", "null"], "items": items, "maxItems": LIST_MAX });
        json!({ "type": ["array", "null"], "maxItems": WEBHOOKS_MAX, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "url"],
            "oneOf": [{ "required": ["secret_file"] }, { "required": ["secret_env"] }],
            "properties": {
                "name": text,
                "url": <WebhookUrl as Scalar>::schema(&()),
                "secret_file": path,
                "secret_env": <SecretVariable as Scalar>::schema(&()),
                "previous_secret_file": path,
                "previous_secret_env": <SecretVariable as Scalar>::schema(&()),
                "events": list(<EventKind as Scalar>::schema(&())),
                "budgets": list(text.clone()),
                "allow_private": list(<Network as Scalar>::schema(&())),
            },
        } })
    }

    fn json(&self) -> Option<Json> {
        self.0.is_empty().then(|| json!([]))
    }
}

fn value_of<'n>(entries: &'n [Entry], key: &str) -> Option<&'n Node> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

fn webhook(item: &mut Item, node: &Node) -> Option<RawWebhook> {
    let before = item.faults();
    let entries = item.entries(node, "", KEYS, "write keys: name, url, secret_file and so on");
    let find = |key: &str| value_of(entries, key);
    if matches!(node.content, Content::Map(_)) {
        for key in ["name", "url"] {
            if find(key).is_none() {
                let wrong = Wrong::absent("the key is missing", "every webhook needs one");
                item.wrong(node, &format!(".{key}"), wrong);
            }
        }
        if find("secret_file").or(find("secret_env")).is_none() {
            let remedy = "add secret_file: PATH; receivers tell by the signature that an event is yours";
            item.wrong(node, "", Wrong::absent("it has no secret", remedy));
        }
    }
    let name = find("name").and_then(|node| item.scalar::<Label>(node, ".name", &()));
    let url = find("url").and_then(|node| item.scalar::<WebhookUrl>(node, ".url", &()));
    let secret = secret_place(item, entries, "secret_file", "secret_env");
    let previous = secret_place(item, entries, "previous_secret_file", "previous_secret_env");
    let events = match find("events") {
        Some(node) => list(item, node, ".events"),
        None => vec![EventKind::Threshold, EventKind::Refusing],
    };
    let budgets = find("budgets").map(|node| list(item, node, ".budgets"));
    let named = find("allow_private").map(|node| list(item, node, ".allow_private")).unwrap_or_default();
    let permit = Permit::new(named);
    if let (Some(url), Some(node)) = (&url, find("url")) {
        reachable(item, node, url, &permit);
    }
    (item.faults() == before).then_some(RawWebhook {
        at: node.at,
        name: name?,
        url: url?,
        secret: secret?,
        previous,
        events,
        budgets,
        permit,
    })
}

fn secret_place(item: &mut Item, entries: &[Entry], file: &str, variable: &str) -> Option<SecretPlace> {
    match (value_of(entries, file), value_of(entries, variable)) {
        (Some(_), Some(node)) => {
            let wrong = Wrong::absent(&format!("there is also {file}"), "remove one of them");
            item.wrong(node, &format!(".{variable}"), wrong);
            None
        }
        (Some(node), None) => {
            let path = item.scalar::<PathBuf>(node, &format!(".{file}"), &PathKind::OfSecret)?;
            Some(SecretPlace::File(path))
        }
        (None, Some(node)) => item.scalar(node, &format!(".{variable}"), &()).map(SecretPlace::Variable),
        (None, None) => None,
    }
}

fn list<T: Scalar<Limits = ()> + PartialEq>(item: &mut Item, node: &Node, key: &str) -> Vec<T> {
    let items = match &node.content {
        Content::List(items) => items.as_slice(),
        _ if node.is_null() => &[],
        _ => {
            let wrong = Wrong::absent(&format!("this is {}", node.kind()), "write a list, such as [a, b]");
            item.wrong(node, key, wrong);
            &[]
        }
    };
    if let Some(extra) = items.get(LIST_MAX) {
        let wrong = format!("there are more than {LIST_MAX} entries");
        item.wrong(extra, key, Wrong::absent(&wrong, "remove some"));
    }
    let mut values = Vec::new();
    for (index, node) in items.iter().enumerate().take(LIST_MAX) {
        let value = item.scalar::<T>(node, &format!("{key}[{index}]"), &());
        values.extend(value.filter(|value| !values.contains(value)));
    }
    values
}

/// What can be told of an address before its name is resolved.
fn reachable(item: &mut Item, node: &Node, url: &WebhookUrl, permit: &Permit) {
    if !url.is_secure() && permit.named().is_empty() {
        let what = "the URL is plain http: events would cross the network readable";
        let remedy = "write https, or name the receiver's address under allow_private";
        item.wrong(node, ".url", Wrong::absent(what, remedy));
    } else if let Ok(address) = url.host().parse::<IpAddr>()
        && let Err(refused) = permit.check(address, url.is_secure())
    {
        let remedy = "name a public host, or this address under allow_private";
        item.wrong(node, ".url", Wrong::absent(&refused.to_string(), remedy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn load(text: &str) -> Result<Config, String> {
        let env = |name: &str| match name {
            "HOOK" => Some(SECRET.to_owned()),
            "OLD" => Some("an-older-secret-of-mine".to_owned()),
            "BAD" => Some("whsec_%%%canary".to_owned()),
            _ => None,
        };
        let budgets = "budgets:\n  - { name: b, window: day, limit: 1 USD }\n";
        let sources = Sources { text: Some(format!("{budgets}{text}")), env: &env, ..Sources::none() };
        Config::load(sources).map_err(|errors| errors.to_string())
    }

    #[test]
    fn every_key_is_read_and_no_secret_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, format!("{SECRET}\n")).unwrap();
        let text = format!(
            "webhooks:
  - {{ name: a, url: 'https://hooks.example.com/T0/canary-path?key=canary-query', secret_file: {} }}
  - name: b
    url: http://10.1.2.3:8080/x
    secret_env: HOOK
    previous_secret_env: OLD
    events: [window, threshold, window]
    budgets: [b]
    allow_private: [10.0.0.0/8, 127.0.0.1]
",
            file.display()
        );
        let config = load(&text).unwrap();
        let [a, b] = config.webhooks.as_slice() else { panic!("{config:?}") };
        assert_eq!(a.url.to_string(), "https://hooks.example.com");
        assert_eq!(a.url.expose().path_and_query().unwrap().as_str(), "/T0/canary-path?key=canary-query");
        assert_eq!(
            (a.events.as_slice(), &a.budgets),
            (&[EventKind::Threshold, EventKind::Refusing][..], &None)
        );
        assert_eq!(a.secrets.len(), 1);
        assert!(a.secrets[0].matches(SECRET.as_bytes()) && config.watched.contains(&file));
        assert_eq!(b.events, [EventKind::Window, EventKind::Threshold]);
        assert_eq!((b.secrets.len(), b.budgets.as_ref().map(Vec::len)), (2, Some(1)));
        assert_eq!(b.permit.named().len(), 2);
        let shown: Vec<String> = config.effective().iter().map(|one| one.value.clone()).collect();
        let all = format!("{shown:?}{:?}{:?}{config:?}", config.warnings, config.webhooks);
        for secret in ["canary", SECRET, "MfKQ9r8", "an-older"] {
            assert!(!all.contains(secret), "{secret}: {all}");
        }
        let shown = config.effective().iter().find(|one| one.path == "webhooks").unwrap();
        assert_eq!(shown.value, "a, b");
    }

    fn check(item: &str, expected: &str) {
        let error = load(&format!("webhooks:\n  - {{ {item} }}\n")).unwrap_err();
        assert!(error.contains(expected), "{item}: {error}");
        assert!(!error.contains("canary"), "{item}: {error}");
    }

    #[test]
    fn mistakes_name_the_key_and_the_remedy_and_hide_what_may_be_secret() {
        check("url: 'https://x.test', secret_env: HOOK", "webhooks[0].name: the key is missing");
        check("name: a, secret_env: HOOK", "webhooks[0].url: the key is missing");
        check("name: a, url: 'https://x.test'", "webhooks[0]: it has no secret; add secret_file");
        check(
            "name: a, url: 'https://x.test', secret_env: HOOK, secret_file: /x",
            "there is also secret_file",
        );
        check("name: a, url: 'https://x.test', secret: canary", "webhooks[0].secret: this key is unknown");
        check(
            "name: a, url: 'ftp://x.test/canary', secret_env: HOOK",
            "webhooks[0].url: the value (not shown)",
        );
        check("name: a, url: 'https://u:canary@x.test/', secret_env: HOOK", "is no URL that events can be");
        check(
            "name: a, url: 'http://x.test/', secret_env: HOOK",
            "plain http: events would cross the network",
        );
        check(
            "name: a, url: 'https://127.0.0.1/', secret_env: HOOK",
            "webhooks[0].url: 127.0.0.1 is no public address, and allow_private does not name it",
        );
        check("name: a, url: 'https://[::ffff:10.0.0.1]/', secret_env: HOOK", "is no public address");
        check(
            "name: a, url: 'http://8.8.8.8/', secret_env: HOOK, allow_private: [127.0.0.1]",
            "8.8.8.8 is a public address, and the URL is plain http",
        );
        check(
            "name: a, url: 'https://x.test/', secret_env: HOOK, allow_private: [localhost]",
            "webhooks[0].allow_private[0]: \"localhost\" is no address and no network; write an IP address",
        );
        check(
            "name: a, url: 'https://x.test/', secret_env: HOOK, events: [treshold]",
            "did you mean \"threshold\"?",
        );
        check(
            "name: a, url: 'https://x.test/', secret_env: HOOK, events: []",
            "webhooks[0].events: it is told of",
        );
        check("name: a, url: 'https://x.test/', secret_env: HOOK, budgets: [c]", "is the name of no budget");
        check("name: a, url: 'https://x.test/', secret_env: NONE", "webhooks[0].secret_env");
        check("name: a, url: 'https://x.test/', secret_env: BAD", "no base64 behind whsec_");
        check("name: a, url: 'https://x.test/', secret_file: /nowhere/at/all", "webhooks[0].secret_file");
        check(
            "name: a, url: 'https://x.test/', secret_env: HOOK }\n  - { name: a, url: 'https://y.test/', secret_env: HOOK",
            "is also the name of the webhook on line",
        );
    }

    #[test]
    fn a_secret_that_can_be_guessed_and_a_webhook_without_budgets_are_warned_of() {
        let text = "webhooks:\n  - { name: a, url: 'https://x.test/', secret_env: HOOK }\n";
        let env = |name: &str| (name == "HOOK").then(|| "hunter2".to_owned());
        let sources = Sources { text: Some(text.to_owned()), env: &env, ..Sources::none() };
        let warnings = Config::load(sources).unwrap().warnings;
        for expected in ["webhooks[0].secret_env: the secret has fewer than", "there is no budget"] {
            assert!(warnings.iter().any(|warning| warning.contains(expected)), "{warnings:?}");
        }
    }
}
