//! The most that a call can cost, before anybody knows how it is served.
//!
//! Rules
//! - The dearest of all that the call can turn out to be: the standard tier and the one that it asks for
//!   (providers fall back from one to the other); `priority` too where it asks for none or `auto` (OpenAI's
//!   projects and Anthropic's accounts may choose it); the speed that it asks for; of several regions the
//!   dearest, where the provider chooses; every context threshold that the input may pass.
//! - Input takes the dearest class of input that has a price, output the dearest of output: which tokens
//!   are cached, sound, pictures or reasoning is only known afterwards.
//! - Fees per request are added; searches, seconds, pages and pictures as often as the caller says that
//!   they can occur.
//!
//! Not here: how many tokens a request may use (`bursar`), what a call did cost (`mod`).

use super::book::PriceBook;
use super::compile::{Band, Slot, Table};
use super::row::{Item, STANDARD};
use super::{Gap, Tariff, amount, is_output, names};
use bursar_domain::{Currency, Money, Quantity, Timestamp, TokenClass, Usage};

/// What is known of a call before it is made.
#[derive(Clone, Copy, Debug)]
pub struct BoundAsk<'a> {
    /// The provider.
    pub provider: &'a str,
    /// The model that is asked for.
    pub model: Option<&'a str>,
    /// The tier that is asked for.
    pub tier: Option<&'a str>,
    /// The speed mode that is asked for.
    pub speed: Option<&'a str>,
    /// The price region.
    pub region: Option<&'a str>,
    /// Whether the provider may serve from any region that it has prices for.
    pub any_region: bool,
    /// When the call begins.
    pub at: Timestamp,
    /// Most input tokens.
    pub input: u64,
    /// Most output tokens.
    pub output: u64,
    /// Most of the other things that may be billed.
    pub quantities: &'a Usage,
}

impl PriceBook {
    /// The most that a call can cost at the prices of its time; or what has no price.
    pub fn bound(&self, ask: &BoundAsk<'_>) -> Result<Money, Gap> {
        let model = ask.model.ok_or(Gap::NoModel)?;
        let table = self.table(ask.provider, model).ok_or_else(|| {
            if self.has_provider(ask.provider) { Gap::UnknownModel } else { Gap::UnknownProvider }
        })?;
        let own = names::canonical_region(ask.region);
        let mut dearest: Option<Money> = None;
        let mut gap = None;
        for tier in tiers(ask) {
            let others = table.variants.iter().filter(|_| ask.any_region).map(|v| v.region.as_deref());
            for region in std::iter::once(own).chain(others) {
                match at_tariff(table, tier.name, region, ask) {
                    Ok(cost) => dearest = Some(dearer(dearest, cost)?),
                    // What it may fall back to may not be sold; what it asks for must be.
                    Err(Gap::UnknownTier | Gap::NoPriceThen | Gap::UnknownRegion) if tier.is_possible => {}
                    Err(Gap::UnknownTier | Gap::NoPriceThen) if region != own => {}
                    Err(error) => gap = gap.or(Some(error)),
                }
            }
        }
        match (gap, dearest) {
            (None, Some(cost)) => Ok(cost),
            (gap, _) => Err(gap.unwrap_or(Gap::NoPriceThen)),
        }
    }
}

struct Tier<'a> {
    name: &'a str,
    /// It may turn out to be this one, and nobody asked for it.
    is_possible: bool,
}

/// The tiers that the call can be served at, the one that it asks for first.
fn tiers<'a>(ask: &BoundAsk<'a>) -> Vec<Tier<'a>> {
    let asked = names::canonical_tier(ask.tier.unwrap_or(STANDARD));
    let leaves_open = ask.tier.is_none_or(|tier| tier.eq_ignore_ascii_case("auto"));
    let mut tiers = vec![Tier { name: asked, is_possible: false }];
    if asked != STANDARD {
        tiers.push(Tier { name: STANDARD, is_possible: true });
    }
    if leaves_open {
        tiers.push(Tier { name: "priority", is_possible: true });
    }
    if let Some(speed) = ask.speed.filter(|speed| names::canonical_tier(speed) != STANDARD) {
        tiers.push(Tier { name: speed, is_possible: false });
    }
    tiers
}

fn dearer(one: Option<Money>, other: Money) -> Result<Money, Gap> {
    match one {
        None => Ok(other),
        Some(one) if one.currency() != other.currency() => Err(Gap::TwoCurrencies),
        Some(one) => Ok(if one.pico() < other.pico() { other } else { one }),
    }
}

