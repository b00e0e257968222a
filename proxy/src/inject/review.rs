//! Admission reviews (`admission.k8s.io/v1`): reading what the API server asks, and answering it.
//!
//! Invariants
//! - Whoever asks with a uid gets an answer with that uid; what has none, or is no review, is an error that
//!   names what is wrong.
//! - An answer allows the pod unless the settings say to refuse mistakes.
//! - The answer to a dry run is that of a real one, since nothing is done but to answer.
//! - Of the pod only what the decision needs is built, and only once per request; the rest is passed over.
//!
//! Not here: what becomes of a pod (`decision`), HTTP (`server`).

use super::annotations::{Mistake, quoted};
use super::decision::{ByDefault, Left, Outcome, decide};
use super::patch::Patch;
use super::settings::{OnMistake, Settings};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// Longest uid; Kubernetes' are UUIDs.
const UID_CHARS_MAX: usize = 128;
/// Longest warning: what API servers pass on.
const WARNING_CHARS_MAX: usize = 250;
/// Most warnings of an answer.
const WARNINGS_MAX: usize = 12;
/// Longest explanation of a refusal.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// Why a body is no review that can be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("the body is no admission review: {0}")]
    Unreadable(String),
    #[error("apiVersion is {0}: send admission.k8s.io/v1 (admissionReviewVersions: [v1])")]
    ApiVersion(String),
    #[error("kind is {0}: send an AdmissionReview")]
    Kind(String),
    #[error("the review has no request: send one, not an answer")]
    NoRequest,
    #[error("request.uid is {0}: send the id of the request")]
    Uid(String),
}

/// What a review came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// The pod gets a sidecar.
    Injected,
    /// It asked for one, and runs without: that cannot be done.
    NotInjected,
    /// Likewise, and it is refused.
    Refused,
    /// Nothing is made, or only a part of a pod.
    NoCreation,
    /// Something else is made.
    NoPod,
    /// The pod is left as it is.
    Left(Left),
}

impl Conclusion {
    pub(super) const ALL: [Self; 11] = {
        let [a, b, c, d, e, f] = Left::ALL;
        [
            Self::Injected,
            Self::NotInjected,
            Self::Refused,
            Self::NoCreation,
            Self::NoPod,
            Self::Left(a),
            Self::Left(b),
            Self::Left(c),
            Self::Left(d),
            Self::Left(e),
            Self::Left(f),
        ]
    };

    /// A word for logs, audit annotations and metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::NotInjected => "not injected",
            Self::Refused => "refused",
            Self::NoCreation => "no creation",
            Self::NoPod => "no pod",
            Self::Left(left) => left.word(),
        }
    }
}

/// An answer, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The review to send.
    pub(super) body: Vec<u8>,
    /// What it came to.
    pub(super) conclusion: Conclusion,
    /// What the pod's owner is told, in warnings or as a refusal.
    pub(super) told: Vec<String>,
    /// The pod's namespace and name, or how its name begins.
    pub(super) pod: String,
    /// Whether nothing will be made.
    pub(super) dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'r> {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(borrow)]
    request: Option<Request<'r>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'r> {
    uid: Option<String>,
    kind: Option<Kind>,
    sub_resource: Option<String>,
    operation: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    dry_run: Option<bool>,
    #[serde(borrow)]
    object: Option<&'r RawValue>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
}

/// Answers the review in `body`.
pub(super) fn answer(body: &[u8], by_default: ByDefault, settings: &Settings) -> Result<Answer, ReviewError> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        // It would be read as the values of the members in their order.
        return Err(ReviewError::Unreadable("it is a list".to_owned()));
    }
    let review: Review<'_> = serde_json::from_slice(body).map_err(|error| {
        let text: String = error.to_string().chars().take(200).collect();
        ReviewError::Unreadable(text)
    })?;
    let told = |text: &Option<String>| text.as_deref().map_or_else(|| "not there".to_owned(), quoted);
    if review.api_version.as_deref() != Some(API_VERSION) {
        return Err(ReviewError::ApiVersion(told(&review.api_version)));
    }
    if review.kind.as_deref() != Some(KIND) {
        return Err(ReviewError::Kind(told(&review.kind)));
    }
    let request = review.request.ok_or(ReviewError::NoRequest)?;
    let is_id = |uid: &&str| !uid.is_empty() && uid.chars().count() <= UID_CHARS_MAX;
    let Some(uid) = request.uid.as_deref().filter(is_id) else {
        return Err(ReviewError::Uid(told(&request.uid)));
    };
    let verdict = verdict(&request, by_default, settings);
    let pod = format!(
        "{}/{}",
        request.namespace.as_deref().unwrap_or_default(),
        verdict.name.as_deref().or(request.name.as_deref()).unwrap_or_default()
    );
    Ok(Answer {
        body: verdict.document(uid).to_string().into_bytes(),
        conclusion: verdict.conclusion,
        told: verdict.refusal.map_or(verdict.warnings, |refusal| vec![refusal]),
        pod: pod.chars().filter(|c| !c.is_control()).take(320).collect(),
        dry_run: request.dry_run.unwrap_or(false),
    })
}

