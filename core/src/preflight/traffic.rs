//! Whether users really are kept away from a node in the way that the fleet's policy says.

use super::{Finding, Nodes, check, known, names};
use crate::ids::NodeId;
use crate::policy::Traffic;
use crate::state::Fleet;
use crate::time::Millis;

/// Whoever decides where users are sent asks more often than that.
const ASKED_OLD: Millis = Millis::from_secs(30);

/// What speaks against the declared way.
pub(super) fn declared(fleet: &Fleet, nodes: &Nodes) -> Vec<Finding> {
    match fleet.policy.traffic {
        Traffic::Direct => Vec::new(),
        Traffic::Ready => asked(nodes).into_iter().chain(came(nodes)).collect(),
        Traffic::Balancer => steered(fleet),
    }
}

/// With `ready`, somebody must ask each node's `/ready`: else a node that says 503 gets its requests all the same.
fn asked(nodes: &Nodes) -> Vec<Finding> {
    let known = known(nodes);
    let never = known.iter().filter(|(_, told)| told.facts.asked.is_none_or(|ago| ago > ASKED_OLD));
    let never: Vec<NodeId> = never.map(|(node, _)| (*node).clone()).collect();
    if never.is_empty() {
        return Vec::new();
    }
    let text = format!(
        "nobody has asked /ready of {} for {ASKED_OLD}, and the policy says traffic = \"ready\"",
        names(&never)
    );
    let remedy = "let the load balancer check GET /ready at the agent's HTTP address (key http of its configuration), as deploy/haproxy \
                  does; or set traffic = \"direct\"";
    vec![Finding::problem(check::TRAFFIC, never, text, remedy)]
}

/// With `ready`, nobody may come to the app of a node that has said 503 for a while.
fn came(nodes: &Nodes) -> Vec<Finding> {
    let known = known(nodes);
    let come = known.iter().filter_map(|(node, told)| Some((node, told.facts.came.as_ref()?)));
    let come = come.filter(|(_, addresses)| !addresses.is_empty());
    let finding = |(node, addresses): (&&NodeId, &Vec<String>)| {
        let text = format!(
            "{node} says 503 to whoever asks /ready, and connections are opened to its app all the same, from {}",
            addresses.join(", ")
        );
        let remedy = "let the load balancer send nobody to a server whose check fails; if it is not the load balancer that comes, this does \
                      no harm";
        Finding::warning(check::TRAFFIC, vec![(*node).clone()], text, remedy)
    };
    come.map(finding).collect()
}

/// With `balancer`, there must be agents that steer one, and each must know every node.
fn steered(fleet: &Fleet) -> Vec<Finding> {
    if fleet.balancers.is_empty() {
        let all = fleet.nodes.keys().cloned().collect();
        let text = "no load balancer has an agent, and the policy says traffic = \"balancer\"".to_owned();
        let remedy = "start an agent with a [balancer] table beside each; or change the policy";
        return vec![Finding::problem(check::TRAFFIC, all, text, remedy)];
    }
    let mut findings = Vec::new();
    for (name, balancer) in &fleet.balancers {
        let Some(seen) = &balancer.observed else { continue };
        if let Some(why) = &seen.unsteered {
            let text = format!("{name} cannot be steered: {why}");
            findings.push(Finding::problem(
                check::TRAFFIC,
                vec![name.clone()],
                text,
                "mend the load balancer",
            ));
            continue;
        }
        let missing: Vec<NodeId> =
            fleet.nodes.keys().filter(|node| !seen.servers.contains_key(*node)).cloned().collect();
        if !missing.is_empty() && balancer.acknowledged() {
            let text = format!("{name} has no server for {}", names(&missing));
            let remedy =
                "name it under servers in the [balancer] table of its agent, and in its own configuration";
            findings.push(Finding::problem(check::TRAFFIC, missing, text, remedy));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::{NodeFacts, Told};
    use super::*;

    fn fleet(traffic: Traffic) -> Fleet {
        let mut fleet = Fleet::default();
        fleet.policy.traffic = traffic;
        fleet
    }

    fn nodes(asked: &[Option<u64>]) -> Nodes {
        let told = |asked: &Option<u64>| Told {
            facts: NodeFacts { asked: asked.map(Millis), ..NodeFacts::default() },
            age: Millis(0),
            sent_wall_ms: 0,
            heard_wall_ms: 0,
        };
        let named = (1..).map(|at| NodeId::new(format!("node-{at}")).expect("a plain name"));
        named.zip(asked.iter().map(|asked| Some(told(asked)))).collect()
    }

    #[test]
    fn somebody_must_ask_every_node() {
        let fleet = fleet(Traffic::Ready);
        assert!(declared(&fleet, &nodes(&[Some(900), Some(29_000)])).is_empty());
        let findings = declared(&fleet, &nodes(&[Some(900), None, Some(31_000)]));
        assert_eq!(findings.len(), 1);
        let names: Vec<&str> = findings[0].nodes.iter().map(NodeId::as_str).collect();
        assert_eq!(names, ["node-2", "node-3"]);
        assert!(
            findings[0].text.contains("nobody has asked /ready of node-2, node-3 for 30 s"),
            "{findings:?}"
        );
    }

    #[test]
    fn nobody_may_come_where_users_are_kept_away() {
        let fleet = fleet(Traffic::Ready);
        let mut nodes = nodes(&[Some(900), Some(900)]);
        let mut come = |addresses: &[&str]| {
            let told = nodes.values_mut().flatten().next().expect("there are two");
            told.facts.came = Some(addresses.iter().copied().map(str::to_owned).collect());
            declared(&fleet, &nodes)
        };
        assert!(come(&[]).is_empty());
        let findings = come(&["10.0.0.8", "10.0.0.9"]);
        assert_eq!((findings.len(), findings[0].nodes[0].as_str()), (1, "node-1"));
        assert!(findings[0].text.ends_with("from 10.0.0.8, 10.0.0.9"), "{findings:?}");
    }

    #[test]
    fn a_balancer_must_have_an_agent() {
        let findings = declared(&fleet(Traffic::Balancer), &nodes(&[None]));
        assert!(findings[0].text.contains("no load balancer has an agent"), "{findings:?}");
        assert!(declared(&fleet(Traffic::Direct), &nodes(&[None])).is_empty());
    }
}
