//! One look over all processes of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, io};

use soloist_core::assignment::Foreign;
use soloist_core::ids::{FleetId, NodeId, Token};

use super::pattern::AppPattern;
use super::process::{self, ProcessId, env_value};

/// Longest command line that is reported, in characters.
const COMMAND_MAX: usize = 120;
/// Most foreign processes that are reported: one is enough to block, more are for people.
const FOREIGN_MAX: usize = 16;
/// Most holders that are reported; a fleet has one lock.
const HOLDERS_MAX: usize = 16;

/// The environment entry by which every process of a node's app is known: `SOLOIST_NODE=<fleet>/<node>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker(String);

impl Marker {
    /// Name of the environment variable.
    pub const VARIABLE: &str = "SOLOIST_NODE";

    /// The marker of a node.
    pub fn new(fleet: &FleetId, node: &NodeId) -> Self {
        Self(format!("{fleet}/{node}"))
    }

    /// The value of the variable.
    pub fn value(&self) -> &str {
        &self.0
    }

    /// A marker as it stands in a launch file.
    pub(crate) fn from_value(value: String) -> Self {
        Self(value)
    }

    fn entry(&self) -> Vec<u8> {
        format!("{}={}", Self::VARIABLE, self.0).into_bytes()
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to look for.
#[derive(Debug, Clone)]
pub struct ScanQuery {
    /// The fleet, to tell its own processes from foreign ones.
    pub fleet: FleetId,
    /// The node's own marker.
    pub marker: Marker,
    /// How the node's app is recognised.
    pub app: AppPattern,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Live processes that carry the node's marker. One look: as proof that nothing runs, use [`scan_marked`].
    pub marked: Vec<ProcessId>,
    /// Live processes of the node's app that no agent of the fleet started.
    pub foreign: Vec<Foreign>,
    /// Tokens of external holders of the fleet's lock that have live processes on this host.
    pub holders: Vec<Token>,
}

/// Looks once over all processes: the node's own, foreign ones, and holders.
///
/// Environments and working folders of other users can only be read by root: an agent without that right sees
/// foreign processes of other users only when their command line names the app folder.
pub fn scan(query: &ScanQuery) -> io::Result<Scan> {
    let own_entry = query.marker.entry();
    let fleet_prefix = format!("{}={}/", Marker::VARIABLE, query.fleet).into_bytes();
    let fleet_entry = format!("SOLOIST_FLEET={}", query.fleet).into_bytes();
    let mut found = Scan::default();
    let mut holders = BTreeSet::new();
    for pid in process::pids()? {
        let Some(stat) = process::stat(pid).filter(process::Stat::alive) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let environ = process::environ(pid);
        let entries = environ.as_deref().unwrap_or_default();
        if entries.contains(&own_entry) {
            found.marked.push(stat.id);
            continue;
        }
        if entries.iter().any(|entry| entry.starts_with(&fleet_prefix)) {
            continue;
        }
        if entries.contains(&fleet_entry)
            && let Some(token) = token(entries)
        {
            holders.insert(token);
            continue;
        }
        let argv = process::cmdline(pid);
        if query.app.is_app(pid, &argv, environ.as_deref())
            && stat.id.alive()
            && found.foreign.len() < FOREIGN_MAX
        {
            found.foreign.push(Foreign { pid, owner: process::owner(pid), command: shorten(&argv) });
        }
    }
    found.holders = holders.into_iter().take(HOLDERS_MAX).collect();
    Ok(found)
}

/// Looks twice, and tells what was found at either time.
///
/// One look can miss a child that is forked during it by a process that ends during it.
pub fn scan_twice(query: &ScanQuery) -> io::Result<Scan> {
    let first = scan(query)?;
    let mut found = scan(query)?;
    let holders: BTreeSet<Token> = first.holders.into_iter().chain(found.holders).collect();
    found.holders = holders.into_iter().take(HOLDERS_MAX).collect();
    Ok(found)
}

/// All live processes that carry the marker.
///
/// One look can miss a child that is forked during it by a process that ends during it; so an empty answer is the
/// result of two empty looks in a row.
pub fn scan_marked(marker: &Marker) -> io::Result<Vec<ProcessId>> {
    let found = marked_once(marker)?;
    if found.is_empty() { marked_once(marker) } else { Ok(found) }
}

fn marked_once(marker: &Marker) -> io::Result<Vec<ProcessId>> {
    let entry = marker.entry();
    let mut found = Vec::new();
    for pid in process::pids()? {
        if pid == std::process::id() || !process::environ(pid).is_some_and(|list| list.contains(&entry)) {
            continue;
        }
        if let Some(stat) = process::stat(pid).filter(process::Stat::alive) {
            found.push(stat.id);
        }
    }
    Ok(found)
}

/// All live descendants of a process, not itself.
pub fn tree(root: u32) -> io::Result<Vec<ProcessId>> {
    let mut children: BTreeMap<u32, Vec<process::Stat>> = BTreeMap::new();
    for pid in process::pids()? {
        if let Some(stat) = process::stat(pid) {
            children.entry(stat.parent).or_default().push(stat);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for stat in children.remove(&parent).unwrap_or_default() {
            next.push(stat.id.pid);
            if stat.alive() {
                found.push(stat.id);
            }
        }
    }
    Ok(found)
}

fn token(environ: &[Vec<u8>]) -> Option<Token> {
    env_value(environ, "SOLOIST_FENCING_TOKEN")?.to_str()?.parse().ok().map(Token)
}

fn shorten(argv: &[String]) -> String {
    let line: String = argv.join(" ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(COMMAND_MAX) {
        None => line,
        Some(_) => line.chars().take(COMMAND_MAX - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shortened_by_characters() {
        let long = shorten(&["é".repeat(200)]);
        assert_eq!(long.chars().count(), COMMAND_MAX);
        assert_eq!(shorten(&["node".into(), "a\nb".into()]), "node a b");
    }
}
