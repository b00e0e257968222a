//! A report of return as one page of HTML: figures, plots, rows, what moved, contracts, reconciliation,
//! method; to read, to print, or to save as PDF.
//!
//! Invariants
//! - The page is whole in itself: no scripts, nothing fetched, and its policy forbids both.
//! - Every text from a document is escaped, whatever a team calls itself.
//! - The same document gives the same bytes.
//! - What is unknown is a dash, never a zero.
//!
//! Not here: the figures (`roi::report`).

use super::grid::{grouped, rows, text, value};
use crate::roi::reconciliation;
use crate::roi::report::lines;
use bursar_policies::exact::Decimal;
use serde_json::Value;
use std::fmt::Write as _;

/// Rows of the table; the page says how many more there are.
const ROWS_MAX: usize = 40;
/// Decimals of ratios for people; of amounts per thousand tokens, as many more as a million has zeros.
const RATIO: Option<u32> = Some(4);
const PER_THOUSAND: Option<u32> = Some(7);
/// An amount as it is.
const AMOUNT: Option<u32> = None;
/// Size of a plot.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 200.0;
const BASE: f64 = 24.0;

const STYLE: &str = "\
@page{size:A4;margin:14mm}\
*{box-sizing:border-box}\
body{font:13px/1.4 system-ui,sans-serif;color:#1b1f24;margin:0 auto;max-width:980px;padding:16px}\
h1{font-size:22px;margin:0}h2{font-size:15px;margin:20px 0 6px}\
p,small{color:#57606a}\
.figures{display:grid;grid-template-columns:repeat(4,1fr);gap:8px;margin:12px 0}\
.figures div{border:1px solid #d0d7de;border-radius:6px;padding:8px}\
.figures b{display:block;font-size:17px}\
table{border-collapse:collapse;width:100%;font-size:12px}\
th,td{border-bottom:1px solid #d0d7de;padding:3px 6px;text-align:right;white-space:nowrap}\
th.name,td.name{text-align:left;white-space:normal;overflow-wrap:anywhere}\
thead{display:table-header-group}tr{break-inside:avoid}\
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#57606a}\
.warn{border-left:4px solid #bf8700;padding:4px 8px;background:#fff8c5}\
@media print{body{max-width:none;padding:0}.figures div,.warn{-webkit-print-color-adjust:exact;print-color-adjust:exact}}";

/// The page of a report.
pub(super) fn page(document: &Value) -> String {
    let at = |path: &str| figure(document, path);
    let mut page = String::new();
    let currency = escape(&at("currency"));
    let period = format!("{} to {}", escape(&at("period.from")), escape(&at("period.to")));
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    let _ =
        write!(page, "<title>Return on tokens, {period}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n");
    let _ = writeln!(page, "<h1>Return on tokens</h1>");
    let _ = writeln!(
        page,
        "<p>{period} (first day outside), {currency}; model {}, look-back {}; as of {}</p>",
        escape(&at("method.model")),
        escape(&at("method.look_back")),
        escape(&at("as_of"))
    );
    warnings(&mut page, document);
    key_figures(&mut page, document, &currency);
    plots(&mut page, document, &currency);
    let by: Vec<String> = rows(document, "by").into_iter().map(|key| text(Some(key))).collect();
    row_table(&mut page, document, &by);
    movers(&mut page, document, &by);
    corrections(&mut page, document, &by);
    models(&mut page, document, &by);
    contracts(&mut page, document);
    reconciliations(&mut page, document);
    method(&mut page, document);
    page.push_str("</body>\n</html>\n");
    page
}

fn figure(document: &Value, path: &str) -> String {
    let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
    text(value(document, &parts))
}

/// Text as HTML has it, also inside quoted attributes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A figure for people: grouped digits, so many decimals where that is told, a dash for what is unknown.
fn shown(figure: &str, places: Option<u32>) -> String {
    if figure.is_empty() {
        return "–".to_owned();
    }
    let short = places.and_then(|places| {
        Decimal::parse(figure).ok().and_then(|number| number.ratio().text_half_even(places).ok())
    });
    let figure = short.unwrap_or_else(|| figure.to_owned());
    let number = figure.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    escape(&if number { grouped(&figure) } else { figure })
}