/// What is answered.
#[derive(Debug)]
struct Verdict {
    conclusion: Conclusion,
    patch: Patch,
    warnings: Vec<String>,
    /// Why the pod is refused, if it is.
    refusal: Option<String>,
    /// The pod's name.
    name: Option<String>,
}

impl Verdict {
    /// Nothing changed and nothing said.
    fn silent(conclusion: Conclusion) -> Self {
        Self { conclusion, patch: Patch::default(), warnings: Vec::new(), refusal: None, name: None }
    }

    fn with_warnings(self, warnings: impl IntoIterator<Item = String>) -> Self {
        let warnings = warnings.into_iter().take(WARNINGS_MAX).map(|text| warning(&text)).collect();
        Self { warnings, ..self }
    }

    fn mistaken(mistakes: &[Mistake], patch: Patch, settings: &Settings) -> Self {
        match settings.on_mistake {
            OnMistake::Warn => {
                let told = mistakes.iter().map(|mistake| format!("no sidecar: {mistake}"));
                Self { patch, ..Self::silent(Conclusion::NotInjected) }.with_warnings(told)
            }
            OnMistake::Refuse => {
                let all: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                let text = format!("bursar cannot inject its sidecar: {}", all.join("; "));
                let refusal = text.chars().take(MESSAGE_CHARS_MAX).collect();
                Self { refusal: Some(refusal), ..Self::silent(Conclusion::Refused) }
            }
        }
    }

    fn document(&self, uid: &str) -> Value {
        let mut response = json!({
            "uid": uid,
            "allowed": self.refusal.is_none(),
            "auditAnnotations": {"outcome": self.conclusion.word()},
        });
        if let Some(members) = response.as_object_mut() {
            if !self.patch.is_empty() {
                let patch = STANDARD.encode(self.patch.document().to_string());
                members.insert("patchType".to_owned(), json!("JSONPatch"));
                members.insert("patch".to_owned(), json!(patch));
            }
            if !self.warnings.is_empty() {
                members.insert("warnings".to_owned(), json!(self.warnings));
            }
            if let Some(message) = &self.refusal {
                let status = json!({"code": 422, "reason": "Invalid", "message": message});
                members.insert("status".to_owned(), status);
            }
        }
        json!({"apiVersion": API_VERSION, "kind": KIND, "response": response})
    }
}

fn verdict(request: &Request<'_>, by_default: ByDefault, settings: &Settings) -> Verdict {
    let is_creation = request.operation.as_deref().is_none_or(|operation| operation == "CREATE");
    let is_part = request.sub_resource.as_deref().is_some_and(|part| !part.is_empty());
    if !is_creation || is_part {
        return Verdict::silent(Conclusion::NoCreation);
    }
    let is_pod = |kind: &Kind| kind.group.is_empty() && kind.version == "v1" && kind.kind == "Pod";
    if !request.kind.as_ref().is_some_and(is_pod) {
        let told = request.kind.as_ref().map_or_else(
            || "nothing".to_owned(),
            |kind| quoted(&format!("{}/{} {}", kind.group, kind.version, kind.kind)),
        );
        let text = format!("bursar injects its sidecar into pods (v1), not into {told}: correct its rules");
        return Verdict::silent(Conclusion::NoPod).with_warnings([text]);
    }
    let pod: Value = match request.object.map(|object| serde_json::from_str(object.get())) {
        Some(Ok(pod)) => pod,
        Some(Err(error)) => {
            let shape = Mistake::Shape { path: format!("object ({error})"), wanted: "a pod" };
            return Verdict::mistaken(&[shape], Patch::default(), settings);
        }
        None => {
            let shape = Mistake::Shape { path: "object".to_owned(), wanted: "there" };
            return Verdict::mistaken(&[shape], Patch::default(), settings);
        }
    };
    let verdict = match decide(&pod, by_default, settings) {
        Outcome::Left(left) => Verdict::silent(Conclusion::Left(left)),
        Outcome::Injected { patch, warnings } => {
            Verdict { patch, ..Verdict::silent(Conclusion::Injected) }.with_warnings(warnings)
        }
        Outcome::Mistaken { mistakes, patch } => Verdict::mistaken(&mistakes, patch, settings),
    };
    let name = |key: &str| pod.get("metadata")?.get(key)?.as_str().filter(|name| !name.is_empty());
    Verdict { name: name("name").or_else(|| name("generateName")).map(str::to_owned), ..verdict }
}

/// A warning as API servers pass it on: one line, not too long.
fn warning(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let short: String = line.take(WARNING_CHARS_MAX).collect();
    if text.chars().nth(WARNING_CHARS_MAX).is_some() { format!("{short}…") } else { short }
}

#[cfg(test)]
mod tests;
