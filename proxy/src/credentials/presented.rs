//! Where in a request a virtual key stands, and taking it out.
//!
//! A client presents its key as it would its provider's: `authorization: Bearer`, `x-api-key`, `api-key`,
//! `x-goog-api-key`, `x-portkey-api-key`, `?key=` where Google takes one, or as the subprotocol
//! `openai-insecure-api-key.` of a WebSocket; or in `x-bursar-key`, where the provider's own has to pass.
//!
//! Invariants
//! - What begins like a key and stands where one is read, is one or is an error.
//! - Two different keys are an error; so is a key anywhere else in the head, where it might be logged,
//!   recorded or passed on.
//! - What was found is taken out before anything else looks at the request.
//!
//! Not here: whether a key holds (`keys`), the credentials of upstreams (`layers::forward`).

use super::keys::{ID_CHARS, PREFIX, PresentedKey, SECRET_CHARS};
use crate::config::{CREDENTIAL_HEADERS, Dialect};
use crate::layers::query_keys::{is_credential, without};
use http::header::{HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Our own header for a key; like all of ours it is never passed on.
pub const KEY_HEADER: &str = "x-bursar-key";
/// OpenAI's browser clients send their key as one of the subprotocols.
pub const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

const KEY_CHARS: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS;

/// What is wrong with how a key is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresentError {
    /// It begins like a key and is none.
    #[error("what was sent in {0} begins like a Bursar key and is none: check that all of it was copied")]
    Malformed(Place),
    /// There are two, and they differ.
    #[error("the request carries two different Bursar keys: send one")]
    Several,
    /// It stands where none is read.
    #[error(
        "a Bursar key stands in {0}, where none is read: send it as the provider's key, or in x-bursar-key"
    )]
    Misplaced(Place),
}

/// A part of a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A header that carries credentials.
    Header(&'static str),
    /// Any other header. Its name came from the client, and is not repeated.
    OtherHeader,
    /// The path.
    Path,
    /// The query.
    Query,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "the header {name}"),
            Self::OtherHeader => f.write_str("another header"),
            Self::Path => f.write_str("the path"),
            Self::Query => f.write_str("the query"),
        }
    }
}

/// A key that a request carries, and where.
#[derive(Clone, Copy)]
pub struct Found {
    text: [u8; KEY_CHARS],
    in_headers: bool,
    in_query: bool,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Found(not shown)")
    }
}

impl Found {
    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<PresentedKey<'_>> {
        PresentedKey::parse(&self.text)
    }
}

/// The key of a request, if it carries one.
///
/// # Errors
/// What is wrong with how it is carried.
pub fn find(
    headers: &HeaderMap,
    target: &PathAndQuery,
    dialect: Dialect,
) -> Result<Option<Found>, PresentError> {
    let mut finding = Finding::default();
    for (name, value) in headers {
        finding.header(name, value.as_bytes())?;
    }
    finding.target(target, dialect)?;
    Ok(finding.0)
}

#[derive(Default)]
struct Finding(Option<Found>);

impl Finding {
    fn header(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), PresentError> {
        if memchr::memmem::find(value, PREFIX.as_bytes()).is_none() {
            return Ok(());
        }
        if *name == SEC_WEBSOCKET_PROTOCOL {
            let place = Place::Header("sec-websocket-protocol");
            for protocol in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                match protocol.strip_prefix(KEY_PROTOCOL.as_bytes()) {
                    Some(key) if key.starts_with(PREFIX.as_bytes()) => self.header_key(key, place)?,
                    _ if holds_key(protocol) => return Err(PresentError::Misplaced(place)),
                    _ => {}
                }
            }
            return Ok(());
        }
        let Some(place) = credential_header(name) else {
            return if holds_key(value) { Err(PresentError::Misplaced(Place::OtherHeader)) } else { Ok(()) };
        };
        let text = without_scheme(value);
        if text.starts_with(PREFIX.as_bytes()) {
            return self.header_key(text, place);
        }
        if holds_key(value) { Err(PresentError::Malformed(place)) } else { Ok(()) }
    }

    fn header_key(&mut self, text: &[u8], place: Place) -> Result<(), PresentError> {
        self.take(text, place)?.in_headers = true;
        Ok(())
    }

    fn target(&mut self, target: &PathAndQuery, dialect: Dialect) -> Result<(), PresentError> {
        if holds_key(&decoded(target.path())) {
            return Err(PresentError::Misplaced(Place::Path));
        }
        for parameter in target.query().into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = decoded(value);
            if dialect == Dialect::Gemini && is_credential(name) && value.starts_with(PREFIX.as_bytes()) {
                self.take(&value, Place::Query)?.in_query = true;
            } else if holds_key(&value) || holds_key(&decoded(name)) {
                return Err(PresentError::Misplaced(Place::Query));
            }
        }
        Ok(())
    }

    fn take(&mut self, text: &[u8], place: Place) -> Result<&mut Found, PresentError> {
        let whole = PresentedKey::parse(text).and_then(|_| text.try_into().ok());
        let text: [u8; KEY_CHARS] = whole.ok_or(PresentError::Malformed(place))?;
        let found = self.0.get_or_insert(Found { text, in_headers: false, in_query: false });
        // Both came from the same client, so that the time this takes tells it nothing.
        if found.text == text { Ok(found) } else { Err(PresentError::Several) }
    }
}