fn warnings(page: &mut String, document: &Value) {
    if figure(document, "balance.balanced") == "false" {
        page.push_str("<p class=\"warn\">The figures do not balance: this is a defect.</p>\n");
    }
    if figure(document, "provisional") == "true" {
        page.push_str("<p class=\"warn\">Provisional: prices of the period are still to come.</p>\n");
    }
    for gap in rows(document, "unpriced") {
        let about = ["requests", "events", "id"].iter().map(|name| text(gap.get(*name)));
        let about: Vec<String> = about.filter(|text| !text.is_empty()).collect();
        let _ = writeln!(
            page,
            "<p class=\"warn\">Not in the figures: {} {}: {}</p>",
            escape(&text(gap.get("what"))),
            escape(&about.join(" ")),
            escape(&text(gap.get("reason")))
        );
    }
}

fn key_figures(page: &mut String, document: &Value, currency: &str) {
    let figures = [
        ("Billed", "book.cost.billed", AMOUNT),
        ("Effective", "book.cost.effective", AMOUNT),
        ("Hedged", "book.cost.hedged", AMOUNT),
        ("Revenue", "book.revenue", AMOUNT),
        ("Savings", "book.savings", AMOUNT),
        ("Net", "book.net", AMOUNT),
        ("ROI", "book.roi", RATIO),
        ("ROI with savings", "book.roi_with_savings", RATIO),
        ("ROI unhedged", "book.roi_unhedged", RATIO),
        ("Gross margin", "book.gross_margin", RATIO),
        ("Cost per success", "book.cost_per_success", RATIO),
        ("Cost per million tokens", "book.cost_per_million_tokens", RATIO),
        ("Net per million tokens", "book.net_per_million_tokens", RATIO),
        ("Net per thousand tokens", "book.net_per_thousand_tokens", PER_THOUSAND),
        ("Requests unpriced (share)", "coverage.unpriced_requests", RATIO),
        ("Revenue attributed (share)", "coverage.attributed_revenue", RATIO),
        ("Cost tagged (share)", "coverage.tagged_cost", RATIO),
        ("Tokens measured (share)", "coverage.measured_tokens", RATIO),
        ("Volume hedged (share)", "coverage.hedged_volume", RATIO),
        ("Residual", "balance.residual", AMOUNT),
    ];
    page.push_str("<div class=\"figures\">\n");
    for (title, path, places) in figures {
        let unit = if places == AMOUNT || path.contains("_per_") { currency } else { "" };
        let figure = shown(&figure(document, path), places);
        let _ = writeln!(page, "<div><small>{title} {unit}</small><b>{figure}</b></div>");
    }
    page.push_str("</div>\n");
    for name in ["revenue", "savings"] {
        let part = |part: &str| shown(&figure(document, &format!("balance.{name}.{part}")), AMOUNT);
        let _ = writeln!(
            page,
            "<p>{name}: attributed {} + unattributed {} = received {}</p>",
            part("attributed"),
            part("unattributed"),
            part("received")
        );
    }
}

fn plots(page: &mut String, document: &Value, currency: &str) {
    let amount =
        |line: &Value, name: &str| line.get(name).and_then(Value::as_str).and_then(|n| n.parse().ok());
    let bridge: Vec<(String, Vec<Option<f64>>)> = rows(document, "bridge")
        .into_iter()
        .map(|step| (text(step.get("step")), vec![amount(step, "amount")]))
        .collect();
    let _ = writeln!(page, "<h2>From list to hedged cost ({currency})</h2>");
    bars(page, &bridge, &["cost"]);
    let steps = rows(document, "bridge").into_iter().map(|step| {
        format!("{} {}", escape(&text(step.get("step"))), shown(&text(step.get("amount")), AMOUNT))
    });
    let _ = writeln!(page, "<p>{}</p>", steps.collect::<Vec<_>>().join(" → "));
    let trend: Vec<(String, Vec<Option<f64>>)> = rows(document, "trend")
        .into_iter()
        .map(|month| (text(month.get("month")), vec![amount(month, "hedged"), amount(month, "revenue")]))
        .collect();
    let _ = writeln!(page, "<h2>Hedged cost and revenue by month ({currency})</h2>");
    bars(page, &trend, &["hedged cost", "revenue"]);
    let columns = [
        ("Tokens", "tokens", AMOUNT),
        ("Billed", "billed", AMOUNT),
        ("Hedged", "hedged", AMOUNT),
        ("Revenue", "revenue", AMOUNT),
        ("Savings", "savings", AMOUNT),
        ("ROI", "roi", RATIO),
        ("Net/Mtok", "net_per_million_tokens", RATIO),
        ("Cost/Mtok", "cost_per_million_tokens", RATIO),
    ];
    table(page, &["month".to_owned()], &columns, &rows(document, "trend"));
}

