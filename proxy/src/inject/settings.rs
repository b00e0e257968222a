//! The settings of the injection: from a YAML file and the command line to what decisions use.
//!
//! Invariants
//! - Unknown keys are errors, and every mistake is told at once.
//! - The defaults need nothing in a pod's namespace: no ConfigMap, no Secret, no claim.
//! - What the sidecar's own configuration would not take is known before the first pod gets one.
//!
//! Not here: the sidecar's settings (`config`).

use super::annotations::{Rerouted, Wishes, is_object_name};
use super::sidecar::{OWN_VARIABLES, Sidecar};
use crate::config::document;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// `--image`
    pub(crate) image: Option<String>,
    /// The text of `--config`.
    pub(crate) file: Option<String>,
}

/// What becomes of a pod that asks for a sidecar in a way that cannot be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnMistake {
    /// It runs without one; why is in warnings, in an annotation and in the log.
    #[default]
    Warn,
    /// It is refused.
    Refuse,
}

/// What sidecars are like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// The sidecar's image.
    pub(super) image: String,
    pub(super) image_pull_policy: String,
    /// Secrets for the image's registry, in the namespace of each pod; each once.
    pub(super) image_pull_secrets: Vec<String>,
    /// ConfigMap with `bursar.yaml`, in the namespace of each pod.
    pub(super) config_map: Option<String>,
    /// Secret with the admin API's `token`, in the namespace of each pod.
    pub(super) admin_secret: Option<String>,
    /// All interfaces, as the admin API is told where it has a token.
    pub(super) bind_address: String,
    /// The source of the ledger's volume.
    pub(super) data_volume: Map<String, Value>,
    pub(super) resources: Value,
    /// Variables of applications, and paths on the sidecar.
    pub(super) base_urls: BTreeMap<String, String>,
    /// Further variables of the sidecar.
    pub(super) env: BTreeMap<String, String>,
    /// How long open requests may take to end.
    pub(super) drain_seconds: u32,
    /// Whether pods on their node's network get one.
    pub(super) host_network: bool,
    pub(super) on_mistake: OnMistake,
}

/// Every mistake in the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct SettingsErrors(Vec<String>);

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the settings of the injection have a mistake: {one}"),
            all => {
                write!(f, "the settings of the injection have {} mistakes:", all.len())?;
                all.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
        }
    }
}

/// The file as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    image: Option<String>,
    image_pull_policy: Option<String>,
    image_pull_secrets: Option<Value>,
    config_map: Option<String>,
    admin_secret: Option<String>,
    bind_address: Option<String>,
    data_volume: Option<Map<String, Value>>,
    resources: Option<Map<String, Value>>,
    base_urls: Option<BTreeMap<String, String>>,
    env: Option<BTreeMap<String, Value>>,
    drain_seconds: Option<u32>,
    host_network: Option<bool>,
    on_mistake: Option<OnMistake>,
}

impl Settings {
    /// Puts file and command line together.
    ///
    /// # Errors
    /// Names every mistake with its key, value and remedy.
    pub(crate) fn read(told: Told) -> Result<Self, SettingsErrors> {
        let mut raw = match &told.file {
            None => Raw::default(),
            Some(text) => document(text)
                .and_then(|value| {
                    // A list would be read as the values of the keys in their order.
                    let is_map = value.is_object();
                    if is_map {
                        Ok(value)
                    } else {
                        Err("the file is no map of keys: write KEY: VALUE".to_owned())
                    }
                })
                .and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()))
                .map_err(|problem| SettingsErrors(vec![problem]))?,
        };
        raw.image = told.image.or(raw.image);
        let mut mistakes = Vec::new();
        let settings = raw.checked(&mut |mistake| mistakes.push(mistake));
        if mistakes.is_empty() { Ok(settings) } else { Err(SettingsErrors(mistakes)) }
    }

    /// The variables of a sidecar as far as another machine can check them: without files that are in pods only.
    pub(crate) fn variables_to_check(&self) -> BTreeMap<String, String> {
        let settings = Self { admin_secret: None, config_map: None, ..self.clone() };
        let wishes = Wishes { team: None, workload: None, config_map: None, rerouted: Rerouted::None };
        Sidecar { settings: &settings, wishes: &wishes }.variables()
    }
}

