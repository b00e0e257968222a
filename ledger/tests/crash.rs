//! `kill -9` at random points of progress, also while segments end, are rolled up and copied: what was
//! acknowledged is there, once, and the chain holds.
//!
//! `BURSAR_CRASH_CYCLES=300` runs as many cycles instead of the few of every day; the counts are printed.
//! With the feature `break-acknowledge-early` the same checks must fail, which is a test of its own.
//!
//! The victim is this test binary itself, started again with the name of `victim` and an environment
//! variable that makes it more than an empty test.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: any failure must end it")]

use bursar_domain::{
    Anomalies, Clock, Cost, CostStatus, Currency, Identity, Label, Metering, Outcome, RequestId, SystemClock,
    Timestamp, TokenClass, Usage, UsageRecord, UsageSource,
};
use bursar_ledger::{
    Durability, GroupKey, Ledger, OpenSlot, Opening, Options, PruneAsk, Receipt, RecordRange, StoreCheck,
    UsageQuery, Wait, backup, verify,
};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

const DIR: &str = "BURSAR_CRASH_DIR";
const FIRST: &str = "BURSAR_CRASH_FIRST";
const DURABILITY: &str = "BURSAR_CRASH_DURABILITY";
const CYCLE: &str = "BURSAR_CRASH_CYCLE";
const PRUNES: &str = "BURSAR_CRASH_PRUNES";
const CYCLES: &str = "BURSAR_CRASH_CYCLES";
const BEGUN: &str = "begun";
const ACKNOWLEDGED: &str = "acknowledged ";
const OPENED: &str = "opened ";
const ENDED: &str = "ended ";
/// Exchanges that are opened have numbers of their own, other ones in each cycle.
const EXCHANGES: u64 = 1_000_000;
/// How many exchanges are under way at a time.
const UNDER_WAY: usize = 8;
const DAY_MICROS: i64 = 86_400_000_000;

fn record(n: u64) -> UsageRecord {
    let label = |text: &str| Label::new(text).unwrap();
    let started_at = Timestamp::from_micros(1_767_225_600_000_000 + n as i64 * 1_000_000);
    let mut usage = Usage::unknown();
    usage.set(TokenClass::OutputText, n + 1);
    UsageRecord {
        id: RequestId::new(started_at, u128::from(n)),
        started_at,
        ended_at: started_at,
        identity: Arc::new(Identity { team: Some(label("team")), ..Identity::unallocated() }),
        route: label("/openai"),
        provider: label("openai"),
        api: label("openai-chat"),
        model_requested: None,
        model_served: Some(label(if n.is_multiple_of(3) { "small" } else { "large" })),
        tier: None,
        region: None,
        stream: false,
        http_status: Some(200),
        outcome: Outcome::Ok,
        metering: Metering::Count,
        usage,
        usage_source: UsageSource::Provider,
        counted_by: None,
        by_model: Vec::new(),
        usage_raw: None,
        provider_cost: None,
        cost: None,
        upstream_request_id: None,
        meter_id: None,
        trace_id: None,
        latency_us: 0,
        ttft_us: None,
        bytes_in: 0,
        bytes_out: 0,
        anomalies: Anomalies::default(),
    }
}

fn price(record: &UsageRecord) -> Cost {
    let pico = record.usage.output_total().map(i128::from);
    Cost {
        status: CostStatus::Priced,
        currency: Currency::USD,
        list_pico: pico,
        contracted_pico: pico,
        billed_pico: pico,
        price_rows: Vec::new(),
    }
}

/// A record of an exchange that is opened.
fn exchange(n: u64) -> UsageRecord {
    let mut record = record(n);
    let workload = Label::new("exchange").ok();
    // An id of its own: plain records have these numbers too.
    record.id = RequestId::new(record.started_at, u128::from(n) + (1 << 40));
    record.identity = Arc::new(Identity { workload, ..record.identity.as_ref().clone() });
    record
}

