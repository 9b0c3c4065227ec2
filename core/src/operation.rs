//! Operations: whole maintenance jobs, as plans of steps.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::assignment::Needs;
use crate::ids::{BackupId, Generation, NodeId, OperationId, Right, Token};
use crate::time::Time;

/// Which nodes run while an external holder works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldMode {
    /// Exactly the solo node.
    Solo,
    /// None.
    AllStopped,
}

/// A change of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginChange {
    /// Enable it.
    Enable,
    /// Disable it.
    Disable,
}

impl PluginChange {
    /// Name of the agent's task that does it.
    pub fn task(self) -> &'static str {
        match self {
            PluginChange::Enable => "plugin-enable",
            PluginChange::Disable => "plugin-disable",
        }
    }

    /// Whether the plugin is to be loaded afterwards.
    pub fn loaded(self) -> bool {
        match self {
            PluginChange::Enable => true,
            PluginChange::Disable => false,
        }
    }
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Start what should run.
    Start {
        /// Install an empty database first.
        install: bool,
        /// The fleet's complete list of nodes as the client knows it; must match if given.
        nodes: Option<Vec<NodeId>>,
    },
    /// Stop all nodes.
    Stop,
    /// Let an external holder work while one node or none runs.
    Hold {
        /// What may run meanwhile.
        mode: HoldMode,
        /// The solo node, or the node that starts first afterwards.
        on: Option<NodeId>,
    },
    /// Change a plugin on one node, then on all.
    Plugin {
        /// What to do.
        change: PluginChange,
        /// The plugin's package name.
        plugin: String,
        /// The node on which to do it.
        on: Option<NodeId>,
    },
    /// Back the fleet up on one node, while only that one runs.
    Backup {
        /// The node.
        on: Option<NodeId>,
    },
    /// Bring the fleet back to a backup: with everything stopped, on the node that has it.
    Restore {
        /// The backup.
        backup: BackupId,
    },
    /// Delete a backup. Nothing is stopped for it.
    RemoveBackup {
        /// The backup.
        backup: BackupId,
    },
    /// A person has made sure that the database is whole, although a restore has not ended.
    AcceptDatabase,
}

impl Request {
    /// Whether it would run the app on the database as it is, so that a half-restored one must not be there.
    pub fn needs_whole_database(&self) -> bool {
        match self {
            Request::Start { .. }
            | Request::Plugin { .. }
            | Request::Backup { .. }
            | Request::Hold { mode: HoldMode::Solo, .. } => true,
            Request::Stop
            | Request::Restore { .. }
            | Request::RemoveBackup { .. }
            | Request::AcceptDatabase
            | Request::Hold { mode: HoldMode::AllStopped, .. } => false,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Start { install: true, .. } => f.write_str("start --install"),
            Request::Start { install: false, .. } => f.write_str("start"),
            Request::Stop => f.write_str("stop"),
            Request::Hold { mode: HoldMode::Solo, .. } => f.write_str("run --solo"),
            Request::Hold { mode: HoldMode::AllStopped, .. } => f.write_str("run --all-stopped"),
            Request::Plugin { change: PluginChange::Enable, plugin, .. } => {
                write!(f, "plugin enable {plugin}")
            }
            Request::Plugin { change: PluginChange::Disable, plugin, .. } => {
                write!(f, "plugin disable {plugin}")
            }
            Request::Backup { .. } => f.write_str("backup"),
            Request::Restore { backup } => write!(f, "restore {backup}"),
            Request::RemoveBackup { backup } => write!(f, "backup remove {backup}"),
            Request::AcceptDatabase => f.write_str("restore --accept-database"),
        }
    }
}

/// How the nodes of a [`Step::Serving`] are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bring {
    /// Plainly.
    Plain,
    /// With the right to install.
    Migrate,
}

