//! The replicated state: the core's `State`, changed by committed entries only.
//!
//! It lives in memory. On the disk are the newest snapshot and the log behind it, from which it is built again.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend,
    storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine},
};
use soloist_core::{State, command::FEATURE_LEVEL, ids::FleetId};
use tokio::sync::watch;

use super::{
    codec::{decode, encode, state_level},
    error::{Damage, StoreError},
    folder::damaged,
    snapshot::{SnapshotFiles, SnapshotPlace},
};
use crate::raft::types::{Applied, LogEntry, LogId, Response, Snapshot, SnapshotMeta, StoredMembership};

/// Why a reader may rely on the state's lock.
const POISONED: &str =
    "a panic while an entry was applied leaves no state to trust; the process must restart";

/// Read access to the replicated state, for every part of the coordinator. Clones share it.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    shared: Arc<Shared>,
}

impl StoreHandle {
    /// Reads the state. The second argument is the index of the last entry it includes, 0 if there is none.
    ///
    /// No entry is applied meanwhile, so take out what is needed and return.
    pub fn read<R>(&self, f: impl FnOnce(&State, u64) -> R) -> R {
        let replica = self.shared.replica.read().expect(POISONED);
        f(&replica.state, replica.index())
    }

    /// A copy of the state, with index and term of the last entry that it includes.
    pub(crate) fn copy(&self) -> (State, u64, u64) {
        let replica = self.shared.replica.read().expect(POISONED);
        (replica.state.clone(), replica.index(), replica.last.map_or(0, |last| last.leader_id.term))
    }

    /// The index of the last applied entry, as it changes. A value seen here is included in every later
    /// [`StoreHandle::read`].
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// The index of the last applied entry that may have changed this fleet, as it changes, and no sooner than
    /// [`StoreHandle::read`] includes it; 0 before the first. Whoever follows one fleet is not woken for the entries of all others.
    pub fn changes(&self, fleet: &FleetId) -> watch::Receiver<u64> {
        let mut followed = self.shared.followed.lock().expect(POISONED);
        followed.retain(|_, sender| sender.receiver_count() > 0);
        followed.entry(fleet.clone()).or_default().subscribe()
    }

    /// Waits until the entry with this index is applied here. `false` if that takes longer than `deadline`.
    pub async fn wait_applied(&self, index: u64, deadline: Duration) -> bool {
        let mut applied = self.applied();
        let reached = applied.wait_for(|applied| *applied >= index);
        matches!(tokio::time::timeout(deadline, reached).await, Ok(Ok(_)))
    }
}

/// The state machine that the consensus library feeds.
#[derive(Debug)]
pub struct Machine<P = SnapshotFiles> {
    shared: Arc<Shared>,
    snapshots: P,
    /// The highest feature level that is followed.
    max_level: u32,
}

#[derive(Debug)]
struct Shared {
    replica: RwLock<Replica>,
    applied: watch::Sender<u64>,
    /// Fleets that somebody follows.
    followed: Mutex<HashMap<FleetId, watch::Sender<u64>>>,
}

impl Shared {
    fn new(replica: Replica) -> Self {
        let applied = watch::Sender::new(replica.index());
        Self { replica: RwLock::new(replica), applied, followed: Mutex::default() }
    }

    /// Wakes whoever waits for what entry `index` may have changed: this fleet, or all if there is none.
    fn changed(&self, index: u64, fleet: Option<&FleetId>) {
        self.applied.send_replace(index);
        let followed = self.followed.lock().expect(POISONED);
        let concerned: Vec<_> = match fleet {
            Some(fleet) => followed.get(fleet).into_iter().collect(),
            None => followed.values().collect(),
        };
        for changes in concerned {
            changes.send_replace(index);
        }
    }
}

/// The state, and up to where it is.
#[derive(Debug, Clone, Default)]
struct Replica {
    last: Option<LogId>,
    membership: StoredMembership,
    state: State,
}

impl Replica {
    fn index(&self) -> u64 {
        self.last.map_or(0, |last| last.index)
    }

    fn apply(&mut self, entry: &LogEntry) -> Response {
        let index = entry.log_id.index;
        let response = match &entry.payload {
            EntryPayload::Blank => Response::Internal { index },
            EntryPayload::Normal(command) => {
                let reply = soloist_core::apply(&mut self.state, index, command).reply;
                Response::Command(Applied { index, reply })
            }
            EntryPayload::Membership(membership) => {
                let before = self.membership.nodes().map(|(id, _)| *id).collect();
                let after = membership.nodes().map(|(id, _)| *id).collect();
                soloist_core::members::changed(&mut self.state, &before, &after);
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                Response::Internal { index }
            }
        };
        self.last = Some(entry.log_id);
        response
    }
}

