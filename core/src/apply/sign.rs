//! Signs that people put up: no new operations for a while, no users for a node.

use crate::advance::Now;
use crate::apply::Reply;
use crate::apply::operation::clip;
use crate::event::EventKind;
use crate::ids::{FleetId, NodeId};
use crate::journal::Journal;
use crate::operation::Request;
use crate::policy::{FREEZE_MAX, Traffic};
use crate::reject::Rejection;
use crate::state::{Fleet, Freeze};
use crate::time::{Millis, Time};

/// Lets no new operation begin for so long, or lets them begin again.
pub(super) fn freeze(
    fleet: &mut Fleet,
    length: Option<Millis>,
    (by, reason): (&str, &str),
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    let Some(length) = length else {
        if frozen(fleet, now.time).is_none() {
            return Ok(Reply::Unchanged);
        }
        fleet.freeze = None;
        journal.fleet(EventKind::Freeze(format!("ended{}", words(by, reason))));
        return Ok(Reply::Done);
    };
    if length == Millis(0) || length > FREEZE_MAX {
        let what = format!("{length} is no length for a freeze: it takes up to {FREEZE_MAX}");
        return Err(Rejection::Malformed { what });
    }
    if reason.trim().is_empty() {
        return Err(Rejection::NoReason);
    }
    fleet.freeze = Some(Freeze {
        by: clip(by),
        reason: clip(reason),
        until: now.time + length,
        until_wall_ms: now.wall_ms.saturating_add(length.0),
    });
    journal.fleet(EventKind::Freeze(format!("for {length}{}", words(by, reason))));
    Ok(Reply::Done)
}

/// The freeze that holds at this time.
pub(crate) fn frozen(fleet: &Fleet, now: Time) -> Option<&Freeze> {
    fleet.freeze.as_ref().filter(|freeze| freeze.until > now)
}

/// Whether a freeze stands in the way of an operation: nothing that brings a fleet back is ever kept from it.
pub(super) fn thawed(id: &FleetId, fleet: &Fleet, request: &Request, now: Time) -> Result<(), Rejection> {
    let brings_back = match request {
        Request::Start { .. } | Request::Restore { code: true, .. } | Request::AcceptDatabase => true,
        // These change nothing that runs.
        Request::Verify | Request::Prepare { .. } | Request::RemoveBackup { .. } => true,
        Request::Stop
        | Request::Hold { .. }
        | Request::Plugin { .. }
        | Request::Packages { .. }
        | Request::Migrate { .. }
        | Request::Backup { .. }
        | Request::Restore { code: false, .. }
        | Request::Upgrade { .. }
        | Request::Restart { .. }
        | Request::Heal
        | Request::Remove { .. } => false,
    };
    // What a broken restore has left is mended at once.
    match frozen(fleet, now).filter(|_| !brings_back && fleet.half_restored.is_none()) {
        None => Ok(()),
        Some(freeze) => Err(Rejection::Frozen {
            fleet: id.clone(),
            by: freeze.by.clone(),
            reason: freeze.reason.clone(),
            left: freeze.until.since(now),
        }),
    }
}

/// Keeps users away from a node, or gives it to them again.
pub(super) fn drain(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &NodeId,
    drained: bool,
    (by, reason): (&str, &str),
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    if fleet.policy.traffic == Traffic::Direct && drained {
        return Err(Rejection::NobodyDrains { fleet: id.clone() });
    }
    let known = || fleet.nodes.keys().cloned().collect();
    let Some(node) = fleet.nodes.get(name) else {
        return Err(Rejection::UnknownNode { fleet: id.clone(), node: name.clone(), known: known() });
    };
    if node.drained == drained {
        return Ok(Reply::Unchanged);
    }
    if let Some(node) = fleet.nodes.get_mut(name) {
        node.drained = drained;
    }
    let what = if drained { "drained" } else { "given to users again" };
    journal.node(None, name, EventKind::Traffic(format!("{what}{}", words(by, reason))));
    Ok(Reply::Done)
}

pub(super) fn words(by: &str, reason: &str) -> String {
    let why = if reason.is_empty() { String::new() } else { format!(": {}", clip(reason)) };
    format!(" by {}{why}", clip(by))
}
