//! The JSON walker on any bytes, against a parser where there is something to parse.
#![no_main]

use bursar_fuzz::usage::json::{Node, Scanner, Sink};

static ELEMENT: Node = Node::object(&[("n", Node::scalar(4))]);
static ROOT: Node = Node::object(&[
    ("a", Node::scalar(1)),
    ("w", Node::whole(2)),
    ("d", Node::object(&[("a", Node::scalar(3))])),
    ("l", Node::array(&ELEMENT)),
]);

#[derive(Default, PartialEq, Debug)]
struct Log(Vec<(u8, Vec<u8>, u64)>);

impl Sink for Log {
    fn value(&mut self, id: u8, raw: &[u8], at: u64) {
        self.0.push((id, raw.to_vec(), at));
    }
}

fn walk(data: &[u8], size: usize) -> (Log, bool, bool) {
    let (mut scanner, mut log) = (Scanner::new(&ROOT), Log::default());
    for piece in data.chunks(size) {
        scanner.feed(piece, &mut log);
    }
    scanner.finish(&mut log);
    (log, scanner.is_complete(), scanner.is_malformed())
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let whole = walk(data, usize::MAX);
    for size in [1, 5] {
        assert_eq!(walk(data, size), whole);
    }
    for (_, raw, at) in &whole.0.0 {
        let at = usize::try_from(*at).unwrap();
        assert_eq!(&data[at..at + raw.len()], raw.as_slice());
    }
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
        assert!(whole.1 && !whole.2, "a parser accepts it");
        if let Some(wanted) = value.get("w") {
            let last = whole.0.0.iter().rev().find(|(id, ..)| *id == 2).unwrap();
            assert_eq!(&serde_json::from_slice::<serde_json::Value>(&last.1).unwrap(), wanted);
        }
    }
});