fn credential_header(name: &HeaderName) -> Option<Place> {
    let names = CREDENTIAL_HEADERS.iter().chain([&KEY_HEADER]);
    names.copied().find(|known| *known == name.as_str()).map(Place::Header)
}

/// The value without its scheme: `Bearer` in any case, and whatever space is around it.
#[must_use]
pub fn without_scheme(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    match value.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
        _ => value,
    }
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    percent_decode_str(text).into()
}

/// Whether something in `text` looks like a key: the beginning, an id, and a secret after it.
fn holds_key(text: &[u8]) -> bool {
    let prefix = PREFIX.as_bytes();
    memchr::memmem::find_iter(text, prefix).any(|at| {
        let rest = text.get(at.saturating_add(prefix.len())..).unwrap_or_default();
        let id = rest.split_at_checked(ID_CHARS);
        id.is_some_and(|(id, rest)| id.iter().all(u8::is_ascii_hexdigit) && rest.first() == Some(&b'_'))
    })
}

/// Takes the key that was found out of its request; the client's other credentials stay.
pub fn take_out(found: &Found, headers: &mut HeaderMap, target: &mut PathAndQuery) {
    if found.in_headers {
        let is_ours = |value: &HeaderValue| without_scheme(value.as_bytes()) == found.text;
        for name in CREDENTIAL_HEADERS.iter().chain([&KEY_HEADER]) {
            if headers.get_all(*name).iter().any(is_ours) {
                headers.remove(*name);
            }
        }
        take_out_of_protocols(headers, |key| key.starts_with(PREFIX));
    }
    if found.in_query
        && let Some(query) = target.query()
    {
        let is_key = |value: &str| decoded(value).starts_with(PREFIX.as_bytes());
        let kept = without(query, |name, value| is_credential(name) && is_key(value));
        let text = kept.map_or_else(|| target.path().to_owned(), |kept| format!("{}?{kept}", target.path()));
        if let Ok(changed) = PathAndQuery::try_from(text) {
            *target = changed;
        }
    }
}

