//! Everything that can go wrong with a request before its reply is relayed.
//!
//! Not here: which status and body that becomes (`layers::respond`).

use crate::aws::SignError;
use crate::budgets::Refusal;
use crate::config::Dialect;
use crate::credentials::refusals::Standing;
use crate::credentials::tokens::TokenError;
use crate::exchange::{AccessRefusal, Denied};
use crate::guard::Rejection;
use crate::layers::authenticate::CredentialError;
use crate::layers::identify::IdentityError;
use crate::limits::LimitRefusal;
use crate::rules::RuleRefusal;
use crate::upstream::{ConnectError, SendError};
use bursar_domain::{Label, RequestId};
use std::collections::HashSet;
use std::time::Duration;

/// A failure and how the client expects to be told.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// The API family whose error shape the client understands.
    pub dialect: Dialect,
    /// The request's id, if it got one.
    pub request: Option<RequestId>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum FailureKind {
    /// The head was not strict HTTP, or over a limit.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No route has this prefix.
    #[error("no route for {path}: use a prefix such as /openai or /anthropic, or add one under routes")]
    NoRoute {
        /// The path asked for.
        path: String,
    },
    /// The request asks to leave HTTP.
    #[error(
        "no WebSocket is served here: realtime sessions are, on paths such as /openai/v1/realtime; other upgrades of a connection are not supported"
    )]
    Upgrade,
    /// The request for a WebSocket is none.
    #[error(transparent)]
    Handshake(#[from] Handshake),
    /// The request's identity is missing or malformed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The request's credential is missing or does not hold.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The request's credential, or a rule, does not allow what it asks for.
    #[error("{0}")]
    Access(Box<AccessRefusal>),
    /// The body is over the limit.
    #[error("the request body is larger than {limit} bytes: raise server.limits.body_bytes")]
    BodyTooLarge {
        /// The limit.
        limit: u64,
    },
    /// The body is too large to be signed.
    #[error(
        "the request body is larger than {limit} bytes, the most that is held to be signed (auth: sigv4)"
    )]
    BodyTooLargeToSign {
        /// The limit.
        limit: u64,
    },
    /// The request could not be signed.
    #[error(transparent)]
    Unsigned(#[from] SignError),
    /// The client's body broke off.
    #[error("the request body ended early or was not valid")]
    BodyBroken,
    /// The ledger cannot record, and the configuration says that nothing passes unrecorded.
    #[error("the ledger cannot record usage ({reason}) and ledger.fail is closed")]
    LedgerClosed {
        /// Why not.
        reason: String,
    },
    /// A budget refuses the request.
    #[error("{0}")]
    Budget(Box<Refusal>),
    /// A limit refuses the request.
    #[error("{0}")]
    Limit(Box<LimitRefusal>),
    /// A rule refuses the request.
    #[error("{0}")]
    Rule(Box<RuleRefusal>),
    /// The upstream could not be reached or broke before its head.
    #[error("upstream: {}{} (route {route})", chain(.error), remedy(.error))]
    Upstream {
        /// The route.
        route: Label,
        /// What happened.
        error: SendError,
    },
    /// The upstream did not answer in time.
    #[error(
        "upstream: no reply within {timeout:?}: raise upstream.timeouts.response_head for long calls (route {route})"
    )]
    UpstreamTimeout {
        /// The route.
        route: Label,
        /// The configured time.
        timeout: Duration,
    },
}

/// The reasons of [`FailureKind::refusal`] that have no other home.
const REASONS: [&str; 14] = [
    "no_route",
    "upgrade_not_supported",
    "bad_handshake",
    "identity_missing",
    "identity_contradicted",
    "workload_missing",
    "bad_tag",
    "body_too_large",
    "not_signed",
    "body_broken",
    "ledger_unavailable",
    "budget_exceeded",
    "rate_limited",
    "rule_denied",
];

/// Every reason for which Bursar itself may turn a request away, each once.
pub(crate) fn refusals() -> impl Iterator<Item = &'static str> {
    let rejections = Rejection::ALL.iter().map(|rejection| rejection.name());
    let others = [&REASONS[..], &CredentialError::REASONS, &TokenError::REASONS, &Denied::REASONS];
    let mut known = HashSet::new();
    rejections.chain(others.into_iter().flatten().copied()).filter(move |reason| known.insert(*reason))
}

