//! Timeouts and bounds.

use serde::{Deserialize, Serialize};

use crate::check::{CHECKS_MAX, Check};
use crate::ids::NodeId;
use crate::time::Millis;

/// A fleet's timeouts. All lengths are in milliseconds of the state's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// An agent that was not heard for this long counts as out of contact.
    pub contact_timeout: Millis,
    /// How long an operation may take, once it has the lock, to bring about what its exclusive part needs.
    pub pre_grant_timeout: Millis,
    /// How long a client whose operation reached the head of the queue has to confirm that it still wants it.
    pub confirm_timeout: Millis,
    /// How long an external holder has to accept its grant.
    pub accept_timeout: Millis,
    /// Length of an external holder's lease.
    pub lease: Millis,
    /// How long after the proven end of a lost holder's work the fleet is restored by itself.
    pub restore_after: Millis,
    /// How long a start waits for nodes that have not been heard yet.
    pub gather_timeout: Millis,
    /// How long a node may take to serve.
    pub start_timeout: Millis,
    /// How long a node may take to stop.
    pub stop_timeout: Millis,
    /// How long a task may take.
    pub task_timeout: Millis,
    /// How long a task may take that copies data: a backup or a restore.
    pub backup_timeout: Millis,
    /// How many backups are kept; older ones are removed once a newer one was made and checked.
    pub keep_backups: u32,
    /// How users reach the fleet.
    pub traffic: Traffic,
    /// How long requests and connections to a node that is taken out of service may go on before they are cut.
    pub drain_timeout: Millis,
    /// Whether nodes whose app has not loaded what it should are restarted without being asked for.
    pub heal: Heal,
    /// Who fences a node that an operation waits for in vain.
    pub fence: Fencing,
    /// How long such a node must have been out of contact before the fleet fences it by itself.
    pub fence_after: Millis,
    /// How long workflows and tasks inside a node's app may go on before it is stopped all the same; 0 does not wait.
    pub quiet_timeout: Millis,
    /// How long a node's app has between SIGTERM and SIGKILL; where a node's own configuration says something else, that
    /// counts.
    pub grace: Option<Millis>,
    /// What backups do with uploaded files; where it says nothing, each node's own configuration counts.
    pub uploads: Option<Uploads>,
    /// What must be true of a node before users come back to it.
    pub checks: Vec<Check>,
    /// How many nodes start at the same time once the first one serves.
    pub max_parallel: u32,
    /// Whether upgrades and migrations fetch the app's commercial plugins as they fit its code.
    pub commercial_plugins: bool,
    /// Nodes that run alone rather than others, and that are started and restarted before others, the best first.
    pub order: Vec<NodeId>,
}

/// What a backup does with uploaded files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uploads {
    /// It leaves them out.
    Skip,
    /// It copies them before anything is stopped, and what has changed since then in the outage.
    Presync,
    /// It copies them in the outage.
    Include,
}

impl Uploads {
    /// One word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Uploads::Skip => "skip",
            Uploads::Presync => "presync",
            Uploads::Include => "include",
        }
    }
}

/// Who asks for the healing of nodes that are stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heal {
    /// A person, or a program of theirs.
    #[default]
    Manual,
    /// The fleet does it by itself.
    Automatic,
}

impl Heal {
    /// One word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Heal::Manual => "manual",
            Heal::Automatic => "automatic",
        }
    }
}

/// Who fences a node that an operation waits for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fencing {
    /// A person, or a program of theirs.
    #[default]
    Manual,
    /// The fleet does it by itself.
    Automatic,
}

impl Fencing {
    /// One word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Fencing::Manual => "manual",
            Fencing::Automatic => "automatic",
        }
    }
}

/// How users reach a fleet's apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Nothing keeps them from an app that listens.
    #[default]
    Direct,
    /// A load balancer asks the agents' `/ready`, and sends nobody where that is not 200.
    Ready,
    /// Agents beside the load balancers take nodes out and bring them back.
    Balancer,
}

impl Traffic {
    /// One word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Traffic::Direct => "direct",
            Traffic::Ready => "ready",
            Traffic::Balancer => "balancer",
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            contact_timeout: Millis::from_secs(15),
            pre_grant_timeout: Millis::from_secs(600),
            confirm_timeout: Millis::from_secs(30),
            accept_timeout: Millis::from_secs(15),
            lease: Millis::from_secs(30),
            restore_after: Millis::from_secs(900),
            gather_timeout: Millis::from_secs(20),
            start_timeout: Millis::from_secs(600),
            // Longer than a worker's usual time between SIGTERM and SIGKILL.
            stop_timeout: Millis::from_secs(360),
            task_timeout: Millis::from_secs(600),
            backup_timeout: Millis::from_secs(4 * 3600),
            keep_backups: 7,
            traffic: Traffic::Direct,
            drain_timeout: Millis::from_secs(30),
            heal: Heal::Manual,
            fence: Fencing::Manual,
            fence_after: Millis::from_secs(60),
            quiet_timeout: Millis::from_secs(60),
            grace: None,
            uploads: None,
            checks: Vec::new(),
            max_parallel: 1,
            commercial_plugins: false,
            order: Vec::new(),
        }
    }
}

