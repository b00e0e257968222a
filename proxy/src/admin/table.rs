//! The operations of the admin API: one table, from which come the routes, the check of every request and
//! the OpenAPI document.
//!
//! Invariants
//! - What is not in the table is not served, and what is served is in the document.
//! - Every operation says which scope of a token it needs; none is forgotten, as the field has no default.
//!
//! Not here: what parameters may say (`param`), the gate before handlers (`gate`), the document's form
//! (`openapi`), schemas of answers (`schemas.json`).

use super::param::{Kind, Param};
use super::{
    Admin, audit, books, budgets, dashboard, focus, hedge, openapi, prices, reconcile, reports, roi, webhooks,
};
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodFilter, MethodRouter, on};

/// How an operation is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

impl Method {
    pub(super) const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
        }
    }

    /// Its key in a document.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
        }
    }
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Everybody: health.
    Nothing,
    /// A token that reads, unless metrics are public.
    ReadOrPublic,
    /// Any token.
    AnyToken,
    /// A token that reads.
    Read,
    /// A token that brings in facts.
    Ingest,
    /// A token for everything.
    Admin,
}

/// What an operation takes as its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// None.
    Nothing,
    /// Rows: JSON, JSON Lines or CSV.
    Rows,
    /// Revenue events: CloudEvents, or rows.
    Events,
    /// A price overlay.
    Overlay,
    /// A provider's statements.
    Statements,
}

impl Body {
    /// The types that are told in the document, each with the schema of a JSON body.
    pub(super) const fn types(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Self::Nothing => &[],
            Self::Rows => {
                &[("application/json", Some("Rows")), ("application/x-ndjson", None), ("text/csv", None)]
            }
            Self::Events => &[
                ("application/cloudevents+json", Some("CloudEvent")),
                ("application/cloudevents-batch+json", Some("CloudEvents")),
                ("application/json", Some("Rows")),
                ("application/x-ndjson", None),
                ("text/csv", None),
            ],
            Self::Overlay => &[("application/json", Some("Overlay")), ("application/yaml", None)],
            Self::Statements => &[("application/json", Some("Statements"))],
        }
    }

    /// Types that are taken besides: other names of those, and what clients say that were told nothing.
    pub(super) const fn other_types(self) -> &'static [&'static str] {
        match self {
            Self::Nothing | Self::Events => &["application/jsonl"],
            Self::Rows | Self::Overlay | Self::Statements => &[
                "application/jsonl",
                "application/x-yaml",
                "text/yaml",
                "text/plain",
                "application/octet-stream",
                "application/x-www-form-urlencoded",
            ],
        }
    }
}

/// What an operation answers when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A JSON document of this schema.
    Json(&'static str),
    /// A body of one of these types.
    Text(&'static [&'static str]),
    /// A JSON document of this schema, or, where another format is asked for, a body of one of these types.
    JsonOr(&'static str, &'static [&'static str]),
    /// Usage records in one of these types.
    Records(&'static [&'static str]),
    /// The OpenAPI document.
    OpenApi,
}

/// A list that is told in pages: where its rows are, and what names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    pub(super) rows: &'static str,
    pub(super) key: &'static str,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// Its name in the document.
    pub(super) id: &'static str,
    pub(super) about: &'static str,
    pub(super) needs: Needs,
    /// The part of the path in braces.
    pub(super) place: Option<Param>,
    pub(super) query: &'static [&'static [Param]],
    pub(super) body: Body,
    pub(super) pages: Option<Pages>,
    pub(super) answer: Answer,
    /// Statuses of refusals beside those of every operation.
    pub(super) refuses: &'static [u16],
    /// The schema of a refusal with 409 or 422.
    pub(super) problem: &'static str,
    pub(super) handler: fn(MethodFilter) -> MethodRouter<Admin>,
}

