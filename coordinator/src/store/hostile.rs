//! Whatever lies on the disk where a record should be: it is refused or it is what was written, and nothing panics. What has
//! no checksum of its own, because it comes from another member or out of a sealed record, is read or refused.

use std::{fs, path::Path};

use openraft::raft::{AppendEntriesRequest, VoteRequest};
use soloist_core::{
    Entry, State,
    event::{Event, EventKind},
    ids::{FleetId, NodeId},
    time::Time,
};

use super::{
    archive::Archive,
    codec::{append_level, checksum, decode, encode, entry_level, seal, state_level, unseal},
    marker::Marker,
    snapshot::{from_file, to_file},
};
use crate::{
    hell,
    raft::{
        types::{LogEntry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, Vote},
        wire::SnapshotHeader,
    },
};

/// Fixed, as in a record's key.
const KEY: &[u8] = b"a key";
/// A value may take this many times the bytes that it is read from, and the smallest value of all.
const GROWTH_MAX: usize = 64;

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/level-1").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The records of the golden log, each after its length.
fn records() -> Vec<Vec<u8>> {
    let log = golden("log.bin");
    let mut rest = log.as_slice();
    let mut records = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (record, more) = more.split_at(u32::from_le_bytes(*length) as usize);
        records.push(record.to_vec());
        rest = more;
    }
    assert!(records.len() > 20);
    records
}

fn golden_snapshot() -> Snapshot {
    from_file(&golden("state.snapshot")).unwrap()
}

/// What can be read can be written again, and has not grown out of proportion.
fn read<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
    match decode::<T>(bytes) {
        Ok(value) => {
            let again = encode(&value).unwrap();
            assert!(again.len() <= GROWTH_MAX * (bytes.len() + 64), "{} became {}", bytes.len(), again.len());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn a_sealed_record_is_what_was_sealed_or_refused() {
    let sealed: Vec<Vec<u8>> = records().iter().map(|record| seal(KEY, record)).collect();
    hell::harm_all(&sealed, |bytes| {
        if let Some(value) = unseal(KEY, bytes) {
            assert!(sealed.iter().any(|sealed| sealed[4..] == *value), "believed");
        }
        assert_eq!(unseal(b"another key", bytes), None);
    });
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_record_is_noticed() {
    for record in records() {
        let mut sealed = seal(KEY, &record);
        for bit in 0..sealed.len() * 8 {
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(KEY, &sealed), None, "bit {bit}");
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
        assert!((0..sealed.len()).all(|end| unseal(KEY, &sealed[..end]).is_none()));
    }
}

#[test]
fn what_is_in_a_record_or_comes_from_a_member_is_read_or_refused() {
    let mut seeds = records();
    let snapshot = golden_snapshot();
    seeds.push(encode(&snapshot.meta).unwrap());
    seeds.push(snapshot.snapshot);
    hell::harm_all(&seeds, |bytes| {
        read::<LogEntry>(bytes);
        read::<Entry>(bytes);
        read::<State>(bytes);
        read::<Vote>(bytes);
        read::<LogId>(bytes);
        read::<SnapshotMeta>(bytes);
        read::<StoredMembership>(bytes);
        read::<SnapshotHeader>(bytes);
        read::<Event>(bytes);
        let _ = decode::<AppendEntriesRequest<TypeConfig>>(bytes);
        let _ = decode::<VoteRequest<TypeConfig>>(bytes);
        let _ = (entry_level(bytes), append_level(bytes), state_level(bytes));
    });
}

#[test]
fn a_snapshot_is_what_was_written_or_refused() {
    let whole = golden("state.snapshot");
    let Snapshot { meta, snapshot } = golden_snapshot();
    let small = to_file(&meta, b"state").unwrap();
    hell::harm_all(&[whole, small], |bytes| {
        if let Some(found) = from_file(bytes) {
            assert!(found.meta == meta && (found.snapshot == snapshot || found.snapshot == b"state"));
        }
        // Also when its checksum was made to fit: lengths that lie cost nothing.
        let mut forged = bytes.to_vec();
        if forged.len() > 12 {
            forged[..8].copy_from_slice(b"SOLOSNP1");
            let sum = checksum(b"SOLOSNP1", &forged[12..]);
            forged[8..12].copy_from_slice(&sum.to_le_bytes());
            if let Some(found) = from_file(&forged) {
                assert!(found.snapshot.len() < forged.len());
            }
        }
    });
}

#[test]
fn a_marker_says_what_was_set_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    Marker::create(folder.path()).unwrap();
    let first = Marker::open(folder.path()).unwrap().mark();
    let path = folder.path().join("marker");
    let mut seeds = vec![fs::read(&path).unwrap()];
    let mut set = vec![first];
    for entry in records().iter().filter_map(|record| decode::<LogEntry>(record).ok()).take(3) {
        let mut marker = Marker::open(folder.path()).unwrap();
        let mark = super::marker::Mark { last: Some(entry.log_id), vote: None };
        marker.set(mark).unwrap();
        set.push(mark);
        seeds.push(fs::read(&path).unwrap());
    }
    assert_eq!(set.len(), 4);
    hell::harm_all(&seeds, |bytes| {
        fs::write(&path, bytes).unwrap();
        match Marker::open(folder.path()) {
            Ok(marker) => assert!(set.contains(&marker.mark()), "{:?} was never set", marker.mark()),
            Err(error) => assert!(error.to_string().contains("marker"), "{error}"),
        }
    });
}

#[test]
fn an_archive_leaves_out_what_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let (fleet, node) = (FleetId::new("main").unwrap(), NodeId::new("node-1").unwrap());
    let kind = EventKind::Freeze("why".to_owned());
    let event = Event { index: 7, time: Time(7), wall_ms: 7, operation: None, node: None, kind };
    let archive = Archive::open(folder.path());
    archive.add(&fleet, std::slice::from_ref(&event));
    archive.keep_records(&fleet, &node, &[((1, 1), "a record".to_owned())]);
    let db = archive.db.as_ref().unwrap();
    let trees = [db.open_tree("main").unwrap(), db.open_tree("records/main").unwrap()];
    let stored: Vec<_> = trees.iter().map(|tree| tree.first().unwrap().unwrap()).collect();
    let seeds: Vec<Vec<u8>> = stored.iter().flat_map(|(key, value)| [key.to_vec(), value.to_vec()]).collect();
    hell::harm_all(&seeds, |bytes| {
        for (tree, (key, value)) in trees.iter().zip(&stored) {
            // As a value under its key, and as a key of its own.
            tree.insert(key, bytes).unwrap();
            tree.insert(bytes, bytes).unwrap();
            assert!(archive.range(&fleet, 0..u64::MAX, 10).iter().all(|found| *found == event));
            assert!(archive.records(&fleet, &node).values().all(|found| found == "a record"));
            let _ = archive.last_record(&fleet, &node);
            tree.clear().unwrap();
            tree.insert(key, value).unwrap();
        }
    });
    assert_eq!(archive.range(&fleet, 0..u64::MAX, 10), [event]);
    assert_eq!(archive.records(&fleet, &node).len(), 1);
}
