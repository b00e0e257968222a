//! Reading endpoints: usage by any grouping, and every record.
//!
//! Not here: the figures (`ledger::query`), their shape (`report`).

use super::{Admin, problem};
use crate::focus::FocusFailure;
use crate::hedge::AskError;
use crate::period::{self, Period};
use crate::report::{self, UsageAsk};
use crate::roi::events::ExportFailure;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bursar_ledger::export::TableFormat;
use bursar_ledger::focus::FocusError;
use bursar_ledger::{QueryError, ReadError};
use serde::Deserialize;
use std::io::Write;

/// The query of a usage report.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    from: Option<String>,
    to: Option<String>,
    tz: Option<String>,
    by: Option<String>,
}

/// The query of a record export.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordsQuery {
    from: Option<String>,
    to: Option<String>,
    tz: Option<String>,
    format: Option<String>,
    /// Whether JSON Lines also tell the disjoint token classes.
    classes: Option<bool>,
    /// `restated` (when absent) or `reported`.
    #[serde(rename = "as")]
    view: Option<String>,
}

/// `GET /api/v1/usage`
pub(super) async fn usage(
    State(admin): State<Admin>,
    query: Result<Query<UsageQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let asked = parse_period(&admin, query.from.as_deref(), query.to.as_deref(), query.tz.as_deref())
        .and_then(|period| {
            let by = query.by.as_deref().unwrap_or("team,workload");
            let keys = report::parse_by(by, "by").map_err(|error| error.to_string())?;
            Ok(UsageAsk { period, by: keys })
        });
    let ask = match asked {
        Ok(ask) => ask,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, &detail),
    };
    let as_of = admin.app.now();
    let answer = blocking(move || report::usage(|query| admin.app.ledger.usage(query), &ask, as_of)).await;
    match answer {
        Some(Ok(table)) => {
            let kind = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, kind)], table.to_string()).into_response()
        }
        Some(Err(QueryError::Read(ReadError::Pruned(pruned)))) => {
            problem(StatusCode::BAD_REQUEST, &pruned.to_string())
        }
        Some(Err(error)) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot read the ledger: {error}"))
        }
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the report failed; see the log"),
    }
}

/// `GET /api/v1/usage/records`
pub(super) async fn records(
    State(admin): State<Admin>,
    query: Result<Query<RecordsQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let period = match parse_period(&admin, query.from.as_deref(), query.to.as_deref(), query.tz.as_deref()) {
        Ok(period) => period,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, &detail),
    };
    let (kind, format) = match query.format.as_deref().unwrap_or("jsonl") {
        "jsonl" if query.classes == Some(true) => {
            ("application/x-ndjson", report::RecordsAs::JsonlWithClasses)
        }
        "jsonl" => ("application/x-ndjson", report::RecordsAs::Jsonl),
        "csv" => (CSV, report::RecordsAs::Csv),
        "parquet" if cfg!(feature = "parquet") => {
            (PARQUET, report::RecordsAs::Table(TableFormat::PARQUET_SMALL))
        }
        "parquet" => return problem(StatusCode::NOT_IMPLEMENTED, NO_PARQUET),
        other => {
            let other: String = other.chars().take(20).collect();
            return problem(
                StatusCode::BAD_REQUEST,
                &format!("format {other:?} is unknown: use jsonl, csv or parquet"),
            );
        }
    };
    let days = (query.from.as_deref(), query.to.as_deref());
    let asked = report::ranges(&admin.app.ledger, query.view.as_deref(), days, &period, admin.app.now());
    let ranges = match asked {
        Ok(ranges) => ranges,
        Err(error @ AskError::Wrong(_)) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(error) => return problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    // Before the answer begins: what is streamed cannot be refused any more.
    for (range, last) in &ranges {
        if let Some(pruned) = admin.app.ledger.records(*range).up_to(*last).pruned() {
            return problem(StatusCode::BAD_REQUEST, &pruned.to_string());
        }
    }
    streamed(kind, move |out| {
        let records =
            ranges.into_iter().flat_map(|(range, last)| admin.app.ledger.records(range).up_to(last));
        Ok(report::write_records(records, format, out, &mut |_| {}).map(drop)?)
    })
    .await
}