impl Operation {
    const fn get(
        path: &'static str,
        id: &'static str,
        needs: Needs,
        handler: fn(MethodFilter) -> MethodRouter<Admin>,
    ) -> Self {
        Self {
            method: Method::Get,
            path,
            id,
            about: "",
            needs,
            place: None,
            query: &[],
            body: Body::Nothing,
            pages: None,
            answer: Answer::Text(&["text/plain; charset=utf-8"]),
            refuses: &[],
            problem: "Problem",
            handler,
        }
    }

    const fn post(
        path: &'static str,
        id: &'static str,
        needs: Needs,
        handler: fn(MethodFilter) -> MethodRouter<Admin>,
    ) -> Self {
        Self { method: Method::Post, ..Self::get(path, id, needs, handler) }
    }

    const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    const fn place(mut self, name: &'static str, kind: Kind, doc: &'static str) -> Self {
        self.place = Some(Param::new(name, kind, doc).needed());
        self
    }

    const fn query(mut self, query: &'static [&'static [Param]]) -> Self {
        self.query = query;
        self
    }

    const fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    const fn pages(mut self, rows: &'static str, key: &'static str) -> Self {
        self.pages = Some(Pages { rows, key });
        self
    }

    const fn json(mut self, schema: &'static str) -> Self {
        self.answer = Answer::Json(schema);
        self
    }

    const fn answers(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }

    const fn refuses(mut self, refuses: &'static [u16]) -> Self {
        self.refuses = refuses;
        self
    }

    const fn problem(mut self, schema: &'static str) -> Self {
        self.problem = schema;
        self
    }

    /// Every parameter of its query.
    pub(super) fn params(&self) -> Vec<Param> {
        let pages = if self.pages.is_some() { PAGES } else { &[] };
        self.query.iter().copied().chain([pages]).flatten().copied().collect()
    }
}

// === parameters ===

const KEYS: &[&str] = &[
    "team",
    "workload",
    "customer",
    "session",
    "provider",
    "model",
    "model_requested",
    "route",
    "api",
    "tier",
    "outcome",
    "source",
    "hour",
    "day",
    "month",
    "tag:",
];
const TZ: Param = Param::new("tz", Kind::Zone, "Whose days; UTC when absent.");
const BY: Param = Param::new("by", Kind::Keys(KEYS), "Group keys, separated by commas.");

/// Usage and revenue: instants.
const SPAN: &[Param] = &[
    Param::new("from", Kind::Time, "Start, inclusive."),
    Param::new("to", Kind::Time, "End, exclusive."),
    TZ,
];

/// Days of finance.
const DAYS: &[Param] = &[
    Param::new("from", Kind::Day, "First day; the first of the month of `on` when absent."),
    Param::new("to", Kind::Day, "First day outside; the day after `on` when absent."),
    Param::new("on", Kind::Day, "The last day that is in the figures."),
];

/// Terms of a book.
const TERMS: &[Param] = &[
    BY,
    Param::new("unit", Kind::OneOf(&["Mtok", "MSIT"]), "Unit of volumes; Mtok when absent."),
    Param::new("currency", Kind::Currency, "Reporting currency; USD when absent."),
    Param::new("as_of", Kind::Time, "With what was known at this time; now when absent."),
];

const SPOT: Param = Param::new(
    "spot",
    Kind::OneOf(&["list", "contracted", "billed"]),
    "Which cost is spot; billed when absent.",
);
const RATIO: Param = Param::new(
    "hedge_ratio",
    Kind::Decimal,
    "Also the cost with every cash contract at this part of its size.",
);
const MODEL: Param = Param::new(
    "model",
    Kind::OneOf(&["first", "last", "linear", "time_decay", "position", "shapley", "markov"]),
    "How credit for revenue is shared out; linear when absent.",
);
const LOOK_BACK: Param = Param::new("look_back", Kind::Days, "How old a touch may be; 30d when absent.");
const HALF_LIFE: Param = Param::new("half_life", Kind::Days, "Half-life of time_decay; 7d when absent.");

const HEDGE: &[&[Param]] = &[DAYS, &[TZ], TERMS, &[SPOT, RATIO]];

