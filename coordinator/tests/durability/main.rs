//! What is acknowledged is on the disk, and what is missing from the disk is noticed.
//!
//! The first part runs this test binary again under `strace` and reads from the kernel's side what was synced before each
//! acknowledgement. The second part damages closed data folders and opens them again.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command as Process,
    time::Duration,
};

use openraft::{
    EntryPayload, RaftLogReader, RaftSnapshotBuilder,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
    type_config::{
        TypeConfigExt,
        alias::{EntryOf, LogIdOf, VoteOf},
    },
};
use soloist_coordinator::{
    raft::{ProposeError, RaftNode, RaftOptions, types::TypeConfig},
    store::{Damage, LogStore, Store, StoreError},
};
use soloist_core::{Command, Entry, time::Time};
use tempfile::TempDir;

mod trace;
use trace::*;

type Id = LogIdOf<TypeConfig>;
type Vote = VoteOf<TypeConfig>;
type LogEntry = EntryOf<TypeConfig>;

/// Tells a child process which folder to write to; without it the children's tests do nothing.
const CHILD_FOLDER: &str = "SOLOIST_DURABILITY_FOLDER";

// ---------------------------------------------------------------------------------------------------------------------
// Synced before it is acknowledged
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn every_acknowledgement_follows_a_sync() {
    let folder = tempfile::tempdir().unwrap();
    let trace = Trace::of_child("child_writes_and_acknowledges", folder.path(), &[]);

    for what in ["vote 1", "append 1", "vote 2", "append 2"] {
        let events = trace.between(what);
        let mut at = after(events, 0, &Event::wrote("log.redb"), what);
        at = after(events, at, &Event::synced("log.redb"), what);
        at = after(events, at, &Event::wrote("marker"), what);
        after(events, at, &Event::synced("marker"), what);
        nothing_unsynced(events, "log.redb", what);
        nothing_unsynced(events, "marker", what);
    }

    // The marker is lowered, and that is on the disk, before the log loses anything.
    let events = trace.between("truncate");
    let mut at = after(events, 0, &Event::wrote("marker"), "truncate");
    at = after(events, at, &Event::synced("marker"), "truncate");
    assert!(
        !events[..at].contains(&Event::wrote("log.redb")),
        "the log was cut before the marker: {events:#?}"
    );
    at = after(events, at, &Event::wrote("log.redb"), "truncate");
    after(events, at, &Event::synced("log.redb"), "truncate");
    nothing_unsynced(events, "log.redb", "truncate");

    let events = trace.between("snapshot");
    let at = after(events, 0, &Event::synced(".tmp"), "snapshot");
    let at = after(events, at, &Event::Renamed, "snapshot");
    after(events, at, &Event::synced("snapshots"), "snapshot");

    // One sync of each file serves many appends.
    let events = trace.between("many");
    let syncs = events.iter().filter(|event| **event == Event::synced("log.redb")).count();
    assert!((1..=50).contains(&syncs), "100 appends in a row took {syncs} syncs");
    nothing_unsynced(events, "log.redb", "many");
}

