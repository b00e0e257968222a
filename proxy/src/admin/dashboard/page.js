// The dashboard: asks the API of its own origin and shows what it says.
//
// Invariants
// - Whatever comes from the API is put into the page as text, never as markup.
// - Amounts stay decimal text: they are rounded and grouped digit by digit. Only lengths of bars are floats.
// - What is unknown is shown as a dash, never as zero; what could not be asked is said.
"use strict";

const UNKNOWN = "—";
const ROWS_MAX = 10;
const DAY_MS = 86400000;

// === amounts ===

// A decimal text times 10^places, rounded half to even.
function scaled(text, places) {
  const [, sign, whole, fraction = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text) ?? [];
  if (whole === undefined) return null;
  const kept = fraction.slice(0, places).padEnd(places, "0");
  const rest = fraction.slice(places);
  let value = BigInt(whole + kept);
  const half = "5".padEnd(rest.length, "0");
  if (rest > half || (rest !== "" && rest === half && value % 2n === 1n)) value += 1n;
  return sign === "-" ? -value : value;
}

function grouped(digits) {
  return digits.replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

// A scaled whole number as text with this many decimals.
function decimal(value, places) {
  const digits = (value < 0n ? -value : value).toString().padStart(places + 1, "0");
  const cut = digits.length - places;
  const sign = value < 0n ? "\u2212" : "";
  const fraction = places > 0 ? "." + digits.slice(cut) : "";
  return sign + grouped(digits.slice(0, cut)) + fraction;
}

// Two decimals, or as many as it takes to tell a small amount from nothing.
function amount(text) {
  if (typeof text !== "string") return UNKNOWN;
  for (const places of [2, 4, 6]) {
    const value = scaled(text, places);
    if (value === null) return text;
    if (value !== 0n || /^-?0*(\.0*)?$/.test(text)) return decimal(value, places);
  }
  return text;
}

function count(value) {
  if (typeof value === "string") return amount(value);
  return Number.isSafeInteger(value) ? decimal(BigInt(value), 0) : UNKNOWN;
}

// A ratio such as "1.25" as "125.0 %".
function percent(text) {
  const value = typeof text === "string" ? scaled(text, 3) : null;
  return value === null ? UNKNOWN : decimal(value, 1) + "\u202f%";
}

// How large an amount is beside others.
function size(text) {
  const value = Number.parseFloat(text);
  return Number.isFinite(value) && value > 0 ? value : 0;
}

// === the page ===

function place(id) {
  return document.getElementById(id);
}

function made(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function bar(part, name) {
  const element = made("span", undefined, name ? `bar ${name}` : "bar");
  element.style.width = `${Math.min(100, Math.max(0, part * 100))}%`;
  element.setAttribute("aria-hidden", "true");
  return element;
}

function card(list, title, text, more = {}) {
  const group = made("div");
  const value = made("dd", text, more.name);
  if (more.exact) value.title = more.exact;
  if (more.unit && text !== UNKNOWN) value.append(" ", made("small", more.unit));
  group.append(made("dt", title), value);
  list.append(group);
}

// Columns are { title, text, exact, part, name, isText }, each a function of the row but the title.
function table(id, caption, columns, rows, nothing) {
  const target = place(id);
  if (rows.length === 0) {
    target.replaceChildren(made("p", nothing, "empty"));
    return;
  }
  const whole = made("table");
  const head = made("tr");
  for (const column of columns) {
    const cell = made("th", column.title, column.isText ? "text" : "");
    cell.scope = "col";
    head.append(cell);
  }
  const body = made("tbody");
  for (const row of rows) {
    const line = made("tr");
    columns.forEach((column, number) => {
      const cell = made(number === 0 ? "th" : "td", column.text(row), column.isText ? "text" : "");
      if (number === 0) cell.scope = "row";
      const exact = column.exact?.(row);
      if (exact) cell.title = String(exact);
      const name = column.name?.(row);
      if (name) cell.classList.add(name);
      const part = column.part?.(row);
      if (part !== undefined) cell.append(column.track ? tracked(part, name) : bar(part, name));
      line.append(cell);
    });
    body.append(line);
  }
  const top = made("thead");
  top.append(head);
  whole.append(made("caption", caption), top, body);
  target.replaceChildren(whole);
}

function tracked(part, name) {
  const element = made("div", undefined, "track");
  element.append(bar(part, name));
  return element;
}

function problem(text) {
  place("problems").append(made("li", text, "problem"));
}

// === asking ===

class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function asked(path, query = {}) {
  // The origin has no name and password in it, as the page's address may have.
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  let answer;
  try {
    answer = await fetch(url, { credentials: "same-origin", cache: "no-store", headers: { accept: "application/json" } });
  } catch {
    throw new Refusal(0, "the sidecar cannot be reached");
  }
  const text = await answer.text();
  if (answer.ok) return text;
  let detail = `status ${answer.status}`;
  try {
    detail = JSON.parse(text).detail ?? detail;
  } catch {
    // Not from the sidecar itself.
  }
  throw new Refusal(answer.status, detail);
}

async function document_of(path, query) {
  return JSON.parse(await asked(path, query));
}

// What was asked, or null; what went wrong is said once.
async function tried(what, question, told) {
  try {
    return await question();
  } catch (error) {
    const status = error instanceof Refusal ? error.status : undefined;
    const text =
      status === 401 ? "401: the token is not accepted (any more). Load the page again and give a valid one as the password." :
      status === 403 ? `403: ${error.message}` :
      status === 0 ? "The sidecar cannot be reached: what is shown may be old." :
      `${what}: ${status ? `${status}: ` : ""}${error.message}`;
    if (!told.has(text)) problem(text);
    told.add(text);
    return null;
  }
}

function day(ms) {
  return new Date(ms).toISOString().slice(0, 10);
}

// The days of a period of UTC: the first, and the first outside.
function days(choice, now) {
  const date = new Date(now);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  const today = Date.UTC(year, month, date.getUTCDate());
  const first = Date.UTC(year, month, 1);
  switch (choice) {
    case "today": return { from: day(today), to: day(today + DAY_MS), last: day(today) };
    case "week": return { from: day(today - 6 * DAY_MS), to: day(today + DAY_MS), last: day(today) };
    case "before": return { from: day(Date.UTC(year, month - 1, 1)), to: day(first), last: day(first - DAY_MS) };
    default: return { from: day(first), to: day(today + DAY_MS), last: day(today) };
  }
}

// The report of return; where prices of contracts are missing for the last day, up to the day before.
async function roi(span, currency) {
  const query = { by: "team", from: span.from, currency };
  try {
    return await document_of("/api/v1/roi", { ...query, to: span.to, on: span.last });
  } catch (error) {
    const before = day(Date.parse(span.last) - DAY_MS);
    if (error.status !== 400 || before < span.from) throw error;
    return await document_of("/api/v1/roi", { ...query, to: span.last, on: before });
  }
}

// === sections ===

function biggest(rows, of) {
  const sorted = [...rows].sort((a, b) => size(of(b)) - size(of(a)) || b.requests - a.requests);
  const most = size(of(sorted[0] ?? {}));
  return { rows: sorted.slice(0, ROWS_MAX), left: sorted.length - ROWS_MAX, part: (row) => (most > 0 && typeof of(row) === "string" ? size(of(row)) / most : undefined) };
}

function more_than(left, what) {
  return left > 0 ? `The ${ROWS_MAX} largest; ${left} more ${what} are in the reports.` : "";
}

// A row in another currency than the column's says so.
function money_column(title, currency, of) {
  const foreign = (row) => (row.cost?.currency && row.cost.currency !== currency ? ` ${row.cost.currency}` : "");
  const text = (row) => (typeof of(row) === "string" ? amount(of(row)) + foreign(row) : UNKNOWN);
  return { title: currency ? `${title} (${currency})` : title, text, exact: of };
}

const REQUESTS = { title: "Requests", text: (row) => count(row.requests) };
const TOKENS = [
  { title: "Tokens in", text: (row) => count(row.tokens?.input_tokens) },
  { title: "Tokens out", text: (row) => count(row.tokens?.output_tokens) },
];

function spend(usage, report, refused, currency) {
  const list = place("spend");
  const total = usage?.total;
  const book = report?.book;
  const unit = currency ?? "";
  list.replaceChildren();
  const money = (title, text) => card(list, title, amount(text), { exact: text, unit });
  money("List price", total?.cost?.list);
  money("Billed", total?.cost?.billed);
  money("After commitments", book?.cost?.effective);
  money("After hedges", book?.cost?.hedged);
  money("Revenue", book?.revenue);
  card(list, "Return", percent(book?.roi), { exact: book?.roi ?? book?.reasons?.roi });
  card(list, "Requests", count(total?.requests));
  card(list, "Tokens in", count(total?.tokens?.input_tokens));
  card(list, "Tokens out", count(total?.tokens?.output_tokens));
  card(list, "Refused since start", count(refused?.total), { exact: refused?.by });
  const notes = [];
  for (const other of total?.cost?.other_currencies ?? []) {
    notes.push(`Besides ${amount(other.billed)} ${other.currency} billed.`);
  }
  const gaps = (total?.unpriced_requests ?? 0) + (total?.partly_priced_requests ?? 0);
  if (gaps > 0) notes.push(`${count(gaps)} requests have no price, or not for all they used: the spend is too low.`);
  if (report?.provisional) notes.push("Figures of contracts are provisional.");
  if (report && report.period.to < report.asked) notes.push(`Hedges and return are up to ${report.on}: later prices are missing.`);
  place("spend-note").textContent = notes.join(" ");
}

function money_columns(currency, part) {
  return [
    { ...money_column("Billed", currency, (row) => row.cost?.billed), part },
    money_column("List", currency, (row) => row.cost?.list),
  ];
}

function teams(usage, report, currency) {
  const rows = report?.rows ?? usage?.rows ?? [];
  const top = biggest(rows, (row) => row.cost?.billed);
  const columns = [{ title: "Team", text: (row) => row.team ?? UNKNOWN }, ...money_columns(currency, top.part)];
  if (report) {
    columns.push(
      money_column("After hedges", currency, (row) => row.cost?.hedged),
      money_column("Revenue", currency, (row) => row.revenue),
      { title: "Return", text: (row) => percent(row.roi), exact: (row) => row.roi ?? row.reasons?.roi },
    );
  }
  columns.push(REQUESTS, ...TOKENS);
  table("teams", "Spend by team", columns, top.rows, usage ? "No requests in this period." : "Unknown.");
  const notes = [more_than(top.left, "teams")];
  const residual = report?.residual?.cost?.hedged;
  if (size(residual?.replace("-", ""))) notes.push(`${amount(residual)} ${report.currency} of contracts belong to no team.`);
  place("teams-note").textContent = notes.filter(Boolean).join(" ");
}

function models(usage, currency) {
  const top = biggest(usage?.rows ?? [], (row) => row.cost?.billed);
  const name = { title: "Model", text: (row) => row.model ?? UNKNOWN };
  const columns = [name, ...money_columns(currency, top.part), REQUESTS, ...TOKENS];
  table("models", "Spend by model", columns, top.rows, usage ? "No requests in this period." : "Unknown.");
  place("models-note").textContent = more_than(top.left, "models");
}

function fullness(budget) {
  const used = budget.used_percent;
  if (typeof used !== "number") return "";
  return used >= 100 ? "bad" : used >= 80 ? "warn" : "";
}

function standing(budget) {
  if (budget.contract_state && budget.contract_state !== "running") return budget.reason ?? budget.contract_state;
  return { bad: "full", warn: "nearly full" }[fullness(budget)] ?? (typeof budget.used_percent === "number" ? "has room" : UNKNOWN);
}

function scope(budget) {
  const parts = Object.entries(budget.scope ?? {}).map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`);
  return parts.join(", ") || "everything";
}

function budgets(told) {
  const rows = told?.budgets ?? [];
  const sorted = [...rows].sort((a, b) => (b.used_percent ?? -1) - (a.used_percent ?? -1));
  const of = (name) => ({ text: (row) => count(row[name]), exact: (row) => row[name] });
  const columns = [
    { title: "Budget", text: (row) => row.budget },
    { title: "State", isText: true, text: standing, name: fullness },
    {
      title: "Used", track: true, name: fullness,
      text: (row) => (typeof row.used_percent === "number" ? `${count(row.used_percent)}\u202f%` : UNKNOWN),
      part: (row) => (typeof row.used_percent === "number" ? row.used_percent / 100 : undefined),
    },
    { title: "Limit", ...of("limit") },
    { title: "Spent", ...of("spent") },
    { title: "Left", ...of("left") },
    { title: "Unit", isText: true, text: (row) => row.unit ?? UNKNOWN },
    { title: "For", isText: true, text: scope },
    { title: "Window", isText: true, text: (row) => row.window ?? UNKNOWN },
    { title: "Mode", isText: true, text: (row) => row.mode ?? UNKNOWN },
  ];
  table("budgets", "Budgets and how full they are", columns, sorted, told ? "No budget is configured." : "Unknown.");
  place("budgets-note").textContent = told?.next_cursor ? `The first ${rows.length}; the rest is in /api/v1/budgets.` : "";
}

function health(ready, stats, version) {
  const list = place("health");
  list.replaceChildren();
  card(list, "Ready", ready.text, { name: ready.name });
  const sound = stats?.healthy;
  card(list, "Ledger", sound === undefined ? UNKNOWN : sound ? "healthy" : `degraded: ${stats.reason ?? stats.last_error ?? "see the log"}`,
    { name: sound === undefined ? "" : sound ? "good" : "bad" });
  // Whole microseconds; before the first commit there is no time of one.
  const took = stats && stats.frames > 0 ? decimal(BigInt(stats.last_commit_us), 3) : UNKNOWN;
  card(list, "Last commit took", took, { unit: "ms" });
  card(list, "Facts in the ledger", count(stats?.last_sequence));
  card(list, "Waiting to be written", count(stats?.queue_entries));
  card(list, "Lost records", count(stats?.dropped), { name: stats?.dropped > 0 ? "bad" : "" });
  const commit = version?.commit ? ` (${version.commit.slice(0, 12)}${version.dirty ? ", changed" : ""})` : "";
  card(list, "Version", version?.version ? version.version + commit : UNKNOWN);
}

// What Bursar itself turned away, of the metrics page.
function refusals(page) {
  let total = 0n;
  const by = [];
  for (const [, reason, text] of page.matchAll(/^bursar_requests_refused_total\{[^}\n]*reason="([^"\n]*)"[^}\n]*\} (\d+)$/gm)) {
    total += BigInt(text);
    if (text !== "0") by.push(`${reason}: ${text}`);
  }
  return { total: Number(total), by: by.join(", ") };
}

async function readiness() {
  try {
    await asked("/readyz");
    return { text: "ready", name: "good" };
  } catch (error) {
    return error.status ? { text: `not ready: ${error.message}`, name: "bad" } : { text: UNKNOWN, name: "" };
  }
}

// === all of it ===

let latest = 0;

async function refresh() {
  const mine = ++latest;
  const choice = place("period").value;
  const now = Date.now();
  const span = days(choice, now);
  place("state").textContent = "Loading…";
  place("problems").replaceChildren();
  const told = new Set();
  const usage_of = (by) => document_of("/api/v1/usage", { by, from: span.from, to: span.to });
  const [by_team, by_model, told_budgets, stats, version, ready, refused] = await Promise.all([
    tried("Spend", () => usage_of("team"), told),
    tried("Models", () => usage_of("model"), told),
    tried("Budgets", () => document_of("/api/v1/budgets"), told),
    tried("Ledger", () => document_of("/api/v1/ledger/stats"), told),
    tried("Version", () => document_of("/api/v1/version"), told),
    readiness(),
    // Metrics may be switched off.
    asked("/metrics").then(refusals, () => null),
  ]);
  if (mine !== latest) return;
  const currency = by_team?.total?.cost?.currency ?? "USD";
  spend(by_team, null, refused, currency);
  teams(by_team, null, currency);
  models(by_model, currency);
  budgets(told_budgets);
  health(ready, stats, version);
  if (stats?.last_sequence === 0) problem("The ledger is empty: nothing was recorded yet. Send a request through the proxy, or import usage.");
  const report = by_team && (await tried("Return", () => roi(span, currency), told));
  if (mine !== latest) return;
  if (report) {
    report.asked = span.to;
    spend(by_team, report, refused, currency);
    teams(by_team, report, currency);
  }
  place("state").textContent = by_team
    ? `${span.from} to ${span.last}, as of ${by_team.as_of.slice(0, 19).replace("T", " ")} UTC`
    : `${span.from} to ${span.last}: no figures`;
}

place("choice").addEventListener("submit", (event) => {
  event.preventDefault();
  refresh();
});
place("period").addEventListener("change", () => {
  history.replaceState(null, "", `#${place("period").value}`);
  refresh();
});
const wanted = location.hash.slice(1);
if ([...place("period").options].some((option) => option.value === wanted)) place("period").value = wanted;
refresh();
