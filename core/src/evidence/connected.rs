//! Who was connected to the database while an operation was alone.

use std::collections::BTreeMap;

use super::prove::{
    Chain, Finding, GrantProof, LINGER_MS, Sampling, about, merge, outside, sampling, seen, watches,
};
use super::{APP_PREFIX, Case, Fact, Grant, Hull, Naming, Span, session_name};
use crate::ids::NodeId;

/// Joins the looks of all agents.
pub(super) fn sessions(
    proof: &mut GrantProof,
    case: &Case,
    grant: &Grant,
    chains: &BTreeMap<&NodeId, Chain<'_>>,
) {
    let apps: BTreeMap<String, &NodeId> = grant.nodes.keys().map(|node| (session_name(node), node)).collect();
    let mut views: BTreeMap<&NodeId, View> = BTreeMap::new();
    let mut reason = None;
    for (sampler, chain) in chains {
        for watch in watches(chain, grant) {
            reason = reason.or_else(|| watch.unsampled.clone());
            for (name, span) in &watch.sessions {
                session(proof, case, grant, (sampler, chain.hull), name, *span, &apps, chains);
            }
        }
        let first = watches(chain, grant).find(|watch| watch.samples.count > 0);
        if let Some(watch) = first {
            let series = watches(chain, grant).map(|watch| watch.samples);
            let sampling = sampling(series, watch.every_ms, grant, chain.hull);
            views.insert(sampler, View { login: watch.login.clone(), naming: watch.naming, sampling });
        }
    }
    if views.is_empty() {
        let why = reason.unwrap_or_else(|| "no agent has looked".to_owned());
        let what = format!("who was connected to the database is not known: {why}");
        proof.remarks.push(Finding { node: None, what, from_wall_ms: None, to_wall_ms: None });
        return;
    }
    let mut worst: Option<Sampling> = None;
    let mut all = true;
    for node in grant.nodes.keys() {
        match covering(node, &views) {
            Some(sampling) => {
                worst = Some(worst.map_or(sampling, |worst| Sampling {
                    count: worst.count.min(sampling.count),
                    every_ms: worst.every_ms.max(sampling.every_ms),
                    gap_ms: worst.gap_ms.max(sampling.gap_ms),
                }));
            }
            None => {
                all = false;
                let what = "whether it was connected to the database is not known: no agent that looked sees its sessions";
                proof.remarks.push(about(node, what));
            }
        }
    }
    proof.samples = worst.filter(|_| all);
}

/// What one agent's looks at the database can show.
struct View {
    login: String,
    naming: Naming,
    sampling: Sampling,
}

/// The closest looks that see a node's sessions.
fn covering(node: &NodeId, views: &BTreeMap<&NodeId, View>) -> Option<Sampling> {
    let own = views.get(node);
    let sees = |(sampler, view): &(&&NodeId, &View)| match view.naming {
        // Where its own agent is not heard, the login of the others is taken for its own.
        Naming::Application => own.is_none_or(|own| own.login == view.login),
        Naming::Login => {
            **sampler == node
                && views
                    .iter()
                    .all(|(other, view)| *other == node || Some(&view.login) != own.map(|own| &own.login))
        }
    };
    views.iter().filter(sees).map(|(_, view)| view.sampling).min_by_key(|sampling| sampling.gap_ms)
}

#[expect(clippy::too_many_arguments, reason = "what is seen, by whom, and what may explain it")]
fn session(
    proof: &mut GrantProof,
    case: &Case,
    grant: &Grant,
    (sampler, hull): (&NodeId, Hull),
    name: &str,
    span: Span,
    apps: &BTreeMap<String, &NodeId>,
    chains: &BTreeMap<&NodeId, Chain<'_>>,
) {
    if outside(hull, span, grant, LINGER_MS) && apps.get(name).copied() != case.solo.as_ref() {
        return;
    }
    match apps.get(name) {
        Some(node) if case.solo.as_ref() == Some(*node) => {
            proof.connected.insert((*node).clone());
        }
        Some(node) => {
            let later = chains.get(*node).is_some_and(|chain| launched_after(chain, grant));
            // The others may be there again before the agent that looks has heard so.
            let maybe_after = grant.until.is_some_and(|until| !hull.before(span.first_ms, until.wall_ms));
            if !(later && maybe_after) {
                proof.connected.insert((*node).clone());
                let what = format!("its app was connected to the database, as {sampler} saw");
                merge(&mut proof.broken, seen(hull, node, span, what));
            }
        }
        // An agent, or a program that it runs for a task.
        None if name.starts_with(APP_PREFIX) => {}
        None => {
            let name = if name.is_empty() { "without a name" } else { name };
            let what = format!("a session of no node was connected to the database ({name})");
            let finding = seen(hull, sampler, span, what);
            let list = if case.holder { &mut proof.remarks } else { &mut proof.broken };
            merge(list, finding);
        }
    }
}

/// Whether a node was launched again after the exclusive part.
fn launched_after(chain: &Chain<'_>, grant: &Grant) -> bool {
    let Some(until) = grant.until else { return false };
    let since = |generation: crate::ids::Generation| generation.0 >= until.index;
    chain.records.iter().any(|record| match &record.fact {
        Fact::Began(run) => run.generation.is_some_and(since),
        Fact::Launching(launching) => since(launching.generation),
        _ => false,
    })
}
