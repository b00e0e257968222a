//! Names: which model, tier and region of the book a call means.
//!
//! Invariants
//! - A name never leads to another family or version: only a date at its end may be left off, and
//!   what a provider puts around a name to say where or how it runs.
//! - A tier that is not one of the listed synonyms stays what it is.
//!
//! Not here: the names of particular models (the book's data).

use super::row::STANDARD;

/// Other names of the standard tier: what providers say when nothing special was charged, and
/// request values that mean the same when they come back as served.
const STANDARD_NAMES: &[&str] =
    &[STANDARD, "", "default", "auto", "not_available", "standard_only", "on_demand"];

/// Tiers that a provider names in its own way (Gemini's `trafficType`).
const TIER_SYNONYMS: &[(&str, &str)] = &[
    ("on_demand_flex", "flex"),
    ("on_demand_priority", "priority"),
    // Gemini's `serviceTier`.
    ("service_tier_unspecified", STANDARD),
    ("standard_tier", STANDARD),
];

/// Tiers that one provider charges as standard. OpenRouter names the capacity it bought at Google
/// `provisioned` and charges the plain price (charges of 2026, two APIs).
const CHARGED_AS_STANDARD: &[(&str, &str)] = &[("openrouter", "provisioned")];

/// Names of "no particular region".
const REGION_NEUTRAL: &[&str] = &["", "global", "default", STANDARD, "not_available"];

/// The tier that prices a call: the served one. Fast mode (`speed`) is a tier of its own; together
/// with another tier than standard or fast it is a combination that nobody publishes: `None`.
pub(super) fn served_tier<'a>(provider: &str, tier: Option<&'a str>, speed: Option<&str>) -> Option<&'a str> {
    let tier = canonical_tier(tier.unwrap_or(STANDARD));
    let tier = if CHARGED_AS_STANDARD.contains(&(provider, tier)) { STANDARD } else { tier };
    let speed = speed.unwrap_or(STANDARD);
    if is_one_of(speed, STANDARD_NAMES) {
        return Some(tier);
    }
    let plain = tier == STANDARD || tier.eq_ignore_ascii_case("fast");
    if plain && speed.eq_ignore_ascii_case("fast") { Some("fast") } else { None }
}

/// The book's name of a tier.
pub(super) fn canonical_tier(tier: &str) -> &str {
    if is_one_of(tier, STANDARD_NAMES) {
        return STANDARD;
    }
    let synonym = TIER_SYNONYMS.iter().find(|(name, _)| name.eq_ignore_ascii_case(tier));
    synonym.map_or(tier, |(_, canonical)| canonical)
}

/// The region that prices a call; `None` when no particular one does.
pub(super) fn canonical_region(region: Option<&str>) -> Option<&str> {
    region.filter(|name| !is_one_of(name, REGION_NEUTRAL))
}

/// The names of the model that prices a call, the best first.
///
/// That is the served one, and the requested one only when nobody said what was served. Two
/// providers tell in the request what the reply leaves out:
/// - Bedrock: the geography or profile (`us.anthropic.claude-…`), while the body has the vendor's own
///   name;
/// - OpenRouter: the vendor (`openai/text-embedding-3-small`), for some APIs.
pub(super) fn priced_names<'a>(
    provider: &str,
    served: Option<&'a str>,
    requested: Option<&'a str>,
) -> impl Iterator<Item = &'a str> {
    let longer = served.zip(requested).filter(|(served, requested)| match provider {
        "bedrock" => requested.contains(served),
        "openrouter" => requested.strip_suffix(served).is_some_and(|vendor| vendor.ends_with('/')),
        _ => false,
    });
    longer.map(|(_, requested)| requested).into_iter().chain(served.or(requested))
}

/// Other ways to write `name` at this provider, without what says only where or how it runs. In
/// lower case at the end of all tries.
pub(super) fn other_forms(provider: &str, name: &str) -> impl Iterator<Item = String> {
    let core = match provider {
        "gemini" => name.strip_prefix("models/"),
        "vertex" => vertex_core(name),
        "bedrock" => bedrock_core(name),
        "openrouter" => openrouter_core(name),
        "fireworks" => name.strip_prefix("accounts/fireworks/models/"),
        _ => None,
    };
    let lower = |name: &str| name.bytes().any(|b| b.is_ascii_uppercase()).then(|| name.to_ascii_lowercase());
    let all = [core.map(str::to_owned), lower(core.unwrap_or(name))];
    all.into_iter().flatten()
}

