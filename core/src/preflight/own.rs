//! What can be wrong with a node by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Known, NodeFacts, Place, Release, check, failures, names};
use crate::assignment::DbSession;
use crate::ids::NodeId;

const MIB: u64 = 1024 * 1024;

/// Free space below which something will fail soon, and below which a person should know, in bytes. A storage takes dumps and
/// uploads, an app folder one more installation (1.2 GB), a data folder a small ledger and the app's log.
fn bounds(place: Place) -> (u64, u64) {
    match place {
        Place::Storage | Place::App => (256 * MIB, 2048 * MIB),
        Place::Data => (32 * MIB, 256 * MIB),
    }
}

/// Whether a dump client fits the server: a `pg_dump` that is older than its server refuses to work.
fn fits(dump: &Release, server: &Release) -> bool {
    server.product != "PostgreSQL" || dump.major >= server.major
}

/// One node must be able to dump: it is a problem if none can, and worth knowing where it cannot.
pub(super) fn dump_client(known: &Known<'_>) -> Vec<Finding> {
    let asked: Vec<(&NodeId, &NodeFacts, &Release)> = known
        .iter()
        .filter_map(|(node, told)| Some((*node, &told.facts, told.facts.server.as_ref()?)))
        .collect();
    let able = |(_, facts, server): &(&NodeId, &NodeFacts, &Release)| {
        facts.own_backups || facts.dump.as_ref().is_some_and(|dump| fits(dump, server))
    };
    let make = if asked.iter().any(able) { Finding::warning } else { Finding::problem };
    let each = asked.iter().filter(|one| !able(one)).map(|(node, facts, server)| {
        let wanted = if server.product == "PostgreSQL" {
            format!("pg_dump {} or newer", server.major)
        } else {
            "mysqldump or mariadb-dump".to_owned()
        };
        let text = match &facts.dump {
            Some(dump) => format!(
                "{node} cannot dump the database: its {} {} is older than the server, {} {}",
                dump.product, dump.text, server.product, server.text
            ),
            None => {
                let why =
                    facts.failed.get(check::DUMP_CLIENT).map_or("it has no program for it", String::as_str);
                format!("{node} cannot dump the database: {why}")
            }
        };
        make(check::DUMP_CLIENT, vec![(*node).clone()], text, format!("install {wanted} on {node}"))
    });
    each.collect()
}

pub(super) fn space(known: &Known<'_>) -> Vec<Finding> {
    const REMEDY: &str = "see that the folder exists and its mount answers";
    let mut found: Vec<Finding> = failures(known, check::SPACE, REMEDY).collect();
    for (node, told) in known {
        for space in &told.facts.spaces {
            let (problem, warning) = bounds(space.place);
            let make = match space.free {
                free if free < problem => Finding::problem,
                free if free < warning => Finding::warning,
                _ => continue,
            };
            let what = match space.place {
                Place::Storage => "storage",
                Place::App => "app folder",
                Place::Data => "agent's data folder",
            };
            let text = format!("{node} has {} MiB left in its {what} {}", space.free / MIB, space.path);
            let remedy = format!("make room: {} MiB at least", warning / MIB);
            found.push(make(check::SPACE, vec![(*node).clone()], text, remedy));
        }
    }
    found
}

pub(super) fn upgrading(known: &Known<'_>) -> Option<Finding> {
    let nodes: Vec<NodeId> =
        known.iter().filter(|(_, told)| told.facts.upgrading).map(|(node, _)| (*node).clone()).collect();
    (!nodes.is_empty()).then(|| {
        let text = "the storage holds NocoBase's marker .upgrading: the next start of any node would upgrade"
            .to_owned();
        let remedy = "somebody has uploaded a plugin in the app: soloist migrate runs its migrations on one node, after a backup; \
                      or remove the file if nothing is to be upgraded";
        Finding::problem(check::UPGRADING, nodes, text, remedy)
    })
}

/// The same thing said by several nodes, as one finding.
fn said<'a>(known: &Known<'a>, of: impl Fn(&'a NodeFacts) -> Vec<String>) -> BTreeMap<String, Vec<NodeId>> {
    let mut found: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
    for (node, told) in known {
        for what in of(&told.facts) {
            found.entry(what).or_default().push((*node).clone());
        }
    }
    found
}

pub(super) fn commercial(known: &Known<'_>) -> Vec<Finding> {
    let each = said(known, |facts| facts.commercial.clone()).into_iter().map(|(what, nodes)| {
        let text = format!("NocoBase's own launcher would fetch commercial plugins: {what}");
        let remedy = "nodes under Soloist do not fetch them at a start: set commercial_plugins = true in the fleet's policy, and \
                      upgrade and migrate fetch them while all nodes are stopped";
        Finding::warning(check::COMMERCIAL_PLUGINS, nodes, text, remedy)
    });
    each.collect()
}

pub(super) fn sub_apps(known: &Known<'_>) -> Option<Finding> {
    let some: Vec<(&NodeId, u64)> = known
        .iter()
        .filter_map(|(node, told)| Some((*node, told.facts.sub_apps.filter(|count| *count > 0)?)))
        .collect();
    let most = some.iter().map(|(_, count)| *count).max()?;
    let nodes = some.iter().map(|(node, _)| (*node).clone()).collect();
    let text = format!(
        "the multi-app manager is enabled and has {most} sub-apps, which would be upgraded without being watched and are missing \
         from backups"
    );
    let remedy = "sub-apps are not supported yet: run them as fleets of their own, or remove them";
    Some(Finding::problem(check::SUB_APPS, nodes, text, remedy))
}

pub(super) fn supervisors(known: &Known<'_>) -> Vec<Finding> {
    let each = known.iter().flat_map(|(node, told)| {
        told.facts.supervisors.iter().map(move |what| {
            let text = format!("{node} has a second supervisor for this app: {what}");
            let remedy = "take the app away from it (systemctl disable --now UNIT, or pm2 delete and pm2 save): only the agent \
                          may start the app";
            Finding::problem(check::SUPERVISOR, vec![(*node).clone()], text, remedy)
        })
    });
    each.collect()
}

/// One finding for each session, although every node sees it.
pub(super) fn sessions(known: &Known<'_>) -> Vec<Finding> {
    let all: BTreeSet<&DbSession> = known.values().flat_map(|told| &told.facts.sessions).collect();
    let each = all.into_iter().map(|session| {
        let seen_by: Vec<&NodeId> = known
            .iter()
            .filter(|(_, told)| told.facts.sessions.contains(session))
            .map(|(node, _)| *node)
            .collect();
        let text =
            format!("{session} belongs to no node of the fleet (seen by {})", names(seen_by.iter().copied()));
        let remedy =
            "end what opened it, or name its application in known_sessions of every agent's configuration";
        Finding::problem(check::SESSIONS, seen_by.into_iter().cloned().collect(), text, remedy)
    });
    each.collect()
}
