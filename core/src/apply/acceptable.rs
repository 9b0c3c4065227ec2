//! What may be asked for: looked at before it enters the queue.

use std::collections::BTreeSet;

use crate::apply::operation::clip;
use crate::ids::{FleetId, NodeId, Version};
use crate::operation::{HoldMode, PackageChange, Request};
use crate::packages::PACKAGES_MAX;
use crate::policy::TEXT_MAX;
use crate::reject::Rejection;
use crate::state::{Desired, Fleet};

/// Whether a version comes before another: by its numbers, from left to right; what is not a number counts as none.
fn older(one: &Version, other: &Version) -> bool {
    let numbers = |version: &Version| -> Vec<u64> {
        version.0.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
    };
    numbers(one) < numbers(other)
}

/// Longest version in bytes.
const VERSION_MAX: usize = 64;

/// Whether a version is written like one; it becomes the name of a folder.
fn named(version: &Version) -> Result<(), Rejection> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+');
    let text = version.0.as_str();
    if text.len() > VERSION_MAX
        || !text.starts_with(|first: char| first.is_ascii_digit())
        || !text.bytes().all(fits)
    {
        return Err(Rejection::Malformed {
            what: format!("\"{}\" is not a version, such as 2.2.15", clip(text)),
        });
    }
    Ok(())
}

/// Longest plugin name in bytes.
const PLUGIN_MAX: usize = 128;

/// Whether an operation may be asked for at all.
///
/// # Errors
/// Why not.
pub(super) fn acceptable(id: &FleetId, fleet: &Fleet, request: &Request) -> Result<(), Rejection> {
    let known = || fleet.nodes.keys().cloned().collect::<Vec<NodeId>>();
    let node = |on: &Option<NodeId>| match on {
        Some(on) if !fleet.nodes.contains_key(on) => {
            Err(Rejection::UnknownNode { fleet: id.clone(), node: on.clone(), known: known() })
        }
        Some(_) | None => Ok(()),
    };
    let running = || match (fleet.active, fleet.desired) {
        (false, _) => Err(Rejection::NotActive { fleet: id.clone() }),
        (true, Desired::Stop) => Err(Rejection::FleetStopped { fleet: id.clone() }),
        (true, Desired::Run) => Ok(()),
    };
    if let Some(backup) = fleet.half_restored.as_ref().filter(|_| request.needs_whole_database()) {
        return Err(Rejection::RestoreUnfinished { fleet: id.clone(), backup: backup.clone() });
    }
    match request {
        Request::Start { install, nodes } => {
            if let Some(named) = nodes {
                let mut named = named.clone();
                named.sort();
                named.dedup();
                if named != known() {
                    return Err(Rejection::NodesDiffer { fleet: id.clone(), enrolled: known(), named });
                }
            }
            match &fleet.database {
                Some(database) if *install => {
                    let version = database.version.as_ref().map_or("unknown".to_owned(), ToString::to_string);
                    Err(Rejection::AlreadyInstalled { fleet: id.clone(), version })
                }
                Some(_) | None => Ok(()),
            }
        }
        Request::Stop | Request::AcceptDatabase => Ok(()),
        Request::Hold { mode: HoldMode::AllStopped, on } => {
            node(on)?;
            if fleet.active { Ok(()) } else { Err(Rejection::NotActive { fleet: id.clone() }) }
        }
        Request::Hold { mode: HoldMode::Solo, on } | Request::Backup { on } => {
            node(on).and_then(|()| running())
        }
        Request::Verify | Request::Heal => running(),
        Request::Remove { node } if fleet.agent(node).is_none() => {
            let known = fleet.agents().map(|(name, _)| name.clone()).collect();
            Err(Rejection::UnknownNode { fleet: id.clone(), node: node.clone(), known })
        }
        Request::Remove { .. } => Ok(()),
        Request::Restart { nodes } => {
            for name in nodes.iter().flatten() {
                node(&Some(name.clone()))?;
            }
            running()
        }
        Request::Prepare { to } => named(to),
        Request::Upgrade { to, on, .. } => {
            node(on)?;
            running()?;
            named(to)?;
            let known = fleet.database.as_ref().and_then(|database| database.version.as_ref());
            match known {
                Some(version) if older(to, version) => {
                    Err(Rejection::Downgrade { fleet: id.clone(), version: version.clone(), to: to.clone() })
                }
                Some(_) => Ok(()),
                None => Err(Rejection::NotActive { fleet: id.clone() }),
            }
        }
        Request::Restore { backup, code: true }
            if fleet.backups.get(backup).is_some_and(|known| known.version.is_none()) =>
        {
            let what =
                format!("the version of backup {backup} is not known, so the code cannot go back to it");
            Err(Rejection::Malformed { what })
        }
        Request::Restore { backup, .. } | Request::RemoveBackup { backup } => {
            let known = || fleet.backups.keys().rev().cloned().collect();
            let removes = matches!(request, Request::RemoveBackup { .. });
            if removes && fleet.half_restored.as_ref() == Some(backup) {
                Err(Rejection::RestoreUnfinished { fleet: id.clone(), backup: backup.clone() })
            } else if fleet.backups.contains_key(backup) {
                Ok(())
            } else {
                Err(Rejection::UnknownBackup { fleet: id.clone(), backup: backup.clone(), known: known() })
            }
        }
        Request::Plugin { plugin, on, .. } => {
            plugin_name(plugin)?;
            node(on).and_then(|()| running())
        }
        Request::Migrate { on } => node(on).and_then(|()| running()),
        Request::Packages { changes, on } => {
            packages(changes)?;
            node(on).and_then(|()| running())
        }
    }
}

/// Whether a plugin's name is written like a package's.
fn plugin_name(plugin: &str) -> Result<(), Rejection> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'@' | b'/' | b'.' | b'_' | b'-');
    if plugin.is_empty() || plugin.len() > PLUGIN_MAX || !plugin.bytes().all(fits) {
        let what = format!("\"{}\" is not a package name, such as @nocobase/plugin-map", clip(plugin));
        return Err(Rejection::Malformed { what });
    }
    Ok(())
}

/// Whether changes of packages can be meant.
fn packages(changes: &[PackageChange]) -> Result<(), Rejection> {
    let refuse = |what: String| Err(Rejection::Malformed { what });
    if changes.is_empty() || changes.len() > PACKAGES_MAX {
        return refuse(format!("{} packages are named, and it takes 1 to {PACKAGES_MAX}", changes.len()));
    }
    let mut seen = BTreeSet::new();
    for change in changes {
        let plugin = change.plugin();
        plugin_name(plugin)?;
        if !seen.insert(plugin) {
            return refuse(format!("{plugin} is named twice"));
        }
        let PackageChange::Put { source, version, sha256, .. } = change else { continue };
        version.as_ref().map_or(Ok(()), named)?;
        if source != "npm" && !source.starts_with('/') || source.chars().count() > TEXT_MAX {
            return refuse(format!("\"{}\" is no absolute path of an archive, and not npm", clip(source)));
        }
        let digits = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if sha256.as_ref().is_some_and(|text| !digits(text)) {
            return refuse(format!("the checksum of {plugin} is no SHA-256"));
        }
    }
    Ok(())
}
