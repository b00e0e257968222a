//! Files of providers: which kind each is, and their lines.
//!
//! Invariants
//! - Rows are read one by one; a bad one is named by file and line, and then nothing is reconciled.
//! - A file that ends at a page which says that there are more is refused.
//!
//! Not here: the fields of each kind (`json`, `tables`).

use super::{Line, Provider, json, tables};
use crate::imports::Input;
use crate::imports::fields::Row;
use crate::imports::read::{Cells, rows};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Bad lines of one file that are told.
const PROBLEMS_MAX: usize = 20;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Kind {
    /// OpenAI's usage API.
    OpenaiUsage,
    /// OpenAI's costs API.
    OpenaiCosts,
    /// Anthropic's usage report of messages.
    AnthropicUsage,
    /// Anthropic's cost report.
    AnthropicCost,
    /// Azure's cost details (CSV).
    AzureCost,
    /// AWS's cost and usage report, version 2.0 (CSV).
    AwsCur2,
    /// FOCUS cost and usage (CSV), of any provider.
    Focus,
    /// OpenRouter's activity by day (JSON).
    OpenrouterActivity,
    /// OpenRouter's activity by generation (CSV).
    OpenrouterGenerations,
}

impl Kind {
    /// Every kind, in the order in which a file is tried.
    pub(crate) const ALL: [Self; 9] = [
        Self::OpenaiUsage,
        Self::OpenaiCosts,
        Self::AnthropicUsage,
        Self::AnthropicCost,
        Self::AwsCur2,
        Self::Focus,
        Self::AzureCost,
        Self::OpenrouterActivity,
        Self::OpenrouterGenerations,
    ];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OpenaiUsage => "openai-usage",
            Self::OpenaiCosts => "openai-costs",
            Self::AnthropicUsage => "anthropic-usage",
            Self::AnthropicCost => "anthropic-cost",
            Self::AzureCost => "azure-cost",
            Self::AwsCur2 => "aws-cur2",
            Self::Focus => "focus",
            Self::OpenrouterActivity => "openrouter-activity",
            Self::OpenrouterGenerations => "openrouter-generations",
        }
    }

    /// Which documented version is expected.
    pub(crate) const fn expects(self) -> &'static str {
        match self {
            Self::OpenaiUsage => {
                "OpenAI API 2.3, GET /v1/organization/usage/{completions,embeddings} (JSON pages)"
            }
            Self::OpenaiCosts => "OpenAI API 2.3, GET /v1/organization/costs (JSON pages)",
            Self::AnthropicUsage => {
                "Anthropic API 2023-06-01, GET /v1/organizations/usage_report/messages (JSON pages)"
            }
            Self::AnthropicCost => "Anthropic API 2023-06-01, GET /v1/organizations/cost_report (JSON pages)",
            Self::AzureCost => {
                "Azure cost details (actual cost) for EA and MCA, version 2021-10-01 or later (CSV)"
            }
            Self::AwsCur2 => "AWS Data Exports, CUR 2.0 (CSV)",
            Self::Focus => "FOCUS 1.0 to 1.4, Cost and Usage (CSV)",
            Self::OpenrouterActivity => "OpenRouter API 1.0, GET /api/v1/activity (JSON)",
            Self::OpenrouterGenerations => {
                "OpenRouter's activity page, export by generation (CSV of 2025 and 2026)"
            }
        }
    }

    /// Whether it tells costs.
    pub(crate) const fn tells_costs(self) -> bool {
        !matches!(self, Self::OpenaiUsage | Self::AnthropicUsage)
    }

    /// Whether it counts the tokens of everything that it tells of.
    pub(crate) const fn counts_tokens(self) -> bool {
        matches!(
            self,
            Self::OpenaiUsage | Self::AnthropicUsage | Self::OpenrouterActivity | Self::OpenrouterGenerations
        )
    }

    /// Whether it counts the requests, too.
    pub(crate) const fn counts_requests(self) -> bool {
        matches!(self, Self::OpenaiUsage | Self::OpenrouterActivity | Self::OpenrouterGenerations)
    }

    /// Whose file it is; `None` for a standard.
    const fn provider(self) -> Option<Provider> {
        match self {
            Self::OpenaiUsage | Self::OpenaiCosts => Some(Provider::Openai),
            Self::AnthropicUsage | Self::AnthropicCost => Some(Provider::Anthropic),
            Self::AzureCost => Some(Provider::Azure),
            Self::AwsCur2 => Some(Provider::Aws),
            Self::Focus => None,
            Self::OpenrouterActivity | Self::OpenrouterGenerations => Some(Provider::Openrouter),
        }
    }

    fn fits(self, row: &Row) -> bool {
        match self {
            Self::OpenaiUsage | Self::OpenaiCosts | Self::AnthropicUsage | Self::AnthropicCost => {
                json::kind_of(row) == Some(self)
            }
            Self::OpenrouterActivity => json::is_activity(row),
            Self::AzureCost | Self::AwsCur2 | Self::Focus | Self::OpenrouterGenerations => {
                tables::fits(self, row)
            }
        }
    }

    fn lines(self, row: &Row, provider: Provider) -> Result<Vec<Line>, String> {
        match self {
            Self::OpenaiUsage | Self::OpenaiCosts | Self::AnthropicUsage | Self::AnthropicCost => {
                json::bucket(self, row)
            }
            Self::OpenrouterActivity => json::activity(row).map(|line| vec![line]),
            Self::AzureCost => tables::azure(row).map(Vec::from_iter),
            Self::AwsCur2 => tables::cur2(row).map(Vec::from_iter),
            Self::Focus => tables::focus(row, provider).map(Vec::from_iter),
            Self::OpenrouterGenerations => tables::generations(row).map(|line| vec![line]),
        }
    }
}

