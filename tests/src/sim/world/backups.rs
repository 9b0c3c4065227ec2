//! Backups: agents' children that copy the database out and back.

use std::collections::BTreeMap;

use soloist_core::assignment::{Task, TaskPhase, TaskResult};
use soloist_core::ids::BackupId;

use soloist_core::operation::Request;
use soloist_core::packages::{COMMERCIAL, MARKER_OFF, PACKAGES, PACKAGES_BACK, PLUGIN_OFF};
use soloist_core::upgrade::{DIGEST, PREPARE, RELEASE};

use super::super::agent::{Busy, Child};
use super::super::app::{NEXT_VERSION, VERSION};
use super::World;

fn backup(task: &Task) -> BackupId {
    let name = task.params.get("backup").cloned().unwrap_or_default();
    BackupId::new(name).expect("the plan names a backup")
}

fn subject(task: &Task) -> String {
    task.params.get("backup").or(task.params.get("version")).cloned().unwrap_or_default()
}

/// The version that a release task makes current.
fn version(task: &Task) -> &'static str {
    match task.params.get("version").map(String::as_str) {
        Some(NEXT_VERSION) => NEXT_VERSION,
        _ => VERSION,
    }
}

impl World {
    /// A child begins to work.
    pub(super) fn begin_copy(&mut self, at: usize, task: Task) -> Result<(), String> {
        let (until, chance) = (
            self.now + self.chance.between(300, 6_000),
            self.chance.permille(if task.name == "restore" { 400 } else { 120 }),
        );
        // An empty database is not worth a backup: somebody points at the wrong one.
        let fails = chance && self.faults || task.name == "backup" && self.database.version.is_none();
        let name = self.hosts[at].name.clone();
        // What an earlier run of the agent has left behind is ended first, whether this one remembers it or not.
        self.hosts[at].child = None;
        self.oracle.copies(&name, &self.hosts, &task)?;
        let copy = self.database.clone();
        if task.name == "restore" {
            self.database.half = true;
            // The table with the version may be the first that is there again.
            let version = self.hosts[at].backups.get(&backup(&task)).map(|(_, copy)| copy.version.clone());
            self.database.version = version.unwrap_or(self.database.version.take());
        }
        let host = &mut self.hosts[at];
        host.ledger = host.ledger.with_task(task.key.clone());
        host.child = Some(Child { task: task.clone(), until, fails, copy });
        host.busy = Some(Busy { task: task.clone(), until, recovers: false });
        self.note(format!("{} {} begins on {name}", task.name, subject(&task)));
        Ok(())
    }

    /// What a child's end changes.
    pub(super) fn run_child(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let Some(child) = self.hosts[at].child.take_if(|child| child.until <= now && !child.fails) else {
            self.hosts[at].child.take_if(|child| child.until <= now);
            return Ok(());
        };
        if child.task.name == RELEASE {
            self.hosts[at].code = version(&child.task);
            self.hosts[at].facts = None;
            return Ok(());
        }
        if [MARKER_OFF, COMMERCIAL].contains(&child.task.name.as_str()) {
            return Ok(());
        }
        if child.task.name == PLUGIN_OFF {
            let plugin = child.task.params.get("plugin").cloned().unwrap_or_default();
            self.database.plugins.remove(&plugin);
            return Ok(());
        }
        if [PACKAGES, PACKAGES_BACK].contains(&child.task.name.as_str()) {
            let operation = child.task.key.operation;
            let packages = &mut self.hosts[at].packages;
            if child.task.name == PACKAGES {
                *packages = Some(operation);
            } else {
                // What never began there is left alone.
                packages.take_if(|packages| *packages == operation);
            }
            return Ok(());
        }
        let name = backup(&child.task);
        self.note(format!("{} {name} has ended on {}", child.task.name, self.hosts[at].name));
        match child.task.name.as_str() {
            "backup" => {
                self.hosts[at].backups.insert(name, (now, child.copy));
            }
            "restore" => {
                let strangers = std::mem::take(&mut self.database.strangers);
                if let Some((_, copy)) = self.hosts[at].backups.get(&name) {
                    self.database = copy.clone();
                }
                self.database.half = false;
                self.database.strangers = strangers;
                let operation = &child.task.key.operation;
                let asked = self.given_up.contains(operation)
                    || self
                        .fleet_now()
                        .and_then(|fleet| fleet.operation(operation))
                        .is_some_and(|operation| matches!(operation.request, Request::Restore { .. }));
                self.oracle.restored(&self.database.rows, asked)?;
            }
            _ => drop(self.hosts[at].backups.remove(&name)),
        }
        Ok(())
    }