const IMPORT: &[Param] = &[
    Param::new("dry_run", Kind::Switch, "Only say what would be imported."),
    Param::new("file", Kind::Text(256), "The file's name, to remember the import by."),
];

const COMPOSE: &[Param] = &[
    Param::new("currency", Kind::Currency, "Currency of the values.").needed(),
    Param::new("from", Kind::Day, "First day.").needed(),
    Param::new("to", Kind::Day, "First day outside.").needed(),
    Param::new("version", Kind::Whole(1, 1_000_000), "Version of the method; 1 when absent."),
    Param::new("by", Kind::OneOf(&["provider", "model"]), "What the constituents are; provider when absent."),
    Param::new("cap", Kind::Decimal, "Largest weight in percent; 30 when absent."),
    Param::new("days", Kind::Whole(1, 3_660), "Days of usage in a value; 30 when absent."),
    Param::new("places", Kind::Whole(0, 12), "Decimals of a value; 6 when absent."),
    Param::new("unit", Kind::OneOf(&["Mtok", "MSIT"]), "Unit of volumes; Mtok when absent."),
    SPOT,
    Param::new("calendar", Kind::Text(256), "When a new index is fixed; weekdays when absent."),
];

const CLOSE: &[Param] = &[
    TZ,
    Param::new("currency", Kind::Currency, "Reporting currency."),
    Param::new("unit", Kind::OneOf(&["Mtok", "MSIT"]), "Unit of volumes."),
    BY,
    MODEL,
    LOOK_BACK,
    HALF_LIFE,
    Param::new("on", Kind::Day, "The last day that is valued; yesterday when absent."),
    Param::new("accept_gaps", Kind::Switch, "Close although something is missing or provisional."),
];

const AS: Param = Param::new(
    "as",
    Kind::OneOf(&["restated", "reported"]),
    "With all that is known, or as months were closed.",
);

const ROI: &[Param] = &[
    MODEL,
    LOOK_BACK,
    HALF_LIFE,
    Param::new("compare", Kind::Switch, "Every model beside the one asked for."),
    Param::new("movers", Kind::Whole(0, 1_000), "How many rows that moved most are shown."),
    Param::new("sheets", Kind::Switch, "Also rows by team and by workload, and the contracts."),
    AS,
];

/// Models of a price book.
const PICK: &[Param] = &[
    Param::new("provider", Kind::Text(64), "Only this provider."),
    Param::new("model", Kind::Text(256), "Only the model of this name; `*` stands for any text."),
];
const AT: Param = Param::new("at", Kind::Time, "The time; now when absent.");
const AT_ALL: Param =
    Param::new("at", Kind::Time, "Prices of this time for all records; of each record's own when absent.");

/// Of every list.
pub(super) const PAGES: &[Param] = &[
    Param::new("limit", Kind::Whole(1, 10_000), "Most rows of a page; 1000 when absent."),
    Param::new("cursor", Kind::Text(512), "`next_cursor` of the page before."),
];

const JSON_LINES: &str = "application/x-ndjson";

