//! Products of two 128-bit numbers, for shares and fractions whose exact value needs 256 bits.
//!
//! Invariants
//! - Nothing is lost: the product is exact, and a quotient that does not fit is `None`.
//!
//! Not here: signs and rounding (`money`, `policies::exact`).

use std::cmp::Ordering;

const HALF_BITS: u32 = 64;
const LOW_HALF: u128 = u64::MAX as u128;

/// A product of two 128-bit numbers: `high · 2¹²⁸ + low`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wide {
    high: u128,
    low: u128,
}

impl Wide {
    /// `a · b`, exact.
    #[must_use]
    pub const fn product(a: u128, b: u128) -> Self {
        let (a_high, a_low) = (a >> HALF_BITS, a & LOW_HALF);
        let (b_high, b_low) = (b >> HALF_BITS, b & LOW_HALF);
        // Each partial product is below 2¹²⁸ − 2⁶⁵ + 2, so adding two halves never carries out.
        let bottom = a_low.wrapping_mul(b_low);
        let left = a_high.wrapping_mul(b_low).wrapping_add(bottom >> HALF_BITS);
        let right = a_low.wrapping_mul(b_high).wrapping_add(left & LOW_HALF);
        let top = a_high.wrapping_mul(b_high).wrapping_add(left >> HALF_BITS);
        Self { high: top.wrapping_add(right >> HALF_BITS), low: (right << HALF_BITS) | (bottom & LOW_HALF) }
    }

    /// Quotient and remainder by `divisor`; `None` when it is zero or the quotient needs more than
    /// 128 bits.
    #[must_use]
    pub fn div_rem(self, divisor: u128) -> Option<(u128, u128)> {
        if self.high == 0 {
            return Some((self.low.checked_div(divisor)?, self.low.checked_rem(divisor)?));
        }
        if self.high >= divisor {
            return None;
        }
        // Long division in digits of 64 bits (Knuth, volume 2, algorithm D), with the divisor shifted
        // so that its first digit is large and a guessed digit is at most two too high.
        let shift = divisor.leading_zeros();
        let divisor = divisor << shift;
        let carried = self.low.checked_shr(u128::BITS.wrapping_sub(shift)).unwrap_or(0);
        let high = (self.high << shift) | carried;
        let low = self.low << shift;
        let (first, rest) = digit(high, low >> HALF_BITS, divisor);
        let (second, rest) = digit(rest, low & LOW_HALF, divisor);
        Some(((first << HALF_BITS) | second, rest >> shift))
    }
}

/// One digit of 64 bits of `(high · 2⁶⁴ + next) / divisor`, and the remainder. `high` is below the
/// divisor, whose highest bit is set.
const fn digit(high: u128, next: u128, divisor: u128) -> (u128, u128) {
    let (top, bottom) = (divisor >> HALF_BITS, divisor & LOW_HALF);
    let Some(mut guess) = high.checked_div(top) else { return (0, high) };
    let mut rest = high.wrapping_sub(guess.wrapping_mul(top));
    while guess > LOW_HALF || guess.wrapping_mul(bottom) > ((rest << HALF_BITS) | next) {
        guess = guess.wrapping_sub(1);
        rest = rest.wrapping_add(top);
        if rest > LOW_HALF {
            break;
        }
    }
    let taken = guess.wrapping_mul(divisor);
    (guess, ((high << HALF_BITS) | next).wrapping_sub(taken))
}

/// Quotient and remainder of `a · b / divisor`; `None` when it does not fit or `divisor` is zero.
#[must_use]
pub fn mul_div_rem(a: u128, b: u128, divisor: u128) -> Option<(u128, u128)> {
    Wide::product(a, b).div_rem(divisor)
}

/// Compares `a · b` with `c · d`, exactly.
#[must_use]
pub fn cmp_products((a, b): (u128, u128), (c, d): (u128, u128)) -> Ordering {
    Wide::product(a, b).cmp(&Wide::product(c, d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_product_divides_back() {
        let max = u128::MAX;
        assert_eq!(Wide::product(max, max), Wide { high: max - 1, low: 1 });
        assert_eq!(mul_div_rem(max, max, max), Some((max, 0)));
        assert_eq!(mul_div_rem(max, max, max - 1), None, "the quotient needs 129 bits");
        assert_eq!(mul_div_rem(1, 1, 0), None);
        assert_eq!(mul_div_rem(max, 2, 4), Some((max / 2, 2)));
    }

    /// Numbers of every size, and those next to powers of two, where digits carry.
    fn number() -> impl Strategy<Value = u128> {
        let edge =
            (0_u32..128, 0_u128..3).prop_map(|(bit, off)| (1_u128 << bit).wrapping_add(off).wrapping_sub(1));
        let sized = (any::<u128>(), 0_u32..128).prop_map(|(bits, shift)| bits >> shift);
        prop_oneof![edge, sized]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        #[test]
        fn quotient_times_divisor_plus_remainder_is_the_product(a in number(), b in number(), divisor in number()) {
            if let Some((quotient, remainder)) = mul_div_rem(a, b, divisor) {
                prop_assert!(remainder < divisor);
                let whole = Wide::product(quotient, divisor);
                let (low, carry) = whole.low.overflowing_add(remainder);
                prop_assert_eq!(Wide { high: whole.high + u128::from(carry), low }, Wide::product(a, b));
            }
        }

        #[test]
        fn small_products_agree_with_plain_arithmetic(a: u64, b: u64, c: u64, d: u64) {
            let (a, b, c, d) = (u128::from(a), u128::from(b), u128::from(c), u128::from(d));
            prop_assert_eq!(Wide::product(a, b), Wide { high: 0, low: a * b });
            prop_assert_eq!(cmp_products((a, b), (c, d)), (a * b).cmp(&(c * d)));
        }
    }
}
