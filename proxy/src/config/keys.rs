//! `keys`: from the list in the file to virtual keys.
//!
//! Invariants
//! - A key with any mistake is left out, and each of its mistakes is reported.
//! - Two keys have neither one name nor one id.
//! - What stands where a hash should is never shown: it may be the key itself.
//!
//! Not here: what keys do (`credentials::keys`), lists of named items (`budgets`).

use super::budgets::{Item, named_items};
use super::error::{Fault, Wrong};
use super::value::{Shape, Value};
use super::yaml::{Content, Node};
use crate::credentials::Grant;
use crate::credentials::keys::{Key, KeyHash, KeyId, Secret, time_text};
use bursar_domain::{Label, Tags, Timestamp};
use serde_json::{Value as Json, json};
use std::collections::HashMap;

/// Most keys in a file.
const KEYS_MAX: usize = 10_000;
/// Most entries of a key's lists.
const LIST_MAX: usize = 1_000;

const KEYS: &[&str] = &[
    "name",
    "id",
    "hash",
    "previous",
    "not_before",
    "expires",
    "team",
    "workload",
    "customer",
    "tags",
    "routes",
    "models",
    "providers",
];
const PREVIOUS_KEYS: &[&str] = &["hash", "expires"];

/// The list of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyList(pub(super) Vec<Key>);

impl Value for KeyList {
    type Limits = ();
    const SHAPE: Shape = Shape::List;

    fn read(node: &Node, (): &()) -> Result<Self, Vec<Fault>> {
        let keys = named_items(node, "key", KEYS_MAX, key, |key| &key.name)?;
        let mut names: HashMap<KeyId, &Label> = HashMap::new();
        let mut faults = Vec::new();
        for key in &keys {
            if let Some(first) = names.insert(key.id, &key.name) {
                let what = format!("is the id of two keys, {:?} and {:?}", first.as_str(), key.name.as_str());
                let remedy =
                    "give each key an id of its own; to rotate one, write its former hash under previous";
                faults.push(Fault::at(node.at, Wrong::value(key.id.as_str(), &what, remedy)));
            }
        }
        if faults.is_empty() { Ok(Self(keys)) } else { Err(faults) }
    }

