//! What becomes of a pod: a pure function of the pod, of who asks, and of the settings.
//!
//! Invariants
//! - A pod that has a container called `bursar` is left alone, so asking twice changes nothing.
//! - Where anything that was asked for cannot be done, nothing is done, every reason is told, and the pod runs
//!   as it would have without us.
//! - A variable that a container has is never set again.
//!
//! Not here: requests and replies (`review`), what the sidecar looks like (`sidecar`).

use super::annotations::{Annotations, CONTAINERS, Mistake, Rerouted, STATUS, Wishes, quoted};
use super::patch::{Patch, Step};
use super::settings::Settings;
use super::sidecar::{self, ADMIN_PORT, CONTAINER, DATA, PORT, Sidecar};
use serde_json::{Map, Value, json};

/// Who has a sidecar by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByDefault {
    /// Nobody: a pod's annotation asks for it.
    Without,
    /// Every pod, unless its annotation says otherwise: its namespace asks for it.
    With,
}

/// Why a pod is left as it is, without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Its annotation does not ask.
    NotAsked,
    /// Its annotation says `"false"`.
    OptedOut,
    /// It has the container already.
    AlreadyThere,
    /// It is the image of a pod that a node runs by itself, which nobody may change.
    Mirror,
    /// Its namespace asks, and it is on its node's network.
    HostNetwork,
    /// Its namespace asks, and it is for Windows.
    Windows,
}

impl Left {
    pub(super) const ALL: [Self; 6] =
        [Self::NotAsked, Self::OptedOut, Self::AlreadyThere, Self::Mirror, Self::HostNetwork, Self::Windows];

    /// A word for logs and audit annotations.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not asked",
            Self::OptedOut => "opted out",
            Self::AlreadyThere => "already there",
            Self::Mirror => "mirror pod",
            Self::HostNetwork => "host network",
            Self::Windows => "windows",
        }
    }
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing.
    Left(Left),
    /// It gets a sidecar.
    Injected {
        /// What puts it there.
        patch: Patch,
        /// What its owner should know.
        warnings: Vec<String>,
    },
    /// It asked for one and does not get it.
    Mistaken {
        /// Every reason.
        mistakes: Vec<Mistake>,
        /// What notes the first reason in the pod; it may be nothing.
        patch: Patch,
    },
}

/// Decides.
pub(super) fn decide(pod: &Value, default: ByDefault, settings: &Settings) -> Outcome {
    if has_sidecar(pod) {
        return Outcome::Left(Left::AlreadyThere);
    }
    let annotations = match Annotations::of(pod) {
        Ok(annotations) => annotations,
        // There is no place for a note.
        Err(mistake) => return Outcome::Mistaken { mistakes: vec![mistake], patch: Patch::default() },
    };
    let asked = match (annotations.inject(), default) {
        (Ok(Some(false)), _) => return Outcome::Left(Left::OptedOut),
        (Ok(None), ByDefault::Without) => return Outcome::Left(Left::NotAsked),
        (Ok(None), ByDefault::With) => Asked::ByNamespace,
        (Ok(Some(true)), _) => Asked::ByAnnotation,
        (Err(mistake), _) => return mistaken(vec![mistake], pod, annotations),
    };
    let pod_parts = match Pod::read(pod, annotations) {
        Ok(parts) => parts,
        Err(mistake) => return mistaken(vec![mistake], pod, annotations),
    };
    if let Some(left) = pod_parts.left(asked, settings) {
        return Outcome::Left(left);
    }
    match pod_parts.inject(settings) {
        Ok((mut patch, warnings)) => {
            note(&mut patch, pod, annotations, "injected");
            Outcome::Injected { patch, warnings }
        }
        Err(mistakes) => mistaken(mistakes, pod, annotations),
    }
}

/// Whether there is a container of the sidecar's name, whatever else the pod is like.
fn has_sidecar(pod: &Value) -> bool {
    let is_ours = |container: &Value| container.get("name").and_then(Value::as_str) == Some(CONTAINER);
    let spec = pod.get("spec");
    ["initContainers", "containers"]
        .iter()
        .filter_map(|list| spec?.get(list)?.as_array())
        .any(|containers| containers.iter().any(is_ours))
}

