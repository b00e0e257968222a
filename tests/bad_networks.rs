//! Networks that lose, delay, throttle, go out, fall silent and break off, on either side of the sidecar
//! (T34): nothing is sent twice, nothing is booked twice, and what the ledger says of a request is what its
//! provider said.
//!
//! A failure names the seed; `BURSAR_NETWORK_SEED` plays that one alone, `BURSAR_NETWORK_SEEDS` so many.
//!
//! Not here: breaks at every single byte (`broken_streams`, `cuts`), names that do not resolve and addresses
//! that refuse (`proxy/tests/hostile_peers.rs`).

use bursar_domain::{Outcome, UsageRecord, UsageSource};
use bursar_tests::clerk::{Clerk, Numbered, Told};
use bursar_tests::network::{Network, Numbers, Weather};
use bursar_tests::{Client, Setup, System};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Deadlines that end everything within [`PATIENCE`].
pub(crate) const SETTINGS: &str = "
server: { timeouts: { write_idle: 60s } }
upstream: { connect: 5s, response_head: 40s, idle: 20s }
";

/// Longer than every deadline of the sidecar together.
const PATIENCE: Duration = Duration::from_secs(400);

const CLIENTS: u64 = 4;
const REQUESTS_EACH: u64 = 6;

/// What a client heard of its request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) status: Option<u16>,
    pub(crate) body: Vec<u8>,
    pub(crate) whole: bool,
}

/// What clients have heard, in the order in which they did.
pub(crate) type AllHeard = RefCell<Vec<(Numbered, Heard)>>;

/// Asks once; `None` when the connection broke before a head came.
async fn ask(client: &mut Client, request: Numbered) -> Option<Heard> {
    if !client.try_send(&request.request()).await {
        return None;
    }
    let head = client.head().await?;
    let reply = client.body(head).await;
    Some(Heard { status: Some(reply.status()), body: reply.body, whole: reply.whole })
}

/// A client that asks one after another, and takes another connection when one breaks. It sends nothing
/// again.
pub(crate) async fn visit(
    system: &System,
    network: &Network,
    requests: impl Iterator<Item = Numbered>,
    mut numbers: Numbers,
    heard: &AllHeard,
) {
    let mut line: Option<Client> = None;
    for request in requests {
        let mut client = line.take().unwrap_or_else(|| Client::new(network.line_to(system.connect())));
        // Some lose patience, in the middle of whatever there is.
        let patience = if numbers.in_hundred(15) {
            Duration::from_millis(numbers.below(3_000) as u64)
        } else {
            PATIENCE
        };
        let answer = tokio::time::timeout(patience, ask(&mut client, request)).await;
        let answer = answer.ok().flatten().unwrap_or_default();
        if answer.whole {
            line = Some(client);
        }
        heard.borrow_mut().push((request, answer));
    }
}

/// How many requests ended how, over several plays: a test of faults must have had some.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    whole: usize,
    broken: usize,
    never_asked: usize,
}

/// The records by the numbers of their requests.
pub(crate) fn by_number<'r>(records: &'r [UsageRecord], what: &str) -> BTreeMap<u64, &'r UsageRecord> {
    let mut booked: BTreeMap<u64, &UsageRecord> = BTreeMap::new();
    for record in records {
        let workload = record.identity.workload.as_ref().unwrap().as_str();
        let before = booked.insert(workload.strip_prefix('n').unwrap().parse().unwrap(), record);
        assert!(before.is_none(), "{what}: a request is booked twice: {before:#?} {record:#?}");
    }
    booked
}

/// Whether a client has all that the provider answered. What it has must be that, byte for byte.
pub(crate) fn is_answered(request: Numbered, heard: &Heard, told: Told, what: &str) -> bool {
    // The sidecar's own refusals go nowhere.
    if heard.status != Some(request.status()) || (told.begun == 0 && request.usage().is_none()) {
        return false;
    }
    assert_eq!(told.asked, 1, "{what}: nobody said that");
    let answer = request.answer();
    assert!(answer.starts_with(&heard.body), "{what}: bytes of a reply changed");
    assert!(!heard.whole || heard.body == answer, "{what}: a piece is missing");
    heard.whole
}

/// What must hold of each request, whatever the network did.
fn check_books(
    heard: &[(Numbered, Heard)],
    told: &BTreeMap<u64, Told>,
    records: &[UsageRecord],
    what: &str,
) -> Sums {
    let mut sums = Sums::default();
    let booked = by_number(records, what);
    for (request, heard) in heard {
        let told = told.get(&request.0).copied().unwrap_or_default();
        let what =
            format!("{what}, request {}: {told:?}, heard {:?}", request.0, (heard.status, heard.whole));
        check_sent(told, &what);
        let record = booked.get(&request.0).copied();
        assert!(told.begun == 0 || record.is_some(), "{what}: the provider has it, the ledger does not");
        let is_answered = is_answered(*request, heard, told, &what);
        sums.whole += usize::from(is_answered);
        sums.broken += usize::from(!is_answered);
        sums.never_asked += usize::from(told.asked == 0);
        if let Some(record) = record {
            check_record(*request, record, told, is_answered, &what);
        }
    }
    sums
}