/// Bars in groups, from zero up or down; what is unknown has none.
fn bars(page: &mut String, groups: &[(String, Vec<Option<f64>>)], series: &[&str]) {
    const COLORS: [&str; 2] = ["#57606a", "#1a7f37"];
    let known = || groups.iter().flat_map(|(_, values)| values.iter().flatten().copied());
    let (low, high) = known().fold((0.0_f64, 0.0_f64), |(low, high), n| (low.min(n), high.max(n)));
    if groups.is_empty() || (high - low) <= 0.0 {
        page.push_str("<p>Nothing to plot.</p>\n");
        return;
    }
    let y = |n: f64| BASE + (high - n) / (high - low) * (HEIGHT - BASE * 2.0);
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let step = WIDTH / count(groups.len());
    let bar = step * 0.7 / count(series.len());
    let _ = write!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        series.join(", ")
    );
    for (place, (name, values)) in groups.iter().enumerate() {
        let left = step * count(place) + step * 0.15;
        for (number, (n, color)) in values.iter().zip(COLORS).enumerate() {
            let Some(n) = n else { continue };
            let (top, bottom) = (y(n.max(0.0)), y(n.min(0.0)));
            let x = left + bar * count(number);
            let _ = write!(
                page,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{bar:.1}\" height=\"{:.1}\" fill=\"{color}\"/>",
                (bottom - top).max(0.5)
            );
            let label = grouped(&format!("{n:.0}"));
            let _ = write!(page, "<text x=\"{x:.1}\" y=\"{:.1}\">{}</text>", top - 4.0, escape(&label));
        }
        let _ = write!(page, "<text x=\"{left:.1}\" y=\"{:.1}\">{}</text>", HEIGHT - 6.0, escape(name));
    }
    page.push_str("</svg>\n");
    let legend: Vec<String> = series
        .iter()
        .zip(COLORS)
        .map(|(name, color)| format!("<span style=\"color:{color}\">■</span> {name}"))
        .collect();
    let _ = writeln!(page, "<small>{}</small>", legend.join(" "));
}

