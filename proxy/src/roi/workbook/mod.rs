//! A report of return as an XLSX workbook: summary with charts, by team, by workload, contracts, trend, what
//! moved, attribution models, revenue, reconciliation, corrections, method and coverage.
//!
//! Invariants
//! - Names and words are text cells, never formulas, whatever they begin with.
//! - Numbers are those of the document; a cell is empty where it is null.
//! - The same document gives the same bytes: the file's date is the end of the period.
//! - A sheet of reconciliation is always there; without one it says that there is none.
//!
//! Not here: the figures (`report`), what stands beside them (`beside`), where the file goes (`cli`).

mod beside;

use super::reconciliation;
use super::report::{COLUMNS, lines};
use rust_xlsxwriter::{
    Chart, ChartType, DocProperties, ExcelDateTime, Format, Workbook, Worksheet, XlsxError,
};
use serde_json::Value;

type Done = Result<(), XlsxError>;

/// A workbook of `document`.
pub(crate) fn workbook(document: &Value) -> Result<Vec<u8>, XlsxError> {
    let mut book = Workbook::new();
    let until = text(at(document, "period.to"));
    let dated = ExcelDateTime::parse_from_str(&until)?;
    book.set_properties(&DocProperties::new().set_title("Return on tokens").set_creation_datetime(&dated));
    let styles = Styles::new();
    summary(book.add_worksheet(), document, &styles)?;
    let by = at(document, "by");
    for (name, title) in [("team", "By team"), ("workload", "By workload")] {
        let sheet = document.get("sheets").and_then(|sheets| sheets.get(name));
        let own = *by == serde_json::json!([name]);
        match sheet.or(own.then_some(document)) {
            Some(rows_of) => rows(book.add_worksheet().set_name(title)?, rows_of, document, &styles)?,
            None => continue,
        }
    }
    if !["team", "workload"].iter().any(|name| *by == serde_json::json!([name])) {
        rows(book.add_worksheet().set_name("Rows")?, document, document, &styles)?;
    }
    contracts(&mut book, document, &styles)?;
    let month = [
        "month",
        "tokens",
        "billed",
        "hedged",
        "revenue",
        "savings",
        "roi",
        "net_per_million_tokens",
        "cost_per_million_tokens",
    ];
    let trend = array(document, "trend");
    let sheet = book.add_worksheet().set_name("Trend")?;
    list(sheet, &trend, &month, &styles)?;
    footer(sheet, trend.len(), document)?;
    beside::movers(&mut book, document, &styles)?;
    beside::models(&mut book, document, &styles)?;
    let received = ["currency", "events", "revenue", "savings", "revenue_converted", "savings_converted"];
    list(
        book.add_worksheet().set_name("Revenue")?,
        &array(document, "received.by_currency"),
        &received,
        &styles,
    )?;
    beside::reconciliation(&mut book, document, &styles)?;
    corrections(&mut book, document, &styles)?;
    method(book.add_worksheet(), document, &styles)?;
    book.save_to_buffer()
}

struct Styles {
    head: Format,
    money: Format,
    exact: Format,
    ratio: Format,
    per_thousand: Format,
    count: Format,
    plain: Format,
}

impl Styles {
    fn new() -> Self {
        Self {
            head: Format::new().set_bold(),
            money: Format::new().set_num_format("#,##0.00"),
            // Statements and their gaps have more digits than cents.
            exact: Format::new().set_num_format("#,##0.00####"),
            ratio: Format::new().set_num_format("0.0000"),
            per_thousand: Format::new().set_num_format("0.0000000"),
            count: Format::new().set_num_format("#,##0"),
            plain: Format::new(),
        }
    }

    /// How the numbers of a column look.
    fn of(&self, column: &str) -> &Format {
        let ratio = ["roi", "gross_margin", "coverage"].iter().any(|name| column.starts_with(name))
            || column.contains("_per_");
        let count = ["requests", "successes", "total_tokens", "tokens", "events", "unpriced_requests"];
        let counted =
            column.starts_with("tokens.") || column.ends_with(".tokens") || column.ends_with(".requests");
        if column.contains("per_thousand") {
            &self.per_thousand
        } else if ratio {
            &self.ratio
        } else if counted || count.contains(&column) {
            &self.count
        } else if ["theirs.", "ours.", "money."].iter().any(|side| column.starts_with(side)) {
            &self.exact
        } else {
            &self.money
        }
    }
}

fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| value.get(name).unwrap_or(&Value::Null))
}

fn array(value: &Value, path: &str) -> Vec<Value> {
    at(value, path).as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The number that a figure is: digits with at most a sign and a point.
fn number(value: &Value) -> Option<f64> {
    let text = text(value);
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain && !digits.is_empty() { text.parse().ok() } else { None }
}

fn column_of(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

fn row_of(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// A figure, or words.
fn write(sheet: &mut Worksheet, (row, column): (u32, u16), value: &Value, format: &Format) -> Done {
    match number(value) {
        Some(number) => sheet.write_number_with_format(row, column, number, format)?,
        None if value.is_null() => return Ok(()),
        None => sheet.write_string(row, column, text(value))?,
    };
    Ok(())
}

/// A header that stays, and a line for each value; `names` are columns of words.
fn table(
    sheet: &mut Worksheet,
    (names, columns): (&[String], &[&str]),
    lines: &[Value],
    styles: &Styles,
) -> Done {
    sheet.set_freeze_panes(1, column_of(names.len()))?;
    let titles = names.iter().map(String::as_str).chain(columns.iter().copied());
    for (place, title) in titles.enumerate() {
        sheet.write_string_with_format(0, column_of(place), title, &styles.head)?;
        sheet.set_column_width(column_of(place), 16)?;
    }
    for (place, line) in lines.iter().enumerate() {
        let row = row_of(place).saturating_add(1);
        for (column, name) in names.iter().enumerate() {
            let name = line.get(name).unwrap_or(&Value::Null);
            sheet.write_string(row, column_of(column), text(name))?;
        }
        for (column, path) in columns.iter().enumerate() {
            let column = column_of(names.len().saturating_add(column));
            write(sheet, (row, column), at(line, path), styles.of(path))?;
        }
    }
    Ok(())
}

fn list(sheet: &mut Worksheet, lines: &[Value], columns: &[&str], styles: &Styles) -> Done {
    let (first, rest) = columns.split_at(1);
    let names: Vec<String> = first.iter().map(|name| (*name).to_owned()).collect();
    table(sheet, (&names, rest), lines, styles)
}

/// The rows of one grouping; coverage and method are the report's.
fn rows(sheet: &mut Worksheet, document: &Value, report: &Value, styles: &Styles) -> Done {
    let names: Vec<String> = array(document, "by").iter().map(text).collect();
    let lines = lines(document);
    table(sheet, (&names, &COLUMNS), &lines, styles)?;
    footer(sheet, lines.len(), report)
}

/// Coverage and method in words, an empty row below `count` lines: no figure stands without them.
fn footer(sheet: &mut Worksheet, count: usize, report: &Value) -> Done {
    let row = row_of(count).saturating_add(2);
    let share = |name: &str| match text(at(report, &format!("coverage.{name}"))) {
        none if none.is_empty() => "unknown".to_owned(),
        share => share,
    };
    let coverage = format!(
        "coverage: revenue attributed {}, cost tagged {}, tokens measured {}, requests unpriced {}, volume hedged {}",
        share("attributed_revenue"),
        share("tagged_cost"),
        share("measured_tokens"),
        share("unpriced_requests"),
        share("hedged_volume")
    );
    sheet.write_string(row, 0, coverage)?;
    let method = format!(
        "model {}, look-back {}: {}",
        text(at(report, "method.model")),
        text(at(report, "method.look_back")),
        text(at(report, "method.note"))
    );
    sheet.write_string(row.saturating_add(1), 0, method)?;
    Ok(())
}

/// The book in a few figures, both balances, the bridge and the months, with a chart of each.
fn summary(sheet: &mut Worksheet, document: &Value, styles: &Styles) -> Done {
    sheet.set_name("Summary")?.set_column_width(0, 34)?.set_column_width(1, 18)?.set_column_width(2, 18)?;
    let heads = [
        ("Return on tokens", String::new()),
        ("From", text(at(document, "period.from"))),
        ("To (first day outside)", text(at(document, "period.to"))),
        ("Currency", text(at(document, "currency"))),
        ("Model", text(at(document, "method.model"))),
        ("As of", text(at(document, "as_of"))),
        ("Complete", text(at(document, "complete"))),
    ];
    let mut row = 0_u32;
    let reconciled = reconciliation::sentences(document).into_iter().map(|words| ("Reconciliation", words));
    for (title, words) in heads.into_iter().chain(reconciled) {
        sheet.write_string_with_format(row, 0, title, &styles.head)?;
        sheet.write_string(row, 1, words)?;
        row = row.saturating_add(1);
    }
    sheet.set_freeze_panes(1, 0)?;
    let figures = [
        ("Billed cost", "book.cost.billed"),
        ("Effective cost", "book.cost.effective"),
        ("Hedged cost", "book.cost.hedged"),
        ("Residual", "balance.residual"),
        ("Revenue received", "balance.revenue.received"),
        ("Revenue unattributed", "balance.revenue.unattributed"),
        ("Savings received", "balance.savings.received"),
        ("Net", "book.net"),
        ("ROI", "book.roi"),
        ("ROI with savings", "book.roi_with_savings"),
        ("ROI unhedged", "book.roi_unhedged"),
        ("Gross margin", "book.gross_margin"),
        ("Net per million tokens", "book.net_per_million_tokens"),
        ("Net per thousand tokens", "book.net_per_thousand_tokens"),
        ("Cost per million tokens", "book.cost_per_million_tokens"),
        ("Cost per success", "book.cost_per_success"),
        ("Coverage: revenue attributed", "coverage.attributed_revenue"),
        ("Coverage: cost tagged", "coverage.tagged_cost"),
        ("Coverage: tokens measured", "coverage.measured_tokens"),
        ("Coverage: requests unpriced", "coverage.unpriced_requests"),
        ("Coverage: volume hedged", "coverage.hedged_volume"),
    ];
    for (title, path) in figures {
        sheet.write_string(row, 0, title)?;
        let style = path.strip_prefix("book.").unwrap_or(path);
        write(sheet, (row, 1), at(document, path), styles.of(style))?;
        row = row.saturating_add(1);
    }
    row = row.saturating_add(1);
    let bridge = array(document, "bridge");
    let first = section(sheet, row, ("Bridge", ["amount", "change"]), &bridge, "step", styles)?;
    chart(sheet, ("From list to hedged cost", ChartType::Column), (first, bridge.len()), (0, 1))?;
    row = first.saturating_add(row_of(bridge.len())).saturating_add(1);
    let trend = array(document, "trend");
    let first = section(sheet, row, ("Month", ["hedged", "revenue"]), &trend, "month", styles)?;
    chart(sheet, ("Cost and revenue by month", ChartType::Column), (first, trend.len()), (18, 2))
}

/// Words and two figures for each line; the row of the first.
fn section(
    sheet: &mut Worksheet,
    row: u32,
    (title, columns): (&str, [&str; 2]),
    lines: &[Value],
    name: &str,
    styles: &Styles,
) -> Result<u32, XlsxError> {
    sheet.write_string_with_format(row, 0, title, &styles.head)?;
    for (place, column) in (1_u16..).zip(columns) {
        sheet.write_string_with_format(row, place, column, &styles.head)?;
    }
    let first = row.saturating_add(1);
    for (row, line) in (first..).zip(lines) {
        sheet.write_string(row, 0, text(at(line, name)))?;
        for (place, column) in (1_u16..).zip(columns) {
            write(sheet, (row, place), at(line, column), &styles.money)?;
        }
    }
    Ok(first)
}

/// A chart of the first `series` columns of figures of `count` lines from `first` on, placed at a row.
fn chart(
    sheet: &mut Worksheet,
    (title, kind): (&str, ChartType),
    (first, count): (u32, usize),
    (place, series): (u32, u16),
) -> Done {
    if count == 0 {
        return Ok(());
    }
    let last = first.saturating_add(row_of(count)).saturating_sub(1);
    let mut chart = Chart::new(kind);
    chart.title().set_name(title);
    for column in 1..=series {
        let name = ("Summary", first.saturating_sub(1), column);
        let line = chart.add_series().set_name(name);
        line.set_categories(("Summary", first, 0, last, 0))
            .set_values(("Summary", first, column, last, column));
    }
    sheet.insert_chart(place, 4, &chart)?;
    Ok(())
}

/// What each contract did, where there is any.
fn contracts(book: &mut Workbook, document: &Value, styles: &Styles) -> Done {
    let contracts = array(document, "sheets.contracts");
    if contracts.is_empty() {
        return Ok(());
    }
    let names = ["position_id", "kind", "status"].map(str::to_owned);
    let columns = [
        "quantity",
        "covered",
        "over",
        "used",
        "unused",
        "displaced",
        "payoff",
        "over_hedge",
        "premium",
        "fees",
        "mark_to_market.amount",
        "mark_to_market.currency",
    ];
    table(book.add_worksheet().set_name("Contracts")?, (&names, &columns), &contracts, styles)
}

/// What came late about closed months, where the report has that.
fn corrections(book: &mut Workbook, document: &Value, styles: &Styles) -> Done {
    let corrections = array(document, "corrections");
    if corrections.is_empty() {
        return Ok(());
    }
    let mut lines = Vec::new();
    for correction in &corrections {
        for mut row in array(correction, "rows") {
            if let Some(row) = row.as_object_mut() {
                row.insert("origin".to_owned(), at(correction, "origin").clone());
            }
            lines.push(row);
        }
        lines.push(whole(correction, &array(document, "by")));
    }
    let mut names = vec!["origin".to_owned()];
    names.extend(array(document, "by").iter().map(text));
    let columns = ["requests", "total_tokens", "billed", "effective", "hedged", "revenue", "savings"];
    table(book.add_worksheet().set_name("Corrections")?, (&names, &columns), &lines, styles)
}

/// A correction as a whole: its rows, and what is nobody's.
fn whole(correction: &Value, by: &[Value]) -> Value {
    let mut line = serde_json::Map::new();
    line.insert("origin".to_owned(), at(correction, "origin").clone());
    if let Some(first) = by.first() {
        line.insert(text(first), "(book)".into());
    }
    for (column, name) in [("hedged", "book"), ("revenue", "revenue"), ("savings", "savings")] {
        line.insert(column.to_owned(), at(correction, name).clone());
    }
    line.into()
}

/// How it was computed, and what is not in the figures.
fn method(sheet: &mut Worksheet, document: &Value, styles: &Styles) -> Done {
    sheet.set_name("Method and coverage")?.set_column_width(0, 30)?.set_column_width(1, 110)?;
    let mut row = 0_u32;
    // Of a month as reported: the state of the ledger that it shows.
    for name in ["view", "month", "sequence"] {
        let value = at(document, name);
        if !value.is_null() {
            sheet.write_string_with_format(row, 0, name, &styles.head)?;
            write(sheet, (row, 1), value, &styles.plain)?;
            row = row.saturating_add(1);
        }
    }
    for (name, value) in at(document, "method").as_object().into_iter().flatten() {
        sheet.write_string_with_format(row, 0, name, &styles.head)?;
        write(sheet, (row, 1), value, &styles.plain)?;
        row = row.saturating_add(1);
    }
    for (name, share) in at(document, "coverage").as_object().into_iter().flatten() {
        sheet.write_string_with_format(row, 0, format!("coverage: {name}"), &styles.head)?;
        write(sheet, (row, 1), share, &styles.ratio)?;
        row = row.saturating_add(1);
    }
    for words in reconciliation::sentences(document) {
        sheet.write_string_with_format(row, 0, "reconciliation", &styles.head)?;
        sheet.write_string(row, 1, words)?;
        row = row.saturating_add(1);
    }
    for gap in array(document, "unpriced") {
        sheet.write_string_with_format(row, 0, "not in the figures", &styles.head)?;
        sheet.write_string(row, 1, text(at(&gap, "reason")))?;
        row = row.saturating_add(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_words_and_figures_are_numbers() {
        assert_eq!(number(&json!("-12.50")), Some(-12.5));
        assert_eq!(number(&json!(7)), Some(7.0));
        for words in [json!("=1+1"), json!("-"), json!("2026-09"), json!(null), json!("1e5"), json!(true)] {
            let found = number(&words);
            assert!(found.is_none() || words == json!("-"), "{words} {found:?}");
        }
    }

    #[test]
    fn the_same_document_gives_the_same_bytes() {
        let document = json!({
            "period": {"from": "2026-09-01", "to": "2026-10-01"}, "currency": "USD", "by": ["team"],
            "rows": [{"team": "=cmd()", "requests": 2, "cost": {"billed": "1.50"}, "roi": null}],
            "bridge": [{"step": "billed", "amount": "1.50", "change": null}], "trend": [],
            "method": {"model": "linear"}, "unpriced": [{"reason": "=why"}],
            "corrections": [{"origin": "2026-08", "rows": [{"team": "a", "billed": "1.00"}]}]
        });
        let first = workbook(&document).unwrap();
        assert_eq!(first, workbook(&document).unwrap());
        assert!(first.starts_with(b"PK"));
    }
}
