//! The built-in book: public prices of OpenAI and Anthropic, compiled in as text.
//!
//! Invariants
//! - `prices/builtin.csv` is written by `prices/generate.py` and never by hand.
//! - Nothing is parsed before somebody asks for the book.
//!
//! Not here: which source a price was taken from and why (`prices/generate.py`).

use super::row::{
    EVERY_TIER, Item, MILLION, Millionths, Origin, Price, PriceKind, PriceRow, Term, parse_instant,
};
use super::{BookError, Names};
use bursar_domain::{Currency, Rate};
use std::collections::HashSet;
use std::sync::Arc;

const TEXT: &str = include_str!("../../prices/builtin.csv");

/// What is wrong with a line of a price file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not one of `model`, `uplift`, `price`, or not the number of fields that kind has.
    #[error("neither `model` with 4 fields, nor `uplift` or `price` with 13")]
    Shape,
    /// The item is no token class, quantity or `request`.
    #[error("unknown item {0:?}")]
    Item(String),
    /// A number, price, currency or date cannot be read.
    #[error("cannot read {field} {value:?}")]
    Value {
        /// Which column.
        field: &'static str,
        /// What it says.
        value: String,
    },
}

/// The rows and names of the built-in book.
pub(super) fn read() -> Result<(Vec<PriceRow>, Names), BookError> {
    read_text(TEXT)
}

fn read_text(text: &str) -> Result<(Vec<PriceRow>, Names), BookError> {
    let mut reader = Reader::default();
    for (number, line) in (1_usize..).zip(text.lines()) {
        if !line.is_empty() && !line.starts_with('#') {
            reader.line(line).map_err(|source| BookError::Line { line: number, source })?;
        }
    }
    Ok((reader.rows, reader.names))
}

#[derive(Default)]
struct Reader {
    rows: Vec<PriceRow>,
    names: Names,
    texts: HashSet<Arc<str>>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), LineError> {
        let mut fields = line.split(',');
        let kind = fields.next().unwrap_or("");
        let fields: Vec<&str> = fields.collect();
        match (kind, &*fields) {
            ("model", [provider, model, names]) => {
                for name in names.split(' ').filter(|name| !name.is_empty()) {
                    let key = (self.share(provider), Arc::from(name));
                    let model = self.share(model);
                    self.names.insert(key, model);
                }
                Ok(())
            }
            (
                "uplift" | "price",
                [id, provider, model, region, tier, item, above, value, per, currency, from, source],
            ) => {
                let term =
                    if kind == "uplift" { uplift(value)? } else { price(item, above, value, per, currency)? };
                let tier = if kind == "uplift" { EVERY_TIER } else { tier };
                let row = PriceRow {
                    id: Arc::from(*id),
                    provider: self.share(provider),
                    model: self.share(model),
                    region: (!region.is_empty()).then(|| self.share(region)),
                    tier: self.share(tier),
                    term,
                    kind: PriceKind::List,
                    origin: Origin::Builtin,
                    from: instant(from)?,
                    until: None,
                    source: self.share(source),
                };
                self.rows.push(row);
                Ok(())
            }
            _ => Err(LineError::Shape),
        }
    }

    /// One shared copy of each text.
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.texts.get(text) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = Arc::from(text);
        self.texts.insert(Arc::clone(&shared));
        shared
    }
}

fn bad(field: &'static str, value: &str) -> LineError {
    LineError::Value { field, value: value.to_owned() }
}

fn uplift(value: &str) -> Result<Term, LineError> {
    Millionths::parse(value).map(Term::Uplift).ok_or_else(|| bad("factor", value))
}

fn price(item: &str, above: &str, value: &str, per: &str, currency: &str) -> Result<Term, LineError> {
    let item = Item::from_name(item).ok_or_else(|| LineError::Item(item.to_owned()))?;
    let currency = Currency::parse(currency).map_err(|_| bad("currency", currency))?;
    let above = if above.is_empty() { 0 } else { above.parse().map_err(|_| bad("threshold", above))? };
    let per: u32 = per.parse().map_err(|_| bad("unit", per))?;
    let price = match (item.is_token(), per) {
        (true, MILLION) => Rate::per_million(currency, value).map(|rate| Price { rate, per: 1 }),
        (false, 1..) => Rate::per_unit(currency, value).map(|rate| Price { rate, per }),
        _ => return Err(bad("unit", &per.to_string())),
    };
    let price = price.map_err(|_| bad("price", value))?;
    Ok(Term::Price { item, above, price })
}

fn instant(text: &str) -> Result<Option<bursar_domain::Timestamp>, LineError> {
    if text.is_empty() {
        return Ok(None);
    }
    parse_instant(text).map(Some).ok_or_else(|| bad("date", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_every_id_is_unique_and_follows_from_the_row() {
        let (rows, names) = read().unwrap();
        let lines = TEXT.lines().filter(|line| line.starts_with("price,") || line.starts_with("uplift,"));
        assert_eq!(rows.len(), lines.count());
        let ids: HashSet<&str> = rows.iter().map(|row| &*row.id).collect();
        assert_eq!(ids.len(), rows.len());
        for row in &rows {
            assert_eq!(*row.id, *row.derived_id());
            assert!(!row.source.is_empty());
        }
        assert!(names.len() > 100);
    }

    #[test]
    fn lines_that_cannot_be_read_are_named() {
        let price = |item: &str, above: &str, value: &str, per: &str, currency: &str, from: &str| {
            let line =
                format!("# head\nprice,id,p,m,,standard,{item},{above},{value},{per},{currency},{from},s");
            match read_text(&line) {
                Err(BookError::Line { line, source }) => format!("{line}: {source}"),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(price("inputs", "", "1", "1000000", "USD", ""), "2: unknown item \"inputs\"");
        assert_eq!(price("input", "x", "1", "1000000", "USD", ""), "2: cannot read threshold \"x\"");
        assert_eq!(price("input", "", "1e-7", "1000000", "USD", ""), "2: cannot read price \"1e-7\"");
        assert_eq!(price("input", "", "1", "1000", "USD", ""), "2: cannot read unit \"1000\"");
        assert_eq!(price("request", "", "1", "0", "USD", ""), "2: cannot read unit \"0\"");
        assert_eq!(price("input", "", "1", "1000000", "usd", ""), "2: cannot read currency \"usd\"");
        assert_eq!(price("input", "", "1", "1000000", "USD", "soon"), "2: cannot read date \"soon\"");
        assert!(matches!(read_text("price,id"), Err(BookError::Line { source: LineError::Shape, .. })));
    }
}
