//! Counts against the reference: own vectors, the corpus beside the repository, and strings made up.
//!
//! The own vectors' figures are Python tiktoken 0.14's (`encode_ordinary`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: any failure must end it"
)]

use bursar_tokens::{Encoding, StreamCounter, rough};
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;

/// `(text, cl100k_base, o200k_base)`.
const OWN: &[(&str, u64, u64)] = include!("own_vectors.in");

fn count(encoding: Encoding, text: &str) -> u64 {
    encoding.count(text).unwrap()
}

/// The count of `text` when it comes in pieces of `size` bytes.
fn streamed(encoding: Encoding, text: &str, size: usize, tail_max: usize) -> bursar_tokens::Counted {
    let mut counter = StreamCounter::with_tail(encoding.tokenizer().unwrap(), tail_max);
    for piece in text.as_bytes().chunks(size) {
        counter.push_bytes(piece);
    }
    counter.so_far()
}

fn check(id: &str, encoding: Encoding, text: &str, expected: u64) {
    assert_eq!(count(encoding, text), expected, "{id} {} {:?}", encoding.name(), text.get(..60));
    let sizes: &[usize] = if text.len() > 100_000 { &[4_096] } else { &[1, 7, 1_000] };
    for size in sizes {
        let counted = streamed(encoding, text, *size, 4 << 20);
        assert!(counted.exact);
        assert_eq!(counted.tokens, expected, "{id} {} in pieces of {size}", encoding.name());
    }
}

#[test]
fn own_vectors_are_counted_as_the_reference_does() {
    assert!(OWN.len() >= 40);
    for (text, cl100k, o200k) in OWN {
        check("own", Encoding::Cl100kBase, text, *cl100k);
        check("own", Encoding::O200kBase, text, *o200k);
        check("own", Encoding::O200kHarmony, text, *o200k);
    }
}

/// SplitMix64, as the corpus generates its texts.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn text_of(vector: &Value) -> String {
    if let Some(text) = vector["text"].as_str() {
        return text.to_owned();
    }
    let spec = &vector["spec"];
    let n = usize::try_from(spec["n"].as_u64().unwrap()).unwrap();
    let part = |name: &str| spec[name].as_str().unwrap_or_default();
    let mut draws = Draws(spec["seed"].as_u64().unwrap_or(0));
    match part("gen") {
        "repeat" => [part("head"), &part("unit").repeat(n), part("tail")].concat(),
        "pick" => {
            let items = spec["items"].as_array().unwrap();
            let mut pick = || {
                let at = usize::try_from(draws.next() % items.len() as u64).unwrap();
                items[at].as_str().unwrap()
            };
            (0..n).map(|_| pick()).collect()
        }
        "codepoints" => {
            let (lo, hi) = (spec["lo"].as_u64().unwrap(), spec["hi"].as_u64().unwrap());
            let draw = || u32::try_from(lo + draws.next() % (hi - lo + 1)).ok().and_then(char::from_u32);
            std::iter::repeat_with(draw).flatten().take(n).collect()
        }
        "bytes_lossy" => {
            let bytes: Vec<u8> = (0..n).map(|_| (draws.next() % 256) as u8).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        other => panic!("unknown generator {other}"),
    }
}

#[test]
fn the_corpus_is_counted_as_the_reference_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/tokens.json");
    let Ok(file) = std::fs::read(&path) else {
        println!("SKIPPED: no corpus of token counts beside the repository");
        return;
    };
    let corpus: Value = serde_json::from_slice(&file).unwrap();
    let vectors = corpus["vectors"].as_array().unwrap();
    for vector in vectors {
        let encoding = Encoding::from_name(vector["encoding"].as_str().unwrap()).unwrap();
        let (id, text) = (vector["id"].as_str().unwrap(), text_of(vector));
        assert_eq!(text.len() as u64, vector["bytes"].as_u64().unwrap(), "{id}: the generator works");
        check(id, encoding, &text, vector["expected"].as_u64().unwrap());
    }
    println!("{} vectors", vectors.len());
}