impl<P: SnapshotPlace> Machine<P> {
    /// Builds the state from the newest snapshot. `purged` is where the log starts: the snapshot must reach that far.
    ///
    /// # Errors
    ///
    /// When the snapshot cannot be read, or does not reach that far.
    pub fn open(snapshots: P, purged: Option<LogId>) -> Result<Machine<P>, StoreError> {
        let replica = match snapshots.load()? {
            None => Replica::default(),
            Some(snapshot) => {
                follow("the newest snapshot", state_level(&snapshot.snapshot), FEATURE_LEVEL)?;
                decode_replica(&snapshot.meta, &snapshot.snapshot).map_err(|error| {
                    let record = format!("state in the newest snapshot ({error})");
                    damaged(snapshots.path(), Damage::Record { record })
                })?
            }
        };
        if let Some(purged) = purged
            && replica.last.is_none_or(|last| last < purged)
        {
            let found = replica.last.map_or("nothing".to_owned(), |last| format!("entries up to {last}"));
            return Err(damaged(snapshots.path(), Damage::LostSnapshot { purged: purged.index, found }));
        }
        let shared = Arc::new(Shared::new(replica));
        Ok(Machine { shared, snapshots, max_level: FEATURE_LEVEL })
    }

    /// Follows entries and snapshots up to this feature level only.
    ///
    /// # Errors
    ///
    /// When the state is of a higher one already.
    pub(crate) fn limit(&mut self, max: u32) -> Result<(), StoreError> {
        self.max_level = max;
        let level = self.shared.replica.read().expect(POISONED).state.level;
        follow("the state", Some(level), max)
    }

    /// The members that the state knows, with their addresses.
    pub(crate) fn members(&self) -> BTreeMap<u64, String> {
        let replica = self.shared.replica.read().expect(POISONED);
        replica.membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect()
    }

    /// Read access to the state.
    pub fn handle(&self) -> StoreHandle {
        StoreHandle { shared: self.shared.clone() }
    }
}

impl<P: SnapshotPlace> RaftStateMachine<P::Config> for Machine<P> {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = SnapshotBuilder<P>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let replica = self.shared.replica.read().expect(POISONED);
        Ok((replica.last, replica.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<P::Config>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            if let EntryPayload::Normal(command) = &entry.payload
                && command.feature_level > self.max_level
            {
                let what = format!("log entry {}", entry.log_id.index);
                let (found, max) = (command.feature_level, self.max_level);
                return Err(StoreError::TooNew { what, found, max }.into());
            }
            let response = self.shared.replica.write().expect(POISONED).apply(&entry);
            // Before the answer: whoever got it may wait for its index and must not wait in vain.
            let fleet = match &entry.payload {
                EntryPayload::Normal(command) => command.command.fleet(),
                EntryPayload::Blank | EntryPayload::Membership(_) => None,
            };
            self.shared.changed(entry.log_id.index, fleet);
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<P> {
        // A copy, so that entries go on being applied while it is encoded and written.
        let replica = Arc::new(self.shared.replica.read().expect(POISONED).clone());
        SnapshotBuilder { replica, snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> Result<(), io::Error> {
        // Decoded first: one that cannot be read must not replace one that can.
        follow("the snapshot that the leader sent", state_level(&snapshot), self.max_level)?;
        let replica = decode_replica(meta, &snapshot)?;
        let meta = meta.clone();
        self.snapshots.run(move |snapshots| snapshots.save(&meta, &snapshot)).await?;
        let index = replica.index();
        *self.shared.replica.write().expect(POISONED) = replica;
        self.shared.changed(index, None);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.snapshots.run(|snapshots| Ok(snapshots.load()?)).await
    }
}

/// Writes one snapshot, of the state at the moment this was made.
#[derive(Debug)]
pub struct SnapshotBuilder<P = SnapshotFiles> {
    replica: Arc<Replica>,
    snapshots: P,
}

impl<P: SnapshotPlace> RaftSnapshotBuilder<P::Config> for SnapshotBuilder<P> {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let replica = self.replica.clone();
        let work = move |snapshots: &P| {
            let last_membership = replica.membership.clone();
            let meta = SnapshotMeta { last_log_id: replica.last, last_membership };
            let state = encode(&replica.state)?;
            snapshots.save(&meta, &state)?;
            Ok(Snapshot { meta, snapshot: state })
        };
        self.snapshots.run(work).await
    }
}

/// Whether this member may follow what is of this feature level; of what tells none, the reading itself decides.
fn follow(what: &str, level: Option<u32>, max: u32) -> Result<(), StoreError> {
    match level {
        Some(found) if found > max => Err(StoreError::TooNew { what: what.to_owned(), found, max }),
        Some(_) | None => Ok(()),
    }
}

fn decode_replica(meta: &SnapshotMeta, state: &[u8]) -> io::Result<Replica> {
    let (last, membership) = (meta.last_log_id, meta.last_membership.clone());
    Ok(Replica { last, membership, state: decode(state)? })
}
