//! The dashboard: its headers, what its files may hold, and whom a browser's password lets in.

use crate::admin::tests::{Bench, Reply, TOKENS, check_problem, guarded};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const PARTS: [(&str, &str); 3] =
    [("/", super::HTML), ("/dashboard/page.css", super::CSS), ("/dashboard/page.js", super::SCRIPT)];

/// Most bytes of all its files.
const BYTES_MAX: usize = 40 << 10;

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere_and_runs_nothing_in_line() {
    let bench = Bench::new("");
    let mut bytes = 0;
    for (path, kind) in PARTS {
        let reply = bench.get(path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, kind), "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin", "{path}");
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'; "), "{path}");
        assert!(!reply.body.contains("://"), "{path} names another origin");
        bytes += reply.body.len();
    }
    assert!(bytes <= BYTES_MAX, "{bytes}");
    let page = bench.get("/").await;
    let policy = page.header("content-security-policy");
    for part in ["script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-frame-options"), "DENY");
    for word in ["<style", " style=", "javascript:", " onclick", " onload", "<img", "<iframe"] {
        assert!(!page.body.contains(word), "{word}");
    }
    assert_eq!(page.body.matches("<script").count(), 1);
    assert!(page.body.contains("<script src=\"/dashboard/page.js\" defer></script>"));
    check_problem(&bench.get("/dashboard/page.html").await, 404, "no such file", "another file");
    check_problem(&bench.get("/?period=today").await, 400, "\"period\" is unknown", "a parameter");
}

#[tokio::test]
async fn the_script_puts_what_it_is_told_into_the_page_as_text_only() {
    let script = Bench::new("").get("/dashboard/page.js").await.body;
    let markup =
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "createContextualFragment", "DOMParser", "write("];
    let code = ["eval(", "Function(", "setTimeout(", "import(", "srcdoc", "setAttribute(\"on"];
    let kept = ["localStorage", "sessionStorage", "document.cookie", "authorization"];
    for word in markup.iter().chain(&code).chain(&kept) {
        assert!(!script.contains(word), "{word}");
    }
    assert_eq!(script.matches("fetch(").count(), 1);
    assert!(script.contains("new URL(path, location.origin)"));
}

async fn browser(
    bench: &Bench,
    method: &str,
    path: &str,
    password: Option<&str>,
    site: Option<&str>,
) -> Reply {
    let basic = password.map(|password| format!("Basic {}", STANDARD.encode(format!("anybody:{password}"))));
    let mut headers = vec![("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    headers.extend(basic.iter().map(|basic| ("authorization", basic.as_str())));
    headers.extend(site.map(|site| ("sec-fetch-site", site)));
    bench.ask(method, path, &headers, Vec::new()).await
}

fn challenges(reply: &Reply) -> Vec<&str> {
    reply.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn where_there_are_tokens_a_browser_is_asked_for_one_as_its_password() {
    let bench = Bench::new(&guarded(""));
    assert_eq!(challenges(&bench.get("/api/v1/usage").await), ["Bearer realm=\"bursar\""], "no browser");
    for (path, _) in PARTS {
        check_problem(&bench.get(path).await, 401, "send a token", path);
        let is_page = path == "/";
        assert_eq!(challenges(&bench.get(path).await).len(), if is_page { 1 } else { 2 }, "{path}");
        let asked = browser(&bench, "GET", path, None, None).await;
        check_problem(&asked, 401, "send a token", path);
        assert_eq!(
            challenges(&asked),
            ["Bearer realm=\"bursar\"", "Basic realm=\"bursar\", charset=\"UTF-8\""],
            "{path}"
        );
        for wrong in ["", "canary", "canary-readsx", ":canary-reads"] {
            let refused = browser(&bench, "GET", path, Some(wrong), None).await;
            check_problem(&refused, 401, "no token", path);
            assert!(!refused.body.contains("canary"), "{path}");
        }
        for (scope, text) in TOKENS {
            let reply = browser(&bench, "GET", path, Some(text), Some("none")).await;
            if scope == "ingest" {
                check_problem(&reply, 403, "it needs the scope read", path);
            } else {
                assert_eq!(reply.status, 200, "{path} {scope}: {}", reply.body);
            }
        }
    }
}

#[tokio::test]
async fn a_password_reads_as_far_as_its_token_goes_and_never_writes() {
    let bench = Bench::new(&guarded("  requests_per_minute: 20\n"));
    for path in ["/api/v1/usage", "/metrics", "/api/v1/budgets"] {
        let own = browser(&bench, "GET", path, Some("canary-reads"), Some("same-origin")).await;
        assert_eq!(own.status, 200, "{path}: {}", own.body);
        let other = browser(&bench, "GET", path, Some("canary-ingests"), Some("same-origin")).await;
        check_problem(&other, 403, "it needs the scope read", path);
        for site in ["cross-site", "same-site"] {
            let reply = browser(&bench, "GET", path, Some("canary-all"), Some(site)).await;
            check_problem(&reply, 401, "which only reads", path);
        }
    }
    // A link from elsewhere leads to the page, which holds no data.
    assert_eq!(browser(&bench, "GET", "/", Some("canary-reads"), Some("cross-site")).await.status, 200);
    for path in ["/api/v1/ledger/prune?before=1d", "/api/v1/contracts", "/api/v1/hedge/report"] {
        for site in [None, Some("same-origin")] {
            let write = browser(&bench, "POST", path, Some("canary-all"), site).await;
            check_problem(&write, 401, "which only reads", path);
            assert_eq!(challenges(&write), ["Bearer realm=\"bursar\""], "{path}");
        }
    }
    for broken in ["Basic", "Basic ", "Basic !!!", "Basic Y2FuYXJ5"] {
        let headers = [("authorization", broken)];
        check_problem(&bench.ask("GET", "/", &headers, Vec::new()).await, 401, "no token", broken);
    }
    // Both ways to present a token are one account.
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(browser(&bench, "GET", "/", Some("canary-reads"), None).await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    let bearer = [("authorization", "Bearer canary-reads")];
    assert_eq!(bench.ask("GET", "/api/v1/usage", &bearer, Vec::new()).await.status, 429);
}
