//! Reading: from the local state, made current by asking the leader; marked as stale where that was not possible.
//!
//! A follower asks the leader for the index up to which its own state must be (the leader has a majority confirm that it
//! still leads), waits until it is there, and then answers by itself. So every member gives the same answers, and only what
//! the leader keeps in memory travels.

use std::{collections::BTreeMap, time::Duration};

use soloist_core::{
    Rejection, State,
    due::Contact,
    ids::{FleetId, NodeId},
    time::{Millis, Time},
    view::{FleetView, view},
};
use soloist_proto::{
    errors::{NO_LEADER, Problem},
    v1,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::{peers::QUICK, shared::Shared};

/// How long a leader that was just elected may take to be promoted, before a read goes on without it.
const PROMOTION: Duration = Duration::from_secs(1);

/// What a read found beside the state.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Whether and why it may be out of date.
    pub(crate) freshness: v1::Freshness,
    /// The leader's time; `None` if stale.
    now: Option<Time>,
    contact: Contact,
    inventories: BTreeMap<NodeId, v1::Inventory>,
    facts: BTreeMap<NodeId, v1::ToldFacts>,
    /// See [`Recall::facts_wanted`].
    pub(crate) facts_wanted: u64,
}

/// What a read asks for beside the state and who was heard.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extras {
    /// The plugins of a fleet's nodes.
    pub(crate) inventories: bool,
    /// What they say about themselves.
    pub(crate) facts: bool,
    /// That they are asked for new facts.
    pub(crate) ask_facts: bool,
}

impl Extras {
    /// Nothing more.
    pub(crate) const NONE: Extras = Extras { inventories: false, facts: false, ask_facts: false };
}

/// What the leader answers to a read.
#[derive(Debug)]
pub(crate) struct Recall {
    pub(crate) index: u64,
    pub(crate) now: Time,
    pub(crate) nodes: Vec<v1::NodeMemory>,
    /// The number that new facts will answer at least, if they were asked for.
    pub(crate) facts_wanted: u64,
}

impl Shared {
    /// On the leader: the index that a current state includes, and what it remembers of a fleet's nodes.
    pub(crate) async fn recall(&self, fleet: Option<&FleetId>, extras: Extras) -> Result<Recall, Problem> {
        let confirmed = timeout(QUICK, self.raft.ensure_linearizable()).await;
        let unavailable =
            |why: &str| Problem::new(Code::Unavailable, NO_LEADER, why, "try again in a moment");
        let index = match confirmed {
            Ok(Ok(index)) => index,
            Ok(Err(error)) => return Err(unavailable(&error.to_string())),
            Err(_) => return Err(unavailable("no majority of the members answers")),
        };
        let Some(now) = self.leadership.stamp_within(self, PROMOTION).await else {
            return Err(unavailable("a new leader is taking over"));
        };
        let Some(fleet) = fleet else { return Ok(Recall { index, now, nodes: Vec::new(), facts_wanted: 0 }) };
        let names: Vec<NodeId> = self.raft.storage().read(|state, _| {
            state
                .fleets
                .get(fleet)
                .map(|fleet| fleet.agents().map(|(name, _)| name.clone()).collect())
                .unwrap_or_default()
        });
        // Of a fleet that nobody knows, nothing is remembered.
        let asks = extras.ask_facts && !names.is_empty();
        let facts_wanted = if asks { self.memory.ask_facts(fleet, now) } else { 0 };
        let nodes = names.into_iter().map(|node| self.memory.recall(fleet, node, now, extras));
        Ok(Recall { index, now, nodes: nodes.collect(), facts_wanted })
    }

    /// Makes the local state current, if a leader can be asked.
    pub(crate) async fn read(&self, fleet: Option<&FleetId>, extras: Extras) -> Reading {
        let recalled = if self.leads().is_some() {
            self.recall(fleet, extras).await
        } else if let Some(leader) = self.other_leader() {
            self.ask(&leader, fleet, extras).await
        } else {
            Err(Problem::new(Code::Unavailable, NO_LEADER, "no leader is known", ""))
        };
        let recalled = match recalled {
            Ok(recall) if self.raft.storage().wait_applied(recall.index, QUICK).await => Ok(recall),
            Ok(recall) => Err(format!("this member has not yet received entry {}", recall.index)),
            Err(problem) => Err(problem.message),
        };
        match recalled {
            Ok(recall) => {
                let mut reading = Reading {
                    freshness: self.freshness(String::new()),
                    now: Some(recall.now),
                    contact: Contact::default(),
                    inventories: BTreeMap::new(),
                    facts: BTreeMap::new(),
                    facts_wanted: recall.facts_wanted,
                };
                if let Some(fleet) = fleet {
                    reading.remember(fleet, recall.nodes);
                }
                reading
            }
            Err(reason) => self.local(reason),
        }
    }

