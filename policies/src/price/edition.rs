//! Which edition of the built-in book is compiled in.
//!
//! Invariants
//! - What is told is read from the text itself; there is no number that somebody has to raise.
//!
//! Not here: the prices (`book`), how the text is read for them (`builtin`).

use super::builtin;

/// The built-in book as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    /// Where its prices come from, most with their own version or day behind an `@`.
    pub sources: Vec<&'static str>,
    /// The latest day from which a price of it holds (ISO 8601); prices known in advance count.
    pub latest_from: Option<&'static str>,
    /// The book, from which whoever needs one makes a checksum.
    pub text: &'static str,
}

/// The edition that is compiled in.
#[must_use]
pub fn builtin_edition() -> Edition {
    edition(builtin::text())
}

fn edition(text: &'static str) -> Edition {
    let source = |line: &'static str| line.strip_prefix("source ")?.split_once(' ').map(|(_, name)| name);
    let is_row = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    // A row begins with its source, tier and region, and the day from which it holds.
    let from = |line: &'static str| line.split(' ').nth(1)?.split('@').nth(1)?.get(..10);
    Edition {
        sources: text.lines().filter_map(source).collect(),
        latest_from: text.lines().filter(is_row).filter_map(from).max(),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_day_is_that_of_a_row_and_not_of_a_source() {
        let text = "# about\nsource 0 one@2.3\nsource 1 two@2031-01-01\n@alpha\n=a a-2031-02-02\n\
                    0 standard@2026-05-01 input=1\n1 batch[eu]@2026-11-03#8-16 input=0.5\n0 standard input=2\n";
        let found = edition(text);
        assert_eq!(found.sources, ["one@2.3", "two@2031-01-01"]);
        assert_eq!(found.latest_from, Some("2026-11-03"));
        assert_eq!(edition("source 0 one\n=a\n0 standard input=2\n").latest_from, None);
    }

    #[test]
    fn the_compiled_in_book_names_its_sources_and_a_day() {
        let found = builtin_edition();
        assert!(
            found.sources.iter().any(|source| source.starts_with("genai-prices@")),
            "{:?}",
            found.sources
        );
        assert!(found.latest_from.is_some_and(|day| day > "2026-01-01"), "{:?}", found.latest_from);
    }
}
