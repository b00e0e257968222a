//! One row of Cost and Usage.
//!
//! Invariants
//! - Cells come in the order of the columns; what a charge does not say is null by the rules of the
//!   specification (no price, no quantity; no resource, no type of it).
//!
//! Not here: which charges there are (`usage`, `cover`).

use crate::export::Cell;
use crate::query::{GroupKey, KeyValue};
use bursar_domain::Timestamp;
use bursar_domain::money::PICO;
use serde_json::{Map, Value};

/// Months and hours of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// Of the billing period: first instant, and first outside.
    pub(super) billing: (Timestamp, Timestamp),
    /// Of the charge.
    pub(super) charge: (Timestamp, Timestamp),
}

/// What is sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sku {
    pub(super) id: String,
    pub(super) price_id: String,
    pub(super) meter: String,
    pub(super) details: Option<String>,
}

/// How much of it, at what price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Priced {
    /// In 10⁻¹² of the unit.
    pub(super) quantity: i128,
    pub(super) unit: &'static str,
    pub(super) list_price: i128,
    pub(super) contracted_price: i128,
}

impl Priced {
    /// The whole charge as one unit.
    pub(super) const fn whole(list: i128, contracted: i128) -> Self {
        Self { quantity: PICO, unit: "Charges", list_price: list, contracted_price: contracted }
    }
}

/// What derivatives did, apart from the four costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hedged {
    pub(super) payoff: i128,
    pub(super) premium: i128,
    pub(super) fees: i128,
    pub(super) fx: i128,
    pub(super) residual: i128,
}

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Charge<'a> {
    pub(super) times: Times,
    pub(super) account: &'a str,
    pub(super) currency: &'a str,
    pub(super) category: &'static str,
    pub(super) frequency: &'static str,
    pub(super) description: String,
    pub(super) provider: &'a str,
    pub(super) sku: Option<Sku>,
    pub(super) priced: Option<Priced>,
    /// In 10⁻¹² of the unit.
    pub(super) consumed: Option<(i128, &'static str)>,
    pub(super) list: i128,
    pub(super) contracted: i128,
    pub(super) billed: i128,
    pub(super) effective: i128,
    /// Currency of prices, with list and contracted unit price and the effective cost in it.
    pub(super) pricing: Option<(String, i128, i128, i128)>,
    pub(super) applied: Option<String>,
    /// The contract that the charge is about.
    pub(super) position: Option<&'a str>,
    /// Whether the charge is the contract itself: its purchase, or what of it was not used.
    pub(super) is_position: bool,
    pub(super) region: Option<&'a str>,
    pub(super) by: &'a [GroupKey],
    pub(super) key: &'a [KeyValue],
    pub(super) model: Option<&'a str>,
    pub(super) tier: Option<&'a str>,
    pub(super) class: Option<&'static str>,
    pub(super) status: Option<&'static str>,
    pub(super) list_source: Option<&'static str>,
    pub(super) spot: i128,
    pub(super) hedged_cost: i128,
    pub(super) hedged: Hedged,
}

impl<'a> Charge<'a> {
    /// A charge of nothing yet.
    pub(super) fn new(times: Times, (account, currency): (&'a str, &'a str), category: &'static str) -> Self {
        Self {
            times,
            account,
            currency,
            category,
            frequency: "Usage-Based",
            description: String::new(),
            provider: "unknown",
            sku: None,
            priced: None,
            consumed: None,
            list: 0,
            contracted: 0,
            billed: 0,
            effective: 0,
            pricing: None,
            applied: None,
            position: None,
            is_position: false,
            region: None,
            by: &[],
            key: &[],
            model: None,
            tier: None,
            class: None,
            status: None,
            list_source: None,
            spot: 0,
            hedged_cost: 0,
            hedged: Hedged::default(),
        }
    }

