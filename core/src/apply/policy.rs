//! Changing what people want of a fleet.

use crate::apply::Reply;
use crate::apply::operation::clip;
use crate::event::EventKind;
use crate::ids::FleetId;
use crate::journal::Journal;
use crate::policy::Policy;
use crate::reject::Rejection;
use crate::state::Fleet;

/// Most changes that an event lists.
const CHANGES_MAX: usize = 40;

/// Replaces the policy. Steps that are under way go on with what their plan says; timeouts count from now on.
pub(super) fn set(
    id: &FleetId,
    fleet: &mut Fleet,
    policy: &Policy,
    seen: u64,
    (by, reason, changes): (&str, &str, &[String]),
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    if let Some(what) = policy.problem() {
        return Err(Rejection::Malformed { what });
    }
    if fleet.policy == *policy {
        return Ok(Reply::Policy { version: fleet.policy_version });
    }
    if fleet.policy_version != seen {
        return Err(Rejection::PolicyMoved { fleet: id.clone(), version: fleet.policy_version, seen });
    }
    fleet.policy = policy.clone();
    fleet.policy_version += 1;
    let changes: Vec<String> = changes.iter().take(CHANGES_MAX).map(|change| clip(change)).collect();
    let why = if reason.is_empty() { String::new() } else { format!(" ({})", clip(reason)) };
    journal.fleet(EventKind::Policy(format!(
        "version {} by {}{why}: {}",
        fleet.policy_version,
        clip(by),
        changes.join("; ")
    )));
    Ok(Reply::Policy { version: fleet.policy_version })
}
