//! Asking for usage in any body, whole and streamed.
#![no_main]

use bursar_fuzz::usage::include::{BUDGET, IncludeUsage, include_usage};
use bursar_fuzz::usage::RequestScan;
use bytes::Bytes;
use serde_json::Value;

fn scan(body: &[u8]) -> bursar_fuzz::usage::RequestFacts {
    let mut scan = RequestScan::new(None);
    scan.feed(body);
    scan.facts()
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let facts = scan(data);
    let whole = include_usage(&[Bytes::copy_from_slice(data)]);
    if let Some(new) = &whole {
        let text = new.frames.concat();
        assert_eq!(new.length, text.len() as u64);
        if let Ok(mut original) = serde_json::from_slice::<Value>(data)
            && !facts.duplicate_key
        {
            let after: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(after["stream_options"]["include_usage"], Value::Bool(true));
            let mut after = after;
            for value in [&mut original, &mut after] {
                value.as_object_mut().unwrap().shift_remove("stream_options");
            }
            assert_eq!(original, after);
        }
    }
    let mut texts = Vec::new();
    for size in [usize::MAX, 1, 5] {
        let (mut rewriter, mut out) = (IncludeUsage::new(), Vec::new());
        for piece in data.chunks(size) {
            rewriter.push(Bytes::copy_from_slice(piece), &mut out);
        }
        let injected = rewriter.finish(&mut out);
        let text = out.concat();
        assert_eq!(text.len(), data.len() + BUDGET);
        if serde_json::from_slice::<Value>(data).is_ok() {
            assert!(serde_json::from_slice::<Value>(&text).is_ok());
        }
        texts.push((text, injected));
    }
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]));
});
