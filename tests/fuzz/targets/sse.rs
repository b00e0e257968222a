//! Event framing, and hiding the usage chunk, of any bytes in any slices.
#![no_main]

use bursar_fuzz::usage::HideUsage;
use bursar_fuzz::usage::sse::{Events, Sse};
use bytes::Bytes;

#[derive(Default, PartialEq, Debug)]
struct Seen {
    data: Vec<u8>,
    events: Vec<(Vec<u8>, Vec<u8>, bool)>,
    errors: usize,
}

impl Events for Seen {
    fn data(&mut self, piece: &[u8]) {
        self.data.extend_from_slice(piece);
    }
    fn end(&mut self, name: &[u8], has_data: bool) {
        self.events.push((name.to_vec(), std::mem::take(&mut self.data), has_data));
    }
    fn error_line(&mut self) {
        self.errors += 1;
    }
}

fn frame(data: &[u8], size: usize) -> Seen {
    let (mut sse, mut seen) = (Sse::default(), Seen::default());
    for piece in data.chunks(size) {
        sse.feed(piece, &mut seen);
    }
    sse.finish(&mut seen);
    seen
}

fn hide(data: &[u8], size: usize) -> Vec<u8> {
    let (mut hide, mut out) = (HideUsage::new(), Vec::new());
    for piece in data.chunks(size) {
        hide.push(Bytes::copy_from_slice(piece), &mut out);
    }
    hide.finish(&mut out);
    out.concat()
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let whole = frame(data, usize::MAX);
    let shown = hide(data, usize::MAX);
    for size in [1, 3] {
        assert_eq!(frame(data, size), whole);
        assert_eq!(hide(data, size), shown);
    }
    assert!(shown.len() <= data.len());
    // What was shown has nothing left to hide, unless its unfinished end became whole by it.
    if !data.windows(7).any(|w| w == b"choices") {
        assert_eq!(shown, data);
    }
});
