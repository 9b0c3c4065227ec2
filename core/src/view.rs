//! The read model: what the command line, programs and the dashboard are told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::advance::{Now, settled};
use crate::apply::sign::frozen;
use crate::assignment::{AppState, Run};
use crate::choices::choices;
use crate::condition::{Condition, Wait, condition};
use crate::due::Contact;
use crate::fence::Covers;
use crate::ids::{FleetId, MachineId, NodeId, OperationId, Token};
use crate::operation::{Operation, Status};
use crate::outage::{expected, parts};
use crate::policy::Traffic;
use crate::restore::Restored;
use crate::state::{DatabaseRecord, Desired, Fleet, Freeze, Lock, Node, State};
use crate::time::{Millis, Time};
use crate::traffic::ServerSeen;

/// A fleet as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetView {
    /// Its name.
    pub fleet: FleetId,
    /// Whether it was ever started.
    pub active: bool,
    /// Whether it should run.
    pub desired: Desired,
    /// Its database.
    pub database: Option<DatabaseRecord>,
    /// How often its policy was changed.
    pub policy_version: u64,
    /// The state's time at which this was true.
    pub now: Time,
    /// Who holds the lock.
    pub lock: LockView,
    /// Its nodes, by name.
    pub nodes: Vec<NodeView>,
    /// Its load balancers that have an agent, by name.
    pub balancers: Vec<BalancerView>,
    /// The stop sign for new operations, while it holds.
    pub freeze: Option<Freeze>,
    /// Set while it comes from a backup of the coordinators and nobody has looked at it since.
    pub restored: Option<Restored>,
    /// The operation that holds the lock.
    pub current: Option<OperationView>,
    /// Operations that wait, in order.
    pub queue: Vec<OperationView>,
}

/// The lock as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// Whether it is held.
    pub held: bool,
    /// The operation that holds it.
    pub operation: Option<OperationId>,
    /// The fencing token.
    pub token: Option<Token>,
    /// For how long.
    pub age: Option<Millis>,
    /// Since when by the wall clock, milliseconds since 1970.
    pub since_wall_ms: Option<u64>,
    /// Who asked.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// A node as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub node: NodeId,
    /// Its machine.
    pub machine: MachineId,
    /// Its agent's HTTP address.
    pub address: String,
    /// How it should run: `stop`, `plain` or `migrate`.
    pub wanted: String,
    /// What its agent last saw: `stopped`, `starting`, `serving`, …; `unknown` before the first report.
    pub app: String,
    /// More about that: a reason, or the app's own progress.
    pub detail: String,
    /// Whether it is proven to be stopped.
    pub proven_stopped: bool,
    /// Whether its agent has acknowledged what it should be.
    pub acknowledged: bool,
    /// How long ago its agent was heard; `None` if this member does not know.
    pub heard: Option<Millis>,
    /// Whether it counts as out of contact.
    pub lost: bool,
    /// Version of its code.
    pub code: Option<String>,
    /// Whether a person keeps users away from it.
    pub drained: bool,
    /// Who says that its machine is off, and why; `None` if nobody does.
    pub assumed: Option<String>,
    /// The fences around it, and those that could be put up.
    pub fences: Vec<FenceView>,
    /// In what the plugins that its app has loaded differ from those that it should have.
    pub stale: Vec<String>,
    /// Since when they do, milliseconds since 1970.
    pub stale_wall_ms: Option<u64>,
    /// Foreign processes, and database sessions of nobody in the fleet, in words.
    pub foreign: Vec<String>,
}

/// A fence as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceView {
    /// What it keeps the node from.
    pub covers: Covers,
    /// `wanted`, `holds`, `lifting`, `armed` (it could be put up), or `unarmed`.
    pub state: String,
    /// The agent that carries it out, or could.
    pub carrier: NodeId,
    /// Who asked for it and why, or why it is not carried out, or would not hold; empty if there is nothing to say.
    pub detail: String,
}

