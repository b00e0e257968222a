//! What clients ask and providers answer, in short: written by hand after the providers' documentation.

/// A chat request.
pub(crate) const CHAT: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;

/// A chat request for a stream.
pub(crate) const CHAT_STREAM: &str =
    r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

/// A chat reply: 1,000 input tokens, 200 of them cached, 500 output tokens, 100 of them reasoning.
pub(crate) const CHAT_REPLY: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":500,"total_tokens":1500,"prompt_tokens_details":{"cached_tokens":200},"completion_tokens_details":{"reasoning_tokens":100}}}"#;

/// Its cost: 800 × $0.15 + 200 × $0.075 + 500 × $0.60, per million.
pub(crate) const CHAT_COST_PICO: i128 = 435_000_000;

/// The same as a stream, without and with the usage chunk.
pub(crate) const EVENT_ONE: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hel\"}}],\"usage\":null}\n\n";
/// The second event.
pub(crate) const EVENT_TWO: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo.\"},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
/// The usage chunk.
pub(crate) const EVENT_USAGE: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":500,\"total_tokens\":1500,\"prompt_tokens_details\":{\"cached_tokens\":200},\"completion_tokens_details\":{\"reasoning_tokens\":100}}}\n\n";
/// The end.
pub(crate) const EVENT_DONE: &str = "data: [DONE]\n\n";

/// A whole stream with usage.
pub(crate) const EVENTS: [&str; 4] = [EVENT_ONE, EVENT_TWO, EVENT_USAGE, EVENT_DONE];

/// A request to Anthropic.
pub(crate) const MESSAGES: &str =
    r#"{"model":"claude-sonnet-4-5","max_tokens":64,"messages":[{"role":"user","content":"hi"}]}"#;

/// A reply of Anthropic: 12 fresh input tokens, 5 output tokens.
pub(crate) const MESSAGES_REPLY: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[{"type":"text","text":"Hello."}],"stop_reason":"end_turn","usage":{"input_tokens":12,"output_tokens":5}}"#;

/// The path of chat requests behind the sidecar's `/openai` route.
pub(crate) const CHAT_PATH: &str = "/openai/v1/chat/completions";

/// The path of Anthropic's messages.
pub(crate) const MESSAGES_PATH: &str = "/anthropic/v1/messages";
