//! Rows of an imported file: JSON Lines, a JSON array, or CSV, each row with the line it begins on.
//!
//! Invariants
//! - A row that cannot be read is an error with its line; the rows after it are read all the same.
//! - A CSV header names fields as JSON does; a point descends (`designation.teams`), an empty cell is
//!   absent, several values of a list stand between semicolons.
//!
//! Not here: what the fields mean (`import`).

use super::exact_json;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Fields that count, where CSV only has text.
const NUMBERS: [&str; 8] = [
    "version",
    "supersedes",
    "index_version",
    "rounding_places",
    "designation.rank",
    "http_status",
    "bytes_in",
    "bytes_out",
];
/// Fields that are lists.
const LISTS: [&str; 7] = [
    "holidays",
    "designation.teams",
    "designation.models",
    "designation.providers",
    "designation.regions",
    "designation.token_classes",
    "limits.accountability",
];

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FileRow {
    /// The line it begins on.
    pub(crate) line: u64,
    /// Its fields, or why it cannot be read.
    pub(crate) fields: Result<Map<String, Value>, String>,
}

/// Reads the rows of a file: JSON when it begins with a brace or bracket, else CSV.
pub(crate) fn read(text: &str) -> Vec<FileRow> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        None => Vec::new(),
        Some('[') => array(text),
        Some('{') => objects(text),
        Some(_) => csv_rows(text),
    }
}

/// Tells the lines of a text's parts, which come in order: each byte is counted once.
struct LineCount<'a> {
    text: &'a str,
    at: usize,
    line: u64,
}

impl<'a> LineCount<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// The line on which the part `raw` begins; a part may have space before it.
    fn line(&mut self, raw: &str) -> u64 {
        let offset = raw.trim_start().as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        let passed = self.text.as_bytes().get(self.at..offset).unwrap_or_default();
        self.line = self.line.saturating_add(passed.iter().filter(|byte| **byte == b'\n').count() as u64);
        self.at = self.at.max(offset);
        self.line
    }
}

fn object(line: u64, text: &str) -> FileRow {
    let fields = match exact_json::read(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("a row is one JSON object".to_owned()),
        Err(error) => Err(format!("this is no JSON: {error}")),
    };
    FileRow { line, fields }
}

fn array(text: &str) -> Vec<FileRow> {
    let mut count = LineCount::of(text);
    match serde_json::from_str::<Vec<&RawValue>>(text) {
        Ok(rows) => rows.into_iter().map(|raw| object(count.line(raw.get()), raw.get())).collect(),
        Err(error) => {
            let line = error.line() as u64;
            vec![FileRow { line, fields: Err(format!("the array is no JSON: {error}")) }]
        }
    }
}

/// One object per line; or objects over several lines, when the first line is not whole.
fn objects(text: &str) -> Vec<FileRow> {
    let lines = || (1_u64..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let first_is_whole =
        lines().next().is_some_and(|(_, line)| serde_json::from_str::<&RawValue>(line).is_ok());
    if first_is_whole {
        return lines().map(|(number, line)| object(number, line)).collect();
    }
    let (mut rows, mut count) = (Vec::new(), LineCount::of(text));
    let stream = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    for next in stream {
        match next {
            Ok(raw) => {
                rows.push(object(count.line(raw.get()), raw.get()));
            }
            Err(error) => {
                let fields = Err(format!("this is no JSON: {error}"));
                rows.push(FileRow { line: error.line() as u64, fields });
                break;
            }
        }
    }
    rows
}

fn csv_rows(text: &str) -> Vec<FileRow> {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return vec![FileRow { line: 1, fields: Err(error.to_string()) }],
    };
    let mut names = std::collections::BTreeSet::new();
    if let Some(twice) = header.iter().find(|name| !name.is_empty() && !names.insert(*name)) {
        let twice: String = twice.chars().take(60).collect();
        return vec![FileRow { line: 1, fields: Err(format!("column {twice:?} is there twice: keep one")) }];
    }
    let (mut rows, mut count) = (Vec::new(), LineCount::of(text));
    for record in reader.records() {
        rows.push(match record {
            Ok(record) => {
                let start = record.position().and_then(|at| usize::try_from(at.byte()).ok()).unwrap_or(0);
                let line = count.line(row_at(text.get(start..).unwrap_or_default()));
                FileRow { line, fields: csv_fields(&header, &record) }
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                FileRow { line, fields: Err(error.to_string()) }
            }
        });
    }
    rows
}

/// What follows the blank lines and comments that the reader counts to the row after them.
fn row_at(mut rest: &str) -> &str {
    loop {
        rest = rest.trim_start();
        match rest.split_once('\n') {
            Some((line, after)) if line.starts_with('#') => rest = after,
            _ => return rest,
        }
    }
}

fn csv_fields(header: &csv::StringRecord, record: &csv::StringRecord) -> Result<Map<String, Value>, String> {
    let mut fields = Map::new();
    for (name, cell) in header.iter().zip(record) {
        if !cell.is_empty() {
            set(&mut fields, name, cell_value(name, cell)?)?;
        }
    }
    Ok(fields)
}

