//! What an agent must remember over its own death: written and synced before it acts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assignment::{Assignment, RunMode, TaskKey, TaskResult};
use crate::ids::{BootId, Generation, Incarnation, Launch, Right};
use crate::rule::Rule;

/// Most unconfirmed incarnations that a lineage keeps: one per start of the agent since a coordinator last
/// confirmed one. The confirmed one is never dropped.
pub const LINEAGE_MAX: usize = 64;

/// An agent's memory on disk.
///
/// Every field is written before the act that it describes: a launch before its keeper starts, a right as spent
/// before the app that uses it, a task before its first effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Ledger {
    /// Incarnations that may have registered: the last confirmed one first, then those tried since.
    #[serde(default)]
    pub lineage: Vec<Incarnation>,
    /// No assignment below this generation is accepted: the log index of the last registration.
    #[serde(default)]
    pub floor: Generation,
    /// Log index of this ledger's first registration; zero before it. Rights given before it count as used: an earlier
    /// ledger of this node may have used them.
    #[serde(default)]
    pub born: Generation,
    /// The last accepted assignment.
    #[serde(default)]
    pub assignment: Option<Assignment>,
    /// The boot in which that assignment was accepted. After a reboot the agent asks first.
    #[serde(default)]
    pub boot: BootId,
    /// The launch that a keeper may execute or has executed; `None` once the app is to be stopped.
    #[serde(default)]
    pub launch: Option<LaunchTicket>,
    /// The highest right to migrate that this node has used.
    #[serde(default)]
    pub spent: Option<Right>,
    /// The task that was begun last, and its result once it is known.
    #[serde(default)]
    pub task: Option<TaskRecord>,
    /// What the last stop cut off inside the app; until the next launch.
    #[serde(default)]
    pub cut: Vec<String>,
}

/// Permission for one keeper to execute the app once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTicket {
    /// The launch's own number.
    pub launch: Launch,
    /// How the app is to run.
    pub mode: RunMode,
    /// The boot in which the ticket is good.
    pub boot: BootId,
    /// In how many processes the app's settings ask it to run plainly, as they were then.
    #[serde(default)]
    pub processes: Option<u32>,
}

/// A task that was begun on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Which attempt of which step of which operation.
    pub key: TaskKey,
    /// Its result; `None` while it runs, or when the agent died in the middle.
    pub result: Option<TaskResult>,
    /// What it found or made, by name.
    #[serde(default)]
    pub output: BTreeMap<String, String>,
}

impl Ledger {
    /// Whether no registration of this ledger was confirmed yet.
    pub fn fresh(&self) -> bool {
        self.born == Generation(0)
    }

    /// The ledger of a new run of the agent, to be written before that run registers.
    pub fn begin_run(&self, incarnation: Incarnation) -> Ledger {
        let mut next = self.clone();
        next.lineage.push(incarnation);
        if next.lineage.len() > LINEAGE_MAX {
            next.lineage.remove(1);
        }
        next
    }

    /// The ledger after a registration was confirmed: nothing below `floor` counts any more.
    pub fn confirmed(&self, incarnation: Incarnation, floor: Generation) -> Ledger {
        let mut next = self.clone();
        next.lineage = vec![incarnation];
        next.floor = next.floor.max(floor);
        if self.fresh() {
            next.born = floor;
        }
        next
    }

    /// Whether the right counts as used.
    pub fn is_spent(&self, right: Right) -> bool {
        Rule::MigrateIsSpent.holds()
            && (self.spent.is_some_and(|spent| spent >= right) || self.born.0 >= right.0)
    }

    /// The ledger before a launch: its ticket is written, and a right it uses is spent, before anything runs.
    pub fn with_launch(
        &self,
        launch: Launch,
        mode: RunMode,
        boot: &BootId,
        processes: Option<u32>,
    ) -> Ledger {
        let mut next = self.clone();
        next.launch = Some(LaunchTicket { launch, mode, boot: boot.clone(), processes });
        next.cut.clear();
        if let RunMode::Migrate(right) = mode {
            next.spent = next.spent.max(Some(right));
        }
        next
    }

    /// The ledger before a stop: no keeper may execute the app any more.
    pub fn without_launch(&self) -> Ledger {
        Ledger { launch: None, ..self.clone() }
    }

    /// The ledger after a stop, with what it cut off.
    pub fn with_cut(&self, cut: Vec<String>) -> Ledger {
        Ledger { cut, ..self.clone() }
    }

    /// The ledger before a task's first effect.
    pub fn with_task(&self, key: TaskKey) -> Ledger {
        Ledger { task: Some(TaskRecord { key, result: None, output: BTreeMap::new() }), ..self.clone() }
    }

    /// The ledger after a task's end, with what it found or made.
    pub fn with_result(&self, key: TaskKey, result: TaskResult, output: BTreeMap<String, String>) -> Ledger {
        Ledger { task: Some(TaskRecord { key, result: Some(result), output }), ..self.clone() }
    }

    /// Whether a keeper that was started for `launch` in boot `boot` may execute the app now.
    ///
    /// The keeper asks under the node's exec lock, after reading the ledger anew: a stop that came in between has
    /// taken the ticket away under the same lock, so a keeper that was slow to start cannot run the app later.
    pub fn may_exec(&self, launch: Launch, boot: &BootId) -> bool {
        self.launch.as_ref().is_some_and(|ticket| ticket.launch == launch && ticket.boot == *boot)
    }
}
