//! The columns of FOCUS 1.4 with their types and whether they may be null, and our own.
//!
//! Source: FOCUS specification 1.4, datasets Cost and Usage and Contract Commitment.
//!
//! Not here: what stands in them (`charge`, `commitments`).

use crate::export::{Column, Kind, MONEY_PLACES, Presence};

/// A column before it is one: name, type, presence.
type Spec = (&'static str, Kind, Presence);

const TEXT: Kind = Kind::Text;
const JSON: Kind = Kind::Json;
const TIME: Kind = Kind::Instant;
const DECIMAL: Kind = Kind::Decimal(MONEY_PLACES);
const A: Presence = Presence::Always;
const M: Presence = Presence::Maybe;

/// Cost and Usage: the columns of the specification.
pub const USAGE_COLUMNS: [Spec; 65] = [
    ("AllocatedMethodDetails", JSON, M),
    ("AllocatedMethodId", TEXT, M),
    ("AllocatedResourceId", TEXT, M),
    ("AllocatedResourceName", TEXT, M),
    ("AllocatedTags", JSON, M),
    ("AvailabilityZone", TEXT, M),
    ("BilledCost", DECIMAL, A),
    ("BillingAccountId", TEXT, A),
    ("BillingAccountName", TEXT, M),
    ("BillingAccountType", TEXT, A),
    ("BillingCurrency", TEXT, A),
    ("BillingPeriodEnd", TIME, A),
    ("BillingPeriodStart", TIME, A),
    ("CapacityReservationId", TEXT, M),
    ("CapacityReservationStatus", TEXT, M),
    ("ChargeCategory", TEXT, A),
    ("ChargeClass", TEXT, M),
    ("ChargeDescription", TEXT, M),
    ("ChargeFrequency", TEXT, A),
    ("ChargePeriodEnd", TIME, A),
    ("ChargePeriodStart", TIME, A),
    ("CommitmentDiscountCategory", TEXT, M),
    ("CommitmentDiscountId", TEXT, M),
    ("CommitmentDiscountName", TEXT, M),
    ("CommitmentDiscountQuantity", DECIMAL, M),
    ("CommitmentDiscountStatus", TEXT, M),
    ("CommitmentDiscountType", TEXT, M),
    ("CommitmentDiscountUnit", TEXT, M),
    ("CommitmentProgramEligibilityDetails", JSON, M),
    ("ConsumedQuantity", DECIMAL, M),
    ("ConsumedUnit", TEXT, M),
    ("ContractApplied", JSON, M),
    ("ContractedCost", DECIMAL, A),
    ("ContractedUnitPrice", DECIMAL, M),
    ("EffectiveCost", DECIMAL, A),
    ("HostProviderName", TEXT, M),
    ("InvoiceDetailId", TEXT, M),
    ("InvoiceId", TEXT, M),
    ("InvoiceIssuerName", TEXT, A),
    ("ListCost", DECIMAL, A),
    ("ListUnitPrice", DECIMAL, M),
    ("PricingCategory", TEXT, M),
    ("PricingCurrency", TEXT, A),
    ("PricingCurrencyContractedUnitPrice", DECIMAL, M),
    ("PricingCurrencyEffectiveCost", DECIMAL, A),
    ("PricingCurrencyListUnitPrice", DECIMAL, M),
    ("PricingQuantity", DECIMAL, M),
    ("PricingUnit", TEXT, M),
    ("RegionId", TEXT, M),
    ("RegionName", TEXT, M),
    ("ResourceId", TEXT, M),
    ("ResourceName", TEXT, M),
    ("ResourceType", TEXT, M),
    ("ServiceCategory", TEXT, A),
    ("ServiceName", TEXT, A),
    ("ServiceProviderName", TEXT, A),
    ("ServiceSubcategory", TEXT, A),
    ("SkuId", TEXT, M),
    ("SkuMeter", TEXT, M),
    ("SkuPriceDetails", JSON, M),
    ("SkuPriceId", TEXT, M),
    ("SubAccountId", TEXT, M),
    ("SubAccountName", TEXT, M),
    ("SubAccountType", TEXT, M),
    ("Tags", JSON, M),
];

/// Cost and Usage: our own columns, which follow.
pub const CUSTOM_COLUMNS: [Spec; 17] = [
    ("x_Team", TEXT, M),
    ("x_Workload", TEXT, M),
    ("x_Customer", TEXT, M),
    ("x_Session", TEXT, M),
    ("x_Model", TEXT, M),
    ("x_Tier", TEXT, M),
    ("x_TokenClass", TEXT, M),
    ("x_CostStatus", TEXT, M),
    ("x_ListCostSource", TEXT, M),
    ("x_SpotCost", DECIMAL, A),
    ("x_HedgedCost", DECIMAL, A),
    ("x_HedgePayoff", DECIMAL, A),
    ("x_HedgePremium", DECIMAL, A),
    ("x_HedgeFees", DECIMAL, A),
    ("x_HedgeFx", DECIMAL, A),
    ("x_HedgeResidual", DECIMAL, A),
    ("x_PositionId", TEXT, M),
];

/// Contract Commitment: the columns of the specification.
pub const COMMITMENT_COLUMNS: [Spec; 30] = [
    ("BillingCurrency", TEXT, M),
    ("ContractCommitmentApplicability", JSON, A),
    ("ContractCommitmentBenefitCategory", TEXT, A),
    ("ContractCommitmentCategory", TEXT, A),
    ("ContractCommitmentCost", DECIMAL, M),
    ("ContractCommitmentCreated", TIME, A),
    ("ContractCommitmentDescription", TEXT, M),
    ("ContractCommitmentDiscountPercentage", DECIMAL, M),
    ("ContractCommitmentDurationType", TEXT, A),
    ("ContractCommitmentFulfillmentInterval", TEXT, A),
    ("ContractCommitmentId", TEXT, A),
    ("ContractCommitmentLastUpdated", TIME, A),
    ("ContractCommitmentLifecycleStatus", TEXT, A),
    ("ContractCommitmentModel", TEXT, A),
    ("ContractCommitmentOfferCategory", TEXT, A),
    ("ContractCommitmentPaymentInterval", TEXT, A),
    ("ContractCommitmentPaymentModel", TEXT, A),
    ("ContractCommitmentPaymentUpfrontPercentage", DECIMAL, A),
    ("ContractCommitmentPeriodEnd", TIME, A),
    ("ContractCommitmentPeriodStart", TIME, A),
    ("ContractCommitmentQuantity", DECIMAL, M),
    ("ContractCommitmentType", TEXT, A),
    ("ContractCommitmentUnit", TEXT, M),
    ("ContractId", TEXT, A),
    ("ContractPeriodEnd", TIME, A),
    ("ContractPeriodStart", TIME, A),
    ("InvoiceIssuerName", TEXT, A),
    ("PricingCurrency", TEXT, A),
    ("PricingCurrencyContractCommitmentCost", DECIMAL, M),
    ("ServiceProviderName", TEXT, A),
];

/// Contract Commitment: our own columns.
const COMMITMENT_CUSTOM: [Spec; 2] = [("x_PositionKind", TEXT, A), ("x_FixedPrice", DECIMAL, M)];

fn columns<'a>(specs: impl Iterator<Item = &'a Spec>) -> Vec<Column> {
    let column = |(name, kind, presence): &Spec| Column { presence: *presence, ..Column::maybe(name, *kind) };
    specs.map(column).collect()
}

/// The columns of Cost and Usage.
#[must_use]
pub fn usage_columns() -> Vec<Column> {
    columns(USAGE_COLUMNS.iter().chain(&CUSTOM_COLUMNS))
}

/// The columns of Contract Commitment.
#[must_use]
pub fn commitment_columns() -> Vec<Column> {
    columns(COMMITMENT_COLUMNS.iter().chain(&COMMITMENT_CUSTOM))
}
