//! The real consensus library with the coordinator's settings and its state machine, in a simulated world: each member on a
//! runtime and a clock of its own, with a disk that loses what was not synced, in a network that loses, doubles, delays and
//! cuts. Everything derives from one seed.
//!
//! ```text
//!  clients ──┐                      ┌── oracle: one reference log, one reference state
//!            ▼                      │
//!   wire ◄──► members: openraft, store::Machine, core ──► log, vote, snapshots ──► disk
//!            ▲
//!  faults ───┘
//! ```
//!
//! `RAFT_SEEDS=0..10000 cargo test --release -p soloist-tests --test raft seeds_keep_every_promise -- --nocapture`
//! runs more seeds than an ordinary run of the tests.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::print_stderr, reason = "the trace of a single seed is for the person who asked for it")]

mod chance;
mod clients;
mod disk;
mod duty;
mod faults;
mod log;
mod member;
mod oracle;
mod peer;
mod runtime;
mod types;
mod wire;
mod world;

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use world::{Failure, Summary, World};

/// Seeds in an ordinary run of the tests.
const SEEDS: Range<u64> = 0..200;

/// Most seeds that a flaw may hide from.
const NOTICED_WITHIN: u64 = 200;

/// What the simulation must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// A disk says that it has synced before it has.
    LyingDisk,
    /// The library's default: a leader that restarts leads on without an election.
    LeaderRestore,
}

/// Runs seeds on all processors, until one fails.
fn run(seeds: Range<u64>, flaw: Option<Flaw>) -> Result<Summary, Box<Failure>> {
    let tracing = std::env::var_os("RAFT_TRACE").is_some();
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Ok(Summary::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let result = World::new(seed, flaw, tracing).run();
            let mut total = total.lock().unwrap();
            match (total.as_mut(), result) {
                (Ok(total), Ok(summary)) => *total += summary,
                (Ok(_), Err(failure)) => {
                    *total = Err(failure);
                    next.store(seeds.end, Ordering::Relaxed);
                }
                (Err(_), _) => {}
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap()
}

fn asked() -> Range<u64> {
    let Ok(text) = std::env::var("RAFT_SEEDS") else { return SEEDS };
    let range = text.split_once("..").and_then(|(low, high)| Some(low.parse().ok()?..high.parse().ok()?));
    range.unwrap_or_else(|| panic!("RAFT_SEEDS={text}: give a range such as 0..10000"))
}

#[expect(clippy::print_stdout, reason = "the totals show that the world was not idle")]
#[test]
fn seeds_keep_every_promise() {
    let (seeds, started) = (asked(), Instant::now());
    match run(seeds.clone(), None) {
        Ok(total) => println!("seeds {seeds:?}: all promises kept in {:?}; {total:?}", started.elapsed()),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in [3, 4] {
        let again = || World::new(seed, None, false).run().unwrap();
        assert_eq!(again(), again(), "seed {seed}");
    }
}

#[expect(clippy::print_stdout, reason = "the seed that noticed, for whoever wants to see it")]
/// Runs seeds with the flaw until one fails with one of the `expected` words in its message.
fn is_noticed(flaw: Flaw, expected: &[&str]) {
    let tracing = std::env::var_os("RAFT_TRACE").is_some();
    for seed in 0..NOTICED_WITHIN {
        if let Err(failure) = World::new(seed, Some(flaw), tracing).run() {
            println!("{flaw:?}: seed {seed}: {}", failure.what);
            if expected.iter().any(|word| failure.what.contains(word)) {
                return;
            }
        }
    }
    panic!("{NOTICED_WITHIN} seeds pass, or fail for another reason, with {flaw:?}");
}

#[test]
fn a_disk_that_lies() {
    is_noticed(Flaw::LyingDisk, &["two payloads", "was committed before", "is not what was acknowledged"]);
}

#[test]
fn a_leader_that_leads_on_after_a_restart() {
    is_noticed(Flaw::LeaderRestore, &["two payloads"]);
}
