//! The coordinators' side: which exclusive parts an operation had, and how every node stood at their beginning.

use std::collections::BTreeMap;

use super::{Case, GRANTS_MAX, Grant, Mark, Stood};
use crate::advance::Now;
use crate::ids::{FleetId, NodeId, OperationId};
use crate::operation::{Operation, Request};
use crate::state::{Fleet, Node};

/// Notes what the entry has begun or ended. The last thing that an entry does to a fleet.
pub(crate) fn note(fleet: &mut Fleet, now: Now) {
    let mark = Mark { index: now.index, wall_ms: now.wall_ms };
    let open = |operation: &Operation| operation.grants.last().is_some_and(|grant| grant.until.is_none());
    let Fleet { operations, nodes, .. } = fleet;
    for operation in operations {
        match (operation.exclusive(), open(operation)) {
            (true, false) if operation.grants.len() < GRANTS_MAX => {
                let nodes = stood(nodes, operation.solo.as_ref());
                operation.grants.push(Grant { granted: mark, until: None, nodes });
            }
            (false, true) => {
                if let Some(grant) = operation.grants.last_mut() {
                    grant.until = Some(mark);
                }
            }
            _ => {}
        }
    }
}

fn stood(nodes: &BTreeMap<NodeId, Node>, solo: Option<&NodeId>) -> BTreeMap<NodeId, Stood> {
    let stood = |(name, node): (&NodeId, &Node)| {
        let fence = node.fences.values().find(|fence| fence.up && fence.holds);
        let how = match (node.stop_evidence, &node.assumed, fence) {
            _ if solo == Some(name) => Stood::Solo,
            (_, Some(assumed), _) => Stood::Assumed(format!("{}: {}", assumed.by, assumed.reason)),
            (Some(generation), None, _) => Stood::Stopped(generation),
            (None, None, Some(fence)) => Stood::Fenced(format!("{}: {}", fence.by, fence.reason)),
            (None, None, None) => Stood::Unproven,
        };
        (name.clone(), how)
    };
    nodes.iter().map(stood).collect()
}

/// What agents of a fleet are to watch now: the operation that is alone, and its grant.
#[must_use]
pub fn witnessed(fleet: &Fleet) -> Option<(&Operation, &Grant)> {
    let operation = fleet.current()?;
    let grant = operation.grants.last().filter(|grant| grant.until.is_none())?;
    Some((operation, grant))
}

/// What there is to prove about an operation; nothing if it was never alone.
#[must_use]
pub fn case(fleet: &Fleet, name: &FleetId, id: &OperationId) -> Option<Case> {
    let operation = fleet.operation(id)?;
    let token = operation.token.filter(|_| !operation.grants.is_empty())?;
    Some(Case {
        fleet: name.clone(),
        operation: id.clone(),
        request: operation.request.to_string(),
        token,
        solo: operation.solo.clone(),
        holder: matches!(operation.request, Request::Hold { .. }),
        grants: operation.grants.clone(),
    })
}
