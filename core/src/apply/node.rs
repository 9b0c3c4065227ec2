//! Registrations and reports of agents.

use std::collections::BTreeMap;

use crate::advance::Now;
use crate::apply::Reply;
use crate::apply::{fence, gone};
use crate::assignment::{AppState, Assignment, Observed, Run, Spec};
use crate::command::{Registration, Role};
use crate::event::EventKind;
use crate::ids::{FleetId, Generation, Incarnation, NodeId};
use crate::journal::Journal;
use crate::policy::{BALANCERS_MAX, FLEETS_MAX, NODES_MAX, Policy};
use crate::quiet::newly_cut;
use crate::reject::Rejection;
use crate::rule::Rule;
use crate::state::{Fleet, Node, State};
use crate::traffic::ServerSeen;

/// Makes the fleet of a first registration.
pub(super) fn enrol(state: &mut State, id: &FleetId, policy: &Policy) -> Result<(), Rejection> {
    if state.fleets.contains_key(id) {
        return Ok(());
    }
    if state.fleets.len() >= FLEETS_MAX {
        return Err(Rejection::Full { what: "fleets".into(), max: FLEETS_MAX as u64 });
    }
    // In a cluster that comes from a backup it may have been there before, and be in the middle of something.
    let fleet = Fleet { policy: policy.clone(), restored: state.restored, ..Fleet::default() };
    state.fleets.insert(id.clone(), fleet);
    Ok(())
}

/// Begins a run of an agent. `rival` says that the registered run is heard at this moment. What it is given from now on is numbered above this entry, so that whatever was on its
/// way to an earlier run is void.
pub(super) fn register(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &NodeId,
    registration: &Registration,
    rival: bool,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    if fleet.agent(name).is_none() {
        gone::may_come(id, fleet, name, registration)?;
    }
    let generation = Generation(now.index);
    let lock = fleet.lock.holder().cloned();
    let (agents, others, what, max) = match registration.role {
        Role::App => (&mut fleet.nodes, &fleet.balancers, "nodes", NODES_MAX),
        Role::Balancer => (&mut fleet.balancers, &fleet.nodes, "load balancers", BALANCERS_MAX),
    };
    if others.contains_key(name) {
        return Err(Rejection::OtherRole { fleet: id.clone(), node: name.clone(), role: registration.role });
    }
    if !agents.contains_key(name) {
        if agents.len() >= max {
            return Err(Rejection::Full { what: format!("{what} of fleet \"{id}\""), max: max as u64 });
        }
        let assignment = Assignment { generation, token: fleet.lock.token(), spec: Spec::default() };
        let node = Node {
            machine: registration.machine.clone(),
            boot: registration.boot.clone(),
            address: registration.address.clone(),
            incarnation: registration.incarnation,
            registered: generation,
            sequence: 0,
            assignment,
            stop_since: Some(generation),
            stop_evidence: None,
            observed: None,
            assumed: None,
            fences: BTreeMap::new(),
            admitted: false,
            stale_wall_ms: None,
            drained: false,
            returned: true,
            heard: now.time,
        };
        agents.insert(name.clone(), node);
        journal.node(lock.as_ref(), name, EventKind::Enrolled);
        return Ok(Reply::Registered { floor: generation });
    }
    let Some(node) = agents.get_mut(name) else { return Ok(Reply::Unchanged) };
    if node.incarnation == registration.incarnation {
        return Ok(Reply::Registered { floor: node.registered });
    }
    // A run that knows the registered one as its own past goes on where that one stood. Any other remembers nothing
    // that counts; it may take over when the registered one is silent and no app can be left behind elsewhere.
    // A ledger that turns up on another machine is a copy until the original is known to be silent and stopped.
    let succeeds = registration.lineage.contains(&node.incarnation) && node.machine == registration.machine;
    if !succeeds {
        let (fleet, name, machine) = (id.clone(), name.clone(), node.machine.clone());
        if rival && registration.fresh {
            return Err(Rejection::Rival { fleet, node: name });
        }
        if rival {
            return Err(Rejection::OtherAgent { fleet, node: name, machine });
        }
        if node.machine != registration.machine && node.stop_evidence.is_none() {
            return Err(Rejection::OtherMachine { fleet, node: name, machine });
        }
    }
    let rebooted = node.boot != registration.boot;
    if rebooted {
        // Nothing of the app can have survived; it waits to be started in order.
        node.admitted = false;
    }
    if !succeeds {
        // An agent that does not remember it cannot have acknowledged anything.
        node.stop_evidence = None;
        node.stop_since = node.stop_since.map(|_| generation);
    }
    node.returned |= !node.admitted;
    node.machine = registration.machine.clone();
    node.boot = registration.boot.clone();
    node.address = registration.address.clone();
    node.incarnation = registration.incarnation;
    node.registered = generation;
    node.sequence = 0;
    node.assignment.generation = generation;
    node.heard = now.time;
    let kind = EventKind::Returned { rebooted, ledger_lost: !succeeds };
    journal.node(lock.as_ref(), name, kind);
    gone::speaks_again(fleet, name, journal);
    fence::speaks_again(fleet, name, journal);
    Ok(Reply::Registered { floor: generation })
}

