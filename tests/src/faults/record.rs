//! What is written down during a run: raw, so that the verdict can be computed again from it at any time. All times are
//! milliseconds of this machine's wall clock, which everything here shares and nothing changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::linear::Call;

/// The name of the raw record in a report folder.
pub const RECORD: &str = "record.json";

/// Now.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One tree of processes of the app, as the monitor saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The node by its marker, or [`STRAY`].
    pub node: String,
    /// Process id of its root.
    pub pid: u32,
    /// When it was first seen.
    pub from_ms: u64,
    /// When it was last seen.
    pub to_ms: u64,
    /// Whether it has the right to install or upgrade.
    pub migrates: bool,
}

/// What a process of the app without a marker is called.
pub const STRAY: &str = "stray";

/// An event of the coordinators.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Told {
    /// Its log index; several can share one.
    pub index: u64,
    /// When its leader stamped it.
    pub wall_ms: u64,
    /// The operation concerned.
    pub operation: Option<String>,
    /// The node concerned.
    pub node: Option<String>,
    /// One word.
    pub kind: String,
    /// For people.
    pub text: String,
}

/// A command of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What was asked for.
    pub what: String,
    /// When.
    pub from_ms: u64,
    /// When it ended.
    pub to_ms: u64,
    /// Its exit code; -1 if it was killed.
    pub code: i32,
    /// The last that it said to people.
    pub said: String,
}

/// A sign of life of a command under the lock, written by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// `solo` or `all-stopped`.
    pub mode: String,
    /// The token that it was given.
    pub token: u64,
    /// The node that may run.
    pub solo: String,
    /// When.
    pub at_ms: u64,
}

/// A fault from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Its kind, one word of low cardinality.
    pub kind: String,
    /// To whom it was done.
    pub what: String,
    /// When it began.
    pub from_ms: u64,
    /// When it was over.
    pub to_ms: u64,
}

/// A wait for everything to be well again after faults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calm {
    /// When all faults were over.
    pub from_ms: u64,
    /// How long it took until every node served and the lock was free.
    pub took_ms: u64,
    /// Whether it came within the bound.
    pub reached: bool,
    /// How it stood if not.
    pub state: String,
}

/// Everything of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was run.
    pub title: String,
    /// The seed of its schedule, if it has one.
    pub seed: Option<u64>,
    /// When it began.
    pub from_ms: u64,
    /// When it ended.
    pub to_ms: u64,
    /// How many times the monitor looked.
    pub samples: u64,
    /// Its longest time between two looks.
    pub longest_gap_ms: u64,
    /// What it had no room for; then nothing is proven.
    pub dropped: u64,
    /// What it saw.
    pub trees: Vec<Tree>,
    /// What the coordinators told.
    pub events: Vec<Told>,
    /// The solo node of each operation that has one.
    pub solo: BTreeMap<String, String>,
    /// What clients did.
    pub works: Vec<Work>,
    /// What commands under the lock wrote.
    pub alive: Vec<Alive>,
    /// What was broken on purpose.
    pub troubles: Vec<Trouble>,
    /// How it became well again.
    pub calms: Vec<Calm>,
    /// What clients of the lock did, by fleet.
    pub calls: BTreeMap<String, Vec<Call>>,
    /// What could not be done as it should have been, such as a harmed store that was not refused.
    pub failures: Vec<String>,
    /// Damage that the stand-in wrote down.
    pub damage: Vec<String>,
}

impl Record {
    /// Writes it into a report folder.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(RECORD);
        fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When it is not there, or is none.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(RECORD);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no record", path.display()))
    }
}
