//! What a node must be (assignment) and what its agent saw (report).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::fence::{FenceOffer, FenceOrder, FenceSeen};
use crate::ids::{BootId, Generation, NodeId, OperationId, Right, Token, Version};
use crate::time::Millis;
use crate::traffic::{ServerSeen, TrafficSpec};

/// How the app runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunMode {
    /// Never installs or upgrades; in as many processes as the app's settings say.
    Plain,
    /// The same in one process, whatever the settings say.
    Single,
    /// May install or upgrade the database, once, by this right; in one process.
    Migrate(Right),
}

/// Whether and how a node's app is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// Nothing of the app may run.
    #[default]
    Stop,
    /// The app runs and is kept running; it never installs or upgrades.
    Plain,
    /// The same in one process, where the app's settings ask for several.
    Single,
    /// The app runs with the right to install or upgrade; once used, it is never restarted by itself.
    Migrate(Right),
}

impl Run {
    /// Whether the app runs without the right to install or upgrade.
    pub fn plainly(self) -> bool {
        matches!(self, Run::Plain | Run::Single)
    }

    /// The run mode, if anything runs at all.
    pub fn mode(self) -> Option<RunMode> {
        match self {
            Run::Stop => None,
            Run::Plain => Some(RunMode::Plain),
            Run::Single => Some(RunMode::Single),
            Run::Migrate(right) => Some(RunMode::Migrate(right)),
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Run::Stop => f.write_str("stop"),
            Run::Plain => f.write_str("plain"),
            Run::Single => f.write_str("plain, as one process"),
            Run::Migrate(right) => write!(f, "migrate (right {right})"),
        }
    }
}

/// One attempt of a task step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    /// The operation.
    pub operation: OperationId,
    /// Position of the step in the operation's plan.
    pub step: u32,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

/// What to do with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskPhase {
    /// Look whether it could be done, without changing anything that the app or its database would notice.
    Check,
    /// Do it.
    Run,
}

/// What the node's app must be like while a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// It serves: the task works inside it.
    #[default]
    Serving,
    /// Nothing of it runs, and the assignment says `Stop`: the task changes what it runs on.
    Stopped,
    /// It does not matter.
    Nothing,
}

/// A named command that an agent runs for a step. The agent's own configuration says what the name means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Task {
    /// Which attempt of which step.
    pub key: TaskKey,
    /// Check or run.
    pub phase: TaskPhase,
    /// When it may run. A check changes nothing and may run at any time, unless it is about a serving app.
    #[serde(default)]
    pub needs: Needs,
    /// Name of the task, for example `plugin-enable`.
    pub name: String,
    /// Parameters by name; the agent validates them.
    pub params: BTreeMap<String, String>,
    /// What a verification looks at.
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// Most differences that a node tells of what it has loaded.
pub const STALE_MAX: usize = 8;
/// Most entries of a task's output.
pub const OUTPUT_MAX: usize = 16;
/// Longest name or value in a task's output, in characters.
pub const OUTPUT_TEXT_MAX: usize = 512;

/// The end of a task attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskResult {
    /// The check passed or the work is done.
    Done,
    /// It was refused or failed, with the reason for people; nothing of it is still under way.
    Failed(String),
    /// The agent died in the middle; the work is not done and nothing of it is still under way.
    Interrupted,
}

/// A request to prove what the app has loaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Proof {
    /// The plugin's package name.
    pub plugin: String,
    /// Whether it should be loaded.
    pub loaded: bool,
    /// Only an app process launched at or after this generation counts; `None` where the change itself was made
    /// inside the running process.
    pub since: Option<Generation>,
}

/// Everything that an agent must make true.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Spec {
    /// Whether and how the app runs.
    pub run: Run,
    /// A task to check or run.
    #[serde(default)]
    pub task: Option<Task>,
    /// A proof to bring.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// With the right to migrate: the version to which the database is upgraded; none for an install.
    #[serde(default)]
    pub target: Option<Version>,
    /// Whether no traffic may be sent to the node, although it serves.
    #[serde(default)]
    pub hold: bool,
    /// Time between SIGTERM and SIGKILL, where the fleet says something about it.
    #[serde(default)]
    pub grace: Option<Millis>,
    /// Whether the agent is to look, again and again, what is under way inside the app: it is to be stopped next.
    #[serde(default)]
    pub quiet: bool,
    /// What a load balancer does with the fleet's nodes; for its agent only.
    #[serde(default)]
    pub traffic: Option<TrafficSpec>,
    /// The fences around other nodes that it carries out.
    #[serde(default)]
    pub fences: Vec<FenceOrder>,
}

/// A numbered spec. Agents refuse a lower generation than the one they have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Log index at which it was made.
    pub generation: Generation,
    /// The lock under which it was made, if any.
    pub token: Option<Token>,
    /// What to make true.
    pub spec: Spec,
}

