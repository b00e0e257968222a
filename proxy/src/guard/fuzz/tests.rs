//! The fuzz target on random bytes and on mutated requests.

use super::fuzz_guard;
use proptest::prelude::*;

/// Requests that pass, and pieces that make others of them.
const SEEDS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /v1/chat/completions HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\nhello",
    "POST /v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n",
    "\r\nOPTIONS * HTTP/1.0\r\n\r\n",
];
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    "\0",
    "\u{e9}",
    ":",
    ";",
    "0",
    "ffffffff",
    "100000000",
    "chunked",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Host: b\r\n",
    "x_bursar_team: a\r\n",
    "GET",
    "HTTP/1.1",
    "/../",
    "%00",
    "0\r\n\r\n",
];

#[derive(Clone, Debug)]
enum Edit {
    Insert(usize, usize),
    Remove(usize, usize),
    Set(usize, u8),
    Append(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..400_usize, 0..PIECES.len()).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (0..400_usize, 1..8_usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        (0..400_usize, any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (0..SEEDS.len()).prop_map(Edit::Append),
    ]
}

fn apply(edit: &Edit, data: &mut Vec<u8>) {
    match *edit {
        Edit::Insert(at, piece) => {
            let at = at % (data.len() + 1);
            data.splice(at..at, PIECES[piece].bytes());
        }
        Edit::Remove(at, count) => {
            let at = at % (data.len() + 1);
            data.drain(at..data.len().min(at + count));
        }
        Edit::Set(at, byte) => {
            let at = at % data.len().max(1);
            data.iter_mut().skip(at).take(1).for_each(|old| *old = byte);
        }
        Edit::Append(seed) => data.extend_from_slice(SEEDS[seed].as_bytes()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_hold_the_invariants(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz_guard(&data);
    }

    #[test]
    fn mutated_requests_hold_the_invariants(
        cuts in any::<u8>(),
        seeds in proptest::collection::vec(0..SEEDS.len(), 1..4),
        edits in proptest::collection::vec(edit(), 0..5),
    ) {
        let mut data = vec![cuts];
        seeds.iter().for_each(|&seed| data.extend_from_slice(SEEDS[seed].as_bytes()));
        edits.iter().for_each(|edit| apply(edit, &mut data));
        fuzz_guard(&data);
    }
}