    /// The local state as it is, with the reason why the leader was not asked.
    pub(crate) fn local(&self, reason: String) -> Reading {
        Reading {
            freshness: self.freshness(reason),
            now: None,
            contact: Contact::default(),
            inventories: BTreeMap::new(),
            facts: BTreeMap::new(),
            facts_wanted: 0,
        }
    }

    async fn ask(
        &self,
        leader: &crate::raft::Member,
        fleet: Option<&FleetId>,
        extras: Extras,
    ) -> Result<Recall, Problem> {
        let name = fleet.map(ToString::to_string).unwrap_or_default();
        let reply = self.peers.read(leader, name, extras).await?;
        self.hearing.heard_leader(self.clock.elapsed());
        Ok(Recall {
            index: reply.index,
            now: Time(reply.now_ms),
            nodes: reply.nodes,
            facts_wanted: reply.facts_wanted,
        })
    }

    fn freshness(&self, reason: String) -> v1::Freshness {
        v1::Freshness {
            stale: !reason.is_empty(),
            reason,
            member: self.raft.id(),
            leader: self.raft.leader().map(|leader| leader.id),
            applied: self.raft.storage().read(|_, index| index),
            last_contact_ms: self.last_contact().map(|length| length.0),
        }
    }

    /// One fleet's state with the reading's time, apart from the others. An unknown fleet is an error only if the reading
    /// is current; else nobody knows.
    pub(crate) fn project(&self, fleet: &FleetId, reading: &Reading) -> Result<State, Status> {
        let found = self.raft.storage().read(|state, _| {
            let found =
                state.fleets.get(fleet).cloned().ok_or_else(|| state.fleets.keys().cloned().collect());
            found.map(|found| State {
                now: reading.now.map_or(state.now, |now| now.max(state.now)),
                wall_ms: state.wall_ms,
                promoted: state.promoted,
                fleets: BTreeMap::from([(fleet.clone(), found)]),
                level: state.level,
                used_ids: state.used_ids.clone(),
                restored: state.restored,
            })
        });
        found.map_err(|known: Vec<FleetId>| {
            if reading.freshness.stale {
                let text = format!(
                    "this member knows no fleet \"{fleet}\", and may be out of date: {}",
                    reading.freshness.reason
                );
                return Problem::new(Code::Unavailable, NO_LEADER, text, "ask another member").into();
            }
            soloist_proto::errors::to_status(&Rejection::UnknownFleet { fleet: fleet.clone(), known })
        })
    }

    /// The status of a fleet.
    pub(crate) fn status_reply(&self, fleet: &FleetId, reading: &Reading) -> Result<v1::StatusReply, Status> {
        let state = self.project(fleet, reading)?;
        let view = view(&state, fleet, &reading.contact).map(|view| reading.honest(view));
        Ok(v1::StatusReply { view: view.map(Into::into), freshness: Some(reading.freshness.clone()) })
    }
}

impl Reading {
    fn remember(&mut self, fleet: &FleetId, nodes: Vec<v1::NodeMemory>) {
        for memory in nodes {
            let Ok(node) = NodeId::new(memory.node) else { continue };
            if let Some(at) = memory.heard_ms {
                self.contact.hear(fleet, &node, Time(at));
            }
            self.contact.note(fleet, &node, &memory.progress);
            if let Some(facts) = memory.facts {
                self.facts.insert(node.clone(), facts);
            }
            if let Some(inventory) = memory.inventory {
                self.inventories.insert(node, inventory);
            }
        }
    }

    /// A node's plugins.
    pub(crate) fn inventory(&self, node: &NodeId) -> Option<v1::Inventory> {
        self.inventories.get(node).cloned()
    }

    /// What a node has said about itself.
    pub(crate) fn facts(&self, node: &NodeId) -> Option<&v1::ToldFacts> {
        self.facts.get(node)
    }

    /// How long ago a node was heard, if that is known.
    pub(crate) fn heard(&self, fleet: &FleetId, node: &NodeId) -> Option<Millis> {
        Some(self.now?.since(self.contact.last(fleet, node)?))
    }

    /// A member that did not ask the leader does not know who was heard, and must not say that somebody is lost.
    fn honest(&self, mut view: FleetView) -> FleetView {
        if self.freshness.stale {
            for node in &mut view.nodes {
                node.heard = None;
                node.lost = false;
            }
            for balancer in &mut view.balancers {
                balancer.heard = None;
                balancer.lost = false;
            }
        }
        view
    }
}
