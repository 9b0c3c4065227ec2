//! App processes and the database that they share.

use std::collections::BTreeSet;

use soloist_core::assignment::TaskKey;
use soloist_core::ids::{Generation, Launch};

/// Who started a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starter {
    /// A keeper, for an agent.
    Keeper(Launch),
    /// A person, by hand.
    Person,
}

/// What an app process is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It starts, and serves from then on.
    Starting(u64),
    /// It installs or upgrades, and serves from then on, or fails half-way.
    Migrating(u64, bool),
    /// It serves.
    Serving,
    /// It has failed and stays so.
    Failed(String),
}

/// One app process.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) pid: u32,
    pub(crate) starter: Starter,
    pub(crate) launched: Option<Generation>,
    /// Of how many processes it is made.
    pub(crate) processes: u32,
    /// Whether it was started as its settings say.
    pub(crate) plain: bool,
    pub(crate) phase: Phase,
    pub(crate) plugins: BTreeSet<String>,
    /// When it ends because it was asked to.
    pub(crate) stops_at: Option<u64>,
    /// Work that runs inside it by itself, such as a workflow: since when, and until when.
    pub(crate) work: Option<(u64, u64)>,
    /// A plugin change under way inside it: until when, which plugin, enable or disable, and in which agent's attempt.
    pub(crate) change: Option<Change>,
}

/// A plugin change inside an app.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// In which attempt.
    pub(crate) key: TaskKey,
    pub(crate) until: u64,
    pub(crate) plugin: String,
    pub(crate) enable: bool,
    pub(crate) fails: bool,
}

/// The database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Database {
    /// Whether it has tables.
    pub(crate) tables: bool,
    /// Its version, once installed.
    pub(crate) version: Option<String>,
    /// Enabled plugins.
    pub(crate) plugins: BTreeSet<String>,
    /// What users have written.
    pub(crate) rows: BTreeSet<u64>,
    /// Whether a restore has begun to replace it and has not ended.
    pub(crate) half: bool,
    /// Sessions of apps that a person runs on machines without an agent, with their end.
    pub(crate) strangers: Vec<(u32, u64)>,
}

/// The version of the code that fits the database.
pub(crate) const VERSION: &str = "2.2.15";
/// The version to which fleets are upgraded.
pub(crate) const NEXT_VERSION: &str = "2.2.99";
/// What the database says in the middle of an upgrade.
pub(crate) const HALF_VERSION: &str = "half";
/// The version of the code of a node that was forgotten at an upgrade.
pub(crate) const OTHER_VERSION: &str = "2.2.14";
