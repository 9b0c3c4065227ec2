//! What an agent sees of its host.

use std::collections::BTreeMap;

use crate::agent::hand::ByHand;
use crate::assignment::{DatabaseFacts, DbSession, Foreign, Proof, Task, TaskKey, TaskPhase, TaskResult};
use crate::fence::Fences;
use crate::ids::{BootId, Generation, Token, Version};

/// How the running app feels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does not serve yet.
    Starting,
    /// It serves: healthy, its database answers, and it runs the wanted code.
    Serving,
    /// It says that it failed, and has said so for a while.
    Failed(String),
}

/// The app's processes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AppSeen {
    /// No process carries the node's marker, and no keeper is about to start one.
    #[default]
    Gone,
    /// The same, after it ended by itself, with its exit status in words.
    Ended(String),
    /// A keeper is about to start it.
    Launching,
    /// It runs.
    Running {
        /// Generation under which it was launched, as its keeper noted.
        launched: Option<Generation>,
        /// How it feels.
        health: Health,
    },
    /// It is being stopped.
    Stopping,
}

/// What was read of the node's code, storage and database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Version of the code on disk.
    pub code: Option<Version>,
    /// In how many processes the app runs when it is started plainly; `None` if its settings cannot be read.
    pub processes: Option<u32>,
    /// The database; `None` if it does not answer.
    pub database: Option<DatabaseFacts>,
    /// Sessions in the database that belong to no node of the fleet.
    pub sessions: Vec<DbSession>,
    /// Whether NocoBase's `.upgrading` marker lies on the storage.
    pub upgrading: bool,
    /// Why the app cannot be started at all, for people.
    pub problem: Option<String>,
}

/// Everything that the agent's decisions read besides its ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The host's boot.
    pub boot: BootId,
    /// The app.
    pub app: AppSeen,
    /// Facts that were read since the current assignment was accepted; `None` until then.
    pub facts: Option<Facts>,
    /// Processes of the app that no agent started.
    pub foreign: Vec<Foreign>,
    /// Tokens of external holders whose processes run on this host.
    pub holders: Vec<Token>,
    /// The task that is being checked or run at this moment.
    pub busy: Option<Task>,
    /// The last check.
    pub checked: Option<Checked>,
    /// The last proof that was brought.
    pub proved: Option<Proof>,
    /// Why the wanted proof could not be brought at the last try.
    pub unproved: Option<String>,
    /// Whether the coordinators can be asked: this run of the agent is registered with one that has a leader.
    pub registered: bool,
    /// What somebody on the host does with the app by hand.
    pub by_hand: Option<ByHand>,
    /// Why users are let in by hand, for people, while they are.
    pub let_in: Option<String>,
    /// In what the loaded plugins differ from those that should be, for people.
    pub stale: Vec<String>,
    /// Whether whoever asks `/ready` was told that nobody is to be sent here, and what was under way has had time to end.
    pub away: bool,
    /// What is known to be under way inside the app; `None` until it was looked for since the agent was asked.
    pub under_way: Option<Vec<String>>,
    /// The fences around other nodes that it has to do with.
    pub fences: Fences,
    /// Whether an app that ended by itself may be started again now: its pause is over and its tries are not used up.
    pub may_restart: bool,
}

/// A check that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Of which attempt of which step.
    pub key: TaskKey,
    /// Its result.
    pub result: TaskResult,
    /// What it found, by name.
    pub output: BTreeMap<String, String>,
}

impl Seen {
    /// Whether nothing of the app runs or is about to.
    pub fn gone(&self) -> bool {
        match self.app {
            AppSeen::Gone | AppSeen::Ended(_) => true,
            AppSeen::Launching | AppSeen::Running { .. } | AppSeen::Stopping => false,
        }
    }

    /// Whether the app serves.
    pub fn serving(&self) -> bool {
        matches!(self.app, AppSeen::Running { health: Health::Serving, .. })
    }

    /// Whether the app runs and says that it failed.
    pub fn failed(&self) -> bool {
        matches!(self.app, AppSeen::Running { health: Health::Failed(_), .. })
    }

    /// Whether this task is being checked or run.
    pub fn busy_with(&self, key: &TaskKey, phase: TaskPhase) -> bool {
        self.busy.as_ref().is_some_and(|task| task.key == *key && task.phase == phase)
    }
}
