//! What a leader remembers beside the log: who was heard, what apps say of their progress, which plugins they have.
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
    time::Time,
};
use soloist_proto::v1;

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

    /// What is remembered of a node, with its plugins if they are asked for.
    pub(crate) fn recall(&self, fleet: &FleetId, node: NodeId, inventory: bool) -> v1::NodeMemory {
        let inner = self.inner();
        let key = (fleet.clone(), node);
        v1::NodeMemory {
            node: key.1.to_string(),
            heard_ms: inner.contact.last(fleet, &key.1).map(|at| at.0),
            progress: inner.contact.progress(fleet, &key.1).unwrap_or_default(),
            inventory: inner.inventories.get(&key).filter(|_| inventory).cloned(),
        }
    }

    /// Takes in what was heard, and says which generations the nodes have. What does not come from a run of an agent that
    /// is registered is left out: whoever can reach a member must not make it remember anything else, and a session that
    /// was superseded says nothing about the node.
    pub(crate) fn hear(&self, state: &State, now: Time, nodes: Vec<News>) -> Vec<v1::NodeGeneration> {
        let mut inner = self.inner();
        let mut generations = Vec::new();
        for News { key, incarnation, heard, progress, inventory } in nodes {
            let known = state.fleets.get(&key.0).and_then(|fleet| fleet.nodes.get(&key.1));
            let Some(node) = known.filter(|node| node.incarnation == incarnation) else { continue };
            if heard {
                inner.contact.hear(&key.0, &key.1, now);
            }
            if let Some(progress) = progress {
                inner.contact.note(&key.0, &key.1, &progress);
            }
            generations.push(v1::NodeGeneration {
                fleet: key.0.to_string(),
                node: key.1.to_string(),
                generation: node.assignment.generation.0,
            });
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
}
