//! Agents' records, beside the archived events: each member keeps a copy, so that they outlive the host that they are of.

use std::{collections::BTreeMap, sync::PoisonError};

use soloist_core::ids::{FleetId, NodeId};

use super::{
    archive::Archive,
    codec::{seal, unseal},
};

/// Most records of one node that a member keeps: those of some ten hours in exclusive operations.
pub const RECORDS_MAX: usize = 5_000;
/// How many are removed at once when there are more.
const PRUNE: usize = 500;

/// How many records there are of a node.
pub(super) type Counts = BTreeMap<(FleetId, NodeId), usize>;

/// A record's place: its chain, and its number in that. A later chain of a node has a higher number.
pub type RecordPlace = (u64, u64);

impl Archive {
    /// Adds records of a node; one that is there already is left alone, whatever is given. Blocks.
    pub fn keep_records(&self, fleet: &FleetId, node: &NodeId, records: &[(RecordPlace, String)]) {
        let Some(tree) = self.records_of(fleet) else { return };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts
            .entry((fleet.clone(), node.clone()))
            .or_insert_with(|| tree.scan_prefix(prefix(node)).count());
        for (place, text) in records {
            let key = key(node, *place);
            let sealed = seal(&key, text.as_bytes());
            match tree.compare_and_swap(&key, None::<&[u8]>, Some(sealed)) {
                Ok(Ok(())) => *count += 1,
                Ok(Err(_)) => {}
                Err(error) => {
                    tracing::warn!(%error, "an agent's record is not kept");
                    return;
                }
            }
        }
        if *count > RECORDS_MAX {
            for key in tree.scan_prefix(prefix(node)).keys().flatten().take(PRUNE) {
                *count -= usize::from(matches!(tree.remove(key), Ok(Some(_))));
            }
        }
    }

    /// The records of a node, in order. One that cannot be read is left out. Blocks.
    #[must_use]
    pub fn records(&self, fleet: &FleetId, node: &NodeId) -> BTreeMap<RecordPlace, String> {
        let Some(tree) = self.records_of(fleet) else { return BTreeMap::new() };
        let found = tree.scan_prefix(prefix(node)).flatten();
        let record = |(key, sealed): (sled::IVec, sled::IVec)| {
            let text = String::from_utf8(unseal(&key, &sealed)?.to_vec()).ok()?;
            Some((place(&key)?, text))
        };
        found.filter_map(record).collect()
    }

    /// The last record of a node that there is. Blocks.
    #[must_use]
    pub fn last_record(&self, fleet: &FleetId, node: &NodeId) -> Option<RecordPlace> {
        let (key, _) = self.records_of(fleet)?.scan_prefix(prefix(node)).next_back()?.ok()?;
        place(&key)
    }

    fn records_of(&self, fleet: &FleetId) -> Option<sled::Tree> {
        // No fleet has a name with a slash.
        self.db.as_ref()?.open_tree(format!("records/{fleet}")).ok()
    }
}

/// What the keys of a node begin with. No node has a name with a zero byte.
fn prefix(node: &NodeId) -> Vec<u8> {
    let mut prefix = node.as_str().as_bytes().to_vec();
    prefix.push(0);
    prefix
}

fn key(node: &NodeId, (chain, seq): RecordPlace) -> Vec<u8> {
    let mut key = prefix(node);
    key.extend_from_slice(&chain.to_be_bytes());
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

fn place(key: &[u8]) -> Option<RecordPlace> {
    let (rest, seq) = key.split_last_chunk()?;
    Some((u64::from_be_bytes(*rest.last_chunk()?), u64::from_be_bytes(*seq)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_kept_in_order_each_once_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(folder.path());
        let (fleet, node) = (FleetId::new("main").unwrap(), NodeId::new("node-1").unwrap());
        let other = NodeId::new("node-10").unwrap();
        assert_eq!(archive.last_record(&fleet, &node), None);
        let text = |text: &str| text.to_owned();
        archive.keep_records(&fleet, &node, &[((7, 2), text("b")), ((7, 1), text("a")), ((9, 1), text("c"))]);
        archive.keep_records(&fleet, &node, &[((7, 2), text("changed"))]);
        archive.keep_records(&fleet, &other, &[((3, 300), text("x"))]);
        drop(archive);
        let archive = Archive::open(folder.path());
        let found: Vec<_> = archive.records(&fleet, &node).into_values().collect();
        assert_eq!(found, ["a", "b", "c"]);
        assert_eq!(archive.last_record(&fleet, &node), Some((9, 1)));
        assert_eq!(archive.last_record(&fleet, &other), Some((3, 300)));
        assert_eq!(archive.last(&fleet), 0, "they are no events");
        let many: Vec<_> = (1..=RECORDS_MAX as u64).map(|seq| ((10, seq), text("y"))).collect();
        archive.keep_records(&fleet, &node, &many);
        let left = archive.records(&fleet, &node);
        assert_eq!(left.len(), RECORDS_MAX + 3 - PRUNE);
        assert_eq!(left.keys().next(), Some(&(10, PRUNE as u64 - 2)), "the oldest go");
        assert_eq!(archive.records(&fleet, &other).len(), 1);
    }
}
