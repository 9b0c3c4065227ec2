//! The simulated world: members as a linearizable log, agents, keepers, apps, one database, a network that loses,
//! doubles and reorders, clocks that drift and jump, and people.
//!
//! ```text
//!  people, holders ──┐                       ┌── oracle (what truly ran, and what it did)
//!                    ▼                       │
//!   members (log, leader, stale followers) ◄─┼─► agents ──► keepers ──► apps ──► database
//! ```
//!
//! A run has a safety phase with faults and a liveness phase without; the oracle watches both, and at the end
//! everything must have converged. Everything derives from one seed.

mod agent;
mod app;
mod chance;
mod clients;
mod member;
mod oracle;
mod world;

use std::fmt;

pub use world::World;

/// A promise that the simulation found broken.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// What was broken.
    pub what: String,
    /// When, in milliseconds since the start of the run.
    pub at_ms: u64,
    /// The end of the trace.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} at {} ms: {}", self.seed, self.at_ms, self.what)?;
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "reproduce: cargo run -p soloist-tests --bin sim -- --seeds {0}..{1} --trace",
            self.seed,
            self.seed + 1
        )
    }
}

/// Figures of a run that ended well: they show that the world was not idle.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Log entries.
    pub entries: u64,
    /// App processes that agents started.
    pub launches: u64,
    /// Exclusive parts that were granted.
    pub grants: u64,
    /// Rights to install that were used.
    pub migrations: u64,
    /// Leases that were lost.
    pub leases_lost: u64,
    /// Upgrades that were taken back.
    pub rolled_back: u64,
    /// Operations that succeeded.
    pub succeeded: u64,
    /// Stops that cut off what was under way inside an app.
    pub cut_off: u64,
    /// Breaches that people caused and the state recorded.
    pub breaches: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Summary) {
        self.entries += other.entries;
        self.launches += other.launches;
        self.grants += other.grants;
        self.migrations += other.migrations;
        self.leases_lost += other.leases_lost;
        self.rolled_back += other.rolled_back;
        self.succeeded += other.succeeded;
        self.cut_off += other.cut_off;
        self.breaches += other.breaches;
    }
}

/// Runs one seed.
pub fn run(seed: u64) -> Result<Summary, Box<Failure>> {
    World::new(seed).run()
}
