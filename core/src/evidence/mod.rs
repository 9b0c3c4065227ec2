//! Evidence: what agents record of their node, and what follows from it about the time in which an operation was alone.
//!
//! ```text
//!   agent: look ──track──► Fact ──sealed──► Record ──► Record ──► …      one chain per agent, each record with the hash
//!          sample ─gather──► Watch ┘                                      of the one before it
//!
//!   the operation's grants (replicated) + the chains of its fleet's nodes ──prove──► Proof ──► words
//! ```
//!
//! That the others did not run is shown without any clock: by the place of a node's stop in its chain, and by the
//! generations of what ran after it. Clocks serve what has no number: looks at processes, and at database sessions.

mod clock;
mod connected;
mod gather;
mod note;
mod prove;
#[cfg(test)]
mod tests;
mod track;
mod walk;
mod words;
#[cfg(test)]
mod worlds;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assignment::Foreign;
use crate::ids::{BootId, FleetId, Generation, Incarnation, Launch, NodeId, OperationId, Token};

pub use clock::{Hull, Reading};
pub use gather::Gather;
pub(crate) use note::note;
pub use note::{case, witnessed};
pub use prove::{Finding, GrantProof, Proof, Sampling, Verdict, prove};
pub use track::{Exit, Sight, Tracker};
pub use walk::{breaks, excerpt};

/// Most exclusive parts that an operation keeps: one, and one more for each way back.
pub const GRANTS_MAX: usize = 4;
/// Most foreign processes in one watch.
pub const FOREIGN_MAX: usize = 16;
/// Most names of sessions in one watch.
pub const NAMES_MAX: usize = 64;
/// Longest name of a session that is recorded, in characters; PostgreSQL keeps 63 bytes.
pub const NAME_MAX: usize = 63;
/// How an app's database sessions are named: this, and its node.
pub const APP_PREFIX: &str = "soloist-";

/// A moment by an agent's own clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Since the host's boot, with the time in which it slept, in milliseconds.
    pub boot_ms: u64,
    /// Its wall clock, milliseconds since 1970, for people.
    pub wall_ms: u64,
}

/// One record of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The node.
    pub node: NodeId,
    /// The chain: an agent begins one with an empty data folder, and a later one has a higher number.
    pub chain: u64,
    /// Its place in the chain, from 1.
    pub seq: u64,
    /// The hash of the record before it; empty for the first.
    pub prev: String,
    /// The boot in which it was written.
    pub boot: BootId,
    /// When it was written.
    pub at: Moment,
    /// What it says.
    pub fact: Fact,
    /// The hash of everything else in it.
    #[serde(default)]
    pub hash: String,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A run of the agent began.
    Opened {
        /// Its fleet.
        fleet: FleetId,
        /// The run.
        incarnation: Incarnation,
        /// Whether the end of the file was torn: the record that was being written then is lost.
        torn: bool,
    },
    /// The app may be executed from now on. Written before anything can run.
    Launching(Launching),
    /// That launch came to nothing, and never will.
    Unlaunched {
        /// Which.
        launch: Launch,
    },
    /// A process tree of the app runs.
    Began(Run),
    /// It has ended, and nothing of it is left.
    Ended(Ended),
    /// The assignment says stop, nothing of the app runs, and the coordinators are about to be told.
    Resting {
        /// Generation of that assignment.
        generation: Generation,
    },
    /// What was looked at while an operation was alone.
    Watched(Box<Watch>),
}

/// A launch that was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launching {
    /// Its number.
    pub launch: Launch,
    /// Generation of the assignment that asks for it.
    pub generation: Generation,
    /// The lock under which that was made.
    pub token: Option<Token>,
}

/// A process tree of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The launch, where it is known.
    pub launch: Option<Launch>,
    /// Generation of the assignment under which it was launched, where it is known.
    pub generation: Option<Generation>,
    /// The lock under which that was made.
    pub token: Option<Token>,
    /// Its main process; 0 where only descendants are left.
    pub pid: u32,
    /// Start time of the main process in clock ticks since boot.
    pub start_ticks: u64,
    /// When it began, in milliseconds since boot.
    pub began_ms: u64,
}

