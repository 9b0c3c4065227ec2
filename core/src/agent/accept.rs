//! Whether an assignment counts.

use crate::agent::ledger::Ledger;
use crate::assignment::Assignment;
use crate::ids::{BootId, Generation};
use crate::rule::Rule;

/// An assignment from the past, or one that was given before this run of the agent had registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("assignment {given} is not accepted: {have} or later is needed{}", if *.registered { "" } else { ", after a registration" })]
pub struct Stale {
    /// Its generation.
    pub given: Generation,
    /// What the ledger has.
    pub have: Generation,
    /// Whether this run of the agent had registered.
    pub registered: bool,
}

/// The ledger with the assignment accepted, to be written before anything is done for it; `None` if it is the one
/// that the ledger has.
pub fn accept(
    ledger: &Ledger,
    assignment: &Assignment,
    boot: &BootId,
    registered: bool,
) -> Result<Option<Ledger>, Stale> {
    let given = assignment.generation;
    let accepted = ledger.assignment.as_ref().map_or(Generation(0), |have| have.generation);
    let have = accepted.max(ledger.floor);
    if !registered && Rule::RegisterFirst.holds() {
        return Err(Stale { given, have, registered });
    }
    if given < have && Rule::GenerationsRise.holds() {
        return Err(Stale { given, have, registered });
    }
    if ledger.assignment.as_ref() == Some(assignment) && ledger.boot == *boot {
        return Ok(None);
    }
    Ok(Some(Ledger { assignment: Some(assignment.clone()), boot: boot.clone(), ..ledger.clone() }))
}
