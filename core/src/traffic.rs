//! Which nodes are given to users, and how that is made so.
//!
//! | how users reach the fleet | kept away from a node | proof of it |
//! |---|---|---|
//! | `direct` | never | none: a plan has no such step |
//! | `ready` | its agent answers 503 to `/ready` | the agent was asked and has said so |
//! | `balancer` | the agents beside the load balancers take it out | every one of them says that nothing is under way to it |

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::assignment::{AppState, Run, Spec};
use crate::condition::{Condition, waiting};
use crate::ids::NodeId;
use crate::operation::{Blocked, Operation, Step};
use crate::policy::Traffic;
use crate::rule::Rule;
use crate::state::{Fleet, Node};
use crate::time::Millis;

/// What a balancer must do with a fleet's nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct TrafficSpec {
    /// Whether each node is given to users.
    pub servers: BTreeMap<NodeId, bool>,
    /// How long what is under way to a node that is taken out may go on before it is cut.
    pub within: Millis,
}

/// What a balancer does with a node at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerSeen {
    /// It is given to users.
    In,
    /// Nothing new comes to it; something is still under way.
    Draining,
    /// Nothing comes to it and nothing is under way.
    Out {
        /// How many connections were cut at the deadline.
        cut: u64,
    },
}

/// Nodes that the operation keeps users away from: drained, and not started again yet.
pub(crate) fn drained(operation: &Operation) -> BTreeSet<&NodeId> {
    let at = usize::try_from(operation.cursor).unwrap_or(usize::MAX);
    let mut drained = BTreeSet::new();
    for step in operation.plan.iter().take(at.saturating_add(1)) {
        match step {
            Step::Drained { nodes } => drained.extend(nodes),
            Step::Serving { nodes, .. } => drained.retain(|node| !nodes.contains(node)),
            Step::Reachable { .. }
            | Step::Checked { .. }
            | Step::Empty { .. }
            | Step::Quiet { .. }
            | Step::Stopped { .. }
            | Step::Granted
            | Step::Released
            | Step::Task { .. }
            | Step::Converted { .. }
            | Step::Proved { .. }
            | Step::Approved
            | Step::InService
            | Step::HolderGone => {}
        }
    }
    drained
}

/// What every balancer of the fleet must do, where the nodes must do this.
pub(crate) fn servers(fleet: &Fleet, specs: &BTreeMap<NodeId, Spec>) -> TrafficSpec {
    let given = |name: &NodeId, node: &Node| {
        let serves = node.observed.as_ref().is_some_and(|seen| seen.app == AppState::Serving);
        serves && specs.get(name).is_some_and(|spec| spec.run != Run::Stop && !spec.hold)
    };
    let servers = fleet.nodes.iter().map(|(name, node)| (name.clone(), given(name, node))).collect();
    TrafficSpec { servers, within: fleet.policy.drain_timeout }
}

/// A plan with what keeps users away from nodes before they are stopped, and brings them back at its end.
///
/// # Errors
/// When the fleet says that load balancers are steered, and no agent has registered for one.
pub(crate) fn with_traffic(fleet: &Fleet, steps: Vec<Step>) -> Result<Vec<Step>, String> {
    if fleet.policy.traffic == Traffic::Direct || !steps.iter().any(moves) {
        return Ok(steps);
    }
    let steered = fleet.policy.traffic == Traffic::Balancer;
    if steered && fleet.balancers.is_empty() {
        return Err("the fleet's policy says traffic = \"balancer\", and no load balancer has an agent: start one with a \
                    [balancer] table beside each, or change the policy"
            .into());
    }
    let (mut planned, mut stopped, mut back) = (Vec::new(), false, false);
    for step in steps {
        match step {
            Step::Reachable { mut nodes, absent_ok: false } if steered => {
                nodes.extend(fleet.balancers.keys().cloned());
                planned.push(Step::Reachable { nodes, absent_ok: false });
            }
            Step::Stopped { nodes } => {
                // Users have what was stopped before, and not only its start.
                stopped = true;
                if std::mem::take(&mut back) {
                    planned.push(Step::InService);
                }
                planned.push(Step::Drained { nodes: nodes.clone() });
                planned.push(Step::Stopped { nodes });
            }
            step => {
                back |= steered && stopped && matches!(step, Step::Serving { .. });
                planned.push(step);
            }
        }
    }
    close_traffic(fleet, &mut planned);
    Ok(planned)
}

/// Whether a step stops or starts nodes.
fn moves(step: &Step) -> bool {
    matches!(step, Step::Stopped { .. } | Step::Serving { .. })
}

