//! Which keys are kept, and when they are read anew.

use super::*;
use serde_json::json;

/// Public keys that were published as examples: RFC 7517 appendix A.1 (RSA, P-256) and RFC 8037 appendix A.2.
const MODULUS: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
const P256: (&str, &str) =
    ("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
const ED25519: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn rsa() -> Value {
    json!({ "kty": "RSA", "kid": "r", "n": MODULUS, "e": "AQAB" })
}

fn ec() -> Value {
    json!({ "kty": "EC", "kid": "e", "crv": "P-256", "x": P256.0, "y": P256.1 })
}

fn ed() -> Value {
    json!({ "kty": "OKP", "kid": "d", "crv": "Ed25519", "x": ED25519 })
}

fn with(mut key: Value, name: &str, value: Value) -> Value {
    key[name] = value;
    key
}

fn check(key: &Value, expected: Option<&[Algorithm]>) {
    let read = read_jwks(json!({ "keys": [key] }).to_string().as_bytes());
    let algorithms = read.as_ref().ok().map(|keys| keys[0].algorithms.as_slice());
    assert_eq!(algorithms, expected, "{key} {read:?}");
}

#[test]
fn public_keys_of_signatures_are_read_with_their_algorithms() {
    check(&rsa(), Some(RSA));
    check(&with(rsa(), "alg", json!("PS384")), Some(&[Algorithm::PS384]));
    check(&with(rsa(), "use", json!("sig")), Some(RSA));
    check(&with(rsa(), "key_ops", json!(["verify"])), Some(RSA));
    check(&with(rsa(), "x5c", json!(["MIIC"])), Some(RSA));
    check(&ec(), Some(&[Algorithm::ES256]));
    check(&ed(), Some(&[Algorithm::EdDSA]));
}

#[test]
fn keys_for_anything_else_and_weak_ones_are_none() {
    check(&json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0" }), None);
    check(&with(rsa(), "use", json!("enc")), None);
    check(&with(rsa(), "key_ops", json!(["encrypt"])), None);
    check(&with(rsa(), "alg", json!("RSA-OAEP")), None);
    check(&with(rsa(), "alg", json!("HS256")), None);
    check(&with(rsa(), "alg", json!("ES256")), None);
    check(&with(rsa(), "n", json!(&MODULUS[..171])), None);
    check(&with(rsa(), "n", json!(format!("AAAA{}", &MODULUS[..300]))), None);
    check(&with(rsa(), "n", json!("not base 64!")), None);
    check(&with(rsa(), "kid", json!("k".repeat(KID_BYTES_MAX + 1))), None);
    check(&with(ec(), "crv", json!("P-521")), None);
    check(&with(ec(), "crv", json!("secp256k1")), None);
    check(&with(ec(), "x", json!("AA")), None);
    check(&with(ed(), "crv", json!("X25519")), None);
    check(&with(ed(), "x", json!("AA")), None);
    check(&json!({}), None);
    check(&json!(7), None);
}

#[test]
fn a_key_that_cannot_be_used_leaves_the_others() {
    let set = json!({ "keys": [{ "kty": "new" }, rsa(), { "kty": "oct", "k": "AA" }, ed()] });
    let keys = read_jwks(set.to_string().as_bytes()).unwrap();
    assert_eq!(keys.iter().map(|key| key.kid.as_deref().unwrap()).collect::<Vec<_>>(), ["r", "d"]);
    assert!(!format!("{keys:?}").contains(ED25519));
}

#[test]
fn what_is_no_set_of_keys_is_named() {
    let deep = "[".repeat(100_000);
    for (text, expected) in [
        ("", JwksError::Shape),
        ("<html>", JwksError::Shape),
        ("[]", JwksError::Shape),
        (r#"{"keys":{}}"#, JwksError::Shape),
        (&*deep, JwksError::Shape),
        (r#"{"keys":[]}"#, JwksError::None),
    ] {
        assert_eq!(read_jwks(text.as_bytes()).unwrap_err(), expected);
    }
    let many = json!({ "keys": vec![ed(); KEYS_MAX + 1] });
    assert_eq!(read_jwks(many.to_string().as_bytes()).unwrap_err(), JwksError::TooMany);
}

#[test]
fn what_is_no_public_key_in_pem_is_named() {
    for text in ["", "ssh-ed25519 AAAA", "-----BEGIN PUBLIC KEY-----\nAA"] {
        assert_eq!(read_pem(text.as_bytes()).unwrap_err(), JwksError::Pem, "{text}");
    }
    for body in ["", "MAA=", "MCowBQYDK2VuAyEAAAAA", "MAMGASo="] {
        let text = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        assert_eq!(read_pem(text.as_bytes()).unwrap_err(), JwksError::None, "{text}");
    }
}

#[test]
fn der_is_read_within_its_bounds_only() {
    assert_eq!(der(&[0x30, 1, 7, 9], 0x30), Some((&[7][..], &[9][..])));
    assert_eq!(der(&[0x30, 0x81, 1, 7], 0x30), Some((&[7][..], &[][..])));
    assert_eq!(der(&[0x30, 0x82, 0, 1, 7], 0x30), Some((&[7][..], &[][..])));
    for bytes in [&[][..], &[0x30], &[0x30, 2, 7], &[0x30, 0x81], &[0x30, 0x82, 0], &[0x30, 0x84, 0, 0, 0, 0]]
    {
        assert_eq!(der(bytes, 0x30), None, "{bytes:?}");
    }
}

const REFRESH: Duration = Duration::from_secs(900);
const STALE: Duration = Duration::from_secs(3_600);

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

fn one() -> Vec<VerifyKey> {
    read_jwks(json!({ "keys": [ed()] }).to_string().as_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn keys_are_due_at_once_then_every_refresh_and_never_twice_at_a_time() {
    let store = KeyStore::default();
    assert!(store.usable(STALE).is_none());
    assert!(store.begin(REFRESH) && !store.begin(REFRESH));
    assert!(!store.keep(one(), b"1"));
    pass(899).await;
    assert!(!store.begin(REFRESH));
    pass(1).await;
    assert!(store.begin(REFRESH));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_waits_for_half_a_minute_since_the_last_time() {
    let store = KeyStore::default();
    assert!(store.begin(REFRESH));
    store.keep(one(), b"1");
    for _ in 0..1_000 {
        store.ask();
    }
    pass(29).await;
    assert!(!store.begin(REFRESH));
    pass(1).await;
    assert!(store.begin(REFRESH));
    store.keep(one(), b"1");
    pass(60).await;
    assert!(!store.begin(REFRESH), "it was asked for once");
}

#[tokio::test(start_paused = true)]
async fn after_failures_it_is_tried_again_later_and_later() {
    let store = KeyStore::default();
    let mut waited = Vec::new();
    for number in 0..8 {
        let mut seconds = 0;
        while !store.begin(REFRESH) {
            pass(1).await;
            seconds += 1;
        }
        waited.push(seconds);
        store.ask();
        assert_eq!(store.failed(), number == 0, "only the first one is new");
    }
    assert_eq!(waited, [0, 1, 2, 4, 8, 16, 30, 30]);
    pass(30).await;
    assert!(store.begin(REFRESH));
    assert!(store.keep(one(), b"1"), "they are to be had again");
}

#[tokio::test(start_paused = true)]
async fn keys_are_used_up_to_their_limit_and_the_same_ones_keep_their_generation() {
    let store = KeyStore::default();
    store.keep(one(), b"1");
    pass(3_600).await;
    assert_eq!(store.usable(STALE).unwrap().generation, 1);
    pass(1).await;
    assert!(store.usable(STALE).is_none());
    store.keep(one(), b"1");
    assert_eq!(store.usable(STALE).unwrap().generation, 1);
    store.keep(one(), b"2");
    assert_eq!(store.usable(STALE).unwrap().generation, 2);
    let fixed = KeyStore::fixed(one());
    pass(1_000_000).await;
    assert!(fixed.usable(STALE).is_some(), "those of a file do not grow old");
}