    /// What its agent says of it.
    pub(super) fn finish_copy(&mut self, at: usize, busy: Busy) {
        if busy.task.name == RELEASE || busy.task.name == PREPARE {
            return self.finish_release(at, busy);
        }
        if [PACKAGES, PACKAGES_BACK, PLUGIN_OFF, MARKER_OFF, COMMERCIAL].contains(&busy.task.name.as_str()) {
            return self.finish_packages(at, busy);
        }
        let name = backup(&busy.task);
        let host = &mut self.hosts[at];
        let there = host.backups.contains_key(&name);
        if busy.task.phase == TaskPhase::Check {
            host.busy = None;
            let can = there || busy.task.name == "backup";
            let result = if can { TaskResult::Done } else { TaskResult::Failed("it is not here".into()) };
            host.has_checked(busy.task.key, result, &[]);
            return;
        }
        if busy.recovers {
            host.child = None;
        } else if host.child.is_some() {
            return;
        }
        host.busy = None;
        let mut output = BTreeMap::new();
        let done = match busy.task.name.as_str() {
            "backup" => there,
            "restore" => !self.database.half && !busy.recovers,
            _ => !there,
        };
        let result = match (done, busy.recovers) {
            (true, _) => TaskResult::Done,
            (false, true) => TaskResult::Interrupted,
            (false, false) => TaskResult::Failed("the tool failed".into()),
        };
        if !done && !busy.recovers && busy.task.name == "restore" && self.chance.permille(500) {
            // It failed before it touched anything.
            self.database.half = false;
            output.insert("touched".to_owned(), "no".to_owned());
        }
        let host = &mut self.hosts[at];
        if done && busy.task.name == "backup" {
            let keep = busy.task.params.get("keep").and_then(|keep| keep.parse().ok()).unwrap_or(1);
            let mut removed = Vec::new();
            while host.backups.len() > keep {
                let oldest =
                    host.backups.iter().min_by_key(|(_, (age, _))| *age).map(|(name, _)| name.clone());
                let Some(oldest) = oldest else { break };
                host.backups.remove(&oldest);
                removed.push(oldest.to_string());
            }
            output.insert("removed".to_owned(), removed.join(","));
        }
        host.ledger = host.ledger.with_result(busy.task.key, result, output);
    }

    fn finish_packages(&mut self, at: usize, busy: Busy) {
        let wanted = busy.task.key.operation.clone();
        let host = &mut self.hosts[at];
        if busy.task.phase == TaskPhase::Check {
            host.busy = None;
            return host.has_checked(busy.task.key, TaskResult::Done, &[(DIGEST, "the same")]);
        }
        if busy.recovers {
            host.child = None;
        } else if host.child.is_some() {
            return;
        }
        host.busy = None;
        let there = host.packages.as_ref() == Some(&wanted);
        let off =
            busy.task.params.get("plugin").is_some_and(|plugin| !self.database.plugins.contains(plugin));
        let done = match busy.task.name.as_str() {
            PLUGIN_OFF => off,
            MARKER_OFF | COMMERCIAL => true,
            name => there == (name == PACKAGES),
        };
        let result = match (done, busy.recovers) {
            (true, _) => TaskResult::Done,
            (false, true) => TaskResult::Interrupted,
            (false, false) => TaskResult::Failed("the exchange failed".into()),
        };
        host.ledger = host.ledger.with_result(busy.task.key, result, BTreeMap::new());
    }

    fn finish_release(&mut self, at: usize, busy: Busy) {
        let wanted = version(&busy.task);
        let host = &mut self.hosts[at];
        if busy.task.phase == TaskPhase::Check {
            host.busy = None;
            let can = host.releases.contains(&wanted);
            let result =
                if can { TaskResult::Done } else { TaskResult::Failed("it lacks that version".into()) };
            host.has_checked(busy.task.key, result, &[(DIGEST, wanted)]);
            return;
        }
        if busy.recovers {
            host.child = None;
        } else if host.child.is_some() {
            return;
        }
        host.busy = None;
        let result = match (host.code == wanted, busy.recovers) {
            (true, _) => TaskResult::Done,
            (false, true) => TaskResult::Interrupted,
            (false, false) => TaskResult::Failed("the switch failed".into()),
        };
        host.ledger = host.ledger.with_result(busy.task.key, result, BTreeMap::new());
    }
}
