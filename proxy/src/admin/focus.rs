//! FOCUS datasets over the admin API.
//!
//! Not here: the rows (`ledger::focus`), options and formats (`focus`).

use super::hedge::Asked;
use super::reports::{CSV, NO_PARQUET, PARQUET, streamed};
use super::{Admin, problem};
use crate::focus::{self, Dataset, Options};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use bursar_ledger::export::TableFormat;

/// `GET /api/v1/focus/{dataset}`
pub(super) async fn dataset(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    query: Asked<Options>,
) -> Response {
    let options = match query {
        Ok(Query(options)) => options,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let dataset = match name.as_str() {
        "cost-and-usage" => Dataset::CostAndUsage,
        "contract-commitment" => Dataset::ContractCommitment,
        _ => {
            let detail = "there is no such dataset: use cost-and-usage or contract-commitment";
            return problem(StatusCode::NOT_FOUND, detail);
        }
    };
    let (kind, format) = match options.format.as_deref().unwrap_or("csv") {
        "csv" => (CSV, TableFormat::Csv),
        "parquet" if cfg!(feature = "parquet") => (PARQUET, TableFormat::PARQUET_SMALL),
        "parquet" => return problem(StatusCode::NOT_IMPLEMENTED, NO_PARQUET),
        _ => return problem(StatusCode::BAD_REQUEST, "format: use csv or parquet"),
    };
    let now = admin.app.now();
    let contracts = bursar_ledger::roi::has_contracts(&admin.app.ledger.facts());
    if let Err(error) = options.ask(now, contracts) {
        return problem(StatusCode::BAD_REQUEST, &error.to_string());
    }
    streamed(kind, move |out| {
        let account = admin.app.ledger.id().to_string();
        let asked = (dataset, &options, account.as_str());
        let notes = focus::write(&admin.app.priced(), asked, format, now, out, &mut |_| {})?;
        for note in focus::words(&notes) {
            tracing::info!(%note, "about a FOCUS export");
        }
        Ok(())
    })
    .await
}
