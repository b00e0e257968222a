//! Rows of a file that is too large to hold: JSON Lines, a JSON array (also inside an object, as APIs answer),
//! objects one after another, or CSV; each with the line on which it begins.
//!
//! Invariants
//! - Memory is bounded by one row, and a row by `ROW_BYTES_MAX`.
//! - A row that cannot be read is an error with its line; those after it are read all the same, as far as
//!   it can be told where they begin.
//!
//! Not here: what fields mean (`own` and the other systems' modules).

use super::fields::Row;
use crate::hedge::rows::{cell_value, set};
use serde_json::Value;
use std::io::{self, BufRead, Chain, Read};

/// Longest row.
pub(crate) const ROW_BYTES_MAX: usize = 16 << 20;
/// Longest key of an object around the rows.
const KEY_BYTES_MAX: usize = 64;
/// What lists of rows are called in the objects around them.
const LISTS: [&str; 8] = ["data", "items", "rows", "results", "events", "observations", "logs", "spend_logs"];

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FileRow {
    /// The line it begins on.
    pub(crate) line: u64,
    /// Its fields, or why it cannot be read.
    pub(crate) fields: Result<Row, String>,
    /// The row as the file has it, where that is JSON.
    pub(crate) written: Option<String>,
}

/// How cells of CSV are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cells {
    /// As Bursar writes them: numbers, lists and JSON by the names of the fields, points descend.
    Own,
    /// As text.
    Text,
}

/// The rows of `reader`: JSON when it begins with a brace or bracket, else CSV.
pub(crate) fn rows<'a>(
    mut reader: Box<dyn BufRead + 'a>,
    cells: Cells,
) -> io::Result<Box<dyn Iterator<Item = io::Result<FileRow>> + 'a>> {
    if reader.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
        reader.consume(3);
    }
    let mut json = JsonRows::new(reader);
    match json.skip_space()? {
        None => Ok(Box::new(std::iter::empty())),
        Some(b'{' | b'[') => Ok(Box::new(json)),
        Some(_) => Ok(Box::new(CsvRows::new(json.reader, json.line, cells)?)),
    }
}

// === JSON ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Nothing was read yet.
    Unknown,
    /// One object on each line.
    Lines,
    /// Objects one after another.
    Stream,
    /// Inside a list.
    List,
    /// Inside a list that is inside an object.
    Inner,
    /// There is nothing more.
    Over,
}

struct JsonRows<R> {
    reader: R,
    line: u64,
    form: Form,
}

/// What stands at a place.
enum Piece {
    /// A whole value.
    Value(Vec<u8>),
    /// The beginning of a list of rows: it was read up to and with its bracket.
    List,
    /// The file ends, or the value is too long.
    Broken(&'static str),
}

impl<R: BufRead> JsonRows<R> {
    fn new(reader: R) -> Self {
        Self { reader, line: 1, form: Form::Unknown }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.reader.fill_buf()?.first().copied())
    }

    fn pass(&mut self) {
        if self.reader.fill_buf().ok().and_then(|bytes| bytes.first()) == Some(&b'\n') {
            self.line = self.line.saturating_add(1);
        }
        self.reader.consume(1);
    }

