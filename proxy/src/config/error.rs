//! What is wrong in a configuration: every mistake with its place, key, value and remedy.
//!
//! Invariants
//! - A message never holds a secret: a value that could be one is hidden where it is made.
//! - Mistakes are listed in the order of the file, then environment, then command line.
//!
//! Not here: finding mistakes (`value`, `load`).

use super::yaml::Position;
use std::fmt;
use std::sync::Arc;

/// Longest value that is shown in full, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A place in the configuration file.
    File {
        /// The file, as it was named.
        name: Arc<str>,
        /// Where in it; `None` for the file as a whole.
        at: Option<Position>,
    },
    /// An environment variable.
    Environment(String),
    /// An option of the command line.
    CommandLine(&'static str),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, at: Some(at) } => write!(f, "{name}:{}:{}", at.line, at.column),
            Self::File { name, at: None } => f.write_str(name),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::CommandLine(option) => write!(f, "option {option}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The offending value, as far as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The text, cut when long.
    Text(String),
    /// There is one, but it may be a secret.
    Hidden,
    /// The mistake is not about one value.
    Absent,
}

/// What is wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) shown: Shown,
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Wrong {
    /// About a value that may be shown. `what` continues the sentence: "is not a …".
    pub(super) fn value(text: &str, what: &str, remedy: &str) -> Self {
        Self { shown: Shown::Text(cut(text)), what: what.to_owned(), remedy: remedy.to_owned() }
    }

    /// About a value that may be a secret.
    pub(super) fn hidden(what: &str, remedy: &str) -> Self {
        Self { shown: Shown::Hidden, what: what.to_owned(), remedy: remedy.to_owned() }
    }

    /// About something other than a value; `what` is a whole sentence.
    pub(super) fn absent(what: &str, remedy: &str) -> Self {
        Self { shown: Shown::Absent, what: what.to_owned(), remedy: remedy.to_owned() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shown {
            Shown::Text(text) => write!(f, "{text:?} ")?,
            Shown::Hidden => f.write_str("the value (not shown) ")?,
            Shown::Absent => {}
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    short.push('…');
    short
}

/// A mistake at a place, before it is known which key and file it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: Position,
    /// What to append to the key: `[2]`, `.name`.
    pub(super) below: String,
    pub(super) wrong: Wrong,
}

impl Fault {
    pub(super) fn at(at: Position, wrong: Wrong) -> Self {
        Self { at, below: String::new(), wrong }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it is.
    pub origin: Origin,
    /// The key's path, such as `routes[0].upstream`; empty for the file as a whole.
    pub key: String,
    /// The value.
    pub value: Shown,
    /// What is wrong with it.
    pub wrong: String,
    /// What to do.
    pub remedy: String,
}

impl ConfigError {
    pub(super) fn new(origin: Origin, key: impl Into<String>, wrong: Wrong) -> Self {
        let Wrong { shown, what, remedy } = wrong;
        Self { origin, key: key.into(), value: shown, wrong: what, remedy }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        let wrong =
            Wrong { shown: self.value.clone(), what: self.wrong.clone(), remedy: self.remedy.clone() };
        wrong.fmt(f)
    }
}

impl std::error::Error for ConfigError {}

/// All mistakes of one configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts the mistakes by place; `None` when there are none.
    pub(super) fn of(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort_by(|a, b| (&a.origin, &a.key).cmp(&(&b.origin, &b.key)));
        if errors.is_empty() { None } else { Some(Self(errors)) }
    }

    /// The mistakes in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has 1 mistake:")?,
            n => write!(f, "the configuration has {n} mistakes:")?,
        }
        for error in &self.0 {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
