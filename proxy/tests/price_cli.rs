//! `bursar price` as its users run it, without a sidecar: list, show, diff, import.
//!
//! Not here: replays, which need a ledger (`cli.rs`), and which price holds (`bursar-policies`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn price(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.arg("price").args(args).current_dir(dir).env_clear().stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.extend(["--format", "json"]);
    serde_json::from_str(&text(&price(dir, &args))).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const OVERLAY: &str = "source: contract 7\nrows:\n  - { provider: openai, model: gpt-4o-mini, per_million: { input: 0.12 } }\n  - { provider: vllm, model: mine, per_million: { input: 0.2, output: 0.6 } }\n";

#[test]
fn list_shows_what_holds_at_a_time_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let pick = ["--provider", "deepseek", "--model", "deepseek-v4-pro"];
    let at = |time: &str| {
        let mut args = vec!["list", "--at", time];
        args.extend(pick);
        json(dir.path(), &args)
    };
    let before = at("2026-08-01");
    assert_eq!(before["at"], "2026-08-01T00:00:00Z");
    assert_eq!(before["prices"].as_array().unwrap().len(), 3);
    let input = |prices: &Value, hours: Option<&str>| {
        let all = prices["prices"].as_array().unwrap().clone();
        let found = all.iter().find(|price| price["item"] == "input" && price["hours"].as_str() == hours);
        found.map(|price| price["list"].as_str().unwrap().to_owned())
    };
    assert_eq!(input(&before, None).as_deref(), Some("0.435"));
    let after = at("2026-09-01");
    assert_eq!(input(&after, Some("01:00-04:00")).as_deref(), Some("1.32"));
    assert_eq!(input(&after, Some("04:00-06:00")).as_deref(), Some("0.66"));
    assert_eq!(after["prices"][0]["source"], "genai-prices@0.2.3");
    let mut args = vec!["list", "--at", "2026-08-01", "--format", "csv"];
    args.extend(pick);
    let csv = text(&price(dir.path(), &args));
    assert!(csv.starts_with("provider,model,tier,region,hours,item,above,list,"), "{csv}");
    assert!(
        csv.contains(
            "\ndeepseek,deepseek-v4-pro,standard,,,input,,0.435,0.435,1000000,USD,,genai-prices@0.2.3\n"
        ),
        "{csv}"
    );
    assert!(text(&price(dir.path(), &["list", "--provider", "deepseek"])).contains("deepseek-v4-flash"));
    let nobody = price(dir.path(), &["list", "--provider", "opneai"]);
    assert_eq!(nobody.status.code(), Some(1));
    let said = errors(&nobody);
    assert!(said.contains("did you mean openai?") && said.contains("anthropic, "), "{said}");
    for (args, option) in
        [(&["list", "--at", "someday"][..], "--at"), (&["diff", "--before-at", "someday"], "--before-at")]
    {
        let wrong = price(dir.path(), args);
        assert_eq!(wrong.status.code(), Some(2));
        assert!(errors(&wrong).contains(&format!("{option} \"someday\" is no time")), "{}", errors(&wrong));
    }
}

#[test]
fn a_model_is_picked_by_its_whole_name_then_by_pattern_then_by_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let picked = |model: &str| {
        let output =
            price(dir.path(), &["list", "--provider", "openai", "--model", model, "--format", "json"]);
        let prices: Value = serde_json::from_str(&text(&output)).unwrap();
        let names: BTreeSet<String> = prices["prices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|price| price["model"].as_str().unwrap().to_owned())
            .collect();
        (names, errors(&output))
    };
    let (exact, said) = picked("gpt-5");
    assert_eq!((exact.len(), said.as_str()), (1, ""));
    let (all, said) = picked("gpt*");
    assert!(all.len() > 20 && said.is_empty(), "{said}");
    let (begun, said) = picked("gpt");
    assert!(begun.len() <= 20 && said.contains("the first 20") && said.contains("--model 'gpt*'"), "{said}");
    let (none, said) = picked("gpt-4o-minni");
    assert!(none.is_empty() && said.contains("nearest are gpt-4o-mini"), "{said}");
    assert!(picked("zzz*").1.contains("fits"));
}

