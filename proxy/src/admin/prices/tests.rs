//! Prices and webhooks over the API, against the built-in book and a receiver of our own.

use crate::admin::tests::{Bench, check_problem};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const AT: &str = "at=2026-11-01";

#[tokio::test]
async fn prices_are_listed_in_pages_and_a_model_has_its_sheet() {
    let bench = Bench::new("");
    let one = bench.get(&format!("/api/v1/prices?provider=openai&model=gpt-4o-mini&{AT}")).await;
    assert_eq!(one.status, 200, "{}", one.body);
    let one = one.json();
    let prices = one["prices"].as_array().unwrap();
    assert!(prices.iter().all(|price| price["model"] == "gpt-4o-mini" && price["contracted"].is_string()));
    assert_eq!((&one["remark"], &one["next_cursor"]), (&Value::Null, &Value::Null));

    let query = format!("/api/v1/prices?provider=openai&{AT}&limit=7");
    let mut cursor = String::new();
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let page = bench.get(&format!("{query}{cursor}")).await.json();
        for price in page["prices"].as_array().unwrap() {
            assert!(ids.insert(price["id"].as_str().unwrap().to_owned()), "{price} twice");
        }
        let next = page["next_cursor"].as_str().unwrap();
        cursor = format!(
            "&cursor={}",
            percent_encoding::utf8_percent_encode(next, percent_encoding::NON_ALPHANUMERIC)
        );
    }
    assert_eq!(ids.len(), 21);

    let sheet = bench.get("/api/v1/prices/sheet?provider=openai&model=gpt-4o-mini").await.json();
    assert_eq!((&sheet["provider"], &sheet["model"]), (&"openai".into(), &"gpt-4o-mini".into()));
    assert!(sheet["rows"].as_array().unwrap().iter().all(|row| row["value"].is_string()));
    for (query, status, said) in [
        ("prices?provider=opnai", 404, "did you mean openai?"),
        ("prices?at=soon", 400, "at: \"soon\" is not taken"),
        ("prices/sheet", 400, "\"model\" is missing"),
        ("prices/sheet?model=no-such-model-at-all", 404, "has no model"),
        ("prices/sheet?provider=openai&model=no-such", 404, "has no model"),
        ("prices/diff?before=/etc/passwd", 400, "not taken"),
        ("prices/replay?from=2026-11-02&to=2026-11-01", 400, "period is empty"),
    ] {
        check_problem(&bench.get(&format!("/api/v1/{query}")).await, status, said, query);
    }
}

#[tokio::test]
async fn what_differs_is_told_and_usage_is_replayed_at_other_prices_without_a_trace() {
    let bench = Bench::new("");
    let same = bench.get(&format!("/api/v1/prices/diff?provider=openai&{AT}")).await.json();
    assert_eq!(same["changes"], Value::Array(Vec::new()));
    assert_eq!((&same["before"]["book"], &same["after"]["book"]), (&"builtin".into(), &"in_force".into()));
    let older = bench.get(&format!("/api/v1/prices/diff?provider=deepseek&before_at=2024-06-01&{AT}")).await;
    assert!(!older.json()["changes"].as_array().unwrap().is_empty(), "{}", older.body);

    let usage = "id,started_at,team,provider,model,usage.input_tokens,usage.output_tokens,cost.currency,cost.billed\n\
                 a,2026-11-03T00:00:00Z,t,openai,gpt-4o-mini,1000000,0,USD,9.00\n";
    let imported = bench.ask("POST", "/api/v1/import/usage", &[], usage.as_bytes().to_vec()).await;
    assert_eq!(imported.status, 200, "{}", imported.body);
    let before = bench.get("/api/v1/ledger/stats").await.json()["last_sequence"].clone();
    let replay = bench.get("/api/v1/prices/replay?from=2026-11-01&to=2026-12-01").await.json();
    let row = &replay["rows"][0];
    assert_eq!((&row["model"], &row["before"]["billed"]), (&"gpt-4o-mini".into(), &"9".into()), "{replay}");
    assert_eq!(row["after"]["billed"], "0.15", "{replay}");
    assert_eq!(replay["batch_results_left_out"], 0);
    let bad = bench.ask("POST", "/api/v1/prices/replay", &[], b"prices: [{ model: 7 }]".to_vec()).await;
    check_problem(&bad, 422, "", "a bad overlay");
    let large = [b"# ".to_vec(), vec![b'x'; 256 << 10]].concat();
    let large = bench.ask("POST", "/api/v1/prices/replay", &[], large).await;
    check_problem(&large, 422, "at most 262144 here", "an overlay that would take much memory");
    assert_eq!(bench.get("/api/v1/ledger/stats").await.json()["last_sequence"], before);
}

#[tokio::test]
async fn a_webhook_is_tried_once_and_what_came_of_it_is_told_without_its_path() {
    let none = Bench::new("").ask("POST", "/api/v1/webhooks/test", &[], Vec::new()).await;
    check_problem(&none, 404, "there is no webhook in the configuration", "no webhook");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "a secret of some length, for tests").unwrap();
    let bench = Bench::new(&format!(
        "webhooks:\n  - {{ name: own, url: 'http://127.0.0.1:{port}/canary-path', secret_file: '{}', \
         allow_private: ['127.0.0.0/8'] }}\n",
        secret.display()
    ));
    let receiver = async {
        for answer in ["204 No Content", "500 Internal Server Error"] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !String::from_utf8_lossy(&heard).contains("this is a test") {
                assert_ne!(socket.read_buf(&mut heard).await.unwrap(), 0);
            }
            let heard = String::from_utf8_lossy(&heard).to_lowercase();
            assert!(
                heard.starts_with("post /canary-path ") && heard.contains("webhook-signature: v1,"),
                "{heard}"
            );
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let asking = async {
        let unknown = bench.ask("POST", "/api/v1/webhooks/test?name=other", &[], Vec::new()).await;
        check_problem(&unknown, 404, "there are: own", "another webhook");
        let taken = bench.ask("POST", "/api/v1/webhooks/test", &[], Vec::new()).await;
        assert_eq!(taken.status, 200, "{}", taken.body);
        let row = &taken.json()["webhooks"][0];
        assert_eq!(
            (&row["webhook"], &row["taken"], &row["status"]),
            (&"own".into(), &true.into(), &204.into())
        );
        let refused = bench.ask("POST", "/api/v1/webhooks/test?name=own", &[], Vec::new()).await;
        let row = &refused.json()["webhooks"][0];
        assert_eq!((&row["taken"], &row["status"]), (&false.into(), &Value::Null));
        assert!(row["error"].as_str().unwrap().contains("the answer was 500"), "{row}");
        assert!(!taken.body.contains("canary") && !refused.body.contains("canary"));
    };
    tokio::task::LocalSet::new().run_until(async { tokio::join!(receiver, asking) }).await;
}
