//! Bad rows, importer by importer: each is named by its line and the reason, nothing of the file is imported,
//! and the file without it is imported whole afterwards; from a directory and from a running sidecar.
//!
//! Invariants
//! - Every test has a directory of its own; a sidecar that it starts ends with it.
//!
//! Not here: what rows may say (`policies`, `src/imports`, `src/reconcile`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

mod sidecar;

use sidecar::Sidecar;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(args).current_dir(dir).env_clear();
    command.stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file of an importer: what stands before its rows, a good row, a bad one, and a word of the reason.
struct Case {
    name: &'static str,
    what: &'static str,
    head: &'static str,
    good: &'static str,
    bad: &'static str,
    reason: &'static str,
}

const OWN: &str = "id,started_at,team,provider,model,usage.input_tokens,cost.billed,outcome\n";
const LANGFUSE: &str = "id,traceId,type,name,startTime,endTime,providedModelName,usageDetails,totalCost\n";

const CASES: [Case; 15] = [
    Case {
        name: "usage, own CSV",
        what: "usage",
        head: OWN,
        good: "u1,2026-09-05T10:00:00Z,a,openai,m,10,1.00,ok\n",
        bad: "u2,2026-09-05T10:00:00Z,a,openai,m,-10,1.00,ok\n",
        reason: "input_tokens",
    },
    Case {
        name: "usage, own JSON Lines",
        what: "usage",
        head: "",
        good: "{\"id\":\"j1\",\"started_at\":\"2026-09-05T10:00:00Z\",\"provider\":\"openai\",\"usage\":{\"input_tokens\":1}}\n",
        bad: "{\"id\":\"j2\",\"started_at\":\"yesterday\",\"provider\":\"openai\",\"usage\":{\"input_tokens\":1}}\n",
        reason: "started_at",
    },
    Case {
        name: "usage, a name that would move the cursor of a terminal",
        what: "usage",
        head: "",
        good: "{\"id\":\"k1\",\"started_at\":\"2026-09-05T10:00:00Z\",\"provider\":\"openai\",\"usage\":{\"input_tokens\":1}}\n",
        bad: "{\"id\":\"k2\",\"started_at\":\"2026-09-05T10:00:00Z\",\"team\":\"\\u001b[2J\",\"provider\":\"openai\"}\n",
        reason: "team",
    },
    Case {
        name: "usage, LiteLLM",
        what: "usage",
        head: "",
        good: "{\"request_id\":\"l1\",\"startTime\":\"2026-09-05T10:00:00Z\",\"spend\":0.1,\"model\":\"gpt-4o\",\"prompt_tokens\":5}\n",
        bad: "{\"request_id\":\"l2\",\"startTime\":\"2026-09-05T10:00:00Z\",\"spend\":0.1,\"model\":\"gpt-4o\",\"prompt_tokens\":\"many\"}\n",
        reason: "prompt_tokens",
    },
    Case {
        name: "usage, Langfuse",
        what: "usage",
        head: LANGFUSE,
        good: "o1,t1,GENERATION,answer,2026-09-05T10:00:00Z,2026-09-05T10:00:01Z,gpt-4o,\"{\"\"input\"\":16,\"\"output\"\":3}\",0.1\n",
        bad: "o2,t1,GENERATION,answer,never,2026-09-05T10:00:01Z,gpt-4o,\"{\"\"input\"\":16}\",0.1\n",
        reason: "startTime",
    },
    Case {
        name: "usage, OpenMeter",
        what: "usage",
        head: "",
        good: "{\"specversion\":\"1.0\",\"id\":\"m1\",\"source\":\"/a\",\"type\":\"tokens\",\"subject\":\"acme\",\"time\":\"2026-09-05T10:00:00Z\",\"data\":{\"tokens\":\"12\",\"type\":\"input\",\"model\":\"gpt-4o\"}}\n",
        bad: "{\"specversion\":\"1.0\",\"id\":\"m2\",\"source\":\"/a\",\"type\":\"tokens\",\"subject\":\"acme\",\"time\":\"2026-09-05T10:00:00Z\",\"data\":{\"tokens\":\"some\",\"type\":\"input\",\"model\":\"gpt-4o\"}}\n",
        reason: "tokens",
    },
    Case {
        name: "fixings",
        what: "fixings",
        head: "index,date,value,currency\n",
        good: "TPI,2026-09-01,2.25,USD\n",
        bad: "TPI,2026-09-31,2.25,USD\n",
        reason: "2026-09-31",
    },
    Case {
        name: "fx",
        what: "fx",
        head: "pair,date,rate,source\n",
        good: "EUR/USD,2026-09-28,1.0874,ECB\n",
        bad: "EUR/USD,2026-09-29,free,ECB\n",
        reason: "rate",
    },
    Case {
        name: "calendars",
        what: "calendars",
        head: "",
        good: "{\"calendar\":\"CN\",\"holidays\":[\"2026-10-01\"]}\n",
        bad: "{\"calendar\":\"DE\",\"holidays\":[\"first of May\"]}\n",
        reason: "first of May",
    },
    Case {
        name: "indices",
        what: "indices",
        head: "",
        good: "{\"index\":\"CNX\",\"currency\":\"CNY\"}\n",
        bad: "{\"index\":\"USX\",\"currency\":\"dollars\"}\n",
        reason: "currency",
    },
    Case {
        name: "profiles",
        what: "profiles",
        head: "",
        good: "{\"profile\":\"q\",\"from\":\"2026-01-01\",\"model\":\"m-ref\",\"score\":\"86\",\"reference\":\"86\",\"source\":\"own\"}\n",
        bad: "{\"profile\":\"p\",\"from\":\"2026-01-01\",\"model\":\"m-ref\",\"score\":\"good\",\"reference\":\"86\",\"source\":\"own\"}\n",
        reason: "score",
    },
    Case {
        name: "market",
        what: "market",
        head: "",
        good: "{\"pair\":\"USD/CNY\",\"date\":\"2026-09-28\",\"rate\":\"7.1\",\"source\":\"PBOC\"}\n",
        bad: "{\"pair\":\"USD/CNY\",\"date\":\"2026-09-29\",\"rate\":\"-7.1\",\"source\":\"PBOC\"}\n",
        reason: "rate",
    },
    Case {
        name: "contracts",
        what: "contracts",
        head: "",
        good: "{\"position_id\":\"cap\",\"kind\":\"commit_spend\",\"quantity\":\"20\",\"unit\":\"USD\",\"price_currency\":\"USD\",\"trade_date\":\"2026-08-01\",\"effective_from\":\"2026-09-01\",\"effective_until\":\"2026-10-01\",\"commitment\":{\"fulfilment_interval\":\"term\"},\"designation\":{}}\n",
        bad: "{\"position_id\":\"hat\",\"kind\":\"swop\",\"quantity\":\"20\",\"unit\":\"USD\",\"trade_date\":\"2026-08-01\"}\n",
        reason: "kind",
    },
    Case {
        name: "events of contracts",
        what: "events",
        head: "",
        good: "",
        bad: "{\"position_id\":\"nobody\",\"event\":\"settle\",\"date\":\"2026-10-01\",\"month\":\"2026-09\",\"amount\":\"1\"}\n",
        reason: "nobody",
    },
    Case {
        name: "revenue",
        what: "revenue",
        head: "id,kind,amount,currency,time,refers_to,session\n",
        good: "s1,,10.00,USD,2026-09-05T10:00:00Z,,s\n",
        bad: "s2,refund,-5.00,USD,2026-09-05T10:00:00Z,nothing,\n",
        reason: "nothing",
    },
];

