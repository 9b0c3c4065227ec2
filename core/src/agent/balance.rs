//! What the agent beside a load balancer reports.

use std::collections::BTreeMap;

use crate::agent::ledger::Ledger;
use crate::assignment::Observed;
use crate::fence::Fences;
use crate::ids::{BootId, Generation, NodeId};
use crate::traffic::{ServerSeen, TrafficSpec};

/// What a load balancer must do by the assignment that counts: accepted in this boot. After a reboot its agent asks first.
pub fn to_steer<'a>(ledger: &'a Ledger, boot: &BootId) -> Option<&'a TrafficSpec> {
    let current = ledger.assignment.as_ref().filter(|_| ledger.boot == *boot);
    current.and_then(|assignment| assignment.spec.traffic.as_ref())
}

/// What to report: the servers as they were found, before anything was changed about them for the assignment that is
/// acknowledged; or why they cannot be steered.
pub fn observe_balancer(
    ledger: &Ledger,
    boot: &BootId,
    found: BTreeMap<NodeId, ServerSeen>,
    unsteered: Option<String>,
    fences: &Fences,
) -> Observed {
    let current = ledger.assignment.as_ref().filter(|_| ledger.boot == *boot);
    Observed {
        applied: current.map_or(Generation(0), |assignment| assignment.generation),
        boot: boot.clone(),
        servers: found,
        unsteered,
        fences: fences.offers.clone(),
        fenced: fences.seen.clone(),
        ..Observed::default()
    }
}
