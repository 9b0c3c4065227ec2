//! What the demo and the tests put around Soloist: a [stand-in](standin) for NocoBase that starts in a second instead of
//! ten, and an independent [process monitor](monitor) that says which app processes ran, and when.
//!
//! Architecture invariant: nothing here uses Soloist's own crates. The stand-in plays the app and the monitor is the witness;
//! either would prove little if it shared code with what it judges.

pub mod monitor;
mod procfs;
pub mod standin;
