//! What a leader remembers beside the log: who was heard, what apps say of their progress, which plugins they have, what nodes say
//! about themselves.
//!
//! None of this is replicated: a new leader begins empty and is told again by the members whose sessions heard it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use soloist_core::{
    State,
    due::Contact,
    ids::{FleetId, Incarnation, NodeId},
    restore::is_served,
    time::Time,
};
use soloist_proto::v1;

use crate::reader::Extras;

/// A node of a fleet.
pub(crate) type Key = (FleetId, NodeId);

/// What a leader remembers of nodes beside the log.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    inner: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    term: u64,
    contact: Contact,
    inventories: BTreeMap<Key, v1::Inventory>,
    facts: BTreeMap<Key, Remark>,
    /// Which facts the agents of a fleet are to answer.
    facts_wanted: BTreeMap<FleetId, u64>,
}

/// What a node has said about itself, and when.
#[derive(Debug)]
struct Remark {
    news: v1::FactsNews,
    at: Time,
    wall_ms: u64,
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, Remembered> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a term, empty.
    pub(crate) fn enter(&self, term: u64) {
        let mut inner = self.inner();
        if inner.term != term {
            *inner = Remembered { term, ..Remembered::default() };
        }
    }

    /// Forgets everything: this member no longer leads.
    pub(crate) fn clear(&self) {
        *self.inner() = Remembered::default();
    }

    /// Reads who was heard. Where the state is read too, its lock is taken first.
    pub(crate) fn contact<R>(&self, read: impl FnOnce(&Contact) -> R) -> R {
        read(&self.inner().contact)
    }

    /// Has the agents of a fleet gather new facts. Returns the number that these will answer at least: the leader's time, which
    /// never goes back.
    pub(crate) fn ask_facts(&self, fleet: &FleetId, now: Time) -> u64 {
        let mut inner = self.inner();
        let wanted = inner.facts_wanted.entry(fleet.clone()).or_default();
        *wanted = now.0.max(*wanted);
        *wanted
    }

    /// What is remembered of a node, with what is asked for beside the rest.
    pub(crate) fn recall(&self, fleet: &FleetId, node: NodeId, now: Time, extras: Extras) -> v1::NodeMemory {
        let inner = self.inner();
        let key = (fleet.clone(), node);
        v1::NodeMemory {
            node: key.1.to_string(),
            heard_ms: inner.contact.last(fleet, &key.1).map(|at| at.0),
            progress: inner.contact.progress(fleet, &key.1).unwrap_or_default(),
            inventory: inner.inventories.get(&key).filter(|_| extras.inventories).cloned(),
            facts: inner.facts.get(&key).filter(|_| extras.facts).map(|remark| v1::ToldFacts {
                facts: remark.news.facts.clone(),
                age_ms: remark.news.age_ms.saturating_add(now.since(remark.at).0),
                sent_wall_ms: remark.news.wall_ms,
                heard_wall_ms: remark.wall_ms,
                answers: remark.news.answers,
            }),
        }
    }

    /// Takes in what was heard, and says which generations the nodes have. What does not come from a run of an agent that
    /// is registered is left out: whoever can reach a member must not make it remember anything else, and a session that
    /// was superseded says nothing about the node.
    pub(crate) fn hear(
        &self,
        state: &State,
        now: Time,
        wall_ms: u64,
        nodes: Vec<News>,
    ) -> Vec<v1::NodeGeneration> {
        let mut inner = self.inner();
        let mut generations = Vec::new();
        for News { key, incarnation, heard, progress, inventory, facts } in nodes {
            let Some(fleet) = state.fleets.get(&key.0) else { continue };
            let known = fleet.agent(&key.1).filter(|node| node.incarnation == incarnation);
            let Some(node) = known else { continue };
            if heard {
                inner.contact.hear(&key.0, &key.1, now);
            }
            if let Some(progress) = progress {
                inner.contact.note(&key.0, &key.1, &progress);
            }
            generations.push(v1::NodeGeneration {
                fleet: key.0.to_string(),
                node: key.1.to_string(),
                // What is not served must not be looked for at other members either.
                generation: if is_served(fleet) { node.assignment.generation.0 } else { 0 },
                facts_wanted: inner.facts_wanted.get(&key.0).copied().unwrap_or(0),
            });
            if let Some(news) = facts {
                inner.facts.insert(key.clone(), Remark { news, at: now, wall_ms });
            }
            if let Some(inventory) = inventory {
                inner.inventories.insert(key, inventory);
            }
        }
        generations
    }
}

/// What was heard of a node since it was last told.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub(crate) key: Key,
    pub(crate) incarnation: Incarnation,
    pub(crate) heard: bool,
    pub(crate) progress: Option<String>,
    pub(crate) inventory: Option<v1::Inventory>,
    pub(crate) facts: Option<v1::FactsNews>,
}
