//! The built-in book: public prices, compiled in as packed text and read model by model when asked for.
//!
//! Invariants
//! - `prices/builtin.prices` is written by `prices/generate.py` and never by hand.
//! - Nothing is read before somebody asks for the book; then only where each model's rows begin. The
//!   names in the index are parts of the text itself.
//! - A name belongs to one model of its provider.
//!
//! Not here: which source a price was taken from and why (`prices/generate.py`).

use super::BookError;
use super::row::{
    EVERY_TIER, Hours, Item, MILLION, Millionths, Origin, Price, PriceKind, PriceRow, Term, parse_instant,
};
use bursar_domain::{Currency, Rate, Timestamp};
use flate2::read::ZlibDecoder;
use std::io::Read as _;
use std::sync::{Arc, LazyLock, OnceLock};

/// The book, packed by `build.rs`.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/builtin.prices.z"));

/// The book's text, unpacked when it is first asked for.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = String::new();
        // What was packed while building can be unpacked.
        let _ = ZlibDecoder::new(PACKED).read_to_string(&mut text);
        text
    });
    &TEXT
}

/// What is wrong with a line of a price file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// None of the kinds of line, or one where it may not be.
    #[error("neither `source`, `@provider`, `=model` nor the prices of a model")]
    Shape,
    /// The item is no token class, quantity or `request`.
    #[error("unknown item {0:?}")]
    Item(String),
    /// A number, price or date cannot be read.
    #[error("cannot read {field} {value:?}")]
    Value {
        /// What it should be.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// Two models of one provider have one name.
    #[error("the name {0:?} is taken by another model of the provider")]
    Twin(String),
}

/// Where everything is in the text.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    providers: Vec<Provider>,
    models: Vec<Model>,
    sources: Vec<Arc<str>>,
}

/// A provider's names.
#[derive(Debug)]
struct Provider {
    name: &'static str,
    /// Sorted, each with its model's number.
    names: Vec<(&'static str, u32)>,
    /// Beginnings of names, longest first.
    beginnings: Vec<(&'static str, u32)>,
}

/// A model and the lines about it, the first without its `=`.
#[derive(Debug)]
struct Model {
    provider: u32,
    lines: &'static str,
    /// Number of the first line in the file, for errors.
    line: u32,
}

/// The index of the compiled-in text, made once.
pub(super) fn catalogue() -> Result<&'static Catalogue, BookError> {
    static CATALOGUE: OnceLock<Result<Catalogue, BookError>> = OnceLock::new();
    CATALOGUE.get_or_init(|| Catalogue::new(text())).as_ref().map_err(Clone::clone)
}

impl Catalogue {
    fn new(text: &'static str) -> Result<Self, BookError> {
        let mut made = Self::default();
        let mut rest = text;
        let mut number = 0_usize;
        while !rest.is_empty() {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            number = number.saturating_add(1);
            let mut lines = 1;
            let mut next = after;
            if let Some(model) = line.strip_prefix('=') {
                let block;
                (block, lines, next) = model_lines(rest, after);
                made.model(block, model, number)?;
            } else {
                made.head(line).map_err(|source| BookError::Line { line: number, source })?;
            }
            number = number.saturating_add(lines).saturating_sub(1);
            rest = next;
        }
        for provider in &mut made.providers {
            provider.names.sort_unstable();
            provider.names.shrink_to_fit();
            provider
                .beginnings
                .sort_by_key(|(beginning, _)| (std::cmp::Reverse(beginning.len()), *beginning));
            let twins = provider.names.iter().zip(provider.names.iter().skip(1)).find(|(a, b)| a.0 == b.0);
            if let Some(((name, _), _)) = twins {
                let source = LineError::Twin(format!("{}/{name}", provider.name));
                return Err(BookError::Line { line: 0, source });
            }
        }
        made.models.shrink_to_fit();
        Ok(made)
    }

    /// A line that is neither a model nor about one.
    fn head(&mut self, line: &'static str) -> Result<(), LineError> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(name) = line.strip_prefix('@') {
            self.providers.push(Provider { name, names: Vec::new(), beginnings: Vec::new() });
            return Ok(());
        }
        let source = line.strip_prefix("source ").and_then(|rest| rest.split_once(' '));
        let (number, name) = source.ok_or(LineError::Shape)?;
        if number.parse() != Ok(self.sources.len()) {
            return Err(bad("the source's number", number));
        }
        self.sources.push(Arc::from(name));
        Ok(())
    }

    fn model(&mut self, lines: &'static str, names: &'static str, number: usize) -> Result<(), BookError> {
        let at = |source| BookError::Line { line: number, source };
        let index = u32::try_from(self.models.len()).map_err(|_| BookError::TooLarge)?;
        let line = u32::try_from(number).map_err(|_| BookError::TooLarge)?;
        let place = self.providers.len().checked_sub(1).and_then(|at| u32::try_from(at).ok());
        let provider = self.providers.last_mut().zip(place);
        let (provider, place) = provider.ok_or_else(|| at(LineError::Shape))?;
        for name in names.split(' ') {
            match name.strip_suffix('*') {
                Some(beginning) => provider.beginnings.push((beginning, index)),
                None if name.is_empty() => return Err(at(LineError::Shape)),
                None => provider.names.push((name, index)),
            }
        }
        self.models.push(Model { provider: place, lines, line });
        Ok(())
    }

