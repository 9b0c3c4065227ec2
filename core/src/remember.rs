//! What an operation leaves behind: backups, and the fleet's database.

use std::collections::BTreeMap;

use crate::advance::Now;
use crate::assignment::{OUTPUT_MAX, OUTPUT_TEXT_MAX};
use crate::event::EventKind;
use crate::ids::{BackupId, NodeId, OperationId, Version};
use crate::journal::Journal;
use crate::operation::{Step, TaskCall};
use crate::packages::COMMERCIAL;
use crate::policy::{BACKUPS_MAX, TEXT_MAX};
use crate::state::{Backup, DatabaseRecord, Fleet};
use crate::upgrade::VERIFY;

/// A task on backups is done: what its agent says of them.
pub(crate) fn remember_backups(
    fleet: &mut Fleet,
    id: &OperationId,
    node: &NodeId,
    task: &TaskCall,
    now: Now,
    journal: &mut Journal,
) {
    let named = task.params.get("backup").and_then(|name| BackupId::new(name.as_str()).ok());
    let Some(backup) = named else { return };
    match task.name.as_str() {
        "backup" => {
            let made = made(fleet, node, now);
            let size = made.0.facts.get("size").map_or("made", String::as_str);
            journal.operation(id, EventKind::Backup(format!("{backup} on {node}: {size}")));
            fleet.backups.insert(backup, made.0);
            for name in made.1 {
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
        "backup-remove" => {
            fleet.backups.remove(&backup);
            journal.operation(id, EventKind::Backup(format!("{backup} on {node}: removed")));
        }
        "restore" => {
            fleet.half_restored = None;
            journal.operation(id, EventKind::Backup(format!("{backup} on {node}: restored")));
        }
        _ => {}
    }
}

/// The backup that a node has just made, and those that it removed for it.
fn made(fleet: &Fleet, node: &NodeId, now: Now) -> (Backup, Vec<BackupId>) {
    let clip = |text: &str| text.chars().take(OUTPUT_TEXT_MAX).collect::<String>();
    let found = output(fleet, node).into_iter().flatten().take(OUTPUT_MAX);
    let mut facts: BTreeMap<String, String> = found.map(|(name, value)| (clip(name), clip(value))).collect();
    let gone = facts.remove("removed").unwrap_or_default();
    let version = facts.remove("version").map(Version);
    let gone = gone.split(',').filter_map(|name| BackupId::new(name).ok()).collect();
    (Backup { node: node.clone(), wall_ms: now.wall_ms, version, facts }, gone)
}

/// What a step found or made on each of its nodes, for people, where that is worth telling.
pub(crate) fn told(fleet: &Fleet, step: &Step) -> BTreeMap<NodeId, String> {
    let (Step::Task { nodes, task } | Step::Checked { nodes, task }) = step else { return BTreeMap::new() };
    let text = |node: &NodeId| {
        let found = output(fleet, node)?.iter().take(OUTPUT_MAX);
        let found: Vec<String> = found.map(|(name, what)| format!("{name}: {what}")).collect();
        let text: String = found.join("; ").chars().take(TEXT_MAX).collect();
        (!text.is_empty()).then(|| (node.clone(), text))
    };
    nodes.iter().filter(|_| [VERIFY, COMMERCIAL].contains(&task.name.as_str())).filter_map(text).collect()
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