/// The file with the bad row is refused, and then the one without it is new.
fn check(dir: &Path, case: &Case, place: &[&str]) {
    let Case { name, what, head, good, bad, reason } = case;
    println!("{name} {place:?}");
    let lines = |text: &str| text.matches('\n').count();
    let line = lines(head) + lines(good) + 1;
    std::fs::write(dir.join("rows"), format!("{head}{good}{bad}")).unwrap();
    let import = [&["import", what, "rows"], place].concat();
    let refused = run(dir, &import);
    let errors = stderr(&refused);
    assert_eq!(refused.status.code(), Some(3), "{name}: {errors}");
    let told = errors.lines().find(|told| told.starts_with(&format!("line {line}: ")));
    let told = told.unwrap_or_else(|| panic!("{name}: line {line} in {errors}"));
    assert!(told.contains(reason), "{name}: {reason} in {told}");
    assert!(!told.contains('\u{1b}'), "{name}: {told:?}");
    assert!(errors.contains("nothing was imported"), "{name}: {errors}");
    if !good.is_empty() {
        std::fs::write(dir.join("rows"), format!("{head}{good}")).unwrap();
        let said = stdout(&run(dir, &import));
        // Of fixings the index is new, too.
        assert!(!said.contains(" 0 new") && said.contains("0 there already"), "{name}: {said}");
    }
}

#[test]
fn every_importer_names_a_bad_row_and_imports_nothing_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    for case in &CASES {
        check(dir.path(), case, &["--data-dir", "data"]);
    }
    stdout(&run(dir.path(), &["ledger", "verify", "--data-dir", "data"]));
}

#[test]
fn a_running_sidecar_names_them_too() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(dir.path());
    for case in &CASES {
        check(dir.path(), case, &["--admin", &sidecar.admin]);
    }
}

#[test]
fn statements_name_their_bad_rows_and_nothing_is_reconciled() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("rows"), OWN.to_owned() + CASES[0].good).unwrap();
    stdout(&run(dir.path(), &["import", "usage", "rows", "--data-dir", "data"]));
    let page = |buckets: &[String]| format!("{{\"object\":\"page\",\"data\":[\n{}]}}\n", buckets.join(",\n"));
    let cost = |value: &str| {
        format!(
            "{{\"start_time\":1772409600,\"end_time\":1772496000,\"results\":[{{\"object\":\"organization.costs.result\",\
             \"amount\":{{\"value\":{value},\"currency\":\"usd\"}},\"line_item\":\"gpt-4o, input\"}}]}}"
        )
    };
    let focus = "BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ServiceName,ServiceProviderName,ProviderName,SkuMeter,ChargePeriodEnd\n";
    let focus_row = |cost: &str| {
        format!(
            "{cost},USD,Usage,2026-09-05T10:00:00Z,openai,openai,openai,gpt-4o input,2026-09-05T11:00:00Z\n"
        )
    };
    for (name, text, line, reason) in [
        ("OpenAI's costs", page(&[cost("1.5"), cost("\"a lot\"")]), 3, "amount.value"),
        ("a page that is cut", page(&[cost("1.5"), "{\"start_time\"".to_owned()]), 3, "JSON"),
        ("FOCUS", focus.to_owned() + &focus_row("1.5") + &focus_row("free"), 3, "free"),
    ] {
        std::fs::write(dir.path().join("statement"), text).unwrap();
        let args =
            ["reconcile", "statement", "--provider", "openai", "--data-dir", "data", "--format", "json"];
        let refused = run(dir.path(), &args);
        let errors = stderr(&refused);
        assert_eq!(refused.status.code(), Some(3), "{name}: {errors}");
        assert!(errors.contains(&format!("line {line}: ")) && errors.contains(reason), "{name}: {errors}");
        assert!(refused.stdout.is_empty(), "{name}");
    }
}
