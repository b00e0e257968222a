//! The tokens of a request's body: messages, tools, pictures, and what the chat format adds.
//!
//! Checked against 25 recorded exchanges of OpenAI and Azure in plain text, of which all come out to
//! the token (2026-11): chat and responses count alike, and the GPT-5 family begins its reply with one
//! token less than the published formula says.
//!
//! Invariants
//! - A body that was not kept whole is estimated from windows; those that look like base64 are taken
//!   for pictures and files, and count nothing.
//! - Anything but plain text of messages makes the figure an estimate.
//!
//! Not here: the formulas (`bursar_tokens::overhead`, `image`).

use super::settle::Work;
use super::tally::Tally;
use super::texts::scale;
use crate::usage::Api;
use crate::usage::decode::Decoder;
use bursar_tokens::image::{self, Detail, ImageRule};
use bursar_tokens::overhead::CHAT;
use serde_json::{Map, Value};

/// Most bytes of a body that are read whole.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most bytes that are made of a compressed body.
const DECODED_BYTES_MAX: usize = 1024 * 1024;
const WINDOW_BYTES: usize = 256;
const WINDOWS: usize = 16;
/// A string of this length without a space is a picture or a file.
const BLOB_BYTES: usize = 512;

/// What the prompts of other vendors' requests are called: Gemini's, Bedrock's and those of the models
/// behind it, Cohere's, Ollama's.
const PROMPT_KEYS: &[&str] = &[
    "systemInstruction",
    "system_instruction",
    "system",
    "preamble",
    "contents",
    "content",
    "requests",
    "instances",
    "messages",
    "chat_history",
    "message",
    "documents",
    "tool_results",
    "input",
    "inputText",
    "prompt",
    "suffix",
    "images",
];
const TOOL_KEYS: &[&str] = &["tools", "toolConfig", "format", "responseSchema"];
/// What names or frames a text and is none.
const NO_TEXT_KEYS: &[&str] = &[
    "role",
    "type",
    "id",
    "model",
    "mimeType",
    "mime_type",
    "media_type",
    "format",
    "fileUri",
    "file_uri",
    "url",
    "uri",
    "signature",
    "thoughtSignature",
    "thought_signature",
    "toolUseId",
    "tool_use_id",
    "tool_call_id",
    "taskType",
    "task_type",
    "cachePoint",
    "cache_control",
];

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct InputTokens {
    pub(super) tokens: u64,
    /// Whether the formula is known to be the provider's.
    pub(super) exact: bool,
    /// Whether they are extrapolated from windows.
    pub(super) sampled: bool,
}

/// The tokens of the request of `work`; `None` when its body cannot be read.
pub(super) fn count(work: &Work, tally: &Tally, model: &str) -> Option<InputTokens> {
    let (body, is_whole) = body(work)?;
    if is_whole && body.len() <= BODY_BYTES_MAX.saturating_mul(2) {
        let value: Value = serde_json::from_slice(&body).ok()?;
        let mut counter = Counter { tally, rule: image::rule(model), tokens: 0, exact: true };
        counter.request(work.api, value.as_object()?, model);
        return Some(InputTokens { tokens: counter.tokens, exact: counter.exact, sampled: false });
    }
    Some(sampled(work, &body, tally))
}

/// The body as far as it was kept, decoded, and whether that is all of it.
fn body(work: &Work) -> Option<(Vec<u8>, bool)> {
    let Some(encoding) = &work.encoding else { return Some((work.request.concat(), work.is_whole)) };
    let mut decoder = Decoder::new(encoding).ok()?;
    let Some(decoder) = &mut decoder else { return Some((work.request.concat(), work.is_whole)) };
    let (mut body, mut is_whole) = (Vec::new(), work.is_whole);
    for piece in &work.request {
        decoder.feed(piece, |plain| {
            if body.len() + plain.len() <= DECODED_BYTES_MAX {
                body.extend_from_slice(plain);
            } else {
                is_whole = false;
            }
        });
    }
    Some((body, is_whole))
}

/// An estimate from windows of the part that was kept and of the part that passed.
fn sampled(work: &Work, body: &[u8], tally: &Tally) -> InputTokens {
    let stride = body.len().saturating_sub(WINDOW_BYTES) / (WINDOWS - 1);
    let kept = (0..WINDOWS).filter_map(|at| {
        let start = at * stride;
        body.get(start..body.len().min(start + WINDOW_BYTES))
    });
    let passed = work.sample.as_ref().map_or(0, |sample| sample.bytes);
    let later = work.sample.iter().flat_map(|sample| sample.windows());
    let estimate = |windows: &mut dyn Iterator<Item = &[u8]>, whole: u64| {
        let (mut bytes, mut tokens) = (0_u64, 0_u64);
        for window in windows {
            bytes += window.len() as u64;
            if !is_blob(window) {
                tokens += tally.count(&String::from_utf8_lossy(window));
            }
        }
        scale(tokens, whole, bytes)
    };
    let tokens = estimate(&mut kept.into_iter(), body.len() as u64)
        .saturating_add(estimate(&mut later.into_iter(), passed));
    InputTokens { tokens, exact: false, sampled: true }
}

