//! Workbooks (XLSX) as tests read them back: the files of the archive, and the cells of its sheets.
//!
//! Not here: what the cells must say (the tests).
#![allow(dead_code, reason = "not every test that shares this file reads cells")]

use std::collections::BTreeMap;

/// The files of a ZIP archive, by its directory at the end.
pub(crate) fn unzip(bytes: &[u8]) -> Vec<(String, String)> {
    use std::io::Read;
    let number = |at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let end = bytes.windows(4).rposition(|four| four == b"PK\x05\x06").unwrap();
    let mut at = number(end + 16, 4);
    let mut files = Vec::new();
    for _ in 0..number(end + 10, 2) {
        let (size, name, extra, comment) =
            (number(at + 20, 4), number(at + 28, 2), number(at + 30, 2), number(at + 32, 2));
        let local = number(at + 42, 4);
        let start = local + 30 + number(local + 26, 2) + number(local + 28, 2);
        let packed = &bytes[start..start + size];
        let mut text = String::new();
        match number(at + 10, 2) {
            0 => text.push_str(&String::from_utf8_lossy(packed)),
            _ => drop(flate2::read::DeflateDecoder::new(packed).read_to_string(&mut text).unwrap()),
        }
        files.push((String::from_utf8_lossy(&bytes[at + 46..at + 46 + name]).into_owned(), text));
        at += 46 + name + extra + comment;
    }
    files
}

/// Text as it was before it was escaped for XML.
fn plain(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&amp;", "&")
}

/// What stands between `open` and `close`, each time.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    text.split(open).skip(1).map(|rest| rest.split(close).next().unwrap()).collect()
}

/// The value of an attribute in a tag.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    Some(plain(rest.split('"').next().unwrap()))
}

/// A sheet: its cells by row and column, words with their quotes taken off and numbers as they are written.
#[derive(Debug)]
pub(crate) struct Sheet {
    rows: BTreeMap<u32, BTreeMap<String, Cell>>,
    /// Whether rows stay in place above the others.
    pub(crate) frozen: bool,
    pub(crate) charts: bool,
}

/// A cell, and which format it has (an index into the workbook's formats).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Words(String),
    Number(String, u32),
}

impl Sheet {
    /// The words of a row by column letters, numbers included.
    pub(crate) fn row(&self, row: u32) -> Vec<String> {
        let text = |cell: &Cell| match cell {
            Cell::Words(text) | Cell::Number(text, _) => text.clone(),
        };
        self.rows.get(&row).map(|cells| cells.values().map(text).collect()).unwrap_or_default()
    }

    /// How many rows have something.
    pub(crate) fn len(&self) -> u32 {
        self.rows.keys().last().copied().unwrap_or(0)
    }

    /// Every text of the sheet.
    pub(crate) fn words(&self) -> Vec<&str> {
        let cells = self.rows.values().flat_map(BTreeMap::values);
        cells
            .filter_map(|cell| if let Cell::Words(text) = cell { Some(text.as_str()) } else { None })
            .collect()
    }

    /// The cell of a row under a title of the first row.
    pub(crate) fn cell(&self, row: u32, title: &str) -> Option<&Cell> {
        let heads = self.rows.get(&1)?;
        let column = heads.iter().find(|(_, cell)| **cell == Cell::Words(title.to_owned()))?.0;
        self.rows.get(&row)?.get(column)
    }

    /// The number of a row under a title, if there is one.
    pub(crate) fn number(&self, row: u32, title: &str) -> Option<f64> {
        match self.cell(row, title)? {
            Cell::Number(text, _) => Some(text.parse().unwrap()),
            Cell::Words(text) => panic!("{title} of row {row} is the text {text:?}"),
        }
    }
}

/// The sheets of a workbook by their names, in order.
pub(crate) fn sheets(bytes: &[u8]) -> Vec<(String, Sheet)> {
    let files: BTreeMap<String, String> = unzip(bytes).into_iter().collect();
    let shared: Vec<String> = between(&files["xl/sharedStrings.xml"], "<si>", "</si>")
        .into_iter()
        .map(|text| between(text, "<t", "</t>").iter().map(|t| plain(t.split_once('>').unwrap().1)).collect())
        .collect();
    let names = between(&files["xl/workbook.xml"], "<sheet ", "/>");
    let names = names.iter().map(|tag| attribute(tag, "name").unwrap());
    let sheet = |xml: &str| {
        let mut rows: BTreeMap<u32, BTreeMap<String, Cell>> = BTreeMap::new();
        for tag in between(xml, "<c ", "</c>") {
            let place = attribute(tag, "r").unwrap();
            let letters: String = place.chars().filter(char::is_ascii_alphabetic).collect();
            let row = place[letters.len()..].parse().unwrap();
            let value = between(tag, "<v>", "</v>")[0];
            let cell = match attribute(tag.split('>').next().unwrap(), "t").as_deref() {
                Some("s") => Cell::Words(shared[value.parse::<usize>().unwrap()].clone()),
                None => {
                    let format = attribute(tag, " s").map_or(0, |format| format.parse().unwrap());
                    Cell::Number(value.to_owned(), format)
                }
                other => panic!("a cell of type {other:?}: {tag}"),
            };
            // Columns in order: A … Z, AA …
            rows.entry(row).or_default().insert(format!("{letters:>3}"), cell);
        }
        Sheet { rows, frozen: xml.contains("state=\"frozen\""), charts: xml.contains("<drawing ") }
    };
    (1..)
        .zip(names)
        .map(|(number, name)| {
            let xml = &files[&format!("xl/worksheets/sheet{number}.xml")];
            (name, sheet(xml))
        })
        .collect()
}
