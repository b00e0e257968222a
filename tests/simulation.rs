//! The whole sidecar in a seeded simulation (T12): several lives of one machine, on a network that loses,
//! delays, cuts and falls silent, over a disk whose syncs may fail, and whose power goes at any moment and
//! takes with it what was not synced.
//!
//! What must hold for each seed: what was acknowledged is there (P1), what `group` may lose is no more than
//! what came after the last sync (P2), nothing is sent or booked twice (P3), a hard budget is not passed
//! (P4), what a failed sync leaves is neither wrong nor silent (P5), and bytes pass unchanged (P8).
//!
//! A failure names its seed: `BURSAR_SIMULATION_SEED` plays that one alone, `BURSAR_SIMULATION_SEEDS` so
//! many. A seed tells the settings, every line of the network, every moment of a fault, and what a loss of
//! power leaves. How far the ledger's thread has come at such a moment is the machine's.
//!
//! Not here: networks alone (`bad_networks`), an end at each single operation on files (`ledger/src/ends.rs`),
//! real processes and real power cuts (`ledger/tests/crash.rs`, `.ci/powercuts.sh`).

use crate::bad_networks::{
    AllHeard, Heard, SETTINGS, by_number, check_record, check_sent, is_answered, settled, variable, visit,
};
use bursar_domain::{Outcome, UsageRecord};
use bursar_ledger::{OfflineLedger, RecordRange, StoreCheck, verify};
use bursar_tests::clerk::{Clerk, Numbered, Told};
use bursar_tests::network::{Network, Numbers, Weather};
use bursar_tests::{Machine, Setup, System};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// Tokens of the budget: fewer than all requests together use.
const LIMIT: u64 = 900;

const CLIENTS: u64 = 4;
const REQUESTS_EACH: u64 = 5;

/// What a seed tells.
#[derive(Clone, Debug)]
struct Plan {
    is_sync: bool,
    is_closed: bool,
    weather: Weather,
    lives: Vec<Life>,
}

/// One life of the process.
#[derive(Clone, Copy, Debug)]
struct Life {
    /// When syncs begin to fail.
    syncs_fail_after: Option<Duration>,
    /// When the power goes; without that the process ends when all is done.
    power_lost_after: Option<Duration>,
    /// Whether everything is made durable just before.
    is_checkpointed: bool,
    /// Whether the embedded database is gone afterwards.
    loses_store: bool,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut numbers = Numbers::of(seed);
        let moment = |numbers: &mut Numbers| {
            // The first moments of a life, the middle of its requests, or long after most.
            let reach = [30, 3_000, 30_000][numbers.below(3)];
            Duration::from_millis(numbers.below(reach) as u64)
        };
        let lives = 1 + numbers.below(3);
        Self {
            is_sync: numbers.in_hundred(60),
            is_closed: numbers.in_hundred(50),
            weather: [Weather::Fair, Weather::Mixed, Weather::Mixed][numbers.below(3)],
            lives: (0..lives)
                .map(|_| Life {
                    syncs_fail_after: numbers.in_hundred(20).then(|| moment(&mut numbers)),
                    power_lost_after: numbers.in_hundred(75).then(|| moment(&mut numbers)),
                    is_checkpointed: numbers.in_hundred(40),
                    loses_store: numbers.in_hundred(30),
                })
                .collect(),
        }
    }

    fn settings(&self) -> String {
        let durability = if self.is_sync { "sync" } else { "group" };
        let fail = if self.is_closed { "closed" } else { "open" };
        format!(
            "{SETTINGS}\nledger: {{ durability: {durability}, fail: {fail} }}\n\
             budgets: [{{ name: all, window: day, limit: {LIMIT} tokens }}]\n"
        )
    }

    /// Whether the disk of this life fails.
    fn is_faulty(&self, life: u64) -> bool {
        self.lives[life as usize].syncs_fail_after.is_some()
    }
}

/// What is known at the end of all lives.
#[derive(Debug, Default)]
struct Seen {
    heard: BTreeMap<u64, Heard>,
    /// Whose records must be there as they were: acknowledged, or ended before everything was made durable.
    safe: BTreeSet<u64>,
    /// The lives that ended by themselves, with all they had.
    peaceful: BTreeSet<u64>,
}

/// Numbers of one life; the life of a number.
const PER_LIFE: u64 = 1_000;

