//! The reference page and the JSON Schema, written from the table of settings.
//!
//! Invariant: nothing about a setting is said here that is not in the table, so neither can drift.
//!
//! Not here: the table (`settings`). A test compares the published files with what this writes.

use super::providers::{BUILT_IN, PROVIDERS, Strip};
use super::settings::{ALL, Applies, Described};
use super::value::Shape;
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;

const HEAD: &str = "\
# Configuration

<!-- Written from the table of settings by `BLESS=1 cargo test -p bursar config`; changes here are lost. -->

`bursar serve --config bursar.yaml` reads a YAML file (JSON is YAML too). Every setting has a default, so the \
file may be empty or absent. `bursar check --config bursar.yaml` lists every mistake with its line and what to \
do about it. The file's [JSON Schema](config.schema.json) lets editors complete and check it while you type.

- **Precedence:** command line, then environment, then file, then default.
- **Environment:** a setting's variable is its path in capital letters with `_` for `.`: `ledger.path` is \
`BURSAR_LEDGER_PATH`. An empty variable counts as not set. Lists are separated by commas, maps are written \
`name=value,name=value`. Routes stand in the file only. `BURSAR_CONFIG` names the file. A variable that starts \
with `BURSAR_` and sets nothing is reported as a warning.
- **Durations** are whole numbers with `ms`, `s`, `m` or `h`. **Sizes** are bytes, or whole numbers with \
`KiB`, `MiB` or `GiB`.
- **Paths** are relative to the working directory.
- **YAML:** unknown and duplicate keys are errors. Aliases, merge keys and tags are not supported.
- **Changes** of the file, and of files that it names, take effect [while the program runs](../guide/reload.md), \
but for settings that say *Takes effect: when the program starts again*.
";

/// The reference page, in Markdown.
#[must_use]
pub fn reference_page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for setting in ALL {
        let next = section_of(setting.path());
        if next != section {
            section = next;
            let _ = write!(page, "\n## {section}\n");
        }
        page.push_str(&entry(*setting));
    }
    page.push_str(&providers_table());
    page.push_str(&routes_table());
    page
}

/// Settings on the top level form one section, as far as they stand together.
fn section_of(path: &'static str) -> &'static str {
    match path.split_once('.') {
        Some((section, _)) => section.trim_end_matches("[]"),
        None if matches!(path, "listen" | "allow_plaintext") => "listen",
        None if path == "builtin_routes" => "routes",
        None => path,
    }
}

fn entry(setting: &dyn Described) -> String {
    let mut text = format!("\n### `{}`\n\n{}\n\n", setting.path(), setting.doc());
    let _ = writeln!(text, "- Type: {}", setting.describe());
    let _ = writeln!(text, "- Default: {}{}", default_of(setting), reason_of(setting));
    let variables: Vec<String> = setting.variables().iter().map(|name| format!("`{name}`")).collect();
    if !variables.is_empty() {
        let _ = writeln!(text, "- Environment: {}", variables.join(" or "));
    }
    if setting.applies() == Applies::Restart {
        text.push_str("- Takes effect: when the program starts again\n");
    }
    text
}

fn default_of(setting: &dyn Described) -> String {
    match setting.default_text().as_str() {
        "" => "none".to_owned(),
        text if setting.default_is_value() => format!("`{text}`"),
        words => words.to_owned(),
    }
}

fn reason_of(setting: &dyn Described) -> String {
    match setting.because() {
        "" => String::new(),
        because => format!(". {because}"),
    }
}

fn providers_table() -> String {
    let mut text =
        "\n## Providers\n\n| Name | Dialect | Asks streams for usage | Header for an injected secret |\n\
                    |---|---|---|---|\n"
            .to_owned();
    for provider in PROVIDERS {
        let asks = if provider.include_usage { "yes" } else { "no" };
        let (name, dialect, header) = (provider.name, provider.dialect.as_str(), provider.key.name());
        let _ = writeln!(text, "| `{name}` | `{dialect}` | {asks} | `{header}` |");
    }
    text
}

fn routes_table() -> String {
    let mut text = "\n## Built-in routes\n\nA segment in braces is any one segment of up to 63 lower-case letters, \
                    digits and `-`, and becomes part of the host. Routes marked *whole path* are for clients that \
                    changed only their host: nothing is taken off the path.\n\n\
                    | Prefix | Upstream | Provider | |\n|---|---|---|---|\n"
        .to_owned();
    for route in BUILT_IN {
        let name = route.prefix.split_once('{').map_or("", |(_, name)| name.trim_end_matches('}'));
        let upstream = route.upstream.replace("{}", &format!("{{{name}}}"));
        let whole = if route.strip == Strip::Nothing { "whole path" } else { "" };
        let _ = writeln!(text, "| `{}` | `{upstream}` | `{}` | {whole} |", route.prefix, route.provider);
    }
    text
}

/// The JSON Schema (draft 2020-12) of the file. It knows shapes and bounds; rules between settings
/// are checked when the file is loaded.
#[must_use]
pub fn json_schema() -> String {
    let mut root = section_schema();
    for setting in ALL {
        insert(&mut root, setting.path(), *setting);
    }
    if let Some(routes) = root.pointer_mut("/properties/routes/items").and_then(Json::as_object_mut) {
        routes.insert("required".to_owned(), json!(["prefix", "upstream"]));
        routes.insert("anyOf".to_owned(), json!([{ "required": ["provider"] }, { "required": ["dialect"] }]));
    }
    if let Json::Object(root) = &mut root {
        let head = [
            ("$schema", "https://json-schema.org/draft/2020-12/schema"),
            ("title", "Configuration of Bursar"),
        ];
        for (index, (key, value)) in head.into_iter().enumerate() {
            root.shift_insert(index, key.to_owned(), json!(value));
        }
    }
    let mut text = serde_json::to_string_pretty(&root).unwrap_or_default();
    text.push('\n');
    text
}

/// A section may also be left empty, as one does while commenting out its keys.
fn section_schema() -> Json {
    json!({ "type": ["object", "null"], "additionalProperties": false, "properties": {} })
}

fn insert(node: &mut Json, path: &str, setting: &dyn Described) {
    let Some(properties) = node.get_mut("properties").and_then(Json::as_object_mut) else { return };
    match path.split_once('.') {
        None => {
            properties.insert(path.to_owned(), leaf(setting));
        }
        Some((section, rest)) => match section.strip_suffix("[]") {
            Some(list) => {
                if let Some(items) = items(properties, list) {
                    insert(items, rest, setting);
                }
            }
            None => insert(properties.entry(section).or_insert_with(section_schema), rest, setting),
        },
    }
}

fn items<'j>(properties: &'j mut Map<String, Json>, list: &str) -> Option<&'j mut Json> {
    let item = json!({ "type": "object", "additionalProperties": false, "properties": {} });
    let list = properties.entry(list).or_insert_with(|| json!({ "type": ["array", "null"], "items": item }));
    list.get_mut("items")
}

fn leaf(setting: &dyn Described) -> Json {
    let mut schema = setting.schema();
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), json!(setting.doc()));
        if let Some(default) = setting.default_json() {
            object.insert("default".to_owned(), default);
        }
        if setting.shape() == Shape::Map {
            object.insert("type".to_owned(), json!(["object", "null"]));
        }
    }
    schema
}
