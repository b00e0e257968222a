//! Columns of the datasets.

use super::*;
use crate::export::Presence;

#[test]
fn the_columns_are_those_of_the_specification_in_their_order_and_then_our_own() {
    let names = |columns: Vec<crate::export::Column>| -> Vec<String> {
        columns.into_iter().map(|column| column.name).collect()
    };
    for (columns, own) in [(names(usage_columns()), 65), (names(commitment_columns()), 30)] {
        let (theirs, ours) = columns.split_at(own);
        let mut sorted = theirs.to_vec();
        sorted.sort();
        assert_eq!(theirs, sorted, "the specification orders columns by name");
        assert!(ours.iter().all(|name| name.starts_with("x_")), "{ours:?}");
        assert!(theirs.iter().all(|name| !name.starts_with("x_")));
    }
    let never_null = usage_columns().into_iter().filter(|column| column.presence == Presence::Always);
    assert_eq!(never_null.count(), 20 + 7, "of the specification, and of our own");
}