fn head(page: &mut String, names: &[&str], figures: &[(&str, &str, Option<u32>)]) {
    page.push_str("<table>\n<thead><tr>");
    for name in names {
        let _ = write!(page, "<th class=\"name\">{}</th>", escape(name));
    }
    for (title, ..) in figures {
        let _ = write!(page, "<th>{title}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
}

/// A line for each value: words, then figures.
fn table(page: &mut String, names: &[String], figures: &[(&str, &str, Option<u32>)], lines: &[&Value]) {
    if lines.is_empty() {
        return;
    }
    head(page, &names.iter().map(String::as_str).collect::<Vec<_>>(), figures);
    for line in lines {
        page.push_str("<tr>");
        for name in names {
            let _ = write!(page, "<td class=\"name\">{}</td>", escape(&text(line.get(name))));
        }
        for (_, path, places) in figures {
            let _ = write!(page, "<td>{}</td>", shown(&figure(line, path), *places));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table>\n");
}

/// What moved most against the days before.
fn movers(page: &mut String, document: &Value, by: &[String]) {
    let Some(movers) = document.get("movers") else { return };
    let columns = [
        ("Cost before", "cost_before", AMOUNT),
        ("Cost", "cost", AMOUNT),
        ("Change", "cost_change", AMOUNT),
        ("Revenue before", "revenue_before", AMOUNT),
        ("Revenue", "revenue", AMOUNT),
        ("Change", "revenue_change", AMOUNT),
        ("Net", "net_change", AMOUNT),
    ];
    let at = |path: &str| escape(&figure(movers, path));
    let _ = writeln!(page, "<h2>Moved most against {} to {}</h2>", at("before.from"), at("before.to"));
    let lines: Vec<&Value> = rows(movers, "rows").into_iter().take(ROWS_MAX).collect();
    table(page, by, &columns, &lines);
    if lines.is_empty() {
        page.push_str("<p>Nothing moved.</p>\n");
    }
}

/// The other attribution models, where they were asked for.
fn models(page: &mut String, document: &Value, by: &[String]) {
    for model in rows(document, "compare") {
        let name = escape(&text(model.get("model")));
        if let Some(problem) = model.get("error") {
            let _ = writeln!(page, "<p class=\"warn\">{name}: {}</p>", escape(&text(Some(problem))));
            continue;
        }
        let columns = [("Revenue", "revenue", AMOUNT), ("Savings", "savings", AMOUNT), ("ROI", "roi", RATIO)];
        let nobody = shown(&figure(model, "unattributed.revenue"), AMOUNT);
        let _ = writeln!(page, "<h2>Model {name} (unattributed {nobody})</h2>");
        let lines: Vec<&Value> = rows(model, "rows").into_iter().take(ROWS_MAX).collect();
        table(page, by, &columns, &lines);
    }
}

/// What came late about closed months, where the report has that.
fn corrections(page: &mut String, document: &Value, by: &[String]) {
    let columns = [
        ("Requests", "requests", AMOUNT),
        ("Tokens", "total_tokens", AMOUNT),
        ("Billed", "billed", AMOUNT),
        ("Effective", "effective", AMOUNT),
        ("Hedged", "hedged", AMOUNT),
        ("Revenue", "revenue", AMOUNT),
        ("Savings", "savings", AMOUNT),
    ];
    for correction in rows(document, "corrections") {
        let part = |name: &str| shown(&text(correction.get(name)), AMOUNT);
        let _ = writeln!(
            page,
            "<h2>Correction of {}: cost {}, revenue {}, savings {}</h2>",
            escape(&text(correction.get("origin"))),
            part("book"),
            part("revenue"),
            part("savings")
        );
        let lines: Vec<&Value> = rows(correction, "rows").into_iter().take(ROWS_MAX).collect();
        table(page, by, &columns, &lines);
    }
}

/// What providers say, statement by statement, or that nothing was given.
fn reconciliations(page: &mut String, document: &Value) {
    page.push_str("<h2>Reconciliation</h2>\n");
    for words in reconciliation::sentences(document) {
        let _ = writeln!(page, "<p>{}</p>", escape(&words));
    }
    let columns = [
        ("Theirs", "total.theirs.cost", AMOUNT),
        ("Ours", "total.ours.billed", AMOUNT),
        ("Gap", "total.money.gap", AMOUNT),
        ("Unpriced", "total.money.unpriced", AMOUNT),
        ("Estimated", "total.money.estimated", AMOUNT),
        ("Aborted", "total.money.aborted", AMOUNT),
        ("Outside", "total.money.outside", AMOUNT),
        ("Price", "total.money.price", AMOUNT),
        ("Rounding", "total.money.rounding", AMOUNT),
        ("Unexplained", "total.money.unexplained", AMOUNT),
    ];
    let given: Vec<&Value> = reconciliation::given(document).iter().collect();
    table(page, &["provider".to_owned()], &columns, &given);
}

fn row_table(page: &mut String, document: &Value, by: &[String]) {
    let columns = [
        ("Requests", "requests", AMOUNT),
        ("Tokens", "total_tokens", AMOUNT),
        ("Billed", "cost.billed", AMOUNT),
        ("Effective", "cost.effective", AMOUNT),
        ("Hedged", "cost.hedged", AMOUNT),
        ("Revenue", "revenue", AMOUNT),
        ("Savings", "savings", AMOUNT),
        ("ROI", "roi", RATIO),
        ("Net/Mtok", "net_per_million_tokens", RATIO),
        ("Cost/success", "cost_per_success", RATIO),
        ("Margin", "gross_margin", RATIO),
    ];
    let all = lines(document);
    let own = rows(document, "rows").len();
    let hidden = own.saturating_sub(ROWS_MAX);
    let _ = writeln!(page, "<h2>By {}</h2>", escape(&by.join(", ")));
    let kept = |place: &usize| *place < ROWS_MAX || *place >= own;
    let shown: Vec<&Value> =
        all.iter().enumerate().filter(|(place, _)| kept(place)).map(|(_, line)| line).collect();
    table(page, by, &columns, &shown);
    if hidden > 0 {
        let _ = writeln!(
            page,
            "<p>{hidden} more rows are in the sums and not shown: use --xlsx or --format csv.</p>"
        );
    }
}

fn contracts(page: &mut String, document: &Value) {
    let sheets = document.get("sheets");
    let contracts = sheets.map(|sheets| rows(sheets, "contracts")).unwrap_or_default();
    if contracts.is_empty() {
        return;
    }
    let columns = [
        ("Quantity", "quantity", RATIO),
        ("Covered", "covered", RATIO),
        ("Used", "used", AMOUNT),
        ("Unused", "unused", AMOUNT),
        ("Payoff", "payoff", AMOUNT),
        ("Premium", "premium", AMOUNT),
        ("Fees", "fees", AMOUNT),
    ];
    page.push_str("<h2>Contracts</h2>\n");
    let names = ["position_id", "kind", "status"].map(str::to_owned);
    table(page, &names, &columns, &contracts);
}

fn method(page: &mut String, document: &Value) {
    page.push_str("<h2>Method</h2>\n<table><tbody>\n");
    for (name, value) in document.get("method").and_then(Value::as_object).into_iter().flatten() {
        let _ = writeln!(
            page,
            "<tr><td class=\"name\">{}</td><td class=\"name\">{}</td></tr>",
            escape(name),
            escape(&text(Some(value)))
        );
    }
    page.push_str("</tbody></table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_of_a_document_has_not_changed() {
        let document = json!({
            "period": {"from": "2026-09-01", "to": "2026-10-01"}, "currency": "USD", "by": ["team"],
            "rows": [{"team": "<script>alert(1)</script>", "requests": 2, "cost": {"billed": "1234.50"}, "roi": null},
                     {"team": "=cmd()\"'&", "requests": 1, "cost": {"billed": "-1.00"}, "roi": "0.7714999999"}],
            "book": {"cost": {"billed": "1233.50"}, "roi": "0.50"}, "balance": {"balanced": true},
            "bridge": [{"step": "list", "amount": null}, {"step": "billed", "amount": "1233.50"}],
            "trend": [{"month": "2026-09", "hedged": "1233.50", "revenue": "-20.00"}],
            "sheets": {"contracts": [{"position_id": "<b>", "kind": "cap", "status": "Active", "payoff": "5.00"}]},
            "movers": {"before": {"from": "2026-08-02", "to": "2026-09-01"}, "rows": [{"team": "<script>", "cost": "1.00", "cost_change": "-2.00"}]},
            "compare": [{"model": "first", "rows": [{"team": "=cmd()", "revenue": "3.00"}], "unattributed": {"revenue": "1.00"}}],
            "corrections": [{"origin": "2026-08", "book": "1.00", "rows": [{"team": "<script>", "billed": "1.00"}]}],
            "method": {"model": "linear", "look_back": "30d"},
            "unpriced": [{"what": "usage", "requests": 3, "reason": "<img src=x>"}], "as_of": "2026-10-02T00:00:00Z"
        });
        let made = page(&document);
        assert_eq!(made, page(&document));
        for bad in ["<script", "<b>:", "<img", "onerror", "http://", "https://"] {
            assert!(!made.contains(bad), "{bad}");
        }
        for good in [
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "=cmd()&quot;&#39;&amp;",
            "<td>1,234.50</td>",
            "<td>–</td>",
            "<td>0.7715</td>",
            "<td class=\"name\">&lt;b&gt;</td>",
            "&lt;img src=x&gt;",
            "default-src 'none'",
        ] {
            assert!(made.contains(good), "{good} in {made}");
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/page.html");
        let golden = std::fs::read_to_string(path).unwrap_or_default();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &made).unwrap();
        } else {
            assert_eq!(made, golden, "the page changed: run with BLESS=1 and look at the difference");
        }
    }

    #[test]
    fn rows_beyond_the_page_are_counted_and_the_sums_stay() {
        let rows: Vec<Value> = (0..50).map(|number| json!({"team": format!("team-{number}")})).collect();
        let made = page(&json!({"by": ["team"], "rows": rows, "book": {"cost": {"billed": "7.00"}}}));
        assert!(made.contains("team-39<") && !made.contains("team-40<"));
        assert!(made.contains("10 more rows") && made.contains("(book)") && made.contains("7.00"));
    }
}