impl FailureKind {
    /// Why Bursar itself turned the request away, as metrics and logs name it: one of a fixed set.
    /// `None` where the upstream failed.
    #[must_use]
    pub const fn refusal(&self) -> Option<&'static str> {
        Some(match self {
            Self::Rejected(rejection) => rejection.name(),
            Self::NoRoute { .. } => "no_route",
            Self::Upgrade => "upgrade_not_supported",
            Self::Handshake(_) => "bad_handshake",
            Self::Identity(IdentityError::Missing { .. }) => "identity_missing",
            Self::Identity(IdentityError::Contradicts { .. }) => "identity_contradicted",
            Self::Identity(IdentityError::WorkloadUnnamed { .. }) => "workload_missing",
            Self::Credential(error) => error.reason(),
            Self::Access(refusal) => refusal.denied.reason(),
            Self::Identity(IdentityError::BadLabel { .. } | IdentityError::UnknownHeader { .. }) => "bad_tag",
            Self::BodyTooLarge { .. } | Self::BodyTooLargeToSign { .. } => "body_too_large",
            Self::Unsigned(_) => "not_signed",
            Self::BodyBroken => "body_broken",
            Self::LedgerClosed { .. } => "ledger_unavailable",
            Self::Budget(_) => "budget_exceeded",
            Self::Limit(_) => "rate_limited",
            Self::Rule(_) => "rule_denied",
            Self::Upstream { .. } | Self::UpstreamTimeout { .. } => return None,
        })
    }
}

impl FailureKind {
    /// Whether a refusal is remembered for `why`, and with those of whom. Budgets and limits remember their
    /// own.
    #[must_use]
    pub const fn standing(&self) -> Option<Standing> {
        match self {
            Self::Credential(_) => Some(Standing::Stranger),
            Self::Identity(_) | Self::Access(_) => Some(Standing::Known),
            _ => None,
        }
    }

    /// The rule, key or issuer that a remembered refusal names.
    #[must_use]
    pub fn rule(&self) -> Option<&Label> {
        match self {
            Self::Credential(error) => error.rule(),
            Self::Identity(error) => error.rule(),
            Self::Access(refusal) => Some(&refusal.rule),
            _ => None,
        }
    }
}

/// What to do about an upstream that gave no reply.
const fn remedy(error: &SendError) -> &'static str {
    match error {
        SendError::Connect(ConnectError::Tcp { .. }) => ": start it, or correct the `upstream` of this route",
        SendError::Connect(ConnectError::TimedOut { .. }) => {
            ": start it, correct the `upstream` of this route, or raise upstream.timeouts.connect"
        }
        SendError::Connect(ConnectError::Tls { .. }) => {
            ": correct the `upstream` of this route, or name its certificate authority in upstream.ca_file"
        }
        SendError::Connect(ConnectError::ServerName(_) | ConnectError::NotPermitted { .. }) => {
            ": correct the `upstream` of this route"
        }
        SendError::Connect(ConnectError::NoHttp2(_)) => ": write protocol: auto or protocol: http1 there",
        SendError::Connect(ConnectError::ClosedAtOnce) | SendError::Broken(_) => {
            ": if it goes on, see what the upstream logs, and whether `upstream` has the right scheme and port"
        }
        SendError::Refused(_) | SendError::Switched => "",
    }
}

/// What is wrong with a client's WebSocket handshake (RFC 6455 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Handshake {
    /// Not every header that it needs is there.
    #[error(
        "malformed WebSocket handshake: send GET in HTTP/1.1 with `Connection: Upgrade`, `Upgrade: websocket` and one Sec-WebSocket-Key of 16 bytes"
    )]
    Malformed,
    /// Another version of the protocol.
    #[error("unsupported WebSocket version: send `Sec-WebSocket-Version: 13`")]
    Version,
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts in quotes of the function that begins with `head` in `source`.
    fn quoted<'s>(source: &'s str, head: &str) -> Vec<&'s str> {
        let (_, body) = source.split_once(head).unwrap();
        let (body, _) = body.split_once("\n    }\n").unwrap();
        body.split('"').skip(1).step_by(2).collect()
    }

    #[test]
    fn every_reason_that_the_code_names_is_listed_once() {
        let sources = [
            (include_str!("failure.rs"), "pub const fn refusal("),
            (include_str!("layers/authenticate.rs"), "pub const fn reason("),
            (include_str!("credentials/tokens.rs"), "pub const fn reason("),
            (include_str!("exchange/access.rs"), "pub const fn reason("),
        ];
        let named = sources.iter().flat_map(|(source, head)| quoted(source, head));
        let rejections = Rejection::ALL.iter().map(|rejection| rejection.name());
        let mut named: Vec<_> = named.chain(rejections).collect();
        named.sort_unstable();
        named.dedup();
        let mut listed: Vec<_> = refusals().collect();
        listed.sort_unstable();
        assert_eq!(listed, named);
        assert!(listed.len() > 80, "the reader of sources works: {}", listed.len());
    }
}
