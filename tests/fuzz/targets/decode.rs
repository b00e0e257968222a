//! The side decoder on any bytes: no panic, bounded pieces, slices do not matter.
#![no_main]

use bursar_fuzz::usage::decode::Decoder;

const CODINGS: [&str; 6] = ["gzip", "deflate", "br", "zstd", "gzip, zstd", "br, deflate"];

fn decode(coding: &str, data: &[u8], size: usize) -> (Vec<u8>, bool) {
    let Ok(Some(mut decoder)) = Decoder::new(coding) else { return Default::default() };
    let mut out = Vec::new();
    for piece in data.chunks(size) {
        decoder.feed(piece, |bytes| {
            assert!(bytes.len() <= 16 * 1024);
            // Enough to compare; the rest is only counted.
            if out.len() < 1 << 20 {
                out.extend_from_slice(bytes);
            }
        });
    }
    (out, decoder.is_stopped())
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let coding = CODINGS[usize::from(*choice) % CODINGS.len()];
    let (whole, stopped) = decode(coding, body, usize::MAX);
    let (pieces, stopped_in_pieces) = decode(coding, body, 7);
    if !stopped && !stopped_in_pieces {
        assert_eq!(whole, pieces);
    }
});
