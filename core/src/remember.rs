//! What an operation leaves behind: backups, and the fleet's database.

use std::collections::BTreeMap;

use crate::advance::Now;
use crate::assignment::{OUTPUT_MAX, OUTPUT_TEXT_MAX};
use crate::event::EventKind;
use crate::ids::{BackupId, NodeId, OperationId, Version};
use crate::journal::Journal;
use crate::operation::Request;
use crate::policy::BACKUPS_MAX;
use crate::state::{Backup, DatabaseRecord, Fleet};

/// A task on backups is done: what its agent says of them.
pub(crate) fn remember_backups(
    fleet: &mut Fleet,
    id: &OperationId,
    node: &NodeId,
    now: Now,
    journal: &mut Journal,
) {
    let Some(operation) = fleet.operation(id) else { return };
    let request = operation.request.clone();
    let clip = |text: &str| text.chars().take(OUTPUT_TEXT_MAX).collect::<String>();
    let found = output(fleet, node).into_iter().flatten().take(OUTPUT_MAX);
    let mut facts: BTreeMap<String, String> = found.map(|(name, value)| (clip(name), clip(value))).collect();
    match request {
        Request::Backup { .. } => {
            let Ok(backup) = BackupId::new(id.as_str()) else { return };
            let gone = facts.remove("removed").unwrap_or_default();
            let version = facts.remove("version").map(Version);
            let size = facts.get("size").map_or("made", String::as_str);
            journal.operation(id, EventKind::Backup(format!("{backup} on {node}: {size}")));
            let made = Backup { node: node.clone(), wall_ms: now.wall_ms, version, facts };
            fleet.backups.insert(backup, made);
            for name in gone.split(',').filter_map(|name| BackupId::new(name).ok()) {
                // An agent removes only its own.
                if fleet.backups.get(&name).is_some_and(|backup| backup.node == *node) {
                    fleet.backups.remove(&name);
                }
            }
            while fleet.backups.len() > BACKUPS_MAX {
                let oldest = fleet.backups.iter().min_by_key(|(_, backup)| backup.wall_ms);
                let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
                fleet.backups.remove(&oldest);
            }
        }
        Request::RemoveBackup { backup } => {
            fleet.backups.remove(&backup);
            journal.operation(id, EventKind::Backup(format!("{backup} on {node}: removed")));
        }
        Request::Restore { backup } => {
            fleet.half_restored = None;
            journal.operation(id, EventKind::Backup(format!("{backup} on {node}: restored")));
        }
        Request::Start { .. }
        | Request::Stop
        | Request::Hold { .. }
        | Request::Plugin { .. }
        | Request::AcceptDatabase => {}
    }
}

/// What a node's last task found or made.
pub(crate) fn output<'a>(fleet: &'a Fleet, node: &NodeId) -> Option<&'a BTreeMap<String, String>> {
    fleet.nodes.get(node)?.observed.as_ref().map(|seen| &seen.output)
}

/// A node serves: its database is the fleet's.
pub(crate) fn remember_database(fleet: &mut Fleet, node: &NodeId, journal: &mut Journal) {
    let seen =
        fleet.nodes.get(node).and_then(|node| node.observed.as_ref()).and_then(|seen| seen.database.clone());
    let Some(database) = seen.filter(|database| database.version.is_some()) else { return };
    let record = DatabaseRecord { identity: database.identity, version: database.version };
    if fleet.database.as_ref() == Some(&record) {
        return;
    }
    let version = record.version.as_ref().map_or("none".to_owned(), ToString::to_string);
    journal.fleet(EventKind::Database(format!("{} has version {version}", record.identity)));
    fleet.database = Some(record);
}
