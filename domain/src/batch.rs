//! Batches: work handed in at once, made later and fetched as often as anybody likes.
//!
//! Invariants
//! - Memory is bounded: at most [`LINES_MAX`] lines, [`PARTS_MAX`] parts of them and [`ID_BYTES_MAX`]
//!   bytes of ids, kept flat.
//! - A line keeps what was reported of it: whatever changes what it costs.
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
/// Most parts per model of all lines together.
pub const PARTS_MAX: usize = 1 << 18;
/// Begins an id that was the client's choice.
pub const LOCAL_ID: char = '#';
/// Most models among the lines, and most regions.
const LABELS_MAX: usize = 64;

/// The results of a batch, one line for each of its requests that used something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchLines {
    rows: Vec<Row>,
    ids: String,
    counts: Vec<(Item, u64)>,
    parts: Vec<Part>,
    models: Labels,
    regions: Labels,
}

/// Labels by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Labels(Vec<Label>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    ids_end: usize,
    /// Of the counts of the whole line; those of its parts follow.
    usage_end: usize,
    counts_end: usize,
    parts_end: usize,
    model: Option<u8>,
    region: Option<u8>,
    charge: Option<Money>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    counts_end: usize,
    model: Option<u8>,
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
    /// The price region or geography that the reply tells.
    pub region: Option<&'a Label>,
    /// What it used.
    pub usage: Usage,
    /// The parts per model, when more than one was involved; a part without a model is of `model`.
    pub by_model: Vec<ModelUsage>,
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
    /// It made a reply that counts at once, and that whoever reads it back gets again without a word of that:
    /// its `meter_id` counts with it.
    ReadBack,
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
    /// The region that every line tells; `None` when they differ.
    pub region: Option<Label>,
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
    for (n, line) in lines.enumerate() {
        sum.usage.add(&line.usage);
        sum.charge = match (sum.charge, line.charge) {
            (Some(sum), Some(charge)) => sum.checked_add(charge).ok(),
            (one, other) => one.or(other),
        };
        if n == 0 {
            sum.region = line.region.cloned();
        } else if sum.region.as_ref() != line.region {
            sum.region = None;
        }
        if line.by_model.is_empty() {
            sum.add_part(line.model, &line.usage);
        }
        for part in &line.by_model {
            sum.add_part(part.model.as_ref().or(line.model), &part.usage);
        }
    }
    sum.model = sum.by_model.first().and_then(|part| part.model.clone());
    if sum.by_model.len() < 2 {
        sum.by_model.clear();
    }
    sum
}

// === impl LinesSum ===

impl LinesSum {
    fn add_part(&mut self, model: Option<&Label>, usage: &Usage) {
        match self.by_model.iter_mut().find(|part| part.model.as_ref() == model) {
            Some(part) => part.usage.add(usage),
            None => self.by_model.push(ModelUsage { model: model.cloned(), usage: *usage }),
        }
    }
}

// === impl BatchLines ===

impl BatchLines {
    /// Adds a line, if there is room.
    pub fn push(&mut self, line: &BatchLine<'_>) -> Kept {
        let room = ID_BYTES_MAX.saturating_sub(self.ids.len());
        let parts_room = PARTS_MAX.saturating_sub(self.parts.len());
        if self.rows.len() >= LINES_MAX || line.id.len() > room || line.by_model.len() > parts_room {
            return Kept::Full;
        }
        let (Ok(model), Ok(region)) = (self.models.number(line.model), self.regions.number(line.region))
        else {
            return Kept::Full;
        };
        let numbers = line.by_model.iter().map(|part| self.models.number(part.model.as_ref()));
        let Ok(numbers) = numbers.collect::<Result<Vec<_>, _>>() else { return Kept::Full };
        self.ids.push_str(line.id);
        self.add_counts(&line.usage);
        let usage_end = self.counts.len();
        for (part, model) in line.by_model.iter().zip(numbers) {
            self.add_counts(&part.usage);
            self.parts.push(Part { counts_end: self.counts.len(), model });
        }
        self.rows.push(Row {
            ids_end: self.ids.len(),
            usage_end,
            counts_end: self.counts.len(),
            parts_end: self.parts.len(),
            model,
            region,
            charge: line.charge,
        });
        Kept::Yes
    }

    fn add_counts(&mut self, usage: &Usage) {
        let tokens = usage.tokens().map(|(class, count)| (Item::Tokens(class), count));
        let quantities = usage.quantities().map(|(quantity, n)| (Item::Quantity(quantity), n));
        self.counts.extend(tokens.chain(quantities));
    }

    fn usage(&self, from: usize, to: usize) -> Usage {
        let mut usage = Usage::unknown();
        for (item, count) in self.counts.get(from..to).unwrap_or_default() {
            match item {
                Item::Tokens(class) => usage.set(*class, *count),
                Item::Quantity(quantity) => usage.set_quantity(*quantity, *count),
            }
        }
        usage
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
        let mut before = Row::default();
        self.rows.iter().map(move |row| {
            let id = self.ids.get(before.ids_end..row.ids_end).unwrap_or_default();
            let usage = self.usage(before.counts_end, row.usage_end);
            let parts = self.parts.get(before.parts_end..row.parts_end).unwrap_or_default();
            before = *row;
            let mut from = row.usage_end;
            let part = |part: &Part| {
                let usage = self.usage(from, part.counts_end);
                from = part.counts_end;
                ModelUsage { model: self.models.get(part.model).cloned(), usage }
            };
            BatchLine {
                id,
                model: self.models.get(row.model),
                region: self.regions.get(row.region),
                usage,
                by_model: parts.iter().map(part).collect(),
                charge: row.charge,
            }
        })
    }
}

