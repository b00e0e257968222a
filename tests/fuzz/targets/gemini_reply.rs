//! Gemini-shaped replies of any bytes: documents, events and arrays of chunks.
#![no_main]

use bursar_fuzz::Setup;
use bursar_fuzz::usage::Api;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(setup) = Setup::of(data) {
        setup.check(Api::StreamGenerateContent);
        setup.check(Api::EmbedContent);
        setup.check(Api::Interactions);
    }
});
