//! The fault suite: real coordinators and agents on hosts of their own (network namespaces), broken in ways that were chosen, and
//! in some that a seed chooses. An independent monitor watches, and each test ends with the verdict on its whole record.
//!
//! Needs root. Longer random runs: `cargo run -p soloist-tests --bin faults -- --seed 7 --minutes 20`.

mod agents;
mod clock;
mod crowd;
mod guards;
mod leader;
mod member;
mod support;
