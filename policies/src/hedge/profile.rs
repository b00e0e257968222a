//! Units and what turns one into another: throughput of a GPU-hour, quality of a token, weights of
//! a price index.
//!
//! Invariants
//! - Quality moves both legs: `P_sit · Q_sit = P · Q`, exactly (FINANCE §3).
//! - Two units convert only by a profile that says how, on the day it holds; never by guess.
//! - Index weights sum to one, and none exceeds the cap where that is possible.
//!
//! Not here: which profile a position names (`position`).

use crate::exact::{Decimal, ExactError, Ratio};
use bursar_domain::{Currency, Label};
use jiff::civil::Date;
use std::collections::BTreeMap;
use std::fmt;

/// The largest weight of one provider in a token price index.
pub const INDEX_WEIGHT_MAX_PERCENT: u8 = 30;

/// What a quantity counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// A million tokens.
    Mtok,
    /// A million standard inference tokens: tokens weighted by quality.
    Msit,
    /// One standard inference token.
    Sit,
    /// An hour of one GPU.
    GpuHour,
    /// An hour of one provisioned throughput unit (PTU, GSU, model unit).
    UnitHour,
    /// Money.
    Money(Currency),
}

impl Unit {
    /// Parses `Mtok`, `MSIT`, `SIT`, `GPU-h`, `PTU-h` or a currency code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Mtok" => Some(Self::Mtok),
            "MSIT" => Some(Self::Msit),
            "SIT" => Some(Self::Sit),
            "GPU-h" => Some(Self::GpuHour),
            "PTU-h" => Some(Self::UnitHour),
            _ => Currency::parse(text).ok().filter(|code| code.is_listed()).map(Self::Money),
        }
    }

    /// The currency, when it counts money.
    #[must_use]
    pub const fn money(self) -> Option<Currency> {
        match self {
            Self::Money(currency) => Some(currency),
            _ => None,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mtok => "Mtok",
            Self::Msit => "MSIT",
            Self::Sit => "SIT",
            Self::GpuHour => "GPU-h",
            Self::UnitHour => "PTU-h",
            Self::Money(currency) => currency.code(),
        })
    }
}

/// Why units do not convert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No profile leads from one to the other.
    #[error("{from} does not convert to {to}: name a conversion profile that does")]
    Mismatch {
        /// From.
        from: Unit,
        /// To.
        to: Unit,
    },
    /// The named profile is unknown on that day.
    #[error("no conversion profile {id} holds on {date}")]
    Unknown {
        /// Its id.
        id: Label,
        /// The day.
        date: Date,
    },
    /// Two profiles of one id from the same day.
    #[error("profile {id} has two meanings from {date}: give the new one a later day")]
    Conflict {
        /// Its id.
        id: Label,
        /// The day.
        date: Date,
    },
    /// A throughput, utilisation or score that is zero or less.
    #[error("{0} must be above zero")]
    NotPositive(&'static str),
    /// A utilisation above one.
    #[error("a utilisation of {0} is above 1")]
    OverOne(Decimal),
    /// Arithmetic.
    #[error(transparent)]
    Exact(#[from] ExactError),
}

/// How many million tokens one GPU-hour makes: `tokens/s · 3600 · utilisation / 10⁶`.
pub fn mtok_per_gpu_hour(tokens_per_second: Decimal, utilisation: Decimal) -> Result<Ratio, ProfileError> {
    if !tokens_per_second.is_positive() {
        return Err(ProfileError::NotPositive("tokens per second"));
    }
    if !utilisation.is_positive() {
        return Err(ProfileError::NotPositive("utilisation"));
    }
    if utilisation > Decimal::ONE {
        return Err(ProfileError::OverOne(utilisation));
    }
    let seconds_per_million = Ratio::new(3_600, 1_000_000)?;
    Ok(tokens_per_second.times(utilisation)?.times(seconds_per_million)?)
}

/// The throughput of a provisioned unit in million weighted tokens per hour.
pub fn mtok_per_unit_hour(tokens_per_minute: Decimal) -> Result<Ratio, ProfileError> {
    if !tokens_per_minute.is_positive() {
        return Err(ProfileError::NotPositive("tokens per minute"));
    }
    Ok(tokens_per_minute.ratio().times(Ratio::new(60, 1_000_000)?)?)
}

/// A quality score of a model and the score of the reference model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    score: Decimal,
    reference: Decimal,
}

