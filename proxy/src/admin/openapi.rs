//! The OpenAPI 3.1 document of the admin API, written from the table of operations.
//!
//! Invariants
//! - Nothing about an operation is said here that is not in the table; the published file
//!   (`docs/reference/openapi.json`) is compared with it.
//! - Every error is a problem document.
//!
//! Not here: the table (`table`), what parameters may say (`param`).

use super::hedge::IMPORT_BYTES_MAX;
use super::param::Param;
use super::table::{Answer, Body, Needs, OPERATIONS, Operation};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::read::ZlibDecoder;
use serde_json::{Map, Value, json};
use std::io::BufReader;
use std::sync::LazyLock;

/// Schemas that operations refer to (`schemas.json`), packed by `build.rs`.
const SCHEMAS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schemas.json.z"));

/// Statuses of refusals that every operation with a token may answer.
const ALWAYS: [u16; 5] = [400, 401, 403, 429, 500];

/// `GET /api/v1/openapi.json`
pub(super) async fn document() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(text);
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], TEXT.as_str()).into_response()
}

/// The document as a file has it.
#[must_use]
pub(crate) fn text() -> String {
    format!("{:#}\n", written())
}

fn schemas() -> Map<String, Value> {
    serde_json::from_reader(BufReader::new(ZlibDecoder::new(SCHEMAS))).unwrap_or_default()
}

fn written() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method.name().to_owned(), described(operation));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Bursar admin API",
            "version": "1",
            "description": "What the commands of `bursar` ask a running sidecar. Errors are problem documents \
                            (RFC 9457). Unknown parameters are refused by name.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "http://127.0.0.1:4142", "description": "Where `bursar serve` has it." }],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": {
                "type": "http", "scheme": "bearer",
                "description": "A token of `admin.tokens` or `admin.token_file`. On loopback without tokens \
                                nothing is asked. For GET it may also be the password of HTTP Basic, so that \
                                a browser can show the dashboard.",
            } },
            "responses": { "problem": problem("Problem") },
            "schemas": schemas(),
        },
    })
}

fn described(operation: &Operation) -> Value {
    let mut told = Map::new();
    told.insert("operationId".to_owned(), operation.id.into());
    told.insert("summary".to_owned(), operation.about.into());
    let scope = match operation.needs {
        Needs::Nothing => json!([]),
        Needs::ReadOrPublic => json!([{}, { "bearer": ["read"] }]),
        Needs::AnyToken => json!([{ "bearer": [] }]),
        Needs::Read => json!([{ "bearer": ["read"] }]),
        Needs::Ingest => json!([{ "bearer": ["ingest"] }]),
        Needs::Admin => json!([{ "bearer": ["admin"] }]),
    };
    told.insert("security".to_owned(), scope);
    let mut params: Vec<Value> = operation.place.iter().map(|param| parameter(param, "path")).collect();
    params.extend(operation.params().iter().map(|param| parameter(param, "query")));
    if !params.is_empty() {
        told.insert("parameters".to_owned(), params.into());
    }
    if operation.body != Body::Nothing {
        told.insert("requestBody".to_owned(), body(operation.body));
    }
    told.insert("responses".to_owned(), responses(operation));
    Value::Object(told)
}

fn parameter(param: &Param, place: &str) -> Value {
    let mut told = json!({
        "name": param.name, "in": place, "description": param.doc, "schema": param.kind.schema(),
    });
    if let Some(told) = told.as_object_mut().filter(|_| param.required) {
        told.insert("required".to_owned(), true.into());
    }
    told
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn body(body: Body) -> Value {
    let content: Map<String, Value> = body
        .types()
        .iter()
        .map(|(kind, json)| {
            let schema = json.map_or_else(|| json!({ "type": "string", "minLength": 1 }), schema);
            ((*kind).to_owned(), json!({ "schema": schema }))
        })
        .collect();
    let mebibytes = IMPORT_BYTES_MAX >> 20;
    json!({ "required": true, "description": format!("At most {mebibytes} MiB."), "content": content })
}

fn responses(operation: &Operation) -> Value {
    let mut told = Map::new();
    let content: Map<String, Value> = match operation.answer {
        Answer::Json(name) => {
            [("application/json".to_owned(), json!({ "schema": schema(name) }))].into_iter().collect()
        }
        Answer::JsonOr(name, kinds) => {
            let document = ("application/json".to_owned(), json!({ "schema": schema(name) }));
            let others = kinds.iter().map(|kind| ((*kind).to_owned(), json!({})));
            std::iter::once(document).chain(others).collect()
        }
        Answer::OpenApi => {
            let schema = json!({ "type": "object", "required": ["openapi", "info", "paths"] });
            [("application/json".to_owned(), json!({ "schema": schema }))].into_iter().collect()
        }
        Answer::Text(kinds) => kinds.iter().map(|kind| ((*kind).to_owned(), json!({}))).collect(),
        Answer::Records(kinds) => {
            let line = |kind: &&str| kind.ends_with("ndjson");
            let told = |kind: &&str| {
                if line(kind) { json!({ "x-line-schema": schema("UsageRecord") }) } else { json!({}) }
            };
            kinds.iter().map(|kind| ((*kind).to_owned(), told(kind))).collect()
        }
    };
    told.insert("200".to_owned(), json!({ "description": "Done.", "content": content }));
    let mut statuses: Vec<u16> = match operation.needs {
        Needs::Nothing => vec![400, 500],
        _ => ALWAYS.to_vec(),
    };
    statuses.extend(operation.refuses);
    statuses.sort_unstable();
    for status in statuses {
        let told_as = match status {
            409 | 413 | 422 | 503 if operation.problem != "Problem" => problem(operation.problem),
            401 => with_header("www-authenticate", "What is asked for."),
            429 => with_header("retry-after", "After how many seconds it may be asked again."),
            _ => json!({ "$ref": "#/components/responses/problem" }),
        };
        told.insert(status.to_string(), told_as);
    }
    Value::Object(told)
}

fn problem(name: &str) -> Value {
    json!({
        "description": "It was refused, or failed; the document says why.",
        "content": { "application/problem+json": { "schema": schema(name) } },
    })
}

fn with_header(name: &str, doc: &str) -> Value {
    let mut told = problem("Problem");
    if let Some(told) = told.as_object_mut() {
        let header =
            json!({ name: { "description": doc, "required": true, "schema": { "type": "string" } } });
        told.insert("headers".to_owned(), header);
    }
    told
}
