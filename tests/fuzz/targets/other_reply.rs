//! Replies of Cohere and Ollama, of images, audio, ranking, assistants and batches: any bytes, in any
//! slices, as events, as lines and as one document; and forms, which ask for some of them.
#![no_main]

use bursar_fuzz::Setup;
use bursar_fuzz::usage::{Api, RequestScan};

const APIS: [Api; 16] = [
    Api::CohereChatV1,
    Api::CohereChat,
    Api::CohereEmbed,
    Api::OllamaChat,
    Api::OllamaGenerate,
    Api::OllamaEmbed,
    Api::Rerank,
    Api::Images,
    Api::Transcription,
    Api::Speech,
    Api::Ocr,
    Api::AssistantsRun,
    Api::Batch,
    Api::BatchOutput,
    Api::MessagesBatchResults,
    Api::BatchResults,
];

fn form(body: &[u8], size: usize) -> bursar_fuzz::usage::RequestFacts {
    let mut scan = RequestScan::new(None).with_type(Some("multipart/form-data; boundary=b"));
    for piece in body.chunks(size) {
        scan.feed(piece);
    }
    scan.facts()
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let Some(setup) = Setup::of(rest) else { return };
    let api = APIS[usize::from(choice & 15)];
    setup.check(api);
    setup.check_as(api, "application/x-ndjson");
    if api == Api::Batch {
        setup.check(Api::GeminiBatch);
    }
    let whole = form(setup.body, usize::MAX);
    for size in [1, 7] {
        assert_eq!(form(setup.body, size), whole);
    }
});
