//! The example and the figures of `docs/guide/hedging.md`, computed from what the page says.
//!
//! Not here: the same figures from the rules' own vectors (`worked_examples`).

#[cfg(test)]
mod tests {
    use bursar_domain::{Currency, Label, Money, Timestamp};
    use bursar_policies::exact::{Decimal, Ratio};
    use bursar_policies::hedge::analytics::{Simulation, simulate};
    use bursar_policies::hedge::calendar::{Calendar, Month, parse_day};
    use bursar_policies::hedge::cost::{Book, Consumed, CostReport, Line, Lines, Use};
    use bursar_policies::hedge::lifecycle::Portfolio;
    use bursar_policies::hedge::market::{Fixing, Index, IndexKey, Market};
    use bursar_policies::hedge::position::{Entry, Facets};
    use bursar_policies::hedge::profile::{Profiles, Unit};
    use std::path::Path;

    const USD: Currency = Currency::USD;

    fn page() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/hedging.md");
        std::fs::read_to_string(path).unwrap()
    }

    /// The rows of the table with this heading, without its ruler.
    fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
        let rows = page.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
        let cells =
            |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let rows: Vec<Vec<String>> = rows.take_while(|line| line.starts_with('|')).map(cells).collect();
        assert!(!rows.is_empty(), "{heading}");
        rows
    }

    fn uses(page: &str) -> Vec<Use> {
        let one = |row: &Vec<String>| Use {
            row: None,
            at: Timestamp::from_micros(0),
            id: 0,
            facets: Facets::team(Label::new(&row[0]).unwrap()),
            volume: Decimal::parse(&row[2]).unwrap(),
            spot: Money::parse(USD, &row[1]).unwrap(),
        };
        table(page, "| team | spot cost (USD) |").iter().map(one).collect()
    }

    fn portfolio(page: &str) -> Portfolio {
        let json = page.split("```json").nth(1).unwrap().split("```").next().unwrap();
        let entries: Vec<Entry> = serde_json::from_str(json).unwrap();
        let mut portfolio = Portfolio::default();
        for entry in entries {
            let _ = portfolio.add(entry.check().unwrap()).unwrap();
        }
        portfolio
    }

    /// 2.2250 on the first eleven business days of September 2026, 2.2900 on the others.
    fn market() -> Market {
        let key = IndexKey { id: Label::fixed("TPI"), version: 1 };
        let mut market = Market::default();
        let calendar = Calendar::weekdays();
        let window = Month::parse("2026-09").unwrap().window().unwrap();
        let days: Vec<_> = window.each_day().filter(|day| calendar.is_business_day(*day)).collect();
        assert_eq!(days.len(), 22);
        market.declare(Index { key: key.clone(), currency: USD, calendar, last: None });
        for (index, date) in days.into_iter().enumerate() {
            let value = Decimal::parse(if index < 11 { "2.2250" } else { "2.2900" }).unwrap();
            let (source, known_at) = (Label::fixed("exchange"), Timestamp::from_micros(0));
            let fixing = Fixing { index: key.clone(), date, value, currency: USD, source, known_at };
            let _ = market.add_fixing(fixing).unwrap();
        }
        market
    }

    struct Example {
        uses: Vec<Use>,
        portfolio: Portfolio,
        market: Market,
        profiles: Profiles,
    }

    impl Example {
        fn of(page: &str) -> Self {
            let (uses, portfolio) = (uses(page), portfolio(page));
            Self { uses, portfolio, market: market(), profiles: Profiles::default() }
        }

        fn book(&self, today: &str) -> Book<'_> {
            Book {
                portfolio: &self.portfolio,
                market: &self.market,
                profiles: &self.profiles,
                unit: Unit::Msit,
                currency: USD,
                today: parse_day(today).unwrap(),
                as_of: Timestamp::from_micros(i64::MAX),
            }
        }

        fn cost(&self, today: &str) -> CostReport {
            let window = Month::parse("2026-09").unwrap().window().unwrap();
            self.book(today).cost(window, &self.uses, &mut Consumed::default()).unwrap()
        }
    }

    fn cents(money: Money) -> String {
        Ratio::of(money).text_half_even(2).unwrap()
    }

    fn row(name: &str, lines: &Lines) -> Vec<String> {
        let shown = [Line::Spot, Line::Payoff, Line::Premium, Line::Fees, Line::Unused];
        let figures = shown.iter().map(|line| cents(lines.get(*line)));
        [name.to_owned()].into_iter().chain(figures).chain([cents(lines.effective().unwrap())]).collect()
    }

    #[test]
    fn the_example_gives_the_figures_of_the_page() {
        let page = page();
        let example = Example::of(&page);
        let report = example.cost("2026-10-01");
        assert_eq!(report.unpriced, []);
        assert!(!report.provisional());
        let mut rows: Vec<Vec<String>> =
            report.rows.iter().map(|(team, team_row)| row(team.as_str(), &team_row.lines)).collect();
        rows.push(row("residual", &report.residual));
        rows.push(row("book", &report.book));
        assert_eq!(table(&page, "| team | spot | payoff |"), rows);
        let usd = |text| Money::parse(USD, text).unwrap();
        let sum = ["38938.63", "19544.70", "3145.82", "-630.00"].map(usd);
        let sum = sum.into_iter().reduce(|a, b| a.checked_add(b).unwrap()).unwrap();
        assert_eq!((sum, report.book.effective().unwrap()), (usd("60999.15"), usd("60999.15")));
        assert_eq!(report.book.get(Line::Displaced), usd("18904.51"));
        assert_eq!(report.book.get(Line::Contract), usd("18904.51"));
    }

    #[test]
    fn the_questions_beside_the_example_have_the_answers_of_the_page() {
        let page = page();
        let example = Example::of(&page);
        let book = example.book("2026-10-01");
        let window = Month::parse("2026-09").unwrap().window().unwrap();
        let half = Ratio::new(1, 2).unwrap();
        let scaled = book.scaled(window, &example.uses, &Consumed::default(), half).unwrap();
        let unhedged = book.unhedged(&example.uses).unwrap();
        let sentence = format!(
            "Without any position the month would have cost {}; with the swap at half its size, {}.",
            cents(unhedged.book.effective().unwrap()),
            cents(scaled.book.effective().unwrap()),
        );
        assert!(page.contains(&sentence), "{sentence}");
        let running = example.cost("2026-09-15");
        assert!(running.provisional());
        let swap = running.legs.iter().find(|leg| leg.position.as_str() == "swap-sep").unwrap();
        assert_eq!(swap.quantity, Ratio::whole(18_000));
        let payoff = Ratio::whole(18_000).times(Decimal::parse("0.125").unwrap().ratio()).unwrap();
        assert_eq!(swap.payoff, payoff.money_half_even(USD).unwrap());
    }

    #[test]
    fn the_simulation_gives_the_figures_of_the_page() {
        for row in table(&page(), "| basis | volume |") {
            let [basis_sd, volume_sd] = [&row[0], &row[1]].map(|text| text.parse::<f64>().unwrap());
            let simulation = Simulation { volume_sd, ..Simulation::published(1, basis_sd) };
            let found = simulate(&simulation, &|_| {}).unwrap().hedge.reduction;
            let figures = [found.volatility, found.variance].map(|figure| format!("{figure:.3}"));
            assert_eq!(figures, [row[2].clone(), row[3].clone()], "basis {basis_sd}, volume {volume_sd}");
        }
    }
}