    fn provider(&self, name: &str) -> Option<&Provider> {
        let at = self.providers.binary_search_by(|provider| provider.name.cmp(name)).ok()?;
        self.providers.get(at)
    }

    /// Whether the book has anything of the provider.
    pub(super) fn has_provider(&self, name: &str) -> bool {
        self.provider(name).is_some()
    }

    /// How many models there are.
    pub(super) fn len(&self) -> usize {
        self.models.len()
    }

    /// The number of the model that is called `name`.
    pub(super) fn find(&self, provider: &str, name: &str) -> Option<usize> {
        let names = &self.provider(provider)?.names;
        let at = names.binary_search_by(|(other, _)| (*other).cmp(name)).ok()?;
        names.get(at).and_then(|(_, model)| usize::try_from(*model).ok())
    }

    /// The longest beginning of `name` that stands for a model, and the model's number.
    pub(super) fn beginning(&self, provider: &str, name: &str) -> Option<(&'static str, usize)> {
        let beginnings = &self.provider(provider)?.beginnings;
        let (beginning, model) = beginnings.iter().find(|(beginning, _)| name.starts_with(beginning))?;
        Some((beginning, usize::try_from(*model).ok()?))
    }

    /// The provider of a model and the names of the model, its own first.
    pub(super) fn names(&self, model: usize) -> Option<(&'static str, impl Iterator<Item = &'static str>)> {
        let model = self.models.get(model)?;
        let provider = self.providers.get(usize::try_from(model.provider).ok()?)?;
        Some((provider.name, model.lines.lines().next().unwrap_or("").split(' ')))
    }

    /// The rows of a model.
    pub(super) fn rows(&self, number: usize) -> Result<Vec<PriceRow>, BookError> {
        let (Some(model), Some((provider, mut names))) = (self.models.get(number), self.names(number)) else {
            return Ok(Vec::new());
        };
        let (provider, name) = (Arc::from(provider), Arc::from(names.next().unwrap_or("")));
        let first = usize::try_from(model.line).unwrap_or(0);
        let mut rows = Vec::new();
        for (number, line) in model.lines.lines().enumerate().skip(1) {
            let group =
                Group::read(line, &self.sources).and_then(|group| group.rows(&provider, &name, &mut rows));
            group.map_err(|source| BookError::Line { line: first.saturating_add(number), source })?;
        }
        Ok(rows)
    }
}

/// The lines about the model at the beginning of `text`, how many they are, and what follows.
fn model_lines(text: &'static str, after: &'static str) -> (&'static str, usize, &'static str) {
    let mut lines = 1_usize;
    let mut rest = after;
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        lines = lines.saturating_add(1);
    }
    let end = text.len().saturating_sub(rest.len());
    let block = text.get(1..end).unwrap_or("");
    (block, lines, rest)
}

/// What a line of prices says about all of them.
struct Group<'a> {
    source: Arc<str>,
    tier: &'a str,
    region: Option<Arc<str>>,
    from: Option<Timestamp>,
    hours: Option<Hours>,
    items: std::str::Split<'a, char>,
}

impl<'a> Group<'a> {
    /// `number tier[region]@from#hours item=price …`.
    fn read(line: &'a str, sources: &[Arc<str>]) -> Result<Self, LineError> {
        let mut words = line.split(' ');
        let (Some(number), Some(place)) = (words.next(), words.next()) else { return Err(LineError::Shape) };
        let source = number.parse::<usize>().ok().and_then(|number| sources.get(number));
        let source = Arc::clone(source.ok_or_else(|| bad("the source's number", number))?);
        let (place, hours) = match place.split_once('#') {
            None => (place, None),
            Some((place, text)) => (place, Some(Hours::parse(text).ok_or_else(|| bad("hours", text))?)),
        };
        let (place, from) = match place.split_once('@') {
            None => (place, None),
            Some((place, text)) => (place, Some(parse_instant(text).ok_or_else(|| bad("date", text))?)),
        };
        let (tier, region) = match place.split_once('[') {
            None => (place, None),
            Some((tier, region)) => {
                (tier, Some(Arc::from(region.strip_suffix(']').ok_or_else(|| bad("region", region))?)))
            }
        };
        Ok(Self { source, tier, region, from, hours, items: words })
    }

