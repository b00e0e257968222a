//! What a pod's annotations ask for.
//!
//! Invariants
//! - A value that cannot be understood is a mistake that names the annotation, the value and the remedy;
//!   nothing is guessed.
//! - What is quoted of a pod in a message is short, and has no control characters.
//!
//! Not here: what follows from it (`decision`).

use crate::config::suggest::nearest_of;
use bursar_domain::Label;
use serde_json::{Map, Value};

/// How the names of our annotations begin.
pub(super) const PREFIX: &str = "bursar.dev/";
/// Whether the pod gets a sidecar: `"true"` or `"false"`.
pub(super) const INJECT: &str = "bursar.dev/inject";
/// Who pays; it becomes `identity.team` of the sidecar.
pub(super) const TEAM: &str = "bursar.dev/team";
/// What runs; it becomes `identity.workload` of the sidecar.
pub(super) const WORKLOAD: &str = "bursar.dev/workload";
/// The ConfigMap with the sidecar's `bursar.yaml`.
pub(super) const CONFIG: &str = "bursar.dev/config";
/// The containers that are sent to the sidecar, by names with commas between them.
pub(super) const CONTAINERS: &str = "bursar.dev/containers";
/// Whether any container is sent to the sidecar: `"true"` or `"false"`.
pub(super) const BASE_URLS: &str = "bursar.dev/base-urls";
/// What came of it; the webhook writes it.
pub(super) const STATUS: &str = "bursar.dev/status";

const KNOWN: [&str; 7] = [INJECT, TEAM, WORKLOAD, CONFIG, CONTAINERS, BASE_URLS, STATUS];

/// Most characters of a value that a message quotes.
const QUOTED_CHARS_MAX: usize = 60;

/// Why a pod that asks for a sidecar does not get one. Each message names the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mistake {
    #[error("annotation {0} is not text: put its value in quotes")]
    NotText(&'static str),
    #[error("annotation {annotation} is {value}: write \"true\" or \"false\"")]
    NotAFlag { annotation: &'static str, value: String },
    #[error("annotation {annotation} is {value}: {problem}; write one short name")]
    BadLabel { annotation: &'static str, value: String, problem: String },
    #[error("annotation {CONFIG} is {value}, which no ConfigMap can be called: write the name of one")]
    BadConfigMap { value: String },
    #[error("annotation {CONTAINERS} names {name}, which the pod does not have: it has {known}")]
    UnknownContainer { name: String, known: String },
    #[error("annotation {CONTAINERS} names no container: write names, or {BASE_URLS}: \"false\" for none")]
    NoContainer,
    #[error(
        "the pod is on its node's network, where every pod of the node would reach the sidecar: leave out \
         hostNetwork, or let the webhook's settings allow it (host_network: true)"
    )]
    HostNetwork,
    #[error("the pod is for Windows, and the sidecar's image is for Linux: run a gateway for it")]
    Windows,
    #[error("container {container} has port {port}, which is the sidecar's: give it another")]
    PortTaken { container: String, port: u16 },
    #[error("the pod has a volume {0} already, which the sidecar needs: rename it")]
    VolumeTaken(&'static str),
    #[error(
        "the ledger's volume belongs to root and the sidecar is user 65532: set the pod's \
         securityContext.fsGroup, for example to 65532"
    )]
    NoFsGroup,
    #[error("the pod cannot be read: {path} is not {wanted}")]
    Shape { path: String, wanted: &'static str },
}

/// Which containers get base URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rerouted {
    /// Every container of the application.
    All,
    /// These, which may be init containers too.
    Only(Vec<String>),
    /// None: the application says itself where it sends its requests.
    None,
}

/// What annotations say beside whether there is to be a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) team: Option<Label>,
    pub(super) workload: Option<Label>,
    pub(super) config_map: Option<String>,
    pub(super) rerouted: Rerouted,
}

/// A pod's annotations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Annotations<'a>(Option<&'a Map<String, Value>>);