fn answered(heard: &AllHeard) -> Vec<u64> {
    let heard = heard.borrow();
    let whole = heard.iter().filter(|(request, heard)| heard.whole && heard.status == Some(request.status()));
    whole.map(|(request, _)| request.0).collect()
}

/// Lives once, to its end; what was heard goes into `seen`.
async fn live(system: System, plan: &Plan, (seed, life): (u64, u64), seen: &mut Seen) {
    let Life { syncs_fail_after, power_lost_after, is_checkpointed, .. } = plan.lives[life as usize];
    let disk = system_disk(&system);
    let network = Network::new(plan.weather, !seed ^ life);
    let heard = AllHeard::default();
    let before_fault = RefCell::new(None);
    let visits = (0..CLIENTS).map(|client| {
        let requests =
            (0..REQUESTS_EACH).map(move |at| Numbered(life * PER_LIFE + seed % 100 + client + CLIENTS * at));
        visit(&system, &network, requests, Numbers::of(seed ^ (life * 16 + client)), &heard)
    });
    let fault = async {
        if let Some(after) = syncs_fail_after {
            tokio::time::sleep(after).await;
            before_fault.replace(Some(answered(&heard)));
            disk.fail_syncs();
        }
        std::future::pending::<()>().await;
    };
    let end = async {
        match power_lost_after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    let is_cut = tokio::select! {
        _ = futures_util::future::join_all(visits) => false,
        () = fault => false,
        () = end => true,
    };
    let whole = answered(&heard);
    seen.heard.extend(heard.take().into_iter().map(|(request, heard)| (request.0, heard)));
    if !is_cut {
        settled(&system).await;
    }
    if let Some(before) = before_fault.take() {
        // A disk that fails keeps what it had made durable.
        seen.safe.extend(if plan.is_sync { before } else { Vec::new() });
        system.lose_power().await;
    } else if is_cut {
        if is_checkpointed {
            // What ended lately is handed over first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            system.app.ledger.checkpoint().unwrap();
        }
        seen.safe.extend(if plan.is_sync || is_checkpointed { whole } else { Vec::new() });
        system.lose_power().await;
    } else {
        seen.peaceful.insert(life);
        seen.safe.extend(whole);
        drop(system.close().await);
    }
}

fn system_disk(system: &System) -> bursar_ledger::SimulatedDisk {
    system.machine().expect("a machine").disk.clone()
}

/// What must hold of every request.
fn check_request(
    number: u64,
    (plan, seen): (&Plan, &Seen),
    told: Told,
    record: Option<&UsageRecord>,
    what: &str,
) -> bool {
    let (request, life) = (Numbered(number), number / PER_LIFE);
    let heard = seen.heard.get(&number).cloned().unwrap_or_default();
    let what = format!("{what}, request {number}: {told:?}, heard {:?}", (heard.status, heard.whole));
    check_sent(told, &what);
    let is_answered = is_answered(request, &heard, told, &what);
    // What was begun was written down before, where that is promised; a process that ends by itself has
    // written everything.
    let is_kept =
        seen.peaceful.contains(&life) || (plan.is_sync && (plan.is_closed || !plan.is_faulty(life)));
    assert!(
        told.begun == 0 || record.is_some() || !is_kept,
        "{what}: the provider has it, the ledger does not"
    );
    let is_safe = seen.safe.contains(&number) && is_answered;
    assert!(!is_safe || record.is_some(), "{what}: acknowledged and lost");
    if let Some(record) = record {
        let is_interrupted = record.outcome == Outcome::Interrupted;
        assert!(
            !is_interrupted || !seen.peaceful.contains(&life),
            "{what}: nothing interrupted it: {record:#?}"
        );
        check_record(request, record, told, is_safe, &what);
    }
    is_answered
}

/// How much happened in all plays: a simulation in which nothing goes wrong shows nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    requests: usize,
    answered: usize,
    refused: usize,
    lost: usize,
    interrupted: usize,
}

