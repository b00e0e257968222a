//! Parquet: exact decimals, nulls, bounded groups, names in groups.

use super::super::table::{TableFormat, TableWriter};
use super::*;
use bursar_domain::Timestamp;
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

fn columns() -> Vec<Column> {
    vec![
        Column::always("id", Kind::Text).differing(),
        Column::maybe("cost.list", Kind::Decimal(12)),
        Column::maybe("cost.note", Kind::Text),
        Column::always("at", Kind::Instant),
        Column::maybe("tokens", Kind::Count),
        Column::always("stream", Kind::Flag),
    ]
}

fn row(id: &str, list: Option<i128>, tokens: Option<u64>) -> Vec<Cell<'_>> {
    vec![
        Cell::text(Some(id)),
        Cell::decimal(list),
        Cell::text(list.map(|_| "=cmd()")),
        Cell::Instant(Timestamp::from_micros(1_767_225_600_000_001)),
        Cell::count(tokens),
        Cell::Flag(true),
    ]
}

fn file(rows: &[Vec<Cell<'_>>], format: TableFormat) -> Vec<u8> {
    let mut table = TableWriter::new(Vec::new(), "test", columns(), format).unwrap();
    rows.iter().for_each(|row| table.write(row).unwrap());
    table.finish().unwrap().0
}

#[test]
fn values_come_back_exactly_and_nulls_stay_nulls() {
    let largest = i128::try_from(DECIMAL_END).unwrap() - 1;
    let rows = [
        row("a", Some(1), Some(u64::MAX)),
        row("b", None, None),
        row("c", Some(-largest), Some(0)),
        row("c", Some(largest), Some(7)),
    ];
    let bytes = file(&rows, TableFormat::PARQUET);
    let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 1);
    let decimal = |row: &parquet::record::Row| match row.get_column_iter().nth(1).unwrap().1 {
        Field::Group(group) => match group.get_column_iter().next().unwrap().1 {
            Field::Decimal(decimal) => {
                assert_eq!((decimal.precision(), decimal.scale()), (38, 12));
                Some(i128::from_be_bytes(decimal.data().try_into().unwrap()))
            }
            Field::Null => None,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    let costs: Vec<Option<i128>> = found.iter().map(decimal).collect();
    assert_eq!(costs, [Some(1), None, Some(-largest), Some(largest)]);
    let tokens: Vec<String> =
        found.iter().map(|row| row.get_column_iter().nth(3).unwrap().1.to_string()).collect();
    assert_eq!(tokens, ["18446744073709551615", "null", "0", "7"]);
    let at = found[0].get_column_iter().nth(2).unwrap().1.clone();
    assert_eq!(at, Field::TimestampMicros(1_767_225_600_000_001));
}

#[test]
fn a_number_of_39_digits_is_refused_by_its_column() {
    let mut table = TableWriter::new(Vec::new(), "test", columns(), TableFormat::PARQUET).unwrap();
    let error = table.write(&row("a", Some(i128::MAX), None)).unwrap_err();
    assert!(error.to_string().contains("cost.list: a number has more than 38 digits"), "{error}");
}

#[test]
fn groups_end_at_their_bytes_and_the_same_rows_give_the_same_bytes() {
    let ids: Vec<String> = (0..5_000).map(|number| format!("id-{number:08}")).collect();
    let rows: Vec<_> = ids.iter().map(|id| row(id, Some(1), Some(1))).collect();
    let small = TableFormat::Parquet { group_bytes: 1 };
    let bytes = file(&rows, small);
    assert_eq!(bytes, file(&rows, small));
    let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [1_024, 1_024, 1_024, 1_024, 904]);
}

#[test]
fn a_column_tells_the_least_and_the_greatest_of_its_values() {
    let rows = [row("b", Some(5), Some(3)), row("a", None, None), row("c", Some(-7), Some(1))];
    let bytes = file(&rows, TableFormat::PARQUET);
    let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let range = |column: usize| {
        let statistics = reader.metadata().row_group(0).column(column).statistics()?.clone();
        Some((statistics.min_bytes_opt()?.to_vec(), statistics.max_bytes_opt()?.to_vec()))
    };
    assert_eq!(range(0), None, "nobody looks for a range of ids");
    let [least, greatest] = [-7_i128, 5].map(|value| value.to_be_bytes().to_vec());
    assert_eq!(range(1), Some((least, greatest)));
    assert_eq!(range(2), Some((b"=cmd()".to_vec(), b"=cmd()".to_vec())));
    assert_eq!(range(4), Some((1_u64.to_le_bytes().to_vec(), 3_u64.to_le_bytes().to_vec())));
}

#[test]
fn what_a_file_remembers_of_a_group_shares_nothing_with_it() {
    let mut pieces = Pieces::default();
    ["b", "a"].into_iter().for_each(|text| pieces.push(text.as_bytes()));
    let (least, most) = pieces.range().unwrap();
    let texts = pieces.take();
    assert_eq!((least.data(), most.data()), (&b"a"[..], &b"b"[..]));
    let inside = texts[0].data().as_ptr_range().start..texts[1].data().as_ptr_range().end;
    assert!([least, most].iter().all(|kept| !inside.contains(&kept.data().as_ptr())));
    assert_eq!(pieces.range(), None);
    assert_eq!(range_of(&[]), None);
}

#[test]
fn a_table_without_rows_is_a_file_with_its_columns() {
    let bytes = file(&[], TableFormat::PARQUET);
    let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    assert_eq!(names, ["id", "cost.list", "cost.note", "at", "tokens", "stream"]);
}