/// Takes out of the subprotocols those that carry a credential of ours.
pub(super) fn take_out_of_protocols(headers: &mut HeaderMap, is_ours: impl Fn(&str) -> bool) {
    let is_key = |name: &str| name.strip_prefix(KEY_PROTOCOL).is_some_and(&is_ours);
    let offered: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if !offered.iter().any(|name| is_key(name)) {
        return;
    }
    let kept: Vec<&str> = offered.into_iter().filter(|name| !is_key(name) && !name.is_empty()).collect();
    let kept = HeaderValue::try_from(kept.join(", "));
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Ok(kept) = kept
        && !kept.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "bursar_0123456789abcdef_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn head(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(&value.replace("KEY", KEY)).unwrap());
        }
        map
    }

    fn target(text: &str) -> PathAndQuery {
        text.replace("KEY", KEY).parse().unwrap()
    }

    /// The key is found, and afterwards no more of it is there than of `left`.
    fn check(headers: &[(&'static str, &str)], path: &str, left: &[(&'static str, &str)], path_left: &str) {
        let (mut headers, mut target) = (head(headers), target(path));
        let found = find(&headers, &target, Dialect::Gemini).unwrap().expect("a key");
        assert!(found.key().is_some());
        take_out(&found, &mut headers, &mut target);
        assert_eq!(headers, head(left));
        assert_eq!(target.as_str(), path_left);
        assert!(!format!("{headers:?}{target:?}{found:?}").contains("00112233"));
    }

    #[test]
    fn a_key_is_found_wherever_a_client_puts_its_providers_and_is_taken_out() {
        for name in ["authorization", "x-api-key", "api-key", "x-goog-api-key", "x-portkey-api-key"] {
            check(&[(name, "KEY"), ("accept", "a")], "/v1", &[("accept", "a")], "/v1");
        }
        for value in ["Bearer KEY", "bearer KEY", "BEARER  KEY ", " KEY"] {
            check(&[("authorization", value)], "/v1", &[], "/v1");
        }
        check(&[], "/v1?key=KEY", &[], "/v1");
        check(&[], "/v1?alt=sse&key=KEY&x=%2F", &[], "/v1?alt=sse&x=%2F");
        check(
            &[],
            "/v1?%6bey=%62ursar_0123456789abcdef_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
            &[],
            "/v1",
        );
        let protocol = "sec-websocket-protocol";
        let offered = "realtime, openai-insecure-api-key.KEY, beta";
        check(&[(protocol, offered)], "/v1", &[(protocol, "realtime, beta")], "/v1");
        check(&[(protocol, "openai-insecure-api-key.KEY")], "/v1", &[], "/v1");
    }

    #[test]
    fn beside_a_key_the_providers_own_stays() {
        let own = ("authorization", "Bearer sk-provider");
        check(&[own, ("x-bursar-key", "KEY")], "/v1", &[own], "/v1");
        check(&[own, ("x-api-key", "KEY")], "/v1?key=AIza", &[own], "/v1?key=AIza");
        check(&[own], "/v1?key=KEY&key=AIza", &[own], "/v1?key=AIza");
        check(&[("authorization", "Bearer KEY"), ("x-api-key", "KEY")], "/v1?key=KEY", &[], "/v1");
    }

    fn check_error(headers: &[(&'static str, &str)], path: &str, dialect: Dialect, expected: PresentError) {
        let error = find(&head(headers), &target(path), dialect).unwrap_err();
        assert_eq!(error, expected, "{headers:?} {path}");
        assert!(!error.to_string().contains("0123456789abcdef"), "{error}");
    }

    #[test]
    fn what_is_no_key_in_full_is_an_error_and_not_nobody() {
        let malformed = PresentError::Malformed(Place::Header("authorization"));
        for value in
            ["Bearer bursar_", "bursar_x", "Bearer KEY0", "Basic KEY", "Bearer KEY KEY", "Bearer x KEY"]
        {
            check_error(&[("authorization", value)], "/v1", Dialect::OpenAi, malformed);
        }
        check_error(&[], "/v1?key=bursar_1", Dialect::Gemini, PresentError::Malformed(Place::Query));
    }

    #[test]
    fn two_different_keys_are_an_error() {
        let other = KEY.replace("0011", "1100");
        let headers = [("authorization", "Bearer KEY"), ("x-api-key", other.as_str())];
        check_error(&headers, "/v1", Dialect::OpenAi, PresentError::Several);
        let twice = [("x-api-key", "KEY"), ("x-api-key", other.as_str())];
        check_error(&twice, "/v1", Dialect::OpenAi, PresentError::Several);
    }

    #[test]
    fn a_key_where_none_is_read_is_an_error() {
        let other = PresentError::Misplaced(Place::OtherHeader);
        for name in ["user-agent", "x-bursar-team", "baggage", "cookie", "openai-project"] {
            check_error(&[(name, "a=KEY")], "/v1", Dialect::OpenAi, other);
        }
        let query = PresentError::Misplaced(Place::Query);
        check_error(&[], "/v1?key=KEY", Dialect::OpenAi, query);
        check_error(&[], "/v1?model=KEY", Dialect::Gemini, query);
        check_error(&[], "/v1?KEY", Dialect::Gemini, query);
        check_error(&[], "/v1/KEY", Dialect::OpenAi, PresentError::Misplaced(Place::Path));
        let escaped = KEY.replace('_', "%5F");
        check_error(&[], &format!("/v1/{escaped}"), Dialect::OpenAi, PresentError::Misplaced(Place::Path));
    }

    #[test]
    fn what_only_sounds_like_a_key_is_none() {
        for value in ["bursar_team", "bursar_0123456789abcdeX_1", "the bursar_ pays"] {
            let found =
                find(&head(&[("x-bursar-team", value)]), &target("/bursar_v1?a=bursar_b"), Dialect::Gemini);
            assert!(found.unwrap().is_none(), "{value}");
        }
    }
}
