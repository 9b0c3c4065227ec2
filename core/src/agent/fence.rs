//! The agent's side of a fence: what may be done where it acts, and when that counts as done.

use crate::agent::ledger::Ledger;
use crate::fence::FenceOrder;
use crate::ids::{BootId, Generation};
use crate::rule::Rule;

/// The orders by the assignment that counts: accepted in this boot. After a reboot an agent asks first.
pub fn to_fence<'a>(ledger: &'a Ledger, boot: &BootId) -> &'a [FenceOrder] {
    let current = ledger.assignment.as_ref().filter(|_| ledger.boot == *boot);
    current.map_or(&[], |assignment| &assignment.spec.fences)
}

/// Whether an order may be carried out where the last one has this number. It is asked in the same transaction that carries it out.
pub fn may_act(last: Option<Generation>, order: &FenceOrder) -> bool {
    last.is_none_or(|last| last <= order.generation) || !Rule::FenceHasNumbers.holds()
}

/// Whether an order is carried out: of a fence that is up, when the node cannot come in and nobody of it is left inside.
pub fn is_done(order: &FenceOrder, locked: bool, inside: usize) -> bool {
    if order.up { locked && (inside == 0 || !Rule::FenceIsProven.holds()) } else { !locked }
}
