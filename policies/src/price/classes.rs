//! What each class of a call's tokens costs, for contracts that fix the price of one class.
//!
//! Invariants
//! - Classes and fees are the whole cost, to the pico-unit: every amount is made as the whole makes it.
//! - A cost that is not complete is not split.
//!
//! Not here: which classes a contract knows (`hedge::position`).

use super::{Ask, Bill, Gap, PriceBook, Tariff, is_output};
use bursar_domain::{Cost, CostStatus, Quantity, TokenClass, Usage};

/// Amounts of a part of a cost, in pico-units of its currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartCost {
    /// At public prices; `None` when the whole has none.
    pub list: Option<i128>,
    /// At negotiated prices.
    pub contracted: i128,
}

/// A complete cost, split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassCosts {
    /// All of it.
    pub whole: Cost,
    /// The classes that cost something.
    pub classes: Vec<(TokenClass, PartCost)>,
    /// The rest: what is charged per call, search, page.
    pub fees: PartCost,
}

impl PriceBook {
    /// The cost of a call by class of its tokens; `None` when the book does not price all of it.
    #[must_use]
    pub fn by_class(&self, ask: &Ask<'_>) -> Option<ClassCosts> {
        let (whole, gap) = self.explain(ask);
        if gap.is_some() || whole.status != CostStatus::Priced {
            return None;
        }
        let main = self.main_tariff(ask);
        let mut classes = Vec::new();
        let mut fees = PartCost { list: whole.list_pico, contracted: whole.contracted_pico? };
        for class in TokenClass::ALL {
            let part = self.class_cost(ask, &main, *class)?;
            if part.contracted == 0 && part.list.unwrap_or(0) == 0 {
                continue;
            }
            fees.contracted = fees.contracted.checked_sub(part.contracted)?;
            fees.list = match (fees.list, part.list) {
                (Some(rest), Some(list)) => Some(rest.checked_sub(list)?),
                _ => None,
            };
            classes.push((*class, part));
        }
        Some(ClassCosts { whole, classes, fees })
    }

    fn class_cost(
        &self,
        ask: &Ask<'_>,
        main: &Result<Tariff<'_>, Gap>,
        class: TokenClass,
    ) -> Option<PartCost> {
        let mut bill = Bill::new();
        if ask.by_model.is_empty() {
            bill.only(main, ask.usage, class);
        }
        for part in ask.by_model {
            match &part.model {
                Some(model) => bill.only(&self.tariff(ask, model.as_str()), &part.usage, class),
                None => bill.only(main, &part.usage, class),
            }
        }
        bill.gap.is_none().then_some(PartCost { list: bill.list, contracted: bill.contracted })
    }
}

impl Bill {
    /// Adds the tokens of one class of one model, at the prices that all of its usage has.
    fn only(&mut self, tariff: &Result<Tariff<'_>, Gap>, usage: &Usage, class: TokenClass) {
        let Ok(tariff) = tariff else { return };
        let Some(band) = tariff.band(usage) else { return };
        let (billed, plain) = if is_output(class) {
            (usage.quantity(Quantity::BilledOutputTokens), TokenClass::OutputText)
        } else {
            (usage.quantity(Quantity::BilledInputTokens), TokenClass::InputFresh)
        };
        // What a provider bills instead of what was used is charged as plain input or output.
        let count = match billed {
            Some(billed) if class == plain => billed,
            Some(_) => 0,
            None => usage.get(class).unwrap_or(0),
        };
        self.class(tariff.table, band, class, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::OverlayFile;
    use bursar_domain::Timestamp;
    use proptest::prelude::*;

    fn book() -> PriceBook {
        let file: OverlayFile = serde_json::from_str(
            r#"{"rows": [
                {"provider": "p", "model": "m", "per_million": {"input": "3", "cached_read": "0.3", "cache_write": "3.75", "output": "15"}},
                {"provider": "p", "model": "m", "kind": "contracted", "discount_percent": "7.5"}]}"#,
        )
        .unwrap();
        PriceBook::empty().with_overlay(&file).unwrap()
    }

    fn ask(usage: &Usage) -> Ask<'_> {
        Ask {
            provider: "p",
            model_served: Some("m"),
            model_requested: None,
            tier: None,
            region: None,
            speed: None,
            at: Timestamp::from_micros(0),
            usage,
            by_model: &[],
        }
    }

    fn usage(counts: &[(TokenClass, u64)]) -> Usage {
        let mut usage = Usage::unknown();
        counts.iter().for_each(|(class, count)| usage.set(*class, *count));
        usage
    }

    #[test]
    fn each_class_costs_its_own_price_and_nothing_is_left() {
        let counts = [
            (TokenClass::InputFresh, 1_000_000),
            (TokenClass::CachedRead, 2_000_000),
            (TokenClass::OutputText, 100_000),
            (TokenClass::OutputReasoning, 100_000),
        ];
        let usage = usage(&counts);
        let costs = book().by_class(&ask(&usage)).unwrap();
        let list: Vec<(TokenClass, i128)> = costs
            .classes
            .iter()
            .map(|(class, part)| (*class, part.list.unwrap() / 10_i128.pow(10)))
            .collect();
        let expected = [
            (TokenClass::InputFresh, 300),
            (TokenClass::CachedRead, 60),
            (TokenClass::OutputText, 150),
            (TokenClass::OutputReasoning, 150),
        ];
        assert_eq!(list, expected, "in cents");
        assert_eq!(costs.fees, PartCost { list: Some(0), contracted: 0 });
        let contracted: i128 = costs.classes.iter().map(|(_, part)| part.contracted).sum();
        assert_eq!(Some(contracted), costs.whole.contracted_pico, "6.60 less 7.5 %");
    }

    #[test]
    fn what_is_not_wholly_priced_is_not_split() {
        let audio =
            usage(&[(TokenClass::InputFresh, 5), (TokenClass::InputAudio, 5), (TokenClass::OutputText, 1)]);
        assert_eq!(book().by_class(&ask(&audio)), None);
        assert_eq!(book().by_class(&ask(&Usage::unknown())), None);
    }

    #[test]
    fn a_billed_side_is_charged_as_plain_tokens() {
        let mut cohere = usage(&[(TokenClass::InputFresh, 900), (TokenClass::OutputText, 50)]);
        cohere.set_quantity(Quantity::BilledInputTokens, 100);
        let costs = book().by_class(&ask(&cohere)).unwrap();
        assert_eq!(costs.classes[0].1.list, Some(100 * 3_000_000));
        assert_eq!(costs.fees.contracted, 0);
    }

    proptest! {
        #[test]
        fn classes_and_fees_are_the_whole(counts in prop::collection::vec(0_u64..10_000_000, 5)) {
            let classes = [
                TokenClass::InputFresh, TokenClass::CachedRead, TokenClass::CacheWrite, TokenClass::OutputText,
                TokenClass::OutputReasoning,
            ];
            let usage = usage(&classes.into_iter().zip(counts).collect::<Vec<_>>());
            let costs = book().by_class(&ask(&usage)).unwrap();
            let sum: i128 = costs.classes.iter().map(|(_, part)| part.contracted).sum();
            prop_assert_eq!(Some(sum + costs.fees.contracted), costs.whole.contracted_pico);
            prop_assert_eq!(costs.fees, PartCost { list: Some(0), contracted: 0 });
        }
    }
}
