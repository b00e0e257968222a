//! Tests of the walker: what it reports, that slicing changes nothing, that hostile input costs nothing.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

static ELEMENT: Node = Node::object(&[("n", Node::scalar(4))]).marked(5);
static TEST: Node = Node::object(&[
    ("a", Node::scalar(1)),
    ("whole", Node::whole(2)),
    ("deep", Node::object(&[("a", Node::scalar(3))])),
    ("list", Node::array(&ELEMENT).marked(6)),
    ("mixed", Node::object(&[("x", Node::scalar(7))]).marked(8).or_scalar(8)),
])
.marked(9);

#[derive(Debug, Default, PartialEq, Eq)]
struct Log(Vec<String>);

impl Sink for Log {
    fn value(&mut self, id: u8, raw: &[u8], at: u64) {
        self.0.push(format!("{id}={}@{at}", String::from_utf8_lossy(raw)));
    }
    fn too_long(&mut self, id: u8) {
        self.0.push(format!("{id} too long"));
    }
    fn open(&mut self, id: u8, at: u64) {
        self.0.push(format!("{id}(@{at}"));
    }
    fn close(&mut self, id: u8, at: u64, items: u64) {
        self.0.push(format!("{id})@{at} of {items}"));
    }
    fn other_kind(&mut self, id: u8) {
        self.0.push(format!("{id} of another kind"));
    }
    fn duplicate(&mut self) {
        self.0.push("twice".to_owned());
    }
}

fn walk<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, bool, bool) {
    let (mut scanner, mut log) = (Scanner::new(&TEST), Log::default());
    for piece in pieces {
        scanner.feed(piece, &mut log);
    }
    scanner.finish(&mut log);
    (log.0, scanner.is_complete(), scanner.is_malformed())
}

fn check(text: &str, expected: &[&str]) {
    let (log, complete, malformed) = walk([text.as_bytes()]);
    assert_eq!(log, expected, "{text}");
    assert!(complete && !malformed, "{text}");
    slices(text);
}

fn slices(text: &str) {
    let whole = walk([text.as_bytes()]);
    for at in 0..=text.len() {
        let (a, b) = text.as_bytes().split_at(at);
        assert_eq!(walk([a, b]), whole, "{text} cut at {at}");
    }
    for size in [1, 2, 3, 7, 17] {
        assert_eq!(walk(text.as_bytes().chunks(size)), whole, "{text} in pieces of {size}");
    }
}