/// What the agent last saw of its app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// Nothing of the app runs: no process carries the node's marker, and no keeper may still start one.
    #[default]
    Stopped,
    /// The agent will not start it, with the reason for people; nothing runs.
    Refused(String),
    /// It was started and does not serve yet.
    Starting,
    /// It serves.
    Serving,
    /// It runs and says that it failed, with its own message.
    Failed(String),
    /// It is being stopped.
    Stopping,
    /// It ended by itself, with its exit status in words; nothing runs.
    Crashed(String),
}

impl AppState {
    /// Whether a process of the app may be alive.
    pub fn may_run(&self) -> bool {
        match self {
            AppState::Starting | AppState::Serving | AppState::Failed(_) | AppState::Stopping => true,
            AppState::Stopped | AppState::Refused(_) | AppState::Crashed(_) => false,
        }
    }
}

/// A process that runs the fleet's app and that no agent of the fleet started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Foreign {
    /// Process id.
    pub pid: u32,
    /// User that owns it.
    pub owner: String,
    /// Its command line, shortened.
    pub command: String,
}

/// A session in the app's database that belongs to no node of the fleet: perhaps an app that somebody started on a host
/// without an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DbSession {
    /// Process id of the session at the database server.
    pub pid: u32,
    /// Role that it signed in as.
    pub role: String,
    /// Where it comes from: an address, or `local`.
    pub client: String,
    /// The name that the client gave itself; often empty.
    pub application: String,
}

impl std::fmt::Display for DbSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "database session {} of role {} from {}", self.pid, self.role, self.client)?;
        if self.application.is_empty() { Ok(()) } else { write!(f, " ({})", self.application) }
    }
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} of {}: {}", self.pid, self.owner, self.command)
    }
}

/// What a node's database looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct DatabaseFacts {
    /// Identity of the database, for example the server's system identifier and the database's name.
    pub identity: String,
    /// Version that is written in it; `None` when nothing is installed.
    pub version: Option<Version>,
    /// Whether it holds no table at all.
    pub empty: bool,
}

/// What decisions read of a node. An agent reports it whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Observed {
    /// Generation of the assignment that this state acknowledges.
    pub applied: Generation,
    /// The boot in which this was seen.
    pub boot: BootId,
    /// The app.
    pub app: AppState,
    /// Generation under which the running app process was launched.
    #[serde(default)]
    pub launched: Option<Generation>,
    /// In how many processes the app runs when it runs plainly; `None` while that is not known.
    #[serde(default)]
    pub processes: Option<u32>,
    /// Version of the code on the node's disk.
    #[serde(default)]
    pub code: Option<Version>,
    /// The database, as last read.
    #[serde(default)]
    pub database: Option<DatabaseFacts>,
    /// Foreign processes.
    #[serde(default)]
    pub foreign: Vec<Foreign>,
    /// Sessions in the database that belong to no node, when it was last read.
    #[serde(default)]
    pub sessions: Vec<DbSession>,
    /// Tokens of external holders whose processes run on this host.
    #[serde(default)]
    pub holders: Vec<Token>,
    /// The task that was begun or ended last.
    #[serde(default)]
    pub task: Option<(TaskKey, TaskPhase, TaskResult)>,
    /// What the task of [`Observed::task`] found or made, by name; at most [`OUTPUT_MAX`] entries.
    #[serde(default)]
    pub output: BTreeMap<String, String>,
    /// The proof that was brought last.
    #[serde(default)]
    pub proved: Option<Proof>,
    /// Why the proof that is asked for cannot be brought yet, for people.
    #[serde(default)]
    pub unproved: Option<String>,
    /// Whether whoever asks `/ready` was told that nobody is to be sent here, and nothing is under way any more.
    #[serde(default)]
    pub away: bool,
    /// In what the plugins that the serving app has loaded differ from those that the database and the disk have now, for
    /// people; at most [`STALE_MAX`] entries.
    #[serde(default)]
    pub stale: Vec<String>,
    /// What a load balancer does with the fleet's nodes, under the assignment that is acknowledged.
    #[serde(default)]
    pub servers: BTreeMap<NodeId, ServerSeen>,
    /// What is known to be under way inside the app, in words; `None` while nobody asks, and until it is known. At most
    /// [`WORK_MAX`](crate::quiet::WORK_MAX) entries.
    #[serde(default)]
    pub under_way: Option<Vec<String>>,
    /// What was under way when the app was stopped last and did not end by itself; until the app is launched again.
    #[serde(default)]
    pub cut: Vec<String>,
    /// What somebody on the host does with the app by hand, for people.
    #[serde(default)]
    pub by_hand: Option<String>,
    /// Why the load balancer cannot be steered, or why users are let in whatever is said, for people.
    #[serde(default)]
    pub unsteered: Option<String>,
    /// The fences that it can put up around other nodes; at most [`FENCES_MAX`](crate::fence::FENCES_MAX).
    #[serde(default)]
    pub fences: Vec<FenceOffer>,
    /// How far it is with those that it was told to put up or to lift.
    #[serde(default)]
    pub fenced: Vec<FenceSeen>,
}
