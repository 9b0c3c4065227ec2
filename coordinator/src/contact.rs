//! Who was heard: what this member's sessions hear, on its way to the leader's [`Memory`](crate::memory::Memory).
//!
//! ```text
//!   sessions ──► Hearing ──every second, or at once on news──► the leader's Memory ──► due, view
//!                   ▲                                                │
//!                   └────────── generations, term ◄──────────────────┘
//! ```
//!
//! None of this is replicated: a new leader begins with an empty memory and is told again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message as _;
use soloist_core::{
    ids::{FleetId, Incarnation, NodeId},
    policy::TEXT_MAX,
    preflight::NodeFacts,
    time::Millis,
};
use soloist_proto::{
    errors::{Problem, REMOVED},
    v1,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    memory::{Key, News},
    shared::Shared,
};

/// Between two messages to the leader when nothing new is heard.
const BEAT: Duration = Duration::from_secs(1);
/// Between two messages to the leader at the least.
const PAUSE: Duration = Duration::from_millis(200);
/// Nodes in one message to the leader. With the most and longest plugins and facts it stays below gRPC's usual limit of 4 MiB.
pub(crate) const NODES_PER_MESSAGE: usize = 32;
/// Sessions of one member.
pub(crate) const SESSIONS_MAX: usize = 5_000;
/// Plugins of one node; NocoBase has about 80.
const PLUGINS_MAX: usize = 400;
/// The longest name of a plugin, in characters.
const PLUGIN_NAME_MAX: usize = 120;
/// What a node says about itself, in bytes; a NocoBase node of a full fleet needs 8 KiB at most.
const FACTS_MAX: usize = 16 * 1024;
/// How long a reading of the leader's clock is passed on.
const CLOCK_FRESH: Duration = Duration::from_secs(4);
/// How long a generation that the leader told is passed on.
const GENERATION_FRESH: Duration = Duration::from_secs(4);

/// What this member's own sessions have heard.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    inner: Mutex<Heard>,
    urgent: Notify,
}

#[derive(Debug, Default)]
struct Heard {
    nodes: BTreeMap<Key, Ear>,
    sessions: u64,
    open: usize,
    /// Term of the leader that was told last.
    term: u64,
    leader_at: Option<Millis>,
    /// By how much the leader's wall clock is ahead of this member's elapsed time, at least and at most.
    leader_ahead: Option<Ahead>,
}

/// By how much a leader's wall clock is ahead of this member's elapsed time, and when that was measured.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    lo_ms: u64,
    hi_ms: u64,
    at: Millis,
}

#[derive(Debug, Default)]
struct Ear {
    session: u64,
    incarnation: Incarnation,
    heard: bool,
    progress: String,
    progress_new: bool,
    inventory: Option<v1::Inventory>,
    inventory_new: bool,
    /// With the time at which it came.
    facts: Option<(v1::FactsNews, Millis)>,
    facts_new: bool,
    facts_wanted: u64,
    generation: Option<(u64, Millis)>,
}

/// An open session's place in [`Hearing`]. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    key: Key,
    session: u64,
}

impl Hearing {
    fn inner(&self) -> MutexGuard<'_, Heard> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sessions are open.
    pub(crate) fn sessions(&self) -> usize {
        self.inner().open
    }

    /// When a leader was last heard.
    pub(crate) fn leader_heard(&self) -> Option<Millis> {
        self.inner().leader_at
    }

    /// Notes that the leader answered.
    pub(crate) fn heard_leader(&self, at: Millis) {
        self.inner().leader_at = Some(at);
    }

    /// Notes what the leader's wall clock was when it answered, between two moments of this member's elapsed time.
    fn read_clock(&self, wall_ms: u64, sent: Millis, received: Millis) {
        let ahead = |at: Millis| wall_ms.saturating_sub(at.0);
        let ahead = Ahead { lo_ms: ahead(received), hi_ms: ahead(sent), at: received };
        // A leader of an older version does not say.
        self.inner().leader_ahead = (wall_ms > 0).then_some(ahead);
    }

    /// Between what the leader's wall clock is at `now`, if that was measured just now.
    pub(crate) fn leader_wall_ms(&self, now: Millis) -> Option<(u64, u64)> {
        let Ahead { lo_ms, hi_ms, at } = self.inner().leader_ahead?;
        let fresh = u128::from(now.0.saturating_sub(at.0)) <= CLOCK_FRESH.as_millis();
        // The elapsed time is cut to whole milliseconds.
        fresh.then(|| {
            (lo_ms.saturating_add(now.0).saturating_sub(1), hi_ms.saturating_add(now.0).saturating_add(1))
        })
    }