impl Quality {
    /// Both scores must be above zero.
    pub fn new(score: Decimal, reference: Decimal) -> Result<Self, ProfileError> {
        if score.is_positive() && reference.is_positive() {
            Ok(Self { score, reference })
        } else {
            Err(ProfileError::NotPositive("quality score"))
        }
    }

    /// Standard tokens per raw token: `S / S_ref`.
    pub fn sit_per_token(self) -> Result<Ratio, ExactError> {
        self.score.over(self.reference)
    }

    /// The quantity leg: `Q · S / S_ref`.
    pub fn quantity(self, raw: Ratio) -> Result<Ratio, ExactError> {
        raw.times(self.sit_per_token()?)
    }

    /// The price leg: `P · S_ref / S`.
    pub fn price(self, raw: Ratio) -> Result<Ratio, ExactError> {
        raw.over(self.sit_per_token()?)
    }
}

/// What a profile says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// GPU-hours to million tokens.
    Throughput {
        /// Tokens per second of one GPU.
        tokens_per_second: Decimal,
        /// The part of the time it works, above 0 and at most 1.
        utilisation: Decimal,
    },
    /// Provisioned unit hours to million weighted tokens.
    Provisioned {
        /// Weighted tokens per minute of one unit.
        tokens_per_minute: Decimal,
    },
    /// Million tokens to million standard tokens.
    Quality(Quality),
}

/// What a conversion was measured on; evidence, not used in arithmetic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Model.
    pub model: Option<Label>,
    /// Its version.
    pub version: Option<Label>,
    /// GPU model.
    pub gpu: Option<Label>,
    /// Number format.
    pub precision: Option<Label>,
    /// Inference engine.
    pub engine: Option<Label>,
    /// Mix of prompt and output lengths.
    pub length_mix: Option<Label>,
    /// Who measured it.
    pub source: Option<Label>,
}

/// A conversion that holds from a day on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Names the profile through all its versions in time.
    pub id: Label,
    /// First day on which it holds, until a later one of the same id.
    pub from: Date,
    /// What it says.
    pub conversion: Conversion,
    /// What it was measured on.
    pub measured: Measured,
}

/// All conversion profiles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    by_id: BTreeMap<Label, BTreeMap<Date, Profile>>,
}

impl Profiles {
    /// Adds a profile; the same one again changes nothing, another one for its id and day is refused.
    pub fn add(&mut self, profile: Profile) -> Result<(), ProfileError> {
        let versions = self.by_id.entry(profile.id.clone()).or_default();
        match versions.get(&profile.from) {
            Some(there) if *there != profile => {
                Err(ProfileError::Conflict { id: profile.id, date: profile.from })
            }
            Some(_) => Ok(()),
            None => {
                versions.insert(profile.from, profile);
                Ok(())
            }
        }
    }

    /// The profile that holds on `date`.
    pub fn on(&self, id: &Label, date: Date) -> Result<&Profile, ProfileError> {
        let versions = self.by_id.get(id);
        let last = versions.and_then(|versions| versions.range(..=date).next_back());
        last.map(|(_, profile)| profile).ok_or_else(|| ProfileError::Unknown { id: id.clone(), date })
    }

