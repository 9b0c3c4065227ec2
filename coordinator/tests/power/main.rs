//! Power cuts: what a member acknowledged is there when it opens its folder again, whatever an honest disk has lost.
//!
//! A member writes to a file system in memory that knows what is durable and what is not. In some operation the power goes
//! off: from then on everything fails, and the next member finds what is durable and a random part of the rest. What was
//! acknowledged was told over a pipe, and is compared.
//!
//! # What the disk promises
//!
//! As little as POSIX and the strictest of the usual file systems:
//!
//! | operation | what is durable once it has returned |
//! |---|---|
//! | `fsync`, `fdatasync` of a file | its data and its size; not its name |
//! | `fsync` of a folder | its names: files created, renamed and removed in it |
//! | `write`, `ftruncate` | nothing; a write may be torn at 4 KiB or at 512 bytes, and any of them may be left without those before it |
//! | `sync_file_range` | nothing: it waits for no disk's cache, and for no file's size |
//! | `rename` | nothing; after a cut, all of it or none of it has happened |
//! | `create`, `unlink`, `mkdir`, `rmdir` | nothing; any of them may be left without those before it |
//!
//! ext4 promises more: its journal keeps the order of names, and a synced file keeps its name. XFS and btrfs do for the most
//! part. None of that is in POSIX, so none of it is given here. Two things are promised because every disk does: a sector is
//! written whole or not at all, and an older content of a sector never comes back over a newer one that was left.
//!
//! # More of it
//!
//! `SOLOIST_POWER_CUTS=5000 cargo test -p soloist-coordinator --test power -- --nocapture power_cuts` makes that many cuts, and
//! `SOLOIST_POWER_SEED=7` begins with that life; with 10 cuts, which are one life, it repeats just that. Threads in the
//! member decide the rest, so the same seed gives nearly the same, not the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    env,
    ffi::OsStr,
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

mod disk;
mod event;
mod file;
mod life;
mod loss;
mod member;
mod mount;
mod promises;

use disk::{Disk, Node, ROOT};
use life::{Summary, live};
use mount::{Machine, Mounted};
use rand::{SeedableRng, rngs::SmallRng};

/// Cuts in each test run; more with this variable.
const CUTS: u64 = 200;
const MORE_CUTS: &str = "SOLOIST_POWER_CUTS";
/// The first life.
const FIRST_SEED: &str = "SOLOIST_POWER_SEED";

/// How often the power of one disk is cut before the next one is new.
const CUTS_OF_A_LIFE: u64 = 10;

/// Disks that lie, and how many of them must be caught in a life.
const LIARS: u64 = 12;
const CAUGHT_MIN: u64 = 9;

#[test]
fn nothing_acknowledged_is_lost_in_power_cuts() {
    let first = number(FIRST_SEED).unwrap_or(0);
    let cuts = number(MORE_CUTS).unwrap_or(CUTS);
    let summary = lives(first..first + cuts.div_ceil(CUTS_OF_A_LIFE), |seed| {
        let before = (seed - first) * CUTS_OF_A_LIFE;
        live(seed, CUTS_OF_A_LIFE.min(cuts - before), false)
    });
    eprintln!("{summary}");
    assert!(summary.is_good(), "{summary}");
    assert_eq!(summary.cuts, cuts);
}

#[test]
fn a_disk_that_lies_is_caught() {
    let caught = AtomicU64::new(0);
    let summary = lives(0..LIARS, |seed| {
        let summary = live(seed, CUTS_OF_A_LIFE, true);
        caught.fetch_add(u64::from(!summary.is_good()), Ordering::Relaxed);
        summary
    });
    let caught = caught.into_inner();
    eprintln!("{caught} of {LIARS} disks that lie were caught: {summary}");
    assert!(caught >= CAUGHT_MIN && !summary.lost.is_empty(), "{caught} of {LIARS} were caught: {summary}");
}

#[test]
fn the_disk_keeps_what_was_synced_and_loses_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(Machine::new(Disk::new(), false), folder.path());
    let synced = File::create(folder.path().join("synced")).unwrap();
    synced.write_all_at(&[1; 5000], 0).unwrap();
    synced.sync_data().unwrap();
    File::open(folder.path()).unwrap().sync_all().unwrap();
    synced.write_all_at(&[2; 5000], 5000).unwrap();
    let nameless = File::create(folder.path().join("nameless")).unwrap();
    nameless.sync_all().unwrap();
    drop((synced, nameless));
    let disk = mounted.into_disk();

    let (mut whole, mut short, mut torn, mut named) = (0, 0, 0, 0);
    for seed in 0..200 {
        let (left, loss) = disk.after_a_cut(&mut SmallRng::seed_from_u64(seed));
        let number = left.find(ROOT, OsStr::new("synced")).unwrap();
        let Node::File(file) = left.node(number).unwrap() else { panic!("it was a file") };
        let (kept, rest) = file.read(0, 20_000).split_at(5000);
        assert!(kept.iter().all(|byte| *byte == 1), "{loss:?} has taken what was synced");
        whole += u32::from(rest == [2; 5000]);
        short += u32::from(rest.is_empty());
        torn += u32::from(rest.contains(&2) && rest.contains(&0));
        named += u32::from(left.find(ROOT, OsStr::new("nameless")).is_ok());
    }
    let seen = [whole, short, torn, named, 200 - named];
    assert!(seen.iter().all(|count| *count > 5), "what was not synced is left always or never: {seen:?}");
}

/// Not a test: the process that a power cut ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_in_a_process_of_its_own() {
    let (Some(folder), Some(seed)) = (env::var_os(life::FOLDER), number(life::SEED)) else { return };
    member::run(Path::new(&folder), seed).await;
}

/// Lives side by side, one for each seed.
fn lives(seeds: std::ops::Range<u64>, live: impl Fn(u64) -> Summary + Sync) -> Summary {
    let total = Mutex::new(Summary::default());
    let next = AtomicU64::new(seeds.start);
    let workers = thread::available_parallelism().map_or(1, |count| count.get());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let summary = live(seed);
                    *total.lock().unwrap() += summary;
                }
            });
        }
    });
    total.into_inner().unwrap()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}
