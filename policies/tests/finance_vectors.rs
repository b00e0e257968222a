//! The worked examples of `cases/finance.json` that are about prices, read from `../shared` when it
//! lies beside the project. Their figures are also asserted here as constants, so nothing is lost
//! without it.
//!
//! Not here: vectors about positions, allocation, attribution and ROI.

#[cfg(test)]
mod tests {
    use bursar_domain::{Cost, CostStatus, Money, Timestamp, TokenClass, Usage};
    use bursar_policies::price::{Ask, OverlayFile, PriceBook};
    use serde_json::Value;
    use std::path::Path;

    const COUNTS: [TokenClass; 4] =
        [TokenClass::InputFresh, TokenClass::CacheWrite, TokenClass::CachedRead, TokenClass::OutputText];

    /// The cost of one class of a call at `prices` per million, less `discount` percent.
    fn cost(prices: &[(TokenClass, &str)], discount: &str, class: TokenClass, count: u64) -> Cost {
        let prices: Vec<String> =
            prices.iter().map(|(class, price)| format!(r#""{class}": "{price}""#)).collect();
        let file = format!(
            r#"{{"rows": [
                {{"provider": "p", "model": "m", "per_million": {{{}}}}},
                {{"provider": "p", "model": "m", "kind": "contracted", "discount_percent": "{discount}"}}]}}"#,
            prices.join(",")
        );
        let file: OverlayFile = serde_json::from_str(&file).unwrap();
        let book = PriceBook::empty().with_overlay(&file).unwrap();
        let mut usage = Usage::unknown();
        for known in COUNTS {
            usage.set(known, 0);
        }
        usage.set(class, count);
        let ask = Ask {
            provider: "p",
            model_served: Some("m"),
            model_requested: None,
            tier: None,
            region: None,
            speed: None,
            at: Timestamp::from_micros(0),
            usage: &usage,
            by_model: &[],
        };
        let cost = book.price(&ask);
        assert_eq!(cost.status, CostStatus::Priced);
        cost
    }

    fn text(cost: &Cost, pico: Option<i128>) -> String {
        Money::from_pico(cost.currency, pico.unwrap()).to_string()
    }

    fn list(prices: &[(TokenClass, &str)], class: TokenClass, count: u64) -> String {
        let cost = cost(prices, "0", class, count);
        text(&cost, cost.list_pico)
    }

    /// Checks the figures of a vector against `figures`, when the file is there.
    fn check_vector(id: &str, figures: &[(&str, &str)]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/finance.json");
        let Ok(file) = std::fs::read_to_string(&path) else {
            println!(
                "skipped: {} is not there; vector {id} was checked against its constants",
                path.display()
            );
            return;
        };
        let file: Value = serde_json::from_str(&file).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        let vector = vectors.iter().find(|vector| vector["id"] == id).unwrap();
        for (name, figure) in figures {
            let theirs = vector["expected"][name].as_str().or(vector["inputs"][name].as_str());
            assert_eq!(theirs, Some(*figure), "{id} {name}");
        }
    }

    #[test]
    fn a1_tokens_cost_count_times_price_exactly() {
        let prices = [(TokenClass::InputFresh, "5.00"), (TokenClass::OutputText, "25.00")];
        let input = list(&prices, TokenClass::InputFresh, 8_400_000);
        let output = list(&prices, TokenClass::OutputText, 2_100_000);
        assert_eq!((&*input, &*output), ("42", "52.5"));
        check_vector("A1", &[("input_usd_per_M", "5.00"), ("output_usd_per_M", "25.00")]);
        check_vector("A1", &[("input_usd", &input), ("output_usd", &output)]);
    }

    #[test]
    fn a2_cache_classes_never_overlap() {
        let prices: Vec<_> = COUNTS.into_iter().zip(["3.00", "3.75", "0.30", "15.00"]).collect();
        let counts = [500_000, 2_000_000, 8_000_000, 1_500_000];
        let costs: Vec<String> =
            COUNTS.into_iter().zip(counts).map(|(class, n)| list(&prices, class, n)).collect();
        assert_eq!(costs, ["1.5", "7.5", "2.4", "22.5"]);
        let names = ["uncached", "cache_write", "cache_read", "output"];
        let figures: Vec<_> = names.into_iter().zip(costs.iter().map(String::as_str)).collect();
        check_vector("A2", &figures);
    }

    #[test]
    fn d3_a_discount_of_a_fifth_leaves_four_fifths() {
        let prices = [(TokenClass::InputFresh, "5.00"), (TokenClass::OutputText, "25.00")];
        let input = cost(&prices, "20", TokenClass::InputFresh, 5_000_000);
        let output = cost(&prices, "20", TokenClass::OutputText, 1_500_000);
        let figures = [
            ("list_input", text(&input, input.list_pico)),
            ("list_output", text(&output, output.list_pico)),
            ("effective_input", text(&input, input.contracted_pico)),
            ("effective_output", text(&output, output.contracted_pico)),
        ];
        assert_eq!(figures.each_ref().map(|(_, figure)| &**figure), ["25", "37.5", "20", "30"]);
        check_vector("D3", &figures.each_ref().map(|(name, figure)| (*name, &**figure)));
    }
}
