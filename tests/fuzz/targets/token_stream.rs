//! The token counter on any bytes: in pieces of any size the figure is that of the whole.
#![no_main]

use bursar_tokens::{Encoding, StreamCounter, rough, strict_bound};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(([choice, size], body)) = data.split_first_chunk::<2>() else { return };
    let encoding = if choice & 1 == 0 { Encoding::O200kBase } else { Encoding::Cl100kBase };
    let tokenizer = encoding.tokenizer().unwrap();
    // Repeated, so that short inputs reach the places where text is settled.
    let body = body.repeat(1 + usize::from(choice >> 1) % 64);
    let text = String::from_utf8_lossy(&body);
    let whole = tokenizer.count(&text);
    assert!(whole <= strict_bound(&text));
    assert!(tokenizer.upper_bound(&text) >= whole || text.len() > bursar_tokens::EXACT_BYTES_MAX);
    let mut counter = StreamCounter::new(tokenizer);
    for piece in body.chunks(1 + usize::from(*size)) {
        counter.push_bytes(piece);
    }
    let counted = counter.so_far();
    assert!(!counted.exact || counted.tokens == whole, "{} and not {whole}", counted.tokens);
    let _ = rough(&text);
});
