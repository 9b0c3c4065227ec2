//! What is asked for, as arguments: shared by the commands themselves and by `plan`.

use std::convert::Infallible;

use clap::ArgGroup;
use soloist_core::{
    ids::{NodeId, Version},
    operation::{HoldMode, PluginChange, Request},
};

use crate::error::{CtlError, Kind, Result};

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

/// An upgrade.
#[derive(Debug, Clone, clap::Args)]
pub struct UpgradeRequest {
    /// The version, as NocoBase writes it: 2.2.15
    #[arg(long, value_name = "VERSION", required = true, value_parser = version)]
    pub to: Option<Version>,
    /// The node that upgrades the database, and serves first
    #[arg(long, value_name = "NODE")]
    pub on: Option<NodeId>,
    /// Ask a person before the other nodes start: see soloist operation approve
    #[arg(long)]
    pub approve: bool,
}

impl UpgradeRequest {
    /// The version.
    pub fn to(&self) -> Result<Version> {
        // Only a subcommand does without it.
        self.to.clone().ok_or_else(|| CtlError::new(Kind::Usage, "--to is missing"))
    }

    /// As the coordinators understand it.
    pub fn request(&self) -> Result<Request> {
        Ok(Request::Upgrade { to: self.to()?, on: self.on.clone(), approve: self.approve })
    }
}

/// Fetching a version.
#[derive(Debug, Clone, clap::Args)]
pub struct PrepareRequest {
    /// The version, as NocoBase writes it: 2.2.15
    #[arg(long, value_name = "VERSION", value_parser = version)]
    pub to: Version,
}

impl PrepareRequest {
    /// As the coordinators understand it.
    pub fn request(&self) -> Request {
        Request::Prepare { to: self.to.clone() }
    }
}

/// A version as people write it; `v2.2.15` is the name of a tag. Coordinators check the rest.
fn version(text: &str) -> Result<Version, Infallible> {
    let number = text.strip_prefix('v').filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    Ok(Version(number.unwrap_or(text).to_owned()))
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
    pub fn request(&self, change: PluginChange, package: String) -> Request {
        Request::Plugin { change, plugin: package, on: self.on.clone() }
    }
}

/// Which nodes.
#[derive(Debug, clap::Args)]
pub struct RestartRequest {
    /// Only these nodes, with commas between them
    #[arg(long, value_delimiter = ',', value_name = "NODE")]
    nodes: Option<Vec<NodeId>>,
}

impl RestartRequest {
    /// As the coordinators take it.
    pub fn request(self) -> Request {
        Request::Restart { nodes: self.nodes }
    }
}

/// What `migrate` asks for.
#[derive(Debug, clap::Args)]
pub struct MigrateRequest {
    /// The node that upgrades the database; by default Soloist chooses
    #[arg(long)]
    pub on: Option<NodeId>,
}

impl MigrateRequest {
    /// As the coordinators take it.
    pub fn request(&self) -> Request {
        Request::Migrate { on: self.on.clone() }
    }
}
