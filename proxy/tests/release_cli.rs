//! What a release brings beside its commands: build facts, completions, manual pages, as the binary writes them.
//!
//! Not here: that every command and option is in them (`cli::completions`, `cli::man`), and what other tools make
//! of them (`.ci/release.py`).
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
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear().stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Completes a line as bash would, and returns the candidates.
fn completed(dir: &Path, words: &[&str]) -> Vec<String> {
    let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
    let script = format!(
        "source completions; COMP_WORDS=({}); COMP_CWORD={}; _bursar bursar {last:?} {before:?}; echo \"${{COMPREPLY[@]}}\"",
        words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "),
        words.len() - 1
    );
    let output = Command::new("bash").args(["-c", &script]).current_dir(dir).output().unwrap();
    stdout(&output).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_reads_its_completions_and_completes_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let script = stdout(&run(dir.path(), &["completions", "bash"]));
    std::fs::write(dir.path().join("completions"), script).unwrap();
    let parsed = Command::new("bash").args(["-n", "completions"]).current_dir(dir.path()).output().unwrap();
    stdout(&parsed);
    assert_eq!(completed(dir.path(), &["bursar", "hed"]), ["hedge"]);
    assert_eq!(completed(dir.path(), &["bursar", "ledger", "verify", "--d"]), ["--data-dir"]);
    assert_eq!(completed(dir.path(), &["bursar", "usage", "--format", ""]), ["table", "json", "csv"]);
}

#[test]
fn a_shell_that_is_not_known_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let refused = run(dir.path(), &["completions", "csh"]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
}

#[test]
fn pages_go_to_a_directory_or_one_to_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let written = run(dir.path(), &["man", "--out", "share/man1"]);
    assert_eq!(stdout(&written), "");
    let folder = dir.path().join("share/man1");
    let count = std::fs::read_dir(&folder).unwrap().count();
    assert!(String::from_utf8(written.stderr).unwrap().starts_with(&format!("{count} pages in share/man1")));
    for (words, file) in
        [(&["man"][..], "bursar.1"), (&["man", "ledger", "verify"], "bursar-ledger-verify.1")]
    {
        assert_eq!(stdout(&run(dir.path(), words)), std::fs::read_to_string(folder.join(file)).unwrap());
    }
    assert_eq!(run(dir.path(), &["man", "ledger", "prove"]).status.code(), Some(2));
    assert_eq!(run(dir.path(), &["man", "--out", "x", "serve"]).status.code(), Some(2));
}

#[test]
fn version_is_one_line_and_its_facts_are_those_of_the_running_sidecar() {
    let dir = tempfile::tempdir().unwrap();
    let line = stdout(&run(dir.path(), &["--version"]));
    assert!(line.starts_with("bursar ") && line.lines().count() == 1, "{line}");
    let told: Value =
        serde_json::from_str(&stdout(&run(dir.path(), &["version", "--format", "json"]))).unwrap();
    assert_eq!(line.split_whitespace().nth(1), told["version"].as_str());
    let table = stdout(&run(dir.path(), &["version"]));
    for fact in ["version", "rustc", "target", "ledger_formats.payload", "prices.digest"] {
        assert!(table.contains(fact), "{fact} is not in {table}");
    }

    let sidecar = Sidecar::start(dir.path());
    let running = run(dir.path(), &["version", "--admin", &sidecar.admin, "--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&running)).unwrap(), told);
    let metric =
        metrics(&sidecar).lines().find(|line| line.starts_with("bursar_build_info{")).unwrap().to_owned();
    let version = format!("version=\"{}\"", told["version"].as_str().unwrap());
    assert!(metric.contains(&version) && metric.ends_with("} 1"), "{metric}");
}

fn metrics(sidecar: &Sidecar) -> String {
    let mut stream = TcpStream::connect(sidecar.admin.trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}