/// A condition together with the way to bring it about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Every node acknowledged an assignment that this operation made, or is known to be stopped. With `absent_ok`,
    /// nodes that do not answer in time are left out instead.
    Reachable {
        /// The nodes.
        nodes: Vec<NodeId>,
        /// Whether absent nodes are left out.
        absent_ok: bool,
    },
    /// The node's agent looked at the task and would do it.
    Checked {
        /// The node.
        node: NodeId,
        /// The task.
        task: TaskCall,
    },
    /// The node's database holds no table.
    Empty {
        /// The node.
        node: NodeId,
    },
    /// The nodes are stopped, by evidence. A standing condition.
    Stopped {
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Everything that an exclusive step needs is true at this moment.
    Granted,
    /// The external holder has released.
    Released,
    /// The task is done.
    Task {
        /// The node that runs it.
        node: NodeId,
        /// The task.
        task: TaskCall,
    },
    /// The nodes serve.
    Serving {
        /// The nodes.
        nodes: Vec<NodeId>,
        /// How they are started.
        bring: Bring,
    },
    /// The node serves and its right to migrate was turned into a plain run.
    Converted {
        /// The node.
        node: NodeId,
    },
    /// The nodes proved what they have loaded.
    Proved {
        /// The nodes.
        nodes: Vec<NodeId>,
        /// The plugin's package name.
        plugin: String,
        /// Whether it should be loaded.
        loaded: bool,
        /// Whether only a process that was launched after the change counts.
        restarted: bool,
    },
    /// No process of the lost holder is known to run any more.
    HolderGone,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &[NodeId]| nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Step::Reachable { nodes, .. } => write!(f, "reach {}", list(nodes)),
            Step::Checked { node, task } => write!(f, "check {} on {node}", task.name),
            Step::Empty { node } => write!(f, "find the database of {node} empty"),
            Step::Stopped { nodes } => write!(f, "stop {}", list(nodes)),
            Step::Granted => f.write_str("grant"),
            Step::Released => f.write_str("wait for the holder's work"),
            Step::Task { node, task } => write!(f, "{} on {node}", task.name),
            Step::Serving { nodes, bring: Bring::Plain } => write!(f, "start {}", list(nodes)),
            Step::Serving { nodes, bring: Bring::Migrate } => {
                write!(f, "start {} with the right to install", list(nodes))
            }
            Step::Converted { node } => write!(f, "turn the right of {node} into a plain run"),
            Step::Proved { nodes, plugin, loaded: true, .. } => {
                write!(f, "prove {plugin} loaded on {}", list(nodes))
            }
            Step::Proved { nodes, plugin, loaded: false, .. } => {
                write!(f, "prove {plugin} not loaded on {}", list(nodes))
            }
            Step::HolderGone => f.write_str("see the holder's processes gone"),
        }
    }
}

/// A task by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCall {
    /// Its name.
    pub name: String,
    /// When it may run.
    #[serde(default)]
    pub needs: Needs,
    /// Its parameters.
    pub params: BTreeMap<String, String>,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for the lock.
    Queued,
    /// It has reached the head of the queue; its client must confirm by then.
    Confirming(Time),
    /// It has the lock and goes on by itself.
    Running,
    /// It has the lock and waits for something that does not come by itself.
    Blocked(Blocked),
    /// It is being ended early; it keeps the lock until that is safe.
    Aborting,
    /// Done.
    Succeeded,
    /// Ended early, with the reason.
    Aborted(String),
}

impl Status {
    /// Whether it is over.
    pub fn ended(&self) -> bool {
        match self {
            Status::Succeeded | Status::Aborted(_) => true,
            Status::Queued
            | Status::Confirming(_)
            | Status::Running
            | Status::Blocked(_)
            | Status::Aborting => false,
        }
    }

    /// One word for lists.
    pub fn word(&self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Confirming(_) => "confirming",
            Status::Running => "running",
            Status::Blocked(_) => "blocked",
            Status::Aborting => "aborting",
            Status::Succeeded => "succeeded",
            Status::Aborted(_) => "aborted",
        }
    }
}

/// Why an operation is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocked {
    /// These nodes do not answer.
    Unreachable(Vec<NodeId>),
    /// A node that must be stopped is not, or a foreign process runs.
    Breach(NodeId, String),
    /// The node's agent refuses to start the app.
    Refused(NodeId, String),
    /// The app says that it failed.
    Failed(NodeId, String),
    /// The app ended by itself.
    Crashed(NodeId, String),
    /// The task failed.
    TaskFailed(NodeId, String),
    /// The external holder did not renew its lease.
    HolderLost,
    /// The step takes longer than it may.
    Overdue,
}