    fn rows(self, provider: &Arc<str>, model: &Arc<str>, rows: &mut Vec<PriceRow>) -> Result<(), LineError> {
        let tier: Arc<str> = Arc::from(self.tier);
        for item in self.items {
            let mut row = PriceRow {
                id: Arc::clone(model),
                provider: Arc::clone(provider),
                model: Arc::clone(model),
                region: self.region.clone(),
                tier: Arc::clone(&tier),
                term: term(item)?,
                kind: PriceKind::List,
                origin: Origin::Builtin,
                from: self.from,
                until: None,
                hours: self.hours,
                source: Arc::clone(&self.source),
            };
            if matches!(row.term, Term::Uplift(_)) != (&*row.tier == EVERY_TIER) {
                return Err(bad("tier", self.tier));
            }
            row.id = Arc::from(row.derived_id());
            rows.push(row);
        }
        Ok(())
    }
}

/// `item>above=price/per` or `uplift=factor`.
fn term(text: &str) -> Result<Term, LineError> {
    let (name, value) = text.split_once('=').ok_or(LineError::Shape)?;
    if name == "uplift" {
        return Millionths::parse(value).map(Term::Uplift).ok_or_else(|| bad("factor", value));
    }
    let (name, above) = match name.split_once('>') {
        None => (name, 0),
        Some((name, above)) => (name, above.parse().map_err(|_| bad("threshold", above))?),
    };
    let item = Item::from_name(name).ok_or_else(|| LineError::Item(name.to_owned()))?;
    let (value, per) = match value.split_once('/') {
        None => (value, 1),
        Some((value, per)) => (value, per.parse().map_err(|_| bad("unit", per))?),
    };
    let rate = match (item.is_token(), per) {
        (true, 1) => Rate::per_million(Currency::USD, value),
        (false, 1..) => Rate::per_unit(Currency::USD, value),
        _ => return Err(bad("unit", text)),
    };
    let rate = rate.map_err(|_| bad("price", value))?;
    Ok(Term::Price { item, above, price: Price { rate, per } })
}

fn bad(field: &'static str, value: &str) -> LineError {
    LineError::Value { field, value: value.to_owned() }
}

/// Prices of tokens are per this many; the file does not say so in each of them.
const _: () = assert!(MILLION == 1_000_000);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_is_unpacked_is_the_file() {
        assert_eq!(text(), include_str!("../../prices/builtin.prices"));
    }

    #[test]
    fn every_line_is_read_and_every_id_is_unique() {
        let catalogue = catalogue().unwrap();
        let prices = text().lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        let expected: usize = prices.map(|line| line.split(' ').skip(2).count()).sum();
        let mut ids = HashSet::new();
        let mut rows = 0;
        for number in 0..catalogue.len() {
            for row in catalogue.rows(number).unwrap() {
                rows += 1;
                assert!(!row.source.is_empty());
                assert!(ids.insert(row.id.clone()), "{} twice", row.id);
            }
        }
        assert_eq!(rows, expected);
        assert!(rows > 10_000, "{rows}");
    }

    #[test]
    fn every_name_leads_to_its_model() {
        let catalogue = catalogue().unwrap();
        for number in 0..catalogue.len() {
            let (provider, names) = catalogue.names(number).unwrap();
            for name in names {
                let found = match name.strip_suffix('*') {
                    None => catalogue.find(provider, name),
                    Some(beginning) => {
                        catalogue.beginning(provider, &format!("{beginning}x")).map(|(_, n)| n)
                    }
                };
                assert_eq!(found, Some(number), "{provider}/{name}");
            }
        }
        assert_eq!(catalogue.find("openai", "gpt-4oo"), None);
        assert_eq!(catalogue.find("nobody", "gpt-4o"), None);
    }

    #[test]
    fn lines_that_cannot_be_read_are_named() {
        let check = |line: &str, message: &str| {
            let text = format!("source 0 s\n@p\n=m n\n0 standard input=1\n{line}\n");
            let made = Catalogue::new(text.leak()).and_then(|made| made.rows(0));
            assert_eq!(made.unwrap_err().to_string(), message, "{line}");
        };
        check("0 standard inputs=1", "line 5: unknown item \"inputs\"");
        check("0 standard input>x=1", "line 5: cannot read threshold \"x\"");
        check("0 standard input=1e-7", "line 5: cannot read price \"1e-7\"");
        check("0 standard input=1/1000", "line 5: cannot read unit \"input=1/1000\"");
        check("0 standard request=1/0", "line 5: cannot read unit \"request=1/0\"");
        check("0 standard@soon input=1", "line 5: cannot read date \"soon\"");
        check("0 standard#noon input=1", "line 5: cannot read hours \"noon\"");
        check("0 standard[eu input=1", "line 5: cannot read region \"eu\"");
        check("9 standard input=1", "line 5: cannot read the source's number \"9\"");
        check("0 standard uplift=1.1", "line 5: cannot read tier \"standard\"");
        check("nonsense", "line 5: neither `source`, `@provider`, `=model` nor the prices of a model");
        check(
            "=o n\n0 standard input=1",
            "line 0: the name \"p/n\" is taken by another model of the provider",
        );
        assert!(Catalogue::new("=m\n").is_err(), "a model without a provider");
    }
}
