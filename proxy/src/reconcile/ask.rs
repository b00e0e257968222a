//! The question of a reconciliation, as commands and requests say it.
//!
//! Not here: files (`files`), cells (`book`), where records come from (`cli::reconcile`, `admin::reconcile`).

use super::{Books, Kind, Provider, Side, Statement, read};
use crate::imports::Input;
use bursar_policies::price::PriceBook;
use clap::ValueEnum;
use jiff::civil::Date;

/// The options, as they are written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words<'a> {
    pub(crate) provider: Option<&'a str>,
    pub(crate) from_format: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    pub(crate) to: Option<&'a str>,
    pub(crate) by: Option<&'a str>,
    pub(crate) tolerance: Option<&'a str>,
    pub(crate) project_tag: Option<&'a str>,
}

/// What stands together when nothing is said.
pub(crate) const BY: &str = "day,model";
/// How much may stay unexplained when nothing is said.
pub(crate) const TOLERANCE: &str = "1%";
/// The tag that names the provider's project when nothing is said.
pub(crate) const PROJECT_TAG: &str = "openai_project";

/// Why there is no reconciliation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// An option that says nothing we know.
    #[error("{0}")]
    Wrong(String),
    /// Statements that cannot be right.
    #[error("{0}")]
    Refused(String),
}

/// The question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    provider: Provider,
    kind: Option<Kind>,
    days: (Option<Date>, Option<Date>),
    by: Vec<Side>,
    /// How much may stay unexplained, as it is written.
    pub(crate) tolerance: String,
    project_tag: String,
}

impl Question {
    /// Understands the options; `names` puts dashes before their names or nothing.
    pub(crate) fn parse(words: &Words<'_>, names: &str) -> Result<Self, AskError> {
        let wrong = |text: String| AskError::Wrong(text);
        let day = |name: &str, text: Option<&str>| {
            let parse = |text: &str| {
                text.parse::<Date>()
                    .map_err(|_| wrong(format!("{names}{name} {text:?} is no day such as 2026-09-01")))
            };
            text.map(parse).transpose()
        };
        fn one_of<T: ValueEnum>(name: &str, text: &str) -> Result<T, AskError> {
            T::from_str(text, false).map_err(|_| {
                let known = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
                let known: Vec<String> = known.map(|value| value.get_name().to_owned()).collect();
                let text: String = text.chars().take(40).collect();
                AskError::Wrong(format!("{name} {text:?} is unknown: use {}", known.join(", ")))
            })
        }
        let provider = words
            .provider
            .ok_or_else(|| wrong(format!("{names}provider is missing: whose statement is it?")))?;
        let by = words.by.unwrap_or(BY);
        Ok(Self {
            provider: one_of(&format!("{names}provider"), provider)?,
            kind: words.from_format.map(|text| one_of(&format!("{names}from_format"), text)).transpose()?,
            days: (day("from", words.from)?, day("to", words.to)?),
            by: Side::parse(by)
                .ok_or_else(|| wrong(format!("{names}by {by:?} is no grouping: use day, model, project")))?,
            tolerance: words.tolerance.unwrap_or(TOLERANCE).to_owned(),
            project_tag: words.project_tag.unwrap_or(PROJECT_TAG).to_owned(),
        })
    }

    /// Both sides with the statements taken; records are still to come. `means` are names of the files, each
    /// with the model of ours that it stands for.
    pub(crate) fn books<'p, 'm>(
        &self,
        statements: &[(String, Statement)],
        means: impl IntoIterator<Item = (&'m str, &'m str)>,
        prices: &'p PriceBook,
    ) -> Result<Books<'p>, AskError> {
        let mut books = Books::new(self.provider, self.by.clone(), self.days, prices);
        books.project_tag(&self.project_tag);
        for (theirs, ours) in means {
            books.means(theirs, ours);
        }
        books.take(statements).map_err(|error| AskError::Refused(error.to_string()))?;
        Ok(books)
    }

    /// Reads files, each with the name by which it is told; one that is there twice would count twice.
    pub(crate) fn statements(
        &self,
        files: &[(String, Input<'_>)],
    ) -> Result<Vec<(String, Statement)>, AskError> {
        let mut found = Vec::new();
        let mut seen: Vec<(String, &str)> = Vec::new();
        for (shown, input) in files {
            let cannot = |error: &dyn std::fmt::Display| {
                AskError::Refused(format!("{shown}: cannot be read: {error}"))
            };
            let checksum = input.checksum().map_err(|error| cannot(&error))?;
            if let Some((_, before)) = seen.iter().find(|(other, _)| *other == checksum) {
                let text = format!("{shown} is the same file as {before}: it would count twice");
                return Err(AskError::Refused(text));
            }
            let statement = read(*input, self.kind, self.provider)
                .map_err(|error| AskError::Refused(format!("{shown}: {error}")))?;
            let name = std::path::Path::new(shown).file_name();
            let name = name.map_or_else(|| shown.clone(), |name| name.to_string_lossy().into_owned());
            seen.push((checksum, shown));
            found.push((name, statement));
        }
        Ok(found)
    }
}