    /// The next byte that is no space, which stays.
    fn skip_space(&mut self) -> io::Result<Option<u8>> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.pass();
        }
        Ok(None)
    }

    /// The value that begins here. With `find_list`, a list under a known name in the outermost object ends
    /// the reading.
    fn value(&mut self, find_list: bool) -> io::Result<Piece> {
        let mut text = Vec::new();
        let mut key: Vec<u8> = Vec::new();
        let (mut depth, mut in_text, mut escaped, mut is_key) = (0_u32, false, false, true);
        while let Some(byte) = self.peek()? {
            if depth == 0 && !text.is_empty() && matches!(byte, b',' | b']' | b'\n') {
                return Ok(Piece::Value(text));
            }
            self.pass();
            text.push(byte);
            if text.len() > ROW_BYTES_MAX {
                return Ok(Piece::Broken("the row is longer than 16 MiB"));
            }
            if in_text {
                if depth == 1 && is_key && key.len() < KEY_BYTES_MAX && (escaped || byte != b'"') {
                    key.push(byte);
                }
                in_text = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
                continue;
            }
            match byte {
                b'"' => {
                    in_text = true;
                    if depth == 1 && is_key {
                        key.clear();
                    }
                }
                b':' if depth == 1 => is_key = false,
                b',' if depth == 1 => is_key = true,
                b'[' if find_list
                    && depth == 1
                    && !is_key
                    && LISTS.iter().any(|name| name.as_bytes() == key) =>
                {
                    return Ok(Piece::List);
                }
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Ok(Piece::Value(text));
                    }
                }
                _ => {}
            }
        }
        if depth == 0 && !text.is_empty() {
            Ok(Piece::Value(text))
        } else {
            Ok(Piece::Broken("the file ends within a row"))
        }
    }

    /// Passes the rest of an object that was entered; `false` when it has no end.
    fn skip_object(&mut self) -> io::Result<bool> {
        let (mut depth, mut in_text, mut escaped) = (1_u32, false, false);
        while let Some(byte) = self.peek()? {
            self.pass();
            match byte {
                _ if in_text => {
                    in_text = escaped || byte != b'"';
                    escaped = !escaped && byte == b'\\';
                }
                b'"' => in_text = true,
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn row(line: u64, text: Vec<u8>) -> FileRow {
        let bad = |problem: String| FileRow { line, fields: Err(problem), written: None };
        let Ok(text) = String::from_utf8(text) else { return bad("this is no UTF-8 text".to_owned()) };
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(fields)) => FileRow { line, fields: Ok(fields), written: Some(text) },
            Ok(_) => bad("a row is one JSON object".to_owned()),
            Err(error) => bad(format!("this is no JSON: {error}")),
        }
    }

    fn broken(&mut self, line: u64, why: &str) -> FileRow {
        self.form = Form::Over;
        FileRow { line, fields: Err(why.to_owned()), written: None }
    }

    /// The first row tells what form the file has; a list is entered without one.
    fn begin(&mut self) -> io::Result<Option<FileRow>> {
        match self.skip_space()? {
            None => {
                self.form = Form::Over;
                return Ok(None);
            }
            Some(b'[') => {
                self.pass();
                self.form = Form::List;
                return Ok(None);
            }
            Some(_) => {}
        }
        let line = self.line;
        match self.value(true)? {
            Piece::List => {
                self.form = Form::Inner;
                Ok(None)
            }
            Piece::Broken(why) => Ok(Some(self.broken(line, why))),
            Piece::Value(text) => {
                let on_one_line = self.line == line;
                while self.peek()?.is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
                    self.pass();
                }
                let ends_line = matches!(self.peek()?, None | Some(b'\n'));
                self.form = if on_one_line && ends_line { Form::Lines } else { Form::Stream };
                Ok(Some(Self::row(line, text)))
            }
        }
    }

    fn of_lines(&mut self) -> io::Result<Option<FileRow>> {
        if self.skip_space()?.is_none() {
            self.form = Form::Over;
            return Ok(None);
        }
        let line = self.line;
        let mut text = Vec::new();
        let most = u64::try_from(ROW_BYTES_MAX).unwrap_or(u64::MAX);
        (&mut self.reader).take(most).read_until(b'\n', &mut text)?;
        if text.last() == Some(&b'\n') {
            self.line = self.line.saturating_add(1);
        } else if text.len() >= ROW_BYTES_MAX {
            return Ok(Some(self.broken(line, "the row is longer than 16 MiB")));
        }
        Ok(Some(Self::row(line, text)))
    }

    fn of_stream(&mut self) -> io::Result<Option<FileRow>> {
        if self.skip_space()?.is_none() {
            self.form = Form::Over;
            return Ok(None);
        }
        self.next_value()
    }

    fn next_value(&mut self) -> io::Result<Option<FileRow>> {
        let line = self.line;
        match self.value(false)? {
            Piece::Value(text) => Ok(Some(Self::row(line, text))),
            Piece::List => Ok(Some(self.broken(line, "a list stands where a row belongs"))),
            Piece::Broken(why) => Ok(Some(self.broken(line, why))),
        }
    }

    fn of_list(&mut self) -> io::Result<Option<FileRow>> {
        loop {
            let line = self.line;
            match self.skip_space()? {
                Some(b',') => self.pass(),
                Some(b']') => {
                    self.pass();
                    if self.form == Form::Inner && !self.skip_object()? {
                        return Ok(Some(
                            self.broken(line, "the object around the list has no end: the file was cut"),
                        ));
                    }
                    // Pages may stand one after another.
                    self.form = Form::Unknown;
                    return Ok(None);
                }
                None => return Ok(Some(self.broken(line, "the list has no end: the file was cut"))),
                Some(_) => break,
            }
        }
        self.next_value()
    }
}

