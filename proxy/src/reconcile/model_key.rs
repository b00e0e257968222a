//! One name for a model that providers' bills and our records spell differently.
//!
//! Invariants
//! - Two spellings of a name (`Claude 3.5 Sonnet`, `anthropic.claude-3-5-sonnet-20241022-v2:0`,
//!   `Claude3.5Sonnet`) have one key: its letters and its numbers, sorted, without vendors, dates and versions
//!   of the deployment.
//! - The key only decides which rows stand together; no amount depends on it.
//!
//! Not here: which column holds the name (`azure`, `aws` …).

/// Words that say who made a model, where it ran or what was counted.
const NOISE: [&str; 57] = [
    "anthropic",
    "amazon",
    "openai",
    "meta",
    "google",
    "mistralai",
    "models",
    "model",
    "azure",
    "bedrock",
    "edition",
    "inp",
    "input",
    "in",
    "outp",
    "outpt",
    "opt",
    "output",
    "out",
    "cached",
    "cchd",
    "cache",
    "read",
    "write",
    "tokens",
    "token",
    "count",
    "glbl",
    "global",
    "regnl",
    "regional",
    "rgnl",
    "dzone",
    "dz",
    "data",
    "zone",
    "batch",
    "flex",
    "priority",
    "standard",
    "provisioned",
    "on",
    "demand",
    "cross",
    "region",
    "us",
    "eu",
    "apac",
    "geo",
    "std",
    "prompt",
    "completion",
    "response",
    "text",
    "k",
    "m",
    "latest",
];

/// The key of a name.
pub(super) fn key(name: &str) -> String {
    let lower = name.to_lowercase();
    // `us.anthropic.claude-…-v1:0`: what follows the colon is a revision.
    let lower = match lower.split_once(':') {
        Some((before, after)) if after.bytes().all(|b| b.is_ascii_digit()) => before.to_owned(),
        _ => lower,
    };
    let words = words(&lower);
    let mut kept: Vec<&str> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| words.get(at)).map(String::as_str);
        if is_date(&words, at) || NOISE.contains(&word.as_str()) {
            continue;
        }
        // `-v1` at the end of a name is the version of a deployment.
        let next = words.get(at.saturating_add(1));
        if word == "v" && next.is_some_and(|next| next.len() == 1) && at.saturating_add(2) == words.len() {
            continue;
        }
        if before == Some("v") && at.saturating_add(1) == words.len() && word.len() == 1 {
            continue;
        }
        kept.push(word);
    }
    if kept.is_empty() {
        kept = words.iter().map(String::as_str).collect();
    }
    // `NovaLite` and `nova-lite` differ in where words end, so letters stand alone.
    let (mut numbers, texts): (Vec<&str>, Vec<&str>) =
        kept.into_iter().partition(|word| word.starts_with(|c: char| c.is_numeric()));
    let mut letters: Vec<char> = texts.concat().chars().collect();
    letters.sort_unstable();
    numbers.sort_unstable();
    format!("{} {}", letters.into_iter().collect::<String>(), numbers.join(" "))
}

/// Runs of letters and runs of digits.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for c in text.chars() {
        if c.is_alphanumeric() {
            let joins = before.is_alphanumeric() && before.is_numeric() == c.is_numeric();
            match words.last_mut().filter(|_| joins) {
                Some(word) => word.push(c),
                None => words.push(c.to_string()),
            }
        }
        before = c;
    }
    words
}

/// `20250929`, or a part of `2024 07 18`.
fn is_date(words: &[String], at: usize) -> bool {
    let number = |at: Option<usize>, length: usize| {
        let word = at.and_then(|at| words.get(at)).filter(|word| word.len() == length);
        word.and_then(|word| word.parse::<u32>().ok())
    };
    if number(Some(at), 8).is_some_and(|day| (20_200_101..=20_991_231).contains(&day)) {
        return true;
    }
    let year_at = |back: usize| {
        let begin = at.checked_sub(back);
        let year = number(begin, 4).is_some_and(|year| (2020..=2099).contains(&year));
        let month =
            number(begin.map(|at| at.saturating_add(1)), 2).is_some_and(|month| (1..=12).contains(&month));
        year && month
            && number(begin.map(|at| at.saturating_add(2)), 2).is_some_and(|day| (1..=31).contains(&day))
    };
    (0..3).any(year_at)
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn spellings_of_one_model_have_one_key() {
        for names in [
            &["gpt-4o-mini", "gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini", "gpt 4o mini Inp glbl Tokens"][..],
            &[
                "claude-sonnet-4-5",
                "claude-sonnet-4-5-20250929",
                "Claude Sonnet 4.5",
                "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "Claude4.5Sonnet-input-tokens",
                "Claude Sonnet 4.5 (Amazon Bedrock Edition)",
            ],
            &["claude-3-5-sonnet-20241022", "anthropic.claude-3-5-sonnet-20241022-v2:0", "Claude 3.5 Sonnet"],
            &["amazon.nova-lite-v1:0", "NovaLite-output-tokens", "Nova Lite"],
        ] {
            let keys: std::collections::BTreeSet<String> = names.iter().map(|name| key(name)).collect();
            assert_eq!(keys.len(), 1, "{names:?}: {keys:?}");
        }
    }

    #[test]
    fn different_models_have_different_keys() {
        let names = [
            "gpt-4o",
            "gpt-4o-mini",
            "gpt-4.1",
            "gpt-4",
            "gpt-5",
            "o3",
            "claude-sonnet-4",
            "claude-sonnet-4-5",
            "claude-opus-4-5",
            "gemini-2.5-pro",
            "gemini-2.5-flash",
            "nova-pro-v1:0",
            "model",
        ];
        let keys: std::collections::BTreeSet<String> = names.iter().map(|name| key(name)).collect();
        assert_eq!(keys.len(), names.len(), "{keys:?}");
    }
}
