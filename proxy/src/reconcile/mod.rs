//! Reconciliation with what providers say they charged: their files on one side, our records on the other.
//!
//! Invariants
//! - Each kind of file states which documented version it expects; what is something else is refused by name.
//! - A figure that a file does not have stays unknown; amounts are read digit by digit.
//! - Nothing is counted twice: not a bucket that is in two files, not costs from two kinds of files.
//! - Lines of one cell (day, model, perhaps project) stand together; the parts of every cell sum to its gap.
//!
//! Not here: the parts (`bursar_policies::reconcile`), the command (`cli::reconcile`).

mod ask;
mod book;
mod files;
mod json;
mod model_key;
mod tables;
#[cfg(test)]
mod tests;

pub(crate) use ask::{AskError, BY, PROJECT_TAG, Question, TOLERANCE, Words};
pub(crate) use book::{Books, Side};
#[cfg(test)]
use files::ReadError;
pub(crate) use files::{Kind, Statement, read};

use bursar_domain::{Currency, Usage};
use jiff::civil::Date;

/// Whose bill it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Provider {
    /// OpenAI.
    Openai,
    /// Anthropic.
    Anthropic,
    /// Azure.
    Azure,
    /// Amazon Bedrock.
    Aws,
    /// `OpenRouter`.
    Openrouter,
}

impl Provider {
    /// What it is called in records.
    pub(crate) const fn in_records(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Azure => "azure",
            Self::Aws => "bedrock",
            Self::Openrouter => "openrouter",
        }
    }
}

/// One line of a provider's statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// The day, in UTC.
    pub(crate) day: Date,
    /// The model, as the file names it; absent where it names none.
    pub(crate) model: Option<String>,
    /// The project, workspace or account.
    pub(crate) project: Option<String>,
    /// The tier, where one is named.
    pub(crate) tier: Option<String>,
    /// Tokens, where the file tells them.
    pub(crate) usage: Option<Usage>,
    /// Requests, where the file tells them.
    pub(crate) requests: Option<u64>,
    /// What was charged, where the file tells it.
    pub(crate) cost: Option<(Currency, i128)>,
    /// By how much the cost may be off for its number of digits, in pico-units.
    pub(crate) rounding: i128,
}

impl Line {
    /// A line that says nothing yet.
    fn of(day: Date) -> Self {
        Self {
            day,
            model: None,
            project: None,
            tier: None,
            usage: None,
            requests: None,
            cost: None,
            rounding: 0,
        }
    }

    /// States a cost as it is written, `per` of whose units are one of the currency.
    fn set_cost(&mut self, name: &str, text: &str, currency: &str, per: i128) -> Result<(), String> {
        let upper = currency.trim().to_uppercase();
        let currency =
            Currency::parse(&upper).map_err(|_| format!("{name}: {currency:?} is no code of a currency"))?;
        let pico = crate::imports::fields::amount(text)
            .and_then(|pico| bursar_domain::money::div_half_even(pico, per).ok())
            .ok_or_else(|| format!("{name}: {text:?} is no amount"))?;
        self.cost = Some((currency, pico));
        self.rounding = half_of_last_digit(text).checked_div(per).unwrap_or(0).max(1);
        Ok(())
    }
}

/// Half of the last place of a decimal, in pico-units; of a number with an exponent, a pico.
fn half_of_last_digit(text: &str) -> i128 {
    if text.contains(['e', 'E']) {
        return 1;
    }
    let places = text.trim().split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let places = u32::try_from(places).unwrap_or(u32::MAX).min(12);
    10_i128.checked_pow(12_u32.saturating_sub(places)).map_or(1, |unit| unit / 2)
}
