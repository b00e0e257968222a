//! `admin.tokens`: from the list in the file to tokens of the admin API.
//!
//! Invariants
//! - A token with any mistake is left out, and each of its mistakes is reported.
//! - What stands where a hash should is never shown: it may be the token itself.
//!
//! Not here: what tokens do (`credentials::admin`), reading their files (`load`), lists of named items
//! (`budgets`).

use super::budgets::{Item, named_items};
use super::error::{Fault, Wrong};
use super::value::{Choice, PathKind, Scalar, Shape, Value};
use super::yaml::{Content, Node};
use crate::credentials::admin::{Scope, TokenHash};
use bursar_domain::Label;
use serde_json::{Value as Json, json};
use std::path::PathBuf;

/// Most tokens: what is presented is compared with each.
const TOKENS_MAX: usize = 256;

const KEYS: &[&str] = &["name", "scopes", "hash", "file"];

impl Choice for Scope {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("read", Self::Read), ("ingest", Self::Ingest), ("admin", Self::Admin)];
}

/// A token, and where what is kept of it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenEntry {
    pub(super) name: Label,
    pub(super) scopes: Vec<Scope>,
    pub(super) from: TokenFrom,
}

/// Where a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenFrom {
    /// Its hash stands in the configuration.
    Hash(TokenHash),
    /// It is in this file.
    File(PathBuf),
}

/// The list of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenList(pub(super) Vec<TokenEntry>);

impl Value for TokenList {
    type Limits = ();
    const SHAPE: Shape = Shape::List;

    fn read(node: &Node, (): &()) -> Result<Self, Vec<Fault>> {
        named_items(node, "token", TOKENS_MAX, token, |token| &token.name).map(Self)
    }

    fn show(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|token| token.name.as_str()).collect();
        names.join(", ")
    }

    fn describe((): &()) -> String {
        "list of tokens".to_owned()
    }

    fn schema((): &()) -> Json {
        json!({ "type": ["array", "null"], "maxItems": TOKENS_MAX, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "scopes"],
            "oneOf": [{ "required": ["hash"] }, { "required": ["file"] }],
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 256 },
                "scopes": { "type": "array", "minItems": 1, "items": <Scope as Scalar>::schema(&()) },
                "hash": { "type": "string", "pattern": "^b3:[0-9a-f]{64}$" },
                "file": { "type": "string", "minLength": 1 },
            },
        } })
    }

    fn json(&self) -> Option<Json> {
        self.0.is_empty().then(|| json!([]))
    }
}

fn token(reader: &mut Item, node: &Node) -> Option<TokenEntry> {
    let before = reader.faults();
    let entries = reader.entries(node, "", KEYS, "write keys: name, scopes, and hash or file");
    let find = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    if matches!(node.content, Content::Map(_)) {
        for key in ["name", "scopes"] {
            if find(key).is_none() {
                let remedy = "every token needs one; scopes are read, ingest and admin";
                reader.wrong(node, &format!(".{key}"), Wrong::absent("the key is missing", remedy));
            }
        }
        if find("hash").is_some() == find("file").is_some() {
            let remedy = "write one of hash (as `bursar key token` prints it) and file";
            reader.wrong(node, "", Wrong::absent("it is not told once what the token is", remedy));
        }
    }
    let name = find("name").and_then(|node| reader.scalar::<Label>(node, ".name", &()));
    let scopes = find("scopes").map(|node| scopes(reader, node)).unwrap_or_default();
    let hash = find("hash").and_then(|node| hash(reader, node)).map(TokenFrom::Hash);
    let file = find("file").and_then(|node| reader.scalar::<PathBuf>(node, ".file", &PathKind::OfSecret));
    let from = hash.or(file.map(TokenFrom::File));
    (reader.faults() == before).then_some(TokenEntry { name: name?, scopes, from: from? })
}

fn scopes(reader: &mut Item, node: &Node) -> Vec<Scope> {
    let items = match &node.content {
        Content::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if items.is_empty() {
        let wrong = Wrong::absent("a token for nothing", "write read, ingest or admin");
        reader.wrong(node, ".scopes", wrong);
    }
    let mut scopes: Vec<Scope> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let scope = reader.scalar::<Scope>(item, &format!(".scopes[{index}]"), &());
        scopes.extend(scope.filter(|scope| !scopes.contains(scope)));
    }
    scopes
}

fn hash(reader: &mut Item, node: &Node) -> Option<TokenHash> {
    let text = reader.text(node, ".hash")?;
    let hash = TokenHash::parse(text);
    if hash.is_none() {
        let remedy =
            "write b3: and 64 hexadecimal digits, as `bursar key token` prints it, never the token itself";
        reader.wrong(node, ".hash", Wrong::hidden("is not a hash", remedy));
    }
    hash
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};
    use crate::credentials::admin::{Scope, TokenHash};

    fn load(items: &str) -> Result<Config, String> {
        let text = format!("admin:\n  tokens:\n{items}");
        Config::load(Sources::from_text(&text)).map_err(|errors| errors.to_string())
    }

    #[test]
    fn tokens_have_names_and_scopes_and_come_from_a_hash_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "canary-in-a-file-1\n").unwrap();
        let hash = TokenHash::of(b"canary");
        let config = load(&format!(
            "    - {{ name: grafana, scopes: [read], hash: '{hash}' }}\n    - {{ name: billing, scopes: [read, ingest], file: '{}' }}\n",
            file.display()
        ))
        .unwrap();
        let tokens = &config.admin.tokens;
        assert_eq!(tokens.find(b"canary").unwrap().scopes, [Scope::Read]);
        assert_eq!(tokens.find(b"canary-in-a-file-1").unwrap().name.as_str(), "billing");
        assert!(config.watched.contains(&file));
        assert!(!format!("{config:?}").contains("canary-in"));
    }

    fn check(item: &str, expected: &str) {
        let error = load(&format!("    - {{ {item} }}\n")).unwrap_err();
        assert!(error.contains(expected), "{item}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }

    #[test]
    fn mistakes_name_key_and_remedy_and_never_show_what_may_be_a_token() {
        let hash = TokenHash::of(b"x");
        check("name: a, scopes: [read]", "admin.tokens[0]: it is not told once what the token is");
        check(&format!("name: a, scopes: [read], hash: '{hash}', file: x"), "it is not told once");
        check(&format!("name: a, hash: '{hash}'"), "admin.tokens[0].scopes: the key is missing");
        check(&format!("name: a, scopes: [], hash: '{hash}'"), "a token for nothing");
        check(&format!("name: a, scopes: [write], hash: '{hash}'"), "admin.tokens[0].scopes[0]");
        check(
            "name: a, scopes: [read], hash: canary",
            "admin.tokens[0].hash: the value (not shown) is not a hash",
        );
        check("name: a, scopes: [read], file: /nowhere/at/all", "admin.tokens");
        check(
            &format!(
                "name: a, scopes: [read], hash: '{hash}' }}\n    - {{ name: a, scopes: [read], hash: '{hash}'"
            ),
            "is also the name of the token",
        );
    }
}
