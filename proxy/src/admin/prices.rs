//! Prices as the API tells them: what holds, every row about a model, what differs, and past usage at other
//! prices.
//!
//! Invariant: only what is in force, what is built in and what the body says is read; no file is.
//!
//! Not here: the figures (`crate::prices`).

use super::hedge::{Asked, answer, overlaid};
use super::paging::Page;
use super::{Admin, problem};
use crate::hedge::AskError;
use crate::period::{self, Names};
use crate::prices::pick::{Picked, Wanted, pick};
use crate::prices::replay::{Facts, Replay};
use crate::prices::{diff, list};
use crate::report;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bursar_domain::Timestamp;
use bursar_policies::price::PriceBook;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// Which prices.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListQuery {
    provider: Option<String>,
    model: Option<String>,
    at: Option<String>,
}

/// Which model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SheetQuery {
    provider: Option<String>,
    model: String,
}

/// Which books, and when.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DiffQuery {
    before: Option<String>,
    after: Option<String>,
    before_at: Option<String>,
    at: Option<String>,
    provider: Option<String>,
    model: Option<String>,
}

/// Which records, and at the prices of which time.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReplayQuery {
    from: Option<String>,
    to: Option<String>,
    tz: Option<String>,
    at: Option<String>,
}

/// What the books of a comparison are called.
pub(super) const BOOKS: &[&str] = &["builtin", "in_force"];

/// `GET /api/v1/prices`
pub(super) async fn prices(
    State(admin): State<Admin>,
    Extension(page): Extension<Page>,
    query: Asked<ListQuery>,
) -> Response {
    answer(admin, query, move |admin, query| {
        let book = in_force(admin);
        let at = instant(admin, "at", query.at.as_deref())?;
        let wanted = Wanted { provider: query.provider.as_deref(), model: query.model.as_deref() };
        let picked = pick(&[&book], wanted)?;
        // A book has some sixteen thousand prices: only those of the page become a document.
        let lines = list::lines(&book, &picked.models, at);
        let lines = page.window(&lines, list::name);
        let mut document = list::document(lines, at);
        let prices = document.get_mut("prices").and_then(Value::as_array_mut).into_iter().flatten();
        for (price, line) in prices.zip(lines) {
            if let Some(price) = price.as_object_mut() {
                price.insert("id".to_owned(), list::name(line).into());
            }
        }
        remarked(&mut document, &picked);
        Ok(document)
    })
    .await
}

/// Says where more, or less, was picked than was asked for.
fn remarked(document: &mut Value, picked: &Picked) {
    if let Some(document) = document.as_object_mut() {
        document.insert("remark".to_owned(), picked.remark.clone().into());
    }
}

/// `GET /api/v1/prices/sheet`
pub(super) async fn sheet(State(admin): State<Admin>, query: Asked<SheetQuery>) -> Response {
    answer(admin, query, |admin, query| {
        Ok(list::sheet(&in_force(admin), query.provider.as_deref(), &query.model)?.document())
    })
    .await
}

/// `GET /api/v1/prices/diff`
pub(super) async fn differences(State(admin): State<Admin>, query: Asked<DiffQuery>) -> Response {
    answer(admin, query, |admin, query| {
        let at = instant(admin, "at", query.at.as_deref())?;
        let before_at = match query.before_at.as_deref() {
            None => at,
            text => instant(admin, "before_at", text)?,
        };
        let names =
            (query.before.as_deref().unwrap_or("builtin"), query.after.as_deref().unwrap_or("in_force"));
        let (old, new) = (book_of(admin, names.0)?, book_of(admin, names.1)?);
        let wanted = Wanted { provider: query.provider.as_deref(), model: query.model.as_deref() };
        let picked = pick(&[&old, &new], wanted)?;
        let before = diff::Side { name: names.0, book: &old, at: before_at };
        let after = diff::Side { name: names.1, book: &new, at };
        let mut document = diff::document(before, after, &diff::changes(before, after, &picked));
        remarked(&mut document, &picked);
        Ok(document)
    })
    .await
}

/// `GET /api/v1/prices/replay`: at the prices in force.
pub(super) async fn replay(State(admin): State<Admin>, query: Asked<ReplayQuery>) -> Response {
    answer(admin, query, |admin, query| replayed(admin, query, &in_force(admin))).await
}

/// `POST /api/v1/prices/replay`: at those of the overlay in the body.
pub(super) async fn replay_beside(
    State(admin): State<Admin>,
    query: Asked<ReplayQuery>,
    body: Bytes,
) -> Response {
    let read = super::reports::blocking(move || overlaid(body));
    match read.await {
        Some(Ok(book)) => answer(admin, query, move |admin, query| replayed(admin, query, &book)).await,
        Some(Err(error)) => problem(StatusCode::UNPROCESSABLE_ENTITY, &error),
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the report failed; see the log"),
    }
}

fn replayed(admin: &Admin, query: &ReplayQuery, book: &PriceBook) -> Result<Value, AskError> {
    let (from, to, zone) = (query.from.as_deref(), query.to.as_deref(), query.tz.as_deref().unwrap_or("UTC"));
    let period = period::parse(from, to, zone, admin.app.now(), period::PARAMETERS)
        .map_err(|error| AskError::Wrong(error.to_string()))?;
    let at = query.at.as_deref().map(|text| instant(admin, "at", Some(text))).transpose()?;
    let records = admin.app.ledger.records(report::range(&period));
    if let Some(pruned) = records.pruned() {
        return Err(AskError::Wrong(pruned.to_string()));
    }
    let mut replay = Replay::new(book, at);
    for stored in records {
        let stored = stored?;
        if stored.counted {
            replay.add(&Facts::of(&stored.record));
        }
    }
    let mut document = replay.document();
    if let Some(document) = document.as_object_mut() {
        document.insert("batch_results_left_out".to_owned(), replay.batches.into());
    }
    Ok(document)
}

fn in_force(admin: &Admin) -> Arc<PriceBook> {
    Arc::clone(&admin.app.prices.book())
}

fn book_of(admin: &Admin, name: &str) -> Result<Arc<PriceBook>, AskError> {
    if name == "in_force" {
        return Ok(in_force(admin));
    }
    let damaged = |_| AskError::Missing("the built-in price book is damaged: this is a defect".to_owned());
    PriceBook::builtin().map(Arc::new).map_err(damaged)
}

/// The time that `param` says; now when it is absent.
fn instant(admin: &Admin, param: &'static str, text: Option<&str>) -> Result<Timestamp, AskError> {
    let now = admin.app.now();
    // Read like the start of a period.
    let names = Names { from: param, ..period::PARAMETERS };
    let period = period::parse(text, None, "UTC", now, names);
    Ok(period.map_err(|error| AskError::Wrong(error.to_string()))?.from.unwrap_or(now))
}

#[cfg(test)]
mod tests;
