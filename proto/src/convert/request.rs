//! What a client asks for.

use soloist_core::{
    command::Submission,
    ids::{MachineId, NodeId, Version},
    operation::{HoldMode, PackageChange, PluginChange, Request},
    policy::NODES_MAX,
    time::Millis,
};

use super::{
    FieldError,
    bound::{at_most, text, word},
    each, maybe_name, name, unknown,
};
use crate::v1::{self, request::Request as Kind};

impl From<HoldMode> for v1::hold::Mode {
    fn from(mode: HoldMode) -> Self {
        match mode {
            HoldMode::Solo => v1::hold::Mode::Solo,
            HoldMode::AllStopped => v1::hold::Mode::AllStopped,
        }
    }
}

impl TryFrom<v1::hold::Mode> for HoldMode {
    type Error = FieldError;
    fn try_from(mode: v1::hold::Mode) -> Result<Self, FieldError> {
        match mode {
            v1::hold::Mode::Unspecified => Err(unknown("hold.mode")),
            v1::hold::Mode::Solo => Ok(HoldMode::Solo),
            v1::hold::Mode::AllStopped => Ok(HoldMode::AllStopped),
        }
    }
}

impl From<PluginChange> for v1::plugin::Change {
    fn from(change: PluginChange) -> Self {
        match change {
            PluginChange::Enable => v1::plugin::Change::Enable,
            PluginChange::Disable => v1::plugin::Change::Disable,
        }
    }
}

impl TryFrom<v1::plugin::Change> for PluginChange {
    type Error = FieldError;
    fn try_from(change: v1::plugin::Change) -> Result<Self, FieldError> {
        match change {
            v1::plugin::Change::Unspecified => Err(unknown("plugin.change")),
            v1::plugin::Change::Enable => Ok(PluginChange::Enable),
            v1::plugin::Change::Disable => Ok(PluginChange::Disable),
        }
    }
}

fn list(nodes: Vec<NodeId>) -> v1::NodeList {
    v1::NodeList { nodes: nodes.into_iter().map(Into::into).collect() }
}

fn named(field: &str, list: v1::NodeList) -> Result<Vec<NodeId>, FieldError> {
    at_most(NODES_MAX, field, list.nodes)?.into_iter().map(|node| name(field, node)).collect()
}

impl From<Request> for v1::Request {
    fn from(request: Request) -> Self {
        let request = match request {
            Request::Start { install, nodes } => Kind::Start(v1::Start { install, nodes: nodes.map(list) }),
            Request::Stop => Kind::Stop(v1::Stop {}),
            Request::Hold { mode, on } => {
                Kind::Hold(v1::Hold { mode: v1::hold::Mode::from(mode).into(), on: on.map(Into::into) })
            }
            Request::Plugin { change, plugin, on } => Kind::Plugin(v1::Plugin {
                change: v1::plugin::Change::from(change).into(),
                plugin,
                on: on.map(Into::into),
            }),
            Request::Backup { on } => Kind::Backup(v1::MakeBackup { on: on.map(Into::into) }),
            Request::Restore { backup, code } => Kind::Restore(v1::Restore { backup: backup.into(), code }),
            Request::RemoveBackup { backup } => {
                Kind::RemoveBackup(v1::RemoveBackup { backup: backup.into() })
            }
            Request::AcceptDatabase => Kind::AcceptDatabase(v1::AcceptDatabase {}),
            Request::Upgrade { to, on, approve } => {
                Kind::Upgrade(v1::Upgrade { to: to.0, on: on.map(Into::into), approve })
            }
            Request::Prepare { to } => Kind::Prepare(v1::Prepare { to: to.0 }),
            Request::Verify => Kind::Verify(v1::Verify {}),
            Request::Restart { nodes } => Kind::Restart(v1::Restart { nodes: nodes.map(list) }),
            Request::Migrate { on } => Kind::Migrate(v1::Migrate { on: on.map(Into::into) }),
            Request::Heal => Kind::Heal(v1::Heal {}),
            Request::Remove { node } => Kind::RemoveNode(v1::RemoveNode { node: node.into() }),
            Request::Packages { changes, on } => Kind::Packages(v1::Packages {
                changes: changes.into_iter().map(Into::into).collect(),
                on: on.map(Into::into),
            }),
        };
        Self { request: Some(request) }
    }
}

