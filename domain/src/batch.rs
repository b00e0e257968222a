//! Batches: work handed in at once, made later and fetched as often as anybody likes.
//!
//! Invariants
//! - Memory is bounded: at most [`LINES_MAX`] lines and [`ID_BYTES_MAX`] bytes of ids, kept flat.
//! - A line keeps what was reported of it.
//!
//! Not here: which lines were counted before, and whose they are (`ledger`), reading them
//! (`proxy::usage`).

use crate::event::ModelUsage;
use crate::ids::Label;
use crate::money::Money;
use crate::usage::{Quantity, TokenClass, Usage};

/// Most lines of one reply; no provider takes more requests in one batch (Anthropic: 100,000).
pub const LINES_MAX: usize = 100_000;
/// Most bytes of all lines' ids together.
pub const ID_BYTES_MAX: usize = 8 << 20;
/// Begins an id that was the client's choice.
pub const LOCAL_ID: char = '#';
/// Most models among the lines.
const MODELS_MAX: usize = 64;

/// The results of a batch, one line for each of its requests that used something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchLines {
    rows: Vec<Row>,
    ids: String,
    counts: Vec<(Item, u64)>,
    models: Vec<Label>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    ids_end: usize,
    counts_end: usize,
    model: Option<u8>,
    charge: Option<Money>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Tokens(TokenClass),
    Quantity(Quantity),
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLine<'a> {
    /// The provider's own id of the reply. One that begins with [`LOCAL_ID`] is unique only among the
    /// results of its batch; an empty one tells nothing.
    pub id: &'a str,
    /// The model that answered.
    pub model: Option<&'a Label>,
    /// What it used.
    pub usage: Usage,
    /// What the provider says it charged for it.
    pub charge: Option<Money>,
}

/// Whether a line was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Kept {
    /// It was.
    Yes,
    /// There are too many.
    Full,
}

/// What a call about a batch says besides its usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchFacts {
    /// It made a batch: whoever called owns it.
    Made {
        /// The provider's id of the batch.
        batch: Label,
    },
    /// It looked at batches.
    Seen(Vec<BatchNames>),
    /// It fetched results.
    Fetched {
        /// What was asked for: the batch, or a file of its results.
        name: Label,
        /// The results.
        lines: Box<BatchLines>,
    },
}

/// The names of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchNames {
    /// The provider's id of the batch.
    pub batch: Label,
    /// The files with its results.
    pub files: Vec<Label>,
}

/// What lines add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinesSum {
    /// The model that answered; the first one when there were several.
    pub model: Option<Label>,
    /// What was used.
    pub usage: Usage,
    /// The parts per model, when there were several.
    pub by_model: Vec<ModelUsage>,
    /// What the provider says it charged; `None` unless it says so of some line.
    pub charge: Option<Money>,
}

/// Adds lines up.
pub fn sum<'a>(lines: impl Iterator<Item = BatchLine<'a>>) -> LinesSum {
    let mut sum = LinesSum::default();
    for line in lines {
        sum.usage.add(&line.usage);
        sum.charge = match (sum.charge, line.charge) {
            (Some(sum), Some(charge)) => sum.checked_add(charge).ok(),
            (one, other) => one.or(other),
        };
        match sum.by_model.iter_mut().find(|part| part.model.as_ref() == line.model) {
            Some(part) => part.usage.add(&line.usage),
            None => sum.by_model.push(ModelUsage { model: line.model.cloned(), usage: line.usage }),
        }
    }
    sum.model = sum.by_model.first().and_then(|part| part.model.clone());
    if sum.by_model.len() < 2 {
        sum.by_model.clear();
    }
    sum
}

// === impl BatchLines ===

impl BatchLines {
    /// Adds a line, if there is room.
    pub fn push(&mut self, line: &BatchLine<'_>) -> Kept {
        let room = ID_BYTES_MAX.saturating_sub(self.ids.len());
        if self.rows.len() >= LINES_MAX || line.id.len() > room {
            return Kept::Full;
        }
        let Ok(model) = line.model.map(|model| self.model_number(model)).transpose() else {
            return Kept::Full;
        };
        self.ids.push_str(line.id);
        let tokens = line.usage.tokens().map(|(class, count)| (Item::Tokens(class), count));
        let quantities = line.usage.quantities().map(|(quantity, n)| (Item::Quantity(quantity), n));
        self.counts.extend(tokens.chain(quantities));
        self.rows.push(Row {
            ids_end: self.ids.len(),
            counts_end: self.counts.len(),
            model,
            charge: line.charge,
        });
        Kept::Yes
    }

