//! Tests of virtual keys: form, hashes, rotation, time.

use super::*;
use proptest::prelude::*;

const ID: &str = "0123456789abcdef";

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn key(secrets: Vec<Secret>) -> Key {
    Key {
        name: label("bot"),
        id: KeyId::parse(ID).unwrap(),
        secrets,
        not_before: None,
        expires: None,
        team: label("checkout"),
        workloads: Vec::new(),
        customer: None,
        tags: Tags::default(),
        grant: Grant::default(),
    }
}

fn made() -> NewKey {
    NewKey::make(KeyId::parse(ID)).unwrap()
}

fn hash_of(new: &NewKey, pepper: &Pepper) -> KeyHash {
    PresentedKey::parse(new.expose().as_bytes()).unwrap().hash(pepper)
}

fn secret(new: &NewKey, expires: Option<i64>) -> Secret {
    Secret { hash: hash_of(new, &Pepper::default()), expires: expires.map(at) }
}

fn verify(keys: &Keys, text: &str, now: i64) -> Result<Label, KeyError> {
    keys.verify(PresentedKey::parse(text.as_bytes()).unwrap(), at(now)).map(|found| found.name.clone())
}

#[test]
fn a_new_key_has_the_form_that_is_read_and_no_other_has() {
    let new = NewKey::make(None).unwrap();
    let text = new.expose();
    assert!(PresentedKey::parse(text.as_bytes()).is_some());
    assert_eq!(text.len(), PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS);
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "a token of RFC 9110");
    assert_ne!(text, NewKey::make(None).unwrap().expose());
    for other in
        ["", "bursar_", &text[1..], &text[..text.len() - 1], &format!("{text}0"), &text.to_uppercase()]
    {
        assert!(PresentedKey::parse(other.as_bytes()).is_none(), "{other}");
    }
}

#[test]
fn nothing_of_a_secret_is_shown() {
    let new = made();
    let presented = PresentedKey::parse(new.expose().as_bytes()).unwrap();
    let keys = Keys::new(&[key(vec![secret(&new, None)])], &Pepper::new("pepper-canary"));
    let hash = hash_of(&new, &Pepper::default()).to_string();
    let shown = format!("{new:?} {presented:?} {keys:?} {:?}", Pepper::new("pepper-canary"));
    let secret = new.expose().rsplit('_').next().unwrap();
    for canary in [secret, "pepper-canary", &hash[3..]] {
        assert!(!shown.contains(canary), "{shown}");
    }
}

#[test]
fn a_hash_survives_being_written_and_read() {
    for pepper in [Pepper::default(), Pepper::new("p")] {
        let hash = hash_of(&made(), &pepper);
        let text = hash.to_string();
        assert_eq!(KeyHash::parse(&text), Some(hash), "{text}");
        assert_eq!(text.starts_with("b3p:"), hash.is_peppered());
    }
    for wrong in ["", "b3:", "b3:zz", "sha256:00", &"0".repeat(64)] {
        assert!(KeyHash::parse(wrong).is_none(), "{wrong}");
    }
}

#[test]
fn a_hash_of_this_version_stays_good() {
    let text = format!("bursar_{ID}_{}", "5".repeat(SECRET_CHARS));
    let key = PresentedKey::parse(text.as_bytes()).unwrap();
    assert_eq!(key.hash(&Pepper::default()).to_string(), GOLDEN_PLAIN);
    assert_eq!(key.hash(&Pepper::new("pepper")).to_string(), GOLDEN_PEPPERED);
}

/// A change of these would lock out every key that is in use.
const GOLDEN_PLAIN: &str = "b3:0e79bf2d30edcce9c91e959c3ca7e3d1d0588b9f87a598b82e82d6bbb5d5db47";
const GOLDEN_PEPPERED: &str = "b3p:c8cc832d7d665ed415ea9dfa569fb654204840796c6e395a3bed1f15bcb4f39d";