/// What must hold when all lives are over.
fn check_end(plan: &Plan, seen: &Seen, told: &BTreeMap<u64, Told>, machine: &Machine, what: &str) -> Sums {
    let verified = verify(&machine.ledger()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(verified.store, StoreCheck::Agrees, "{what}");
    let ledger = OfflineLedger::open(&machine.ledger()).unwrap();
    let records: Vec<UsageRecord> =
        ledger.records(RecordRange::default()).map(|stored| stored.unwrap().record).collect();
    let booked = by_number(&records, what);
    let numbers: BTreeSet<u64> = seen.heard.keys().chain(told.keys()).chain(booked.keys()).copied().collect();
    let mut sums = Sums { requests: numbers.len(), ..Sums::default() };
    let mut spent = 0;
    for number in numbers {
        let told = told.get(&number).copied().unwrap_or_default();
        let record = booked.get(&number).copied();
        let is_answered = check_request(number, (plan, seen), told, record, what);
        let refused =
            seen.heard.get(&number).is_some_and(|heard| heard.status == Some(429)) && told.begun == 0;
        sums.answered += usize::from(is_answered);
        sums.refused += usize::from(refused);
        sums.lost += usize::from(told.begun > 0 && record.is_none());
        sums.interrupted += usize::from(record.is_some_and(|record| record.outcome == Outcome::Interrupted));
        let (input, output) = Numbered(number).usage().filter(|_| told.asked > 0).unwrap_or_default();
        spent += input + output;
    }
    let is_exact = plan.is_sync && plan.lives.iter().all(|life| life.syncs_fail_after.is_none());
    assert!(!is_exact || spent <= LIMIT, "{what}: {spent} of {LIMIT} tokens were spent");
    sums
}

/// Plays one seed on a machine that is as new.
fn play(seed: u64) -> Sums {
    play_on(&Machine::new(), seed)
}

fn play_on(machine: &Machine, seed: u64) -> Sums {
    let plan = Plan::of(seed);
    let what = format!("BURSAR_SIMULATION_SEED={seed} ({plan:?})");
    // What panics deep in the harness does not know its seed.
    eprintln!("playing {what}");
    let (machine, clerk) = (machine.clone(), Clerk::default());
    let network: Rc<RefCell<Option<Network>>> = Rc::default();
    let (behind, provider) = (Rc::clone(&network), clerk.clone());
    let connector = bursar::upstream::Connector::Memory(Rc::new(move |_| {
        Ok(behind.borrow().as_ref().unwrap().line_to(provider.connect()))
    }));
    let setup =
        Setup { connector: Some(connector), machine: Some(machine.clone()), ..Setup::new(&plan.settings()) };
    let sums = Rc::new(Cell::new(Sums::default()));
    let sink = Rc::clone(&sums);
    setup.clone().run(|first| async move {
        let mut seen = Seen::default();
        let mut after = Numbers::of(seed ^ 0x5eed);
        let mut system = first;
        for (life, what_next) in (0..).zip(plan.lives.clone()) {
            network.replace(Some(Network::new(plan.weather, seed ^ (life << 8))));
            live(system, &plan, (seed, life), &mut seen).await;
            machine.disk.power_on(|end| after.below(end)).unwrap();
            if what_next.loses_store {
                std::fs::remove_dir_all(machine.ledger().join("store")).unwrap();
            }
            system = System::start(setup.clone());
        }
        drop(system.close().await);
        sink.set(check_end(&plan, &seen, &clerk.told(), &machine, &what));
    });
    sums.get()
}

#[test]
fn whatever_network_disk_and_power_do_the_books_are_right() {
    let seeds = match variable("BURSAR_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("BURSAR_SIMULATION_SEEDS").unwrap_or(24),
    };
    let is_one = seeds.end - seeds.start == 1;
    let sums = seeds.map(play).fold(Sums::default(), |all, one| Sums {
        requests: all.requests + one.requests,
        answered: all.answered + one.answered,
        refused: all.refused + one.refused,
        lost: all.lost + one.lost,
        interrupted: all.interrupted + one.interrupted,
    });
    eprintln!("{sums:?}");
    let all = [sums.answered, sums.refused, sums.interrupted];
    assert!(
        is_one || all.iter().all(|count| *count > 0),
        "something of all that was to happen did not: {sums:?}"
    );
}

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    let is_caught = (0..24).any(|seed| {
        let played = std::panic::catch_unwind(|| {
            let machine = Machine::new();
            machine.disk.lie_about_syncs();
            play_on(&machine, seed)
        });
        let said = played.err().map(|panic| panic.downcast::<String>().map_or(String::new(), |said| *said));
        said.is_some_and(|said| {
            said.contains("acknowledged and lost") || said.contains("the ledger does not")
        })
    });
    assert!(is_caught, "nothing that the simulation looks at is lost with what was synced");
}
