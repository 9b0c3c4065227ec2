//! The agent's side of the decisions.
//!
//! ```text
//!  assignment ──accept──► Ledger ─┐
//!                                 ├─ reconcile ──► Action (stop before start, one at a time)
//!  what is seen of the host ─ Seen┘
//!                                 └─ observe ────► Observed ──► report
//! ```

mod accept;
mod balance;
mod fence;
mod hand;
mod ledger;
mod reconcile;
mod restart;
mod seen;
mod several;

pub use accept::{Stale, accept};
pub use balance::{observe_balancer, to_steer};
pub use fence::{is_done, may_act, to_fence};
pub use hand::{ByHand, Hand, is_over};
pub use ledger::{LINEAGE_MAX, LaunchTicket, Ledger, TaskRecord};
pub use reconcile::{Action, observe, reconcile};
pub use restart::{RESTARTS_MAX, restart_delay};
pub use seen::{AppSeen, Checked, Facts, Health, Seen};
