//! What Soloist's tests share: the simulated world, witnesses, and helpers that run the real programs.

pub mod faults;
pub mod harness;
pub mod sim;
pub mod witness;
