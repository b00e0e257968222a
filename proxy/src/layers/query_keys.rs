//! Credentials in a query, which Google takes beside those in headers.
//!
//! Invariant: everything else in a query stays as it came, byte by byte.
//!
//! Not here: credentials in headers (`forward`).

use percent_encoding::percent_decode_str;

/// Query parameters that carry a credential, by Google's system parameters
/// (<https://cloud.google.com/apis/docs/system-parameters>); each also exists with a `$` before it.
const CREDENTIALS: [&str; 3] = ["key", "access_token", "oauth_token"];

/// `query` without credentials; `None` when nothing is left of it.
pub(crate) fn without_credentials(query: &str) -> Option<String> {
    without(query, |name, _| is_credential(name))
}

/// `query` without the parameters of these names and values, both as they came; `None` when nothing is left
/// of it.
pub(crate) fn without(query: &str, goes: impl Fn(&str, &str) -> bool) -> Option<String> {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            !goes(name, value)
        })
        .collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// Whether a parameter of this name, as it came, carries a credential.
pub(crate) fn is_credential(name: &str) -> bool {
    let name = percent_decode_str(name).decode_utf8_lossy();
    CREDENTIALS.contains(&name.trim_start_matches('$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_and_the_rest_stays_as_it_came() {
        for (query, expected) in [
            ("alt=sse", Some("alt=sse")),
            ("alt=sse&key=k", Some("alt=sse")),
            ("key=k&alt=sse&key=j", Some("alt=sse")),
            ("%24%6bey=k&a=%2F+b&&c", Some("a=%2F+b&&c")),
            ("access_token=t", None),
            ("oauth_token", None),
            ("Key=k&keys=1", Some("Key=k&keys=1")),
            ("", Some("")),
        ] {
            assert_eq!(without_credentials(query).as_deref(), expected, "{query}");
        }
    }
}
