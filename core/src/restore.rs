//! The coordinators' state from a backup, made safe to go on from.
//!
//! A backup is old: what was decided after it is forgotten, and what agents do by then may have been decided by the members that are gone.
//! So three things are done to it, and a fourth waits for a person:
//!
//! | what | because |
//! |---|---|
//! | numbers go on far above all that were given before | agents, holders and fences have seen higher ones than the backup has, and refuse lower ones |
//! | fences are put up anew, and lifted when their nodes have stopped | one that the backup does not know of would stay for ever |
//! | what is believed of nodes is forgotten | a node that was stopped then may run now |
//! | operations and the lock are ended | nobody knows how far they came |
//! | nothing is assigned until somebody has looked | what runs, and what rests, may be part of an operation that the backup does not know |
//!
//! Until a person resumes a fleet, its agents keep what they were assigned last, by whomever: that was consistent, and no app stops. Then each is
//! assigned what it does. No operation begins before all of them have taken note of that: an agent that has not could still use what the lost
//! coordinators gave it, such as a right to migrate.

use serde::{Deserialize, Serialize};

use crate::advance::Now;
use crate::apply::Reply;
use crate::apply::operation::clip;
use crate::assign::renumber;
use crate::assignment::AppState;
use crate::command::RESTORE_LEVEL;
use crate::event::EventKind;
use crate::fence::{Covers, Fence, choose};
use crate::finish::close;
use crate::ids::{FleetId, Generation, NodeId, OperationId};
use crate::journal::Journal;
use crate::operation::Status;
use crate::policy::EVENTS_MAX;
use crate::reject::Rejection;
use crate::state::{Desired, Fleet, Lock, Node, State};
use crate::time::Time;

/// Log indexes for each millisecond of the wall clock: where a restored log begins. No log grows so fast, so whatever was numbered before, by the log that
/// was lost or after an earlier restore, lies below, as long as the clocks of the hosts on which backups are restored do not go back.
pub const INDEXES_PER_MS: u64 = 1_000;

/// What a fleet of a restored cluster is until somebody has looked at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Log index of the backup.
    pub index: u64,
    /// Wall clock of the backup's last entry, milliseconds since 1970.
    pub wall_ms: u64,
    /// Whether somebody has looked, and the agents are being told.
    #[serde(default)]
    pub resumed: bool,
}

/// Where the log of a cluster begins that is restored now from a backup of this index; `wall_ms` is the wall clock, in milliseconds since 1970. `None` if that is not above the
/// backup's: then the clock is wrong.
pub fn first_index(backup: u64, wall_ms: u64) -> Option<u64> {
    Some(wall_ms.saturating_mul(INDEXES_PER_MS)).filter(|first| *first > backup)
}

/// The state to go on from, and the log index that it stands for: the next entry is the one after it. `None` if the wall clock of the restore
/// cannot be right, see [`first_index`].
pub fn restored(backup: &State, index: u64, wall_ms: u64) -> Option<(State, u64)> {
    let at = first_index(index, wall_ms)?;
    let mut state = backup.clone();
    // Members of an earlier level know nothing of a restore.
    state.level = state.level.max(RESTORE_LEVEL);
    let (promoted, level) = (state.promoted, state.level);
    let now = Now { index: at, time: state.now, wall_ms: state.wall_ms, promoted, level };
    let mark = Restored { index, wall_ms: state.wall_ms, resumed: false };
    state.restored = Some(mark);
    for fleet in state.fleets.values_mut() {
        restore(fleet, mark, now);
    }
    Some((state, at))
}

fn restore(fleet: &mut Fleet, mark: Restored, now: Now) {
    let mut journal = Journal::new(now.index, now.time, now.wall_ms);
    let going: Vec<OperationId> =
        fleet.operations.iter().filter(|one| !one.status.ended()).map(|one| one.id.clone()).collect();
    fleet.lock = Lock::Free;
    for id in going {
        let why = "the coordinators were restored from a backup in which it had not ended";
        close(fleet, &id, Status::Aborted(why.to_owned()), now, &mut journal);
    }
    for node in fleet.nodes.values_mut().chain(fleet.balancers.values_mut()) {
        node.registered = Generation(now.index);
        node.sequence = 0;
        node.assignment.generation = Generation(now.index);
        node.assignment.token = None;
        node.admitted = false;
        node.returned = true;
        forget(node);
        // Where fences act, a lower number than the last one is refused.
        node.fences.values_mut().for_each(|fence| fence.generation = Generation(now.index));
    }
    fleet.restored = Some(mark);
    renumber(fleet, now.index);
    for node in fleet.nodes.values_mut() {
        node.stop_since = Some(Generation(now.index));
    }
    journal.fleet(EventKind::Restored(format!("from a backup of index {}", mark.index)));
    fleet.events.extend(journal.into_events());
    while fleet.events.len() > EVENTS_MAX {
        fleet.events.pop_front();
    }
}

/// Forgets what is believed of a node: it must register and report again.
fn forget(node: &mut Node) {
    node.stop_evidence = None;
    node.observed = None;
    node.assumed = None;
    node.stale_wall_ms = None;
    node.heard = Time(0);
    // A fence may have been lifted since; it counts when its carrier has proven it again.
    node.fences.values_mut().for_each(|fence| fence.holds = false);
}

