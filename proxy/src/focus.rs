//! FOCUS datasets: the question as options say it, and where the rows go.
//!
//! Invariants
//! - As reported, a closed month is made of the ledger as it was at the close; the first open month also has
//!   what became different about closed ones, as corrections.
//!
//! Not here: the rows (`ledger::focus`), the command and its file (`cli::focus`).

use crate::hedge::AskError;
use crate::hedge::report::Options as HedgeOptions;
use crate::roi::period::{self, Basis, Cut};
use bursar_domain::Timestamp;
use bursar_ledger::export::{ExportError, TableFormat, TableWriter};
use bursar_ledger::focus::{
    FocusAsk, FocusError, FocusNotes, Then, commitment_columns, contract_commitments, corrections,
    cost_and_usage, usage_columns,
};
use bursar_ledger::hedge::{HedgeAsk, HedgeSource};
use bursar_ledger::periods::UpTo;
use bursar_ledger::roi::has_contracts;
use bursar_policies::hedge::calendar::{Month, Window};
use jiff::tz::TimeZone;
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
    /// `restated` (when absent): with everything known; `reported`: as of the month's close.
    #[serde(rename = "as")]
    pub(crate) view: Option<String>,
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

/// A month as it is reported: its own rows by the state of its close, and corrections.
struct Reported {
    basis: Basis,
    options: Options,
}

impl Reported {
    fn of(source: &dyn HedgeSource, options: &Options, now: Timestamp) -> Result<Self, AskError> {
        let days = (options.from.as_deref(), options.to.as_deref());
        let basis = period::basis(source, days, options.on.as_deref(), now)?;
        let zone = basis.terms.tz.as_deref().unwrap_or("UTC");
        if !matches!(zone, "UTC" | "Etc/UTC") {
            return Err(AskError::Wrong(format!(
                "months were closed in days of {zone}, and FOCUS tells time in UTC: leave out --as reported"
            )));
        }
        let mut options = options.clone();
        options.currency = options.currency.or_else(|| basis.terms.currency.clone());
        options.unit = options.unit.or_else(|| basis.terms.unit.clone());
        Ok(Self { basis, options })
    }

    /// The question about `month`, asked in a state.
    fn ask(&self, month: Month, cut: &Cut, contracts: bool) -> Result<HedgeAsk, AskError> {
        let out_of_range = |_| AskError::Wrong(format!("{month} is out of the calendar's range"));
        let options = Options {
            from: Some(month.first().to_string()),
            to: Some(month.next().map_err(out_of_range)?.first().to_string()),
            on: cut.on.clone(),
            as_of: Some(cut.as_of.clone()),
            ..self.options.clone()
        };
        let at = cut.as_of.parse::<jiff::Timestamp>();
        let at = at.map_err(|error| AskError::Ledger(format!("a close without a time: {error}")))?;
        options.ask(Timestamp::from_micros(at.as_microsecond()), contracts)
    }
}

/// Writes the rows of a month as it is reported.
fn write_reported(
    source: &dyn HedgeSource,
    reported: &Reported,
    (dataset, account): (Dataset, &str),
    sink: &mut bursar_ledger::focus::Sink<'_>,
) -> Result<FocusNotes, FocusFailure> {
    let Basis { month, next, cut, since, .. } = &reported.basis;
    let state = |cut: &Cut, month: Month| -> Result<(u64, HedgeAsk), FocusFailure> {
        let then = UpTo::new(source, cut.sequence);
        let contracts = has_contracts(&then.finance_facts().map_err(AskError::from)?);
        Ok((cut.sequence, reported.ask(month, cut, contracts)?))
    };
    let (sequence, hedge) = state(cut, *month)?;
    let now = UpTo::new(source, sequence);
    if dataset == Dataset::ContractCommitment {
        let days = Window::new(hedge.from, hedge.until).map_err(FocusError::from)?;
        return Ok(contract_commitments(&now, days, (hedge.today, hedge.as_of), sink)?);
    }
    let ask = |hedge: HedgeAsk| FocusAsk { hedge, account: account.to_owned() };
    let mut notes = cost_and_usage(&now, &ask(hedge), sink)?;
    for origin in since.iter().flat_map(|(_, months)| months) {
        let Some((before, _)) = since else { continue };
        let (sequence, was) = state(before, *origin)?;
        let then = UpTo::new(source, sequence);
        let (_, is) = state(cut, *origin)?;
        let (was, is) = (ask(was), ask(is));
        let both = (Then { source: &then, ask: &was }, Then { source: &now, ask: &is });
        let rows = corrections(both, (midnight(*month), midnight(*next)), sink)?;
        notes.rows = notes.rows.saturating_add(rows);
    }
    Ok(notes)
}

/// The first instant of a month, in UTC.
fn midnight(month: Month) -> Timestamp {
    let at = month.first().to_zoned(TimeZone::UTC).map(|at| at.timestamp().as_microsecond());
    Timestamp::from_micros(at.unwrap_or(0))
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
    let reported = match options.view.as_deref() {
        None | Some("restated") => None,
        Some("reported") => Some(Reported::of(source, options, now)?),
        Some(other) => return Err(AskError::Wrong(format!("as {other:?}: use reported or restated")).into()),
    };
    let hedge = options.ask(now, contracts)?;
    let account = options.billing_account.as_deref().unwrap_or(account).to_owned();
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
    let notes = match (dataset, &reported) {
        (_, Some(reported)) => write_reported(source, reported, (dataset, &account), &mut sink)?,
        (Dataset::CostAndUsage, None) => cost_and_usage(source, &FocusAsk { hedge, account }, &mut sink)?,
        (Dataset::ContractCommitment, None) => {
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