/// A load balancer as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerView {
    /// Its agent's name.
    pub node: NodeId,
    /// Its agent's HTTP address.
    pub address: String,
    /// Whether its agent has acknowledged what it should do.
    pub acknowledged: bool,
    /// How long ago its agent was heard; `None` if this member does not know.
    pub heard: Option<Millis>,
    /// Whether it counts as out of contact.
    pub lost: bool,
    /// What it does with each node.
    pub servers: BTreeMap<NodeId, ServerSeen>,
    /// Why it cannot be steered.
    pub unsteered: Option<String>,
    /// Who says that its machine is off, and why; `None` if nobody does.
    pub assumed: Option<String>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// The step in words.
    pub step: String,
    /// `done`, `left` (the operation took another way), `now` or `ahead`.
    pub state: String,
    /// How long it took, or has taken so far.
    pub took: Option<Millis>,
    /// How long steps of its kind took in this fleet; `None` if there was none.
    pub expected: Option<Millis>,
    /// What each node found, if the step verified them.
    pub found: BTreeMap<NodeId, String>,
}

/// The time in which no node was there for users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutageView {
    /// How long it was, or is so far.
    pub took: Millis,
    /// Whether it is over.
    pub over: bool,
    /// On what it went: steps with their shares, which add up to it.
    pub parts: Vec<(String, Millis)>,
    /// What users saw meanwhile, for people.
    pub users_saw: String,
}

/// An operation as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// Its id.
    pub id: OperationId,
    /// What was asked for.
    pub request: String,
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// One word for where it stands.
    pub status: String,
    /// Why it is blocked, or why it ended early.
    pub detail: String,
    /// The same as one word for programs: see [`Blocked::word`], or `not_granted`; empty if there is nothing to explain.
    pub cause: String,
    /// What can be done about it, a line each.
    pub choices: Vec<String>,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// Its steps.
    pub steps: Vec<StepView>,
    /// The outage that it made, if it stopped all nodes.
    pub outage: Option<OutageView>,
    /// Since when users may have written to what an upgrade made, milliseconds since 1970.
    pub writes_since_wall_ms: Option<u64>,
    /// Number of the current attempt.
    pub attempt: u32,
    /// The token of its lock.
    pub token: Option<Token>,
    /// The solo node, or the one that starts first.
    pub solo: Option<NodeId>,
    /// Whether the exclusive part has begun.
    pub granted: bool,
    /// Whether the holder's lease was lost.
    pub holder_lost: bool,
    /// Whether it is over.
    pub ended: bool,
    /// Nodes that were left out, with the reason.
    pub left_out: BTreeMap<NodeId, String>,
    /// When it was asked for, milliseconds since 1970.
    pub submitted_wall_ms: u64,
    /// Since it was asked for, or how long it took.
    pub age: Millis,
}

/// The view of one fleet.
pub fn view(state: &State, id: &FleetId, contact: &Contact) -> Option<FleetView> {
    let fleet = state.fleets.get(id)?;
    let nodes =
        fleet.nodes.iter().map(|(name, node)| node_view(state, (id, fleet), name, node, contact)).collect();
    let balancers = fleet.balancers.iter();
    let balancers = balancers.map(|(name, node)| balancer_view(state, id, name, node, contact)).collect();
    let queue = fleet.queue.iter().filter_map(|name| fleet.operation(name));
    Some(FleetView {
        fleet: id.clone(),
        active: fleet.active,
        desired: fleet.desired,
        database: fleet.database.clone(),
        policy_version: fleet.policy_version,
        now: state.now,
        lock: lock_view(state, fleet),
        nodes,
        balancers,
        freeze: frozen(fleet, state.now).cloned(),
        restored: fleet.restored,
        current: fleet.current().map(|operation| operation_view(state, fleet, operation)),
        queue: queue.map(|operation| operation_view(state, fleet, operation)).collect(),
    })
}

fn lock_view(state: &State, fleet: &Fleet) -> LockView {
    let operation = fleet.current();
    match &fleet.lock {
        Lock::Free => LockView {
            held: false,
            operation: None,
            token: None,
            age: None,
            since_wall_ms: None,
            by: None,
            reason: None,
        },
        Lock::Held { operation: id, token, since, since_wall_ms } => LockView {
            held: true,
            operation: Some(id.clone()),
            token: Some(*token),
            age: Some(state.now.since(*since)),
            since_wall_ms: Some(*since_wall_ms),
            by: operation.map(|operation| operation.by.clone()),
            reason: operation.map(|operation| operation.reason.clone()),
        },
    }
}