impl<'a> Annotations<'a> {
    /// Those of `pod`.
    pub(super) fn of(pod: &'a Value) -> Result<Self, Mistake> {
        let object = |path: &str| Mistake::Shape { path: path.to_owned(), wanted: "an object" };
        let pod = pod.as_object().ok_or_else(|| object("object"))?;
        let metadata = match pod.get("metadata") {
            None | Some(Value::Null) => return Ok(Self(None)),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(object("metadata")),
        };
        match metadata.get("annotations") {
            None | Some(Value::Null) => Ok(Self(None)),
            Some(Value::Object(members)) => Ok(Self(Some(members))),
            Some(_) => Err(object("metadata.annotations")),
        }
    }

    /// Whether there is a place to add one.
    pub(super) fn is_there(self) -> bool {
        self.0.is_some()
    }

    /// Whether there is one of this name.
    pub(super) fn has(self, name: &str) -> bool {
        self.0.is_some_and(|members| members.contains_key(name))
    }

    /// The outcome that was written before.
    pub(super) fn status(self) -> Option<&'a str> {
        self.0?.get(STATUS)?.as_str()
    }

    /// Whether there is to be a sidecar; `None` where that is not said.
    pub(super) fn inject(self) -> Result<Option<bool>, Mistake> {
        self.flag(INJECT)
    }

    /// Everything else, or every mistake in it.
    pub(super) fn wishes(self) -> Result<Wishes, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut note = |mistake| mistakes.push(mistake);
        let team = self.label(TEAM).unwrap_or_else(|mistake| {
            note(mistake);
            None
        });
        let workload = self.label(WORKLOAD).unwrap_or_else(|mistake| {
            note(mistake);
            None
        });
        let config_map = self.config_map().unwrap_or_else(|mistake| {
            note(mistake);
            None
        });
        let rerouted = self.rerouted().unwrap_or_else(|mistake| {
            note(mistake);
            Rerouted::None
        });
        if mistakes.is_empty() { Ok(Wishes { team, workload, config_map, rerouted }) } else { Err(mistakes) }
    }

    /// What is said of annotations under our prefix that mean nothing.
    pub(super) fn strangers(self) -> Vec<String> {
        let names = self.0.into_iter().flat_map(Map::keys).map(String::as_str);
        let strangers = names.filter(|name| name.starts_with(PREFIX) && !KNOWN.contains(name));
        strangers
            .map(|name| {
                let meant =
                    nearest_of(name, KNOWN, 1).first().map(|known| format!(": did you mean {known}?"));
                format!("annotation {} means nothing here{}", quoted(name), meant.unwrap_or_default())
            })
            .collect()
    }

    fn text(self, name: &'static str) -> Result<Option<&'a str>, Mistake> {
        match self.0.and_then(|members| members.get(name)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Mistake::NotText(name)),
        }
    }

    fn flag(self, name: &'static str) -> Result<Option<bool>, Mistake> {
        match self.text(name)? {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(Mistake::NotAFlag { annotation: name, value: quoted(other) }),
        }
    }

    fn label(self, name: &'static str) -> Result<Option<Label>, Mistake> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        Label::new(text.trim()).map(Some).map_err(|problem| Mistake::BadLabel {
            annotation: name,
            value: quoted(text),
            problem: problem.to_string(),
        })
    }

    fn config_map(self) -> Result<Option<String>, Mistake> {
        let Some(text) = self.text(CONFIG)? else { return Ok(None) };
        if is_object_name(text) {
            Ok(Some(text.to_owned()))
        } else {
            Err(Mistake::BadConfigMap { value: quoted(text) })
        }
    }

    fn rerouted(self) -> Result<Rerouted, Mistake> {
        if self.flag(BASE_URLS)? == Some(false) {
            return Ok(Rerouted::None);
        }
        let Some(text) = self.text(CONTAINERS)? else { return Ok(Rerouted::All) };
        let names: Vec<String> =
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.is_empty() { Err(Mistake::NoContainer) } else { Ok(Rerouted::Only(names)) }
    }
}

/// Whether a ConfigMap or Secret can be called so: a DNS subdomain (RFC 1123), as Kubernetes asks.
pub(super) fn is_object_name(text: &str) -> bool {
    let is_end = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(is_end)
            && bytes.last().is_some_and(is_end)
            && bytes.iter().all(|byte| is_end(byte) || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A text of a pod's, for a message.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{:?}", format!("{short}{more}"))
}