    fn show(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|key| key.name.as_str()).collect();
        names.join(", ")
    }

    fn describe((): &()) -> String {
        "list of keys".to_owned()
    }

    fn schema((): &()) -> Json {
        let text = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
        let hash = json!({ "type": "string", "pattern": "^b3p?:[0-9a-f]{64}$" });
        let time = json!({ "type": "string", "examples": ["2027-01-31", "2027-01-31T12:00:00Z"] });
        json!({ "type": ["array", "null"], "maxItems": KEYS_MAX, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "id", "hash", "team"],
            "properties": {
                "name": text,
                "id": { "type": "string", "pattern": "^[0-9a-f]{16}$" },
                "hash": hash,
                "previous": {
                    "type": ["object", "null"],
                    "additionalProperties": false,
                    "required": PREVIOUS_KEYS,
                    "properties": { "hash": hash, "expires": time },
                },
                "not_before": time,
                "expires": time,
                "team": text,
                "workload": { "anyOf": [text, list_schema()] },
                "customer": text,
                "tags": { "type": ["object", "null"], "additionalProperties": text },
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

/// The schema of a list of names.
pub(super) fn list_schema() -> Json {
    let text = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
    json!({ "type": "array", "items": text, "maxItems": LIST_MAX })
}

fn key(reader: &mut Item, node: &Node) -> Option<Key> {
    let before = reader.faults();
    let entries = reader.entries(node, "", KEYS, "write keys: name, id, hash, team and so on");
    let find = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    if matches!(node.content, Content::Map(_)) {
        for key in ["name", "id", "hash", "team"] {
            if find(key).is_none() {
                let remedy = "every key needs one; `bursar key new` makes id and hash";
                reader.wrong(node, &format!(".{key}"), Wrong::absent("the key is missing", remedy));
            }
        }
    }
    let name = find("name").and_then(|node| reader.scalar::<Label>(node, ".name", &()));
    let id = find("id").and_then(|node| id(reader, node));
    let hash = find("hash").and_then(|node| hash(reader, node, ".hash"));
    let previous = find("previous").and_then(|node| previous(reader, node));
    let not_before = find("not_before").and_then(|node| reader.time(node, ".not_before"));
    let expires = find("expires").and_then(|node| reader.time(node, ".expires"));
    if let (Some(from), Some(to), Some(node)) = (not_before, expires, find("expires"))
        && to <= from
    {
        let wrong = Wrong::value(&time_text(to), "is not after not_before", "write a later time");
        reader.wrong(node, ".expires", wrong);
    }
    let team = find("team").and_then(|node| reader.scalar::<Label>(node, ".team", &()));
    let customer = find("customer").and_then(|node| reader.scalar::<Label>(node, ".customer", &()));
    let workloads = find("workload").and_then(|node| reader.labels(node, ".workload")).unwrap_or_default();
    let tags = find("tags").map(|node| reader.tags(node, ".tags")).unwrap_or_default();
    let grant = Grant {
        routes: find("routes").and_then(|node| reader.labels(node, ".routes")),
        models: find("models").and_then(|node| reader.labels(node, ".models")),
        providers: find("providers").and_then(|node| reader.labels(node, ".providers")),
    };
    let secrets = [hash.map(|hash| Secret { hash, expires: None }), previous];
    (reader.faults() == before).then_some(Key {
        name: name?,
        id: id?,
        secrets: secrets.into_iter().flatten().collect(),
        not_before,
        expires,
        team: team?,
        workloads,
        customer,
        tags: tags_of(tags),
        grant,
    })
}

/// Pairs as tags; the first of a name counts.
pub(super) fn tags_of(pairs: Vec<(Label, Label)>) -> Tags {
    let mut tags = Tags::default();
    for (name, value) in pairs {
        tags.insert(name, value);
    }
    tags
}

fn id(reader: &mut Item, node: &Node) -> Option<KeyId> {
    let text = reader.text(node, ".id")?;
    let id = KeyId::parse(text);
    if id.is_none() {
        let remedy = "write the 16 hexadecimal digits between the underscores of the key";
        reader.wrong(node, ".id", Wrong::hidden("is not an id", remedy));
    }
    id
}

fn hash(reader: &mut Item, node: &Node, key: &str) -> Option<KeyHash> {
    let text = reader.text(node, key)?;
    let hash = KeyHash::parse(text);
    if hash.is_none() {
        let remedy = "write b3: or b3p: and 64 hexadecimal digits, as `bursar key new` and `bursar key hash` \
                      print it, never the key itself";
        reader.wrong(node, key, Wrong::hidden("is not a hash", remedy));
    }
    hash
}

/// The secret before this one.
fn previous(reader: &mut Item, node: &Node) -> Option<Secret> {
    if node.is_null() {
        return None;
    }
    let entries = reader.entries(node, ".previous", PREVIOUS_KEYS, "write keys: hash, expires");
    let find = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    for key in PREVIOUS_KEYS {
        if matches!(node.content, Content::Map(_)) && find(key).is_none() {
            let remedy = "write until when the former secret is good beside the new one";
            reader.wrong(node, &format!(".previous.{key}"), Wrong::absent("the key is missing", remedy));
        }
    }
    let hash = find("hash").and_then(|node| hash(reader, node, ".previous.hash"));
    let expires = find("expires").and_then(|node| reader.time(node, ".previous.expires"));
    Some(Secret { hash: hash?, expires: Some(expires?) })
}

impl Item {
    /// A time, or a day, which means its beginning in UTC.
    pub(super) fn time(&mut self, node: &Node, key: &str) -> Option<Timestamp> {
        let text = self.text(node, key)?;
        let midnight = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
        let time = text.parse::<jiff::Timestamp>().ok().or_else(|| midnight().map(|at| at.timestamp()));
        if time.is_none() {
            let remedy = "write a day such as 2027-01-31 (its beginning in UTC), or a time such as \
                          2027-01-31T12:00:00Z";
            self.wrong(node, key, Wrong::value(text, "is no time", remedy));
        }
        time.map(|at| Timestamp::from_micros(at.as_microsecond()))
    }

    /// Names: one, or a list of them.
    pub(super) fn labels(&mut self, node: &Node, key: &str) -> Option<Vec<Label>> {
        let items = match &node.content {
            Content::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if let Some(extra) = items.get(LIST_MAX) {
            let wrong = format!("there are more than {LIST_MAX} entries");
            self.wrong(extra, key, Wrong::absent(&wrong, "remove some, or write a pattern that ends in `*`"));
        }
        let mut labels = Vec::new();
        for (index, item) in items.iter().enumerate().take(LIST_MAX) {
            labels.push(self.scalar::<Label>(item, &format!("{key}[{index}]"), &())?);
        }
        Some(labels)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};
    use crate::credentials::keys::Key;

    const HASH: &str = "b3:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn load(text: &str) -> Result<Vec<Key>, String> {
        let text = text.replace("HASH", HASH);
        let config = Config::load(Sources::from_text(&text)).map_err(|errors| errors.to_string())?;
        Ok(config.keys)
    }

    #[test]
    fn every_key_of_a_key_is_read() {
        let keys = load(
            "keys:
  - name: bot
    id: 0123456789abcdef
    hash: HASH
    previous: { hash: HASH, expires: 2027-02-01T00:00:00Z }
    not_before: 2026-01-01
    expires: 2028-01-01T00:00:00+01:00
    team: checkout
    workload: [support, sales]
    customer: acme
    tags: { env: prod }
    routes: [/openai]
    models: ['gpt-4o*']
    providers: openai
",
        )
        .unwrap();
        let key = &keys[0];
        assert_eq!((key.secrets.len(), key.workloads.len()), (2, 2));
        assert_eq!(key.not_before.unwrap().micros(), 1_767_225_600_000_000);
        assert_eq!(key.expires.unwrap().micros(), 1_830_294_000_000_000);
        assert_eq!(key.secrets[1].expires.unwrap().micros(), 1_801_440_000_000_000);
        assert_eq!(key.grant.providers.as_ref().unwrap()[0].as_str(), "openai");
        assert_eq!(key.tags.get("env").unwrap().as_str(), "prod");
    }

    fn check(item: &str, expected: &str) {
        let error = load(&format!("keys:\n  - {{ {item} }}\n")).unwrap_err();
        assert!(error.contains(expected), "{item}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }

    #[test]
    fn mistakes_name_key_and_remedy_and_never_show_what_may_be_a_secret() {
        let good = "name: a, id: 0123456789abcdef, hash: 'HASH', team: t";
        check("name: a, hash: 'HASH', team: t", "keys[0].id: the key is missing");
        check("name: a, id: 0123456789abcdef, hash: 'HASH'", "keys[0].team: the key is missing");
        check("name: a, id: canary, hash: 'HASH', team: t", "keys[0].id: the value (not shown) is not an id");
        check(
            "name: a, id: 0123456789abcdef, hash: bursar_canary, team: t",
            "keys[0].hash: the value (not shown)",
        );
        check(&format!("{good}, expires: soon"), "\"soon\" is no time");
        check(&format!("{good}, expires: 2026-01-01, not_before: 2026-01-01"), "is not after not_before");
        check(
            &format!("{good}, previous: {{ hash: 'HASH' }}"),
            "keys[0].previous.expires: the key is missing",
        );
        check(&format!("{good}, secret: canary"), "keys[0].secret: this key is unknown");
        check(&format!("{good}, routes: [/opanai]"), "did you mean \"/openai\"?");
        check(&format!("{good} }}\n  - {{ {}", good.replace("name: a", "name: b")), "is the id of two keys");
        check(&format!("{good} }}\n  - {{ {good}"), "is also the name of the key on line 2");
        check(
            &good.replace("b3:", "b3p:").replace("HASH", &HASH.replace("b3:", "b3p:")),
            "identity.key_pepper_file",
        );
    }
}