    /// How many `to` one `from` is, on `date`, by the profile `id` where one is needed.
    pub fn factor(
        &self,
        (from, to): (Unit, Unit),
        id: Option<&Label>,
        date: Date,
    ) -> Result<Ratio, ProfileError> {
        let million = Ratio::whole(1_000_000);
        match (from, to) {
            _ if from == to => return Ok(Ratio::ONE),
            (Unit::Sit, Unit::Msit) => return Ok(Ratio::ONE.over(million)?),
            (Unit::Msit, Unit::Sit) => return Ok(million),
            _ => {}
        }
        let mismatch = ProfileError::Mismatch { from, to };
        let Some(id) = id else { return Err(mismatch) };
        let per = |conversion| match conversion {
            Conversion::Throughput { tokens_per_second, utilisation } => {
                mtok_per_gpu_hour(tokens_per_second, utilisation).map(|f| (Unit::GpuHour, Unit::Mtok, f))
            }
            Conversion::Provisioned { tokens_per_minute } => {
                mtok_per_unit_hour(tokens_per_minute).map(|f| (Unit::UnitHour, Unit::Mtok, f))
            }
            Conversion::Quality(quality) => Ok((Unit::Mtok, Unit::Msit, quality.sit_per_token()?)),
        };
        let (have, get, factor) = per(self.on(id, date)?.conversion)?;
        if (from, to) == (have, get) {
            Ok(factor)
        } else if (to, from) == (have, get) {
            Ok(Ratio::ONE.over(factor)?)
        } else {
            Err(mismatch)
        }
    }
}

/// Contracts of `lot` units that hedge `exposure · ratio`, rounded half-even, and the units that
/// are left over (below zero: too many hedged).
pub fn lots_half_even(exposure: Ratio, ratio: Ratio, lot: Decimal) -> Result<(i128, Ratio), ExactError> {
    let wanted = exposure.times(ratio)?;
    let lots = wanted.over(lot.ratio())?.scaled_half_even(1)?;
    let left = wanted.minus(Ratio::whole(lots).times(lot.ratio())?)?;
    Ok((lots, left))
}

/// Index weights from volumes: pro rata, capped, the excess given to the uncapped pro rata until
/// none exceeds `cap`. With too few providers for the cap, all weigh the same. `None` when nothing
/// was traded.
pub fn capped_weights<K: Ord + Clone>(
    volumes: &BTreeMap<K, Decimal>,
    cap: Ratio,
) -> Result<Option<BTreeMap<K, Ratio>>, ExactError> {
    let traded: BTreeMap<K, Ratio> =
        volumes.iter().filter(|(_, v)| v.is_positive()).map(|(k, v)| (k.clone(), v.ratio())).collect();
    let count = i128::try_from(traded.len()).map_err(|_| ExactError::Overflow)?;
    if count == 0 {
        return Ok(None);
    }
    if cap.times(Ratio::whole(count))? < Ratio::ONE {
        let equal = Ratio::new(1, count)?;
        return Ok(Some(traded.into_keys().map(|key| (key, equal)).collect()));
    }
    let mut capped: BTreeMap<K, Ratio> = BTreeMap::new();
    let mut free = traded;
    loop {
        let total = Ratio::sum(free.values().copied())?;
        let taken = Ratio::whole(i128::try_from(capped.len()).map_err(|_| ExactError::Overflow)?);
        let share = Ratio::ONE.minus(cap.times(taken)?)?;
        let limit = |volume: Ratio| Ok::<_, ExactError>(share.times(volume)?.over(total)? > cap);
        let mut over = Vec::new();
        for (key, volume) in &free {
            if limit(*volume)? {
                over.push(key.clone());
            }
        }
        if over.is_empty() {
            for (key, volume) in free {
                capped.insert(key, share.times(volume)?.over(total)?);
            }
            return Ok(Some(capped));
        }
        for key in over {
            free.remove(&key);
            capped.insert(key, cap);
        }
    }
}

