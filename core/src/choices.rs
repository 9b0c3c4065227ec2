//! What a person can do about an operation that waits.

use crate::fence::{choose, needed};
use crate::ids::NodeId;
use crate::lost::remedies;
use crate::operation::{Blocked, Operation, Request, Status};
use crate::state::Fleet;

/// Whether some agent could put up a fence around a node that is wide enough for the operation.
fn can_fence(fleet: &Fleet, operation: &Operation, node: &NodeId) -> bool {
    let agents: Vec<NodeId> = fleet.agents().map(|(name, _)| name.clone()).collect();
    choose(fleet, node, needed(fleet, operation), &agents).is_some()
}

/// What a person can do about an operation.
pub(crate) fn choices(fleet: &Fleet, operation: &Operation) -> Vec<String> {
    let id = &operation.id;
    let retry = format!("soloist operation retry {id}");
    let abort = format!("soloist operation abort {id}");
    match &operation.status {
        Status::Blocked(Blocked::Unreachable(nodes)) => {
            let lost = nodes.first().and_then(|node| remedies(fleet, operation, node));
            let node = nodes.first().map_or("NODE", NodeId::as_str);
            let fence = nodes.first().filter(|node| can_fence(fleet, operation, node));
            let fence = fence.map(|node| format!("keep it out: soloist node fence {node} --reason \"...\""));
            let off = format!(
                "if its machine is off and stays off: soloist node assume-stopped {node} --reason \"...\""
            );
            let back = "bring the node or its network back: the operation goes on by itself".to_owned();
            let rest = lost.unwrap_or_else(|| vec![off, format!("give up: {abort}")]);
            [back].into_iter().chain(fence).chain(rest).collect()
        }
        Status::Blocked(Blocked::Breach(node, _)) => remedies(fleet, operation, node).unwrap_or_else(|| {
            vec![
                format!("stop what runs on {node}: the operation goes on by itself"),
                format!("give up: {abort}"),
            ]
        }),
        Status::Blocked(Blocked::Refused(..)) => {
            vec!["remove the cause: the operation goes on by itself".into(), format!("give up: {abort}")]
        }
        Status::Blocked(Blocked::Failed(..) | Blocked::Crashed(..)) => vec![
            format!("remove the cause, then stop and start it again: {retry}"),
            format!("give up: {abort}"),
        ],
        Status::Blocked(Blocked::TaskFailed(..)) if matches!(operation.request, Request::Restore { .. }) => {
            vec![
                format!("remove the cause, then try again: {retry}"),
                format!("give up; if the database may be half, the fleet stays stopped: {abort}"),
            ]
        }
        Status::Blocked(Blocked::TaskFailed(..)) => vec![
            format!("remove the cause, then try again: {retry}"),
            format!("give up and bring the fleet back: {abort}"),
        ],
        Status::Blocked(Blocked::HolderLost) => vec![
            "the holder can still release with its token".into(),
            "make sure that its work has ended, then: soloist lock release --force --reason \"...\"".into(),
        ],
        Status::Blocked(Blocked::Traffic(node, _)) => vec![
            format!("mend the load balancer of {node}: the operation goes on by itself"),
            format!("give up: {abort}"),
        ],
        Status::Blocked(Blocked::Approval) => vec![
            format!("go on: soloist operation approve {id}"),
            format!("go back: soloist operation reject {id}"),
        ],
        Status::Blocked(Blocked::WritesAtStake(_)) => {
            let mut choices = vec![
                format!("mend what is wrong, then try again: {retry}"),
                format!(
                    "give up what was written since the backup: soloist operation rollback {id} --lose-writes"
                ),
            ];
            if operation.exclusive_until.is_some() {
                choices.push(format!("keep the new version, and leave out what does not come up: {abort}"));
            }
            choices
        }
        Status::Blocked(Blocked::Overdue) if operation.request.goes_back() => {
            vec![format!("wait, or try again: {retry}"), format!("go back: soloist operation rollback {id}")]
        }
        Status::Blocked(Blocked::Overdue) => {
            vec![format!("wait, or try again: {retry}"), format!("give up: {abort}")]
        }
        Status::Queued
        | Status::Confirming(_)
        | Status::Running
        | Status::Aborting
        | Status::Succeeded
        | Status::Aborted(_)
        | Status::RolledBack(_) => Vec::new(),
    }
}
