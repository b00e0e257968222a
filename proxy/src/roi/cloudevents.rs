//! Revenue events in CloudEvents 1.0 envelopes over HTTP: structured, batched and binary.
//!
//! Invariants
//! - An envelope becomes one row with the fields of a file; nothing else decides what an event may say.
//! - The mode is told by the content type and the `ce-` headers, never by looking for fields.
//! - `source` and `id` of the envelope name the event. `time` is when it happened. A `traceparent`
//!   gives the trace and `subject` the customer, where the data names none.
//!
//! Not here: fields (`policies::attribution`), statuses (`admin::roi`).

use crate::hedge::rows::{self, FileRow};
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A body in a form that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    /// The content type is none of ours.
    #[error(
        "content-type {0:?} is not taken: send application/cloudevents+json, application/cloudevents-batch+json, \
         or application/json with ce- headers or with rows"
    )]
    ContentType(String),
    /// A body that is no text.
    #[error("the body is no UTF-8 text")]
    NotText,
    /// A batch that is no JSON array.
    #[error("the batch is no JSON array of events: {0}")]
    NotBatch(String),
}

const KINDS: [&str; 5] = ["revenue", "saving", "refund", "chargeback", "adjustment"];

/// The rows that a request says.
pub(crate) fn rows(headers: &HeaderMap, body: &[u8]) -> Result<Vec<FileRow>, EnvelopeError> {
    let text = std::str::from_utf8(body).map_err(|_| EnvelopeError::NotText)?;
    let declared = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let declared = declared.unwrap_or("application/json");
    let kind = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/cloudevents+json" => Ok(vec![FileRow { line: 1, fields: structured(text) }]),
        "application/cloudevents-batch+json" => batch(text),
        "application/json" if headers.contains_key("ce-specversion") => {
            Ok(vec![FileRow { line: 1, fields: binary(headers, text) }])
        }
        "application/json" | "application/x-ndjson" | "application/jsonl" | "text/csv" => {
            Ok(rows::read(text))
        }
        _ => Err(EnvelopeError::ContentType(declared.chars().take(80).collect())),
    }
}

/// Events of a batch; their lines are their places, from 1.
fn batch(text: &str) -> Result<Vec<FileRow>, EnvelopeError> {
    let events: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|error| EnvelopeError::NotBatch(error.to_string()))?;
    let row = |(line, event): (u64, &RawValue)| FileRow { line, fields: structured(event.get()) };
    Ok((1..).zip(events).map(row).collect())
}

fn structured(text: &str) -> Result<Map<String, Value>, String> {
    let event = serde_json::from_str(text).map_err(|error| format!("this is no JSON: {error}"))?;
    let Value::Object(mut attributes) = event else {
        return Err("a CloudEvent is one JSON object".to_owned());
    };
    if attributes.contains_key("data_base64") {
        return Err("data_base64 is not taken: send data as a JSON object".to_owned());
    }
    let data = attributes.remove("data").unwrap_or(Value::Null);
    row(&attributes, data)
}

fn binary(headers: &HeaderMap, text: &str) -> Result<Map<String, Value>, String> {
    let mut attributes = Map::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let value = value.to_str().ok().and_then(|value| percent_decode_str(value).decode_utf8().ok());
        let value = value.ok_or_else(|| format!("header ce-{name} is no percent-encoded UTF-8 text"))?;
        attributes.insert(name.to_owned(), Value::from(value.into_owned()));
    }
    let data = serde_json::from_str(text).map_err(|error| format!("the body is no JSON: {error}"))?;
    row(&attributes, data)
}