fn opening(n: u64) -> Opening {
    let record = exchange(n);
    Opening {
        id: record.id,
        started_at: record.started_at,
        identity: record.identity,
        route: record.route,
        provider: record.provider,
        api: record.api,
        model: record.model_requested,
        region: None,
        stream: false,
        metering: Metering::Count,
        held_tokens: Some(n),
        held_cost: None,
    }
}

/// The ledger, and how many exchanges it settled as interrupted.
fn open(dir: &Path, durability: Durability) -> (Ledger, u64) {
    let (ledger, report) =
        Ledger::open(options_of(dir, durability), Arc::new(SystemClock), Arc::new(price)).unwrap();
    (ledger, report.interrupted)
}

/// Appends as soon as there is room: one that acknowledges early is not slowed down by its answers.
fn hand_in(ledger: &Ledger, record: UsageRecord) -> Receipt {
    let mut record = Box::new(record);
    loop {
        match ledger.append(record, Wait::Acknowledged) {
            Ok(receipt) => return receipt,
            Err(rejected) => record = rejected.record,
        }
        std::thread::yield_now();
    }
}

/// Exchanges of the victim, each under way for a while.
#[derive(Default)]
struct Exchanges {
    under_way: VecDeque<(u64, OpenSlot)>,
}

impl Exchanges {
    fn begin(&mut self, ledger: &Ledger, n: u64, out: &mut dyn Write) {
        let (slot, receipt) = ledger.opening(opening(n), Wait::Acknowledged);
        let _ = receipt.wait().unwrap();
        writeln!(out, "{OPENED}{n}").unwrap();
        out.flush().unwrap();
        self.under_way.push_back((n, slot));
        if self.under_way.len() > UNDER_WAY {
            let (n, slot) = self.under_way.pop_front().unwrap();
            ledger.closing(slot);
            let _ = hand_in(ledger, exchange(n)).wait().unwrap();
            writeln!(out, "{ENDED}{n}").unwrap();
            out.flush().unwrap();
        }
    }
}