/// The most that the call can cost at one tier and in one region.
fn at_tariff(table: &Table, tier: &str, region: Option<&str>, ask: &BoundAsk<'_>) -> Result<Money, Gap> {
    let Tariff { currency, bands, region_known, .. } = table.tariff(tier, region, ask.at)?;
    if !region_known {
        return Err(Gap::UnknownRegion);
    }
    let mut dearest = None;
    for band in bands.iter().filter(|band| band.above == 0 || band.above < ask.input) {
        dearest = Some(dearer(dearest, in_band(band, currency, ask)?)?);
    }
    dearest.ok_or(Gap::NoPriceThen)
}

fn in_band(band: &Band, currency: Currency, ask: &BoundAsk<'_>) -> Result<Money, Gap> {
    let mut sum = 0_i128;
    let mut add = |cost: Option<i128>| {
        sum = cost.and_then(|cost| sum.checked_add(cost)).ok_or(Gap::TooLarge)?;
        Ok::<(), Gap>(())
    };
    let has_quantity = quantities(band, ask.quantities, &mut add)?;
    if let Some(slot) = band.slot(Item::Request) {
        add(cost_of(slot, 1))?;
    }
    let sides = [(ask.input, TokenClass::InputFresh, false), (ask.output, TokenClass::OutputText, true)];
    for (count, named, output) in sides {
        match dearest_class(band, output) {
            Some(slot) => add(cost_of(slot, count))?,
            // What is sold by the second, page or piece is sold by that alone.
            None if count == 0 || has_quantity => {}
            None => return Err(Gap::NoPrice(Item::Token(named))),
        }
    }
    Ok(Money::from_pico(currency, sum))
}

/// Adds what is billed beside tokens; returns whether the model is sold by any of that (searches aside,
/// which are a fee).
fn quantities(
    band: &Band,
    most: &Usage,
    add: &mut impl FnMut(Option<i128>) -> Result<(), Gap>,
) -> Result<bool, Gap> {
    let mut any = false;
    for (quantity, count) in most.quantities().filter(|(_, count)| *count > 0) {
        let item = Item::Quantity(quantity);
        let is_search = quantity == Quantity::WebSearchRequests;
        match (band.slot(item), band.slot(Item::GroundedRequest).filter(|_| is_search)) {
            (Some(slot), _) => {
                add(cost_of(slot, count))?;
                any |= !is_search;
            }
            (None, Some(slot)) => add(cost_of(slot, 1))?,
            (None, None) if is_search => return Err(Gap::NoPrice(item)),
            (None, None) => {}
        }
    }
    Ok(any)
}

fn dearest_class(band: &Band, output: bool) -> Option<&Slot> {
    let of_side = |slot: &&Slot| matches!(slot.item, Item::Token(class) if is_output(class) == output);
    band.slots.iter().filter(of_side).max_by_key(|slot| slot.contracted)
}

