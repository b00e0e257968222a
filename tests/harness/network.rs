//! A network between two ends in memory: far, narrow, losing packets, out for a while, silent for ever, cut
//! within any byte; drawn from a seed, in paused time.
//!
//! Invariants
//! - Like TCP's, its bytes arrive in order and unchanged or not at all: a lost packet is one that is late.
//! - What happens on a line is drawn when the line is made, so that a seed tells all of it.
//!
//! Not here: what is said over it (`clerk`, `client`), real sockets (`proxy/tests`).

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Bytes of a packet.
const PACKET: usize = 1448;

/// Packets that are under way in one direction at a time.
const WINDOW: usize = 44;

/// After this a lost packet is sent again; each time it is lost after twice as long.
const SENT_AGAIN: Duration = Duration::from_millis(200);

/// Numbers that a seed tells (SplitMix64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Those of `seed`.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 1).unwrap() % end.max(1)
    }

    /// Whether what happens in so many of a hundred times happens now.
    pub fn in_hundred(&mut self, times: usize) -> bool {
        self.below(100) < times
    }
}

/// What is wrong with a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing but its length.
    Fair,
    /// A fifth of all packets are lost.
    Lossy,
    /// A megabit in a second.
    Narrow,
    /// Nothing passes for some seconds, then for some seconds everything does.
    Flapping,
    /// Lines are cut, each after some bytes.
    Cutting,
    /// Lines fall silent, each after some bytes, and nobody is told.
    Dark,
    /// Any of these, line by line.
    Mixed,
}

impl Weather {
    /// Each of them.
    pub const ALL: [Self; 7] =
        [Self::Fair, Self::Lossy, Self::Narrow, Self::Flapping, Self::Cutting, Self::Dark, Self::Mixed];
}

/// A network of which every line is drawn from the same seed.
#[derive(Clone, Debug)]
pub struct Network {
    weather: Weather,
    numbers: Rc<RefCell<Numbers>>,
    began: Instant,
    up: Duration,
    down: Duration,
}

/// How a line ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It does not.
    Lives,
    /// Both ends see it closed.
    Cut,
    /// Neither end sees anything any more.
    Dark,
}

/// What is drawn for one line.
#[derive(Clone, Debug)]
struct Line {
    latency: Duration,
    bytes_per_second: Option<u32>,
    lost_in_hundred: usize,
    outages: Option<Outages>,
    fate: Fate,
    /// After so many bytes of both directions.
    fate_after: usize,
}

/// When nothing passes.
#[derive(Clone, Copy, Debug)]
struct Outages {
    began: Instant,
    up: Duration,
    down: Duration,
}

impl Outages {
    /// When what would arrive at `time` does.
    fn passed(self, time: Instant) -> Instant {
        let round = self.up + self.down;
        let within = Duration::from_nanos((time - self.began).as_nanos() as u64 % round.as_nanos() as u64);
        if within < self.up { time } else { time + (round - within) + SENT_AGAIN }
    }
}

impl Network {
    /// A network in this weather.
    #[must_use]
    pub fn new(weather: Weather, seed: u64) -> Self {
        let mut numbers = Numbers::of(seed);
        let up = Duration::from_millis(1_000 + numbers.below(4_000) as u64);
        let down = Duration::from_millis(500 + numbers.below(6_000) as u64);
        let numbers = Rc::new(RefCell::new(numbers));
        Self { weather, numbers, began: Instant::now(), up, down }
    }