impl<R: BufRead> Iterator for JsonRows<R> {
    type Item = io::Result<FileRow>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next = match self.form {
                Form::Unknown => self.begin(),
                Form::Lines => self.of_lines(),
                Form::Stream => self.of_stream(),
                Form::List | Form::Inner => self.of_list(),
                Form::Over => return None,
            };
            match next {
                Ok(Some(row)) => return Some(Ok(row)),
                // A list begins or ends here, or the file ends.
                Ok(None) => {}
                Err(error) => {
                    self.form = Form::Over;
                    return Some(Err(error));
                }
            }
        }
    }
}

// === CSV ===

/// A line end at the end, so that the last row ends like the others.
type Ended<R> = Chain<R, &'static [u8]>;

struct CsvRows<R> {
    reader: csv::Reader<Ended<R>>,
    header: csv::StringRecord,
    record: csv::StringRecord,
    /// Lines before the header.
    before: u64,
    cells: Cells,
    is_over: bool,
}

impl<R: Read> CsvRows<R> {
    fn new(reader: R, first_line: u64, cells: Cells) -> io::Result<Self> {
        let reader = reader.chain(&b"\n"[..]);
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(reader);
        let header = reader.headers().map_err(io::Error::other)?.clone();
        let (record, before) = (csv::StringRecord::new(), first_line.saturating_sub(1));
        Ok(Self { reader, header, record, before, cells, is_over: false })
    }

    /// The line on which the record that was read last begins: the reader's own place may be that of a
    /// comment or blank line before it.
    fn line(&self) -> u64 {
        let within = self.record.iter().flat_map(str::bytes).filter(|byte| *byte == b'\n').count() as u64;
        let after = self.reader.position().line();
        after.saturating_sub(within).saturating_sub(1).saturating_add(self.before)
    }

    fn fields(&self) -> Result<Row, String> {
        let mut fields = Row::new();
        for (name, cell) in self.header.iter().zip(&self.record) {
            let (name, cell) = (name.trim(), cell.trim());
            if cell.is_empty() {
                continue;
            }
            match self.cells {
                Cells::Own => set(&mut fields, name, cell_value(name, unescaped(cell))?)?,
                Cells::Text => {
                    fields.insert(name.to_owned(), Value::from(cell));
                }
            }
        }
        Ok(fields)
    }
}

/// A cell without the apostrophe that keeps a spreadsheet from taking it for a formula.
fn unescaped(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(text) if bursar_ledger::export::cell_text(Some(text)) != text => text,
        _ => cell,
    }
}

