//! Every decision of Soloist, of coordinators and agents, as pure functions: no clock, no randomness, no I/O, no async.
//!
//! ```text
//!   Entry ──apply──► State ──assign──► Assignment ──► agent: accept, reconcile ──► Action
//!     ▲                │                                         │
//!     └──── due ───────┤                               observe ──► Observed ──► Entry (report)
//!                      └──view──► FleetView
//! ```

mod advance;
pub mod agent;
pub mod apply;
pub mod assign;
pub mod assignment;
pub mod check;
mod choices;
pub mod command;
pub mod condition;
pub mod due;
pub mod event;
pub mod evidence;
pub mod fence;
mod finish;
pub mod ids;
pub mod invariants;
mod journal;
mod lost;
pub mod members;
pub mod notice;
pub mod operation;
mod order;
mod outage;
pub mod packages;
pub mod plan;
pub mod policy;
pub mod preflight;
pub mod preview;
pub mod quiet;
pub mod reject;
mod remember;
pub mod restore;
pub mod rule;
mod single;
pub mod state;
pub mod time;
pub mod traffic;
pub mod upgrade;
pub mod view;

pub use advance::AUTOMATIC;
pub use apply::{Outcome, Reply, apply};
pub use command::{Command, Entry};
pub use notice::{Notice, is_closed, notice};
pub use reject::Rejection;
pub use state::State;
