//! Hundreds of agents, of which those of a dead leader come back at once, and a short run that a seed chooses.

use std::time::{Duration, Instant};

use soloist_tests::faults::locks::Lockers;
use soloist_tests::faults::nemesis::Fault;
use soloist_tests::faults::report::{self, summary};
use soloist_tests::faults::scene::CROWD;
use soloist_tests::faults::schedule::{Plan, run};
use soloist_tests::faults::swarm::Swarm;
use soloist_tests::harness::{CLIENT, until};

use super::support::{changing, ends_good, ends_well, scene};

/// How many agents without hosts, unless SOLOIST_SWARM says otherwise: a machine with two processors has no time for thousands in a debug build.
const SWARM: usize = 320;
/// How long all of them may take to have a session again.
const BACK_MAX: Duration = Duration::from_secs(180);
/// The run in this test.
const SEED: u64 = 20_261;
const LENGTH: Duration = Duration::from_secs(60);

#[test]
#[expect(clippy::print_stdout, reason = "the figure is asked for")]
fn of_hundreds_of_agents_those_of_a_dead_leader_come_back_while_a_change_goes_on() {
    let mut scene = scene("Hundreds of agents, and a leader that dies");
    let members: Vec<_> = (0..3).map(|at| scene.fleet.member_address(at)).collect();
    let count =
        std::env::var("SOLOIST_SWARM").ok().map(|text| text.parse().expect("SOLOIST_SWARM is a number"));
    let swarm = Swarm::start(scene.fleet.place(CROWD), members.clone(), "swarm", count.unwrap_or(SWARM));
    swarm.until_all(BACK_MAX);
    let book = scene.book.clone();
    let lockers = Lockers::start(scene.fleet.place(CLIENT), &members, 3, 1, book);
    let (change, _) = changing(&scene);
    let leader = scene.fleet.leader();
    let (killed, before) = (Instant::now(), swarm.began());
    scene.fleet.members[leader] = None;
    ends_well(change);
    let some = || (swarm.began() > before).then_some(());
    until("the first to come back", BACK_MAX, || format!("{} are open", swarm.open()), some);
    swarm.until_all(BACK_MAX);
    let (took, again) = (killed.elapsed(), swarm.began() - before);
    scene.fleet.start_member(leader);
    drop((lockers, swarm));
    let verdict = ends_good(scene);
    assert_eq!(verdict.linearizable, (1, 1));
    assert!(verdict.lock_calls > 20, "{verdict:?}");
    println!("{again} sessions began again within {:.1} s", took.as_secs_f64());
}

#[test]
fn a_run_that_a_seed_chooses_keeps_every_promise() {
    let plan = Plan { seed: SEED, length: LENGTH, swarm: 32, faults: Fault::ALL.to_vec() };
    let mut told = String::new();
    let record = run(&plan, |text| told += &format!("{text}\n"));
    let place = tempfile::tempdir().expect("a temporary folder");
    let verdict = report::write(place.path(), &record).expect("a report can be written");
    assert!(verdict.good, "seed {SEED}:\n{told}\n{}", summary(&verdict));
    assert!(verdict.faults.len() >= 3 && verdict.windows > 0 && verdict.lock_calls > 0, "{verdict:?}");
    // Anybody can compute it again, and one that was changed by hand is noticed.
    assert_eq!(report::check(place.path()).expect("a report"), (verdict, true));
    let file = place.path().join("verdict.json");
    let text =
        std::fs::read_to_string(&file).expect("a verdict").replace("\"overlaps\": 0", "\"overlaps\": 1");
    std::fs::write(&file, text).expect("a file can be written");
    assert!(!report::check(place.path()).expect("a report").1);
}
