//! The consensus library's own storage suite, on new data folders and on reopened ones, and what reopening must keep.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use openraft::{
    EntryPayload, Membership, RaftLogReader, RaftSnapshotBuilder, StorageError,
    entry::RaftEntry,
    storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    type_config::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, VoteOf},
};
use soloist_coordinator::{
    raft::types::TypeConfig,
    store::{LogStore, Machine, Store},
};
use soloist_core::{Command, Entry, ids::FleetId, time::Time};
use tempfile::TempDir;

type Error = StorageError<TypeConfig>;

/// Opens a new data folder.
struct Fresh;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), Error> {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        Ok((folder, store.log, store.machine))
    }
}

/// Opens a new data folder, closes it, and opens it again.
struct Reopened;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Reopened {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), Error> {
        let folder = tempfile::tempdir().unwrap();
        drop(open(&folder));
        let store = open(&folder);
        Ok((folder, store.log, store.machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_on_new_folders() {
    Suite::test_all(Fresh).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_on_reopened_folders() {
    Suite::test_all(Reopened).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reopening_keeps_log_vote_and_purge() {
    let folder = tempfile::tempdir().unwrap();
    let vote = VoteOf::<TypeConfig>::new_committed(3, 1);
    {
        let Store { mut log, mut machine, .. } = open(&folder);
        log.save_vote(&VoteOf::<TypeConfig>::new(3, 1)).await.unwrap();
        log.blocking_append((0..20).map(|index| command(1, index))).await.unwrap();
        log.truncate_after(Some(id(1, 14))).await.unwrap();
        log.blocking_append((15..18).map(|index| command(3, index))).await.unwrap();
        log.save_vote(&vote).await.unwrap();
        apply(&mut machine, &mut log, 0..10).await;
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        log.purge(id(1, 5)).await.unwrap();
        log.save_committed(Some(id(1, 12))).await.unwrap();
    }
    let Store { mut log, mut machine, .. } = open(&folder);
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 5)), Some(id(3, 17))));
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(id(1, 12)));
    let expected: Vec<_> =
        (6..15).map(|index| command(1, index)).chain((15..18).map(|index| command(3, index))).collect();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), expected);
    // The log behind the snapshot leads to the state it had, and on.
    apply(&mut machine, &mut log, 10..15).await;
    machine.handle().read(|state, index| {
        assert_eq!((state.now, index), (Time(14), 14));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reopening_builds_the_same_state_from_snapshot_and_log() {
    let folder = tempfile::tempdir().unwrap();
    let membership = Membership::<u64, openraft::BasicNode>::new_with_defaults(vec![[7].into()], []);
    let before = {
        let Store { mut log, mut machine, .. } = open(&folder);
        let members = EntryOf::<TypeConfig>::new(id(1, 0), EntryPayload::Membership(membership.clone()));
        log.blocking_append([members]).await.unwrap();
        log.blocking_append((1..9).map(|index| command(1, index))).await.unwrap();
        apply(&mut machine, &mut log, 0..6).await;
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        // A second snapshot replaces the first.
        apply(&mut machine, &mut log, 6..8).await;
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        machine.handle().read(|state, index| (state.clone(), index))
    };
    assert_eq!(std::fs::read_dir(folder.path().join("snapshots")).unwrap().count(), 1);
    let Store { mut machine, .. } = open(&folder);
    assert_eq!(machine.handle().read(|state, index| (state.clone(), index)), before);
    let (last, members) = machine.applied_state().await.unwrap();
    assert_eq!((last, members.membership()), (Some(id(1, 7)), &membership));
    let snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(id(1, 7)));

    // Sent to another member, it gives the same state there.
    let elsewhere = tempfile::tempdir().unwrap();
    let Store { machine: mut other, .. } = open(&elsewhere);
    let handle = other.handle();
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.wait_applied(7, Duration::from_secs(10)).await }
    });
    other.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert!(waiting.await.unwrap());
    assert_eq!(handle.read(|state, index| (state.clone(), index)), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_a_fleet_is_woken_for_its_entries_and_for_those_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let Store { mut log, mut machine, .. } = open(&folder);
    let resume = |index, fleet: &FleetId| {
        let command = Command::Resume { fleet: fleet.clone(), by: String::new(), reason: String::new() };
        let entry = Entry { time: Time(index), wall_ms: index, feature_level: 1, command };
        EntryOf::<TypeConfig>::new(id(1, index), EntryPayload::Normal(entry))
    };
    let (one, other) = (FleetId::new("one").unwrap(), FleetId::new("other").unwrap());
    let (mut of_one, mut of_other) = (machine.handle().changes(&one), machine.handle().changes(&other));
    let blank = EntryOf::<TypeConfig>::new(id(1, 0), EntryPayload::Blank);
    log.blocking_append([blank, resume(1, &one), resume(2, &other), command(1, 3)]).await.unwrap();
    let mut seen = Vec::new();
    for index in 0..4 {
        apply(&mut machine, &mut log, index..index + 1).await;
        let changed = [&mut of_one, &mut of_other].map(|changes| changes.has_changed().unwrap());
        seen.push((changed, *of_one.borrow_and_update(), *of_other.borrow_and_update()));
    }
    let expected = [([true, true], 0, 0), ([true, false], 1, 0), ([false, true], 1, 2), ([true, true], 3, 3)];
    assert_eq!(seen, expected);
    // Nobody is left who follows one: it is forgotten, and followed again from the start.
    drop(of_one);
    assert_eq!(*machine.handle().changes(&one).borrow(), 0);
    assert_eq!(*machine.handle().changes(&other).borrow(), 3);
}

fn open(folder: &TempDir) -> Store {
    Store::open(folder.path(), "test", 7).unwrap()
}

fn id(term: u64, index: u64) -> LogIdOf<TypeConfig> {
    let leader_id: CommittedLeaderIdOf<TypeConfig> =
        openraft::impls::leader_id_adv::LeaderId { term, node_id: 1 };
    LogIdOf::<TypeConfig> { leader_id, index }
}

fn command(term: u64, index: u64) -> EntryOf<TypeConfig> {
    let command = Command::Promote { member: term };
    let entry = Entry { time: Time(index), wall_ms: index, feature_level: 1, command };
    EntryOf::<TypeConfig>::new(id(term, index), EntryPayload::Normal(entry))
}

async fn apply(machine: &mut Machine, log: &mut LogStore, range: std::ops::Range<u64>) {
    let entries = log.try_get_log_entries(range).await.unwrap();
    machine.apply(futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await.unwrap();
}
