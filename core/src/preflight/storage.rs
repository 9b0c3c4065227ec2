//! That the storage is one: every node opens the nonce that every other has left there.
//!
//! A network file system may show an old file, or none, for up to a minute. So a nonce that was left just now is waited for;
//! meanwhile the one before it shows the same.

use std::collections::BTreeSet;

use super::{Finding, Known, StorageFacts, Told, check, failures, names};
use crate::ids::NodeId;
use crate::time::Millis;

/// How long a nonce may stay unseen: NFS keeps what it knows of a file for 60 s at most by default.
const LAG: Millis = Millis::from_secs(75);

/// What one node sees of another's nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    Seen,
    /// Too new to be expected.
    Awaited,
    Unseen,
}

pub(super) fn one(known: &Known<'_>) -> Vec<Finding> {
    const REMEDY: &str =
        "give the app an existing STORAGE_PATH that the agent may write to, and see that its mount answers";
    let mut found: Vec<Finding> = failures(known, check::STORAGE, REMEDY).collect();
    let with: Vec<(&NodeId, &Told, &StorageFacts)> =
        known.iter().filter_map(|(node, told)| Some((*node, *told, told.facts.storage.as_ref()?))).collect();
    let mut unseen: Vec<(&NodeId, &NodeId, Sight)> = Vec::new();
    // Which nodes share with which: each begins alone, and sights join them.
    let mut shares: Vec<BTreeSet<&NodeId>> = with.iter().map(|(node, ..)| BTreeSet::from([*node])).collect();
    for reader in &with {
        for writer in with.iter().filter(|writer| writer.0 != reader.0) {
            match sight(reader, writer) {
                Sight::Seen => join(&mut shares, reader.0, writer.0),
                sight => unseen.push((reader.0, writer.0, sight)),
            }
        }
    }
    let together = |a: &NodeId, b: &NodeId| shares.iter().any(|share| share.contains(a) && share.contains(b));
    let (inside, across): (Vec<_>, Vec<_>) =
        unseen.into_iter().partition(|(reader, writer, _)| together(reader, writer));
    found.extend(apart(&shares, across.iter().any(|(.., sight)| *sight == Sight::Unseen)));
    for (reader, ..) in &with {
        let lost: Vec<&NodeId> = inside
            .iter()
            .filter(|(who, _, sight)| who == reader && *sight == Sight::Unseen)
            .map(|(_, writer, _)| *writer)
            .collect();
        if !lost.is_empty() {
            let text = format!("{reader} cannot open what {} left on the storage", names(lost));
            let remedy = "see that its mount is not stale, and that its user may read what the others write";
            found.push(Finding::problem(check::STORAGE, vec![(*reader).clone()], text, remedy));
        }
    }
    found
}

/// The finding that there are several storages, certain or not yet.
fn apart(shares: &[BTreeSet<&NodeId>], certain: bool) -> Option<Finding> {
    if shares.len() < 2 {
        return None;
    }
    let most = shares.iter().map(BTreeSet::len).max().unwrap_or(0);
    let largest = shares.iter().filter(|share| share.len() == most).count();
    let odd = shares.iter().filter(|share| largest > 1 || share.len() < most).flatten();
    let odd: BTreeSet<&NodeId> = odd.copied().collect();
    let odd: Vec<NodeId> = odd.into_iter().cloned().collect();
    let list = shares.iter().map(|share| names(share.iter().copied())).collect::<Vec<_>>().join(" | ");
    Some(if certain {
        let text = format!("the nodes do not have one storage; those that share one: {list}");
        let remedy = "mount one storage on all nodes and point STORAGE_PATH at it";
        Finding::problem(check::STORAGE, odd, text, remedy)
    } else {
        let text = format!("not every node has seen yet what the others left on the storage: {list}");
        let remedy = "a network file system may take a minute: ask again then";
        Finding::warning(check::STORAGE, odd, text, remedy)
    })
}

fn join<'a>(shares: &mut Vec<BTreeSet<&'a NodeId>>, a: &'a NodeId, b: &'a NodeId) {
    let (touched, mut rest): (Vec<_>, Vec<_>) =
        std::mem::take(shares).into_iter().partition(|share| share.contains(a) || share.contains(b));
    rest.push(touched.into_iter().flatten().collect());
    rest.sort();
    *shares = rest;
}

fn sight(reader: &(&NodeId, &Told, &StorageFacts), writer: &(&NodeId, &Told, &StorageFacts)) -> Sight {
    let seen = reader.2.seen.get(writer.0);
    let sees = |nonce: &String| seen.is_some_and(|seen| seen.contains(nonce));
    if sees(&writer.2.nonce) {
        return Sight::Seen;
    }
    // How old the nonce was when the reader looked for it.
    let age = writer.1.age.0.saturating_add(writer.2.age.0).saturating_sub(reader.1.age.0);
    match age <= LAG.0 {
        true if writer.2.before.as_ref().is_some_and(sees) => Sight::Seen,
        true => Sight::Awaited,
        false => Sight::Unseen,
    }
}
