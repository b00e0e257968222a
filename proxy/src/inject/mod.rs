//! Automatic injection: puts the sidecar into pods as they are made, as a mutating admission webhook of
//! Kubernetes.
//!
//! Invariants
//! - What becomes of a pod is a pure function of the pod, of who asks and of the settings (`decision`).
//! - Either everything that a pod's annotations say is done, or nothing is and the answer says why.
//! - Nothing that was in a pod is taken out or changed, but for the time that it has to end and our own
//!   annotation of the outcome; and a pod that was answered once is left alone afterwards.
//! - Nothing of a pod but its name, its namespace and annotations of ours is logged.
//!
//! Not here: the command line (`cli::inject`), TLS from PEM texts (`admin::tls`), the manifests that roll it
//! out (`deploy/kubernetes/inject.yaml`, `deploy/helm/bursar`).

mod annotations;
mod certificates;
mod decision;
mod expiry;
mod metrics;
mod patch;
mod review;
mod server;
mod settings;
mod sidecar;
mod volume;

pub(crate) use certificates::Certificates;
pub(crate) use server::{Injector, Listeners, serve};
pub(crate) use settings::{Settings, Told};