impl Policy {
    /// What is wrong with it, for people.
    pub fn problem(&self) -> Option<String> {
        let second = Millis::from_secs(1);
        let lengths = [
            ("contact_timeout", self.contact_timeout),
            ("pre_grant_timeout", self.pre_grant_timeout),
            ("confirm_timeout", self.confirm_timeout),
            ("accept_timeout", self.accept_timeout),
            ("lease", self.lease),
            ("gather_timeout", self.gather_timeout),
            ("start_timeout", self.start_timeout),
            ("stop_timeout", self.stop_timeout),
            ("task_timeout", self.task_timeout),
            ("backup_timeout", self.backup_timeout),
            ("drain_timeout", self.drain_timeout),
            ("fence_after", self.fence_after),
            ("grace", self.grace.unwrap_or(second)),
        ];
        if let Some((key, _)) = lengths.iter().find(|(_, length)| *length < second) {
            return Some(format!("{key} is shorter than a second"));
        }
        let quiet = [("quiet_timeout", self.quiet_timeout)];
        if let Some((key, _)) = lengths.iter().chain(&quiet).find(|(_, length)| *length > LENGTH_MAX) {
            return Some(format!("{key} is longer than a week"));
        }
        if self.max_parallel == 0 {
            return Some("max_parallel is 0: use 1 or more".into());
        }
        if self.order.len() > NODES_MAX {
            return Some(format!("order names {} nodes, and {NODES_MAX} are the most", self.order.len()));
        }
        if let Some(twice) = self.order.iter().enumerate().find(|(at, node)| self.order[..*at].contains(node))
        {
            return Some(format!("order names {} twice", twice.1));
        }
        if self.keep_backups == 0 {
            return Some(
                "keep_backups is 0: the last backup is never removed by itself, use 1 or more".into(),
            );
        }
        if self.checks.len() > CHECKS_MAX {
            return Some(format!("there are {} checks, and {CHECKS_MAX} are the most", self.checks.len()));
        }
        let mut names: Vec<&str> = self.checks.iter().map(|check| check.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Some(format!("two checks have the name \"{}\"", pair[0]));
        }
        if let Some(problem) = self.checks.iter().find_map(Check::problem) {
            return Some(problem);
        }
        let longest: u64 =
            self.checks.iter().map(|check| (check.timeout.0 + 1000) * u64::from(check.tries)).sum();
        (longest > self.task_timeout.0).then(|| {
            format!(
                "task_timeout is {}, and with all their tries the checks may take {}",
                self.task_timeout,
                Millis(longest)
            )
        })
    }
}

/// Longest of the lengths above.
const LENGTH_MAX: Millis = Millis::from_secs(7 * 24 * 3600);
/// Least time between the ends of two healings that a fleet does by itself: what a restart does not mend, another would not.
pub const HEAL_PAUSE: Millis = Millis::from_secs(600);
/// Longest freeze: one that is forgotten ends by itself.
pub const FREEZE_MAX: Millis = Millis::from_secs(30 * 24 * 3600);
/// Most nodes of a fleet: NocoBase's worker ids end at 31.
pub const NODES_MAX: usize = 32;
/// Most load balancers of a fleet.
pub const BALANCERS_MAX: usize = 8;
/// Most removed nodes that a fleet remembers; the oldest are forgotten.
pub const REMOVED_MAX: usize = 64;
/// Most fleets of one set of coordinators; bounds what anyone who can reach a coordinator can make it remember.
pub const FLEETS_MAX: usize = 10_000;
/// Most operations that wait in a fleet's queue: more is a client in a loop.
pub const QUEUE_MAX: usize = 32;
/// Most ended operations that a fleet remembers; asking again for an older one counts as new.
pub const HISTORY_MAX: usize = 50;
/// Most events that a fleet remembers.
pub const EVENTS_MAX: usize = 300;
/// Most attempts of a task that begin by themselves after its agent died in the middle.
pub const TASK_ATTEMPTS_MAX: u32 = 3;
/// Most backups that a fleet remembers, whatever its policy says.
pub const BACKUPS_MAX: usize = 100;
/// Longest reason, name of a person, or message that is kept, in characters.
pub const TEXT_MAX: usize = 500;