/// Whether bytes look like base64: text and JSON have spaces, quotes or escapes all along.
fn is_blob(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_'))
}

struct Counter<'a> {
    tally: &'a Tally,
    rule: Option<ImageRule>,
    tokens: u64,
    exact: bool,
}

impl Counter<'_> {
    fn request(&mut self, api: Api, body: &Map<String, Value>, model: &str) {
        match api {
            Api::Embeddings => self.inputs(body.get("input")),
            Api::LegacyCompletions => self.inputs(body.get("prompt")),
            Api::Responses => self.responses(body, model),
            Api::GenerateContent
            | Api::StreamGenerateContent
            | Api::EmbedContent
            | Api::Interactions
            | Api::Converse
            | Api::ConverseStream
            | Api::Invoke
            | Api::InvokeStream
            | Api::CohereChatV1
            | Api::CohereChat
            | Api::OllamaChat
            | Api::OllamaGenerate => self.others(body),
            Api::Messages => {
                self.exact = false;
                self.message("system", body.get("system"));
                self.messages(body.get("messages"));
                self.tools(body.get("tools"));
            }
            _ => {
                self.messages(body.get("messages"));
                self.tools(body.get("tools"));
                self.tools(body.get("functions"));
                self.other(body.get("response_format"));
                self.reply(model);
            }
        }
    }

    fn responses(&mut self, body: &Map<String, Value>, model: &str) {
        self.message("system", body.get("instructions"));
        match body.get("input") {
            Some(Value::String(text)) => self.message("user", Some(&Value::String(text.clone()))),
            items => self.messages(items),
        }
        self.tools(body.get("tools"));
        self.other(body.get("text"));
        // Earlier turns and stored prompts are the provider's to know.
        self.exact &= !["previous_response_id", "conversation", "prompt"]
            .iter()
            .any(|key| body.get(*key).is_some_and(|value| !value.is_null()));
        self.reply(model);
    }

    /// A body of another vendor, for which no formula is published: the texts below the keys that hold
    /// any, in whatever shape, and what a chat adds around a message.
    fn others(&mut self, body: &Map<String, Value>) {
        self.exact = false;
        // Cloud Code wraps Gemini's body.
        let body = body.get("request").and_then(Value::as_object).unwrap_or(body);
        for key in PROMPT_KEYS {
            if let Some(value) = body.get(*key) {
                self.below(value);
            }
        }
        for key in TOOL_KEYS {
            self.other(body.get(*key));
        }
    }

    fn below(&mut self, value: &Value) {
        match value {
            Value::String(text) if text.len() >= BLOB_BYTES && !text.contains([' ', '\n']) => {
                if let Some(size) = size_of_inline(text) {
                    let rule = self.rule.unwrap_or(ImageRule::Tiles { base: 85, tile: 170 });
                    self.tokens = self.tokens.saturating_add(rule.tokens(size, Detail::High));
                }
            }
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter().for_each(|item| self.below(item)),
            Value::Object(fields) => {
                if fields.contains_key("role") {
                    self.tokens = self.tokens.saturating_add(CHAT.per_message);
                }
                let texts = fields.iter().filter(|(key, _)| !NO_TEXT_KEYS.contains(&key.as_str()));
                texts.for_each(|(_, value)| self.below(value));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn reply(&mut self, model: &str) {
        let last = model.rsplit('/').next().unwrap_or_default();
        self.tokens += CHAT.reply - u64::from(last.starts_with("gpt-5"));
    }

    fn text(&mut self, text: &str) {
        self.tokens = self.tokens.saturating_add(self.tally.count(text));
    }

    /// A prompt or several: texts, or tokens that the client counted itself.
    fn inputs(&mut self, input: Option<&Value>) {
        match input {
            Some(Value::String(text)) => self.text(text),
            Some(Value::Number(_)) => self.tokens += 1,
            Some(Value::Array(items)) => items.iter().for_each(|item| self.inputs(Some(item))),
            None | Some(Value::Null) => {}
            Some(other) => self.other(Some(other)),
        }
    }

    fn messages(&mut self, messages: Option<&Value>) {
        for message in messages.and_then(Value::as_array).into_iter().flatten() {
            let Some(message) = message.as_object() else {
                self.other(Some(message));
                continue;
            };
            let text = |key: &str| message.get(key).and_then(Value::as_str);
            let Some(role) = text("role") else {
                // Calls, their outputs and reasoning among the items of a response's input.
                self.other(Some(&Value::Object(message.clone())));
                continue;
            };
            self.message(role, message.get("content").or(Some(&Value::Null)));
            if let Some(name) = text("name") {
                self.tokens += CHAT.per_name;
                self.text(name);
            }
            for extra in ["tool_calls", "function_call", "tool_call_id", "reasoning_content", "refusal"] {
                self.other(message.get(extra));
            }
        }
    }

    fn message(&mut self, role: &str, content: Option<&Value>) {
        let Some(content) = content else { return };
        self.tokens += CHAT.per_message;
        self.text(role);
        self.content(content);
    }

    fn content(&mut self, content: &Value) {
        match content {
            Value::String(text) => self.text(text),
            Value::Array(parts) => {
                self.exact &= parts.len() <= 1;
                parts.iter().for_each(|part| self.part(part));
            }
            Value::Null => {}
            other => self.other(Some(other)),
        }
    }

    fn part(&mut self, part: &Value) {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        match (kind, part.get("text").and_then(Value::as_str)) {
            ("text" | "input_text" | "output_text", Some(text)) => self.text(text),
            ("image_url" | "input_image" | "image", _) => self.image(part),
            ("input_audio" | "file" | "input_file" | "document", _) => self.exact = false,
            ("tool_result", _) => {
                self.exact = false;
                self.content(part.get("content").unwrap_or(&Value::Null));
            }
            _ => self.other(Some(part)),
        }
    }

    fn image(&mut self, part: &Value) {
        self.exact = false;
        let holder = part.get("image_url").filter(|value| value.is_object()).unwrap_or(part);
        let detail = match holder.get("detail").and_then(Value::as_str) {
            Some("low") => Detail::Low,
            _ => Detail::High,
        };
        let inline = [holder.get("url"), part.get("image_url"), part.pointer("/source/data")];
        let size = inline.into_iter().flatten().filter_map(Value::as_str).find_map(size_of_inline);
        let rule = self.rule.unwrap_or(ImageRule::Tiles { base: 85, tile: 170 });
        self.tokens = self.tokens.saturating_add(rule.tokens(size.unwrap_or(image::UNKNOWN_SIZE), detail));
    }

    /// Tools by the published formula, which calls itself an estimate.
    fn tools(&mut self, tools: Option<&Value>) {
        let Some(tools) = tools.and_then(Value::as_array).filter(|tools| !tools.is_empty()) else { return };
        self.exact = false;
        let overhead = self.tally.encoding().tool_overhead();
        for tool in tools {
            let tool = tool.get("function").unwrap_or(tool);
            let text = |key: &str| tool.get(key).and_then(Value::as_str).unwrap_or_default();
            self.tokens += overhead.per_tool;
            self.text(&format!("{}:{}", text("name"), text("description").trim_end_matches('.')));
            let schema = tool.get("parameters").or_else(|| tool.get("input_schema"));
            let Some(properties) = schema.and_then(|schema| schema.get("properties")?.as_object()) else {
                continue;
            };
            self.tokens += overhead.parameters;
            for (name, property) in properties {
                self.property(name, property);
            }
        }
        self.tokens += overhead.end;
    }

    fn property(&mut self, name: &str, property: &Value) {
        let overhead = self.tally.encoding().tool_overhead();
        let text = |key: &str| property.get(key).and_then(Value::as_str).unwrap_or_default();
        self.tokens += overhead.per_parameter;
        self.text(&format!("{name}:{}:{}", text("type"), text("description").trim_end_matches('.')));
        if let Some(choices) = property.get("enum").and_then(Value::as_array) {
            let each: u64 = choices
                .iter()
                .filter_map(Value::as_str)
                .map(|choice| overhead.per_choice + self.tally.count(choice))
                .sum();
            self.tokens = self.tokens.saturating_add(each).saturating_sub(overhead.choices_less);
        }
        for nested in ["properties", "items"] {
            self.other(property.get(nested));
        }
    }

    /// Something without a formula: its JSON, without pictures and files.
    fn other(&mut self, value: Option<&Value>) {
        let Some(value) = value.filter(|value| !value.is_null()) else { return };
        self.exact = false;
        let mut copy = value.clone();
        drop_blobs(&mut copy);
        self.text(&copy.to_string());
    }
}

fn drop_blobs(value: &mut Value) {
    match value {
        Value::String(text) if text.len() >= BLOB_BYTES && !text.contains([' ', '\n']) => text.clear(),
        Value::Array(items) => items.iter_mut().for_each(drop_blobs),
        Value::Object(fields) => fields.values_mut().for_each(drop_blobs),
        _ => {}
    }
}

/// The size of a picture in a data URL or in bare base64, from its first bytes.
fn size_of_inline(text: &str) -> Option<image::Size> {
    let data = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,")?.1,
        None if text.starts_with("http") => return None,
        None => text,
    };
    image::size_of(&first_bytes(data))
}

/// The beginning of what base64 holds, as far as it is valid.
fn first_bytes(base64: &str) -> Vec<u8> {
    const LOOK: usize = 32 * 1024;
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for byte in base64.bytes().take(LOOK) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => break,
        };
        held = ((held << 6) | u32::from(value)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(((held >> bits) & 0xff) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
