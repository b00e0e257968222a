//! The seven models: from touches to credits.
//!
//! Invariants
//! - Credits + unattributed = amount.
//! - Touches are taken in order of time, ties by id; their order in the input does not matter.
//!
//! Not here: values of coalitions (`shapley`) and removal effects (`markov`), which look at all
//! journeys and not at one event.

use super::half_life::decay_weight;
use super::resolve::Touch;
use crate::exact::{ExactError, Ratio, shares};
use bursar_domain::{Label, Money, Timestamp};
use std::collections::BTreeMap;

/// Seven days.
pub const DEFAULT_HALF_LIFE_MICROS: u64 = 7 * 86_400_000_000;

/// A model by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModelName {
    /// All to the earliest touch.
    First,
    /// All to the latest touch.
    Last,
    /// The same to each touch.
    Linear,
    /// Less to older touches.
    TimeDecay,
    /// 40, 20, 40.
    Position,
    /// By Shapley value.
    Shapley,
    /// By removal effect.
    Markov,
}

impl ModelName {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::First,
        Self::Last,
        Self::Linear,
        Self::TimeDecay,
        Self::Position,
        Self::Shapley,
        Self::Markov,
    ];

    /// The name used in commands and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
            Self::Linear => "linear",
            Self::TimeDecay => "time_decay",
            Self::Position => "position",
            Self::Shapley => "shapley",
            Self::Markov => "markov",
        }
    }

    /// The model with this name; a hyphen stands for an underscore.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        Self::ALL.iter().copied().find(|model| model.name() == name)
    }
}

/// How credit is shared out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// All to the earliest touch.
    First,
    /// All to the latest touch.
    Last,
    /// The same to each touch.
    Linear,
    /// Half as much for each half-life of age.
    TimeDecay {
        /// Microseconds.
        half_life_micros: u64,
    },
    /// 40 % to the first, 40 % to the last, 20 % between; one touch 100, two 50 and 50.
    Position,
    /// By Shapley value of each workload.
    Shapley(BTreeMap<Label, Ratio>),
    /// By removal effect of each workload, at 10⁹.
    Markov(BTreeMap<Label, u64>),
}

impl Model {
    /// The name used in commands and reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
            Self::Linear => "linear",
            Self::TimeDecay { .. } => "time_decay",
            Self::Position => "position",
            Self::Shapley(_) => "shapley",
            Self::Markov(_) => "markov",
        }
    }

    /// Weights by workload for an event at `at`; `touches` in any order.
    pub fn weights(&self, touches: &[Touch], at: Timestamp) -> Result<BTreeMap<Label, Ratio>, ExactError> {
        let mut ordered: Vec<&Touch> = touches.iter().collect();
        ordered.sort_by(|a, b| (a.at, a.id, &a.workload).cmp(&(b.at, b.id, &b.workload)));
        let count = ordered.len();
        let mut weights = BTreeMap::new();
        for (index, touch) in ordered.iter().enumerate() {
            let sum: Ratio = weights.get(&touch.workload).copied().unwrap_or(Ratio::ZERO);
            let weight = match self {
                // These weigh a workload, not its touches.
                Self::Shapley(values) => values.get(&touch.workload).copied().unwrap_or(Ratio::ZERO),
                Self::Markov(effects) => {
                    Ratio::whole(effects.get(&touch.workload).copied().unwrap_or(0).into())
                }
                Self::First => sum.plus(Ratio::whole(i128::from(index == 0)))?,
                Self::Last => sum.plus(Ratio::whole(i128::from(index.checked_add(1) == Some(count))))?,
                Self::Linear => sum.plus(Ratio::ONE)?,
                Self::TimeDecay { half_life_micros } => {
                    let weight = decay_weight(at.micros_since(touch.at), *half_life_micros);
                    sum.plus(Ratio::whole(weight.into()))?
                }
                Self::Position => sum.plus(position_weight(index, count)?)?,
            };
            weights.insert(touch.workload.clone(), weight);
        }
        Ok(weights)
    }
}

