//! What agents record of themselves: kept in the archive, given to the other members, and gathered for whoever asks.
//!
//! Nothing is decided by it. An agent keeps its records too, and gives a member what that member does not have.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use soloist_core::{
    evidence::{Case, Record, Verdict, case, excerpt, prove},
    ids::{FleetId, NodeId},
};
use soloist_proto::{
    errors::{INTERNAL, Problem},
    evidence::{RECORD_MAX, open, place},
    v1,
};
use tokio::task::spawn_blocking;
use tonic::{Code, Status};

use crate::{raft::Member, shared::Shared, store::RecordPlace};

/// Most records in one message.
const MESSAGE_RECORDS_MAX: usize = 64;
/// Most bytes of records in one message; gRPC's usual limit is 4 MiB.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// The last record of a node that this member has.
pub(crate) async fn last(shared: &Shared, fleet: &FleetId, node: &NodeId) -> Option<v1::EvidenceAck> {
    let (archive, fleet, node) = (shared.archive.clone(), fleet.clone(), node.clone());
    let last = spawn_blocking(move || archive.last_record(&fleet, &node)).await;
    last.ok().flatten().map(|(chain, seq)| v1::EvidenceAck { chain, seq })
}

/// Keeps records that an agent gives, and has the other members keep them too.
pub(crate) async fn keep(
    shared: &Arc<Shared>,
    fleet: &FleetId,
    node: &NodeId,
    records: Vec<String>,
) -> Option<v1::EvidenceAck> {
    let last = store(shared, fleet, node, records.clone()).await;
    let (shared, fleet, node) = (shared.clone(), fleet.clone(), node.clone());
    tokio::spawn(async move {
        let told = others(&shared).into_iter().map(|member| {
            let (shared, records) = (shared.clone(), records.clone());
            let key = (fleet.clone(), node.clone());
            async move {
                // A member that misses some is told the rest when they are asked for.
                if let Err(problem) = shared.peers.keep_records(&member, (&key.0, &key.1), records).await {
                    tracing::debug!(%problem, member = member.id, "a member was not given an agent's records");
                }
            }
        });
        join_all(told).await;
    });
    last
}

/// Keeps records here, and says which is the last of them. What is no record of this node is left out: it must not end a session.
pub(crate) async fn store(
    shared: &Shared,
    fleet: &FleetId,
    node: &NodeId,
    records: Vec<String>,
) -> Option<v1::EvidenceAck> {
    let mut kept: Vec<(RecordPlace, String)> = Vec::new();
    for text in records.into_iter().take(MESSAGE_RECORDS_MAX) {
        match place(&text) {
            Ok(found) if found.node == *node && text.len() <= RECORD_MAX => {
                kept.push(((found.chain, found.seq), text));
            }
            Ok(found) => {
                tracing::warn!(%fleet, %node, of = %found.node, "a record of another node is not kept")
            }
            Err(error) => tracing::warn!(%fleet, %node, %error, "what an agent recorded is not kept"),
        }
    }
    let (chain, seq) = kept.iter().map(|(place, _)| *place).max()?;
    let (archive, fleet, node) = (shared.archive.clone(), fleet.clone(), node.clone());
    spawn_blocking(move || archive.keep_records(&fleet, &node, &kept)).await.ok()?;
    Some(v1::EvidenceAck { chain, seq })
}

/// The records of a node that this member has.
pub(crate) async fn local(shared: &Shared, fleet: &FleetId, node: &NodeId) -> Vec<String> {
    let (archive, fleet, node) = (shared.archive.clone(), fleet.clone(), node.clone());
    let records = spawn_blocking(move || archive.records(&fleet, &node)).await;
    records.unwrap_or_default().into_values().collect()
}

/// Cuts records into messages.
pub(crate) fn parts(records: Vec<String>) -> Vec<Vec<String>> {
    let (mut parts, mut bytes): (Vec<Vec<String>>, usize) = (Vec::new(), MESSAGE_BYTES_MAX);
    for record in records {
        bytes += record.len();
        match parts.last_mut().filter(|_| bytes <= MESSAGE_BYTES_MAX) {
            Some(part) => part.push(record),
            None => {
                bytes = record.len();
                parts.push(vec![record]);
            }
        }
    }
    parts
}

