//! OpenAI-shaped replies of any bytes.
#![no_main]

use bursar_fuzz::Setup;
use bursar_fuzz::usage::Api;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(setup) = Setup::of(data) {
        setup.check(Api::OpenAiChat);
        setup.check(Api::Responses);
    }
});
