//! Inputs from hell: bytes that were valid once, or never were. Shared by the tests of all crates that decode something.
//!
//! The seeds are fixed, so that a run is the same every time; `SOLOIST_FUZZ_CASES` asks for more cases than a test run has time
//! for, and `SOLOIST_FUZZ_SEED` for others.

#![allow(dead_code, reason = "each test program uses a part")]

use std::env;

use proptest::{
    collection::vec,
    prelude::{Strategy, any, prop_oneof},
    test_runner::{Config, RngSeed, TestRunner},
};

/// Cases of one property in a test run.
const CASES: u32 = 300;

/// Damage to bytes. Positions are taken modulo the length.
#[derive(Debug, Clone)]
pub(crate) enum Harm {
    Flip(usize, u8),
    Set(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    /// Copies a piece to another place: a field that comes twice, a list in itself.
    Double(usize, usize, usize),
    /// A number of a few bytes becomes a large one: lengths and counts.
    Large(usize, usize),
}

/// A sequence of damages.
pub(crate) fn harms() -> impl Strategy<Value = Vec<Harm>> {
    let at = || any::<usize>();
    let harm = prop_oneof![
        3 => (at(), 0..8u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Harm::Set(at, byte)),
        1 => at().prop_map(Harm::Cut),
        1 => (at(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        1 => (at(), 1..20usize).prop_map(|(at, length)| Harm::Remove(at, length)),
        2 => (at(), at(), 1..64usize).prop_map(|(from, to, length)| Harm::Double(from, to, length)),
        1 => (at(), 1..9usize).prop_map(|(at, length)| Harm::Large(at, length)),
    ];
    vec(harm, 0..6)
}

/// The bytes after the damages.
pub(crate) fn harmed(bytes: &[u8], harms: &[Harm]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for harm in harms {
        let length = bytes.len();
        let at = |at: usize| at % (length + 1);
        match harm {
            Harm::Flip(place, bit) => {
                bytes.iter_mut().skip(at(*place)).take(1).for_each(|byte| *byte ^= 1 << bit)
            }
            Harm::Set(place, value) => {
                bytes.iter_mut().skip(at(*place)).take(1).for_each(|byte| *byte = *value)
            }
            Harm::Cut(place) => bytes.truncate(at(*place)),
            Harm::Insert(place, more) => drop(bytes.splice(at(*place)..at(*place), more.iter().copied())),
            Harm::Remove(place, count) => drop(bytes.drain(at(*place)..length.min(at(*place) + count))),
            Harm::Double(from, to, count) => {
                let piece = bytes[at(*from)..length.min(at(*from) + count)].to_vec();
                drop(bytes.splice(at(*to)..at(*to), piece));
            }
            Harm::Large(place, count) => {
                bytes.iter_mut().skip(at(*place)).take(*count).for_each(|byte| *byte = 0xff);
            }
        }
    }
    bytes
}

/// Runs a property on harmed versions of each seed, and on bytes that come from nowhere. It may panic to say no.
pub(crate) fn harm_all<S: AsRef<[u8]>>(seeds: &[S], property: impl Fn(&[u8])) {
    let random = vec(any::<u8>(), 0..400);
    let pick = (any::<usize>(), harms(), random, 0..8u8);
    run(pick, |(seed, harms, random, kind)| match seeds.get(seed % seeds.len().max(1)) {
        Some(seed) if kind > 0 => property(&harmed(seed.as_ref(), &harms)),
        _ => property(&random),
    });
}

/// Runs a property on texts: harmed seeds, as far as they are still UTF-8, and texts that come from nowhere.
pub(crate) fn harm_texts(seeds: &[&str], property: impl Fn(&str)) {
    harm_all(seeds, |bytes| property(&String::from_utf8_lossy(bytes)));
}

/// Runs a property on values of a strategy.
pub(crate) fn run<T: Strategy>(strategy: T, property: impl Fn(T::Value)) {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    let cases =
        number("SOLOIST_FUZZ_CASES").and_then(|cases: u64| u32::try_from(cases).ok()).unwrap_or(CASES);
    let seed = RngSeed::Fixed(number("SOLOIST_FUZZ_SEED").unwrap_or(1));
    let config = Config { cases, rng_seed: seed, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&strategy, |value| {
        property(value);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
