//! Faults on real processes: coordinators, agents, keepers, apps and clients on hosts of their own, and what becomes of them.
//!
//! ```text
//!   nemesis ──breaks, mends──► scene: members, agents, apps on their hosts ◄──commands── load, lockers, swarm
//!                                │ events            ▲ process table                        │ histories
//!                                ▼                   │                                      ▼
//!                              book ◄──────────── monitor ─────────────────────────────► record ──► verdict, report
//! ```
//!
//! The verdict is computed from the raw record alone, so anybody can compute it again.

pub mod disks;
pub mod linear;
pub mod load;
pub mod locks;
pub mod nemesis;
pub mod record;
pub mod report;
pub mod scene;
pub mod schedule;
pub mod store;
pub mod swarm;
pub mod targets;
pub mod verdict;
