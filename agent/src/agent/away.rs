//! Whether a load balancer that asks `/ready` has heard that nobody is to be sent here.

use std::time::Duration;

use tokio::time::Instant;

use super::Agent;

/// How often it must have been told so: a single question may have been a person's.
const TOLD_MIN: u64 = 2;
/// How long what was under way then has to end. How many requests those are, nobody says.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// Users are kept away, by `/ready`.
#[derive(Debug)]
pub(super) struct Held {
    /// How often somebody had been told so before.
    before: u64,
    /// When that was heard.
    told: Option<Instant>,
}

impl Agent {
    /// Whether nobody is sent here any more, as far as this node can tell.
    pub(super) fn away(&mut self) -> bool {
        if !self.holds() {
            self.held = None;
            return false;
        }
        let count = self.parts.asks.turned_away();
        let held = self.held.get_or_insert(Held { before: count, told: None });
        if held.told.is_none() && count >= held.before.saturating_add(TOLD_MIN) {
            held.told = Some(Instant::now());
        }
        held.told.is_some_and(|told| told.elapsed() >= UNDER_WAY)
    }
}
