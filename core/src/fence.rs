//! Fences: what keeps a node from what its fleet shares, although nobody knows whether its app runs.
//!
//! A fence is desired state. The agent that can reach the database, or the machine's power, carries it out and says so:
//!
//! ```text
//!  wanted ──carried out──► holds ──the node's agent acknowledges a stop──► to be lifted ──carried out──► gone
//!  (the node counts as out for whatever the fence covers, from "holds" on)        (of a machine: gone when it is heard)
//! ```
//!
//! Each wish has a number, and where it acts a lower number than the last one is refused: a call that was stuck on its way
//! must not lift what was put up after it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, NodeId};
use crate::operation::{Course, Operation, Request};
use crate::rule::Rule;
use crate::state::{Fleet, Node};

/// What a fence keeps a node from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    /// The fleet's database: its login is locked and its sessions are ended. The app may go on running, and reaches Redis and files.
    Database,
    /// Everything: its machine is off.
    Machine,
}

impl Covers {
    /// Both of them, the gentler one first.
    pub const ALL: [Covers; 2] = [Covers::Database, Covers::Machine];

    /// One word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Covers::Database => "database",
            Covers::Machine => "machine",
        }
    }
}

impl fmt::Display for Covers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Most offers, and most fences, that one agent speaks of: each of the fleet's nodes, in each way.
pub const FENCES_MAX: usize = 2 * crate::policy::NODES_MAX;

/// A fence that an agent can put up around a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceOffer {
    /// The node.
    pub node: NodeId,
    /// What it would be kept from.
    pub covers: Covers,
    /// Why it would not hold, for people; `None` if a look at the real thing has shown that it would.
    pub unarmed: Option<String>,
}

/// What an agent is to do with a fence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FenceOrder {
    /// Around which node.
    pub node: NodeId,
    /// Which of its fences.
    pub covers: Covers,
    /// Number of the wish: where it acts, a lower one is refused.
    pub generation: Generation,
    /// Whether it is to be up.
    pub up: bool,
}

/// How far an agent is with a fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceSeen {
    /// Around which node.
    pub node: NodeId,
    /// Which of its fences.
    pub covers: Covers,
    /// The order that this speaks of.
    pub generation: Generation,
    /// Whether it is carried out: up, with nobody left inside, or lifted.
    pub done: bool,
    /// Why not, for people.
    pub trouble: Option<String>,
}

/// What an agent knows of the fences that it has to do with; at most [`FENCES_MAX`] of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fences {
    /// Those that it can put up.
    pub offers: Vec<FenceOffer>,
    /// How far it is with those that it was told to put up or to lift.
    pub seen: Vec<FenceSeen>,
}

/// A fence around a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Number of the wish.
    pub generation: Generation,
    /// Whether it is to be up; while not, it is being lifted.
    pub up: bool,
    /// The agent that carries it out.
    pub carrier: NodeId,
    /// Whether that agent has said that it holds.
    pub holds: bool,
    /// Why it is not carried out, for people.
    pub trouble: Option<String>,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub wall_ms: u64,
}

/// What a node must be kept from while an operation is exclusive: all that the operation may change.
pub fn needed(fleet: &Fleet, operation: &Operation) -> Covers {
    if !Rule::FenceCovers.holds() {
        return Covers::Database;
    }
    match &operation.request {
        // On the way back files are restored; commercial plugins are files that the nodes share.
        Request::Upgrade { .. } | Request::Migrate { .. }
            if operation.course != Course::Forward || fleet.policy.commercial_plugins =>
        {
            Covers::Machine
        }
        Request::Start { .. }
        | Request::Plugin { .. }
        | Request::Backup { .. }
        | Request::Upgrade { .. }
        | Request::Migrate { .. }
        | Request::Prepare { .. }
        | Request::RemoveBackup { .. }
        | Request::AcceptDatabase
        | Request::Verify
        | Request::Restart { .. }
        | Request::Heal => Covers::Database,
        // Nobody knows what a holder does.
        Request::Stop
        | Request::Hold { .. }
        | Request::Restore { .. }
        | Request::Packages { .. }
        | Request::Remove { .. } => Covers::Machine,
    }
}

/// The fence that keeps a node from at least this much, if one holds.
pub(crate) fn around(node: &Node, needed: Covers) -> Option<(Covers, &Fence)> {
    let holding = node.fences.iter().find(|(covers, fence)| **covers >= needed && fence.up && fence.holds);
    holding.map(|(covers, fence)| (*covers, fence))
}

/// Whether a node is proven to do no harm to what the operation changes: it is stopped, or fenced from that.
pub fn is_out(fleet: &Fleet, operation: &Operation, node: &Node) -> bool {
    node.stop_evidence.is_some() || around(node, needed(fleet, operation)).is_some()
}

/// Why a node takes no part in an operation: a fence around it holds.
pub fn why_out(fleet: &Fleet, operation: &Operation, node: &Node) -> Option<String> {
    let (covers, fence) = around(node, needed(fleet, operation))?;
    Some(format!("fenced from the {covers} by {}: {}", fence.by, fence.reason))
}

/// The agents that can put up this fence around a node, of those that are named; the node itself cannot.
fn carriers<'a>(
    fleet: &'a Fleet,
    node: &'a NodeId,
    covers: Covers,
    heard: &'a [NodeId],
) -> impl Iterator<Item = &'a NodeId> {
    let armed =
        move |offer: &&FenceOffer| offer.node == *node && offer.covers == covers && offer.unarmed.is_none();
    fleet.agents().filter_map(move |(name, agent)| {
        let offers = agent.observed.as_ref()?.fences.iter().find(armed);
        (offers.is_some() && name != node && heard.contains(name)).then_some(name)
    })
}

/// The gentlest fence that keeps a node from at least this much, and who puts it up.
pub fn choose(fleet: &Fleet, node: &NodeId, at_least: Covers, heard: &[NodeId]) -> Option<(Covers, NodeId)> {
    let wide_enough = Covers::ALL.into_iter().filter(|covers| *covers >= at_least);
    wide_enough
        .filter_map(|covers| Some((covers, carriers(fleet, node, covers, heard).next()?.clone())))
        .next()
}

/// What everybody who carries fences is to do.
pub(crate) fn orders(fleet: &Fleet) -> BTreeMap<NodeId, Vec<FenceOrder>> {
    let mut orders: BTreeMap<NodeId, Vec<FenceOrder>> = BTreeMap::new();
    for (name, node) in &fleet.nodes {
        // A machine that is off needs nothing more, and must be able to come back.
        let works = |(covers, fence): &(&Covers, &Fence)| **covers == Covers::Database || !fence.holds;
        for (covers, fence) in node.fences.iter().filter(works) {
            orders.entry(fence.carrier.clone()).or_default().push(FenceOrder {
                node: name.clone(),
                covers: *covers,
                generation: fence.generation,
                up: fence.up,
            });
        }
    }
    orders
}