/// The fields of an event: its data, and what its attributes add.
fn row(attributes: &Map<String, Value>, data: Value) -> Result<Map<String, Value>, String> {
    let attribute = |name: &str| match attributes.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("the attribute {name} is text")),
    };
    let needed = |name: &str| attribute(name)?.ok_or_else(|| format!("the attribute {name} is missing"));
    let version = needed("specversion")?;
    if version != "1.0" {
        return Err(format!("specversion {version:?} is not taken: send CloudEvents 1.0"));
    }
    let Value::Object(mut fields) = data else {
        return Err("data is missing: send an object with amount and currency".to_owned());
    };
    let kind = needed("type")?.rsplit(['.', '/', ':']).next().unwrap_or_default();
    let kind = KINDS.into_iter().find(|known| *known == kind);
    for name in ["id", "source"] {
        if fields.insert(name.to_owned(), needed(name)?.into()).is_some() {
            return Err(format!("data.{name} is not taken: the event's {name} is its attribute"));
        }
    }
    let trace = attribute("traceparent")?.and_then(|text| text.split('-').nth(1));
    for (name, value) in [
        ("time", attribute("time")?),
        ("kind", kind),
        ("trace_id", trace),
        ("customer", attribute("subject")?),
    ] {
        if let (Some(value), false) = (value, fields.contains_key(name)) {
            fields.insert(name.to_owned(), value.into());
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use serde_json::json;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn event() -> Value {
        json!({
            "specversion": "1.0", "id": "e-1", "source": "/shop", "type": "com.example.refund",
            "time": "2026-09-05T10:00:00Z", "subject": "acme",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "data": {"amount": "-1.50", "currency": "USD", "refers_to": "e-0"}
        })
    }

    fn expected() -> Value {
        json!({
            "amount": "-1.50", "currency": "USD", "refers_to": "e-0", "id": "e-1", "source": "/shop",
            "time": "2026-09-05T10:00:00Z", "kind": "refund",
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "customer": "acme"
        })
    }

    fn read(kind: &'static str, body: &Value) -> Vec<Result<Value, String>> {
        let found = rows(&headers(&[("content-type", kind)]), body.to_string().as_bytes()).unwrap();
        found.into_iter().map(|row| row.fields.map(Value::Object)).collect()
    }

    #[test]
    fn every_mode_says_the_same() {
        assert_eq!(read("application/cloudevents+json; charset=utf-8", &event()), [Ok(expected())]);
        let batch = read("application/cloudevents-batch+json", &json!([event(), 7, event()]));
        assert_eq!((&batch[0], &batch[2], batch[1].is_err()), (&Ok(expected()), &Ok(expected()), true));
        let sent = headers(&[
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "e-1"),
            ("ce-source", "/sh%6Fp"),
            ("ce-type", "refund"),
            ("ce-time", "2026-09-05T10:00:00Z"),
            ("ce-subject", "acme"),
            ("ce-traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ]);
        let found = rows(&sent, event()["data"].to_string().as_bytes()).unwrap();
        assert_eq!(found[0].fields.clone().map(Value::Object), Ok(expected()));
        assert_eq!(read("application/json", &expected()), [Ok(expected())]);
    }

    #[test]
    fn envelopes_that_cannot_be_are_refused_with_the_reason() {
        let check = |change: &dyn Fn(&mut Value), text: &str| {
            let mut event = event();
            change(&mut event);
            let found = read("application/cloudevents+json", &event);
            let error = found[0].as_ref().unwrap_err();
            assert!(error.contains(text), "{error}");
        };
        check(&|event| event["specversion"] = "0.3".into(), "CloudEvents 1.0");
        check(&|event| event["id"] = Value::Null, "the attribute id is missing");
        check(&|event| event["type"] = 7.into(), "the attribute type is text");
        check(&|event| event["data"] = Value::Null, "data is missing");
        check(&|event| event["data"]["id"] = "x".into(), "data.id is not taken");
        check(&|event| event["data_base64"] = "e30=".into(), "data_base64 is not taken");
        let error = rows(&headers(&[("content-type", "text/html")]), b"{}").unwrap_err();
        assert!(error.to_string().contains("application/cloudevents-batch+json"));
        let not_a_batch = rows(&headers(&[("content-type", "application/cloudevents-batch+json")]), b"{}");
        assert!(matches!(not_a_batch, Err(EnvelopeError::NotBatch(_))));
    }
}
