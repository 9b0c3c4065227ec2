//! What must be the same on all nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Demand, Finding, Known, check, demand, failures, names};
use crate::ids::NodeId;

/// Clocks that differ by more than this are named: nothing that travels takes so long.
const CLOCK_WARNING_MS: u64 = 2_000;
/// Clocks that differ by more than this break sessions, schedules and certificates.
const CLOCK_PROBLEM_MS: u64 = 30_000;

/// How nodes fall apart by a value.
struct Split<'a> {
    groups: BTreeMap<Option<String>, Vec<&'a NodeId>>,
}

impl<'a> Split<'a> {
    /// `None` if all have the same.
    fn of(values: impl Iterator<Item = (&'a NodeId, Option<String>)>) -> Option<Self> {
        let mut groups: BTreeMap<Option<String>, Vec<&NodeId>> = BTreeMap::new();
        for (node, value) in values {
            groups.entry(value).or_default().push(node);
        }
        (groups.len() > 1).then_some(Self { groups })
    }

    /// The nodes outside the largest group; all of them if no group is the largest.
    fn odd(&self) -> Vec<NodeId> {
        let most = self.groups.values().map(Vec::len).max().unwrap_or(0);
        let largest = self.groups.values().filter(|nodes| nodes.len() == most).count();
        let odd = self.groups.values().filter(|nodes| largest > 1 || nodes.len() < most);
        let odd: BTreeSet<&NodeId> = odd.flatten().copied().collect();
        odd.into_iter().cloned().collect()
    }

    /// Who has what; the largest group first.
    fn shown(&self) -> String {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
        let each = groups.into_iter().map(|(value, nodes)| {
            let value = value.as_deref().unwrap_or("none");
            format!("{value} on {}", names(nodes.iter().copied()))
        });
        each.collect::<Vec<_>>().join("; ")
    }

    /// Who has the same, without the values; the largest group first.
    fn hidden(&self) -> String {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
        let mut first = true;
        let each = groups.into_iter().map(|(value, nodes)| {
            let word = match (value, std::mem::take(&mut first)) {
                (None, _) => "none",
                (Some(_), true) => "one value",
                (Some(_), false) => "another",
            };
            format!("{word} on {}", names(nodes.iter().copied()))
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

pub(super) fn code(known: &Known<'_>) -> Vec<Finding> {
    const REMEDY: &str = "install one version on all nodes while nothing of the app runs there";
    let mut found: Vec<Finding> = failures(known, check::CODE, REMEDY).collect();
    let each =
        known.iter().filter_map(|(node, told)| Some((*node, Some(told.facts.code.as_ref()?.0.clone()))));
    found.extend(Split::of(each).map(|split| {
        let text = format!("the code has several versions: {}", split.shown());
        Finding::problem(check::CODE, split.odd(), text, REMEDY)
    }));
    found
}

pub(super) fn settings(known: &Known<'_>) -> Vec<Finding> {
    const UNKNOWN: &str =
        "correct the node's settings (.env in its app folder, [app.env] in its agent's configuration)";
    let mut found: Vec<Finding> = failures(known, check::SETTINGS, UNKNOWN).collect();
    let told: Vec<_> =
        known.iter().filter_map(|(node, told)| Some((*node, told.facts.settings.as_ref()?))).collect();
    let keys: BTreeSet<&String> = told.iter().flat_map(|(_, settings)| settings.keys()).collect();
    for key in keys {
        let values = told.iter().map(|(node, settings)| (*node, settings.get(key).cloned()));
        let Some(split) = Split::of(values) else { continue };
        let text = format!("{key} differs: {}", split.hidden());
        let place = "in the .env of these nodes";
        found.extend(match demand(key) {
            Demand::Same => Some(Finding::problem(
                check::SETTINGS,
                split.odd(),
                text,
                format!(
                    "give {key} the same value everywhere, {place}, and restart what runs with another one"
                ),
            )),
            Demand::Alike => Some(Finding::warning(
                check::SETTINGS,
                split.odd(),
                text,
                format!("give {key} the same value everywhere, {place}, unless the difference is meant"),
            )),
            Demand::Free => None,
        });
    }
    found
}

pub(super) fn node_version(known: &Known<'_>) -> Vec<Finding> {
    const REMEDY: &str =
        "install one major version of Node.js on all nodes, or name the program with `node` in [app]";
    let mut found: Vec<Finding> = failures(known, check::NODE_VERSION, REMEDY).collect();
    let each = known
        .iter()
        .filter_map(|(node, told)| Some((*node, Some(format!("{}", told.facts.node.as_ref()?.major)))));
    found.extend(Split::of(each).map(|split| {
        let text = format!("Node.js has several major versions: {}", split.shown());
        Finding::problem(check::NODE_VERSION, split.odd(), text, REMEDY)
    }));
    found
}

pub(super) fn database(known: &Known<'_>) -> Vec<Finding> {
    const UNREAD: &str = "see that the server runs and lets this node in with the DB_… settings of its .env";
    const OTHER: &str =
        "point DB_HOST, DB_PORT, DB_DATABASE, DB_SCHEMA and DB_TABLE_PREFIX of all nodes at one database";
    let mut found: Vec<Finding> = failures(known, check::DATABASE, UNREAD).collect();
    let each = known
        .iter()
        .filter_map(|(node, told)| Some((*node, Some(told.facts.database.as_ref()?.identity.clone()))));
    found.extend(Split::of(each).map(|split| {
        let text = format!("the nodes use several databases: {}", split.shown());
        Finding::problem(check::DATABASE, split.odd(), text, OTHER)
    }));
    found
}

/// Each clock against the one in the middle; the leader's own drops out. The time on the way is within the tolerance.
pub(super) fn clock(known: &Known<'_>) -> Vec<Finding> {
    let offset = |told: &super::Told| i128::from(told.sent_wall_ms) - i128::from(told.heard_wall_ms);
    let mut offsets: Vec<i128> = known.values().map(|told| offset(told)).collect();
    offsets.sort_unstable();
    let Some(middle) = offsets.get(offsets.len().saturating_sub(1) / 2).copied() else { return Vec::new() };
    let each = known.iter().filter_map(|(node, told)| {
        let difference = offset(told) - middle;
        let (way, size) = (if difference > 0 { "ahead of" } else { "behind" }, difference.unsigned_abs());
        let make = match u64::try_from(size).unwrap_or(u64::MAX) {
            0..=CLOCK_WARNING_MS => return None,
            size if size <= CLOCK_PROBLEM_MS => Finding::warning,
            _ => Finding::problem,
        };
        let text =
            format!("the clock of {node} is {}.{} s {way} the others'", size / 1000, size % 1000 / 100);
        let remedy = format!("let {node} follow a time server, such as with chrony");
        Some(make(check::CLOCK, vec![(*node).clone()], text, remedy))
    });
    each.collect()
}