/// Pieces whose joints are where rules differ.
fn pieces() -> impl Strategy<Value = String> {
    let joints: &'static [&'static str] = &[
        "'s",
        "'S",
        "'ſ",
        "'re",
        "'LL",
        "'d",
        "'",
        "’",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "\u{85}",
        "\u{2028}",
        "the",
        " token",
        "ABC",
        "aB",
        "Ab",
        "é",
        "ſ",
        "K",
        "ǅ",
        "ʰ",
        "中",
        "の",
        "ก",
        "ा",
        "\u{301}",
        "\u{200d}",
        "👩",
        "😀",
        "1",
        "22",
        "333",
        "4444",
        "²",
        "٣",
        "Ⅷ",
        "/",
        "//",
        "...",
        "{\"",
        "_",
        "-",
        "\0",
        "<|endoftext|>",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(joints).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[a-zA-Z]{1,60}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        option_env!("TOKENS_CASES").map_or(512, |cases| cases.parse().unwrap())
    ))]

    #[test]
    fn any_text_is_counted_as_the_reference_does(text in pieces()) {
        let reference = tiktoken_rs::cl100k_base_singleton().encode_ordinary(&text).len() as u64;
        prop_assert_eq!(count(Encoding::Cl100kBase, &text), reference);
        let reference = tiktoken_rs::o200k_base_singleton().encode_ordinary(&text).len() as u64;
        prop_assert_eq!(count(Encoding::O200kBase, &text), reference);
    }

    #[test]
    fn text_in_pieces_of_any_size_is_counted_like_the_whole(
        text in pieces(), times in 1_usize..12, sizes in prop::collection::vec(1_usize..300, 1..20),
    ) {
        let text = text.repeat(times);
        for encoding in [Encoding::Cl100kBase, Encoding::O200kBase] {
            let mut counter = StreamCounter::new(encoding.tokenizer().unwrap());
            let mut rest = text.as_bytes();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*size));
                counter.push_bytes(now);
                rest = later;
            }
            prop_assert_eq!(counter.so_far().tokens, count(encoding, &text));
        }
    }

    #[test]
    fn bytes_that_are_no_text_count_as_their_replacement(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let lossy = String::from_utf8_lossy(&bytes);
        let mut counter = StreamCounter::new(Encoding::O200kBase.tokenizer().unwrap());
        for byte in &bytes {
            counter.push_bytes(&[*byte]);
        }
        prop_assert_eq!(counter.so_far().tokens, count(Encoding::O200kBase, &lossy));
    }

    #[test]
    fn estimates_and_bounds_are_bounded_by_the_bytes(text in pieces()) {
        let tokenizer = Encoding::O200kBase.tokenizer().unwrap();
        prop_assert_eq!(tokenizer.upper_bound(&text), tokenizer.count(&text));
        prop_assert!(tokenizer.count(&text) <= bursar_tokens::strict_bound(&text));
        prop_assert!(rough(&text) <= 8 * text.len() as u64 + 1);
    }
}

#[test]
fn the_vocabularies_are_the_published_ones() {
    for (encoding, tokens) in [(Encoding::Cl100kBase, 100_256), (Encoding::O200kBase, 199_998)] {
        let tokenizer = encoding.tokenizer().unwrap();
        assert_eq!(tokenizer.tokens(), tokens);
        let reference = match encoding {
            Encoding::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
            _ => tiktoken_rs::o200k_base_singleton(),
        };
        for rank in (0..u32::try_from(tokens).unwrap()).step_by(37) {
            assert_eq!(tokenizer.token(rank), reference.decode_bytes(&[rank]).unwrap(), "rank {rank}");
        }
    }
}

#[test]
fn a_word_without_end_is_held_up_to_the_limit_and_its_figure_says_so() {
    let text = "x".repeat(300_000);
    let counted = streamed(Encoding::O200kBase, &text, 1_000, 64 * 1024);
    let whole = count(Encoding::O200kBase, &text);
    assert!(!counted.exact);
    assert!(counted.tokens.abs_diff(whole) <= 5, "{counted:?} {whole}");
}

#[test]
fn the_bound_of_a_long_text_is_over_its_count_and_not_far() {
    let tokenizer = Encoding::O200kBase.tokenizer().unwrap();
    let prose = "The writer prices the record, appends a group of records and syncs it. ".repeat(2_000);
    let code =
        "    if let Some(frame) = self.frames.get_mut(self.depth) { frame.items += 1; }\n".repeat(2_000);
    let numbers: String = (0..30_000).map(|n| format!("{},", n * 7_919)).collect();
    for text in [&prose, &code, &numbers, &format!("{prose}{numbers}")] {
        let (bound, whole) = (tokenizer.upper_bound(text), tokenizer.count(text));
        assert!(bound >= whole && bound <= whole * 13 / 10, "{bound} for {whole}");
        let sampled = tokenizer.sampled(text);
        assert!(sampled.abs_diff(whole) <= whole / 8, "{sampled} for {whole}");
    }
}

#[test]
fn a_rough_estimate_is_within_a_third_for_ordinary_text() {
    let prose = "Bursar is a sidecar: it relays requests to LLM providers, reads what they used from the \
        replies as they pass, and keeps the account in an embedded ledger. Everything follows from three \
        wishes: money is right, traffic keeps flowing, a stranger can read the code.";
    let code = "fn settle(&mut self, ending: Ending) -> Option<Receipt> {\n    if self.state != State::Sent \
        {\n        return None;\n    }\n    self.state = State::Settled;\n}\n";
    let json =
        "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello there\"}],\"n\":1}";
    let german = "Der Schreiber bewertet den Eintrag, hängt ihn an das Journal und wartet auf die Platte.";
    let chinese = "记账员为每条记录定价，将其追加到日志中，然后等待磁盘。";
    for text in [prose, code, json, german, chinese] {
        let (rough, whole) = (rough(text), count(Encoding::O200kBase, text));
        assert!(rough.abs_diff(whole) * 3 <= whole, "{rough} for {whole}: {text}");
    }
}
