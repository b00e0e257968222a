//! Routes as `check --show` prints them: what is in force, written as it could stand in a file.
//!
//! Invariant: a secret is named by its header and never shown.
//!
//! Not here: settings outside routes ([`super::Effective`]).

use super::value::Value;
use super::{Auth, Route};
use std::fmt::Write;

impl Route {
    /// The route with every key, defaults filled in, in one line.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = String::from("{ ");
        let mut put = |key: &str, value: &str| {
            let comma = if text.len() > 2 { ", " } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}{key}: {value}");
        };
        put("prefix", self.name.as_str());
        put("upstream", &self.base_url());
        put("provider", self.provider.as_str());
        put("dialect", self.dialect.as_str());
        put("include_usage", if self.include_usage { "true" } else { "false" });
        match &self.auth {
            Auth::PassThrough => put("auth", "passthrough"),
            Auth::Inject(inject) => {
                put("auth", "inject");
                put("header", inject.header.as_str());
            }
            Auth::SigV4(scope) => {
                put("auth", "sigv4");
                put("signed_for", &format!("{} in {}", scope.service, scope.region));
            }
        }
        if let Some(region) = &self.region {
            put("region", region.as_str());
        }
        put("protocol", &Value::show(&self.protocol));
        put("count", &Value::show(&self.count));
        put("on_abort", &Value::show(&self.on_abort));
        let [connect, response_head, idle] =
            [self.timeouts.connect, self.timeouts.response_head, self.timeouts.idle]
                .map(|time| Value::show(&time));
        put("timeouts", &format!("{{ connect: {connect}, response_head: {response_head}, idle: {idle} }}"));
        let headers = self.response_headers;
        put("response_headers", &format!("{{ request_id: {}, cost: {} }}", headers.request_id, headers.cost));
        put("require_key", if self.require_key { "true" } else { "false" });
        text.push_str(" }");
        text
    }
}