/// The evidence of an operation, from all members that answer; `None` if the operation is not known.
pub(crate) async fn gather(
    shared: &Arc<Shared>,
    fleet: &FleetId,
    id: &soloist_core::ids::OperationId,
) -> Result<Option<Vec<v1::EvidencePart>>, Status> {
    let found = shared.raft.storage().read(|state, _| {
        let found = state.fleets.get(fleet)?;
        found.operation(id)?;
        let nodes: Vec<NodeId> = found.nodes.keys().cloned().collect();
        Some((case(found, fleet, id), nodes))
    });
    let Some((case, nodes)) = found else { return Ok(None) };
    let Some(case) = case else { return Ok(Some(vec![v1::EvidencePart::default()])) };
    let json = serde_json::to_string(&case)
        .map_err(|error| Problem::new(Code::Internal, INTERNAL, error.to_string(), ""))?;
    let mut all = vec![v1::EvidencePart { case: json, ..v1::EvidencePart::default() }];
    // Those that were removed since have their part, too.
    let mut names: Vec<NodeId> = case.grants.iter().flat_map(|grant| grant.nodes.keys().cloned()).collect();
    names.extend(nodes);
    names.sort();
    names.dedup();
    let mut found = collect(shared, fleet, &case, &names, Asked::Here).await;
    if prove(&case, &found.0).verdict == Verdict::Unproven {
        // Another member may have what this one was not given.
        found = collect(shared, fleet, &case, &names, Asked::Everywhere).await;
    }
    for (node, texts) in found.1 {
        let name = node.to_string();
        let part = |records| v1::EvidencePart { case: String::new(), node: name.clone(), records };
        all.extend(parts(texts).into_iter().map(part));
    }
    Ok(Some(all))
}

/// Who is asked for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Only this member.
    Here,
    /// All members.
    Everywhere,
}

/// The records of some nodes that an operation needs, and their texts.
async fn collect(
    shared: &Arc<Shared>,
    fleet: &FleetId,
    case: &Case,
    names: &[NodeId],
    asked: Asked,
) -> (BTreeMap<NodeId, Vec<Record>>, BTreeMap<NodeId, Vec<String>>) {
    let each = names.iter().map(|node| async move {
        let records = match asked {
            Asked::Here => local(shared, fleet, node).await,
            Asked::Everywhere => merged(shared, fleet, node).await,
        };
        let parsed = records.into_iter().filter_map(|text| Some((open(&text).ok()?, text)));
        let (records, texts): (Vec<Record>, Vec<String>) = parsed.unzip();
        let wanted = excerpt(case, node, &records);
        let first = wanted.first().map(|first| (first.chain, first.seq));
        let skipped =
            records.iter().position(|record| Some((record.chain, record.seq)) == first).unwrap_or(0);
        let texts: Vec<String> = texts.into_iter().skip(skipped).take(wanted.len()).collect();
        (node.clone(), wanted, texts)
    });
    let (mut records, mut texts) = (BTreeMap::new(), BTreeMap::new());
    for (node, wanted, text) in join_all(each).await {
        if !wanted.is_empty() {
            records.insert(node.clone(), wanted);
            texts.insert(node, text);
        }
    }
    (records, texts)
}

/// The records of a node that any member has.
async fn merged(shared: &Arc<Shared>, fleet: &FleetId, node: &NodeId) -> Vec<String> {
    let others = others(shared);
    let asked = others.iter().map(|member| shared.peers.get_records(member, (fleet, node)));
    let (own, told) = tokio::join!(local(shared, fleet, node), join_all(asked));
    let mut all: BTreeMap<RecordPlace, String> = BTreeMap::new();
    for text in told.into_iter().filter_map(Result::ok).flatten().chain(own) {
        if let Ok(found) = place(&text) {
            all.insert((found.chain, found.seq), text);
        }
    }
    all.into_values().collect()
}

fn others(shared: &Shared) -> Vec<Member> {
    let status = shared.status();
    let members = status.voters.iter().chain(&status.learners);
    let others = members.filter(|(id, _)| **id != shared.raft.id());
    others.map(|(id, address)| Member { id: *id, address: address.clone() }).collect()
}
