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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::seen::{AppSeen, Facts, Health};
    use crate::ids::{BootId, Generation, Launch};

    fn launched(mode: RunMode, processes: Option<u32>) -> Ledger {
        Ledger::default().with_launch(Launch(1), mode, &BootId::default(), processes)
    }

    fn set_to(processes: Option<u32>) -> Seen {
        let app = AppSeen::Running { launched: Some(Generation(1)), health: Health::Serving };
        Seen { app, facts: Some(Facts { processes, ..Facts::default() }), ..Seen::default() }
    }

    #[test]
    fn what_runs_counts_beside_what_the_settings_say() {
        let two = launched(RunMode::Plain, Some(2));
        assert_eq!(processes(&two, &set_to(Some(1))), Some(2), "they were changed since");
        assert_eq!(processes(&two, &set_to(None)), Some(2));
        assert_eq!(processes(&launched(RunMode::Single, Some(2)), &set_to(Some(1))), Some(1));
        assert_eq!(processes(&Ledger::default(), &set_to(None)), None);
    }

    #[test]
    fn one_process_is_stale_only_where_several_should_be() {
        let alone = launched(RunMode::Single, Some(2));
        assert_eq!(stale(&alone, &set_to(Some(2)), Run::Plain), ["runs as one process, not as 2"]);
        assert!(stale(&alone, &set_to(Some(2)), Run::Single).is_empty(), "it is wanted so");
        assert!(stale(&alone, &set_to(Some(1)), Run::Plain).is_empty());
        assert!(stale(&launched(RunMode::Plain, Some(2)), &set_to(Some(2)), Run::Plain).is_empty());
    }
}