/// Appends until it is killed, printing each number when it is acknowledged. Does nothing unless it
/// was started by the test below.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test that starts it speaks through the environment")]
fn victim() {
    let (Ok(dir), Ok(first), Ok(durability), Ok(cycle)) =
        (std::env::var(DIR), std::env::var(FIRST), std::env::var(DURABILITY), std::env::var(CYCLE))
    else {
        return;
    };
    let durability = match durability.as_str() {
        "Sync" => Durability::Sync,
        "Relaxed" => Durability::Relaxed,
        _ => Durability::Group,
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{BEGUN}").unwrap();
    out.flush().unwrap();
    let prunes = std::env::var(PRUNES).is_ok_and(|value| value == "yes");
    let cycle_number = cycle.parse::<u64>().unwrap();
    let ledger = if prunes {
        let ledger = open_fast(Path::new(&dir), durability, cycle_number);
        let (pruned, copied) = (ledger.clone(), PathBuf::from(&dir));
        std::thread::spawn(move || prune_for_ever(&pruned, cycle_number));
        std::thread::spawn(move || copy_for_ever(&copied));
        ledger
    } else {
        open(Path::new(&dir), durability).0
    };
    let mut waiting = VecDeque::new();
    let mut exchanges = Exchanges::default();
    let mut next_exchange = (cycle_number + 1) * EXCHANGES;
    for n in first.parse::<u64>().unwrap().. {
        if n % 32 == 0 {
            exchanges.begin(&ledger, next_exchange, &mut out);
            next_exchange += 1;
        }
        waiting.push_back((n, hand_in(&ledger, record(n))));
        if waiting.len() >= 64 {
            let (n, receipt) = waiting.pop_front().unwrap();
            let _ = receipt.wait().unwrap();
            writeln!(out, "{ACKNOWLEDGED}{n}").unwrap();
            out.flush().unwrap();
        }
    }
}

/// A clock on which a day passes in a millisecond, so that records grow old while they are written.
#[derive(Debug)]
struct FastClock {
    began: Instant,
    from: i64,
}

impl FastClock {
    #[expect(clippy::disallowed_methods, reason = "a process of its own that no clock can be set for")]
    fn of_cycle(cycle: u64) -> Self {
        let cycle = i64::try_from(cycle).unwrap();
        Self { began: Instant::now(), from: 1_900_000_000_000_000 + cycle * 3_650 * DAY_MICROS }
    }
}

impl Clock for FastClock {
    fn now(&self) -> Timestamp {
        let micros = i64::try_from(self.began.elapsed().as_micros()).unwrap();
        Timestamp::from_micros(self.from + micros / 1_000 * DAY_MICROS)
    }
}

fn options_of(dir: &Path, durability: Durability) -> Options {
    Options { durability, segment_bytes: 32 << 10, queue_entries_max: 256, ..Options::new(dir) }
}

fn open_fast(dir: &Path, durability: Durability, cycle: u64) -> Ledger {
    let clock = Arc::new(FastClock::of_cycle(cycle));
    Ledger::open(options_of(dir, durability), clock, Arc::new(price)).unwrap().0
}

/// Gives up what is 36 of the clock's days old, without a pause.
fn prune_for_ever(ledger: &Ledger, cycle: u64) {
    let clock = FastClock::of_cycle(cycle);
    loop {
        let before = Timestamp::from_micros(clock.now().micros() - 40 * DAY_MICROS);
        let _ = ledger.prune(&PruneAsk { before, dry_run: false });
        std::thread::yield_now();
    }
}

/// Copies the ledger over and over; the last whole copy stays.
fn copy_for_ever(dir: &Path) {
    let name = |text: &str| dir.with_file_name(text);
    loop {
        for old in ["copy-new", "copy-old"] {
            let _ = std::fs::remove_dir_all(name(old));
        }
        if backup(dir, &name("copy-new")).is_ok() {
            // By names alone: an end in between leaves a whole copy or none.
            let _ = std::fs::rename(name("copy"), name("copy-old"));
            let _ = std::fs::rename(name("copy-new"), name("copy"));
        }
        std::thread::yield_now();
    }
}

/// What the victim said before it died.
#[derive(Debug, Default)]
struct Said {
    acknowledged: Vec<u64>,
    opened: Vec<u64>,
    ended: Vec<u64>,
}

impl Said {
    /// The test harness may have begun the line.
    fn hear(&mut self, line: &str) {
        for (word, numbers) in
            [(ACKNOWLEDGED, &mut self.acknowledged), (OPENED, &mut self.opened), (ENDED, &mut self.ended)]
        {
            if let Some((_, number)) = line.split_once(word) {
                numbers.push(number.parse().unwrap());
            }
        }
    }
}

/// When the victim is killed.
#[derive(Clone, Copy)]
enum When {
    /// While it opens the ledger: also in the middle of a recovery.
    Opening,
    /// Once it has acknowledged so many records.
    Acknowledged(usize),
}

/// Starts the victim, kills it, and returns what it had said.
fn kill_once(dir: &Path, durability: Durability, cycle: u64, first: u64, when: When) -> Said {
    kill_one_that(dir, (durability, "no"), cycle, first, when)
}

fn kill_one_that(
    dir: &Path,
    (durability, prunes): (Durability, &str),
    cycle: u64,
    first: u64,
    when: When,
) -> Said {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .env(CYCLE, cycle.to_string())
        .env(DURABILITY, format!("{durability:?}"))
        .env(PRUNES, prunes)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut said = Said::default();
    // After the kill the rest of the pipe is read too: it was acknowledged as well.
    for line in out.lines() {
        let line = line.unwrap();
        said.hear(&line);
        let is_time = match when {
            When::Opening => line.contains(BEGUN),
            When::Acknowledged(count) => said.acknowledged.len() == count,
        };
        if is_time {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    said
}

/// Records that were found, by id: how often and with what outcome.
type FoundRecords = HashMap<RequestId, (u64, Outcome)>;

fn check_exchanges(cycle: u64, opened: &[u64], ended: &[u64], found: &FoundRecords) {
    for n in opened {
        let (times, outcome) = found.get(&exchange(*n).id).unwrap_or(&(0, Outcome::Refused));
        assert_eq!(*times, 1, "cycle {cycle}: exchange {n} was under way and has not one record");
        assert!(matches!(outcome, Outcome::Ok | Outcome::Interrupted));
    }
    for n in ended {
        assert_eq!(found.get(&exchange(*n).id).unwrap().1, Outcome::Ok, "cycle {cycle}: exchange {n} ended");
    }
}

fn check(durability: Durability, cycles: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut opened, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = 0;
    let mut interrupted_before = 0;
    let mut random = 88_172_645_463_325_252_u64;
    for cycle in 0..cycles {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let kill_after = 1 + (random % 400) as usize;
        let said = kill_once(dir.path(), durability, cycle, first, When::Acknowledged(kill_after));
        assert!(said.acknowledged.len() >= kill_after, "cycle {cycle}: the victim died of itself");
        acknowledged.extend(said.acknowledged);
        opened.extend(said.opened);
        ended.extend(said.ended);
        if cycle % 3 == 0 {
            // Once more, while the exchanges of the first time are being settled.
            kill_once(dir.path(), durability, cycle, first, When::Opening);
        }

        let before = verify(dir.path()).unwrap();
        let (ledger, interrupted) = open(dir.path(), durability);
        assert_eq!(interrupted, before.open, "cycle {cycle}");
        ledger.checkpoint().unwrap();
        let mut found = FoundRecords::new();
        let mut tokens = 0;
        for stored in ledger.records(RecordRange::default()) {
            let record = stored.unwrap().record;
            found.entry(record.id).or_insert((0, record.outcome)).0 += 1;
            tokens += record.usage.output_total().unwrap_or(0);
        }
        assert!(found.values().all(|(times, _)| *times == 1), "cycle {cycle}: a record is there twice");
        for n in &acknowledged {
            assert!(found.contains_key(&record(*n).id), "cycle {cycle}: record {n} is lost");
        }
        check_exchanges(cycle, &opened, &ended, &found);
        let now = found.values().filter(|(_, outcome)| *outcome == Outcome::Interrupted).count() as u64;
        assert!(now >= interrupted_before + interrupted, "cycle {cycle}: those of this open are there");
        interrupted_before = now;
        let records = before.records + interrupted;
        assert_eq!(found.len() as u64, records);
        let query = UsageQuery { by: vec![GroupKey::Model], ..UsageQuery::default() };
        let totals = ledger.usage(&query).unwrap().totals;
        assert_eq!((totals.requests, totals.usage.output_total()), (records, Some(tokens)));
        assert_eq!(totals.money()[0].billed.pico(), Some(i128::from(tokens)));
        ledger.close().unwrap();
        let after = verify(dir.path()).unwrap();
        assert_eq!((after.store, after.open), (StoreCheck::Agrees, 0));
        first = acknowledged.last().copied().unwrap_or(0) + 1;
    }
    assert!(interrupted_before > 0, "the kills met no exchange under way");
    println!(
        "{cycles} kills ({durability:?}): {} records acknowledged, 0 lost, 0 twice; {} exchanges under way, \
         {interrupted_before} interrupted once",
        acknowledged.len(),
        opened.len()
    );
}

/// A victim that also rolls its segments up and is copied. Its records cannot all be asked one by one, but
/// they have numbers without gaps in each cycle, so their count and sum tell whether each is there once.
fn check_while_pruning(durability: Durability, cycles: u64) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("data");
    let (mut random, mut acknowledged, mut before) = (2_463_534_242_u64, 0, (0_u64, 0_u64, 0_u64));
    let mut copies = 0;
    for cycle in 0..cycles {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let kill_after = 200 + (random % 1_500) as usize;
        let first = (cycle + 1) * 100_000_000;
        let how = (durability, "yes");
        let said = kill_one_that(&dir, how, cycle, first, When::Acknowledged(kill_after));
        assert!(said.acknowledged.len() >= kill_after, "cycle {cycle}: the victim died of itself");
        acknowledged += said.acknowledged.len();

        let verified = verify(&dir).unwrap();
        let ledger = open_fast(&dir, durability, cycle + 1);
        ledger.checkpoint().unwrap();
        let query = UsageQuery { by: vec![GroupKey::Workload, GroupKey::Outcome], ..UsageQuery::default() };
        let (mut plain, mut tokens, mut exchanges) = (0, 0, 0);
        for row in ledger.usage(&query).unwrap().rows {
            if row.key[0].text() == Some("exchange") {
                exchanges += row.totals.requests;
            } else {
                plain += row.totals.requests;
                tokens += row.totals.usage.output_total().unwrap_or(0);
            }
        }
        let (requests, sum) = (plain - before.0, tokens - before.1);
        assert!(requests >= said.acknowledged.len() as u64, "cycle {cycle}: acknowledged records are lost");
        let expected: u64 = (0..requests).map(|n| first + n + 1).sum();
        assert_eq!(sum, expected, "cycle {cycle}: records are missing or there twice");
        let opened = said.opened.len() as u64;
        let more = exchanges - before.2;
        assert!((opened..=opened + 1).contains(&more), "cycle {cycle}: {opened} opened, {more} recorded");
        before = (plain, tokens, exchanges);
        ledger.close().unwrap();
        let after = verify(&dir).unwrap();
        assert_eq!((after.store, after.open), (StoreCheck::Agrees, 0));
        assert!(after.rolled >= verified.rolled);
        let copy = dir.with_file_name("copy");
        if copy.exists() {
            verify(&copy).unwrap();
            copies += 1;
        }
        if cycle + 1 == cycles {
            assert!(after.rolled > 0 && copies > 0, "{} rolled up, {copies} copies", after.rolled);
            println!(
                "{cycles} kills ({durability:?}) while pruning and copying: {acknowledged} records acknowledged, \
                 0 lost, 0 twice; {} of {} rolled up; {copies} copies verified",
                after.rolled, after.records
            );
        }
    }
}

/// So many of `parts` of all cycles; the few of every day unless more are asked for.
#[expect(clippy::disallowed_methods, reason = "the size is chosen by whoever runs the test")]
fn cycles(few: u64, part: u64) -> u64 {
    let asked = std::env::var(CYCLES).ok().and_then(|text| text.parse::<u64>().ok());
    asked.map_or(few, |all| (all * part / 100).max(1))
}

/// One after the other: a process that is being started holds copies of the starter's files, locks
/// included, for a moment.
#[cfg(not(feature = "break-acknowledge-early"))]
#[test]
fn kills_lose_nothing_acknowledged_and_double_nothing() {
    check(Durability::Group, cycles(20, 40));
    check(Durability::Sync, cycles(5, 10));
    check(Durability::Relaxed, cycles(5, 10));
    check_while_pruning(Durability::Group, cycles(8, 40));
}

/// The checks can fail: a ledger that acknowledges before it writes is caught.
#[cfg(feature = "break-acknowledge-early")]
#[test]
fn a_ledger_that_acknowledges_before_it_writes_is_caught() {
    let caught = std::panic::catch_unwind(|| check(Durability::Group, 20)).unwrap_err();
    let text = caught.downcast_ref::<String>().cloned().unwrap_or_default();
    // A record, an exchange or how it ended: whichever the kill met first.
    let losses = ["is lost", "has not one record", " ended"];
    assert!(losses.iter().any(|loss| text.contains(loss)), "{text}");
    println!("caught: {text}");
}
