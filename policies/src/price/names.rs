//! Names: which model, tier and region of the book a call means.
//!
//! Invariants
//! - A name never leads to another family or version: only a date at its end may be left off.
//! - A tier that is not one of the listed synonyms stays what it is.
//!
//! Not here: the names of particular models (the book's data).

use super::row::STANDARD;

/// Other names of the standard tier: what providers say when nothing special was charged, and
/// request values that mean the same when they come back as served.
const STANDARD_NAMES: &[&str] =
    &[STANDARD, "", "default", "auto", "not_available", "standard_only", "on_demand"];

/// Tiers that a provider names in its own way (Gemini's `trafficType`).
const TIER_SYNONYMS: &[(&str, &str)] = &[("on_demand_flex", "flex"), ("on_demand_priority", "priority")];

/// Names of "no particular region".
const REGION_NEUTRAL: &[&str] = &["", "global", "default", STANDARD, "not_available"];

/// The tier that prices a call: the served one. Fast mode (`speed`) is a tier of its own; together
/// with another tier than standard or fast it is a combination that nobody publishes: `None`.
pub(super) fn served_tier<'a>(tier: Option<&'a str>, speed: Option<&str>) -> Option<&'a str> {
    let tier = canonical_tier(tier.unwrap_or(STANDARD));
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
            assert_eq!(served_tier(tier, None), Some("standard"), "{tier:?}");
        }
        assert_eq!(served_tier(Some("flex"), Some("standard")), Some("flex"));
        assert_eq!(served_tier(Some("ON_DEMAND_FLEX"), None), Some("flex"));
        assert_eq!(served_tier(Some("scale"), None), Some("scale"));
    }

    #[test]
    fn fast_mode_is_a_tier_and_combines_with_no_other() {
        assert_eq!(served_tier(Some("standard"), Some("fast")), Some("fast"));
        assert_eq!(served_tier(None, Some("FAST")), Some("fast"));
        assert_eq!(served_tier(Some("batch"), Some("fast")), None);
        assert_eq!(served_tier(None, Some("ludicrous")), None);
    }

    #[test]
    fn neutral_regions_are_no_region() {
        assert_eq!(canonical_region(Some("global")), None);
        assert_eq!(canonical_region(Some("not_available")), None);
        assert_eq!(canonical_region(Some("us")), Some("us"));
    }
}
