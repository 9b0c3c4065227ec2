//! Which node runs alone, and which ones come first.

use crate::assignment::AppState;
use crate::ids::NodeId;
use crate::state::Fleet;

/// The fleet's nodes: first those that the policy names, in its order, then the others by name.
pub(crate) fn ordered(fleet: &Fleet) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = fleet.nodes.keys().cloned().collect();
    let place = |node: &NodeId| fleet.policy.order.iter().position(|named| named == node);
    nodes.sort_by_key(|node| place(node).unwrap_or(usize::MAX));
    nodes
}

/// The node that runs alone: the one that was asked for, else the caller's own host, else the best of those that serve users, or of
/// all if none does.
pub(crate) fn choose_solo(fleet: &Fleet, asked: Option<&NodeId>, host: Option<&NodeId>) -> Option<NodeId> {
    let known = |node: &&NodeId| fleet.nodes.contains_key(*node);
    if let Some(node) = asked.filter(known).or(host.filter(known)) {
        return Some(node.clone());
    }
    let serves = |name: &NodeId| {
        let Some(node) = fleet.nodes.get(name) else { return false };
        !node.drained && matches!(&node.observed, Some(seen) if seen.app == AppState::Serving)
    };
    let nodes = ordered(fleet);
    let serving: Vec<NodeId> = nodes.iter().filter(|name| serves(name)).cloned().collect();
    best(fleet, if serving.is_empty() { &nodes } else { &serving })
}

/// Which of these, in the fleet's order, comes first: one that the policy names, else the one that ran alone last.
pub(crate) fn best(fleet: &Fleet, nodes: &[NodeId]) -> Option<NodeId> {
    let first = nodes.first()?;
    let solo = fleet.last_solo.as_ref().filter(|solo| nodes.contains(solo));
    Some(solo.filter(|_| !fleet.policy.order.contains(first)).unwrap_or(first).clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::{Assignment, Observed, Spec};
    use crate::ids::{BootId, Generation, Incarnation, MachineId};
    use crate::policy::Policy;
    use crate::state::Node;
    use crate::time::Time;

    fn name(number: usize) -> NodeId {
        NodeId::new(format!("node-{number}")).unwrap()
    }

    /// Three nodes that serve.
    fn fleet(order: &[usize]) -> Fleet {
        let node = || Node {
            machine: MachineId(String::new()),
            boot: BootId(String::new()),
            address: String::new(),
            incarnation: Incarnation(1),
            registered: Generation(1),
            sequence: 1,
            assignment: Assignment { generation: Generation(1), token: None, spec: Spec::default() },
            stop_since: None,
            stop_evidence: None,
            observed: Some(Observed { app: AppState::Serving, ..Observed::default() }),
            assumed: None,
            fences: std::collections::BTreeMap::new(),
            stale_wall_ms: None,
            drained: false,
            admitted: true,
            returned: false,
            heard: Time(0),
        };
        let nodes = (1..=3).map(|number| (name(number), node())).collect();
        let policy = Policy { order: order.iter().copied().map(name).collect(), ..Policy::default() };
        Fleet { nodes, policy, last_solo: Some(name(2)), ..Fleet::default() }
    }

    #[test]
    fn named_nodes_come_first_and_others_by_name() {
        assert_eq!(ordered(&fleet(&[])), [1, 2, 3].map(name));
        assert_eq!(ordered(&fleet(&[3, 9, 2])), [3, 2, 1].map(name), "one that is not there is passed over");
    }

    #[test]
    fn who_runs_alone() {
        let mut known = fleet(&[]);
        assert_eq!(choose_solo(&known, Some(&name(1)), Some(&name(3))), Some(name(1)), "asked for");
        assert_eq!(choose_solo(&known, Some(&name(9)), Some(&name(3))), Some(name(3)), "the caller's host");
        assert_eq!(choose_solo(&known, None, None), Some(name(2)), "as the last time");
        known.policy.order = vec![name(3)];
        assert_eq!(choose_solo(&known, None, None), Some(name(3)), "preferred");
        known.nodes.get_mut(&name(3)).unwrap().drained = true;
        assert_eq!(choose_solo(&known, None, None), Some(name(2)), "nobody's users are on a drained one");
        known.nodes.values_mut().for_each(|node| node.observed = None);
        assert_eq!(choose_solo(&known, None, None), Some(name(3)), "none serves");
        assert_eq!(choose_solo(&Fleet::default(), None, None), None);
    }
}