fn mistaken(mistakes: Vec<Mistake>, pod: &Value, annotations: Annotations<'_>) -> Outcome {
    let mut patch = Patch::default();
    if let Some(first) = mistakes.first() {
        let others = match mistakes.len().saturating_sub(1) {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        note(&mut patch, pod, annotations, &format!("not injected: {first}{others}"));
    }
    Outcome::Mistaken { mistakes, patch }
}

/// Notes in the pod what came of it: who makes pods from templates sees no warnings.
fn note(patch: &mut Patch, pod: &Value, annotations: Annotations<'_>, status: &str) {
    if annotations.status() == Some(status) {
        return;
    }
    let (metadata, members, status) = (Step::Key("metadata"), Step::Key("annotations"), json!(status));
    if annotations.is_there() {
        patch.add(&[metadata, members, Step::Key(STATUS)], status);
    } else if pod.get("metadata").is_some_and(Value::is_object) {
        patch.add(&[metadata, members], json!({STATUS: status}));
    } else {
        patch.add(&[metadata], json!({"annotations": {STATUS: status}}));
    }
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    ByAnnotation,
    ByNamespace,
}

/// A container of the pod, and where it is.
#[derive(Clone, Copy, Debug)]
struct Container<'a> {
    list: &'static str,
    index: usize,
    members: &'a Map<String, Value>,
}

impl<'a> Container<'a> {
    fn name(&self) -> &'a str {
        self.members.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    fn path(&self) -> String {
        format!("spec.{}[{}]", self.list, self.index)
    }

    /// Its variables; `None` where it has no list of them.
    fn variables(&self) -> Result<Option<Vec<&'a Map<String, Value>>>, Mistake> {
        objects(self.members.get("env"), || format!("{}.env", self.path()))
    }

    /// A port of ours that it has.
    fn taken_port(&self) -> Result<Option<u16>, Mistake> {
        let ports = objects(self.members.get("ports"), || format!("{}.ports", self.path()))?;
        let numbers: Vec<u64> = ports
            .into_iter()
            .flatten()
            .filter_map(|port| port.get("containerPort").and_then(Value::as_u64))
            .collect();
        Ok([PORT, ADMIN_PORT].into_iter().find(|ours| numbers.contains(&u64::from(*ours))))
    }
}

/// The parts of a pod that matter here, each of the type that it must have.
#[derive(Debug)]
struct Pod<'a> {
    annotations: Annotations<'a>,
    spec: &'a Map<String, Value>,
    containers: Vec<Container<'a>>,
    init_containers: Option<Vec<Container<'a>>>,
    volumes: Option<Vec<&'a Map<String, Value>>>,
    grace_seconds: u64,
}

impl<'a> Pod<'a> {
    fn read(pod: &'a Value, annotations: Annotations<'a>) -> Result<Self, Mistake> {
        let shape = |path: &str, wanted| Mistake::Shape { path: path.to_owned(), wanted };
        let spec = pod.get("spec").and_then(Value::as_object).ok_or_else(|| shape("spec", "an object"))?;
        let grace = match spec.get("terminationGracePeriodSeconds") {
            // Kubernetes' own default.
            None | Some(Value::Null) => 30,
            Some(told) => told
                .as_u64()
                .filter(|seconds| i64::try_from(*seconds).is_ok())
                .ok_or_else(|| shape("spec.terminationGracePeriodSeconds", "a number of seconds"))?,
        };
        Ok(Self {
            annotations,
            spec,
            containers: containers(spec, "containers")?.unwrap_or_default(),
            init_containers: containers(spec, "initContainers")?,
            volumes: objects(spec.get("volumes"), || "spec.volumes".to_owned())?,
            grace_seconds: grace,
        })
    }

