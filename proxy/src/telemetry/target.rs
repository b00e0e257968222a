//! What is said of this process as a whole: a collector is sent it with everything, and Prometheus is shown
//! it as `target_info`.
//!
//! Source: OpenTelemetry's "Prometheus and OpenMetrics Compatibility", resource attributes.
//!
//! Not here: reading the variables that name attributes (`config::load::otlp`).

use crate::app::App;
use std::collections::BTreeMap;

/// The resource's attributes; each name once.
pub(super) fn resource(app: &App) -> Vec<(String, String)> {
    let mut resource = app.config().telemetry.resource.clone();
    let mut add = |name: &str, value: String| {
        if !resource.iter().any(|(known, _)| known == name) {
            resource.push((name.to_owned(), value));
        }
    };
    add("service.version", env!("CARGO_PKG_VERSION").to_owned());
    add("service.instance.id", app.ledger.id().to_string());
    resource
}

/// The lines for Prometheus, which begin its page: OpenMetrics wants them first.
pub(crate) fn page(app: &App) -> String {
    info(&resource(app))
}

fn info(resource: &[(String, String)]) -> String {
    let sorted: BTreeMap<&str, &str> =
        resource.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in sorted {
        let Some(name) = label_name(name) else { continue };
        // Attributes whose names become the same share a label.
        let known = labels.entry(name).or_default();
        let semicolon = if known.is_empty() { "" } else { ";" };
        *known = [known.as_str(), semicolon, value].concat();
    }
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!(
        "# HELP target What the metrics are of.\n# TYPE target info\ntarget_info{{{}}} 1\n",
        pairs.join(",")
    )
}

/// The label of an attribute: what a label may not hold becomes one underscore. `None` where no letter or
/// digit is left.
fn label_name(name: &str) -> Option<String> {
    let mut label = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            label.push(c);
        } else if !label.ends_with('_') {
            label.push('_');
        }
    }
    // A digit may not come first, and what begins with two underscores is Prometheus' own.
    if label.starts_with(|c: char| c.is_ascii_digit()) {
        label.insert(0, '_');
    }
    label.contains(|c: char| c != '_').then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resource: &[(&str, &str)], labels: &str) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let resource: Vec<_> = resource.iter().map(owned).collect();
        let page = info(&resource);
        assert_eq!(page.lines().last(), Some(format!("target_info{{{labels}}} 1").as_str()), "{page}");
        assert!(page.contains("# TYPE target info\n"), "{page}");
    }

    #[test]
    fn attributes_are_labels_by_opentelemetrys_mapping() {
        check(&[("service.name", "shop"), ("k8s.pod.name", "p")], r#"k8s_pod_name="p",service_name="shop""#);
        check(&[("a.-b", "1"), ("1st", "2")], r#"_1st="2",a_b="1""#);
        check(&[("quote", "a\"b\\c\nd")], r#"quote="a\"b\\c\nd""#);
    }

    #[test]
    fn attributes_that_become_one_label_share_it_in_the_order_of_their_names() {
        check(&[("a_b", "2"), ("a.b", "1")], r#"a_b="1;2""#);
    }

    #[test]
    fn a_name_of_which_nothing_is_left_is_no_label() {
        check(&[("...", "x"), ("é", "y"), ("a", "z")], r#"a="z""#);
    }
}
