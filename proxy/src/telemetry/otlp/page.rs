//! Our own metrics page read back into families, so that a collector is sent the same figures that
//! Prometheus is shown.
//!
//! Invariants
//! - What cannot be read is left out; the page is our own, so nothing is.
//!
//! Not here: writing the page (`admin::metrics`), OTLP's messages (`messages`).

/// What a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric with all its samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Family<'p> {
    pub(super) name: &'p str,
    pub(super) help: &'p str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<Sample<'p>>,
}

/// A line of the page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample<'p> {
    /// What the line's name adds to the family's: `_bucket`, `_total`.
    pub(super) suffix: &'p str,
    pub(super) labels: Vec<(&'p str, String)>,
    pub(super) value: &'p str,
}

/// Every family of `page`.
pub(super) fn families(page: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let mut help = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let kind = match kind {
                "counter" => Kind::Counter,
                "histogram" => Kind::Histogram,
                _ => Kind::Gauge,
            };
            families.push(Family { name, help, kind, samples: Vec::new() });
        } else if let Some(family) = families.last_mut()
            && let Some(sample) = sample(line, family.name)
        {
            family.samples.push(sample);
        }
    }
    families
}

fn sample<'p>(line: &'p str, family: &str) -> Option<Sample<'p>> {
    let rest = line.strip_prefix(family)?;
    let (suffix, rest) = rest.split_at(rest.find(['{', ' '])?);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    Some(Sample { suffix, labels, value: value.trim() })
}

/// Reads `name="value",…}`; returns what follows.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.push((name, value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// Reads up to the closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c => value.push(c),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_back_whole() {
        let page = "# HELP a Some text.\n# TYPE a counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n}\"} 5\na_total 7\n\
                    # HELP b B.\n# TYPE b gauge\nb -2.5\n# EOF\n";
        let found = families(page);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name, found[0].help, found[0].kind), ("a", "Some text.", Kind::Counter));
        assert_eq!(found[0].samples[0].labels, [("x", "1".to_owned()), ("y", "q\"\\\n}".to_owned())]);
        assert_eq!((found[0].samples[1].suffix, found[0].samples[1].value), ("_total", "7"));
        assert_eq!(found[1].samples[0].value, "-2.5");
    }

    #[test]
    fn every_line_of_our_own_page_is_read() {
        let metrics = crate::admin::metrics::Metrics::new();
        metrics.settled(&crate::telemetry::tests::record());
        metrics.refused("limit_exceeded");
        let page = metrics.page(&crate::telemetry::tests::stats());
        let samples: usize = families(&page).iter().map(|family| family.samples.len()).sum();
        assert_eq!(samples, page.lines().filter(|line| !line.starts_with('#')).count());
        assert!(samples > 60, "{samples}");
    }
}
