//! From the chains of a fleet to what is proven about an operation.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::connected::sessions;
use super::walk::{Walk, anchor, walk};
use super::{Case, Fact, Grant, Hull, Mark, Record, Series, Span, Stood, Watch};
use crate::ids::NodeId;

/// A longer time without a look at a node's processes is told, and leaves open what was started there by hand, in milliseconds.
/// Agents look every half second.
pub(super) const UNWATCHED_MS: u64 = 5_000;
/// The database server may take so long to notice that a client has gone, in milliseconds.
pub(super) const LINGER_MS: u64 = 1_000;

/// What is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// At most one node ran, the one that was named.
    Proven,
    /// The same so far: the exclusive part lasts.
    SoFar,
    /// Nothing speaks against it, and not all of it is recorded.
    Unproven,
    /// Something else ran, or was connected.
    Broken,
}

impl Verdict {
    /// One word for programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Proven => "proven",
            Verdict::SoFar => "so_far",
            Verdict::Unproven => "unproven",
            Verdict::Broken => "broken",
        }
    }
}

/// Something that a person must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The node, if it is about one.
    pub node: Option<NodeId>,
    /// What it is.
    pub what: String,
    /// Since when, by the coordinators' clock, milliseconds since 1970.
    pub from_wall_ms: Option<u64>,
    /// Until when.
    pub to_wall_ms: Option<u64>,
}

/// How often something was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Sampling {
    /// How many looks fell into the exclusive part.
    pub count: u64,
    /// From one to the next as intended, in milliseconds.
    pub every_ms: u64,
    /// The longest time without one, with the time before the first and after the last, in milliseconds.
    pub gap_ms: u64,
}

/// What is proven about one exclusive part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantProof {
    /// When it began, by the leader's wall clock.
    pub from_wall_ms: u64,
    /// When it ended; `None` while it lasts.
    pub to_wall_ms: Option<u64>,
    /// The node that might run.
    pub solo: Option<NodeId>,
    /// Nodes that are shown not to have run.
    pub stopped: BTreeSet<NodeId>,
    /// Looks at processes, of the node that was looked at least.
    pub looks: Option<Sampling>,
    /// Looks at sessions, if they show whose were connected.
    pub samples: Option<Sampling>,
    /// The nodes whose apps were connected to the database.
    pub connected: BTreeSet<NodeId>,
    /// What breaks the promise.
    pub broken: Vec<Finding>,
    /// What is missing for a proof.
    pub missing: Vec<Finding>,
    /// What else is to be known: whose word was taken, and what was not looked at.
    pub remarks: Vec<Finding>,
    /// How far the agents' clocks may be off the coordinators', in milliseconds; `None` if no agent compared them.
    pub bound_ms: Option<u64>,
    /// The verdict on this part.
    pub verdict: Verdict,
}

/// What is proven about an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The verdict.
    pub verdict: Verdict,
    /// Its exclusive parts.
    pub grants: Vec<GrantProof>,
}

/// A node's records, with what can be said about its clock.
pub(super) struct Chain<'a> {
    pub(super) records: &'a [Record],
    pub(super) hull: Hull,
}

/// Joins what the agents recorded with what the coordinators know. Believes neither more than it says.
#[must_use]
pub fn prove(case: &Case, chains: &BTreeMap<NodeId, Vec<Record>>) -> Proof {
    let chain = |(node, records): (&NodeId, &'_ Vec<Record>)| -> (NodeId, Hull) {
        let mut hull = Hull::default();
        records.iter().filter_map(watched).filter_map(|watch| watch.clock).for_each(|clock| hull.add(clock));
        (node.clone(), hull)
    };
    let hulls: BTreeMap<NodeId, Hull> = chains.iter().map(chain).collect();
    let chains: BTreeMap<&NodeId, Chain<'_>> = chains
        .iter()
        .map(|(node, records)| (node, Chain { records, hull: hulls.get(node).copied().unwrap_or_default() }))
        .collect();
    let grants: Vec<GrantProof> = case.grants.iter().map(|grant| one(case, grant, &chains)).collect();
    let verdict = grants.iter().map(|grant| grant.verdict).max().unwrap_or(Verdict::Unproven);
    Proof { verdict, grants }
}

fn watched(record: &Record) -> Option<&Watch> {
    match &record.fact {
        Fact::Watched(watch) => Some(watch),
        _ => None,
    }
}