/// Takes a report, and with it evidence, or withdraws it.
#[expect(clippy::too_many_arguments, reason = "one argument per field of the command")]
pub(super) fn report(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &NodeId,
    incarnation: Incarnation,
    sequence: u64,
    observed: &Observed,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    let lock = fleet.lock.holder().cloned();
    let steers = fleet.balancers.contains_key(name);
    let Some(node) = fleet.agent_mut(name) else {
        let known = fleet.agents().map(|(name, _)| name.clone()).collect();
        return Err(Rejection::UnknownNode { fleet: id.clone(), node: name.clone(), known });
    };
    if node.incarnation != incarnation {
        return Err(Rejection::Superseded { fleet: id.clone(), node: name.clone() });
    }
    if Rule::ReportsInOrder.holds() && sequence <= node.sequence {
        return Ok(Reply::Unchanged);
    }
    node.sequence = node.sequence.max(sequence);
    node.heard = now.time;
    gone::speaks_again(fleet, name, journal);
    fence::speaks_again(fleet, name, journal);
    fence::carried(fleet, name, observed, journal);
    let Some(node) = fleet.agent_mut(name) else { return Ok(Reply::Unchanged) };
    if steers {
        for what in news(node.observed.as_ref(), observed) {
            journal.node(lock.as_ref(), name, EventKind::Traffic(what));
        }
    } else if node.observed.as_ref().is_none_or(|before| before.app != observed.app) {
        journal.node(lock.as_ref(), name, EventKind::App(words(&observed.app)));
    }
    if node.stale() != observed.stale {
        let what = match observed.stale.as_slice() {
            [] => "has loaded what it should again".to_owned(),
            stale => format!("stale: {}", stale.join("; ")),
        };
        journal.node(lock.as_ref(), name, EventKind::Stale(what));
    }
    node.stale_wall_ms = (!observed.stale.is_empty()).then(|| node.stale_wall_ms.unwrap_or(now.wall_ms));
    if let Some(what) = newly_cut(node.observed.as_ref(), observed) {
        journal.node(lock.as_ref(), name, EventKind::CutOff(what));
    }
    let evidence = evidence(node, observed).filter(|_| !steers);
    if evidence.is_some() {
        node.stop_evidence = node.stop_evidence.or(evidence);
    } else if contradicts(observed) && Rule::EvidenceIsWithdrawn.holds() {
        node.stop_evidence = None;
    }
    // It is not known while the app's settings are being read.
    let processes = observed.processes.or_else(|| node.observed.as_ref()?.processes);
    node.observed = Some(Observed { processes, ..observed.clone() });
    holders_seen(fleet, now);
    if let Some(operation) = fleet.current_mut() {
        operation.absent.retain(|absent| absent != name);
    }
    Ok(Reply::Done)
}

/// What has changed in the way that a load balancer sends its users, for people.
fn news(before: Option<&Observed>, now: &Observed) -> Vec<String> {
    let mut news = Vec::new();
    for (name, seen) in &now.servers {
        let same = before.and_then(|before| before.servers.get(name)) == Some(seen);
        match seen {
            ServerSeen::In if !same => news.push(format!("{name} is given to users")),
            ServerSeen::Out { cut: 0 } if !same => news.push(format!("{name} is out")),
            ServerSeen::Out { cut } if !same => {
                news.push(format!("{name} is out, {cut} connections were cut"));
            }
            ServerSeen::In | ServerSeen::Draining | ServerSeen::Out { .. } => {}
        }
    }
    match (before.and_then(|before| before.unsteered.as_ref()), &now.unsteered) {
        (before, Some(why)) if before != Some(why) => news.push(format!("cannot be steered: {why}")),
        (Some(_), None) => news.push("can be steered again".to_owned()),
        _ => {}
    }
    news
}

/// The `Stop` that this report acknowledges with nothing running.
fn evidence(node: &Node, observed: &Observed) -> Option<Generation> {
    if node.assignment.spec.run != Run::Stop {
        return None;
    }
    let since = node.stop_since?;
    let nothing_foreign = observed.foreign.is_empty() || !Rule::ForeignBlocks.holds();
    let stopped = match &observed.app {
        AppState::Stopped => observed.applied >= since,
        AppState::Crashed(_) => !Rule::CrashIsNoEvidence.holds(),
        AppState::Refused(_)
        | AppState::Starting
        | AppState::Serving
        | AppState::Failed(_)
        | AppState::Stopping => false,
    };
    (stopped && nothing_foreign).then_some(observed.applied)
}

fn contradicts(observed: &Observed) -> bool {
    observed.app.may_run() || !observed.foreign.is_empty()
}

/// What the report says of a lost holder's processes.
fn holders_seen(fleet: &mut Fleet, now: Now) {
    let Some(operation) = fleet.current() else { return };
    let (Some(token), Some(host)) = (operation.token, operation.host_node.clone()) else { return };
    let seen = fleet.nodes.get(&host).and_then(|node| node.observed.as_ref());
    let runs = seen.is_some_and(|seen| seen.holders.contains(&token));
    let Some(holder) = fleet.current_mut().and_then(|operation| operation.holder.as_mut()) else { return };
    holder.seen |= runs;
    if holder.lost && holder.seen && !runs {
        holder.ended.get_or_insert(now.time);
    } else if runs {
        holder.ended = None;
    }
}

fn words(app: &AppState) -> String {
    match app {
        AppState::Stopped => "stopped".into(),
        AppState::Refused(why) => format!("refused: {why}"),
        AppState::Starting => "starting".into(),
        AppState::Serving => "serving".into(),
        AppState::Failed(why) => format!("failed: {why}"),
        AppState::Stopping => "stopping".into(),
        AppState::Crashed(how) => format!("ended by itself: {how}"),
    }
}