    /// Opens the place of a session whose agent has registered; `None` if there are too many. An older session of the
    /// same node loses its own.
    pub(crate) fn open(
        shared: &Arc<Shared>,
        fleet: &FleetId,
        node: &NodeId,
        incarnation: Incarnation,
    ) -> Option<Place> {
        let mut inner = shared.hearing.inner();
        if inner.open >= SESSIONS_MAX {
            return None;
        }
        inner.open += 1;
        inner.sessions += 1;
        let (key, session) = ((fleet.clone(), node.clone()), inner.sessions);
        inner.nodes.insert(key.clone(), Ear { session, incarnation, heard: true, ..Ear::default() });
        drop(inner);
        shared.hearing.urgent.notify_one();
        Some(Place { shared: shared.clone(), key, session })
    }

    /// Takes out what is new, and marks it as told.
    fn take(&self, now: Millis) -> Vec<News> {
        let mut inner = self.inner();
        let each = inner.nodes.iter_mut();
        each.map(|(key, ear)| News {
            key: key.clone(),
            incarnation: ear.incarnation,
            heard: std::mem::take(&mut ear.heard),
            progress: std::mem::take(&mut ear.progress_new).then(|| ear.progress.clone()),
            inventory: if std::mem::take(&mut ear.inventory_new) { ear.inventory.clone() } else { None },
            facts: ear.facts.as_ref().filter(|_| std::mem::take(&mut ear.facts_new)).map(|(facts, at)| {
                let waited = now.0.saturating_sub(at.0);
                v1::FactsNews {
                    age_ms: facts.age_ms.saturating_add(waited),
                    wall_ms: facts.wall_ms.saturating_add(waited),
                    ..facts.clone()
                }
            }),
        })
        .collect()
    }

    /// Puts back what could not be told.
    fn put_back(&self, news: &[News]) {
        let mut inner = self.inner();
        for news in news {
            if let Some(ear) = inner.nodes.get_mut(&news.key) {
                ear.heard |= news.heard;
                ear.progress_new |= news.progress.is_some();
                ear.inventory_new |= news.inventory.is_some();
                ear.facts_new |= news.facts.is_some();
            }
        }
    }

    /// Takes in the leader's answer. A leader of another term knows nothing yet and is told everything.
    fn told(&self, term: u64, generations: &[v1::NodeGeneration], at: Millis) {
        let mut inner = self.inner();
        inner.leader_at = Some(at);
        for found in generations {
            let (Ok(fleet), Ok(node)) = (FleetId::new(&found.fleet), NodeId::new(&found.node)) else {
                continue;
            };
            if let Some(ear) = inner.nodes.get_mut(&(fleet, node)) {
                ear.generation = Some((found.generation, at));
                ear.facts_wanted = found.facts_wanted;
            }
        }
        if inner.term != term {
            inner.term = term;
            for ear in inner.nodes.values_mut() {
                ear.progress_new = !ear.progress.is_empty();
                ear.inventory_new = ear.inventory.is_some();
                ear.facts_new = ear.facts.is_some();
            }
            self.urgent.notify_one();
        }
    }
}

impl Place {
    fn with(&self, change: impl FnOnce(&mut Ear) -> bool) {
        let mut inner = self.shared.hearing.inner();
        if let Some(ear) = inner.nodes.get_mut(&self.key)
            && ear.session == self.session
            && change(ear)
        {
            drop(inner);
            self.shared.hearing.urgent.notify_one();
        }
    }

    /// Notes that the node was heard.
    pub(crate) fn heard(&self) {
        self.with(|ear| {
            ear.heard = true;
            false
        });
    }

    /// Takes in a beat. What is longer than a person would read is cut off.
    pub(crate) fn beat(&self, beat: v1::Beat) {
        let progress: String = beat.progress.chars().take(TEXT_MAX).collect();
        let inventory = beat.inventory.map(bounded);
        let (facts, now) = (beat.facts.filter(readable), self.shared.clock.elapsed());
        self.with(|ear| {
            ear.heard = true;
            let mut news = false;
            if ear.progress != progress {
                ear.progress = progress;
                ear.progress_new = true;
                news = true;
            }
            if inventory.is_some() && inventory != ear.inventory {
                ear.inventory = inventory;
                ear.inventory_new = true;
                news = true;
            }
            if let Some(facts) = facts {
                ear.facts = Some((facts, now));
                ear.facts_new = true;
                news = true;
            }
            news
        });
    }