/// 40, 20/(n−2) each, 40.
fn position_weight(index: usize, count: usize) -> Result<Ratio, ExactError> {
    let between = match count {
        0..=2 => return Ok(Ratio::ONE),
        more => more.saturating_sub(2),
    };
    if index == 0 || index.checked_add(1) == Some(count) {
        return Ok(Ratio::whole(40));
    }
    Ratio::new(20, i128::try_from(between).map_err(|_| ExactError::Overflow)?)
}

/// Who gets what of an amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credits {
    /// By workload.
    pub parts: BTreeMap<Label, Money>,
    /// Nobody's.
    pub unattributed: Money,
}

/// An amount shared out, with the model that did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// Name of the model.
    pub model: &'static str,
    /// Touches that counted.
    pub touches: usize,
    /// Who gets what.
    pub credits: Credits,
}

/// Shares `amount` out among `touches` by `model`. Without touches, or when all weights are zero,
/// everything is unattributed.
pub fn attribute(
    amount: Money,
    model: &Model,
    touches: &[Touch],
    at: Timestamp,
) -> Result<Attribution, ExactError> {
    let shared = shares(amount, &model.weights(touches, at)?)?;
    let credits = Credits { parts: shared.parts, unattributed: shared.residual };
    Ok(Attribution { model: model.name(), touches: touches.len(), credits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_domain::Currency;

    fn touch(workload: &'static str, at: i64) -> Touch {
        Touch { workload: Label::fixed(workload), at: Timestamp::from_micros(at), id: 0, session: None }
    }

    #[track_caller]
    fn check(model: &Model, touches: &[Touch], expected: &[(&str, &str)]) {
        let amount = Money::parse(Currency::USD, "1000").unwrap();
        let mut reversed = touches.to_vec();
        reversed.reverse();
        for touches in [touches, &reversed] {
            let found = attribute(amount, model, touches, Timestamp::from_micros(100)).unwrap();
            let parts: Vec<(String, String)> =
                found.credits.parts.iter().map(|(w, m)| (w.to_string(), m.to_string())).collect();
            let wanted: Vec<(String, String)> =
                expected.iter().map(|(w, m)| ((*w).to_owned(), (*m).to_owned())).collect();
            assert_eq!(parts, wanted, "{}", model.name());
        }
    }

    #[test]
    fn a_workload_that_touches_twice_adds_up() {
        let touches = [touch("a", 1), touch("b", 2), touch("a", 3)];
        check(&Model::Linear, &touches, &[("a", "666.67"), ("b", "333.33")]);
        check(&Model::Position, &touches, &[("a", "800"), ("b", "200")]);
        check(&Model::First, &touches, &[("a", "1000"), ("b", "0")]);
        let values = [("a", 3), ("b", 1)].map(|(w, v)| (Label::fixed(w), Ratio::whole(v)));
        check(&Model::Shapley(values.into()), &touches, &[("a", "750"), ("b", "250")]);
        let effects = [("a", 1), ("b", 4)].map(|(w, v)| (Label::fixed(w), v));
        check(&Model::Markov(effects.into()), &touches, &[("a", "200"), ("b", "800")]);
    }

    #[test]
    fn without_touches_or_weights_everything_is_unattributed() {
        let amount = Money::parse(Currency::USD, "12.345").unwrap();
        let at = Timestamp::from_micros(100);
        let none = attribute(amount, &Model::Linear, &[], at).unwrap();
        assert_eq!(none.credits.unattributed, amount);
        let unknown = attribute(amount, &Model::Markov(BTreeMap::new()), &[touch("a", 1)], at).unwrap();
        assert_eq!(unknown.credits.unattributed, amount);
        let finer = attribute(amount, &Model::Linear, &[touch("a", 1)], at).unwrap();
        assert_eq!(finer.credits.unattributed.to_string(), "0.005", "below a cent is nobody's");
    }
}
