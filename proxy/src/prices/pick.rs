//! Which models are meant: exactly, by a pattern, or by how their names begin; and which are near when
//! none is.
//!
//! Invariants
//! - A name that some model bears exactly means that model alone.
//! - What was chosen more widely than it was written is said, with its count and its limit.
//!
//! Not here: what the models cost (`list`, `diff`).

use crate::config::suggest::nearest_of;
use crate::hedge::AskError;
use bursar_policies::price::{ModelEntry, PriceBook};
use std::collections::BTreeSet;

/// Most models that are shown for the beginning of a name. A pattern has no limit.
const BEGINNING_MODELS_MAX: usize = 20;
/// Most names in a suggestion.
const NEAREST_MAX: usize = 5;

/// Which models are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// Only those of this provider.
    pub(crate) provider: Option<&'a str>,
    /// Only the model of this name, in any form that a call may use; `*` stands for any text.
    pub(crate) model: Option<&'a str>,
}

/// The models that were picked, and a remark where that is more, or less, than was written.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) models: Vec<ModelEntry>,
    pub(crate) remark: Option<String>,
}

/// Picks from `books` (all that are compared): what one of them knows is picked from each.
pub(crate) fn pick(books: &[&PriceBook], wanted: Wanted<'_>) -> Result<Picked, AskError> {
    if let Some(provider) = wanted.provider {
        known_provider(books, provider)?;
    }
    let mut seen = BTreeSet::new();
    let mut all: Vec<ModelEntry> = books.iter().flat_map(|book| book.models()).collect();
    all.retain(|entry| {
        let provider = wanted.provider.is_none_or(|provider| *entry.provider == *provider);
        provider && seen.insert((entry.provider.clone(), entry.model.clone()))
    });
    let Some(model) = wanted.model else { return Ok(Picked { models: all, remark: None }) };
    if model.contains('*') {
        all.retain(|entry| names(entry).any(|name| fits(model, name)));
        let remark = all.is_empty().then(|| format!("no model's name fits {model:?}"));
        return Ok(Picked { models: all, remark });
    }
    let exact: Vec<ModelEntry> = all.iter().filter(|entry| is_named(books, entry, model)).cloned().collect();
    if !exact.is_empty() {
        return Ok(Picked { models: exact, remark: None });
    }
    let begins = |entry: &ModelEntry| names(entry).any(|name| name.starts_with(model));
    let mut begun: Vec<ModelEntry> = all.iter().filter(|entry| begins(entry)).cloned().collect();
    let found = begun.len();
    begun.truncate(BEGINNING_MODELS_MAX);
    let remark = match found {
        0 => format!("no model is named {model:?}{}", near(&all, model)),
        1..=BEGINNING_MODELS_MAX => {
            format!("no model is named {model:?}; these {found} models have a name that begins so")
        }
        _ => format!(
            "no model is named {model:?}; {found} models have a name that begins so, and these are the first \
             {BEGINNING_MODELS_MAX}: --model '{model}*' shows all"
        ),
    };
    Ok(Picked { models: begun, remark: Some(remark) })
}

/// Fails with the known providers unless one is called `provider`.
pub(crate) fn known_provider(books: &[&PriceBook], provider: &str) -> Result<(), AskError> {
    let known: BTreeSet<_> =
        books.iter().flat_map(|book| book.models()).map(|entry| entry.provider).collect();
    if known.contains(provider) {
        return Ok(());
    }
    let meant = match nearest_of(provider, known.iter().map(|name| &**name), 1).first() {
        Some(near) => format!(" (did you mean {near}?)"),
        None => String::new(),
    };
    let list = known.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
    Err(AskError::Missing(format!("the price book has no provider {provider:?}{meant}; it has {list}")))
}

/// What to try where `provider` has no model that calls itself `model`.
pub(crate) fn near_models(book: &PriceBook, provider: &str, model: &str) -> String {
    let all: Vec<ModelEntry> = book.models().filter(|entry| *entry.provider == *provider).collect();
    near(&all, model)
}

/// The providers with a model that a call may name so.
pub(crate) fn providers_of(book: &PriceBook, model: &str) -> Vec<String> {
    let known: BTreeSet<_> = book.models().map(|entry| entry.provider).collect();
    let with = known.iter().filter(|provider| book.sheet(provider, model).is_some());
    with.map(ToString::to_string).collect()
}

/// Models of any provider whose names are near `model`, as the end of a sentence.
pub(crate) fn near_anywhere(book: &PriceBook, model: &str) -> String {
    near(&book.models().collect::<Vec<_>>(), model)
}

fn near(all: &[ModelEntry], model: &str) -> String {
    let known: BTreeSet<&str> = all.iter().flat_map(names).collect();
    let mut found = nearest_of(model, known.iter().copied(), NEAREST_MAX);
    if found.is_empty() && !model.is_empty() {
        found = known.iter().copied().filter(|name| name.contains(model)).collect();
        found.sort_by_key(|name| (!name.starts_with(model), name.len()));
        found.truncate(NEAREST_MAX);
    }
    if found.is_empty() { String::new() } else { format!("; the nearest are {}", found.join(", ")) }
}

fn names(entry: &ModelEntry) -> impl Iterator<Item = &str> {
    std::iter::once(&*entry.model).chain(entry.names.iter().map(|name| &**name))
}

/// Whether a call for `model` is a call for `entry`.
fn is_named(books: &[&PriceBook], entry: &ModelEntry, model: &str) -> bool {
    let resolves = |book: &&PriceBook| {
        let sheet = book.sheet(&entry.provider, model);
        sheet.is_some_and(|(found, _)| found.model == entry.model)
    };
    names(entry).any(|name| name == model) || books.iter().any(resolves)
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = name.get(at.saturating_add(part.len())..).unwrap_or_default(),
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("gpt*", "gpt-5", true),
            ("*v4-pro", "deepseek-v4-pro", true),
            ("*4*pro", "deepseek-v4-pro", true),
            ("gpt*mini", "gpt-mini", true),
            ("gpt*mini", "gptmin", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("gpt*", "o1", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