/// What a cell or a `KEY=VALUE` of the command line says.
pub(crate) fn cell_value(name: &str, cell: &str) -> Result<Value, String> {
    if NUMBERS.contains(&name) {
        let number = cell.parse::<u64>();
        return number.map(Value::from).map_err(|_| format!("{name}: {cell:?} is not a whole number"));
    }
    if LISTS.contains(&name) {
        return Ok(cell.split(';').map(str::trim).filter(|part| !part.is_empty()).collect());
    }
    if name == "stream" {
        return cell
            .parse::<bool>()
            .map(Value::from)
            .map_err(|_| format!("stream: {cell:?} is not true or false"));
    }
    if cell.starts_with(['{', '[']) {
        return exact_json::read(cell).map_err(|error| format!("{name}: {error}"));
    }
    Ok(Value::from(cell))
}

/// Deepest group of a field's name: positions nest two deep.
const DEPTH_MAX: usize = 8;

/// Sets a field; a point in its name descends.
pub(crate) fn set(fields: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), String> {
    if name.bytes().filter(|byte| *byte == b'.').count() > DEPTH_MAX {
        let start: String = name.chars().take(40).collect();
        return Err(format!("{start}… has more than {DEPTH_MAX} points: no field is so deep"));
    }
    descend(fields, name, value)
}

fn descend(fields: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), String> {
    match name.split_once('.') {
        None => {
            fields.insert(name.to_owned(), value);
            Ok(())
        }
        Some((group, rest)) => {
            let inner = fields.entry(group.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            match inner {
                Value::Object(inner) => descend(inner, rest, value),
                _ => Err(format!("{group} is a value, so {name} cannot be")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(text: &str) -> Vec<(u64, Value)> {
        let fields = |row: FileRow| row.fields.map_or_else(Value::from, Value::Object);
        read(text).into_iter().map(|row| (row.line, fields(row))).collect()
    }

    #[test]
    fn every_form_names_the_line_of_each_row() {
        let expected = vec![(2, json!({"a": "1"})), (4, json!({"a": "2"}))];
        assert_eq!(rows("\n{\"a\":\"1\"}\n\n{\"a\":\"2\"}\n"), expected);
        assert_eq!(rows("[\n{\"a\":\"1\"},\n\n{\"a\":\"2\"}]"), expected);
        assert_eq!(rows("\n{\n\"a\":\"1\"}\n{\"a\":\n\"2\"}"), expected);
        assert_eq!(rows("a\n1\n\n2\n"), expected);
        assert_eq!(rows("a\n1\n#x\n2\n"), expected);
        assert_eq!(rows(" \n"), []);
    }

    #[test]
    fn a_bad_line_does_not_hide_those_after_it() {
        let found = read("{\"a\":1}\n{oops\n[1]\n{\"a\":2}\n");
        let good: Vec<bool> = found.iter().map(|row| row.fields.is_ok()).collect();
        assert_eq!(good, [true, false, false, true]);
        assert_eq!(found[1].line, 2);
        let csv = read("a,b\n1,2\n1\n3,4\n");
        let good: Vec<(u64, bool)> = csv.iter().map(|row| (row.line, row.fields.is_ok())).collect();
        assert_eq!(good, [(2, true), (3, false), (4, true)]);
    }

    #[test]
    fn a_field_or_column_twice_is_an_error_and_digits_are_kept() {
        assert_eq!(
            read("a,b,a\n1,2,3\n"),
            [FileRow { line: 1, fields: Err("column \"a\" is there twice: keep one".to_owned()) }]
        );
        let found = read("{\"a\":1}\n{\"a\":1,\"a\":2}\n");
        assert!(found[0].fields.is_ok() && found[1].line == 2);
        let problem = found[1].fields.as_ref().unwrap_err();
        assert!(problem.contains("field \"a\" is there twice"), "{problem}");
        assert_eq!(rows("{\"a\":12345678901234567.89}"), [(1, json!({"a": "12345678901234567.89"}))]);
        assert_eq!(rows("a,b\n1,{\"x\":0.1234567890123456}\n")[0].0, 2);
    }

    #[test]
    fn csv_descends_at_points_and_knows_numbers_lists_and_json() {
        let text = "position_id,version,designation.teams,designation.hedge_ratio,premium,unit\n\
                    s,2,a; b,0.5,\"{\"\"amount\"\":\"\"1\"\"}\",\n";
        let expected = json!({
            "position_id": "s", "version": 2, "designation": {"teams": ["a", "b"], "hedge_ratio": "0.5"},
            "premium": {"amount": "1"}
        });
        assert_eq!(rows(text), [(2, expected)]);
        assert!(read("version\nx\n")[0].fields.is_err());
        assert!(read(&format!("a{}\n1\n", ".a".repeat(200_000)))[0].fields.is_err());
    }
}