// === impl Labels ===

impl Labels {
    /// The number of a label, which is kept if it is new.
    fn number(&mut self, label: Option<&Label>) -> Result<Option<u8>, TooManyLabels> {
        let Some(label) = label else { return Ok(None) };
        let at = self.0.iter().position(|known| known == label).unwrap_or(self.0.len());
        if at == self.0.len() {
            if at >= LABELS_MAX {
                return Err(TooManyLabels);
            }
            self.0.push(label.clone());
        }
        u8::try_from(at).map(Some).map_err(|_| TooManyLabels)
    }

    fn get(&self, number: Option<u8>) -> Option<&Label> {
        self.0.get(usize::from(number?))
    }
}

struct TooManyLabels;

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

    /// A line of model `model`, alone with it.
    fn line<'a>(id: &'a str, model: Option<&'a Label>, usage: Usage, charge: Option<Money>) -> BatchLine<'a> {
        BatchLine { id, model, region: None, usage, by_model: Vec::new(), charge }
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        let (a, b) = (label("a"), label("b"));
        let charge = Some(Money::from_pico(Currency::USD, 7));
        let part = |model, n| ModelUsage { model, usage: usage(n) };
        let parts = vec![part(None, 4), part(Some(b.clone()), 0), part(Some(label("c")), 3)];
        let given = [
            line("one", Some(&a), usage(1), charge),
            line("", None, Usage::unknown(), None),
            BatchLine {
                region: Some(&b),
                by_model: parts.clone(),
                ..line("parts", Some(&a), usage(7), None)
            },
            line("two", Some(&b), usage(0), None),
            BatchLine { by_model: parts, ..line("three", Some(&a), usage(3), None) },
        ];
        let mut lines = BatchLines::default();
        assert!(lines.is_empty());
        for line in &given {
            assert_eq!(lines.push(line), Kept::Yes);
        }
        assert_eq!(lines.len(), 5);
        assert_eq!(lines.iter().collect::<Vec<_>>(), given);
    }

    #[test]
    fn a_sum_has_parts_only_when_there_are_several_models() {
        let (a, b) = (label("a"), label("b"));
        let charge = |pico| Some(Money::from_pico(Currency::USD, pico));
        let line = |model, n, charge| line("i", Some(model), usage(n), charge);
        let one = sum([line(&a, 1, charge(5)), line(&a, 2, None)].into_iter());
        assert_eq!((one.model, one.usage.input_total()), (Some(a.clone()), Some(3)));
        assert_eq!((one.by_model.len(), one.charge), (0, charge(5)));
        let two = sum([line(&a, 1, charge(5)), line(&b, 2, charge(6)), line(&a, 4, None)].into_iter());
        let parts: Vec<_> = two.by_model.iter().map(|part| part.usage.input_total()).collect();
        assert_eq!((parts, two.charge), (vec![Some(5), Some(2)], charge(11)));
        assert_eq!(sum(std::iter::empty()), LinesSum::default());
    }

    #[test]
    fn a_sum_takes_a_line_apart_and_has_a_region_only_when_all_lines_tell_the_same() {
        let (a, b, us) = (label("a"), label("b"), label("us"));
        let by_model = vec![
            ModelUsage { model: None, usage: usage(1) },
            ModelUsage { model: Some(b.clone()), usage: usage(2) },
        ];
        let here = |n| BatchLine { region: Some(&us), ..line("i", Some(&a), usage(n), None) };
        let whole = sum([here(4), BatchLine { by_model, ..here(3) }].into_iter());
        let parts: Vec<_> =
            whole.by_model.iter().map(|part| (part.model.clone(), part.usage.input_total())).collect();
        assert_eq!(parts, [(Some(a.clone()), Some(5)), (Some(b), Some(2))]);
        assert_eq!((whole.usage.input_total(), whole.region), (Some(7), Some(us.clone())));
        let nowhere = || line("i", Some(&a), usage(1), None);
        assert_eq!(sum([here(1), nowhere(), here(1)].into_iter()).region, None);
        assert_eq!(sum([nowhere(), here(1)].into_iter()).region, None);
    }

    #[test]
    fn what_is_too_much_is_not_kept_and_leaves_nothing() {
        let mut lines = BatchLines::default();
        let long = "x".repeat(ID_BYTES_MAX + 1);
        assert_eq!(lines.push(&line(&long, None, usage(1), None)), Kept::Full);
        for n in 0..=LABELS_MAX {
            let model = label(&format!("m{n}"));
            let kept = if n < LABELS_MAX { Kept::Yes } else { Kept::Full };
            assert_eq!(lines.push(&line("i", Some(&model), usage(1), None)), kept, "{n}");
        }
        assert_eq!(lines.len(), LABELS_MAX);
        let many = vec![ModelUsage { model: None, usage: usage(1) }; PARTS_MAX + 1];
        let parts = BatchLine { by_model: many, ..line("i", None, usage(1), None) };
        assert_eq!(lines.push(&parts), Kept::Full);
        while lines.push(&line("i", None, usage(1), None)) == Kept::Yes {}
        assert_eq!(lines.len(), LINES_MAX);
    }
}
