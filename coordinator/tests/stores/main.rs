//! Stores that are lost, old, full or restored, with the real program: what it refuses, what it says, and how its member comes back.

#![allow(clippy::unwrap_used)] // in a test a panic is the answer

mod full;
mod lost;
mod program;
mod restored;
