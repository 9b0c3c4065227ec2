//! Apps that run in several processes on one node, under a process manager of their own.

use crate::agent::ledger::Ledger;
use crate::agent::seen::Seen;
use crate::assignment::{Run, RunMode, STALE_MAX};

/// In how many processes the app runs when it runs plainly: what its settings say, and what they said when what runs now was
/// launched. `None` while neither is known.
pub(super) fn processes(ledger: &Ledger, seen: &Seen) -> Option<u32> {
    let set = seen.facts.as_ref().and_then(|facts| facts.processes);
    let plain = ledger.launch.as_ref().filter(|ticket| ticket.mode == RunMode::Plain);
    set.max(plain.and_then(|ticket| ticket.processes))
}

/// In what a serving app differs from what it should be: what was seen, and that it was left running as one process.
pub(super) fn stale(ledger: &Ledger, seen: &Seen, run: Run) -> Vec<String> {
    let alone = ledger.launch.as_ref().is_some_and(|ticket| ticket.mode != RunMode::Plain);
    let set = seen.facts.as_ref().and_then(|facts| facts.processes).filter(|set| *set > 1);
    let left = set.filter(|_| run == Run::Plain && alone);
    let left = left.map(|set| format!("runs as one process, not as {set}"));
    left.into_iter().chain(seen.stale.iter().cloned()).take(STALE_MAX).collect()
}
