//! The simulated world keeps every promise, over a fixed range of seeds.

use soloist_tests::sim::{self, Summary};

/// Seeds per test; the tests run side by side.
const SEEDS: u64 = 700;

#[expect(clippy::print_stdout, reason = "the totals show that the world was not idle")]
fn keeps_promises(from: u64) {
    let mut total = Summary::default();
    for seed in from..from + SEEDS {
        match sim::run(seed) {
            Ok(summary) => total += summary,
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("seeds {from}..{}: {total:?}", from + SEEDS);
    // The world must not be idle: what is never tried is never shown.
    assert!(
        total.grants > SEEDS && total.migrations > SEEDS / 2 && total.leases_lost > 10 && total.breaches > 10
    );
    assert!(total.rolled_back > 10);
}

#[test]
fn seeds_0_to_700() {
    keeps_promises(0);
}

#[test]
fn seeds_700_to_1400() {
    keeps_promises(700);
}

#[test]
fn seeds_1400_to_2100() {
    keeps_promises(1400);
}