impl Blocked {
    /// One word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Blocked::Unreachable(_) => "unreachable",
            Blocked::Breach(..) => "breach",
            Blocked::Refused(..) => "refused",
            Blocked::Failed(..) => "failed",
            Blocked::Crashed(..) => "crashed",
            Blocked::TaskFailed(..) => "task_failed",
            Blocked::HolderLost => "holder_lost",
            Blocked::Overdue => "overdue",
        }
    }

    /// Whether the operation goes on without a person when the cause is gone.
    pub fn passes(word: &str) -> bool {
        ["unreachable", "breach", "refused"].contains(&word)
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocked::Unreachable(nodes) => {
                let names = nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
                write!(f, "no contact with {names}")
            }
            Blocked::Breach(node, what) => write!(f, "{node}: {what}"),
            Blocked::Refused(node, why) => write!(f, "{node} will not start: {why}"),
            Blocked::Failed(node, why) => write!(f, "the app on {node} failed: {why}"),
            Blocked::Crashed(node, how) => write!(f, "the app on {node} ended by itself: {how}"),
            Blocked::TaskFailed(node, why) => write!(f, "the task on {node} failed: {why}"),
            Blocked::HolderLost => f.write_str("the holder stopped renewing its lease"),
            Blocked::Overdue => f.write_str("the step takes longer than it may"),
        }
    }
}

/// The external holder of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Whether the grant was accepted.
    pub accepted: bool,
    /// When the lease, or the time to accept, ends.
    pub deadline: Time,
    /// Whether the lease was lost.
    pub lost: bool,
    /// How the work ended, once released.
    pub released: Option<String>,
    /// When the work was proven to have ended, after the lease was lost.
    pub ended: Option<Time>,
    /// Whether an agent has seen the holder's processes on its host.
    pub seen: bool,
}

/// How the plan that an operation follows came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// The plan that was asked for.
    Forward,
    /// What was stopped is started again.
    Restore,
    /// What does not serve is stopped and left out.
    Settle,
}

/// A record of one finished step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, in words.
    pub step: String,
    /// When it began.
    pub began: Time,
    /// When its condition became true.
    pub ended: Time,
    /// How many attempts it took.
    pub attempts: u32,
}

/// A whole maintenance job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The client's name for it.
    pub id: OperationId,
    /// What was asked for.
    pub request: Request,
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was asked for.
    pub submitted: Time,
    /// The same by the wall clock, milliseconds since 1970.
    pub submitted_wall_ms: u64,
    /// The node on the client's own machine, if there is exactly one.
    pub host_node: Option<NodeId>,
    /// Machine of the client.
    pub machine: crate::ids::MachineId,
    /// When the client stops waiting for its grant.
    pub grant_by: Option<Time>,
    /// Whether it had to wait for another operation.
    pub waited: bool,
    /// Where it stands.
    pub status: Status,
    /// The lock's token, once it has the lock.
    pub token: Option<Token>,
    /// Log index at which it took the lock; what its first assignments are numbered with.
    pub began: Option<Generation>,
    /// The solo node, or the node that starts first.
    pub solo: Option<NodeId>,
    /// The plan. Fixed when the operation leaves the queue; an abort keeps what was done and adds what ends it.
    pub plan: Vec<Step>,
    /// How the rest of the plan came about.
    pub course: Course,
    /// Position of the current step.
    pub cursor: u32,
    /// Number of the current attempt, from 1.
    pub attempt: u32,
    /// When the current attempt began.
    pub since: Time,
    /// When the exclusive part was granted.
    pub granted: Option<Time>,
    /// When the exclusive part ended.
    pub exclusive_until: Option<Time>,
    /// Log index after which an app process counts as started after the change.
    pub changed: Option<Generation>,
    /// The right to migrate that it gave last.
    pub right: Option<Right>,
    /// Nodes that must be proven stopped before the next attempt begins.
    pub clearing: Vec<NodeId>,
    /// Nodes that the step waits for and that are out of contact.
    pub absent: Vec<NodeId>,
    /// Whether the current attempt has taken longer than it may.
    pub overdue: bool,
    /// Why it is being ended early.
    pub aborting: Option<String>,
    /// Whether it is ended because its grant did not come in time.
    #[serde(default)]
    pub late: bool,
    /// The external holder.
    pub holder: Option<Holder>,
    /// The breach that was recorded last.
    pub breached: Option<(NodeId, String)>,
    /// Nodes that were left out, with the reason.
    pub left_out: BTreeMap<NodeId, String>,
    /// Finished steps.
    pub records: Vec<StepRecord>,
    /// When it ended.
    pub ended: Option<Time>,
}

impl Operation {
    /// The current step; `None` past the end of the plan.
    pub fn step(&self) -> Option<&Step> {
        self.plan.get(usize::try_from(self.cursor).unwrap_or(usize::MAX))
    }

    /// Whether the exclusive part has begun and has not ended.
    pub fn exclusive(&self) -> bool {
        self.granted.is_some() && self.exclusive_until.is_none()
    }
}
