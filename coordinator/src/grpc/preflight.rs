//! Preflight: asks the agents of a fleet about their nodes, and has the core compare what they say.
//!
//! ```text
//!   ask ──► the leader's number ──beat──► members ──contact──► agents ──gather, beat──► the leader's memory ──► compare
//! ```

use std::time::Duration;

use soloist_core::{
    State,
    ids::{FleetId, NodeId, OperationId},
    operation::Request,
    preflight::{Finding, Nodes, Told, blocking, concerns, examine, examined},
};
use soloist_proto::{
    errors::{NO_LEADER, PREFLIGHT, Problem},
    v1,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::{
    reader::{Extras, Reading},
    shared::Shared,
};

/// How long agents may take to answer. A client waits for 8 s; on an idle host it takes 3 s at most, because members and agents
/// hear of it with their next beat.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether all have answered.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Compares the nodes of a fleet by what they say now, or by what they said last if they do not answer in time.
pub(crate) async fn preflight(shared: &Shared, fleet: &FleetId) -> Result<v1::PreflightReply, Status> {
    let (state, reading) = ask(shared, fleet).await?;
    Ok(reply(&state, fleet, reading))
}

/// Refuses an operation that a difference between the nodes stands in the way of.
///
/// What the nodes have said in the last minutes is good enough to let an operation pass, but not to refuse one, and not for an
/// upgrade: then they are asked.
pub(crate) async fn gate(
    shared: &Shared,
    fleet: &FleetId,
    operation: &OperationId,
    request: &Request,
) -> Result<(), Status> {
    let known = |state: &State| state.fleets.get(fleet)?.operation(operation).map(|_| ());
    if !concerns(request) || shared.raft.storage().read(|state, _| known(state)).is_some() {
        return Ok(());
    }
    if !matches!(request, Request::Upgrade { .. }) {
        let reading = shared.read(Some(fleet), Extras { facts: true, ..Extras::NONE }).await;
        let state = shared.project(fleet, &reading)?;
        let nodes = told(&state, fleet, &reading);
        if !nodes.values().any(Option::is_none)
            && blocking(&findings(&state, fleet, &nodes), request).is_none()
        {
            return Ok(());
        }
    }
    let (state, reading) = ask(shared, fleet).await?;
    match blocking(&findings(&state, fleet, &told(&state, fleet, &reading)), request) {
        None => Ok(()),
        Some(finding) => {
            let text = format!("preflight found a problem ({}): {}", finding.check, finding.text);
            let hint = format!("{}; see all with soloist preflight, or add --skip-preflight", finding.remedy);
            Err(Problem::new(Code::FailedPrecondition, PREFLIGHT, text, hint).into())
        }
    }
}

/// Asks every agent in contact, and waits for the answers.
async fn ask(shared: &Shared, fleet: &FleetId) -> Result<(State, Reading), Status> {
    let deadline = Instant::now() + PATIENCE;
    let (mut asked, mut wanted) = (None, 0);
    loop {
        let leader = shared.raft.leader().map(|leader| leader.id);
        // A new leader knows nothing of what the one before was asked.
        let ask_facts = asked.is_none() || asked != leader;
        let reading = shared.read(Some(fleet), Extras { facts: true, ask_facts, ..Extras::NONE }).await;
        let stale = reading.freshness.stale;
        if ask_facts && !stale {
            (asked, wanted) = (reading.freshness.leader, reading.facts_wanted);
        }
        let state = shared.project(fleet, &reading)?;
        let over = Instant::now() >= deadline;
        if !stale && (over || answered(&state, fleet, &reading, wanted)) {
            return Ok((state, reading));
        }
        if over {
            let text = "only a leader knows what the nodes say about themselves, and none answers";
            return Err(Problem::new(Code::Unavailable, NO_LEADER, text, "ask again in a moment").into());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Whether every node whose agent is in contact has answered.
fn answered(state: &State, fleet: &FleetId, reading: &Reading, wanted: u64) -> bool {
    let Some(found) = state.fleets.get(fleet) else { return true };
    found.nodes.keys().all(|node| {
        let heard = reading.heard(fleet, node).is_some_and(|ago| ago <= found.policy.contact_timeout);
        !heard || reading.facts(node).is_some_and(|told| told.answers >= wanted)
    })
}

/// What each node of the fleet has told.
fn told(state: &State, fleet: &FleetId, reading: &Reading) -> Nodes {
    let names = state.fleets.get(fleet).into_iter().flat_map(|found| found.nodes.keys());
    let told = |node: &NodeId| Told::try_from(reading.facts(node)?.clone()).ok();
    names.map(|node| (node.clone(), told(node))).collect()
}

fn findings(state: &State, fleet: &FleetId, nodes: &Nodes) -> Vec<Finding> {
    state.fleets.get(fleet).map(|found| examine(found, nodes)).unwrap_or_default()
}

fn reply(state: &State, fleet: &FleetId, reading: Reading) -> v1::PreflightReply {
    let nodes = told(state, fleet, &reading);
    let checks = state.fleets.get(fleet).map(|found| examined(found, &nodes)).unwrap_or_default();
    v1::PreflightReply {
        findings: findings(state, fleet, &nodes).into_iter().map(Into::into).collect(),
        checks: checks.into_iter().map(str::to_owned).collect(),
        nodes: nodes
            .keys()
            .map(|node| v1::NodePreflight { node: node.to_string(), told: reading.facts(node).cloned() })
            .collect(),
        freshness: Some(reading.freshness),
    }
}