/// The end of a process tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The launch, where it is known.
    pub launch: Option<Launch>,
    /// Its main process.
    pub pid: u32,
    /// The boot in which it ran.
    pub boot: BootId,
    /// It still ran then, in milliseconds since that boot.
    pub not_before_ms: u64,
    /// Nothing of it was left then; `None` if it ended with its boot.
    pub not_after_ms: Option<u64>,
    /// What shows it.
    pub known_by: KnownBy,
}

/// What shows the end of a process tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// Its keeper's record, and the process table after it.
    Keeper,
    /// The process table.
    ProcessTable,
    /// The host has booted since.
    Boot,
}

/// A series of looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Series {
    /// How many.
    pub count: u32,
    /// The first, in milliseconds since boot.
    pub first_ms: u64,
    /// The last.
    pub last_ms: u64,
    /// The longest time between two of them, in milliseconds.
    pub gap_ms: u64,
}

/// From the first look that saw something to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first, in milliseconds since boot.
    pub first_ms: u64,
    /// The last.
    pub last_ms: u64,
    /// The most at one look.
    pub most: u32,
}

/// How it is told whose a database session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// By the name that each gives itself: an agent sees the sessions of every node that signs in as its own does.
    #[default]
    Application,
    /// Sessions have no names: an agent sees those of its own node's login, and they are its node's if no other has that login.
    Login,
}

/// Database sessions at one look, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sessions {
    /// Whose sessions can be seen.
    pub login: String,
    /// How it is told whose they are.
    pub naming: Naming,
    /// How many there are, by name.
    pub names: BTreeMap<String, u32>,
}

/// What an agent looked at for some seconds of an exclusive part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The operation.
    pub operation: OperationId,
    /// Its token.
    pub token: Token,
    /// Log index of the grant.
    pub grant: u64,
    /// Looks at the process table.
    pub looks: Series,
    /// Processes of the app that no agent started.
    pub foreign: Vec<(Foreign, Span)>,
    /// Looks at the database's sessions.
    pub samples: Series,
    /// From one of them to the next, as intended, in milliseconds.
    pub every_ms: u64,
    /// The login whose sessions can be seen.
    pub login: String,
    /// How it is told whose they are.
    pub naming: Naming,
    /// Sessions by name.
    pub sessions: BTreeMap<String, Span>,
    /// Why a look at the sessions came to nothing, for people.
    pub unsampled: Option<String>,
    /// How far the coordinators' clock is from the time since boot.
    pub clock: Option<Reading>,
}

/// A place in the coordinators' log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Log index.
    pub index: u64,
    /// The leader's wall clock there, milliseconds since 1970.
    pub wall_ms: u64,
}

/// How a node stood when an operation became alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stood {
    /// It is the one that may run.
    Solo,
    /// Its agent had acknowledged the stop of this generation.
    Stopped(Generation),
    /// A person's word, and whose.
    Assumed(String),
    /// It was fenced, and by whom.
    Fenced(String),
    /// Nothing of that.
    Unproven,
}

/// One exclusive part of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Where it began.
    pub granted: Mark,
    /// Where it ended; `None` while it lasts.
    pub until: Option<Mark>,
    /// The fleet's nodes.
    pub nodes: BTreeMap<NodeId, Stood>,
}

/// What the coordinators know of an operation's exclusive parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// The fleet.
    pub fleet: FleetId,
    /// The operation.
    pub operation: OperationId,
    /// What it was asked to do, in words.
    pub request: String,
    /// The token of its lock.
    pub token: Token,
    /// The node that may run in it, if any.
    pub solo: Option<NodeId>,
    /// Whether somebody outside works under it: then there are sessions that no node explains.
    pub holder: bool,
    /// Its exclusive parts.
    pub grants: Vec<Grant>,
}

/// How the sessions of a node's app are named.
#[must_use]
pub fn session_name(node: &NodeId) -> String {
    format!("{APP_PREFIX}{node}").chars().take(NAME_MAX).collect()
}