fn one(case: &Case, grant: &Grant, chains: &BTreeMap<&NodeId, Chain<'_>>) -> GrantProof {
    let mut proof = GrantProof {
        from_wall_ms: grant.granted.wall_ms,
        to_wall_ms: grant.until.map(|until| until.wall_ms),
        solo: case.solo.clone(),
        stopped: BTreeSet::new(),
        looks: None,
        samples: None,
        connected: BTreeSet::new(),
        broken: Vec::new(),
        missing: Vec::new(),
        remarks: Vec::new(),
        bound_ms: chains.values().filter_map(|chain| chain.hull.bound_ms()).max(),
        verdict: Verdict::Proven,
    };
    for (node, stood) in &grant.nodes {
        runs(&mut proof, grant, node, stood, chains.get(node));
        if let Some(chain) = chains.get(node) {
            looks(&mut proof, grant, (node, stood), chain);
        } else if *stood == Stood::Solo {
            proof.remarks.push(about(node, "has no record of its own"));
        }
    }
    sessions(&mut proof, case, grant, chains);
    proof.verdict = match (proof.broken.is_empty(), proof.missing.is_empty(), grant.until) {
        (false, _, _) => Verdict::Broken,
        (true, false, _) => Verdict::Unproven,
        (true, true, None) => Verdict::SoFar,
        (true, true, Some(_)) => Verdict::Proven,
    };
    proof
}

pub(super) fn about(node: &NodeId, what: impl Into<String>) -> Finding {
    Finding { node: Some(node.clone()), what: what.into(), from_wall_ms: None, to_wall_ms: None }
}

/// Whether a node ran that must not have.
fn runs(proof: &mut GrantProof, grant: &Grant, node: &NodeId, stood: &Stood, chain: Option<&Chain<'_>>) {
    let word = match stood {
        Stood::Solo => return,
        Stood::Stopped(generation) => {
            stopped(proof, grant, node, *generation, chain);
            return;
        }
        Stood::Assumed(who) => format!("taken to be stopped by the word of {who}"),
        Stood::Fenced(who) => format!("kept away by a fence, for {who}; whether its app ran is not said"),
        Stood::Unproven => {
            proof.missing.push(about(node, "was not proven to be stopped at the grant"));
            return;
        }
    };
    proof.remarks.push(about(node, word));
    let Some(chain) = chain.filter(|_| matches!(stood, Stood::Assumed(_))) else { return };
    // It was not heard then; what its agent tells now may contradict the word that was given.
    let mut began: Option<u64> = None;
    for record in chain.records {
        match &record.fact {
            Fact::Began(run) => began = Some(run.began_ms),
            Fact::Ended(ended) => {
                let early = chain.hull.after(ended.not_before_ms, grant.granted.wall_ms);
                let begun = began.take();
                if early && begun.is_some_and(|began| within(chain.hull, began, grant.until)) {
                    proof.broken.push(about(node, "ran, although somebody said that it was stopped"));
                }
            }
            _ => {}
        }
    }
}

fn within(hull: Hull, began_ms: u64, until: Option<Mark>) -> bool {
    until.is_none_or(|until| hull.before(began_ms, until.wall_ms))
}

/// A node whose agent had acknowledged its stop.
fn stopped(
    proof: &mut GrantProof,
    grant: &Grant,
    node: &NodeId,
    generation: crate::ids::Generation,
    chain: Option<&Chain<'_>>,
) {
    let Some(chain) = chain else {
        let what = format!("no record; it was proven stopped (generation {generation}) before the grant");
        proof.missing.push(about(node, what));
        return;
    };
    let Some(at) = anchor(chain.records, generation) else {
        let what = format!("its record does not go back to its stop (generation {generation})");
        proof.missing.push(about(node, what));
        return;
    };
    let Walk { ran, maybe, stops_at, hole } = walk(chain.records, at, grant, chain.hull);
    for (run, from, to) in &ran {
        let by = run.generation.map_or("an unknown assignment".to_owned(), |by| format!("generation {by}"));
        proof.broken.push(Finding {
            node: Some(node.clone()),
            what: format!("process {} of its app ran, launched by {by}", run.pid),
            from_wall_ms: chain.hull.earliest(*from),
            to_wall_ms: to.and_then(|to| chain.hull.latest(to)),
        });
    }
    let whole = maybe.is_empty() && stops_at.is_none() && hole.is_none();
    for launch in maybe {
        proof.missing.push(about(node, format!("what came of its launch {launch} is not recorded")));
    }
    if let Some((before, after)) = hole {
        proof.missing.push(about(node, format!("its record has a hole between {before} and {after}")));
    }
    if let Some(last) = stops_at {
        proof.missing.push(Finding {
            node: Some(node.clone()),
            what: format!("no record; it was proven stopped (generation {generation}) before"),
            from_wall_ms: chain.hull.earliest(last.at.boot_ms).or(Some(last.at.wall_ms)),
            to_wall_ms: grant.until.map(|until| until.wall_ms),
        });
    }
    if ran.is_empty() && whole {
        proof.stopped.insert(node.clone());
    }
}