#[test]
fn only_the_secret_itself_is_accepted() {
    let (new, other) = (made(), made());
    let keys = Keys::new(&[key(vec![secret(&new, None)])], &Pepper::default());
    assert_eq!(verify(&keys, new.expose(), 0), Ok(label("bot")));
    assert_eq!(verify(&keys, other.expose(), 0), Err(KeyError::Unknown));
    let near = |at: usize| {
        let mut near = new.expose().to_owned();
        let digit = if near.as_bytes()[at] == b'0' { "1" } else { "0" };
        near.replace_range(at..=at, digit);
        near
    };
    let length = new.expose().len();
    for at in [PREFIX.len() + ID_CHARS + 1, length / 2, length - 1, PREFIX.len()] {
        assert_eq!(verify(&keys, &near(at), 0), Err(KeyError::Unknown), "digit {at}");
    }
    let stranger = NewKey::make(None).unwrap();
    assert_eq!(verify(&keys, stranger.expose(), 0), Err(KeyError::Unknown));
    // No hash of zeroes lets anybody in by way of the comparisons that always happen.
    assert_eq!(
        verify(&Keys::new(&[key(Vec::new())], &Pepper::default()), new.expose(), 0),
        Err(KeyError::Unknown)
    );
}

#[test]
fn a_hash_is_good_for_its_own_id_and_pepper_alone() {
    let new = made();
    let mut other = key(vec![secret(&new, None)]);
    other.id = KeyId::parse("fedcba9876543210").unwrap();
    let moved = new.expose().replace(ID, "fedcba9876543210");
    assert_eq!(verify(&Keys::new(&[other], &Pepper::default()), &moved, 0), Err(KeyError::Unknown));

    let pepper = Pepper::new("one");
    let peppered = key(vec![Secret { hash: hash_of(&new, &pepper), expires: None }]);
    let peppered = [peppered];
    assert!(verify(&Keys::new(&peppered, &pepper), new.expose(), 0).is_ok());
    assert!(verify(&Keys::new(&peppered, &Pepper::new("two")), new.expose(), 0).is_err());
    let plain = key(vec![secret(&new, None)]);
    assert!(verify(&Keys::new(&[plain], &pepper), new.expose(), 0).is_ok(), "made before there was a pepper");
}

#[test]
fn a_key_is_good_from_its_beginning_to_just_before_its_end() {
    let new = made();
    let mut bounded = key(vec![secret(&new, None)]);
    (bounded.not_before, bounded.expires) = (Some(at(1_000_000)), Some(at(2_000_000)));
    let keys = Keys::new(&[bounded], &Pepper::default());
    let when = |now| verify(&keys, new.expose(), now);
    assert_eq!(
        when(999_999),
        Err(KeyError::NotYet { name: label("bot"), from: "1970-01-01T00:00:01Z".to_owned() })
    );
    assert!(when(1_000_000).is_ok() && when(1_999_999).is_ok());
    assert_eq!(
        when(2_000_000),
        Err(KeyError::Expired { name: label("bot"), at: "1970-01-01T00:00:02Z".to_owned() })
    );
    assert_eq!(
        verify(&keys, made().expose(), 0),
        Err(KeyError::Unknown),
        "its times are not told to strangers"
    );
}

#[test]
fn two_secrets_are_good_while_they_overlap() {
    let (old, new) = (made(), made());
    let keys = Keys::new(&[key(vec![secret(&new, None), secret(&old, Some(5))])], &Pepper::default());
    assert!(verify(&keys, old.expose(), 4).is_ok() && verify(&keys, new.expose(), 4).is_ok());
    assert!(matches!(verify(&keys, old.expose(), 5), Err(KeyError::Expired { .. })));
    assert!(verify(&keys, new.expose(), 5).is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = PresentedKey::parse(&text);
        let lossy = String::from_utf8_lossy(&text);
        let _ = (KeyHash::parse(&lossy), KeyId::parse(&lossy));
    }
}
