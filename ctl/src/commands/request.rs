//! What is asked for, as arguments: shared by the commands themselves and by `plan`.

use clap::ArgGroup;
use soloist_core::{
    ids::NodeId,
    operation::{HoldMode, PluginChange, Request},
};

/// A start.
#[derive(Debug, Clone, clap::Args)]
pub struct StartRequest {
    /// Install an empty database first: one node does it, then the others start
    #[arg(long)]
    pub install: bool,
    /// The complete list of nodes; refused if others have enrolled
    #[arg(long, value_delimiter = ',')]
    pub nodes: Vec<NodeId>,
}

impl StartRequest {
    /// As the coordinators understand it.
    pub fn request(&self) -> Request {
        let nodes = (!self.nodes.is_empty()).then(|| self.nodes.clone());
        Request::Start { install: self.install, nodes }
    }
}

/// Work under the lock.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(group(ArgGroup::new("mode").required(true).args(["solo", "all_stopped"])))]
pub struct HoldRequest {
    /// One node runs, the others are stopped: for commands that talk to the running app
    #[arg(long)]
    pub solo: bool,
    /// No node runs: for commands that boot the app themselves
    #[arg(long)]
    pub all_stopped: bool,
    /// The node that runs, or starts first afterwards
    #[arg(long, value_name = "NODE")]
    pub on: Option<NodeId>,
}

impl HoldRequest {
    /// As the coordinators understand it.
    pub fn request(&self) -> Request {
        let mode = if self.solo { HoldMode::Solo } else { HoldMode::AllStopped };
        Request::Hold { mode, on: self.on.clone() }
    }
}

/// A backup.
#[derive(Debug, Clone, clap::Args)]
pub struct BackupRequest {
    /// The node that makes it and keeps it; it goes on running
    #[arg(long, value_name = "NODE")]
    pub on: Option<NodeId>,
}

impl BackupRequest {
    /// As the coordinators understand it.
    pub fn request(&self) -> Request {
        Request::Backup { on: self.on.clone() }
    }
}

/// Which change of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Change {
    /// Enable it.
    Enable,
    /// Disable it.
    Disable,
}

/// A change of a plugin.
#[derive(Debug, Clone, clap::Args)]
pub struct PluginRequest {
    /// The plugin: its name (map) or package (@nocobase/plugin-map)
    pub name: String,
    /// The node on which it is done; it goes on running
    #[arg(long, value_name = "NODE")]
    pub on: Option<NodeId>,
}

impl PluginRequest {
    /// As the coordinators understand it, with the package's name.
    pub fn request(&self, change: Change, package: String) -> Request {
        let change = match change {
            Change::Enable => PluginChange::Enable,
            Change::Disable => PluginChange::Disable,
        };
        Request::Plugin { change, plugin: package, on: self.on.clone() }
    }
}
