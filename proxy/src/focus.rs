//! FOCUS datasets: the question as options say it, and where the rows go.
//!
//! Not here: the rows (`ledger::focus`), the command and its file (`cli::focus`).

use crate::hedge::AskError;
use crate::hedge::report::Options as HedgeOptions;
use bursar_domain::Timestamp;
use bursar_ledger::export::{ExportError, TableFormat, TableWriter};
use bursar_ledger::focus::{
    FocusAsk, FocusError, FocusNotes, commitment_columns, contract_commitments, cost_and_usage, usage_columns,
};
use bursar_ledger::hedge::{HedgeAsk, HedgeSource};
use bursar_ledger::roi::has_contracts;
use bursar_policies::hedge::calendar::Window;
use serde::Deserialize;
use std::io::Write;

/// Which dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dataset {
    /// Cost and Usage.
    #[default]
    CostAndUsage,
    /// Contract Commitment.
    ContractCommitment,
}

/// The options, as they are written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// First day (UTC); the first of the month of the valuation day when absent.
    pub(crate) from: Option<String>,
    /// First day outside; the day after the valuation day when absent.
    pub(crate) to: Option<String>,
    /// Custom grouping; `team,workload` when absent.
    pub(crate) by: Option<String>,
    /// Hedge unit: `Mtok` (when absent) or `MSIT`.
    pub(crate) unit: Option<String>,
    /// Reporting currency; USD when absent.
    pub(crate) currency: Option<String>,
    /// The last day that is in the figures; today when absent, yesterday when there are contracts.
    pub(crate) on: Option<String>,
    /// With the fixings and rates that were known at this time; now when absent.
    pub(crate) as_of: Option<String>,
    /// The billing account; the ledger's id when absent.
    pub(crate) billing_account: Option<String>,
    /// `csv` (when absent) or `parquet`.
    pub(crate) format: Option<String>,
}

/// Why a dataset cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FocusFailure {
    /// The question, or the ledger.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The rows.
    #[error(transparent)]
    Rows(#[from] FocusError),
}

impl From<ExportError> for FocusFailure {
    fn from(error: ExportError) -> Self {
        Self::Rows(error.into())
    }
}

impl Options {
    /// The terms; `contracts` tells whether prices of today may still be missing.
    pub(crate) fn ask(&self, now: Timestamp, contracts: bool) -> Result<HedgeAsk, AskError> {
        let today = || crate::report::rfc3339(now).split('T').next().map(str::to_owned);
        let hedge = HedgeOptions {
            from: self.from.clone(),
            to: self.to.clone(),
            by: Some(self.by.clone().unwrap_or_else(|| "team,workload".to_owned())),
            unit: self.unit.clone(),
            currency: self.currency.clone(),
            on: self.on.clone().or_else(|| if contracts { None } else { today() }),
            as_of: self.as_of.clone(),
            ..HedgeOptions::default()
        };
        hedge.ask(now)
    }
}

/// Writes a dataset to `out`, telling `seen` how many rows there were as they pass.
pub(crate) fn write(
    source: &dyn HedgeSource,
    (dataset, options, account): (Dataset, &Options, &str),
    format: TableFormat,
    now: Timestamp,
    out: &mut dyn Write,
    seen: &mut dyn FnMut(u64),
) -> Result<FocusNotes, FocusFailure> {
    let contracts = has_contracts(&source.finance_facts().map_err(AskError::from)?);
    let hedge = options.ask(now, contracts)?;
    let mut count = 0_u64;
    let columns = match dataset {
        Dataset::CostAndUsage => usage_columns(),
        Dataset::ContractCommitment => commitment_columns(),
    };
    let mut table = TableWriter::new(out, "focus", columns, format)?;
    let mut sink = |cells: &[bursar_ledger::export::Cell<'_>]| {
        table.write(cells)?;
        count = count.saturating_add(1);
        seen(count);
        Ok(())
    };
    let notes = match dataset {
        Dataset::CostAndUsage => {
            let account = options.billing_account.as_deref().unwrap_or(account).to_owned();
            cost_and_usage(source, &FocusAsk { hedge, account }, &mut sink)?
        }
        Dataset::ContractCommitment => {
            let days = Window::new(hedge.from, hedge.until).map_err(FocusError::from)?;
            contract_commitments(source, days, (hedge.today, hedge.as_of), &mut sink)?
        }
    };
    table.finish()?;
    Ok(notes)
}

/// What a dataset leaves open, in words.
pub(crate) fn words(notes: &FocusNotes) -> Vec<String> {
    let mut words = Vec::new();
    if notes.unpriced > 0 {
        let count = notes.unpriced;
        words.push(format!(
            "{count} requests have no complete price: their rows say so in x_CostStatus, and cost only what is known"
        ));
    }
    if notes.without_list > 0 {
        let count = notes.without_list;
        words.push(format!(
            "{count} requests have no known public price: ListCost is what is billed there, and x_ListCostSource says so"
        ));
    }
    words.extend(notes.without_rate.iter().map(|(currency, rows)| {
        format!("{rows} rows are in {currency}, which has no rate: their BillingCurrency is {currency}; import the rate")
    }));
    words.extend(
        notes
            .unpriced_positions
            .iter()
            .map(|position| format!("{position}: nothing of it is in the dataset")),
    );
    words
}