/// The watches of a grant in one chain.
pub(super) fn watches<'a>(chain: &Chain<'a>, grant: &Grant) -> impl Iterator<Item = &'a Watch> {
    let index = grant.granted.index;
    let records: &'a [Record] = chain.records;
    records.iter().filter_map(watched).filter(move |watch| watch.grant == index)
}

/// Looks at a node's processes, and what they saw that no agent started.
fn looks(proof: &mut GrantProof, grant: &Grant, (node, stood): (&NodeId, &Stood), chain: &Chain<'_>) {
    for watch in watches(chain, grant) {
        for (process, span) in &watch.foreign {
            if outside(chain.hull, *span, grant, 0) {
                continue;
            }
            let finding = seen(chain.hull, node, *span, format!("{process}, which no agent started"));
            merge(&mut proof.broken, finding);
        }
    }
    let series = watches(chain, grant).map(|watch| watch.looks);
    let found = sampling(series, 0, grant, chain.hull);
    if matches!(stood, Stood::Solo | Stood::Stopped(_)) {
        if found.count == 0 || found.gap_ms > UNWATCHED_MS {
            let what = match found.count {
                0 => "was not watched for processes that no agent starts".to_owned(),
                _ => format!(
                    "was not watched for {} for processes that no agent starts",
                    crate::time::Millis(found.gap_ms)
                ),
            };
            proof.missing.push(about(node, what));
        }
        let worst = proof.looks.map_or(found, |worst| Sampling {
            count: worst.count.min(found.count),
            every_ms: 0,
            gap_ms: worst.gap_ms.max(found.gap_ms),
        });
        proof.looks = Some(worst);
    }
}

/// Whether a span was certainly before the exclusive part, or certainly after it.
pub(super) fn outside(hull: Hull, span: Span, grant: &Grant, linger_ms: u64) -> bool {
    let from = grant.granted.wall_ms.saturating_add(linger_ms);
    let before = hull.latest(span.last_ms).is_some_and(|last| last < from);
    before || grant.until.is_some_and(|until| hull.after(span.first_ms, until.wall_ms))
}

pub(super) fn seen(hull: Hull, node: &NodeId, span: Span, what: String) -> Finding {
    let (from_wall_ms, to_wall_ms) = (hull.earliest(span.first_ms), hull.latest(span.last_ms));
    Finding { node: Some(node.clone()), what, from_wall_ms, to_wall_ms }
}

/// The same in the next watch is the same finding.
pub(super) fn merge(list: &mut Vec<Finding>, finding: Finding) {
    match list.iter_mut().find(|known| known.node == finding.node && known.what == finding.what) {
        Some(known) => known.to_wall_ms = finding.to_wall_ms,
        None => list.push(finding),
    }
}

/// What several series of one agent come to, within the exclusive part.
pub(super) fn sampling(
    series: impl Iterator<Item = Series>,
    every_ms: u64,
    grant: &Grant,
    hull: Hull,
) -> Sampling {
    let mut found = Sampling { count: 0, every_ms, gap_ms: 0 };
    let mut last: Option<u64> = None;
    for one in series.filter(|one| one.count > 0) {
        if let Some(until) = grant.until
            && hull.after(one.first_ms, until.wall_ms)
        {
            break;
        }
        let before = match last {
            Some(last) => one.first_ms.saturating_sub(last),
            None => hull.latest(one.first_ms).map_or(0, |at| at.saturating_sub(grant.granted.wall_ms)),
        };
        found.count += inside(one, grant, hull);
        found.gap_ms = found.gap_ms.max(before).max(one.gap_ms);
        last = Some(one.last_ms);
    }
    let rest = last
        .zip(grant.until)
        .and_then(|(last, until)| Some(until.wall_ms.saturating_sub(hull.earliest(last)?)));
    found.gap_ms = found.gap_ms.max(rest.unwrap_or(0));
    found
}

/// How many looks of a series were within the exclusive part, at the least.
fn inside(one: Series, grant: &Grant, hull: Hull) -> u64 {
    let all = u64::from(one.count);
    let Some(until) = grant.until.filter(|until| !hull.before(one.last_ms, until.wall_ms)) else {
        return all;
    };
    let Some(first) = hull.latest(one.first_ms) else { return all };
    // No two of them are further apart than the longest gap.
    let spans = until.wall_ms.saturating_sub(first) / one.gap_ms.max(1);
    all.min(if first <= until.wall_ms { spans + 1 } else { 0 })
}