    /// Every container, those of the application first.
    fn all(&self) -> impl Iterator<Item = &Container<'a>> {
        self.containers.iter().chain(self.init_containers.iter().flatten())
    }

    fn left(&self, asked: Asked, settings: &Settings) -> Option<Left> {
        if self.annotations.has("kubernetes.io/config.mirror") {
            return Some(Left::Mirror);
        }
        if asked == Asked::ByAnnotation {
            return None;
        }
        if self.is_on_host_network() && !settings.host_network {
            return Some(Left::HostNetwork);
        }
        self.is_for_windows().then_some(Left::Windows)
    }

    fn is_on_host_network(&self) -> bool {
        self.spec.get("hostNetwork") == Some(&Value::Bool(true))
    }

    fn is_for_windows(&self) -> bool {
        let told = |outer: &str, inner: &str| self.spec.get(outer)?.get(inner)?.as_str();
        [told("os", "name"), told("nodeSelector", "kubernetes.io/os")].contains(&Some("windows"))
    }

    /// What puts a sidecar into the pod, or why that cannot be.
    fn inject(&self, settings: &Settings) -> Result<(Patch, Vec<String>), Vec<Mistake>> {
        let mut mistakes = self.obstacles(settings);
        let wishes = self.annotations.wishes().map_err(|found| mistakes.extend(found));
        let Ok(wishes) = wishes else { return Err(mistakes) };
        let sidecar = Sidecar { settings, wishes: &wishes };
        let volumes = sidecar.volumes(self.own_data().is_some());
        for &(name, _) in &volumes {
            if self.volume(name).is_some() {
                mistakes.push(Mistake::VolumeTaken(name));
            }
        }
        let (mut patch, mut warnings) = (Patch::default(), self.annotations.strangers());
        match self.rerouted(&wishes) {
            Ok(chosen) => {
                for container in chosen {
                    match reroute(container, &sidecar, &mut patch) {
                        Ok(warning) => warnings.extend(warning),
                        Err(mistake) => mistakes.push(mistake),
                    }
                }
            }
            Err(unknown) => mistakes.extend(unknown),
        }
        if let Err(mistake) = self.add_pull_secrets(settings, &mut patch) {
            mistakes.push(mistake);
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let spec = Step::Key("spec");
        let grace = sidecar.grace_seconds(self.grace_seconds);
        patch.add(&[spec, Step::Key("terminationGracePeriodSeconds")], json!(grace));
        self.add_volumes(&mut patch, volumes.into_iter().map(|(_, volume)| volume));
        // The last, since it moves the other init containers.
        let (list, container) = (Step::Key("initContainers"), sidecar.container(self.own_data().is_some()));
        match self.init_containers {
            // The first of them: later ones may use it.
            Some(_) => patch.add(&[spec, list, Step::Index(0)], container),
            None => patch.add(&[spec, list], json!([container])),
        }
        Ok((patch, warnings))
    }

    /// What keeps a sidecar out, whatever the annotations say.
    fn obstacles(&self, settings: &Settings) -> Vec<Mistake> {
        let mut found = Vec::new();
        if self.is_on_host_network() && !settings.host_network {
            found.push(Mistake::HostNetwork);
        }
        if self.is_for_windows() {
            found.push(Mistake::Windows);
        }
        for container in self.all() {
            match container.taken_port() {
                Ok(None) => {}
                Ok(Some(port)) => {
                    found.push(Mistake::PortTaken { container: quoted(container.name()), port });
                }
                Err(mistake) => found.push(mistake),
            }
        }
        let anybody_writes = match self.own_data() {
            Some(volume) => volume.contains_key("emptyDir"),
            None => settings.data_volume.contains_key("emptyDir"),
        };
        let group = self.spec.get("securityContext").and_then(|context| context.get("fsGroup"));
        if !anybody_writes && !group.is_some_and(Value::is_u64) {
            found.push(Mistake::NoFsGroup);
        }
        found
    }

    /// The containers that are sent to the sidecar, or those that are not there.
    fn rerouted(&self, wishes: &Wishes) -> Result<Vec<&Container<'a>>, Vec<Mistake>> {
        let names = match &wishes.rerouted {
            Rerouted::None => return Ok(Vec::new()),
            Rerouted::All => return Ok(self.containers.iter().collect()),
            Rerouted::Only(names) => names,
        };
        let unknown: Vec<Mistake> = names
            .iter()
            .filter(|name| !self.all().any(|container| container.name() == name.as_str()))
            .map(|name| Mistake::UnknownContainer { name: quoted(name), known: self.known() })
            .collect();
        if unknown.is_empty() {
            Ok(self.all().filter(|container| names.iter().any(|name| name == container.name())).collect())
        } else {
            Err(unknown)
        }
    }

    fn known(&self) -> String {
        let names: Vec<String> = self.all().take(10).map(|container| quoted(container.name())).collect();
        names.join(", ")
    }

    fn volume(&self, name: &str) -> Option<&'a Map<String, Value>> {
        let named = |volume: &&&Map<String, Value>| volume.get("name").and_then(Value::as_str) == Some(name);
        self.volumes.iter().flatten().find(named).copied()
    }

    /// The volume that the pod has for the ledger, as pods of a StatefulSet with a claim do.
    fn own_data(&self) -> Option<&'a Map<String, Value>> {
        self.volume(DATA)
    }

    /// Adds the Secrets for the sidecar's image that the pod does not name. Its own come first; a kubelet
    /// tries all of them.
    fn add_pull_secrets(&self, settings: &Settings, patch: &mut Patch) -> Result<(), Mistake> {
        if settings.image_pull_secrets.is_empty() {
            return Ok(());
        }
        let (spec, list) = (Step::Key("spec"), Step::Key("imagePullSecrets"));
        let there = objects(self.spec.get("imagePullSecrets"), || "spec.imagePullSecrets".to_owned())?;
        let is_there = |name: &str| {
            let mut names = there.iter().flatten().filter_map(|secret| secret.get("name")?.as_str());
            names.any(|there| there == name)
        };
        let missing = settings.image_pull_secrets.iter().filter(|name| !is_there(name));
        let missing = missing.map(|name| json!({"name": name}));
        if there.is_some() {
            missing.for_each(|secret| patch.add(&[spec, list, Step::End], secret));
        } else {
            patch.add(&[spec, list], missing.collect());
        }
        Ok(())
    }

    fn add_volumes(&self, patch: &mut Patch, volumes: impl Iterator<Item = Value>) {
        let (spec, list) = (Step::Key("spec"), Step::Key("volumes"));
        if self.volumes.is_some() {
            volumes.for_each(|volume| patch.add(&[spec, list, Step::End], volume));
            return;
        }
        let all: Vec<Value> = volumes.collect();
        if !all.is_empty() {
            patch.add(&[spec, list], Value::Array(all));
        }
    }
}