/// Every operation, in the order of the document.
pub(super) static OPERATIONS: &[Operation] = &[
    Operation::get("/", "dashboard", Needs::Read, |f| on(f, dashboard::page))
        .about("The dashboard, for a browser. The page holds no data: it asks this API.")
        .answers(Answer::Text(&[dashboard::HTML])),
    Operation::get("/dashboard/{file}", "dashboardFile", Needs::Read, |f| on(f, dashboard::file))
        .about("What the dashboard is made of.")
        .place("file", Kind::OneOf(dashboard::FILES), "Which file.")
        .answers(Answer::Text(&[dashboard::CSS, dashboard::SCRIPT]))
        .refuses(&[404]),
    Operation::get("/healthz", "health", Needs::Nothing, |f| on(f, super::healthz))
        .about("The process runs."),
    Operation::get("/readyz", "ready", Needs::Nothing, |f| on(f, super::readyz))
        .about("The process serves: it is not draining, and its ledger takes records or traffic may pass without.")
        .refuses(&[503]),
    Operation::get("/metrics", "metrics", Needs::ReadOrPublic, |f| on(f, super::metrics_page))
        .about("Metrics for Prometheus. Public on loopback, unless `admin.metrics_public` says otherwise.")
        .answers(Answer::Text(&["application/openmetrics-text; version=1.0.0; charset=utf-8"]))
        .refuses(&[404]),
    Operation::get("/openapi.json", "openapi", Needs::AnyToken, |f| on(f, openapi::document))
        .about("This document.")
        .answers(Answer::OpenApi),
    Operation::get("/api/v1/openapi.json", "openapiOfV1", Needs::AnyToken, |f| on(f, openapi::document))
        .about("This document.")
        .answers(Answer::OpenApi),
    Operation::get("/api/v1/usage", "usage", Needs::Read, |f| on(f, reports::usage))
        .about("What was used and what it cost, by any grouping. Command: `bursar usage`.")
        .query(&[SPAN, &[BY]])
        .json("UsageReport"),
    Operation::get("/api/v1/usage/records", "usageRecords", Needs::Read, |f| on(f, reports::records))
        .about("Every usage record of a time, streamed. Command: `bursar export usage`.")
        .query(&[SPAN, &[
            Param::new("format", Kind::OneOf(&["jsonl", "csv", "parquet"]), "jsonl when absent."),
            AS,
Param::new("classes", Kind::Switch, "Whether JSON Lines also tell the disjoint token classes."),
        ]])
        .answers(Answer::Records(&[JSON_LINES, reports::CSV, reports::PARQUET]))
        .refuses(&[501]),
    Operation::get("/api/v1/ledger/stats", "ledgerStats", Needs::Read, |f| on(f, reports::ledger_stats))
        .about("Figures of the ledger. Command: `bursar ledger stats`.")
        .json("LedgerStats"),
    Operation::get("/api/v1/ledger/trial-balance", "trialBalance", Needs::Read, |f| on(f, books::trial_balance))
        .about("Every account with its debit or credit. Command: `bursar ledger trial-balance`.")
        .query(&[SPAN, &[Param::new("currency", Kind::Currency, "Currency of contracts' amounts; USD when absent.")]])
        .json("TrialBalance"),
    Operation::post("/api/v1/ledger/prune", "prune", Needs::Admin, |f| on(f, books::prune))
        .about("Rolls old records up into hourly totals. One of `before` and `detail` is needed. Command: `bursar ledger prune`.")
        .query(&[&[
            Param::new("before", Kind::Time, "Records that began and were written before this time."),
            Param::new("detail", Kind::Days, "Keep records for so many days; at least 35d."),
            Param::new("dry_run", Kind::Switch, "Only say what would be given up."),
        ]])
        .json("Pruned"),
    Operation::post("/api/v1/import/{what}", "import", Needs::Ingest, |f| limited(on(f, hedge::import_rows)))
        .about("Imports rows, all or none; rows that are there already change nothing. Command: `bursar import`.")
        .place("what", Kind::OneOf(crate::hedge::import::NAMES), "What the rows are.")
        .query(&[IMPORT, &[
            Param::new("from_format", Kind::OneOf(&["bursar", "litellm", "langfuse", "openmeter"]), "Of usage: whose rows these are; told by their content when absent."),
            Param::new("team", Kind::Text(256), "Of usage: the team of rows without one."),
            Param::new("workload", Kind::Text(256), "Of usage: the workload of rows without one."),
            Param::new("provider", Kind::Text(256), "Of usage: the provider of rows without one."),
        ], SPAN])
        .body(Body::Rows)
        .json("Imported")
        .refuses(&[404, 413, 415, 422, 503])
        .problem("ImportProblem"),
    Operation::get("/api/v1/contracts", "contracts", Needs::Read, |f| on(f, hedge::contracts))
        .about("Positions in force. Command: `bursar contract list`.")
        .query(HEDGE)
        .pages("rows", "position_id")
        .json("Contracts"),
    Operation::post("/api/v1/contracts", "addContracts", Needs::Ingest, |f| limited(on(f, hedge::add_contracts)))
        .about("Enters positions, all or none. Command: `bursar contract add`.")
        .query(&[IMPORT])
        .body(Body::Rows)
        .json("Imported")
        .refuses(&[413, 415, 422, 503])
        .problem("ImportProblem"),
    Operation::get("/api/v1/contracts/{id}", "contract", Needs::Read, |f| on(f, hedge::contract))
        .about("A position with its versions, its events and what is left of it. Command: `bursar contract show`.")
        .place("id", Kind::Text(256), "The position's id.")
        .query(HEDGE)
        .json("Contract")
        .refuses(&[404]),
    Operation::post("/api/v1/contracts/{id}/events", "addContractEvents", Needs::Ingest, |f| limited(on(f, hedge::add_events)))
        .about("Records what happened to a position; rows without `position_id`. Commands: `bursar contract settle`, `fix`, `close`, `roll`, `cancel`.")
        .place("id", Kind::Text(256), "The position's id.")
        .query(&[IMPORT])
        .body(Body::Rows)
        .json("Imported")
        .refuses(&[404, 413, 415, 422, 503])
        .problem("ImportProblem"),
    Operation::get("/api/v1/market/{list}", "market", Needs::Read, |f| on(f, hedge::market))
        .about("Market data as it was entered, oldest first. Command: `bursar market show`.")
        .place("list", Kind::OneOf(&["fixings", "fx", "indices", "calendars", "profiles"]), "Which list.")
        .query(&[&[Param::new("name", Kind::Text(256), "Only this index, pair, calendar or profile.")]])
        .pages("rows", "sequence")
        .json("MarketList")
        .refuses(&[404]),
    Operation::get("/api/v1/market/compose/{index}", "composeIndex", Needs::Read, |f| on(f, hedge::compose))
        .about("Values of a price index of own usage. Command: `bursar market compose`.")
        .place("index", Kind::Text(256), "The index.")
        .query(&[COMPOSE])
        .json("ComposedIndex")
        .refuses(&[404]),
    Operation::post("/api/v1/market/compose/{index}", "composeIndexOfVolumes", Needs::Read, |f| limited(on(f, hedge::compose)))
        .about("Values of a price index of the volumes in the body; nothing is written. Command: `bursar market compose --volumes`.")
        .place("index", Kind::Text(256), "The index.")
        .query(&[COMPOSE])
        .body(Body::Rows)
        .json("ComposedIndex")
        .refuses(&[404, 413, 415]),
    Operation::get("/api/v1/hedge/report", "hedgeReport", Needs::Read, |f| on(f, hedge::hedge_report))
        .about("What hedges did to cost. Command: `bursar hedge report`.")
        .query(HEDGE)
        .json("HedgeReport"),
    Operation::post("/api/v1/hedge/report", "hedgeReportBeside", Needs::Read, |f| limited(on(f, hedge::hedge_report_beside)))
        .about("The same beside what it would be at the prices of the overlay in the body; nothing is written. Command: `bursar hedge report --overlay`.")
        .query(HEDGE)
        .body(Body::Overlay)
        .json("HedgeReport")
        .refuses(&[413, 415, 422]),
    Operation::get("/api/v1/hedge/effectiveness", "hedgeEffectiveness", Needs::Read, |f| on(f, hedge::hedge_effectiveness))
        .about("How well hedges followed what they hedge. Command: `bursar hedge effectiveness`.")
        .query(&[DAYS, &[TZ], TERMS, &[SPOT, RATIO,
            Param::new("basis", Kind::Text(1_024), "Deviations to decompose: `common=0.20,provider=0.06`."),
            Param::new("points", Kind::Whole(3, 10_000), "Fewest changes on which a regression is judged; 8 when absent."),
        ]])
        .json("HedgeEffectiveness"),
    Operation::get("/api/v1/hedge/risk", "hedgeRisk", Needs::Read, |f| on(f, hedge::hedge_risk))
        .about("Margin, cash, limits, coverage and repricing. Command: `bursar hedge risk`.")
        .query(&[DAYS, &[TZ], TERMS, &[SPOT, RATIO,
            Param::new("forecast", Kind::Text(4_096), "Forecast units by month: `2026-10=36000,2026-11=40000`."),
            Param::new("compare", Kind::Text(1_024), "A GPU-hour position and a token position."),
        ]])
        .json("HedgeRisk")
        .refuses(&[404]),
    Operation::get("/api/v1/hedge/simulate", "hedgeSimulate", Needs::Read, |f| on(f, hedge::hedge_simulate))
        .about("Simulates a year of cost with and without a hedge. Command: `bursar hedge simulate`.")
        .query(&[&[
            Param::new("paths", Kind::Whole(2, 20_000), "How many; 10000 when absent."),
            Param::new("seed", Kind::Whole(0, u64::MAX), "Of the random numbers; 1 when absent."),
            Param::new("basis", Kind::Number(0.0, 10.0), "Standard deviation of the basis; 0.10 when absent."),
            Param::new("volume", Kind::Number(0.0, 10.0), "Standard deviation of the volume; 0 when absent."),
        ]])
        .json("HedgeSimulation"),
    Operation::get("/api/v1/revenue-events", "revenueEvents", Needs::Read, |f| on(f, roi::list_events))
        .about("Revenue events in the order of the ledger. Command: `bursar revenue list`.")
        .query(&[SPAN, &[Param::new("format", Kind::OneOf(&["json", "csv", "jsonl", "parquet"]), "json (when absent) is a list in pages; the others are all events."),
            Param::new("kind", Kind::OneOf(&["revenue", "saving", "refund", "chargeback", "adjustment"]), "Only those of this kind.")]])
        .pages("rows", "sequence")
        .answers(Answer::JsonOr("RevenueEvents", &[reports::CSV, JSON_LINES, reports::PARQUET]))
        .refuses(&[501]),
    Operation::post("/api/v1/revenue-events", "addRevenueEvents", Needs::Ingest, |f| limited(on(f, roi::take_events)))
        .about("Takes revenue events, all or none: CloudEvents 1.0 (structured, batched, or binary with `ce-` headers), or rows. An event that is there already changes nothing; one that says something else is a conflict. Command: `bursar revenue import`.")
        .body(Body::Events)
        .json("Imported")
        .refuses(&[409, 413, 415, 422, 503])
        .problem("ImportProblem"),
    Operation::get("/api/v1/focus/{dataset}", "focus", Needs::Read, |f| on(f, focus::dataset))
        .about("A dataset of FOCUS 1.4. Command: `bursar export focus`.")
        .place("dataset", Kind::OneOf(&["cost-and-usage", "contract-commitment"]), "Which dataset.")
        .query(&[DAYS, TERMS, &[
            AS,
Param::new("billing_account", Kind::Text(256), "The billing account; the ledger's id when absent."),
            Param::new("format", Kind::OneOf(&["csv", "parquet"]), "csv when absent."),
        ]])
        .answers(Answer::Text(&[reports::CSV, reports::PARQUET]))
        .refuses(&[404, 501]),
    Operation::post("/api/v1/reconcile", "reconcile", Needs::Read, |f| limited(on(f, reconcile::reconcile)))
        .about("Sets a provider's statements, in the body, against what was booked; nothing is written. Command: `bursar reconcile`.")
        .query(&[&[
            Param::new("provider", Kind::Text(64), "Whose statements these are.").needed(),
            Param::new("from_format", Kind::Text(64), "What the files are; told by their content when absent."),
            Param::new("from", Kind::Day, "First day; the statements' first when absent."),
            Param::new("to", Kind::Day, "First day outside."),
            Param::new("by", Kind::Keys(&["day", "model", "project"]), "What stands together; day,model when absent."),
            Param::new("tolerance", Kind::Text(64), "How much may stay unexplained; 1% when absent."),
            Param::new("project_tag", Kind::Text(256), "The tag that names the provider's project."),
        ]])
        .body(Body::Statements)
        .json("Reconciliation")
        .refuses(&[413, 415, 422]),
    Operation::get("/api/v1/roi", "roi", Needs::Read, |f| on(f, roi::roi_report))
        .about("What tokens cost and earned; the rows plus the residual equal the book. Command: `bursar roi`.")
        .query(&[DAYS, &[TZ], TERMS, ROI])
        .json("RoiReport"),
    Operation::get("/api/v1/periods", "periods", Needs::Read, |f| on(f, roi::periods))
        .about("Closed months. Command: `bursar period list`.")
        .pages("rows", "month")
        .json("Periods"),
    Operation::get("/api/v1/periods/{month}", "period", Needs::Read, |f| on(f, roi::period))
        .about("A closed month: its manifest and the bytes that were reported. Command: `bursar period show`.")
        .place("month", Kind::Month, "The month.")
        .json("Period")
        .refuses(&[404]),
    Operation::post("/api/v1/periods/{month}/close", "closePeriod", Needs::Admin, |f| on(f, roi::close_period))
        .about("Closes a month; it cannot be opened again. Command: `bursar period close`.")
        .place("month", Kind::Month, "The month.")
        .query(&[CLOSE])
        .json("Manifest")
        .refuses(&[404]),
    Operation::get("/api/v1/budgets", "budgets", Needs::Read, |f| on(f, budgets::budgets))
        .about("What each budget has spent, holds and has left. Command: `bursar budget`.")
        .pages("budgets", "budget")
        .json("Budgets"),
    Operation::get("/api/v1/budget-overrides", "budgetOverrides", Needs::Read, |f| on(f, budgets::overrides))
        .about("Changes of budgets for a time. Command: `bursar budget overrides`.")
        .pages("overrides", "id")
        .json("OverrideList"),
    Operation::post("/api/v1/budget-overrides", "addBudgetOverride", Needs::Admin, |f| on(f, budgets::make_override))
        .about("Changes a budget for a time. One of `add` and `limit` is needed. Command: `bursar budget override`.")
        .query(&[&[
            Param::new("budget", Kind::Text(256), "The budget's name.").needed(),
            Param::new("add", Kind::Text(64), "So much more: `500 USD`."),
            Param::new("limit", Kind::Text(64), "So much in all: `2000000 tokens`."),
            Param::new("until", Kind::Time, "Until when: a date, a time, or how long from now.").needed(),
            Param::new("reason", Kind::Text(1_024), "Why.").needed(),
        ]])
        .json("Overrides")
        .refuses(&[404, 503]),
    Operation::post("/api/v1/budget-overrides/{id}/revoke", "revokeBudgetOverride", Needs::Admin, |f| on(f, budgets::revoke_override))
        .about("Takes a change of a budget back. Command: `bursar budget revoke`.")
        .place("id", Kind::Id, "The change's id.")
        .query(&[&[Param::new("reason", Kind::Remark(1_024), "Why.")]])
        .json("Overrides")
        .refuses(&[404, 503]),
    Operation::get("/api/v1/audit", "audit", Needs::Read, |f| on(f, audit::changes))
        .about("Who changed the ledger, when and by what. Command: `bursar ledger audit`.")
        .query(&[SPAN, &[Param::new("who", Kind::Text(256), "Only changes of this token or user.")]])
        .pages("rows", "sequence")
        .json("Audit"),
    Operation::get("/api/v1/config", "config", Needs::Read, |f| on(f, audit::config))
        .about("Settings in force and where each comes from, without secrets. Command: `bursar check --show`.")
        .json("Settings"),
    Operation::get("/api/v1/version", "version", Needs::Read, |f| on(f, audit::version))
        .about("What the running program was built from. Command: `bursar version --running`.")
        .json("Version"),
    Operation::get("/api/v1/keys", "keys", Needs::Read, |f| on(f, audit::keys))
        .about("Virtual keys: what each is for, and whether it is valid now. Command: `bursar key list`.")
        .pages("keys", "id")
        .json("Keys"),
    Operation::get("/api/v1/contract-presets", "contractPresets", Needs::Read, |f| on(f, audit::presets))
        .about("Presets of contracts: what each fixes, and what is to be filled in. Command: `bursar contract presets`.")
        .json("Presets"),
    Operation::get("/api/v1/prices", "prices", Needs::Read, |f| on(f, prices::prices))
        .about("Prices of the book in force that hold at a time. Command: `bursar price list`.")
        .query(&[PICK, &[AT]])
        .pages("prices", "id")
        .json("Prices")
        .refuses(&[404]),
    Operation::get("/api/v1/prices/sheet", "priceSheet", Needs::Read, |f| on(f, prices::sheet))
        .about("Every row of the book in force about one model. Command: `bursar price show`.")
        .query(&[&[
            Param::new("model", Kind::Text(256), "The model, in any form that a call may name it.").needed(),
            Param::new("provider", Kind::Text(64), "The provider; needed where several have the model."),
        ]])
        .json("PriceSheet")
        .refuses(&[404]),
    Operation::get("/api/v1/prices/diff", "priceDiff", Needs::Read, |f| on(f, prices::differences))
        .about("What differs between the built-in book and the one in force, or between two times. Command: `bursar price diff`.")
        .query(&[PICK, &[AT,
            Param::new("before", Kind::OneOf(prices::BOOKS), "What to compare with; builtin when absent."),
            Param::new("after", Kind::OneOf(prices::BOOKS), "What to compare; in_force when absent."),
            Param::new("before_at", Kind::Time, "The time of the first book; that of the other when absent."),
        ]])
        .json("PriceDiff")
        .refuses(&[404]),
    Operation::get("/api/v1/prices/replay", "priceReplay", Needs::Read, |f| on(f, prices::replay))
        .about("Recorded usage at the prices in force beside what it was recorded at; nothing is written. Command: `bursar price replay`.")
        .query(&[SPAN, &[AT_ALL]])
        .json("PriceReplay"),
    Operation::post("/api/v1/prices/replay", "priceReplayBeside", Needs::Read, |f| limited(on(f, prices::replay_beside)))
        .about("The same at the prices of the overlay in the body; nothing is written. Command: `bursar price replay --overlay`.")
        .query(&[SPAN, &[AT_ALL]])
        .body(Body::Overlay)
        .json("PriceReplay")
        .refuses(&[413, 415, 422]),
    Operation::post("/api/v1/webhooks/test", "testWebhooks", Needs::Admin, |f| on(f, webhooks::test))
        .about("Sends a signed test event to each webhook, once, and says what came of it. Command: `bursar webhook test`.")
        .query(&[&[Param::new("name", Kind::Text(256), "Only this webhook.")]])
        .json("WebhookTests")
        .refuses(&[404]),
    Operation::get("/api/v1/why", "why", Needs::Read, |f| on(f, budgets::why))
        .about("Why a request was refused, or that it was not. Command: `bursar why`.")
        .query(&[&[Param::new("id", Kind::Id, "The request's id.").needed()]])
        .json("Why")
        .refuses(&[404]),
    Operation::get("/api/v1/why/{id}", "whyOf", Needs::Read, |f| on(f, budgets::why_of))
        .about("The same.")
        .place("id", Kind::Id, "The request's id.")
        .json("Why")
        .refuses(&[404]),
];

/// A handler that reads a body of bounded size.
fn limited(handler: MethodRouter<Admin>) -> MethodRouter<Admin> {
    handler.layer(DefaultBodyLimit::max(hedge::IMPORT_BYTES_MAX))
}

#[cfg(test)]
mod tests;
