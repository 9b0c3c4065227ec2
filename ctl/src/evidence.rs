//! The evidence of an operation: fetched from the coordinators, and what it proves, in words.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use soloist_core::{
    evidence::{Proof, Verdict},
    ids::{FleetId, NodeId, OperationId},
    view::OperationView,
};
use soloist_proto::{
    evidence::{Checked, Export},
    v1,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    client::Client,
    clock,
    error::{CtlError, Kind, Result},
};

/// How long the last records may take to reach the coordinators after an operation: agents send them at once.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two looks whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is proven about an operation, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// The verdict in one word: `proven`, `so_far`, `unproven` or `broken`.
    pub verdict: &'static str,
    /// What is proven, and what is not, in words.
    pub lines: Vec<String>,
    /// The hash of the last record of each node, which names all of them.
    pub heads: BTreeMap<NodeId, String>,
    /// The same for programs.
    pub proof: Proof,
}

impl Evidence {
    /// Of a file that was checked.
    pub fn new(export: &Export, checked: &Checked) -> Evidence {
        let heads = export.chains.iter().map(|(node, chain)| (node.clone(), chain.head.clone()));
        Evidence {
            verdict: checked.proof.verdict.word(),
            lines: checked.proof.lines(clock::local),
            heads: heads.collect(),
            proof: checked.proof.clone(),
        }
    }
}

/// The evidence of an operation as it would be exported; `None` if the operation was never alone.
pub async fn fetch(client: &Client, fleet: &FleetId, id: &OperationId) -> Result<Option<Export>> {
    let request = v1::EvidenceRequest { fleet: fleet.to_string(), operation: id.to_string() };
    let parts = client.call(|mut stub| {
        let request = request.clone();
        async move { stub.evidence(request).await }
    });
    let mut parts = parts.await?;
    let deadline = Instant::now() + client.timeout();
    let mut case = None;
    let mut chains: BTreeMap<NodeId, Vec<serde_json::Value>> = BTreeMap::new();
    let broken = |error: &dyn std::fmt::Display| {
        CtlError::failed(format!("the coordinators gave evidence that cannot be read: {error}"))
    };
    loop {
        let part = timeout_at(deadline, parts.message()).await;
        let part = part.map_err(|_| CtlError::new(Kind::Unavailable, "the evidence did not come in time"))?;
        let Some(part) = part.map_err(|status| soloist_proto::errors::Problem::from(&status))? else { break };
        if !part.case.is_empty() {
            case = Some(serde_json::from_str(&part.case).map_err(|error| broken(&error))?);
        }
        if part.node.is_empty() {
            continue;
        }
        let node = NodeId::new(part.node).map_err(|error| broken(&error))?;
        let records = chains.entry(node).or_default();
        for record in part.records {
            records.push(serde_json::from_str(&record).map_err(|error| broken(&error))?);
        }
    }
    Ok(case.map(|case| Export::new(case, chains)))
}

/// What is proven now.
pub async fn now(client: &Client, fleet: &FleetId, id: &OperationId) -> Result<Option<Evidence>> {
    let Some(export) = fetch(client, fleet, id).await? else { return Ok(None) };
    let checked = export.check().map_err(|error| CtlError::failed(error.to_string()))?;
    Ok(Some(Evidence::new(&export, &checked)))
}

/// The same once the agents' last records have had the time to come; nothing for an operation that was never alone, or where
/// the coordinators cannot tell.
pub async fn settled(client: &Client, fleet: &FleetId, operation: &OperationView) -> Option<Evidence> {
    if !operation.granted {
        return None;
    }
    let deadline = Instant::now() + SETTLE;
    loop {
        // An older coordinator has none; and what else goes wrong is no reason to call the operation a failure.
        let found = now(client, fleet, &operation.id).await.ok().flatten()?;
        let open = found.proof.verdict == Verdict::Unproven;
        if !open || Instant::now() >= deadline {
            return Some(found);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// An operation with what is proven about it.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    /// The operation.
    #[serde(flatten)]
    pub operation: &'a OperationView,
    /// What is proven; `None` if it was never alone.
    pub evidence: Option<&'a Evidence>,
}
