//! The sidecar as it stands in a pod: its container and its volumes.
//!
//! Invariants
//! - It is what `deploy/kubernetes/sidecar.yaml` has: a check compares the two.
//! - Text that comes from annotations or settings is never expanded: Kubernetes would put other variables in
//!   the place of `$(NAME)`.
//! - Where the sidecar has no Secret with a token, its admin API is on loopback and probes are commands, so
//!   that an injected pod needs nothing in its namespace.
//!
//! Not here: where they are put (`decision`), what may be set (`settings`).

use super::annotations::Wishes;
use super::settings::Settings;
use super::volume;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The container's name; a pod that has one of this name is left alone.
pub(super) const CONTAINER: &str = "bursar";
/// The volume of the ledger; a pod's own volume of this name is used instead of a new one.
pub(super) const DATA: &str = "bursar-data";
/// The volume of the ConfigMap.
pub(super) const CONFIG: &str = "bursar-config";
/// The volume of the admin API's token.
pub(super) const ADMIN: &str = "bursar-admin";

/// The proxy's port, on loopback.
pub(super) const PORT: u16 = 4141;
/// The admin API's port.
pub(super) const ADMIN_PORT: u16 = 4142;

/// Seconds to close the ledger after the drain.
const CLOSING_SECONDS: u64 = 15;

/// Variables of the container that the injection decides.
pub(super) const OWN_VARIABLES: [&str; 7] = [
    "BURSAR_CONFIG",
    "BURSAR_LISTEN",
    "BURSAR_ADMIN_LISTEN",
    "BURSAR_ADMIN_TOKEN_FILE",
    "BURSAR_DATA_DIR",
    "BURSAR_LEDGER_PATH",
    "BURSAR_SERVER_TIMEOUTS_DRAIN",
];

/// A sidecar for one pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sidecar<'a> {
    pub(super) settings: &'a Settings,
    pub(super) wishes: &'a Wishes,
}

