//! Exponential decay in integers: `2^(−age/half-life)` as a whole number of 10⁻⁹.
//!
//! Invariants
//! - Integer arithmetic only, so every machine computes the same weight.
//!
//! Not here: which ages count (`resolve`).

use std::sync::LazyLock;

/// The weight of a touch at age zero.
pub const WEIGHT_UNIT: u64 = 1_000_000_000;

/// Bits after the point of intermediate values.
const POINT: u32 = 62;
const ONE: u128 = 1 << POINT;

/// `10⁹ · 2^(−age/half_life)`, rounded half-up; `half_life` of zero leaves only age zero.
#[must_use]
pub fn decay_weight(age_micros: u64, half_life_micros: u64) -> u64 {
    if age_micros == 0 {
        return WEIGHT_UNIT;
    }
    let (Some(halvings), Some(rest)) =
        (age_micros.checked_div(half_life_micros), age_micros.checked_rem(half_life_micros))
    else {
        return 0;
    };
    let Ok(halvings) = u32::try_from(halvings) else { return 0 };
    if halvings >= POINT {
        return 0;
    }
    // The rest of the exponent as a binary fraction of 62 bits.
    let fraction = (u128::from(rest) << POINT).checked_div(u128::from(half_life_micros)).unwrap_or(0);
    let value = power(fraction) >> halvings;
    let scaled = value.saturating_mul(u128::from(WEIGHT_UNIT));
    let rounded = scaled.saturating_add(ONE >> 1) >> POINT;
    u64::try_from(rounded).unwrap_or(WEIGHT_UNIT)
}

/// `2^(−fraction)` for a binary fraction below one: the product of `2^(−1/2)`, `2^(−1/4)` … for
/// each bit that is set.
fn power(fraction: u128) -> u128 {
    let mut result = ONE;
    for (bit, factor) in (0..POINT).rev().zip(FACTORS.iter()) {
        if fraction >> bit & 1 == 1 {
            result = result.saturating_mul(*factor) >> POINT;
        }
    }
    result
}

/// `2^(−1/2^k)` for k from 1: each is the root of the one before; 62 + 62 bits fit below the root.
static FACTORS: LazyLock<Vec<u128>> = LazyLock::new(|| {
    let root = |factor: &u128| Some((factor << POINT).isqrt());
    std::iter::successors(root(&(ONE >> 1)), root).take(POINT as usize).collect()
});

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400_000_000;

    #[test]
    fn ages_between_half_lives_have_the_exact_weight() {
        assert_eq!(decay_weight(0, 7 * DAY), 1_000_000_000);
        assert_eq!(decay_weight(7 * DAY / 2, 7 * DAY), 707_106_781);
        assert_eq!(decay_weight(7 * DAY, 7 * DAY), 500_000_000);
        assert_eq!(decay_weight(10 * DAY, 7 * DAY), 371_498_572);
        assert_eq!(decay_weight(u64::MAX, 1), 0);
        assert_eq!(decay_weight(5, 0), 0);
    }

    proptest! {
        #[test]
        fn weights_fall_with_age_and_agree_with_floats(age in 0_u64..400 * DAY, half_life in DAY..60 * DAY) {
            let weight = decay_weight(age, half_life);
            prop_assert!(decay_weight(age + DAY, half_life) <= weight);
            let float = 1e9 * (-(age as f64) / half_life as f64).exp2();
            prop_assert!((weight as f64 - float).abs() <= 0.500_001, "{} {}", weight, float);
        }
    }
}
