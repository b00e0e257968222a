//! Sheets about what stands beside the figures: reconciliations with providers' statements, what moved most,
//! and other attribution models.
//!
//! Not here: the other sheets (`workbook`), what a reconciliation may say (`roi::reconciliation`).

use super::{Done, Styles, array, at, table, text};
use crate::roi::reconciliation::{self, PARTS};
use rust_xlsxwriter::{Workbook, Worksheet};
use serde_json::{Value, json};

/// Which row of a reconciliation: columns of words.
const NAMES: [&str; 7] = ["provider", "from", "to", "currency", "day", "model", "project"];

/// What providers say, row by row, with a total of each statement and what was read; or that there is none.
pub(super) fn reconciliation(book: &mut Workbook, document: &Value, styles: &Styles) -> Done {
    let sheet = book.add_worksheet().set_name("Reconciliation")?;
    let given = reconciliation::given(document);
    if given.is_empty() {
        sheet.set_freeze_panes(1, 0)?;
        sheet.write_string_with_format(0, 0, "reconciliation", &styles.head)?;
        sheet.write_string(1, 0, reconciliation::NONE)?;
        sheet.write_string(2, 0, reconciliation::REMEDY)?;
        return Ok(());
    }
    let mut columns = vec!["theirs.cost".to_owned(), "ours.billed".to_owned(), "money.gap".to_owned()];
    columns.extend(PARTS.iter().map(|part| format!("money.{part}")));
    columns.extend(["theirs.tokens", "ours.tokens", "tokens.gap"].map(str::to_owned));
    // Prices and digits make no difference to counts.
    let counted = PARTS.iter().filter(|part| !["unpriced", "price", "rounding"].contains(*part));
    columns.extend(counted.map(|part| format!("tokens.{part}")));
    columns.extend(["theirs.requests", "ours.requests"].map(str::to_owned));
    let lines: Vec<Value> = given.iter().flat_map(lines).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    table(sheet, (&NAMES.map(str::to_owned), &columns), &lines, styles)?;
    let first = super::row_of(lines.len()).saturating_add(2);
    words(sheet, first, given, styles)
}

/// The rows of a statement, and its total.
fn lines(statement: &Value) -> Vec<Value> {
    let named = |mut row: Value, total: bool| {
        if let Some(row) = row.as_object_mut() {
            for (name, path) in [
                ("provider", "provider"),
                ("from", "period.from"),
                ("to", "period.to"),
                ("currency", "currency"),
            ] {
                row.insert(name.to_owned(), at(statement, path).clone());
            }
            if total {
                row.insert("day".to_owned(), "(total)".into());
            }
        }
        row
    };
    let mut lines: Vec<Value> = array(statement, "rows").into_iter().map(|row| named(row, false)).collect();
    lines.push(named(at(statement, "total").clone(), true));
    lines
}

/// What was read, what is left open, and how it was judged.
fn words(sheet: &mut Worksheet, mut row: u32, given: &[Value], styles: &Styles) -> Done {
    for statement in given {
        let verdict = match at(statement, "within_tolerance") {
            Value::Bool(true) => "within",
            _ => "BEYOND",
        };
        let unexplained = |unit: &str| match text(at(statement, &format!("unexplained.{unit}"))) {
            none if none.is_empty() => "unknown".to_owned(),
            amount => amount,
        };
        let mut said = vec![
            (
                "unexplained, row by row without signs",
                format!(
                    "{} {}, {} tokens: {verdict} the tolerance of {}",
                    unexplained("money"),
                    text(at(statement, "currency")),
                    unexplained("tokens"),
                    text(at(statement, "tolerance"))
                ),
            ),
            ("as of", text(at(statement, "as_of"))),
            ("file", text(at(statement, "file"))),
            ("SHA-256", text(at(statement, "sha256"))),
        ];
        for file in array(statement, "files") {
            let of = |name: &str| text(at(&file, name));
            said.push((
                "statement",
                format!("{}: {} rows, read as {}: {}", of("file"), of("rows"), of("format"), of("expects")),
            ));
        }
        for name in ["notes", "remarks"] {
            said.extend(array(statement, name).iter().map(|note| ("note", text(note))));
        }
        for (name, words) in said {
            sheet.write_string_with_format(row, 0, text(at(statement, "provider")), &styles.head)?;
            sheet.write_string_with_format(row, 1, name, &styles.head)?;
            sheet.write_string(row, 4, words)?;
            row = row.saturating_add(1);
        }
        row = row.saturating_add(1);
    }
    Ok(())
}

/// The rows that moved most against the days before, where the report has them.
pub(super) fn movers(book: &mut Workbook, document: &Value, styles: &Styles) -> Done {
    let Some(movers) = document.get("movers") else { return Ok(()) };
    let mut names: Vec<String> = array(document, "by").iter().map(text).collect();
    let before = names.len();
    names.extend(["from_before", "to_before"].map(str::to_owned));
    let lines: Vec<Value> = array(movers, "rows")
        .into_iter()
        .map(|mut row| {
            if let Some(row) = row.as_object_mut() {
                row.insert("from_before".to_owned(), at(movers, "before.from").clone());
                row.insert("to_before".to_owned(), at(movers, "before.to").clone());
            }
            row
        })
        .collect();
    let columns =
        ["cost_before", "cost", "cost_change", "revenue_before", "revenue", "revenue_change", "net_change"];
    let sheet = book.add_worksheet().set_name("Movers")?;
    table(sheet, (&names, &columns), &lines, styles)?;
    sheet.set_freeze_panes(1, super::column_of(before))?;
    Ok(())
}

/// Every attribution model, row by row, where the report compares them.
pub(super) fn models(book: &mut Workbook, document: &Value, styles: &Styles) -> Done {
    let models = array(document, "compare");
    if models.is_empty() {
        return Ok(());
    }
    let by: Vec<String> = array(document, "by").iter().map(text).collect();
    let mut lines = Vec::new();
    for model in &models {
        let name = at(model, "model");
        let mut rows = array(model, "rows");
        let first = by.first().cloned().unwrap_or_default();
        if let Some(problem) = model.get("error") {
            rows.push(json!({ (first.as_str()): text(problem) }));
        } else {
            let mut nobody = at(model, "unattributed").clone();
            if let Some(nobody) = nobody.as_object_mut() {
                nobody.insert(first, "(unattributed)".into());
            }
            rows.push(nobody);
        }
        for mut row in rows {
            if let Some(row) = row.as_object_mut() {
                row.insert("model of credit".to_owned(), name.clone());
            }
            lines.push(row);
        }
    }
    let mut names = vec!["model of credit".to_owned()];
    names.extend(by);
    table(book.add_worksheet().set_name("Models")?, (&names, &["revenue", "savings", "roi"]), &lines, styles)
}