fn cost_of(slot: &Slot, count: u64) -> Option<i128> {
    amount(slot.contracted, slot.contracted_per, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{Ask, PriceBook};
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp::from_micros(1_793_500_000_000_000);

    fn ask<'a>(provider: &'a str, model: &'a str, quantities: &'a Usage) -> BoundAsk<'a> {
        BoundAsk {
            provider,
            model: Some(model),
            tier: None,
            speed: None,
            region: None,
            any_region: false,
            at: AT,
            input: 1_000_000,
            output: 1_000_000,
            quantities,
        }
    }

    /// Dollars, rounded down to thousandths.
    fn milli(ask: &BoundAsk<'_>) -> Result<i128, Gap> {
        PriceBook::builtin().unwrap().bound(ask).map(|money| money.pico() / 1_000_000_000)
    }

    #[test]
    fn a_call_holds_the_dearest_tier_that_it_can_be_served_at() {
        let none = Usage::unknown();
        let plain = ask("openai", "gpt-4o-mini", &none);
        // Standard is 0.15 and 0.60, priority 0.25 and 1.00.
        assert_eq!(milli(&BoundAsk { tier: Some("default"), ..plain }), Ok(750));
        assert_eq!(milli(&plain), Ok(1_250));
        assert_eq!(milli(&BoundAsk { tier: Some("auto"), ..plain }), Ok(1_250));
        assert_eq!(milli(&BoundAsk { tier: Some("nobody-sells-this"), ..plain }), Err(Gap::UnknownTier));
    }

    #[test]
    fn a_speed_is_only_held_where_it_is_asked_for() {
        let none = Usage::unknown();
        let plain = ask("anthropic", "claude-opus-4-8", &none);
        let (slow, fast) =
            (milli(&plain).unwrap(), milli(&BoundAsk { speed: Some("fast"), ..plain }).unwrap());
        assert!(slow < fast, "{slow} {fast}");
        let anywhere = milli(&BoundAsk { any_region: true, ..plain }).unwrap();
        assert!(slow < anywhere, "{slow} {anywhere}");
    }

    #[test]
    fn sound_and_searches_are_held_at_their_own_prices() {
        let mut none = Usage::unknown();
        let text = milli(&ask("gemini", "gemini-2.5-flash", &none)).unwrap();
        // Sound is 1.00 in, text 0.30; output 2.50.
        assert!(text >= 3_500, "{text}");
        let plain = milli(&ask("anthropic", "claude-opus-4-8", &none)).unwrap();
        none.set_quantity(Quantity::WebSearchRequests, 10);
        assert_eq!(milli(&ask("anthropic", "claude-opus-4-8", &none)), Ok(plain + 100));
        assert_eq!(
            milli(&ask("mistral", "codestral-latest", &none)),
            Err(Gap::NoPrice(Item::Quantity(Quantity::WebSearchRequests)))
        );
    }

    #[test]
    fn what_is_sold_by_the_piece_needs_no_price_of_tokens() {
        let mut units = Usage::unknown();
        units.set_quantity(Quantity::Images, 3);
        assert_eq!(milli(&ask("alibaba", "qwen-image-3.0", &units)), Ok(90));
        assert_eq!(
            milli(&ask("alibaba", "qwen-image-3.0", &Usage::unknown())),
            Err(Gap::NoPrice(Item::Token(TokenClass::InputFresh)))
        );
        let none = Usage::unknown();
        let embedding = ask("openai", "text-embedding-3-small", &none);
        assert_eq!(milli(&embedding), Err(Gap::NoPrice(Item::Token(TokenClass::OutputText))));
        assert_eq!(milli(&BoundAsk { output: 0, ..embedding }), Ok(20));
    }

    #[test]
    fn what_the_book_does_not_know_has_no_bound() {
        let none = Usage::unknown();
        assert_eq!(milli(&ask("openai", "gpt-99", &none)), Err(Gap::UnknownModel));
        assert_eq!(milli(&ask("nobody", "x", &none)), Err(Gap::UnknownProvider));
        assert_eq!(milli(&BoundAsk { model: None, ..ask("openai", "x", &none) }), Err(Gap::NoModel));
    }

    proptest! {
        #[test]
        fn no_call_costs_more_than_its_bound(
            (provider, model) in prop::sample::select(vec![
                ("openai", "gpt-4o-mini"), ("openai", "gpt-5"), ("openai", "gpt-4o-audio-preview"),
                ("anthropic", "claude-opus-4-8"), ("anthropic", "claude-sonnet-4-5"),
                ("gemini", "gemini-2.5-pro"), ("gemini", "gemini-2.5-flash"), ("xai", "grok-4"),
                ("deepseek", "deepseek-v4-pro"), ("openai", "gpt-image-1"), ("openai", "gpt-realtime"),
            ]),
            tier in prop::sample::select(vec![None, Some("default"), Some("flex"), Some("priority")]),
            served in prop::sample::select(vec!["standard", "priority", "flex"]),
            (input, output) in (1_u64..3_000_000, 1_u64..200_000),
            shares in prop::collection::vec(0_u64..100, TokenClass::ALL.len()),
            minutes in 0_i64..1_440,
        ) {
            let book = PriceBook::builtin().unwrap();
            let at = Timestamp::from_micros(AT.micros() + minutes * 60_000_000);
            let none = Usage::unknown();
            let asked = BoundAsk { tier, at, input, output, ..ask(provider, model, &none) };
            // A tier that was asked for is served, or the standard one; where none was, any but flex.
            let possible = match tier {
                None => served != "flex",
                Some(tier) => served == "standard" || served == tier,
            };
            prop_assume!(possible);
            let Ok(bound) = book.bound(&asked) else { return Ok(()) };
            let mut usage = Usage::unknown();
            let classes = || TokenClass::ALL.iter().zip(&shares).filter(|(c, _)| **c != TokenClass::CacheRewrite);
            for side in [false, true] {
                let total: u64 = classes().filter(|(c, _)| is_output(**c) == side).map(|(_, n)| n).sum();
                let all = if side { output } else { input };
                for (class, share) in classes().filter(|(c, _)| is_output(**c) == side) {
                    usage.set(*class, all * share / total.max(1));
                }
            }
            let cost = book.price(&Ask {
                provider,
                model_served: Some(model),
                model_requested: None,
                tier: Some(served),
                region: None,
                speed: None,
                at,
                usage: &usage,
                by_model: &[],
            });
            prop_assert!(cost.billed_pico.unwrap_or(0) <= bound.pico(), "{cost:?} {bound:?}");
        }
    }
}