#[test]
fn values_at_wanted_paths_are_reported_and_others_skipped() {
    check(
        r#"{"b":{"a":1,"x":[{"a":"}]\""}]},"a":12,"deep":{"b":[],"a":"\\"}}"#,
        &["9(@0", "1=12@36", r#"3="\\"@58"#, "9)@63 of 3"],
    );
    check(
        " {\n \"a\" :\tnull ,\r\n\"whole\" : { \"a\" : [ 1 , \"]}\" ] } } \n",
        &["9(@1", "1=null@10", "2={ \"a\" : [ 1 , \"]}\" ] }@28", "9)@51 of 2"],
    );
}

#[test]
fn elements_are_reported_one_by_one_and_counted() {
    check(
        r#"{"list":[{"n":1},{},7,{"n":-2.5e3}]}"#,
        &[
            "9(@0",
            "6(@8",
            "5(@9",
            "4=1@14",
            "5)@15 of 1",
            "5(@17",
            "5)@18 of 0",
            "5(@22",
            "4=-2.5e3@27",
            "5)@33 of 1",
            "6)@34 of 4",
            "9)@35 of 1",
        ],
    );
    check(r#"{"list":[]}"#, &["9(@0", "6(@8", "6)@9 of 0", "9)@10 of 1"]);
}

#[test]
fn places_may_hold_what_was_not_expected() {
    check(r#"{"a":{"a":1},"deep":3,"list":"x","mixed":null}"#, &["9(@0", "8=null@41", "9)@45 of 4"]);
    check(r#"{"mixed":[1]}"#, &["9(@0", "8 of another kind", "9)@12 of 1"]);
    check("[1,2]", &["9 of another kind"]);
    check("17", &[]);
    check("\"a\"", &[]);
}

#[test]
fn keys_are_compared_unescaped_and_whole() {
    check(r#"{"\u0061":1,"a ":2,"A":3,"aa":4}"#, &["9(@0", "1=1@10", "9)@31 of 4"]);
    let long = format!("{{\"{}a\":1,\"a\":2}}", "x".repeat(100));
    check(&long, &["9(@0", "1=2@111", "9)@112 of 2"]);
}

#[test]
fn a_repeated_key_is_reported_again_and_told() {
    check(r#"{"a":1,"a":2}"#, &["9(@0", "1=1@5", "twice", "1=2@11", "9)@12 of 2"]);
}

#[test]
fn numbers_that_are_no_json_pass_as_text() {
    check(r#"{"a":NaN}"#, &["9(@0", "1=NaN@5", "9)@8 of 1"]);
    check(r#"{"a":-Infinity}"#, &["9(@0", "1=-Infinity@5", "9)@14 of 1"]);
}

#[test]
fn damage_stops_the_walk_and_is_told() {
    for text in [
        "{a:1}",
        "{\"a\" 1}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1]",
        "{\"a\":<",
        "<html>",
        "{\"a\":1;}",
        "{,}",
        "{}{}",
        "{} x",
    ] {
        let (_, complete, malformed) = walk([text.as_bytes()]);
        assert!(malformed && !complete, "{text}");
        slices(text);
    }
    for text in ["", " ", "{", "{\"a", "{\"a\":1", "{\"a\":\"x\\", "[[[", "{\"whole\":{"] {
        let (_, complete, malformed) = walk([text.as_bytes()]);
        assert!(!malformed && !complete, "{text}");
        slices(text);
    }
}

#[test]
fn a_value_over_the_limit_is_announced_and_not_kept() {
    let text = format!("{{\"a\":\"{}\",\"whole\":1}}", "x".repeat(VALUE_BYTES_MAX));
    for size in [1_000, text.len()] {
        let (log, ..) = walk(text.as_bytes().chunks(size));
        assert_eq!(log[1], "1 too long");
        assert!(log[2].starts_with("2=1@"));
    }
}

#[test]
fn any_depth_of_unwanted_nesting_is_a_counter() {
    for open in ["[", "{\"x\":", "[{\"x\":"] {
        let close = match open {
            "[" => "]",
            "{\"x\":" => "}",
            _ => "}]",
        };
        let text = format!("{{\"b\":{}1{},\"a\":5}}", open.repeat(200_000), close.repeat(200_000));
        let (log, complete, _) = walk(text.as_bytes().chunks(4_099));
        assert!(complete && log[1].starts_with("1=5@"), "{open}");
    }
}

#[test]
fn a_document_taken_up_at_its_checkpoint_reads_the_same() {
    static ROOT: Node =
        Node::object(&[("a", Node::scalar(1)), ("list", Node::array(&ELEMENT).marked(6).with_checkpoint())]);
    #[derive(Default)]
    struct Willing(Log);
    impl Sink for Willing {
        fn value(&mut self, id: u8, raw: &[u8], at: u64) {
            self.0.value(id, raw, at);
        }
        fn close(&mut self, id: u8, at: u64, items: u64) {
            self.0.close(id, at, items);
        }
        fn may_skip_prefix(&self) -> bool {
            true
        }
    }
    let text = br#"{"a":"same","list":[{"n":1}],"a":2}"#;
    let (mut scanner, mut first) = (Scanner::new(&ROOT), Willing::default());
    scanner.feed(text, &mut first);
    let checkpoint = scanner.checkpoint().unwrap();
    assert_eq!(checkpoint.length(), 19);
    let mut second = Willing::default();
    scanner.resume(&checkpoint);
    scanner.feed(&text[19..], &mut second);
    assert!(scanner.is_complete());
    assert_eq!(second.0.0, first.0.0[1..]);
}

#[test]
fn text_is_unescaped_and_empty_text_is_none() {
    assert_eq!(text_of(br#""a\u00e9\n""#).as_deref(), Some("aé\n"));
    assert_eq!(text_of(br#""""#), None);
    assert_eq!(text_of(b"12"), None);
    assert_eq!(text_of(b"\"\xFF\"").as_deref(), Some("\u{fffd}"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z\"\\\\\\[\\]{}:,é]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(
                (
                    prop_oneof![Just("a"), Just("whole"), Just("deep"), Just("list"), Just("n"), Just("b")],
                    inner
                ),
                0..5
            )
            .prop_map(|members| Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// What the walker must report of `value` without offsets: wanted scalars and whole values.
fn reference(value: &Value) -> Vec<String> {
    fn scalar(found: &mut Vec<String>, id: u8, value: Option<&Value>) {
        if let Some(value) = value.filter(|value| !value.is_object() && !value.is_array()) {
            found.push(format!("{id}={value}"));
        }
    }
    let mut found = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "a" => scalar(&mut found, 1, Some(value)),
            "whole" => found.push(format!("2={value}")),
            "deep" => scalar(&mut found, 3, value.get("a")),
            "list" => {
                for element in value.as_array().into_iter().flatten() {
                    scalar(&mut found, 4, element.get("n"));
                }
            }
            _ => {}
        }
    }
    found
}

proptest! {
    #[test]
    fn any_document_gives_what_a_parser_finds_in_any_slices(
        value in any_json(), sizes in prop::collection::vec(1_usize..9, 1..30),
    ) {
        let text = serde_json::to_string(&value).unwrap();
        let whole = walk([text.as_bytes()]);
        prop_assert!(whole.1, "{}", text);
        let found: Vec<String> = whole.0.iter().filter_map(|line| {
            let (before, _) = line.rsplit_once('@')?;
            before.contains('=').then(|| before.to_owned())
        }).collect();
        prop_assert_eq!(found, reference(&value));
        let mut rest = text.as_bytes();
        let mut pieces = Vec::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(walk(pieces), whole);
    }

    #[test]
    fn any_bytes_are_survived_alike_in_any_slices(bytes in prop::collection::vec(
        prop_oneof![Just(b'"'), Just(b'\\'), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b','), Just(b':'),
            Just(b'a'), Just(b'1'), Just(b' '), any::<u8>()], 0..60)) {
        let whole = walk([bytes.as_slice()]);
        prop_assert_eq!(walk(bytes.chunks(1)), whole.clone());
        prop_assert_eq!(walk(bytes.chunks(3)), whole);
    }
}
