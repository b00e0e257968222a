//! Lists in pages: which rows of a document are told, and how one asks for those that follow.
//!
//! Invariants
//! - A cursor names the last row that was told, so rows that are appended meanwhile neither move nor repeat
//!   others.
//! - A list without a limit is bounded all the same.
//!
//! Not here: which lists there are (`table`).

use super::table::Pages;
use serde_json::Value;

/// Rows of a page when nobody says how many.
const ROWS_USUAL: usize = 1_000;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    limit: usize,
    cursor: Option<String>,
}

/// A cursor that names no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor: no row of this list has this name now: begin again without a cursor")]
pub(super) struct NoSuchRow;

impl Page {
    /// Takes what is about pages out of the pairs of a query.
    pub(super) fn taken_from(pairs: &mut Vec<(&'static str, String)>) -> Self {
        let mut page = Self { limit: ROWS_USUAL, cursor: None };
        pairs.retain(|(name, value)| match *name {
            // The gate has seen that it is a number.
            "limit" => {
                page.limit = value.parse().unwrap_or(ROWS_USUAL);
                false
            }
            "cursor" => {
                page.cursor = Some(value.clone());
                false
            }
            _ => true,
        });
        page
    }

    /// Of a long list, the rows that [`Page::cut`] needs: one before the page and one after it too.
    pub(super) fn window<'r, T>(&self, rows: &'r [T], name: impl Fn(&T) -> String) -> &'r [T] {
        let before = match &self.cursor {
            None => Some(0),
            Some(cursor) => rows.iter().position(|row| name(row) == *cursor),
        };
        let rest = before.and_then(|at| rows.get(at..)).unwrap_or_default();
        let most = self.limit.saturating_add(2);
        rest.get(..most).unwrap_or(rest)
    }

    /// The document with only these rows, and the cursor of those that follow.
    pub(super) fn cut(&self, mut document: Value, pages: Pages) -> Result<Value, NoSuchRow> {
        let Some(object) = document.as_object_mut() else { return Ok(document) };
        let Some(Value::Array(rows)) = object.get_mut(pages.rows) else { return Ok(document) };
        if let Some(cursor) = &self.cursor {
            let last = rows.iter().position(|row| name_of(row, pages.key).as_ref() == Some(cursor));
            let last = last.ok_or(NoSuchRow)?;
            rows.drain(..=last);
        }
        let is_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| is_more).and_then(|row| name_of(row, pages.key));
        let shown = rows.len();
        if let Some(told) = object.get_mut("shown") {
            *told = shown.into();
        }
        object.insert("next_cursor".to_owned(), next.into());
        Ok(document)
    }
}

fn name_of(row: &Value, key: &str) -> Option<String> {
    match row.get(key)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PAGES: Pages = Pages { rows: "rows", key: "n" };

    #[test]
    fn a_window_of_a_long_list_makes_the_same_page_as_the_list() {
        let rows: Vec<u32> = (0..40).collect();
        let document =
            |rows: &[u32]| json!({"rows": rows.iter().map(|n| json!({"n": n})).collect::<Vec<_>>()});
        for (limit, cursor) in [
            ("1", None),
            ("7", Some("0")),
            ("7", Some("32")),
            ("7", Some("33")),
            ("50", Some("39")),
            ("40", None),
        ] {
            let page = page(limit, cursor);
            let window = page.window(&rows, u32::to_string);
            assert!(window.len() <= page.limit + 2);
            assert_eq!(
                page.cut(document(window), PAGES),
                page.cut(document(&rows), PAGES),
                "{limit} {cursor:?}"
            );
        }
        let gone = page("5", Some("77"));
        assert_eq!(gone.window(&rows, u32::to_string), [0; 0]);
        assert_eq!(gone.cut(document(&[]), PAGES), Err(NoSuchRow));
    }

    fn page(limit: &str, cursor: Option<&str>) -> Page {
        let mut pairs = vec![("limit", limit.to_owned()), ("by", "team".to_owned())];
        pairs.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        let page = Page::taken_from(&mut pairs);
        assert_eq!(pairs, vec![("by", "team".to_owned())]);
        page
    }

    fn list(count: u64) -> Value {
        json!({ "shown": count, "rows": (0..count).map(|n| json!({ "n": n })).collect::<Vec<_>>() })
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition_while_rows_are_appended() {
        let (mut seen, mut cursor, mut count) = (Vec::new(), None, 7);
        loop {
            let told = page("3", cursor.as_deref()).cut(list(count), PAGES).unwrap();
            let rows = told["rows"].as_array().unwrap();
            assert_eq!(told["shown"], rows.len());
            seen.extend(rows.iter().map(|row| row["n"].as_u64().unwrap()));
            let Some(next) = told["next_cursor"].as_str() else { break };
            cursor = Some(next.to_owned());
            count += 1;
        }
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn a_list_that_fits_has_no_cursor_and_a_strange_cursor_is_refused() {
        assert_eq!(page("7", None).cut(list(7), PAGES).unwrap()["next_cursor"], Value::Null);
        assert_eq!(page("7", Some("99")).cut(list(7), PAGES), Err(NoSuchRow));
        let usual = Page::taken_from(&mut Vec::new()).cut(list(1_001), PAGES).unwrap();
        assert_eq!((usual["rows"].as_array().unwrap().len(), &usual["next_cursor"]), (1_000, &json!("999")));
    }
}