/// Ends a plan that starts nodes with their return to users.
pub(crate) fn close_traffic(fleet: &Fleet, steps: &mut Vec<Step>) {
    let starts = steps.iter().any(|step| matches!(step, Step::Serving { .. }));
    if fleet.policy.traffic == Traffic::Balancer && starts {
        steps.push(Step::InService);
    }
}

/// Whether users are kept away from these nodes, by every proof that the fleet's way of traffic has.
pub(crate) fn is_drained(fleet: &Fleet, operation: &Operation, nodes: &[NodeId]) -> Condition {
    if !Rule::DrainIsProven.holds() {
        return Condition::Met;
    }
    match fleet.policy.traffic {
        Traffic::Direct => Condition::Met,
        Traffic::Ready => {
            let away = |name: &&NodeId| fleet.nodes.get(*name).is_none_or(is_away);
            let left = nodes.iter().filter(|name| operation.takes_part(name));
            let missing: Vec<&NodeId> = left.filter(|name| !away(name)).collect();
            if missing.is_empty() {
                return Condition::Met;
            }
            let open = |name: &&NodeId| {
                Some(((*name).clone(), fleet.nodes.get(*name)?.observed.as_ref()?.unsteered.clone()?))
            };
            if let Some((name, why)) = missing.iter().find_map(open) {
                return Condition::Stuck(Blocked::Traffic(name, why));
            }
            waiting(operation, &missing, "its load balancer to ask /ready and be told 503", true)
        }
        Traffic::Balancer => {
            let out = |balancer: &Node| {
                let seen = balancer.observed.as_ref().filter(|_| balancer.acknowledged());
                let is_out =
                    |name| matches!(seen?.servers.get(name), Some(ServerSeen::Out { .. })).then_some(());
                nodes.iter().all(|name| is_out(name).is_some())
            };
            each(fleet, operation, out, "it to take the nodes out")
        }
    }
}

/// Whether every balancer gives users what it should.
pub(crate) fn is_in_service(fleet: &Fleet, operation: &Operation) -> Condition {
    if fleet.policy.traffic != Traffic::Balancer {
        return Condition::Met;
    }
    each(fleet, operation, follows, "it to bring the nodes back")
}

/// Whether a balancer does what it was last told.
fn follows(balancer: &Node) -> bool {
    let Some(seen) = balancer.observed.as_ref().filter(|_| balancer.acknowledged()) else { return false };
    let Some(spec) = &balancer.assignment.spec.traffic else { return false };
    spec.servers.iter().all(|(name, given)| match seen.servers.get(name) {
        Some(ServerSeen::In) => *given,
        Some(ServerSeen::Draining) | None => false,
        Some(ServerSeen::Out { .. }) => !*given,
    })
}

/// Waits until something is true of every balancer; one that cannot be steered blocks.
fn each(fleet: &Fleet, operation: &Operation, done: impl Fn(&Node) -> bool, what: &str) -> Condition {
    // One that is said to be off sends nobody.
    let missing =
        fleet.balancers.iter().filter(|(_, balancer)| balancer.assumed.is_none() && !done(balancer));
    let missing: Vec<(&NodeId, &Node)> = missing.collect();
    for (name, balancer) in &missing {
        let seen = balancer.observed.as_ref().filter(|_| !operation.absent.contains(name));
        if let Some(why) = seen.and_then(|seen| seen.unsteered.clone()) {
            return Condition::Stuck(Blocked::Traffic((*name).clone(), why));
        }
    }
    if missing.is_empty() {
        return Condition::Met;
    }
    let names: Vec<&NodeId> = missing.into_iter().map(|(name, _)| name).collect();
    waiting(operation, &names, what, true)
}

/// Whether nobody is sent to a node any more, as far as its agent can tell. An app that does not serve gets nobody.
fn is_away(node: &Node) -> bool {
    if node.stop_evidence.is_some() {
        return true;
    }
    let Some(seen) = &node.observed else { return false };
    node.acknowledged() && (seen.app != AppState::Serving || seen.away)
}

/// Whether some balancer may still send users to this node.
pub(crate) fn may_be_given(fleet: &Fleet, name: &NodeId) -> bool {
    let out = |balancer: &Node| {
        let seen = balancer.observed.as_ref();
        seen.is_some_and(|seen| matches!(seen.servers.get(name), Some(ServerSeen::Out { .. })))
    };
    !fleet.balancers.values().all(|balancer| balancer.assumed.is_some() || out(balancer))
}