impl Sidecar<'_> {
    fn config_map(&self) -> Option<&str> {
        self.wishes.config_map.as_deref().or(self.settings.config_map.as_deref())
    }

    /// The init container, with `restartPolicy: Always` a native sidecar.
    /// Where the pod `has_data`, the size of its ledger's volume is its own business.
    pub(super) fn container(&self, has_data: bool) -> Value {
        let mut container = json!({
            "name": CONTAINER,
            "image": self.settings.image,
            "imagePullPolicy": self.settings.image_pull_policy,
            "args": ["serve"],
            "restartPolicy": "Always",
            "env": self.environment(has_data),
            "resources": self.settings.resources,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": self.mounts(),
        });
        if let Some(members) = container.as_object_mut() {
            for (name, value) in self.probes() {
                members.insert(name.to_owned(), value);
            }
            if self.settings.admin_secret.is_some() {
                let ports = json!([{"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}]);
                members.insert("ports".to_owned(), ports);
            }
        }
        container
    }

    /// The volumes and their names, but for the ledger's where the pod `has_data`.
    pub(super) fn volumes(&self, has_data: bool) -> Vec<(&'static str, Value)> {
        let mut volumes = Vec::new();
        if !has_data {
            let mut volume = self.settings.data_volume.clone();
            volume.insert("name".to_owned(), json!(DATA));
            volumes.push((DATA, Value::Object(volume)));
        }
        if let Some(name) = self.config_map() {
            volumes.push((CONFIG, json!({"name": CONFIG, "configMap": {"name": name}})));
        }
        if let Some(name) = &self.settings.admin_secret {
            let secret = json!({"secretName": name, "defaultMode": 0o444});
            volumes.push((ADMIN, json!({"name": ADMIN, "secret": secret})));
        }
        volumes
    }

    /// How long the pod may take to end, when its application may take `seconds`: the sidecar is told after
    /// it, drains and closes its ledger.
    pub(super) fn grace_seconds(&self, seconds: u64) -> u64 {
        seconds.saturating_add(u64::from(self.settings.drain_seconds)).saturating_add(CLOSING_SECONDS)
    }

    /// The variables that send an application's SDKs to the sidecar.
    pub(super) fn base_urls(&self) -> impl Iterator<Item = (&str, String)> {
        let urls = self.settings.base_urls.iter();
        urls.map(|(name, path)| (name.as_str(), format!("http://127.0.0.1:{PORT}{path}")))
    }

    /// The variables of the sidecar. Those of the settings come first, so that annotations win over them.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.settings.env.clone();
        let mut set = |name: &str, value: &str| variables.insert(name.to_owned(), value.to_owned());
        set("BURSAR_LISTEN", &format!("127.0.0.1:{PORT}"));
        set("BURSAR_DATA_DIR", "/var/lib/bursar/ledger");
        set("BURSAR_SERVER_TIMEOUTS_DRAIN", &format!("{}s", self.settings.drain_seconds));
        if self.settings.admin_secret.is_some() {
            let address = &self.settings.bind_address;
            set("BURSAR_ADMIN_LISTEN", &format!("{address}:{ADMIN_PORT}"));
            set("BURSAR_ADMIN_TOKEN_FILE", "/run/secrets/bursar-admin/token");
        } else {
            set("BURSAR_ADMIN_LISTEN", &format!("127.0.0.1:{ADMIN_PORT}"));
        }
        if self.config_map().is_some() {
            set("BURSAR_CONFIG", "/etc/bursar/bursar.yaml");
        }
        if let Some(team) = &self.wishes.team {
            set("BURSAR_IDENTITY_TEAM", team.as_str());
        }
        if let Some(workload) = &self.wishes.workload {
            set("BURSAR_IDENTITY_WORKLOAD", workload.as_str());
        }
        variables
    }

    fn environment(&self, has_data: bool) -> Value {
        let mut variables = self.variables();
        if !has_data && let Some(mib) = volume::mib_max(&self.settings.data_volume) {
            // Unlike the others: who has set it knows better.
            variables.entry("BURSAR_LEDGER_BYTES_MAX".to_owned()).or_insert_with(|| format!("{mib}MiB"));
        }
        variables.iter().map(|(name, value)| variable(name, value)).collect()
    }

    fn mounts(&self) -> Value {
        let mut mounts = vec![json!({"name": DATA, "mountPath": "/var/lib/bursar"})];
        if self.config_map().is_some() {
            mounts.push(json!({"name": CONFIG, "mountPath": "/etc/bursar", "readOnly": true}));
        }
        if self.settings.admin_secret.is_some() {
            let path = "/run/secrets/bursar-admin";
            mounts.push(json!({"name": ADMIN, "mountPath": path, "readOnly": true}));
        }
        Value::Array(mounts)
    }

    fn probes(&self) -> [(&'static str, Value); 3] {
        if self.settings.admin_secret.is_some() {
            let get = |path: &str| json!({"path": path, "port": "admin"});
            return [
                (
                    "startupProbe",
                    json!({"httpGet": get("/readyz"), "periodSeconds": 2, "failureThreshold": 60}),
                ),
                ("livenessProbe", json!({"httpGet": get("/healthz"), "timeoutSeconds": 2})),
                (
                    "readinessProbe",
                    json!({
                        "httpGet": get("/readyz"), "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 2
                    }),
                ),
            ];
        }
        // A kubelet cannot ask loopback. The one answers while the process runs, the other while it serves.
        let alive = json!({"command": ["/usr/local/bin/bursar", "ledger", "stats", "--alive"]});
        let ready = json!({"command": ["/usr/local/bin/bursar", "ledger", "stats", "--ready"]});
        [
            (
                "startupProbe",
                json!({"exec": ready, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 60}),
            ),
            ("livenessProbe", json!({"exec": alive, "periodSeconds": 20, "timeoutSeconds": 5})),
            (
                "readinessProbe",
                json!({"exec": ready, "periodSeconds": 20, "timeoutSeconds": 5, "failureThreshold": 2}),
            ),
        ]
    }
}

/// A variable of a container, whose value means itself.
pub(super) fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value.replace('$', "$$")})
}