fn node_view(
    state: &State,
    (id, fleet): (&FleetId, &Fleet),
    name: &NodeId,
    node: &Node,
    contact: &Contact,
) -> NodeView {
    let seen = node.observed.as_ref();
    let (app, mut detail) = match seen.map(|seen| &seen.app) {
        None => ("unknown", String::new()),
        Some(AppState::Stopped) => ("stopped", String::new()),
        Some(AppState::Refused(why)) => ("refused", why.clone()),
        Some(AppState::Starting) => ("starting", contact.progress(id, name).unwrap_or_default()),
        Some(AppState::Serving) => ("serving", String::new()),
        Some(AppState::Failed(why)) => ("failed", why.clone()),
        Some(AppState::Stopping) => ("stopping", String::new()),
        Some(AppState::Crashed(how)) => ("crashed", how.clone()),
    };
    if detail.is_empty()
        && let Some(why) = seen.and_then(|seen| {
            seen.by_hand.clone().or_else(|| seen.unsteered.clone()).or_else(|| seen.unproved.clone())
        })
    {
        detail = why;
    }
    NodeView {
        node: name.clone(),
        machine: node.machine.clone(),
        address: node.address.clone(),
        wanted: match node.assignment.spec.run {
            Run::Stop => "stop".into(),
            Run::Plain => "plain".into(),
            Run::Single => "single".into(),
            Run::Migrate(_) => "migrate".into(),
        },
        app: app.into(),
        detail,
        proven_stopped: node.stop_evidence.is_some() && node.assumed.is_none(),
        acknowledged: node.acknowledged(),
        heard: contact.last(id, name).map(|at| state.now.since(at)),
        lost: contact.lost(id, name, state, state.now),
        code: seen.and_then(|seen| seen.code.as_ref()).map(ToString::to_string),
        drained: node.drained,
        assumed: assumed(node),
        fences: fences(fleet, name, node),
        stale: node.stale().to_vec(),
        stale_wall_ms: node.stale_wall_ms,
        foreign: seen
            .iter()
            .flat_map(|seen| {
                let sessions = seen.sessions.iter().map(ToString::to_string);
                seen.foreign.iter().map(ToString::to_string).chain(sessions)
            })
            .collect(),
    }
}

fn balancer_view(state: &State, id: &FleetId, name: &NodeId, node: &Node, contact: &Contact) -> BalancerView {
    let seen = node.observed.as_ref();
    BalancerView {
        node: name.clone(),
        address: node.address.clone(),
        acknowledged: node.acknowledged(),
        heard: contact.last(id, name).map(|at| state.now.since(at)),
        lost: contact.lost(id, name, state, state.now),
        servers: seen.map(|seen| seen.servers.clone()).unwrap_or_default(),
        unsteered: seen.and_then(|seen| seen.unsteered.clone()),
        assumed: assumed(node),
    }
}

/// The fences around a node, and those that could be put up.
fn fences(fleet: &Fleet, name: &NodeId, node: &Node) -> Vec<FenceView> {
    let offers = fleet.agents().filter(|(carrier, _)| *carrier != name).flat_map(|(carrier, agent)| {
        let offers = agent.observed.iter().flat_map(|seen| &seen.fences);
        offers.filter(|offer| offer.node == *name).map(move |offer| (carrier, offer))
    });
    let possible =
        offers.filter(|(_, offer)| !node.fences.contains_key(&offer.covers)).map(|(carrier, offer)| {
            let state = if offer.unarmed.is_some() { "unarmed" } else { "armed" };
            let detail = offer.unarmed.clone().unwrap_or_default();
            FenceView { covers: offer.covers, state: state.into(), carrier: carrier.clone(), detail }
        });
    let put_up = node.fences.iter().map(|(covers, fence)| {
        let state = match (fence.up, fence.holds) {
            (true, true) => "holds",
            (true, false) => "wanted",
            (false, _) => "lifting",
        };
        let detail = fence.trouble.clone().unwrap_or_else(|| format!("by {}: {}", fence.by, fence.reason));
        FenceView { covers: *covers, state: state.into(), carrier: fence.carrier.clone(), detail }
    });
    put_up.chain(possible).collect()
}

