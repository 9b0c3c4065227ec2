//! What somebody on the host does with the app by hand, because the coordinators cannot be asked.
//!
//! | by hand | the coordinators say | what is done |
//! |---|---|---|
//! | stop | whatever | the app is stopped and stays so; reported as refused |
//! | start | nothing, since they cannot be asked | it is started plainly, if nothing speaks against that, and kept running |
//! | start | run | nothing more: both want the same |
//! | start | stop | what runs goes on, and is reported: a breach; what does not run is not started |
//!
//! A start ends with the boot in which it was made: a machine that has been off asks first, as somebody may have said meanwhile that it is off.

use crate::agent::ledger::Ledger;
use crate::agent::reconcile::current;
use crate::agent::seen::Seen;
use crate::assignment::Run;
use crate::ids::BootId;
use crate::rule::Rule;

/// What is done by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// The app is started.
    Start,
    /// The app is stopped.
    Stop,
}

/// The same with what people are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    /// What.
    pub hand: Hand,
    /// Who, when, why, and how it ends.
    pub text: String,
    /// The boot in which it was begun.
    pub boot: BootId,
}

/// Whether a start by hand has had its time, and is to be forgotten before anything else is done: the host was booted since, or the
/// coordinators can be asked, and either want the same, or nothing runs that they would have to hear of.
pub fn is_over(ledger: &Ledger, seen: &Seen) -> bool {
    let Some(by) = seen.by_hand.as_ref().filter(|by| by.hand == Hand::Start) else { return false };
    let run = current(ledger, seen).map(|assignment| assignment.spec.run);
    let agree = run.is_some_and(Run::plainly);
    let idle = seen.gone() && ledger.launch.is_none();
    let asked = seen.registered && (agree || idle);
    (asked || by.boot != seen.boot) && Rule::HandEndsWhenAsked.holds()
}

/// What is done by hand, if anything.
pub(super) fn hand(seen: &Seen) -> Option<Hand> {
    seen.by_hand.as_ref().map(|by| by.hand)
}
