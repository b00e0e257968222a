//! `hedge simulate`: the published study with the user's basis and volume, as a document and as charts.
//!
//! Invariants
//! - The same seed gives the same figures; nothing here is booked.
//! - A chart shows what the document says: the band of 5–95 %, the median, the model's futures.
//!
//! Not here: the simulation (`policies::hedge::analytics`), pixels (`png`), progress bars (`cli::hedge`).

use super::AskError;
use super::effectiveness::figure;
use bursar_policies::hedge::analytics::{Curve, Simulation, Summary, simulate};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What the published study claims for the volatility reduction.
const PUBLISHED: (f64, f64) = (0.62, 0.78);

/// Most paths over the admin API; a command may take more.
const API_PATHS_MAX: usize = 20_000;

/// The options of a simulation, as a query writes them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Query {
    paths: Option<usize>,
    seed: Option<u64>,
    basis: Option<f64>,
    volume: Option<f64>,
}

impl Query {
    /// What is to be simulated.
    pub(crate) fn simulation(&self, threads: usize) -> Result<Simulation, AskError> {
        let paths = self.paths.unwrap_or(10_000);
        if paths > API_PATHS_MAX {
            let text =
                format!("paths is {paths}: at most {API_PATHS_MAX} here; `bursar hedge simulate` takes more");
            return Err(AskError::Wrong(text));
        }
        let published = Simulation::published(self.seed.unwrap_or(1), self.basis.unwrap_or(0.10));
        Ok(Simulation { paths, volume_sd: self.volume.unwrap_or(0.0), threads, ..published })
    }
}

/// Runs the simulation.
pub(crate) fn run(simulation: &Simulation, progress: &(dyn Fn(usize) + Sync)) -> Result<Summary, AskError> {
    simulate(simulation, progress).map_err(|error| AskError::Wrong(error.to_string()))
}

/// The answer as a document.
pub(crate) fn document(simulation: &Simulation, found: &Summary) -> Value {
    let model = simulation.model;
    let reduction = found.hedge.reduction;
    let curve = found.curve.iter().map(|point| {
        json!({
            "month": point.month, "mean": figure(point.mean), "future": figure(point.future),
            "low": figure(point.low), "median": figure(point.median), "high": figure(point.high),
        })
    });
    json!({
        "paths": found.paths,
        "seed": simulation.seed,
        "basis": figure(simulation.basis_sd),
        "volume": figure(simulation.volume_sd),
        "parameters": {
            "start": figure(model.start), "kappa": figure(model.kappa), "theta": figure(model.theta),
            "beta": figure(model.beta), "gamma": figure(model.gamma), "sigma": figure(model.sigma),
            "jumps": figure(model.jumps), "jump_mean": figure(model.jump_mean), "jump_sd": figure(model.jump_sd),
            "source": "arXiv 2603.21690",
        },
        "volatility_reduction": figure(reduction.volatility),
        "variance_reduction": figure(reduction.variance),
        "published_range": [figure(PUBLISHED.0), figure(PUBLISHED.1)],
        "inside_published_range": (PUBLISHED.0..=PUBLISHED.1).contains(&reduction.volatility),
        "unhedged_mean": figure(found.hedge.unhedged_mean),
        "hedged_mean": figure(found.hedge.hedged_mean),
        "ever_above_double": figure(found.ever_above_double),
        "curve": curve.collect::<Vec<_>>(),
    })
}

/// The highest price of the band, a little above.
fn top(curve: &[Curve]) -> f64 {
    curve.iter().map(|point| point.high).fold(0.0, f64::max) * 1.05
}

/// The chart for a terminal: `·` the band of 5–95 %, `o` the model's future, `*` the median.
pub(crate) fn text_chart(found: &Summary) -> String {
    const ROWS: u32 = 16;
    let top = top(&found.curve);
    let mut chart = String::new();
    for row in (0..ROWS).rev() {
        let (low, high) =
            (top * f64::from(row) / f64::from(ROWS), top * f64::from(row + 1) / f64::from(ROWS));
        let holds = |price: f64| low <= price && price < high;
        let _ = write!(chart, "{low:>6.2} |");
        for point in &found.curve {
            chart.push(match point {
                point if holds(point.median) => '*',
                point if holds(point.future) => 'o',
                point if point.low < high && low < point.high => '·',
                _ => ' ',
            });
        }
        chart.push('\n');
    }
    let _ = writeln!(chart, "       +{}", "-".repeat(found.curve.len()));
    let _ = writeln!(
        chart,
        "        month 1 to {}: * median, o model's future, · 5–95 % of paths",
        found.curve.len()
    );
    chart
}

