//! Tokens that the program makes, and who changed a ledger, from the command line.
//!
//! Not here: what each operation answers (`src/admin/tests.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod sidecar;

use serde_json::Value;
use sidecar::Sidecar;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn bursar(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear().stdin(Stdio::null()).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_token_does_what_its_scope_says_and_the_audit_tells_who_changed_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let rates = "pair,date,rate,source\nEUR/USD,2026-09-01,1.1,ecb\n";
    std::fs::write(path.join("fx.csv"), rates).unwrap();
    std::fs::write(path.join("more.csv"), rates.replace("09-01", "09-02")).unwrap();
    let here = ["--data-dir", "data"];
    assert!(bursar(path, &[&["import", "fx", "fx.csv"], &here[..]].concat()).status.success());
    let audit = json(&bursar(path, &[&["ledger", "audit", "--format", "json"], &here[..]].concat()));
    let row = &audit["rows"][0];
    assert!(row["who"].as_str().unwrap().starts_with("user "), "{row}");
    assert_eq!((&row["what"], &row["via"]), (&"bursar import fx".into(), &"command line".into()));

    let mut config = "admin:\n  tokens:\n".to_owned();
    for scope in ["read", "ingest"] {
        let made = json(&bursar(path, &["key", "token", "--name", scope, "--scope", scope, "--json"]));
        std::fs::write(path.join(scope), made["token"].as_str().unwrap()).unwrap();
        let hash = made["hash"].as_str().unwrap();
        config.push_str(&format!("    - {{ name: the-{scope}, scopes: [{scope}], hash: '{hash}' }}\n"));
    }
    std::fs::write(path.join("bursar.yaml"), config).unwrap();
    let sidecar = Sidecar::start_with(path, &["--config", "bursar.yaml"]);
    let ask = |args: &[&str], token: &str| {
        bursar(path, &[args, &["--admin", &sidecar.admin, "--admin-token-file", token]].concat())
    };
    assert!(ask(&["import", "fx", "more.csv"], "ingest").status.success());
    for (args, token) in [(&["import", "fx", "fx.csv"][..], "read"), (&["ledger", "audit"][..], "ingest")] {
        let refused = ask(args, token);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("needs the scope"), "{refused:?}");
    }
    let audit = json(&ask(&["ledger", "audit", "--who", "the-ingest", "--format", "json"], "read"));
    assert_eq!(audit["rows"].as_array().unwrap().len(), 1);
    assert_eq!(audit["rows"][0]["about"], "/api/v1/import/fx");
}
