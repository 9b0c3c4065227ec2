//! Steps: conditions, together with the way to bring them about.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::assignment::Needs;
use crate::check::Check;
use crate::ids::NodeId;

/// How the nodes of a [`Step::Serving`] are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bring {
    /// Plainly.
    Plain,
    /// Plainly and in one process, where the app's settings ask for several.
    Single,
    /// With the right to install or upgrade.
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
    /// The nodes' agents looked at the task and would do it.
    Checked {
        /// The nodes.
        nodes: Vec<NodeId>,
        /// The task.
        task: TaskCall,
    },
    /// The node's database holds no table.
    Empty {
        /// The node.
        node: NodeId,
    },
    /// Users are kept away from the nodes, and nothing of theirs is under way there.
    Drained {
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Nothing is known to be under way inside the nodes' apps any more, or the time for it has passed.
    Quiet {
        /// The nodes.
        nodes: Vec<NodeId>,
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
        /// The nodes that run it, each for itself.
        nodes: Vec<NodeId>,
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
        /// Whether it goes on as one process, should it have to be started again.
        #[serde(default)]
        single: bool,
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
    /// A person has approved.
    Approved,
    /// Every load balancer gives users all nodes that it should.
    InService,
    /// No process of the lost holder is known to run any more.
    HolderGone,
}

impl Step {
    /// What kind of step it is, whoever is concerned; steps of one kind take about the same time in one fleet.
    pub fn kind(&self) -> String {
        match self {
            Step::Reachable { .. } => "reach".into(),
            Step::Checked { task, .. } => format!("check {}", task.name),
            Step::Empty { .. } => "empty".into(),
            Step::Drained { .. } => "drain".into(),
            Step::Quiet { .. } => "quiet".into(),
            Step::Stopped { .. } => "stop".into(),
            Step::Granted => "grant".into(),
            Step::Released => "holder".into(),
            Step::Task { task, .. } => task.name.clone(),
            Step::Serving { bring: Bring::Plain | Bring::Single, .. } => "start".into(),
            Step::Serving { bring: Bring::Migrate, .. } => "migrate".into(),
            Step::Converted { .. } => "convert".into(),
            Step::Proved { .. } => "prove".into(),
            Step::Approved => "approval".into(),
            Step::InService => "in service".into(),
            Step::HolderGone => "holder gone".into(),
        }
    }

    /// What it waits for, in words.
    pub fn waits_for(&self) -> &'static str {
        match self {
            Step::Reachable { absent_ok: true, .. } => "an answer of each agent, or the time for it to pass",
            Step::Reachable { absent_ok: false, .. } => "an answer of each agent",
            Step::Checked { .. } => "each agent to say that it can be done",
            Step::Empty { .. } => "the agent to find no table",
            Step::Drained { .. } => "the load balancer to send nobody there, and what is under way to end",
            Step::Quiet { .. } => "workflows and tasks inside the apps to end, or the time for it to pass",
            Step::Stopped { .. } => "each agent to prove that nothing of the app runs",
            Step::Granted => "no foreign process and no unknown database session",
            Step::Released => "the holder's command to end",
            Step::Task { .. } => "the agent to say that it is done",
            Step::Serving { .. } => "health, an answer from the database, and the wanted version",
            Step::Converted { .. } => "the agent's acknowledgement",
            Step::Proved { .. } => "a proof from each app",
            Step::Approved => "a person: soloist operation approve or reject",
            Step::InService => "each load balancer to bring the nodes back",
            Step::HolderGone => "the lost holder's processes to end",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &[NodeId]| nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Step::Reachable { nodes, .. } => write!(f, "reach {}", list(nodes)),
            Step::Checked { nodes, task } => write!(f, "check {} on {}", task.name, list(nodes)),
            Step::Empty { node } => write!(f, "find the database of {node} empty"),
            Step::Drained { nodes } => write!(f, "drain {}", list(nodes)),
            Step::Quiet { nodes } => write!(f, "wait for work on {}", list(nodes)),
            Step::Stopped { nodes } => write!(f, "stop {}", list(nodes)),
            Step::Granted => f.write_str("grant"),
            Step::Released => f.write_str("wait for the holder's work"),
            Step::Task { nodes, task } => write!(f, "{} on {}", task.name, list(nodes)),
            Step::Serving { nodes, bring: Bring::Plain } => write!(f, "start {}", list(nodes)),
            Step::Serving { nodes, bring: Bring::Single } => {
                write!(f, "start {} as one process", list(nodes))
            }
            Step::Serving { nodes, bring: Bring::Migrate } => {
                write!(f, "start {} with the right to install or upgrade", list(nodes))
            }
            Step::Converted { node, .. } => write!(f, "turn the right of {node} into a plain run"),
            Step::Proved { nodes, plugin, loaded: true, .. } => {
                write!(f, "prove {plugin} loaded on {}", list(nodes))
            }
            Step::Proved { nodes, plugin, loaded: false, .. } => {
                write!(f, "prove {plugin} not loaded on {}", list(nodes))
            }
            Step::Approved => f.write_str("wait for approval"),
            Step::InService => f.write_str("bring the nodes back to users"),
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
    /// What a verification looks at.
    #[serde(default)]
    pub checks: Vec<Check>,
}

impl TaskCall {
    /// A task with these parameters, which looks at no checks.
    pub(crate) fn new(name: &str, needs: Needs, params: &[(&str, &str)]) -> Self {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { name: name.to_owned(), needs, params, checks: Vec::new() }
    }
}