impl TryFrom<v1::Request> for Request {
    type Error = FieldError;
    fn try_from(request: v1::Request) -> Result<Self, FieldError> {
        match request.request.ok_or_else(|| unknown("request"))? {
            Kind::Start(start) => {
                let nodes = start.nodes.map(|nodes| named("start.nodes", nodes)).transpose()?;
                Ok(Request::Start { install: start.install, nodes })
            }
            Kind::Stop(v1::Stop {}) => Ok(Request::Stop),
            Kind::Hold(hold) => {
                Ok(Request::Hold { mode: hold.mode().try_into()?, on: maybe_name("hold.on", hold.on)? })
            }
            Kind::Plugin(plugin) => Ok(Request::Plugin {
                change: plugin.change().try_into()?,
                plugin: plugin.plugin,
                on: maybe_name("plugin.on", plugin.on)?,
            }),
            Kind::Backup(backup) => Ok(Request::Backup { on: maybe_name("backup.on", backup.on)? }),
            Kind::Restore(restore) => {
                let backup = name("restore.backup", restore.backup)?;
                Ok(Request::Restore { backup, code: restore.code })
            }
            Kind::RemoveBackup(remove) => {
                Ok(Request::RemoveBackup { backup: name("remove_backup.backup", remove.backup)? })
            }
            Kind::AcceptDatabase(v1::AcceptDatabase {}) => Ok(Request::AcceptDatabase),
            Kind::Upgrade(upgrade) => Ok(Request::Upgrade {
                to: Version(upgrade.to),
                on: maybe_name("upgrade.on", upgrade.on)?,
                approve: upgrade.approve,
            }),
            Kind::Prepare(prepare) => Ok(Request::Prepare { to: Version(prepare.to) }),
            Kind::Verify(v1::Verify {}) => Ok(Request::Verify),
            Kind::Heal(v1::Heal {}) => Ok(Request::Heal),
            Kind::RemoveNode(remove) => Ok(Request::Remove { node: name("remove_node.node", remove.node)? }),
            Kind::Migrate(migrate) => Ok(Request::Migrate { on: maybe_name("migrate.on", migrate.on)? }),
            Kind::Packages(packages) => Ok(Request::Packages {
                changes: each("packages.changes", packages.changes)?,
                on: maybe_name("packages.on", packages.on)?,
            }),
            Kind::Restart(restart) => Ok(Request::Restart {
                nodes: restart.nodes.map(|nodes| named("restart.nodes", nodes)).transpose()?,
            }),
        }
    }
}

impl From<PackageChange> for v1::PackageChange {
    fn from(change: PackageChange) -> Self {
        match change {
            PackageChange::Put { plugin, source, version, sha256, enable } => {
                let version = version.map(|version| version.0);
                let put = v1::PutPackage { source, version, sha256, enable };
                Self { plugin, change: Some(v1::package_change::Change::Put(put)) }
            }
            PackageChange::Remove { plugin } => {
                Self { plugin, change: Some(v1::package_change::Change::Drop(v1::DropPackage {})) }
            }
        }
    }
}

impl TryFrom<v1::PackageChange> for PackageChange {
    type Error = FieldError;
    fn try_from(change: v1::PackageChange) -> Result<Self, FieldError> {
        let plugin = change.plugin;
        match change.change.ok_or_else(|| unknown("change"))? {
            v1::package_change::Change::Put(put) => Ok(PackageChange::Put {
                plugin,
                source: put.source,
                version: put.version.map(Version),
                sha256: put.sha256,
                enable: put.enable,
            }),
            v1::package_change::Change::Drop(v1::DropPackage {}) => Ok(PackageChange::Remove { plugin }),
        }
    }
}

impl From<Submission> for v1::Submission {
    fn from(submission: Submission) -> Self {
        Self {
            by: submission.by,
            reason: submission.reason,
            wait_ms: submission.wait.map(|wait| wait.0),
            machine: submission.machine.0,
        }
    }
}

impl TryFrom<v1::Submission> for Submission {
    type Error = FieldError;
    fn try_from(submission: v1::Submission) -> Result<Self, FieldError> {
        Ok(Self {
            by: text(submission.by),
            reason: text(submission.reason),
            wait: submission.wait_ms.map(Millis),
            machine: MachineId(word("machine", submission.machine)?),
        })
    }
}