/// The index value of a day: prices weighted by [`capped_weights`] of their volumes.
pub fn capped_index<K: Ord + Clone>(
    prices: &BTreeMap<K, (Decimal, Decimal)>,
    cap: Ratio,
) -> Result<Option<Ratio>, ExactError> {
    let volumes = prices.iter().map(|(key, (_, volume))| (key.clone(), *volume)).collect();
    let Some(weights) = capped_weights(&volumes, cap)? else { return Ok(None) };
    let mut value = Ratio::ZERO;
    for (key, weight) in weights {
        if let Some((price, _)) = prices.get(&key) {
            value = value.plus(price.ratio().times(weight)?)?;
        }
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hedge::calendar::parse_day;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    fn cap() -> Ratio {
        Ratio::new(INDEX_WEIGHT_MAX_PERCENT.into(), 100).unwrap()
    }

    #[test]
    fn profiles_hold_from_their_day_and_convert_both_ways() {
        let mut profiles = Profiles::default();
        let id = Label::fixed("h100-llama");
        for (from, utilisation) in [("2026-01-01", "0.45"), ("2026-07-01", "0.9")] {
            let conversion = Conversion::Throughput {
                tokens_per_second: decimal("2400"),
                utilisation: decimal(utilisation),
            };
            let from = parse_day(from).unwrap();
            let profile = Profile { id: id.clone(), from, conversion, measured: Measured::default() };
            profiles.add(profile.clone()).unwrap();
            profiles.add(profile).unwrap();
        }
        let on = |from, to, date| profiles.factor((from, to), Some(&id), parse_day(date).unwrap());
        let text = |ratio: Ratio| ratio.text_half_even(6).unwrap();
        assert_eq!(text(on(Unit::GpuHour, Unit::Mtok, "2026-06-30").unwrap()), "3.888000");
        assert_eq!(text(on(Unit::GpuHour, Unit::Mtok, "2026-07-01").unwrap()), "7.776000");
        assert_eq!(text(on(Unit::Mtok, Unit::GpuHour, "2026-06-30").unwrap()), "0.257202");
        assert!(matches!(on(Unit::GpuHour, Unit::Mtok, "2025-12-31"), Err(ProfileError::Unknown { .. })));
        assert!(matches!(on(Unit::Msit, Unit::GpuHour, "2026-06-30"), Err(ProfileError::Mismatch { .. })));
        let plain = profiles.factor((Unit::GpuHour, Unit::Mtok), None, parse_day("2026-06-30").unwrap());
        assert!(matches!(plain, Err(ProfileError::Mismatch { .. })));
    }

    #[test]
    fn throughput_and_scores_that_cannot_be_are_refused() {
        assert!(mtok_per_gpu_hour(decimal("0"), decimal("0.5")).is_err());
        assert!(mtok_per_gpu_hour(decimal("100"), decimal("0")).is_err());
        assert!(mtok_per_gpu_hour(decimal("100"), decimal("1.01")).is_err());
        assert!(Quality::new(decimal("0"), decimal("86")).is_err());
    }

    #[test]
    fn a_dominant_provider_is_capped_and_its_excess_shared_pro_rata() {
        let volumes: BTreeMap<&str, Decimal> =
            [("a", "70"), ("b", "20"), ("c", "6"), ("d", "4")].map(|(k, v)| (k, decimal(v))).into();
        let weights = capped_weights(&volumes, cap()).unwrap().unwrap();
        assert_eq!(weights["a"], cap());
        assert_eq!(weights["b"], cap(), "20/30 of the other 70 % is over the cap too");
        assert_eq!(weights["c"].text_half_even(2).unwrap(), "0.24", "6 of 10 in the last 40 %");
    }

    #[test]
    fn too_few_providers_for_the_cap_weigh_the_same() {
        let volumes: BTreeMap<&str, Decimal> =
            [("a", "90"), ("b", "10")].map(|(k, v)| (k, decimal(v))).into();
        let weights = capped_weights(&volumes, cap()).unwrap().unwrap();
        assert_eq!(weights["a"], Ratio::new(1, 2).unwrap());
        assert_eq!(capped_weights(&BTreeMap::<&str, Decimal>::new(), cap()).unwrap(), None);
    }
}