impl<R: Read> Iterator for CsvRows<R> {
    type Item = io::Result<FileRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let mut record = std::mem::take(&mut self.record);
        let read = self.reader.read_record(&mut record);
        self.record = record;
        match read {
            Ok(true) => Some(Ok(FileRow { line: self.line(), fields: self.fields(), written: None })),
            Ok(false) => {
                self.is_over = true;
                None
            }
            Err(error) if error.is_io_error() => {
                self.is_over = true;
                Some(Err(io::Error::other(error)))
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line).saturating_add(self.before);
                Some(Ok(FileRow { line, fields: Err(error.to_string()), written: None }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str, cells: Cells) -> Vec<FileRow> {
        rows(Box::new(io::BufReader::with_capacity(3, text.as_bytes())), cells)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    fn told(text: &str) -> Vec<(u64, Value)> {
        let fields = |row: FileRow| (row.line, row.fields.map_or_else(Value::from, Value::Object));
        read(text, Cells::Text).into_iter().map(fields).collect()
    }

    #[test]
    fn every_form_names_the_line_of_each_row() {
        let expected = vec![(2, json!({"a": "1"})), (4, json!({"a": "2"}))];
        for text in [
            "\n{\"a\":\"1\"}\n\n{\"a\":\"2\"}\n",
            "\n{\"a\":\"1\"}\n\n{\"a\":\"2\"}",
            "[\n{\"a\":\"1\"},\n\n{\"a\":\"2\"}]",
            "{\"x\":[1],\"data\":[\n{\"a\":\"1\"},\n\n{\"a\":\"2\"}],\"meta\":{}}",
            "\n{\n\"a\":\"1\"}\n{\"a\":\n\"2\"}",
            "a\n1\n\n2\n",
            "a\n1\n#x\n2",
            "\u{feff}a\n1\n#x\n2\n",
        ] {
            assert_eq!(told(text), expected, "{text:?}");
        }
        assert_eq!(told(" \n"), []);
        assert_eq!(
            told("{\"data\":[{\"a\":1}],\"meta\":{\"x\":\"]}\"}}\n{\"data\":[{\"a\":2}]}\n[{\"a\":3}]").len(),
            3
        );
        assert_eq!(told("a,b\n1,\"x\ny\"\n2,z\n").iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn a_bad_row_does_not_hide_those_after_it() {
        let is_good =
            |text: &str| read(text, Cells::Text).iter().map(|row| row.fields.is_ok()).collect::<Vec<_>>();
        assert_eq!(is_good("{\"a\":1}\n{oops\n[1]\n{\"a\":2}\n"), [true, false, false, true]);
        assert_eq!(is_good("[{\"a\":1},{\"a\"},7,{\"a\":\"}]\"}]"), [true, false, false, true]);
        assert_eq!(is_good("a,b\n1,2\n1\n3,4\n"), [true, false, true]);
        let cut = read("[{\"a\":1},{\"a\":", Cells::Text);
        assert_eq!(cut.last().unwrap().fields, Err("the file ends within a row".to_owned()));
        let cut = read("[{\"a\":1},", Cells::Text);
        assert_eq!(cut.last().unwrap().fields, Err("the list has no end: the file was cut".to_owned()));
    }

    #[test]
    fn an_object_with_a_list_of_another_name_is_a_row() {
        assert_eq!(
            told("{\"tags\":[1],\"data\":{\"b\":[2]}}"),
            [(1, json!({"tags": [1], "data": {"b": [2]}}))]
        );
    }

    #[test]
    fn own_cells_lose_the_apostrophe_that_kept_them_from_being_formulas() {
        let row =
            read("team,usage.input_tokens,tags\n'=cmd(),5,\"{\"\"a\"\":\"\"b\"\"}\"\n'tis,5,\n", Cells::Own);
        let fields = row[0].fields.clone().unwrap();
        assert_eq!(
            Value::Object(fields),
            json!({"team": "=cmd()", "usage": {"input_tokens": "5"}, "tags": {"a": "b"}})
        );
        assert_eq!(row[1].fields.clone().unwrap()["team"], "'tis");
    }
}