    /// The generation that the leader has for this node, if it said so just now.
    pub(crate) fn generation(&self) -> Option<u64> {
        let inner = self.shared.hearing.inner();
        let ear = inner.nodes.get(&self.key).filter(|ear| ear.session == self.session)?;
        let (generation, at) = ear.generation?;
        self.shared.clock.within(at, GENERATION_FRESH).then_some(generation)
    }
}

impl Place {
    /// Facts that answer a lower number are to be gathered anew.
    pub(crate) fn facts_wanted(&self) -> u64 {
        let inner = self.shared.hearing.inner();
        let ear = inner.nodes.get(&self.key).filter(|ear| ear.session == self.session);
        ear.map_or(0, |ear| ear.facts_wanted)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.shared.hearing.inner();
        inner.open = inner.open.saturating_sub(1);
        if inner.nodes.get(&self.key).is_some_and(|ear| ear.session == self.session) {
            inner.nodes.remove(&self.key);
        }
    }
}

fn bounded(mut inventory: v1::Inventory) -> v1::Inventory {
    inventory.plugins.truncate(PLUGINS_MAX);
    for plugin in &mut inventory.plugins {
        for text in [&mut plugin.name, &mut plugin.package] {
            if let Some((end, _)) = text.char_indices().nth(PLUGIN_NAME_MAX) {
                text.truncate(end);
            }
        }
    }
    inventory
}

/// Whether facts can be passed on: what is too long or malformed is left out, as if the agent had told nothing.
fn readable(news: &v1::FactsNews) -> bool {
    let sound = news.encoded_len() <= FACTS_MAX
        && news.facts.as_ref().is_some_and(|facts| NodeFacts::try_from(facts.clone()).is_ok());
    if !sound {
        tracing::debug!(bytes = news.encoded_len(), "facts that cannot be read were left out");
    }
    sound
}

/// Tells the leader what is heard, until the coordinator stops.
pub(crate) async fn telling(shared: Arc<Shared>) {
    let mut removed = false;
    loop {
        let told = tell(&shared).await;
        let again = matches!(&told, Err(problem) if problem.reason == REMOVED);
        if again && !removed {
            tracing::error!(
                "this member was removed from the cluster: stop it; to come back it needs an empty data folder and another id"
            );
        }
        removed = again;
        let wait = async {
            sleep(PAUSE).await;
            // Without news, the rest of a beat.
            let _ = timeout(BEAT - PAUSE, shared.hearing.urgent.notified()).await;
        };
        // Cancel-safe: a notification that is missed costs one beat.
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = wait => {}
        }
    }
}

async fn tell(shared: &Shared) -> Result<(), Problem> {
    let mut result = Ok(());
    let news = shared.hearing.take(shared.clock.elapsed());
    let mut parts: Vec<&[News]> = news.chunks(NODES_PER_MESSAGE).collect();
    if parts.is_empty() {
        // Also without sessions, so that this member knows whether it has a leader.
        parts.push(&[]);
    }
    for part in parts {
        match tell_part(shared, part).await {
            Ok((term, generations)) => shared.hearing.told(term, &generations, shared.clock.elapsed()),
            Err(problem) => {
                tracing::debug!(problem = %problem, "the leader was not told who was heard");
                shared.hearing.put_back(part);
                result = Err(problem);
            }
        }
    }
    result
}

async fn tell_part(shared: &Shared, part: &[News]) -> Result<(u64, Vec<v1::NodeGeneration>), Problem> {
    if shared.leads().is_some() {
        let now = shared.leadership.stamp(shared);
        let (Some(term), Some(now), true) = (shared.leads(), now, shared.has_majority()) else {
            return Err(Problem::new(tonic::Code::Unavailable, "not_leader", "not promoted yet", ""));
        };
        shared.memory.enter(term);
        let wall_ms = shared.clock.wall_ms();
        let told =
            shared.raft.storage().read(|state, _| shared.memory.hear(state, now, wall_ms, part.to_vec()));
        return Ok((term, told));
    }
    let Some(leader) = shared.other_leader() else {
        return Err(Problem::new(tonic::Code::Unavailable, "no_leader", "no leader is known", ""));
    };
    let nodes = part.iter().map(|news| v1::HeardNode {
        fleet: news.key.0.to_string(),
        node: news.key.1.to_string(),
        incarnation: news.incarnation.0,
        heard: news.heard,
        progress: news.progress.clone(),
        inventory: news.inventory.clone(),
        facts: news.facts.clone(),
    });
    let sent = shared.clock.elapsed();
    let reply = shared.peers.hear(&leader, nodes.collect()).await?;
    shared.hearing.read_clock(reply.wall_ms, sent, shared.clock.elapsed());
    Ok((reply.term, reply.generations))
}