/// Who says that a machine is off, in words.
fn assumed(node: &Node) -> Option<String> {
    node.assumed.as_ref().map(|assumed| format!("{}: {}", assumed.by, assumed.reason))
}

/// The view of one operation.
pub fn operation_view(state: &State, fleet: &Fleet, operation: &Operation) -> OperationView {
    let (promoted, level) = (state.promoted, state.level);
    let at = Now { index: 0, time: state.now, wall_ms: 0, promoted, level };
    let current = fleet.lock.holder() == Some(&operation.id);
    let waits = match current.then(|| condition(fleet, operation, settled(fleet, at))) {
        Some(Condition::Wait(waits)) => waits,
        Some(Condition::Met | Condition::Stuck(_) | Condition::Again | Condition::Hopeless(_)) | None => {
            Vec::new()
        }
    };
    OperationView {
        id: operation.id.clone(),
        request: operation.request.to_string(),
        by: operation.by.clone(),
        reason: operation.reason.clone(),
        status: operation.status.word().into(),
        detail: match &operation.status {
            Status::Blocked(blocked) => blocked.to_string(),
            Status::Aborted(why) | Status::RolledBack(why) => why.clone(),
            Status::Aborting => operation.aborting.clone().unwrap_or_default(),
            Status::Queued => "waits for the lock".into(),
            Status::Confirming(_) => "waits for its client to confirm".into(),
            Status::Running | Status::Succeeded => String::new(),
        },
        cause: match &operation.status {
            Status::Blocked(blocked) => blocked.word().into(),
            Status::Aborting | Status::Aborted(_) if operation.late => "not_granted".into(),
            _ => String::new(),
        },
        choices: choices(fleet, operation),
        waits,
        steps: steps(state, fleet, operation),
        outage: outage(state, fleet, operation),
        writes_since_wall_ms: operation.exposed_wall_ms,
        attempt: operation.attempt,
        token: operation.token,
        solo: operation.solo.clone(),
        granted: operation.granted.is_some(),
        holder_lost: operation.holder.as_ref().is_some_and(|holder| holder.lost),
        ended: operation.status.ended(),
        left_out: operation.left_out.clone(),
        submitted_wall_ms: operation.submitted_wall_ms,
        age: operation.ended.unwrap_or(state.now).since(operation.submitted),
    }
}

fn outage(state: &State, fleet: &Fleet, operation: &Operation) -> Option<OutageView> {
    let down = operation.down?;
    let until = operation.up.or(operation.ended).unwrap_or(state.now);
    let users_saw = match fleet.policy.traffic {
        Traffic::Direct => {
            "nothing answered: there is no load balancer that Soloist knows of, so connections were refused"
        }
        Traffic::Ready => "the load balancer found no node to send them to",
        Traffic::Balancer => "the maintenance page of the load balancer",
    };
    Some(OutageView {
        took: until.since(down),
        over: operation.up.is_some() || operation.ended.is_some(),
        parts: parts(operation, state.now),
        users_saw: users_saw.into(),
    })
}

fn steps(state: &State, fleet: &Fleet, operation: &Operation) -> Vec<StepView> {
    let mut steps: Vec<StepView> = operation
        .records
        .iter()
        .map(|record| StepView {
            step: record.step.clone(),
            state: if record.done { "done" } else { "left" }.into(),
            took: Some(record.ended.since(record.began)),
            expected: None,
            found: record.found.clone(),
        })
        .collect();
    if operation.status.ended() {
        return steps;
    }
    let at = usize::try_from(operation.cursor).unwrap_or(usize::MAX);
    for (position, step) in operation.plan.iter().enumerate().skip(at) {
        let now = position == at && operation.began.is_some();
        steps.push(StepView {
            step: step.to_string(),
            state: if now { "now" } else { "ahead" }.into(),
            took: now.then(|| state.now.since(operation.entered)),
            expected: expected(fleet, step),
            found: BTreeMap::new(),
        });
    }
    steps
}
