//! Whether a served model is the requested one, perhaps under a longer name.
//!
//! Invariants
//! - A date, a version's trailing zero, a vendor's prefix, a path, `latest` or the order of the words
//!   make no difference; anything else does.
//!
//! Not here: what a model costs (`policies::price`).

/// Where the requested name is the caller's own, what serves it has another.
const OWN_COLLECTIONS: &[&str] = &["tunedModels/", "endpoints/"];

/// Words that name no model.
const NOISE: &[&str] = &["latest", "preview", "gguf", "0"];

/// Whether `served` is `requested` or a dated or otherwise longer name of it.
#[must_use]
pub fn is_same_model(requested: &str, served: &str) -> bool {
    let own = OWN_COLLECTIONS.iter().any(|collection| requested.starts_with(collection));
    own || requested == served || is_dated(requested, served) || words(requested) == words(served)
}

/// Whether `served` is `requested` and a date: what nearly every provider answers.
fn is_dated(requested: &str, served: &str) -> bool {
    let Some(date) = served.strip_prefix(requested).and_then(|rest| rest.strip_prefix('-')) else {
        return false;
    };
    let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    match date.as_bytes() {
        [year @ .., b'-', m1, m2, b'-', d1, d2] => {
            year.len() == 4 && digits(year) && digits(&[*m1, *m2, *d1, *d2])
        }
        date => date.len() == 8 && digits(date),
    }
}

fn words(name: &str) -> Vec<String> {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let mut words = Vec::new();
    let mut after_year = 0;
    for part in split(&name) {
        let number = part.bytes().all(|b| b.is_ascii_digit());
        if number && part.len() >= 4 {
            // A date: 20250929, or 2025 with month and day to follow.
            after_year = if part.len() == 4 { 2 } else { 0 };
            continue;
        }
        if number && part.len() == 2 && after_year > 0 {
            after_year -= 1;
            continue;
        }
        after_year = 0;
        if !NOISE.contains(&part) {
            words.push(part.to_owned());
        }
    }
    words.sort_unstable();
    words
}

/// Splits at separators and between letters and digits.
fn split(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).flat_map(|part| {
        let mut pieces = Vec::new();
        let mut rest = part;
        while let Some(first) = rest.bytes().next() {
            let digits = first.is_ascii_digit();
            let end = rest.bytes().position(|b| b.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            pieces.push(piece);
            rest = after;
        }
        pieces
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_names_of_a_model_are_the_same_model() {
        for (requested, served) in [
            ("gpt-4o", "gpt-4o-2024-08-06"),
            ("gpt-3.5-turbo", "gpt-3.5-turbo-0125"),
            ("gpt-4-vision-preview", "gpt-4-1106-vision-preview"),
            ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
            ("claude-sonnet-4-0", "claude-sonnet-4-20250514"),
            ("anthropic/claude-haiku-4.5", "anthropic/claude-4.5-haiku-20251001"),
            ("Qwen3-1.7B-Q4_K_M", "/models/Qwen3-1.7B-Q4_K_M.gguf"),
            ("llama3.3-70b", "llama-3.3-70b"),
            ("mistral-small-latest", "mistral-small-latest"),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5-20250929"),
            ("endpoints/7", "gemini-2.5-flash"),
        ] {
            assert!(is_same_model(requested, served), "{requested} -> {served}");
        }
    }

    #[test]
    fn other_models_are_other_models() {
        for (requested, served) in [
            ("gpt-4o", "gpt-4o-mini"),
            ("gpt-4o", "gpt-4"),
            ("grok-3-mini", "grok-4.3"),
            ("deepseek-chat", "deepseek-v4-flash"),
            ("google/gemini-2.0-flash-exp:free", "x-ai/grok-4"),
            ("Qwen3-1.7B", "Qwen3-8B"),
            ("pixtral-12b", "ministral-14b-latest"),
        ] {
            assert!(!is_same_model(requested, served), "{requested} -> {served}");
        }
    }
}