/// Whether a fleet's agents are given what the state has for them.
pub fn is_served(fleet: &Fleet) -> bool {
    fleet.restored.is_none_or(|restored| restored.resumed)
}

/// Whether something may be asked of a fleet.
pub(crate) fn looked_at(id: &FleetId, fleet: &Fleet) -> Result<(), Rejection> {
    let fleet_id = id.clone();
    match fleet.restored {
        None => Ok(()),
        Some(Restored { resumed: false, .. }) => {
            Err(Rejection::Restored { fleet: fleet_id, silent: silent(fleet) })
        }
        Some(Restored { resumed: true, .. }) => {
            Err(Rejection::Resuming { fleet: fleet_id, nodes: untold(fleet) })
        }
    }
}

/// Nodes whose agents have not taken note yet of what they were assigned when the fleet was resumed.
fn untold(fleet: &Fleet) -> Vec<NodeId> {
    let untold = |node: &Node| !node.acknowledged() && node.assumed.is_none();
    fleet.nodes.iter().filter(|(_, node)| untold(node)).map(|(name, _)| name.clone()).collect()
}

/// Ends the restore of a fleet once all its agents have taken note.
pub(crate) fn settle(fleet: &mut Fleet, journal: &mut Journal) {
    let resumed = fleet.restored.is_some_and(|restored| restored.resumed);
    if resumed && untold(fleet).is_empty() {
        fleet.restored = None;
        journal.fleet(EventKind::Restored("every agent has taken note, and the fleet goes on".to_owned()));
    }
}

/// Nodes of which nothing is known since the restore.
fn silent(fleet: &Fleet) -> Vec<NodeId> {
    let silent = |node: &Node| node.observed.is_none() && node.assumed.is_none();
    fleet.nodes.iter().filter(|(_, node)| silent(node)).map(|(name, _)| name.clone()).collect()
}

/// A person has looked at a fleet: what runs goes on running, what rests waits for a start, and operations may begin.
pub(crate) fn resume(
    id: &FleetId,
    fleet: &mut Fleet,
    by: &str,
    reason: &str,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    let Some(mark) = fleet.restored.filter(|restored| !restored.resumed) else { return Ok(Reply::Unchanged) };
    if reason.trim().is_empty() {
        return Err(Rejection::NoReason);
    }
    let silent = silent(fleet);
    if !silent.is_empty() {
        return Err(Rejection::Restored { fleet: id.clone(), silent });
    }
    if let Some((node, what)) = fleet.nodes.iter().find_map(|(name, node)| Some((name, under_way(node)?))) {
        return Err(Rejection::StillWorks { fleet: id.clone(), node: node.clone(), what });
    }
    fence_again(fleet, by, now);
    for node in fleet.nodes.values_mut() {
        node.admitted =
            node.fences.is_empty() && node.observed.as_ref().is_some_and(|seen| seen.app.may_run());
        node.returned = !node.admitted;
    }
    let runs = fleet.nodes.values().any(|node| node.admitted);
    fleet.active |= runs;
    fleet.desired = if runs { Desired::Run } else { Desired::Stop };
    fleet.restored = Some(Restored { resumed: true, ..mark });
    journal.fleet(EventKind::Restored(format!("looked at, and resumed by {}: {}", clip(by), clip(reason))));
    Ok(Reply::Done)
}

/// Puts a fence around every node that does not serve and may have been fenced after the backup: nobody would lift that one. This one is
/// lifted, like any other, when the node is proven to be stopped.
fn fence_again(fleet: &mut Fleet, by: &str, now: Now) {
    let reporting = fleet.agents().filter(|(_, agent)| agent.observed.is_some());
    let reporting: Vec<NodeId> = reporting.map(|(name, _)| name.clone()).collect();
    let serves =
        |node: &Node| node.observed.as_ref().is_some_and(|seen| matches!(seen.app, AppState::Serving));
    let open = fleet
        .nodes
        .iter()
        .filter(|(_, node)| !serves(node) && !node.fences.contains_key(&Covers::Database))
        .filter_map(|(name, _)| Some((name.clone(), choose(fleet, name, Covers::Database, &reporting)?)));
    let open: Vec<_> = open.filter(|(_, (covers, _))| *covers == Covers::Database).collect();
    for (name, (covers, carrier)) in open {
        let fence = Fence {
            generation: Generation(now.index),
            up: true,
            carrier,
            holds: false,
            trouble: None,
            by: clip(by),
            reason: "it may have been fenced after the backup of the coordinators".to_owned(),
            wall_ms: now.wall_ms,
        };
        if let Some(node) = fleet.nodes.get_mut(&name) {
            node.fences.insert(covers, fence);
        }
    }
}

/// What a node does that somebody who is gone has asked for, and that must end first.
fn under_way(node: &Node) -> Option<String> {
    let seen = node.observed.as_ref()?;
    if let Some(token) = seen.holders.first() {
        return Some(format!("a holder of token {token} still runs there"));
    }
    match &seen.app {
        AppState::Starting => Some("its app is starting".to_owned()),
        AppState::Stopping => Some("its app is being stopped".to_owned()),
        AppState::Stopped
        | AppState::Refused(_)
        | AppState::Serving
        | AppState::Failed(_)
        | AppState::Crashed(_) => None,
    }
}
