//! Whether a served model is the requested one, perhaps under a longer name.
//!
//! Rules
//! - A vendor's prefix, a path, a version's trailing zero and the order of the words make no difference.
//! - A name without a date (or a revision such as `001`) stands for whichever of its snapshots serves. Of two
//!   names that both have one, they must be the same: `0613` is `2023-06-13`, and `2503` is `2025-03-12`.
//!   A served name without one says nothing of it.
//! - `preview` is part of a name: a preview in place of the stable model is another model, and so is the
//!   stable model in place of the preview.
//! - `latest` in the requested name leaves all of that, and the numbers of the version, to the provider.
//! - Anything else makes another model.
//!
//! Not here: what a model costs (`policies::price`).

/// Where the requested name is the caller's own, what serves it has another.
const OWN_COLLECTIONS: &[&str] = &["tunedModels/", "endpoints/"];

/// Words that name no model.
const NOISE: &[&str] = &["gguf", "0"];

/// Whether `served` is `requested` or a dated or otherwise longer name of it.
#[must_use]
pub fn is_same_model(requested: &str, served: &str) -> bool {
    let own = OWN_COLLECTIONS.iter().any(|collection| requested.starts_with(collection));
    own || requested == served || is_dated(requested, served) || Name::of(requested).allows(&Name::of(served))
}

/// Whether the name is of one of OpenAI's models that search the web for every call:
/// `gpt-4o-search-preview`, `gpt-4o-mini-search-preview` and `gpt-5-search-api`, dated or not.
#[must_use]
pub fn is_search_model(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.starts_with("gpt-") && ["-search-preview", "-search-api"].into_iter().any(|word| name.contains(word))
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

/// A name, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Name {
    /// What must be the same, in order of the alphabet.
    words: Vec<String>,
    /// Digits of each date, the year first where there is one.
    dates: Vec<String>,
    /// A number such as `001` that tells one state of a model from the next.
    revision: Option<String>,
    is_preview: bool,
    is_latest: bool,
}

impl Name {
    fn of(name: &str) -> Self {
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let mut found = Self::default();
        let mut parts = split(&name).peekable();
        // The word before, and the numbers of two digits since: month and day, or month before year.
        let mut pair: Vec<&str> = Vec::new();
        let mut follows_preview = false;
        while let Some(part) = parts.next() {
            let is_number = part.bytes().all(|b| b.is_ascii_digit());
            if is_number && part.len() == 2 && follows_preview {
                pair.push(part);
                continue;
            }
            if is_number && part.len() >= 4 {
                let mut date = part.to_owned();
                if part.len() == 4 && is_year(part) {
                    date.extend(pair.drain(..));
                    for _ in 0..2 {
                        date.extend(parts.next_if(|next| next.len() == 2 && is_digits(next)));
                    }
                }
                found.dates.push(date);
                continue;
            }
            follows_preview = part == "preview";
            match part {
                "preview" => found.is_preview = true,
                "latest" => found.is_latest = true,
                number if is_number && number.len() == 3 && number.starts_with('0') => {
                    found.revision = Some(number.to_owned());
                }
                word if NOISE.contains(&word) => {}
                word => found.words.push(word.to_owned()),
            }
        }
        match pair.as_slice() {
            [] => {}
            [one] => found.words.push((*one).to_owned()),
            month_and_day => found.dates.push(month_and_day.concat()),
        }
        found.words.sort_unstable();
        found
    }

    /// Whether one who asks for this one may get `served`.
    fn allows(&self, served: &Self) -> bool {
        if self.is_latest {
            return is_the_same_or_versioned(&self.words, &served.words);
        }
        let dates = self.dates.is_empty()
            || served.dates.is_empty()
            || self.dates.iter().any(|ours| served.dates.iter().any(|theirs| is_same_date(ours, theirs)));
        let revisions = match (&self.revision, &served.revision) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.words == served.words && self.is_preview == served.is_preview && dates && revisions
    }
}

/// Whether `served` has all the words of `requested`, and else nothing but numbers.
fn is_the_same_or_versioned(requested: &[String], served: &[String]) -> bool {
    let mut asked = requested.iter().peekable();
    let rest_is_numbers =
        served.iter().filter(|word| asked.next_if_eq(word).is_none()).all(|word| is_digits(word));
    rest_is_numbers && asked.peek().is_none()
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn is_year(digits: &str) -> bool {
    digits.starts_with("19") || digits.starts_with("20")
}

/// Whether the shorter of two dates is a part of the longer one: all but its century, its end, or both.
fn is_same_date(one: &str, other: &str) -> bool {
    let (long, short) = if one.len() >= other.len() { (one, other) } else { (other, one) };
    let without_century = long.get(2..).unwrap_or_default();
    long.starts_with(short) || long.ends_with(short) || without_century.starts_with(short)
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
            ("gemini-2.0-flash", "gemini-2.0-flash-001"),
            ("gemini-flash-latest", "gemini-2.5-flash-preview-09-2025"),
            ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
            ("mistral-small-latest", "mistral-small-2506"),
            ("text-moderation-latest", "text-moderation-006"),
            ("google/gemini-3-flash-preview", "google/gemini-3-flash-preview-20251217"),
            ("gpt-4-0613", "gpt-4-2023-06-13"),
            ("mistral-small-2503", "mistral-small-2025-03-12"),
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash-preview-20250925"),
            ("gemini-2.5-pro-preview-05-06", "models/gemini-2.5-pro-preview-05-06"),
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
            // Another snapshot.
            ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20"),
            ("gpt-4-0613", "gpt-4-1106"),
            ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5@20251101"),
            ("mistral-small-2503", "mistral-small-2506"),
            ("gemini-2.0-flash-001", "gemini-2.0-flash-002"),
            ("gemini-2.5-pro-preview-05-06", "gemini-2.5-pro-preview-06-05"),
            ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash-preview-05-2025"),
            ("gpt-4-0125-preview", "gpt-4-1106-preview"),
            // Preview and stable.
            ("gemini-2.5-pro-preview-06-05", "gemini-2.5-pro"),
            ("gemini-2.5-pro", "gemini-2.5-pro-preview-06-05"),
            ("gemini-3-flash-preview", "gemini-3-flash"),
            // The latest of something else.
            ("gemini-flash-latest", "gemini-2.5-flash-lite"),
            ("claude-3-5-sonnet-latest", "claude-sonnet-4-20250514"),
        ] {
            assert!(!is_same_model(requested, served), "{requested} -> {served}");
        }
    }
}