impl Raw {
    fn checked(self, wrong: &mut impl FnMut(String)) -> Settings {
        let image = self.image.unwrap_or_default();
        if image.is_empty() {
            wrong("image: is not set: name the sidecar's image with --image or in the file".to_owned());
        } else if image.len() > 1024 || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
            wrong(format!("image: {image:?} is no image: write REGISTRY/NAME:TAG"));
        }
        let mut one_of = |key: &str, told: Option<String>, allowed: &[&str]| {
            let told = told.unwrap_or_else(|| allowed.first().copied().unwrap_or_default().to_owned());
            if !allowed.contains(&told.as_str()) {
                wrong(format!("{key}: {told:?} is not one of {}: use one of these", allowed.join(", ")));
            }
            told
        };
        let policies = ["IfNotPresent", "Always", "Never"];
        let image_pull_policy = one_of("image_pull_policy", self.image_pull_policy, &policies);
        let bind_address = one_of("bind_address", self.bind_address, &["0.0.0.0", "[::]"]);
        let mut object = |key: &str, told: Option<String>| {
            let told = told.filter(|name| !name.is_empty())?;
            if !is_object_name(&told) {
                wrong(format!("{key}: {told:?} can be no object's name: use a-z, 0-9, `-` and `.`"));
            }
            Some(told)
        };
        let config_map = object("config_map", self.config_map);
        let admin_secret = object("admin_secret", self.admin_secret);
        let drain_seconds = self.drain_seconds.unwrap_or(30);
        if !(1..=600).contains(&drain_seconds) {
            wrong(format!("drain_seconds: {drain_seconds} is not 1 to 600: choose one of these"));
        }
        Settings {
            image,
            image_pull_policy,
            image_pull_secrets: pull_secrets(self.image_pull_secrets, wrong),
            config_map,
            admin_secret,
            bind_address,
            data_volume: data_volume(self.data_volume, wrong),
            resources: resources(self.resources, wrong),
            base_urls: base_urls(self.base_urls, wrong),
            env: variables(self.env, wrong),
            drain_seconds,
            host_network: self.host_network.unwrap_or(false),
            on_mistake: self.on_mistake.unwrap_or_default(),
        }
    }
}

fn pull_secrets(told: Option<Value>, wrong: &mut impl FnMut(String)) -> Vec<String> {
    let names = match told {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(names)) => names,
        Some(other) => {
            wrong(format!(
                "image_pull_secrets: {other} is no list: write names of Secrets, such as [registry]"
            ));
            return Vec::new();
        }
    };
    let mut secrets: Vec<String> = Vec::new();
    for name in names {
        match name {
            Value::String(name) if is_object_name(&name) => {
                if !secrets.contains(&name) {
                    secrets.push(name);
                }
            }
            Value::String(name) => wrong(format!(
                "image_pull_secrets: {name:?} can be no Secret's name: use a-z, 0-9, `-` and `.`, at most 253 \
                 characters, with a letter or digit at both ends of each part"
            )),
            // Such as an object with `name`, as pods have it.
            other => wrong(format!("image_pull_secrets: {other} is no name: write the Secret's name alone")),
        }
    }
    secrets
}

fn data_volume(told: Option<Map<String, Value>>, wrong: &mut impl FnMut(String)) -> Map<String, Value> {
    let usual = || Map::from_iter([("emptyDir".to_owned(), json!({"sizeLimit": "1Gi"}))]);
    let Some(volume) = told else { return usual() };
    let is_source =
        volume.len() == 1 && volume.values().all(Value::is_object) && !volume.contains_key("name");
    if !is_source {
        wrong(
            "data_volume: is no source of a volume: write one, such as emptyDir: { sizeLimit: 1Gi }".into(),
        );
    }
    volume
}

fn resources(told: Option<Map<String, Value>>, wrong: &mut impl FnMut(String)) -> Value {
    let Some(told) = told else {
        return json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}});
    };
    for (key, value) in &told {
        let is_quantity = |value: &Value| value.is_string() || value.is_number();
        let are_quantities = value.as_object().is_some_and(|each| each.values().all(is_quantity));
        if !["requests", "limits"].contains(&key.as_str()) {
            wrong(format!("resources.{key}: is not known: write requests and limits"));
        } else if !are_quantities {
            wrong(format!("resources.{key}: is no map of quantities: write such as {{ memory: 256Mi }}"));
        }
    }
    Value::Object(told)
}

fn base_urls(
    told: Option<BTreeMap<String, String>>,
    wrong: &mut impl FnMut(String),
) -> BTreeMap<String, String> {
    let usual = || {
        let usual = [("OPENAI_BASE_URL", "/openai/v1"), ("ANTHROPIC_BASE_URL", "/anthropic")];
        usual.into_iter().map(|(name, path)| (name.to_owned(), path.to_owned())).collect()
    };
    let Some(told) = told else { return usual() };
    for (name, path) in &told {
        if !is_variable(name) {
            wrong(format!("base_urls: {name:?} can be no variable's name: use A-Z, 0-9 and _"));
        }
        let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path {
            wrong(format!("base_urls.{name}: {path:?} is no path on the sidecar: write such as /openai/v1"));
        }
    }
    told
}

fn variables(
    told: Option<BTreeMap<String, Value>>,
    wrong: &mut impl FnMut(String),
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in told.unwrap_or_default() {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                wrong(format!("env.{name}: is not one value: write it in quotes"));
                continue;
            }
        };
        if !is_variable(&name) {
            wrong(format!("env: {name:?} can be no variable's name: use A-Z, 0-9 and _"));
        } else if OWN_VARIABLES.contains(&name.as_str()) {
            wrong(format!("env.{name}: the injection sets it: leave it out"));
        }
        variables.insert(name, text);
    }
    variables
}

/// A name that every shell and Kubernetes take.
fn is_variable(name: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let bytes = name.as_bytes();
    bytes.first().is_some_and(is_letter) && bytes.iter().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
