//! How much of a volume a ledger may take: nine tenths of its size, where its source says one.
//!
//! Not here: the volume itself (`sidecar`), the bound (`ledger.bytes_max`).

use serde_json::{Map, Value};

/// What the setting takes, in MiB.
const MIB_MIN: u64 = 64;
const MIB_MAX: u64 = 16 << 20;
const UNITS: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

/// Most MiB of a ledger in the volume with this source; `None` where nothing tells its size.
pub(super) fn mib_max(source: &Map<String, Value>) -> Option<u64> {
    let of_empty_dir = || source.get("emptyDir")?.get("sizeLimit");
    let of_claim = || {
        let spec = source.get("ephemeral")?.get("volumeClaimTemplate")?.get("spec")?;
        spec.get("resources")?.get("requests")?.get("storage")
    };
    let size = bytes_of(of_empty_dir().or_else(of_claim)?)?;
    Some((size / 10 * 9 / (1 << 20)).min(MIB_MAX)).filter(|mib| *mib >= MIB_MIN)
}

/// A whole quantity of Kubernetes in bytes.
fn bytes_of(quantity: &Value) -> Option<u64> {
    let text = match quantity {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.strip_prefix(digits)?;
    let factor = UNITS.into_iter().find_map(|(name, factor)| (name == unit).then_some(factor))?;
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(source: Value, mib: Option<u64>) {
        assert_eq!(mib_max(source.as_object().unwrap()), mib, "{source}");
    }

    #[test]
    fn nine_tenths_of_a_known_size_are_for_the_ledger() {
        check(json!({"emptyDir": {"sizeLimit": "1Gi"}}), Some(921));
        check(json!({"emptyDir": {"sizeLimit": "500M"}}), Some(429));
        check(json!({"emptyDir": {"sizeLimit": 1_000_000_000}}), Some(858));
        let claim = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
        check(json!({"ephemeral": {"volumeClaimTemplate": claim}}), Some(1_843));
    }

    #[test]
    fn a_size_that_is_not_told_or_too_small_to_bound_bounds_nothing() {
        for source in [
            json!({"emptyDir": {}}),
            json!({"emptyDir": {"sizeLimit": "32Mi"}}),
            json!({"emptyDir": {"sizeLimit": "1.5Gi"}}),
            json!({"emptyDir": {"sizeLimit": "lots"}}),
            json!({"emptyDir": {"sizeLimit": "99999999999999Ti"}}),
            json!({"persistentVolumeClaim": {"claimName": "x"}}),
        ] {
            check(source, None);
        }
    }
}