    fn of_key(&self, wanted: &GroupKey) -> Cell<'_> {
        let found = self.by.iter().zip(self.key).find(|(key, _)| *key == wanted);
        Cell::text(found.and_then(|(_, value)| value.text()))
    }

    /// The tags that rows are grouped by, as JSON; nothing where there are none.
    fn tags(&self) -> Cell<'static> {
        let tag = |(key, value): (&GroupKey, &KeyValue)| match key {
            GroupKey::Tag(name) => Some((name.clone(), Value::from(value.text()?))),
            _ => None,
        };
        let tags: Map<String, Value> = self.by.iter().zip(self.key).filter_map(tag).collect();
        if tags.is_empty() { Cell::Null } else { Cell::owned(Value::Object(tags).to_string()) }
    }

    /// The cells, in the order of the columns.
    pub(super) fn cells(&self) -> Vec<Cell<'_>> {
        let text = |text: &'a str| Cell::text(Some(text));
        let money = Cell::Decimal;
        let (sku, priced, resource) = (self.sku.as_ref(), self.priced.as_ref(), self.position);
        let resource = resource.filter(|_| self.is_position);
        let own = (self.currency.to_owned(), 0, 0, self.effective);
        let pricing = self.pricing.clone().unwrap_or_else(|| match priced {
            Some(priced) => (own.0.clone(), priced.list_price, priced.contracted_price, own.3),
            None => own,
        });
        let price = |price: i128| priced.map_or(Cell::Null, |_| Cell::Decimal(price));
        let team = self.of_key(&GroupKey::Team);
        let of_team = |text: Cell<'a>| if team == Cell::Null { Cell::Null } else { text };
        let mut cells = Vec::with_capacity(84);
        // Split cost allocation and availability zones: nothing of the kind.
        cells.extend([Cell::Null, Cell::Null, Cell::Null, Cell::Null, Cell::Null, Cell::Null]);
        cells.extend([
            money(self.billed),
            text(self.account),
            Cell::Null,
            text("Billing Account"),
            text(self.currency),
            Cell::Instant(self.times.billing.1),
            Cell::Instant(self.times.billing.0),
            Cell::Null,
            Cell::Null,
            text(self.category),
            Cell::Null,
            Cell::text(Some(self.description.as_str())),
            text(self.frequency),
            Cell::Instant(self.times.charge.1),
            Cell::Instant(self.times.charge.0),
        ]);
        // Contracts are told as contract commitments (ContractApplied), not as commitment discounts.
        cells.extend([
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
        ]);
        cells.extend([
            Cell::decimal(self.consumed.map(|(quantity, _)| quantity)),
            Cell::text(self.consumed.map(|(_, unit)| unit)),
            Cell::text(self.applied.as_deref()),
            money(self.contracted),
            Cell::decimal(priced.map(|priced| priced.contracted_price)),
            money(self.effective),
            text(self.provider),
            Cell::Null,
            Cell::Null,
            text(self.provider),
            money(self.list),
            Cell::decimal(priced.map(|priced| priced.list_price)),
            Cell::text(priced.map(|_| "Standard")),
            Cell::owned(pricing.0),
            price(pricing.2),
            money(pricing.3),
            price(pricing.1),
            Cell::decimal(priced.map(|priced| priced.quantity)),
            Cell::text(priced.map(|priced| priced.unit)),
            Cell::text(self.region),
            Cell::text(self.region),
            Cell::text(resource),
            Cell::Null,
            Cell::text(resource.map(|_| "Contract Commitment")),
            text("AI and Machine Learning"),
            Cell::owned(format!("{} inference", self.provider)),
            text(self.provider),
            text("Generative AI"),
            Cell::text(sku.map(|sku| sku.id.as_str())),
            Cell::text(sku.map(|sku| sku.meter.as_str())),
            Cell::text(sku.and_then(|sku| sku.details.as_deref())),
            Cell::text(sku.map(|sku| sku.price_id.as_str())),
            team.clone(),
            team.clone(),
            of_team(text("Team")),
            self.tags(),
            team.clone(),
            self.of_key(&GroupKey::Workload),
            self.of_key(&GroupKey::Customer),
            self.of_key(&GroupKey::Session),
            Cell::text(self.model),
            Cell::text(self.tier),
            Cell::text(self.class),
            Cell::text(self.status),
            Cell::text(self.list_source),
            money(self.spot),
            money(self.hedged_cost),
            money(self.hedged.payoff),
            money(self.hedged.premium),
            money(self.hedged.fees),
            money(self.hedged.fx),
            money(self.hedged.residual),
            Cell::text(self.position),
        ]);
        cells
    }
}