/// Media types of exports.
pub(super) const CSV: &str = "text/csv; charset=utf-8";
pub(super) const PARQUET: &str = "application/vnd.apache.parquet";
/// What a sidecar that was built without Parquet says.
pub(super) const NO_PARQUET: &str =
    "this sidecar was built without the feature parquet: ask for another format, or build it with it";

/// What a writer of an answer says.
enum Piece {
    Bytes(Bytes),
    /// All is said: without it the reader must not take what it has for the whole.
    End,
    Failed(Failure),
}

/// An answer that is written as it is read, where it may block. What fails before its first piece is refused.
pub(super) async fn streamed(
    kind: &'static str,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
) -> Response {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    drop(tokio::task::spawn_blocking(move || {
        let mut out = ChunkWriter { sender, buffer: Vec::with_capacity(CHUNK) };
        let written = write(&mut out).and_then(|()| Ok(out.send()?));
        let last = match written {
            Ok(()) => Piece::End,
            Err(error) => {
                tracing::warn!(%error, "an export ended early");
                Piece::Failed(Failure::of(error.as_ref()))
            }
        };
        // A reader that has gone needs no end.
        let _ = out.sender.blocking_send(last);
    }));
    let first = match receiver.recv().await {
        Some(Piece::Failed(failure)) => return problem(failure.status, &failure.detail),
        None => return problem(StatusCode::INTERNAL_SERVER_ERROR, "the export failed; see the log"),
        Some(piece) => piece,
    };
    let stream = futures_util::stream::unfold((Some(first), receiver), |(first, mut receiver)| async move {
        let piece = match first {
            Some(piece) => Some(piece),
            None => receiver.recv().await,
        };
        let item = match piece {
            Some(Piece::Bytes(bytes)) => Ok(bytes),
            Some(Piece::End) => return None,
            Some(Piece::Failed(_)) | None => Err(std::io::Error::other("the export failed")),
        };
        Some((item, (None, receiver)))
    });
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], Body::from_stream(stream)).into_response()
}

/// Why an answer was not written.
struct Failure {
    status: StatusCode,
    detail: String,
}

impl Failure {
    fn of(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Self {
        use FocusError::{By, TooManyCorrections, TooManyRows, Zone};
        let rows = error.downcast_ref();
        if let Some(FocusFailure::Rows(By(_) | Zone | TooManyRows | TooManyCorrections)) = rows {
            return Self { status: StatusCode::BAD_REQUEST, detail: error.to_string() };
        }
        let asked = match (error.downcast_ref(), error.downcast_ref()) {
            (Some(FocusFailure::Ask(error)), _) | (_, Some(ExportFailure::Ask(error))) => Some(error),
            _ => None,
        };
        let (status, detail) = match asked {
            Some(AskError::Wrong(text)) => (StatusCode::BAD_REQUEST, text.clone()),
            Some(AskError::Missing(text)) => (StatusCode::NOT_FOUND, text.clone()),
            Some(AskError::Ledger(_)) | None => {
                (StatusCode::INTERNAL_SERVER_ERROR, "the export failed; see the log".to_owned())
            }
        };
        Self { status, detail }
    }
}

/// `GET /api/v1/ledger/stats`
pub(super) async fn ledger_stats(State(admin): State<Admin>) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], report::stats_json(&admin.app.ledger.stats()).to_string())
        .into_response()
}

fn parse_period(
    admin: &Admin,
    from: Option<&str>,
    to: Option<&str>,
    tz: Option<&str>,
) -> Result<Period, String> {
    period::parse(from, to, tz.unwrap_or("UTC"), admin.app.now(), period::PARAMETERS)
        .map_err(|error| error.to_string())
}

/// Runs `work` where it may block; `None` when it panicked.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

const CHUNK: usize = 64 * 1024;

/// Hands what is written to the response in pieces; blocks while the reader is slow.
struct ChunkWriter {
    sender: tokio::sync::mpsc::Sender<Piece>,
    buffer: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    /// Nothing leaves early: writers flush when they are dropped, also because of a failure, and what has
    /// begun cannot be refused any more.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl ChunkWriter {
    fn send(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender
            .blocking_send(Piece::Bytes(Bytes::from(full)))
            .map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}