/// A request is sent once, or not at all.
pub(crate) fn check_sent(told: Told, what: &str) {
    assert!(told.begun <= 1 && told.asked <= told.begun, "{what}: it was sent twice");
}

/// What a record says is what the provider said.
pub(crate) fn check_record(
    request: Numbered,
    record: &UsageRecord,
    told: Told,
    is_answered: bool,
    what: &str,
) {
    let usage = (record.usage.input_total(), record.usage.output_total());
    if record.usage_source == UsageSource::Provider {
        let (input, output) = request.usage().unwrap();
        assert_eq!(usage, (Some(input), Some(output)), "{what}: {record:#?}");
        assert_eq!(told.asked, 1, "{what}: figures of a provider that was not asked: {record:#?}");
    }
    if told.asked == 0 {
        // It was lost on its way, or never left.
        assert_ne!(record.outcome, Outcome::Ok, "{what}: {record:#?}");
    }
    if is_answered && request.usage().is_some() {
        let ending = (record.outcome, record.usage_source);
        assert_eq!(ending, (Outcome::Ok, UsageSource::Provider), "{what}: {record:#?}");
    }
}

/// Waits until nothing is under way.
pub(crate) async fn settled(system: &System) {
    let deadline = tokio::time::Instant::now() + 2 * PATIENCE;
    while system.metric("bursar_requests_in_flight") > 0 {
        assert!(tokio::time::Instant::now() < deadline, "an exchange never ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Plays one seed in one weather on both sides.
fn play(weather: Weather, seed: u64) -> Sums {
    let what = format!("BURSAR_NETWORK_SEED={seed} ({weather:?})");
    // What panics deep in the harness does not know its seed.
    eprintln!("playing {what}");
    let sums = Rc::new(std::cell::Cell::new(Sums::default()));
    let (clerk, sink) = (Clerk::default(), Rc::clone(&sums));
    let clerk_behind = clerk.clone();
    // Its time begins within the runtime.
    let network = Rc::new(std::cell::OnceCell::<Network>::new());
    let behind = Rc::clone(&network);
    let connector = bursar::upstream::Connector::Memory(Rc::new(move |_| {
        let network = behind.get_or_init(|| Network::new(weather, seed));
        Ok(network.line_to(clerk_behind.connect()))
    }));
    let setup = Setup { connector: Some(connector), ..Setup::new(SETTINGS) };
    setup.run(|system| async move {
        let before = Network::new(weather, !seed);
        let heard = AllHeard::default();
        let visits = (0..CLIENTS).map(|client| {
            let requests = (0..REQUESTS_EACH).map(move |at| Numbered(seed % 1_000 + client + CLIENTS * at));
            visit(&system, &before, requests, Numbers::of(seed ^ client), &heard)
        });
        futures_util::future::join_all(visits).await;
        settled(&system).await;
        let records = system.records().await.into_iter().map(|stored| stored.record).collect::<Vec<_>>();
        sink.set(check_books(&heard.borrow(), &clerk.told(), &records, &what));
    });
    sums.get()
}

/// A number that whoever runs the test gives.
pub(crate) fn variable(name: &str) -> Option<u64> {
    std::env::vars().find(|(known, _)| known == name).map(|(_, value)| value.parse().unwrap())
}

/// Plays a weather with each seed.
fn check(weather: Weather) -> Sums {
    let seeds = match variable("BURSAR_NETWORK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("BURSAR_NETWORK_SEEDS").unwrap_or(4),
    };
    seeds.map(|seed| play(weather, seed)).fold(Sums::default(), |all, one| Sums {
        whole: all.whole + one.whole,
        broken: all.broken + one.broken,
        never_asked: all.never_asked + one.never_asked,
    })
}

#[test]
fn on_a_network_that_only_is_slow_whoever_waits_is_answered_and_booked_once() {
    for weather in [Weather::Fair, Weather::Lossy, Weather::Narrow] {
        let sums = check(weather);
        assert!(sums.whole > sums.broken, "{weather:?}: those who leave are few: {sums:?}");
    }
}

#[test]
fn on_a_network_that_goes_out_and_comes_back_nothing_is_sent_or_booked_twice() {
    let sums = check(Weather::Flapping);
    assert!(sums.whole > 0, "{sums:?}");
}

#[test]
fn on_a_network_that_cuts_lines_nothing_is_sent_or_booked_twice() {
    let sums = check(Weather::Cutting);
    assert!(sums.broken > 0 && sums.never_asked > 0, "{sums:?}");
}

#[test]
fn on_a_network_that_falls_silent_everything_ends_and_nothing_is_sent_or_booked_twice() {
    let sums = check(Weather::Dark);
    assert!(sums.broken > 0 && sums.never_asked > 0, "{sums:?}");
}

#[test]
fn on_a_network_of_which_every_line_is_otherwise_nothing_is_sent_or_booked_twice() {
    let sums = check(Weather::Mixed);
    assert!(sums.whole > 0 && sums.broken > 0, "{sums:?}");
}
