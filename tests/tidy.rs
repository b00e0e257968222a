//! The rules of the house that a compiler does not know.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below `dir` with this extension, with its text.
fn files(dir: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    walk(&root().join(dir), extension, &mut found);
    found.sort();
    found
}

fn walk(dir: &Path, extension: &str, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                walk(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
        }
    }
}

fn rust_files() -> Vec<(PathBuf, String)> {
    ["domain", "policies", "tokens", "ledger", "proxy", "tests"]
        .iter()
        .flat_map(|dir| files(dir, "rs"))
        .collect()
}

/// The names in the `[section]`s of a manifest that end with `section`.
fn names(manifest: &str, section: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            inside = header.trim_end_matches(']') == section;
        } else if inside
            && let Some(name) =
                line.split(['=', '.', ' ']).next().filter(|name| !name.is_empty() && !name.starts_with('#'))
        {
            names.push(name.to_owned());
        }
    }
    names
}

fn manifest(member: &str) -> String {
    fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap()
}

/// The lines of `text` before its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn dependencies_point_one_way() {
    for (member, allowed) in [
        ("domain", &[][..]),
        ("policies", &["bursar-domain"]),
        ("tokens", &[]),
        ("ledger", &["bursar-domain", "bursar-policies"]),
        ("proxy", &["bursar-domain", "bursar-policies", "bursar-ledger", "bursar-tokens"]),
    ] {
        let manifest = manifest(member);
        let all = ["dependencies", "dev-dependencies", "build-dependencies"];
        for name in all.iter().flat_map(|section| names(&manifest, section)) {
            let ours = name.starts_with("bursar");
            assert!(!ours || allowed.contains(&name.as_str()), "{member} must not depend on {name}");
        }
    }
    assert!(
        names(&manifest("tests"), "dependencies").contains(&"bursar".to_owned()),
        "the reader of manifests works"
    );
}

#[test]
fn only_the_store_names_the_embedded_database() {
    for (path, text) in rust_files() {
        let names_it = without_tests(&text).contains(concat!("sled", "::"));
        let is_store = path == Path::new("ledger/src/store.rs");
        assert!(!names_it || is_store, "{} names the embedded database", path.display());
    }
}

#[test]
fn every_file_begins_by_saying_what_it_owns() {
    for (path, text) in rust_files() {
        assert!(text.starts_with("//! "), "{} has no header", path.display());
    }
}

#[test]
fn rules_know_no_disk_no_network_no_clock_and_no_runtime() {
    let forbidden = ["tokio", "std::fs", "std::net", "SystemTime", "Instant::now", "async fn", "std::env"];
    for dir in ["domain/src", "policies/src", "tokens/src"] {
        for (path, text) in files(dir, "rs") {
            // One place reads the wall clock, behind a trait; tests may read files beside the project.
            if path == Path::new("domain/src/time.rs") || path.ends_with("tests.rs") {
                continue;
            }
            for word in forbidden {
                assert!(!without_tests(&text).contains(word), "{} uses {word}", path.display());
            }
        }
    }
    for member in ["domain", "policies", "tokens"] {
        let manifest = manifest(member);
        assert!(!names(&manifest, "dependencies").contains(&"tokio".to_owned()), "{member}");
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
        concat!("dbg", "!("),
    ];
    for (path, text) in rust_files() {
        for mark in marks {
            assert!(!text.contains(mark), "{} contains {mark}", path.display());
        }
    }
}

#[test]
fn tests_do_not_sleep_for_real() {
    let is_example = |path: &Path| path.components().any(|part| part.as_os_str() == "examples");
    // A lock outlives its holder's fork for a moment; opening a ledger waits that moment out.
    let waits_for_a_lock =
        |path: &Path| path.ends_with("ledger/src/guard.rs") || path.ends_with("ledger/src/store.rs");
    let checked = |(path, _): &(PathBuf, String)| !is_example(path) && !waits_for_a_lock(path);
    for (path, text) in rust_files().into_iter().filter(checked) {
        assert!(!text.contains(concat!("thread::", "sleep(")), "{} sleeps", path.display());
    }
}

#[test]
fn files_that_the_architecture_names_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut named = 0;
    for quoted in text.split('`').skip(1).step_by(2) {
        let looks_like_a_path = quoted.contains('/') && !quoted.contains(' ') && !quoted.starts_with('/');
        if looks_like_a_path {
            assert!(root().join(quoted).exists(), "ARCHITECTURE.md names {quoted}");
            named += 1;
        }
    }
    assert!(named > 10, "the reader of ARCHITECTURE.md works");
}

#[test]
fn every_direct_dependency_is_explained() {
    let text = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let rows: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    let explained: Vec<&str> = rows
        .iter()
        .flat_map(|row| row.split(", "))
        .map(|name| name.split(' ').next().unwrap_or_default())
        .collect();
    let root_manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let declared = names(&root_manifest, "workspace.dependencies");
    for name in declared.iter().filter(|name| !name.starts_with("bursar")) {
        assert!(explained.contains(&name.as_str()), "docs/dependencies.md does not explain {name}");
    }
    for name in explained.iter().filter(|name| !["crate", "---"].contains(name)) {
        assert!(
            declared.iter().any(|d| d == name),
            "docs/dependencies.md explains {name}, which nobody declares"
        );
    }
}