    fn model_number(&mut self, model: &Label) -> Result<u8, TooManyModels> {
        let at = self.models.iter().position(|known| known == model).unwrap_or(self.models.len());
        if at == self.models.len() {
            if at >= MODELS_MAX {
                return Err(TooManyModels);
            }
            self.models.push(model.clone());
        }
        u8::try_from(at).map_err(|_| TooManyModels)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = BatchLine<'_>> {
        let mut before = Row { ids_end: 0, counts_end: 0, model: None, charge: None };
        self.rows.iter().map(move |row| {
            let id = self.ids.get(before.ids_end..row.ids_end).unwrap_or_default();
            let counts = self.counts.get(before.counts_end..row.counts_end).unwrap_or_default();
            before = *row;
            let mut usage = Usage::unknown();
            for (item, count) in counts {
                match item {
                    Item::Tokens(class) => usage.set(*class, *count),
                    Item::Quantity(quantity) => usage.set_quantity(*quantity, *count),
                }
            }
            let model = row.model.and_then(|number| self.models.get(usize::from(number)));
            BatchLine { id, model, usage, charge: row.charge }
        })
    }
}

struct TooManyModels;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    fn usage(input: u64) -> Usage {
        let mut usage = Usage::unknown();
        usage.set(TokenClass::InputFresh, input);
        usage.set_quantity(Quantity::ToolCalls, 0);
        usage
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        let (a, b) = (label("a"), label("b"));
        let charge = Some(Money::from_pico(Currency::USD, 7));
        let given = [
            BatchLine { id: "one", model: Some(&a), usage: usage(1), charge },
            BatchLine { id: "", model: None, usage: Usage::unknown(), charge: None },
            BatchLine { id: "two", model: Some(&b), usage: usage(0), charge: None },
            BatchLine { id: "three", model: Some(&a), usage: usage(3), charge: None },
        ];
        let mut lines = BatchLines::default();
        assert!(lines.is_empty());
        for line in &given {
            assert_eq!(lines.push(line), Kept::Yes);
        }
        assert_eq!(lines.len(), 4);
        assert_eq!(lines.iter().collect::<Vec<_>>(), given);
    }

    #[test]
    fn a_sum_has_parts_only_when_there_are_several_models() {
        let (a, b) = (label("a"), label("b"));
        let charge = |pico| Some(Money::from_pico(Currency::USD, pico));
        let line = |model, n, charge| BatchLine { id: "i", model: Some(model), usage: usage(n), charge };
        let one = sum([line(&a, 1, charge(5)), line(&a, 2, None)].into_iter());
        assert_eq!((one.model, one.usage.input_total()), (Some(a.clone()), Some(3)));
        assert_eq!((one.by_model.len(), one.charge), (0, charge(5)));
        let two = sum([line(&a, 1, charge(5)), line(&b, 2, charge(6)), line(&a, 4, None)].into_iter());
        let parts: Vec<_> = two.by_model.iter().map(|part| part.usage.input_total()).collect();
        assert_eq!((parts, two.charge), (vec![Some(5), Some(2)], charge(11)));
        assert_eq!(sum(std::iter::empty()), LinesSum::default());
    }

    #[test]
    fn what_is_too_much_is_not_kept_and_leaves_nothing() {
        let mut lines = BatchLines::default();
        let long = "x".repeat(ID_BYTES_MAX + 1);
        let line = BatchLine { id: &long, model: None, usage: usage(1), charge: None };
        assert_eq!(lines.push(&line), Kept::Full);
        for n in 0..=MODELS_MAX {
            let model = label(&format!("m{n}"));
            let line = BatchLine { id: "i", model: Some(&model), usage: usage(1), charge: None };
            let kept = if n < MODELS_MAX { Kept::Yes } else { Kept::Full };
            assert_eq!(lines.push(&line), kept, "{n}");
        }
        assert_eq!(lines.len(), MODELS_MAX);
        let line = BatchLine { id: "i", model: None, usage: usage(1), charge: None };
        while lines.push(&line) == Kept::Yes {}
        assert_eq!(lines.len(), LINES_MAX);
    }
}