/// What one file says.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its lines about the provider's models.
    pub(crate) lines: Vec<Line>,
    /// Its rows.
    pub(crate) rows: u64,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("there is no row in it")]
    Empty,
    /// It is of no kind that is known.
    #[error("is no file of a known kind: its first row has the fields {fields}; these are read: {known}")]
    Unknown {
        /// The first fields.
        fields: String,
        /// What is read.
        known: String,
    },
    /// It is somebody else's.
    #[error("is {}, which is not of --provider {wanted:?}", kind.name())]
    Foreign {
        /// What it is.
        kind: Kind,
        /// Whose is wanted.
        wanted: Provider,
    },
    /// There are more pages.
    #[error("ends at a page that says there are more (has_more): fetch the rest, or narrow the time")]
    MorePages,
    /// Bad rows.
    #[error("{}", problems.join("\n"))]
    Bad {
        /// The rows, with their lines.
        problems: Vec<String>,
    },
}

/// Reads a file of `provider`; its kind is detected where none is told.
pub(crate) fn read(input: Input<'_>, told: Option<Kind>, provider: Provider) -> Result<Statement, ReadError> {
    let kind = match told {
        Some(kind) => kind,
        None => detect(input)?,
    };
    if kind.provider().is_some_and(|whose| whose != provider) {
        return Err(ReadError::Foreign { kind, wanted: provider });
    }
    if has_more(input)? {
        return Err(ReadError::MorePages);
    }
    let mut found = Statement { kind, lines: Vec::new(), rows: 0 };
    let (mut problems, mut seen) = (Vec::new(), HashSet::new());
    for row in rows(input.open()?, Cells::Text)? {
        let row = row?;
        found.rows = found.rows.saturating_add(1);
        let lines = row.fields.and_then(|fields| {
            // A page that is there twice would count twice; rows of tables may be alike.
            if row.written.is_some() && !seen.insert(fingerprint(&fields)) {
                return Err("the same again: is a page in the file twice?".to_owned());
            }
            if !kind.fits(&fields) && !json::is_empty_bucket(&fields) {
                return Err(format!("this is no row of {}", kind.expects()));
            }
            kind.lines(&fields, provider)
        });
        match lines {
            Ok(lines) => found.lines.extend(lines),
            Err(problem) if problems.len() < PROBLEMS_MAX => {
                problems.push(format!("line {}: {problem}", row.line))
            }
            Err(_) => {}
        }
    }
    match (found.rows, problems.is_empty()) {
        (0, _) => Err(ReadError::Empty),
        (_, false) => Err(ReadError::Bad { problems }),
        _ => Ok(found),
    }
}

fn fingerprint(row: &Row) -> [u8; 32] {
    *blake3::hash(serde_json::Value::Object(row.clone()).to_string().as_bytes()).as_bytes()
}

fn detect(input: Input<'_>) -> Result<Kind, ReadError> {
    let mut first = None;
    for row in rows(input.open()?, Cells::Text)?.take(1_000) {
        let Ok(fields) = row?.fields else { continue };
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.fits(&fields)) {
            return Ok(kind);
        }
        if !json::is_empty_bucket(&fields) {
            first.get_or_insert(fields);
        }
    }
    let Some(first) = first else { return Err(ReadError::Empty) };
    let fields: Vec<String> = first.keys().take(12).map(|name| name.chars().take(40).collect()).collect();
    let known = Kind::ALL.map(|kind| format!("{} ({})", kind.name(), kind.expects())).join("; ");
    Err(ReadError::Unknown { fields: json::named(&first).unwrap_or_else(|| fields.join(", ")), known })
}

/// Whether the last page says that there are more: `has_more` stands near the end of a page.
fn has_more(input: Input<'_>) -> io::Result<bool> {
    const TAIL: usize = 4_096;
    let mut tail = Vec::new();
    match input {
        Input::Text(text) => {
            let start = text.len().saturating_sub(TAIL);
            tail.extend_from_slice(text.as_bytes().get(start..).unwrap_or_default());
        }
        Input::Path(path) => {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL as u64)))?;
            file.take(TAIL as u64).read_to_end(&mut tail)?;
        }
    }
    let text = String::from_utf8_lossy(&tail);
    let Some((_, after)) = text.rsplit_once("\"has_more\"") else { return Ok(false) };
    Ok(after.trim_start().trim_start_matches(':').trim_start().starts_with("true"))
}
