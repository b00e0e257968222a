//! Issuers of tokens as a file may name them, and every mistake there can be.

use crate::config::{Config, ConfigErrors, Sources};
use crate::credentials::tokens::{IssuerRules, Source, Told};
use jsonwebtoken::Algorithm;
use std::time::Duration;

fn load(text: &str) -> Result<Config, ConfigErrors> {
    Config::load(Sources::from_text(text))
}

fn rules(item: &str) -> IssuerRules {
    let config = load(&format!("identity:\n  jwt:\n    - {{ {item} }}\n")).unwrap_or_else(|e| panic!("{e}"));
    let first = config.issuers.all().next().unwrap();
    first.rules.clone()
}

const GOOD: &str =
    "name: a, issuer: 'https://i.test', audience: bursar, jwks_url: 'https://i.test/jwks', team: t";

#[test]
fn every_key_of_an_issuer_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, "x").unwrap();
        path.display().to_string()
    };
    let rules = rules(&format!(
        "name: a, issuer: 'https://i.test', audience: [x, y], jwks_url: 'https://i.test/jwks?v=1', \
         ca_file: '{}', token_file: '{}', algorithms: [RS256, EdDSA], header: X-Bursar-Token, leeway: 5s, \
         max_age: 1h, refresh: 5m, stale: 2h, scopes: [llm], require: {{ '/a/b': [x, y], c: z }}, customer: c, \
         tags: {{ env: prod }}, claims: {{ team: kubernetes.io.namespace, workload: /w, tags: {{ pod: p }} }}, \
         routes: [/openai], models: ['gpt-*'], providers: openai",
        file("ca.pem"),
        file("token")
    ));
    assert_eq!((rules.audience.len(), rules.scopes[0].as_str()), (2, "llm"));
    assert_eq!(rules.algorithms, [Algorithm::RS256, Algorithm::EdDSA]);
    assert_eq!(rules.header.as_ref().unwrap(), "x-bursar-token");
    assert_eq!((rules.leeway, rules.age_max.unwrap()), (Duration::from_secs(5), Duration::from_secs(3_600)));
    assert_eq!((rules.refresh, rules.stale), (Duration::from_secs(300), Duration::from_secs(7_200)));
    assert_eq!((rules.require[0].0.as_str(), rules.require[0].1.len()), ("/a/b", 2));
    assert!(matches!(&rules.team, Told::Claim(path) if path.as_str() == "kubernetes.io.namespace"));
    assert!(matches!(&rules.customer, Some(Told::Fixed(name)) if name.as_str() == "c"));
    assert_eq!((rules.tags.iter().count(), rules.tag_claims.len()), (1, 1));
    assert_eq!(rules.grant.models.unwrap()[0].as_str(), "gpt-*");
    let Source::Remote(remote) = rules.source else { panic!("{:?}", rules.source) };
    assert_eq!(remote.url, "https://i.test/jwks?v=1");
    assert!(remote.ca_file.is_some() && remote.token_file.is_some());
}

#[test]
fn what_is_not_written_is_safe() {
    let rules = rules(GOOD);
    assert_eq!(rules.algorithms.len(), 9);
    assert!(!rules.algorithms.iter().any(|one| format!("{one:?}").starts_with("HS")));
    assert_eq!((rules.leeway, rules.age_max), (Duration::from_secs(30), None));
    assert_eq!((rules.refresh, rules.stale), (Duration::from_secs(900), Duration::from_secs(86_400)));
    assert!(load(&format!("identity: {{ jwt: [ {{ {GOOD} }} ] }}\n")).unwrap().identity.require_key);
    assert!(!load("").unwrap().identity.require_key);
}

#[test]
fn plain_http_is_for_this_machine_only() {
    for host in ["localhost:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8080"] {
        rules(&GOOD.replace("https://i.test/jwks", &format!("http://{host}/jwks")));
    }
    let over = "is not over TLS";
    for (url, expected) in [
        ("http://i.test/jwks", over),
        ("http://10.0.0.1/jwks", over),
        ("http://localhost.i.test/jwks", over),
        ("http://127.0.0.1.i.test/jwks", over),
        ("https://canary:canary@i.test/jwks", "the value (not shown) is no address of keys"),
        ("https://i.test/jwks#canary", "the value (not shown) is no address of keys"),
        ("ftp://i.test/jwks", "is no address of keys"),
        ("/jwks", "is no address of keys"),
    ] {
        check(&GOOD.replace("https://i.test/jwks", url), expected);
    }
}