/// Size of the chart and its edges, in the SVG's units.
pub(super) const WIDTH: f64 = 720.0;
pub(super) const HEIGHT: f64 = 360.0;
pub(super) const LEFT: f64 = 56.0;
const BASE: f64 = 312.0;

/// Where months and prices stand in a chart.
pub(super) struct Frame {
    pub(super) months: usize,
    pub(super) top: f64,
}

impl Frame {
    pub(super) fn of(curve: &[Curve]) -> Self {
        Self { months: curve.last().map_or(1, |point| point.month), top: top(curve) }
    }

    pub(super) fn x(&self, month: usize) -> f64 {
        LEFT + (WIDTH - LEFT - 16.0) * count(month) / count(self.months)
    }

    pub(super) fn y(&self, price: f64) -> f64 {
        BASE - (BASE - 40.0) * price / self.top
    }

    /// Where the price is zero.
    pub(super) const fn base(&self) -> f64 {
        BASE
    }
}

/// What stands above a chart.
pub(super) fn title(simulation: &Simulation, found: &Summary) -> String {
    format!(
        "Token price, {} paths, seed {}: volatility reduction {:.1} % at basis {:.2}",
        found.paths,
        simulation.seed,
        100.0 * found.hedge.reduction.volatility,
        simulation.basis_sd,
    )
}

/// What stands below it.
pub(super) const fn legend() -> &'static str {
    "months; band 5–95 %, blue median, red mean, dashed the model's futures"
}

/// The chart as an SVG document.
pub(crate) fn svg_chart(simulation: &Simulation, found: &Summary) -> String {
    let frame = Frame::of(&found.curve);
    let path = |of: fn(&Curve) -> f64| {
        let points =
            found.curve.iter().map(|point| format!("{:.1},{:.1}", frame.x(point.month), frame.y(of(point))));
        points.collect::<Vec<_>>().join(" ")
    };
    let back = found.curve.iter().rev();
    let back = back.map(|point| format!("{:.1},{:.1}", frame.x(point.month), frame.y(point.low)));
    let band = format!("{} {}", path(|point| point.high), back.collect::<Vec<_>>().join(" "));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{}</text>\n",
        title(simulation, found)
    );
    for step in 0..=4_u32 {
        let price = frame.top * f64::from(step) / 4.0;
        let at = frame.y(price);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"8\" y=\"{:.1}\">{price:.2}</text>",
            WIDTH - 16.0,
            at + 4.0
        );
    }
    for month in (0..=frame.months).step_by(6) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{month}</text>",
            frame.x(month),
            BASE + 18.0
        );
    }
    let _ = writeln!(svg, "<polygon points=\"{band}\" fill=\"#9ec5e8\" fill-opacity=\"0.5\"/>");
    for (points, colour, dash) in [
        (path(|point| point.median), "#1f5f99", ""),
        (path(|point| point.mean), "#c0392b", ""),
        (path(|point| point.future), "#222", " stroke-dasharray=\"4 3\""),
    ] {
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash}/>"
        );
    }
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>\n</svg>", BASE + 38.0, legend());
    svg
}

/// A count as a coordinate.
#[expect(clippy::cast_precision_loss, reason = "a chart has far fewer points than 2⁵³")]
const fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_show_every_month_and_hold_together() {
        let simulation = Simulation { paths: 200, ..Simulation::published(1, 0.1) };
        let found = run(&simulation, &|_| {}).unwrap();
        let text = text_chart(&found);
        assert_eq!(text.lines().count(), 18);
        assert_eq!(text.matches('*').count(), found.curve.len() + 1, "one median a month, and the legend");
        let svg = svg_chart(&simulation, &found);
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let document = document(&simulation, &found);
        assert_eq!(document["curve"].as_array().unwrap().len(), 36);
    }
}
