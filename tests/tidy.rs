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
