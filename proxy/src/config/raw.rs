//! The file's shape: a tree of keys sorted into the settings they set.
//!
//! Invariants
//! - Every key either sets a known setting or is reported, with the nearest known name.
//! - Nothing is interpreted yet: values are still nodes with their places.
//!
//! Not here: YAML itself (`yaml`), what values mean (`value`, `load`).

use super::error::{Fault, Wrong};
use super::settings::{self, ALL};
use super::suggest::nearest;
use super::yaml::{Content, Entry, Node, Position};
use std::collections::BTreeMap;

/// A value in the file.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Where its key is.
    pub(super) key_at: Position,
    pub(super) node: Node,
}

/// Values by the path of their setting.
pub(super) type Values = BTreeMap<&'static str, Found>;

/// One item of `routes`.
#[derive(Clone, Debug)]
pub(super) struct RawRoute {
    /// Where the item starts.
    pub(super) at: Position,
    pub(super) values: Values,
}

/// A file, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Raw {
    pub(super) values: Values,
    pub(super) routes: Vec<RawRoute>,
}

/// A mistake and the key it is about.
pub(super) type KeyFault = (String, Fault);

/// Sorts a document.
pub(super) fn sort(root: &Node) -> (Raw, Vec<KeyFault>) {
    let mut raw = Raw::default();
    let mut faults = Vec::new();
    if let Content::Map(entries) = &root.content {
        let place = Place { pattern: String::new(), shown: String::new() };
        let lists = sort_section(entries, &place, &mut raw.values, &mut faults);
        for (node, place) in lists {
            raw.routes.extend(sort_items(node, &place, &mut faults));
        }
    } else if !root.is_null() {
        let wrong =
            Wrong::absent(&format!("this is {}", root.kind()), "write keys and values, such as listen: …");
        faults.push((String::new(), Fault::at(root.at, wrong)));
    }
    (raw, faults)
}

/// Where in the tree: as the table of settings has it, and as people see it.
#[derive(Clone, Debug)]
struct Place {
    /// `routes[].timeouts`
    pattern: String,
    /// `routes[0].timeouts`
    shown: String,
}

impl Place {
    fn key(&self, key: &str) -> Self {
        let join = |path: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        Self { pattern: join(&self.pattern), shown: join(&self.shown) }
    }

    fn item(&self, index: usize) -> Self {
        Self { pattern: format!("{}[]", self.pattern), shown: format!("{}[{index}]", self.shown) }
    }
}

/// Sorts a section's keys and those below; returns the lists of sections that it holds.
fn sort_section<'n>(
    entries: &'n [Entry],
    place: &Place,
    values: &mut Values,
    faults: &mut Vec<KeyFault>,
) -> Vec<(&'n Node, Place)> {
    let mut lists = Vec::new();
    for entry in entries {
        let at = place.key(&entry.key);
        if entry.key.contains(['.', '[']) {
            faults.push((at.shown, dotted(entry, place)));
        } else if let Some(setting) = settings::find(&at.pattern) {
            values.insert(setting.path(), Found { key_at: entry.at, node: entry.value.clone() });
        } else if settings::is_list_of_sections(&at.pattern) {
            lists.push((&entry.value, at));
        } else if settings::is_section(&at.pattern) {
            match &entry.value.content {
                Content::Map(below) => lists.extend(sort_section(below, &at, values, faults)),
                _ if entry.value.is_null() => {}
                _ => faults.push((at.shown, wrong_kind(&entry.value, "write keys below it"))),
            }
        } else {
            faults.push((at.shown, unknown(entry, place)));
        }
    }
    lists
}

fn sort_items(list: &Node, place: &Place, faults: &mut Vec<KeyFault>) -> Vec<RawRoute> {
    let items = match &list.content {
        Content::List(items) => items.as_slice(),
        _ if list.is_null() => &[],
        _ => {
            let remedy = "write a list, each item starting with `- `";
            faults.push((place.shown.clone(), wrong_kind(list, remedy)));
            &[]
        }
    };
    let mut routes = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = place.item(index);
        let Content::Map(entries) = &item.content else {
            faults.push((at.shown, wrong_kind(item, "write keys: prefix, upstream and so on")));
            continue;
        };
        let mut values = Values::new();
        sort_section(entries, &at, &mut values, faults);
        routes.push(RawRoute { at: item.at, values });
    }
    routes
}

fn wrong_kind(node: &Node, remedy: &str) -> Fault {
    Fault::at(node.at, Wrong::absent(&format!("this is {}", node.kind()), remedy))
}

/// Keys that people write for something that is spelt otherwise here.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("api_key", "secret_file or secret_env"),
    ("key", "secret_file or secret_env"),
    ("secret", "secret_file or secret_env"),
    ("token", "token_file"),
    ("base_url", "upstream"),
    ("url", "upstream"),
    ("target", "upstream"),
    ("path", "prefix"),
    ("data_dir", "ledger.path"),
    ("port", "listen"),
    ("bind", "listen"),
    ("timeout", "timeouts"),
];

/// One spelling per setting: `ledger.path: x` would stand beside `ledger: { path: y }`.
fn dotted(entry: &Entry, place: &Place) -> Fault {
    match entry.key.split_once('.') {
        Some((section, key)) if settings::find(&place.key(&entry.key).pattern).is_some() => {
            let remedy = format!("write it in its section: {section}: {{ {key}: … }}");
            Fault::at(entry.at, Wrong::absent("keys with dots are not read", &remedy))
        }
        _ => unknown(entry, place),
    }
}

/// The value is never shown: an unknown key may hold anything, a secret too.
fn unknown(entry: &Entry, place: &Place) -> Fault {
    let known = keys_below(&place.pattern);
    let other = OTHER_NAMES.iter().find(|(name, _)| *name == entry.key);
    let other = other.filter(|(_, use_this)| {
        use_this.contains('.') || known.iter().any(|key| use_this.split(" or ").any(|name| name == *key))
    });
    let remedy = match (nearest(&entry.key, known.iter().copied()), other, elsewhere(&entry.key)) {
        (Some(name), _, _) => format!("did you mean {name:?}?"),
        (None, Some((_, name)), _) => format!("use {name}"),
        (None, None, Some(path)) => format!("did you mean {path:?}?"),
        (None, None, None) => format!("remove it; known here: {}", known.join(", ")),
    };
    Fault::at(entry.at, Wrong::absent("this key is unknown", &remedy))
}

/// The keys that may stand at `pattern`.
fn keys_below(pattern: &str) -> Vec<&'static str> {
    let mut keys = Vec::new();
    for setting in ALL {
        let rest = match pattern {
            "" => Some(setting.path()),
            _ => setting.path().strip_prefix(pattern).and_then(|rest| rest.strip_prefix('.')),
        };
        let key = rest.and_then(|rest| rest.split(['.', '[']).next()).unwrap_or_default();
        if !key.is_empty() && !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// A setting that has this very name in another place.
fn elsewhere(key: &str) -> Option<&'static str> {
    let named = |path: &&str| path.rsplit('.').next() == Some(key);
    let mut paths = ALL.iter().map(|setting| setting.path()).filter(named);
    let only = paths.next()?;
    if paths.next().is_none() { Some(only) } else { None }
}