#[test]
fn show_names_every_row_of_a_model_under_any_name_and_refuses_an_unknown_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mine.yaml"), OVERLAY).unwrap();
    let shown =
        json(dir.path(), &["show", "vertex", "publishers/anthropic/models/claude-haiku-4-5@20251001"]);
    assert_eq!((&shown["provider"], &shown["model"]), (&"vertex".into(), &"claude-haiku-4-5".into()));
    let rows = shown["rows"].as_array().unwrap();
    let uplift = rows.iter().find(|row| row["item"] == "uplift").unwrap();
    assert_eq!(
        (&uplift["value"], &uplift["region"], &uplift["unit"]),
        (&"1.1".into(), &"*".into(), &"factor".into())
    );
    assert!(rows.iter().any(|row| row["tier"] == "batch" && row["unit"] == "1000000 tokens"));
    let overlaid = json(dir.path(), &["show", "openai", "gpt-4o-mini", "--overlay", "mine.yaml"]);
    let own = overlaid["rows"].as_array().unwrap().iter().find(|row| row["source"] == "contract 7").unwrap();
    assert_eq!(
        (&own["row"], &own["value"]),
        (&"overlay/openai/gpt-4o-mini/input=0.12".into(), &"0.12".into())
    );
    let table = text(&price(dir.path(), &["show", "openai", "gpt-4o-mini"]));
    assert!(table.contains("openai/gpt-4o-mini (also ") && table.contains("litellm@1.109.1"), "{table}");
    let unknown = price(dir.path(), &["show", "openai", "gpt-99"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(errors(&unknown).contains("no model \"gpt-99\""), "{}", errors(&unknown));
    for (args, told) in [
        (&["show", "opnai", "gpt-5"][..], "did you mean openai?"),
        (&["show", "openai", "gpt-4o-minni"], "the nearest are gpt-4o-mini"),
        (&["show", "openai"], "is a provider: name a model"),
        (&["show", "gpt"], "no model \"gpt\""),
        (&["show", "claude-haiku-4-5"], "several providers have"),
    ] {
        let refused = price(dir.path(), args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        assert!(errors(&refused).contains(told), "{args:?}: {}", errors(&refused));
    }
    let alone = json(dir.path(), &["show", "mine", "--overlay", "mine.yaml"]);
    assert_eq!(alone["provider"], "vllm");
}

#[test]
fn diff_tells_what_an_overlay_or_a_date_changes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mine.yaml"), OVERLAY).unwrap();
    let diff = json(dir.path(), &["diff", "builtin", "mine.yaml"]);
    let changes: Vec<[&str; 4]> = diff["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|change| change["tier"] == "standard")
        .map(|change| {
            let list = |side: &str| change[side]["list"].as_str().map_or("", |text| text).to_owned();
            let (before, after) = (list("before"), list("after"));
            [
                change["change"].as_str().unwrap(),
                change["model"].as_str().unwrap(),
                before.leak(),
                after.leak(),
            ]
        })
        .collect();
    assert_eq!(
        changes,
        [
            ["changed", "gpt-4o-mini", "0.15", "0.12"],
            ["added", "mine", "", "0.2"],
            ["added", "mine", "", "0.6"],
        ]
    );
    let args = [
        "diff",
        "--provider",
        "deepseek",
        "--model",
        "deepseek-v3.2",
        "--before-at",
        "2026-01-01",
        "--at",
        "2026-11-01",
        "--format",
        "csv",
    ];
    let dated = text(&price(dir.path(), &args));
    assert_eq!(dated.lines().count(), 1, "{dated}");
    let args = [
        "diff",
        "--provider",
        "openai",
        "--model",
        "gpt-5.6-sol",
        "--before-at",
        "2026-08-01",
        "--at",
        "2026-11-01",
        "--format",
        "csv",
    ];
    let dated = text(&price(dir.path(), &args));
    assert!(dated.contains("\nchanged,openai,gpt-5.6-sol,standard,,,input,,5,4,USD\n"), "{dated}");
    assert!(dated.contains("\nadded,openai,gpt-5.6-sol,flex,"), "{dated}");
    assert_eq!(price(dir.path(), &["diff", "builtin", "nowhere.yaml"]).status.code(), Some(1));
}

#[test]
fn import_shows_first_writes_when_told_and_names_every_bad_row() {
    let dir = tempfile::tempdir().unwrap();
    let litellm = r#"{"gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 1e-07, "output_cost_per_pixel": 1},
        "xai/grok-4.3": {"litellm_provider": "xai", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 2.5e-06}}"#;
    std::fs::write(dir.path().join("prices.json"), litellm).unwrap();
    let shown = price(dir.path(), &["import", "prices.json"]);
    let report = text(&shown);
    assert!(report.contains("format: litellm\nrows: 2\nmodels: 2 of 2 providers, 1 of them"), "{report}");
    assert!(report.contains("1 × output_cost_per_pixel"), "{report}");
    assert!(errors(&shown).contains("nothing was written"));
    text(&price(dir.path(), &["import", "prices.json", "--output", "mine.yaml", "--source", "my list"]));
    let overlay = std::fs::read_to_string(dir.path().join("mine.yaml")).unwrap();
    assert!(overlay.starts_with("source: \"my list\"\nrows:\n  - provider: \"openai\"\n    model: \"gpt-x\"\n    per_million: { input: 0.1 }\n"), "{overlay}");
    let listed =
        json(dir.path(), &["list", "--overlay", "mine.yaml", "--provider", "openai", "--model", "gpt-x"]);
    assert_eq!(listed["prices"][0]["list"], "0.1");
    // The file itself is an overlay too.
    let same =
        json(dir.path(), &["list", "--overlay", "prices.json", "--provider", "openai", "--model", "gpt-x"]);
    assert_eq!(same["prices"][0]["list"], "0.1");
    let again = price(dir.path(), &["import", "prices.json", "--output", "mine.yaml"]);
    assert_eq!(again.status.code(), Some(1));

    let bad =
        r#"{"a": {"litellm_provider": "p", "input_cost_per_token": -1}, "b": {"input_cost_per_token": 1}}"#;
    std::fs::write(dir.path().join("bad.json"), bad).unwrap();
    let refused = price(dir.path(), &["import", "bad.json", "--output", "bad.yaml"]);
    assert_eq!(refused.status.code(), Some(3));
    let said = errors(&refused);
    assert!(
        said.contains("\"a\": input_cost_per_token") && said.contains("\"b\": litellm_provider"),
        "{said}"
    );
    assert!(!dir.path().join("bad.yaml").exists());
    let unknown = price(dir.path(), &["import", "mine.yaml"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn a_configuration_may_name_another_tools_file_as_its_overlay() {
    let dir = tempfile::tempdir().unwrap();
    let models_dev = r#"{"vllm": {"models": {"mine": {"cost": {"input": 0.2, "output": 0.6}}}}}"#;
    std::fs::write(dir.path().join("api.json"), models_dev).unwrap();
    let check = |format: &str| {
        let config = format!("prices: {{ overlay: api.json, overlay_format: {format} }}\n");
        std::fs::write(dir.path().join("bursar.yaml"), config).unwrap();
        price(dir.path(), &["show", "vllm", "mine", "--config", "bursar.yaml"])
    };
    for format in ["auto", "models.dev"] {
        assert!(text(&check(format)).contains("overlay/vllm/mine/input=0.2"));
    }
    assert_eq!(check("litellm").status.code(), Some(1));
    assert_eq!(check("bursar").status.code(), Some(3));
}