    /// The other end of a new line to `end`.
    #[must_use]
    pub fn line_to(&self, end: DuplexStream) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let line = self.draw();
        let seed = self.numbers.borrow_mut().next();
        bursar::tasks::start(relay(line, ours, end, seed));
        theirs
    }

    fn draw(&self) -> Line {
        let mut numbers = self.numbers.borrow_mut();
        let weather = match self.weather {
            Weather::Mixed => Weather::ALL[numbers.below(Weather::ALL.len() - 1)],
            weather => weather,
        };
        let fate = match weather {
            Weather::Cutting => Fate::Cut,
            Weather::Dark => Fate::Dark,
            _ => Fate::Lives,
        };
        // Heads, bodies and replies are of some hundreds of bytes or of some ten thousands.
        let reach = [400, 4_000, 80_000][numbers.below(3)];
        Line {
            latency: Duration::from_micros(100 + numbers.below(80_000) as u64),
            bytes_per_second: (weather == Weather::Narrow).then_some(125_000),
            lost_in_hundred: if weather == Weather::Lossy { 20 } else { 0 },
            outages: (weather == Weather::Flapping).then_some(Outages {
                began: self.began,
                up: self.up,
                down: self.down,
            }),
            fate,
            fate_after: numbers.below(reach),
        }
    }
}

/// Both directions of a line, until it ends.
async fn relay(line: Line, one: DuplexStream, other: DuplexStream, seed: u64) {
    let ((from_one, to_one), (from_other, to_other)) = (tokio::io::split(one), tokio::io::split(other));
    let left = Rc::new(Cell::new(line.fate_after));
    let over = Rc::new(Notify::new());
    let lane = |seed| Lane {
        line: line.clone(),
        left: Rc::clone(&left),
        over: Rc::clone(&over),
        numbers: Numbers::of(seed),
        free_at: Instant::now(),
        last_at: Instant::now(),
    };
    let both = async {
        tokio::join!(lane(seed).carry(from_one, to_other), lane(!seed).carry(from_other, to_one));
    };
    tokio::select! {
        () = both => {}
        // Whoever was cut off sees it on both ends at once.
        () = over.notified() => {}
    }
}

/// One direction of a line.
struct Lane {
    line: Line,
    /// Bytes until its fate.
    left: Rc<Cell<usize>>,
    over: Rc<Notify>,
    numbers: Numbers,
    free_at: Instant,
    last_at: Instant,
}

impl Lane {
    async fn carry(mut self, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
        let (packets, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(WINDOW);
        let (left, over, fate) = (Rc::clone(&self.left), Rc::clone(&self.over), self.line.fate);
        let sending = async move {
            loop {
                let mut packet = vec![0; PACKET];
                // Whoever breaks a line in memory has left, as by an end.
                let count = from.read(&mut packet).await.unwrap_or(0);
                packet.truncate(count);
                let arrives = self.arrival(count);
                if packets.send((arrives, packet)).await.is_err() || count == 0 {
                    return;
                }
            }
        };
        let receiving = async move {
            while let Some((arrives, packet)) = arriving.recv().await {
                tokio::time::sleep_until(arrives).await;
                if packet.is_empty() {
                    // It may have left as well.
                    let _ = to.shutdown().await;
                    return;
                }
                let passes = if fate == Fate::Lives { packet.len() } else { packet.len().min(left.get()) };
                left.set(left.get().saturating_sub(passes));
                let is_gone = to.write_all(&packet[..passes]).await.is_err();
                match fate {
                    _ if is_gone => return over.notify_one(),
                    Fate::Cut if left.get() == 0 => return over.notify_one(),
                    Fate::Dark if left.get() == 0 => pending().await,
                    _ => {}
                }
            }
        };
        tokio::join!(sending, receiving);
    }

    /// When a packet of so many bytes arrives that is sent now.
    fn arrival(&mut self, bytes: usize) -> Instant {
        let now = Instant::now();
        let takes = self.line.bytes_per_second.map_or(Duration::ZERO, |per_second| {
            Duration::from_micros(bytes as u64 * 1_000_000 / u64::from(per_second))
        });
        self.free_at = self.free_at.max(now) + takes;
        let mut arrives = self.free_at + self.line.latency;
        let mut wait = SENT_AGAIN;
        while wait < Duration::from_secs(10) && self.numbers.in_hundred(self.line.lost_in_hundred) {
            arrives += wait;
            wait *= 2;
        }
        if let Some(outages) = self.line.outages {
            arrives = outages.passed(arrives);
        }
        self.last_at = self.last_at.max(arrives);
        self.last_at
    }
}