#[tokio::test]
async fn child_writes_and_acknowledges() {
    let Some(folder) = env::var_os(CHILD_FOLDER) else { return };
    let Store { mut log, mut machine, .. } = Store::open(Path::new(&folder), "test", 1).unwrap();
    begin("vote 1");
    log.save_vote(&Vote::new(1, 1)).await.unwrap();
    acknowledge("vote 1");
    begin("append 1");
    log.blocking_append((0..3).map(|index| command(1, index))).await.unwrap();
    acknowledge("append 1");
    begin("vote 2");
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    acknowledge("vote 2");
    begin("append 2");
    log.blocking_append((3..9).map(|index| command(1, index))).await.unwrap();
    acknowledge("append 2");
    begin("truncate");
    log.truncate_after(Some(id(1, 5))).await.unwrap();
    acknowledge("truncate");

    let entries = log.try_get_log_entries(..).await.unwrap();
    machine.apply(futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await.unwrap();
    begin("snapshot");
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    acknowledge("snapshot");

    begin("many");
    let mut waiting = Vec::new();
    for index in 6..106 {
        let (done, result) = TypeConfig::oneshot();
        log.append([command(1, index)], IOFlushed::signal(done)).await.unwrap();
        waiting.push(result);
    }
    for result in waiting {
        result.await.unwrap().unwrap();
    }
    acknowledge("many");
}

#[test]
fn a_failed_sync_stops_the_member_for_good() {
    let folder = tempfile::tempdir().unwrap();
    // Counted per thread: opening takes a few, and the flusher has two for each group.
    let inject = ["-e", "inject=fdatasync:error=EIO:when=41+"];
    let trace = Trace::of_child("child_meets_a_failing_disk", folder.path(), &inject);
    let failed = trace.events.iter().position(|event| *event == Event::Failed).expect("no sync failed");
    let later = &trace.events[failed + 1..];
    assert!(!later.contains(&Event::Failed), "a failed sync was tried again: {later:#?}");
    assert!(!later.contains(&Event::wrote("marker")), "the marker was raised all the same: {later:#?}");
    let answers: Vec<_> = later.iter().filter(|event| matches!(event, Event::Acknowledged(_))).collect();
    assert_eq!(answers, [&Event::Acknowledged("stopped".to_owned())]);

    // What was acknowledged before is still there.
    let acknowledged =
        |event: &&Event| matches!(event, Event::Acknowledged(what) if what.starts_with("proposal"));
    let proposals = trace.events.iter().filter(acknowledged).count();
    let mut log = Store::open(folder.path(), "test", 1).unwrap().log;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let entries = runtime.block_on(log.try_get_log_entries(..)).unwrap();
    let commands = entries.iter().filter(|entry| matches!(entry.payload, EntryPayload::Normal(_))).count();
    assert!(
        proposals > 0 && commands >= proposals,
        "{commands} of {proposals} acknowledged proposals are left"
    );
}

#[tokio::test]
async fn child_meets_a_failing_disk() {
    let Some(folder) = env::var_os(CHILD_FOLDER) else { return };
    let options = RaftOptions::new("test", 1, &folder).with_initial_members([(1, "127.0.0.1:1")]);
    let node = RaftNode::open(options).await.unwrap();
    let until_it_fails = async {
        node.status().wait_for(|status| status.leader.is_some()).await.unwrap();
        loop {
            match node.propose(entry(1)).await {
                Ok(_) => acknowledge("proposal"),
                Err(ProposeError::Fatal { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        node.fatal().wait_for(Option::is_some).await.unwrap().clone()
    };
    let reason = tokio::time::timeout(Duration::from_secs(60), until_it_fails).await.unwrap().unwrap();
    assert!(
        reason.contains("cannot write to the log database") && reason.contains(folder.to_str().unwrap()),
        "{reason}"
    );
    assert!(matches!(node.propose(entry(2)).await, Err(ProposeError::Fatal { .. })));
    acknowledge("stopped");
}

// ---------------------------------------------------------------------------------------------------------------------
// Missing from the disk
// ---------------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shortened_database_opens_with_everything_or_not_at_all() {
    let full = filled(200).await;
    let database = full.path().join("log.redb");
    let content = fs::read(&database).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut refused = 0;
    for cut in [1, 16, 100, 1000, 4096, 10_000, 30_000, used / 2, used] {
        let copy = copy_of(&full);
        let file = File::options().write(true).open(copy.path().join("log.redb")).unwrap();
        file.set_len((used - cut.min(used)) as u64).unwrap();
        refused += u32::from(all_or_nothing(&copy, 200).await);
    }
    assert!(refused >= 6, "only {refused} of 9 cuts were noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_is_noticed_or_harmless() {
    let full = filled(100).await;
    let content = fs::read(full.path().join("log.redb")).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in (0..used).step_by(used / 12) {
        let copy = copy_of(&full);
        let mut changed = content.clone();
        changed[at] ^= 0x10;
        fs::write(copy.path().join("log.redb"), changed).unwrap();
        all_or_nothing(&copy, 100).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_log_is_refused() {
    let full = filled(10).await;
    let older = copy_of(&full);
    {
        let mut log = open(&full).unwrap().log;
        log.blocking_append((10..12).map(|index| command(2, index))).await.unwrap();
    }
    replace(&older, &full, "log.redb");
    let error = open(&full).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { damage: Damage::LostLog { .. }, .. }), "{error}");
    let text = error.to_string();
    for part in
        [full.path().to_str().unwrap(), "acknowledged up to T2-N1", "wipe this folder", "new member id"]
    {
        assert!(text.contains(part), "{part:?} is missing from: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overwritten_entry_that_comes_back_is_refused() {
    let full = filled(10).await;
    let older = copy_of(&full);
    {
        // The same length again, under another leader.
        let mut log = open(&full).unwrap().log;
        log.truncate_after(Some(id(1, 8))).await.unwrap();
        log.blocking_append([command(2, 9)]).await.unwrap();
    }
    replace(&older, &full, "log.redb");
    let error = open(&full).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { damage: Damage::LostLog { .. }, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_vote_is_refused() {
    let full = filled(10).await;
    let older = copy_of(&full);
    open(&full).unwrap().log.save_vote(&Vote::new(5, 2)).await.unwrap();
    replace(&older, &full, "log.redb");
    let error = open(&full).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { damage: Damage::LostVote { .. }, .. }), "{error}");
    assert!(error.to_string().contains("new member id"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_log_than_acknowledged_is_kept() {
    // As after a crash between the sync of the log and that of the marker.
    let full = filled(10).await;
    let older = copy_of(&full);
    {
        let mut log = open(&full).unwrap().log;
        log.save_vote(&Vote::new(5, 2)).await.unwrap();
        log.blocking_append([command(5, 10)]).await.unwrap();
    }
    fs::copy(older.path().join("marker"), full.path().join("marker")).unwrap();
    assert_eq!(contents(&mut open(&full).unwrap().log).await, (11, Some(Vote::new(5, 2))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_parts_are_refused() {
    let full = filled(10).await;
    {
        let Store { mut log, mut machine, .. } = open(&full).unwrap();
        let entries = log.try_get_log_entries(..).await.unwrap();
        machine
            .apply(futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None)))))
            .await
            .unwrap();
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        log.purge(id(1, 4)).await.unwrap();
    }
    let refused = |part: &str| {
        let copy = copy_of(&full);
        let path = copy.path().join(part);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        let Err(StoreError::Damaged { damage, .. }) = open(&copy) else { panic!("opened without {part}") };
        damage
    };
    assert!(matches!(refused("log.redb"), Damage::LostLog { .. }));
    assert!(matches!(refused("marker"), Damage::File { file: "marker", .. }));
    assert!(matches!(refused("snapshots"), Damage::LostSnapshot { purged: 4, .. }));

    let snapshot = fs::read_dir(full.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let mut content = fs::read(&snapshot).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(snapshot, content).unwrap();
    let error = open(&full).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { damage: Damage::Record { .. }, .. }), "{error}");
}

#[test]
fn a_folder_of_someone_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder).unwrap());
    let error = Store::open(folder.path(), "test", 4).unwrap_err().to_string();
    assert!(error.contains("belongs to member 1") && error.contains("this is member 4"), "{error}");
    let error = Store::open(folder.path(), "other", 1).unwrap_err().to_string();
    assert!(error.contains("\"test\"") && error.contains("\"other\""), "{error}");
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder).unwrap();
    assert!(matches!(open(&folder), Err(StoreError::InUse { .. })));
    drop(first);
    open(&folder).unwrap();
}

/// A closed data folder with a vote and this many acknowledged entries.
async fn filled(entries: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder).unwrap().log;
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    for index in 0..entries {
        log.blocking_append([command(1, index)]).await.unwrap();
    }
    folder
}

/// Opens a damaged folder and returns whether that was refused. If not, nothing may be missing.
async fn all_or_nothing(folder: &TempDir, entries: usize) -> bool {
    let path = folder.path().to_owned();
    let opened = tokio::task::spawn_blocking(move || Store::open(&path, "test", 1)).await;
    match opened.expect("damage is an error, and no panic") {
        Ok(mut store) => {
            assert_eq!(contents(&mut store.log).await, (entries, Some(Vote::new_committed(1, 1))));
            false
        }
        Err(error) => {
            assert!(error.to_string().contains("new member id"), "it says what to do: {error}");
            true
        }
    }
}

async fn contents(log: &mut LogStore) -> (usize, Option<Vote>) {
    (log.try_get_log_entries(..).await.unwrap().len(), log.read_vote().await.unwrap())
}

fn open(folder: &TempDir) -> Result<Store, StoreError> {
    Store::open(folder.path(), "test", 1)
}

fn copy_of(folder: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_all(folder.path(), copy.path());
    copy
}

/// Replaces a part of one folder with that of another.
fn replace(from: &TempDir, to: &TempDir, part: &str) {
    fs::copy(from.path().join(part), to.path().join(part)).unwrap();
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn id(term: u64, index: u64) -> Id {
    Id { leader_id: openraft::impls::leader_id_adv::LeaderId { term, node_id: 1 }, index }
}

fn command(term: u64, index: u64) -> LogEntry {
    LogEntry::new(id(term, index), EntryPayload::Normal(entry(index)))
}

fn entry(number: u64) -> Entry {
    Entry { time: Time(number), wall_ms: number, feature_level: 1, command: Command::Promote { member: 1 } }
}