/// `projects/…/publishers/google/models/x@default` or `google/x` is `x`. A date behind `@` is left
/// off like any other.
fn vertex_core(name: &str) -> Option<&str> {
    let tail = name.rsplit_once('/').map_or(name, |(_, tail)| tail);
    let core = match tail.split_once('@') {
        Some((stem, "default" | "latest")) => stem,
        Some((stem, version)) if version.len() == 8 && version.bytes().all(|b| b.is_ascii_digit()) => stem,
        _ => tail,
    };
    (core != name).then_some(core)
}

/// An ARN of a foundation model or a system-defined profile ends in its id; `:48k` only says how
/// much context. An application profile hides its model: nobody knows its price.
fn bedrock_core(name: &str) -> Option<&str> {
    let tail = match name.strip_prefix("arn:") {
        None => name,
        Some(arn) => {
            let (resource, id) = arn.rsplit_once('/')?;
            let told = resource.ends_with(":foundation-model") || resource.ends_with(":inference-profile");
            told.then_some(id)?
        }
    };
    let context = |suffix: &str| {
        suffix
            .strip_suffix('k')
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let core = tail.rsplit_once(':').filter(|(_, suffix)| context(suffix)).map_or(tail, |(stem, _)| stem);
    (core != name).then_some(core)
}

/// How OpenRouter shall choose among upstreams is not part of the name.
fn openrouter_core(name: &str) -> Option<&str> {
    let (stem, variant) = name.rsplit_once(':')?;
    matches!(variant, "nitro" | "floor" | "exacto" | "online").then_some(stem)
}

/// `name` without a date at its end: `-2024-07-18` or `-20251001`.
pub(super) fn without_date(name: &str) -> Option<&str> {
    for length in [11, 9] {
        let Some((stem, suffix)) = name.len().checked_sub(length).and_then(|at| name.split_at_checked(at))
        else {
            continue;
        };
        if !stem.is_empty() && is_date(suffix) {
            return Some(stem);
        }
    }
    None
}

/// `-YYYY-MM-DD` or `-YYYYMMDD` of this century with a month and a day that exist.
const fn is_date(suffix: &str) -> bool {
    let ([b'-', b'2', b'0', y1, y2, b'-', m1, m2, b'-', d1, d2] | [b'-', b'2', b'0', y1, y2, m1, m2, d1, d2]) =
        suffix.as_bytes()
    else {
        return false;
    };
    let year = y1.is_ascii_digit() && y2.is_ascii_digit();
    let month = matches!((m1, m2), (b'0', b'1'..=b'9') | (b'1', b'0'..=b'2'));
    let day = matches!((d1, d2), (b'0', b'1'..=b'9') | (b'1' | b'2', b'0'..=b'9') | (b'3', b'0' | b'1'));
    year && month && day
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_date_at_the_end_is_left_off() {
        for (name, stem) in [
            ("gpt-4o-mini-2024-07-18", Some("gpt-4o-mini")),
            ("claude-haiku-4-5-20251001", Some("claude-haiku-4-5")),
            ("claude-opus-4-1-20250805", Some("claude-opus-4-1")),
            ("gpt-4o", None),
            ("gpt-5.6-sol", None),
            ("gpt-4-0613", None),
            ("gpt-3.5-turbo-1106", None),
            ("model-20251301", None),
            ("model-2025-00-10", None),
            ("model-19991231", None),
            ("-2024-07-18", None),
            ("modèle-20251001", Some("modèle")),
            ("é0251001", None),
        ] {
            assert_eq!(without_date(name), stem, "{name}");
        }
    }

    #[test]
    fn synonyms_of_standard_are_standard_and_other_tiers_stay() {
        for tier in
            [None, Some("default"), Some("auto"), Some("not_available"), Some("Standard"), Some("ON_DEMAND")]
        {
            assert_eq!(served_tier("p", tier, None), Some("standard"), "{tier:?}");
        }
        assert_eq!(served_tier("p", Some("flex"), Some("standard")), Some("flex"));
        assert_eq!(served_tier("p", Some("ON_DEMAND_FLEX"), None), Some("flex"));
        assert_eq!(served_tier("p", Some("scale"), None), Some("scale"));
    }

    #[test]
    fn fast_mode_is_a_tier_and_combines_with_no_other() {
        assert_eq!(served_tier("p", Some("standard"), Some("fast")), Some("fast"));
        assert_eq!(served_tier("p", None, Some("FAST")), Some("fast"));
        assert_eq!(served_tier("p", Some("batch"), Some("fast")), None);
        assert_eq!(served_tier("p", None, Some("ludicrous")), None);
    }

    #[test]
    fn what_a_provider_puts_around_a_name_is_left_off_and_nothing_else() {
        for (provider, name, forms) in [
            ("gemini", "models/gemini-2.5-pro", &["gemini-2.5-pro"][..]),
            ("vertex", "publishers/google/models/gemini-2.5-flash", &["gemini-2.5-flash"]),
            ("vertex", "google/gemini-2.5-flash", &["gemini-2.5-flash"]),
            ("vertex", "claude-opus-4-1@20250805", &["claude-opus-4-1"]),
            ("vertex", "claude-opus-4-6@default", &["claude-opus-4-6"]),
            ("vertex", "mistral-large@2407", &[]),
            (
                "bedrock",
                "arn:aws:bedrock:us-east-1:1234:inference-profile/us.anthropic.claude-x-v1:0",
                &["us.anthropic.claude-x-v1:0"],
            ),
            (
                "bedrock",
                "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
                &["amazon.nova-lite-v1:0"],
            ),
            ("bedrock", "arn:aws:bedrock:us-east-1:1234:application-inference-profile/abc", &[]),
            (
                "bedrock",
                "anthropic.claude-3-haiku-20240307-v1:0:48k",
                &["anthropic.claude-3-haiku-20240307-v1:0"],
            ),
            ("bedrock", "anthropic.claude-x-v1:0", &[]),
            ("openrouter", "openai/gpt-4o:nitro", &["openai/gpt-4o"]),
            ("openrouter", "openai/gpt-4o:free", &[]),
            ("together", "Salesforce/Llama-Rank-v1", &["salesforce/llama-rank-v1"]),
            ("openai", "models/gpt-4o", &[]),
        ] {
            assert_eq!(other_forms(provider, name).collect::<Vec<_>>(), forms, "{provider} {name}");
        }
    }

    #[test]
    fn the_request_prices_only_where_it_says_more_than_the_reply() {
        let names =
            |provider, served, requested| priced_names(provider, served, requested).collect::<Vec<_>>();
        let (long, short) = ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5-20251001");
        assert_eq!(names("bedrock", Some(short), Some(long)), [long, short]);
        assert_eq!(names("bedrock", Some(short), Some("arn:aws:x/abc")), [short]);
        assert_eq!(
            names("openrouter", Some("rerank-2.5"), Some("voyageai/rerank-2.5")),
            ["voyageai/rerank-2.5", "rerank-2.5"]
        );
        assert_eq!(names("openrouter", Some("x-ai/grok-4"), Some("google/x")), ["x-ai/grok-4"]);
        assert_eq!(names("openai", Some("gpt-4o-mini"), Some("gpt-4o-mini-x")), ["gpt-4o-mini"]);
        assert_eq!(names("openai", None, Some("gpt-4o")), ["gpt-4o"]);
        assert!(names("openai", None, None).is_empty());
    }

    #[test]
    fn capacity_that_openrouter_bought_is_charged_as_standard_and_nobody_elses() {
        assert_eq!(served_tier("openrouter", Some("provisioned"), None), Some("standard"));
        assert_eq!(served_tier("azure", Some("provisioned"), None), Some("provisioned"));
    }

    #[test]
    fn neutral_regions_are_no_region() {
        assert_eq!(canonical_region(Some("global")), None);
        assert_eq!(canonical_region(Some("not_available")), None);
        assert_eq!(canonical_region(Some("us")), Some("us"));
    }
}