/// Adds the base URLs that a container does not have, and says what its owner should know.
fn reroute(
    container: &Container<'_>,
    sidecar: &Sidecar<'_>,
    patch: &mut Patch,
) -> Result<Option<String>, Mistake> {
    let there = container.variables()?;
    let is_set = |name: &str| {
        let mut names = there.iter().flatten().filter_map(|variable| variable.get("name")?.as_str());
        names.any(|there| there == name)
    };
    let missing: Vec<(&str, String)> = sidecar.base_urls().filter(|(name, _)| !is_set(name)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let place = [Step::Key("spec"), Step::Key(container.list), Step::Index(container.index)];
    let env = [place.as_slice(), &[Step::Key("env")]].concat();
    let values = missing.iter().map(|(name, url)| sidecar::variable(name, url));
    if there.is_some() {
        let end = [env.as_slice(), &[Step::End]].concat();
        values.for_each(|value| patch.add(&end, value));
    } else {
        patch.add(&env, values.collect());
    }
    let has_more = container.members.get("envFrom").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    Ok(has_more.then(|| {
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        format!(
            "container {}: {} win over variables of the same names from envFrom; leave it out of {CONTAINERS} \
             if that is wrong",
            quoted(container.name()),
            names.join(" and ")
        )
    }))
}

fn containers<'a>(
    spec: &'a Map<String, Value>,
    list: &'static str,
) -> Result<Option<Vec<Container<'a>>>, Mistake> {
    let found = objects(spec.get(list), || format!("spec.{list}"))?;
    Ok(found.map(|found| {
        let each = found.into_iter().enumerate();
        each.map(|(index, members)| Container { list, index, members }).collect()
    }))
}

/// A list of objects; `None` where there is none.
fn objects(
    value: Option<&Value>,
    path: impl Fn() -> String,
) -> Result<Option<Vec<&Map<String, Value>>>, Mistake> {
    let wrong = || Mistake::Shape { path: path(), wanted: "a list of objects" };
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => {
            items.iter().map(Value::as_object).collect::<Option<Vec<_>>>().map(Some).ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests;