fn check(item: &str, expected: &str) {
    let error = load(&format!("identity:\n  jwt:\n    - {{ {item} }}\n")).unwrap_err().to_string();
    assert!(error.contains(expected), "{item}: {error}");
    assert!(!error.contains("canary"), "{error}");
}

#[test]
fn mistakes_name_key_value_and_remedy() {
    let with = |more: &str| format!("{GOOD}, {more}");
    check("name: a", "identity.jwt[0].audience: the key is missing");
    check(&GOOD.replace(", team: t", ""), "identity.jwt[0].team: nothing says the team");
    check(&GOOD.replace("audience: bursar", "audience: []"), "identity.jwt[0].audience: there is none");
    check(&GOOD.replace(", jwks_url: 'https://i.test/jwks'", ""), "nothing says where its keys are");
    check(&with("jwks_file: /x"), "its keys are in two places");
    check(&with("algorithms: [HS256]"), "\"HS256\" is no signature that only the issuer can make");
    check(&with("algorithms: none"), "\"none\" is no signature");
    check(&with("algorithms: ES512"), "use one of RS256, RS384");
    check(&with("algorithms: []"), "identity.jwt[0].algorithms: there is none");
    check(&with("header: host"), "cannot carry a secret");
    check(&with("header: x-bursar-team"), "cannot carry a secret");
    check(&with("leeway: 6m"), "is above the most, 5m");
    check(&with("refresh: 1s"), "is below the least, 30s");
    check(&with("refresh: 25h"), "keys would be too old before they are read anew");
    check(&with("require: { a: [] }"), "identity.jwt[0].require.a: there is no value");
    check(&with("require: { a..b: x }"), "is no way to a claim");
    check(&with("require: [a]"), "write claims and values");
    check(&with("claims: { team: x }"), "team is written here and beside it");
    check(
        &with("claims: { workload: 'a..b' }"),
        "identity.jwt[0].claims.workload: \"a..b\" is no way to a claim",
    );
    check(&with("claims: { group: x }"), "identity.jwt[0].claims.group: this key is unknown");
    check(&with("claims: { tags: { 'A b': x } }"), "is not a tag's name");
    check(&with("secret: canary"), "identity.jwt[0].secret: this key is unknown");
    check(&with("routes: [/opanai]"), "did you mean \"/openai\"?");
    check(&format!("{GOOD} }}\n    - {{ {GOOD}"), "is also the name of the issuer on line 3");
    check(&with("token_file: canary"), "token_file: the value (not shown) cannot be read");
    check(&with("ca_file: /nowhere"), "ca_file: \"/nowhere\" cannot be read: it does not exist");
}

#[test]
fn files_with_keys_are_read_and_watched_and_their_mistakes_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let item = |key: &str| {
        let source = format!("{key}: '{}'", path.display());
        GOOD.replace("jwks_url: 'https://i.test/jwks'", &source)
    };
    std::fs::write(&path, "{}").unwrap();
    check(&item("jwks_file"), "is no JSON object with a list of keys");
    check(&item("public_key_file"), "is no public key in PEM");
    check(&format!("{}, token_file: /x", item("jwks_file")), "only used to fetch keys");
    let key = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    std::fs::write(&path, format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{key}"}}]}}"#)).unwrap();
    check(&format!("{}, algorithms: RS256", item("jwks_file")), "has no key for any of `algorithms`");
    let config = load(&format!("identity:\n  jwt:\n    - {{ {} }}\n", item("jwks_file"))).unwrap();
    assert!(config.watched.contains(&path));
    assert!(config.issuers.all().next().unwrap().keys().usable(Duration::ZERO).is_some());
    std::fs::remove_file(&path).unwrap();
    check(&item("jwks_file"), "it does not exist");
}