#[test]
fn every_declared_dependency_is_used() {
    let root_manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = ["domain", "policies", "tokens", "ledger", "proxy", "tests"].map(manifest);
    for name in names(&root_manifest, "workspace.dependencies") {
        let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
        let used = members.iter().any(|m| sections.iter().any(|section| names(m, section).contains(&name)));
        assert!(used, "{name} is declared and no member uses it");
    }
}

/// Files that may ask a secret for its text, and what for. Nobody else does: what is not here cannot be said.
const EXPOSE: &[(&str, &str)] = &[
    ("proxy/src/aws/sign.rs", "signing"),
    ("proxy/src/aws/sources.rs", "the request for credentials; reading the shared files"),
    ("proxy/src/cli/key.rs", "a new key is handed over; the pepper is read"),
    ("proxy/src/config/load/admin.rs", "its hash and length"),
    ("proxy/src/config/load/keys.rs", "the pepper"),
    ("proxy/src/config/load/routes.rs", "whether it is a whole value"),
    ("proxy/src/config/secret.rs", "the value of a header"),
    ("proxy/src/inject/certificates.rs", "TLS of the webhook"),
    ("proxy/src/webhooks/send.rs", "the address that is called"),
    ("proxy/src/webhooks/sign.rs", "signing"),
];

/// What turns a value into text that people or other programs read.
const SAYING: &[&str] = &[
    "format!(",
    "print!(",
    "println!(",
    "eprint!(",
    "eprintln!(",
    "write!(",
    "writeln!(",
    "panic!(",
    "json!(",
    "trace!(",
    "debug!(",
    "info!(",
    "warn!(",
    "error!(",
    "event!(",
    "span!(",
    "bail!(",
    "anyhow!(",
    "assert!(",
];

/// Where a secret's text is among what they are given, how often, and why.
const SAID: &[(&str, usize, &str)] = &[
    ("proxy/src/aws/sources.rs", 1, "the body that asks for credentials"),
    ("proxy/src/cli/key.rs", 2, "a new key is handed to whoever asked for it, as text or as JSON"),
];

/// What stands in the parentheses of each macro of `SAYING`.
fn said(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for name in SAYING {
        for (at, _) in text.match_indices(name) {
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let inside = &text[at + name.len()..];
            let mut depth = 1;
            let end = inside.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            found.push(&inside[..end.unwrap_or(inside.len())]);
        }
    }
    found
}

/// The product's files without their tests.
fn product_files() -> impl Iterator<Item = (PathBuf, String)> {
    let is_test =
        |path: &Path| path.ends_with("tests.rs") || path.components().any(|c| c.as_os_str() == "tests");
    files("proxy/src", "rs")
        .into_iter()
        .filter(move |(path, _)| !is_test(path))
        .map(|(path, text)| (path, without_tests(&text).to_owned()))
}

#[test]
fn the_text_of_a_secret_is_asked_for_where_it_is_used_and_said_nowhere() {
    let mut asks = Vec::new();
    for (path, text) in product_files() {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        asks.extend(lines.filter(|line| line.contains(".expose()")).map(|_| path.clone()));
        let says = said(&text).into_iter().filter(|given| given.contains(".expose()")).count();
        let may_say =
            SAID.iter().find(|(known, ..)| path == Path::new(known)).map_or(0, |(_, count, _)| *count);
        assert_eq!(says, may_say, "{} says a secret, or says it no longer", path.display());
    }
    for path in &asks {
        let listed = EXPOSE.iter().any(|(known, _)| path == Path::new(known));
        assert!(listed, "{} asks for the text of a secret", path.display());
    }
    for (known, what) in EXPOSE {
        assert!(asks.iter().any(|path| path == Path::new(known)), "{known} does not: {what}");
    }
}

/// Whether a type has the bytes of a secret in it.
fn holds_secret(body: &str) -> bool {
    body.contains("Zeroizing<") || body.contains("secret_access_key: String")
}

#[test]
fn what_holds_a_secrets_bytes_derives_nothing_that_shows_or_copies_them_out() {
    let mut found = Vec::new();
    for (path, text) in product_files() {
        for (at, _) in text.match_indices("struct ").chain(text.match_indices("enum ")) {
            // The attributes stand between the end of what came before and the word; the body ends at a line's
            // first brace, or with the line.
            let before = text[..at].rsplit("\n\n").next().unwrap_or_default();
            let rest = &text[at..];
            let line_end = rest.find('\n').unwrap_or(rest.len());
            let end =
                if rest[..line_end].ends_with('{') { rest.find("\n}").unwrap_or(line_end) } else { line_end };
            let is_comment = text[..at].rsplit('\n').next().is_some_and(|start| start.contains("//"));
            if is_comment || !holds_secret(&rest[..end]) {
                continue;
            }
            let name: String =
                rest.split(' ').nth(1).unwrap().chars().take_while(|c| c.is_alphanumeric()).collect();
            for derived in before.lines().filter(|line| line.trim_start().starts_with("#[derive(")) {
                for bad in ["Debug", "Serialize", "PartialEq", "Hash", "Copy"] {
                    assert!(!derived.contains(bad), "{}: {name} derives {bad}", path.display());
                }
            }
            for shows in ["Display for", "Serialize for", "ToString for"] {
                assert!(!text.contains(&format!("{shows} {name} ")), "{}: {name} is shown", path.display());
            }
            found.push(name);
        }
    }
    found.sort();
    assert_eq!(found, ["Answer", "Assignments", "Known", "NewKey", "Pem", "Pepper", "Secret"]);
}
