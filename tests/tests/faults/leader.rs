//! The leader dies, stands still, or is cut off, in the middle of a change.

use rustix::process::Signal;

use super::support::{begin, changing, ends_good, ends_well, granted, scene};

#[test]
fn the_leader_is_killed_and_another_stands_still_and_goes_on_in_a_plugin_change() {
    let mut scene = scene("The leader is killed, the next one stands still, and goes on");
    let (change, _) = changing(&scene);
    let first = scene.fleet.leader();
    scene.fleet.members[first] = None;
    ends_well(change);
    scene.fleet.start_member(first);
    scene.fleet.until_whole();

    let change = begin(&scene, &["plugin", "disable", "@nocobase/plugin-map"]);
    granted(&scene);
    let second = scene.fleet.leader();
    let still = scene.fleet.members[second].as_ref().expect("it runs");
    still.signal(Signal::STOP);
    ends_well(change);
    // It wakes up as a leader of the past, with an operation that ended long ago.
    still.signal(Signal::CONT);
    ends_well(begin(&scene, &["restart", "--nodes", "node-2"]));
    let verdict = ends_good(scene);
    assert!(verdict.windows >= 2, "{verdict:?}");
}

#[test]
fn a_leader_that_nobody_hears_is_replaced_and_one_without_agents_works_on() {
    let scene = scene("A leader is muted one way; another is cut from the agents alone");
    let net = scene.net();
    let (change, _) = changing(&scene);
    let muted = scene.fleet.leader();
    let name = |at: usize| format!("m{}", at + 1);
    let others: Vec<usize> = (0..3).filter(|at| *at != muted).collect();
    // It hears the others and keeps its agents and clients, but none of its own words arrive.
    others.iter().for_each(|at| net.cut(&name(muted), &name(*at)));
    ends_well(change);
    net.heal_all();
    let leader = scene.fleet.leader();
    // No agent reaches the leader, all others do: its members pass everything on.
    (1..=3).for_each(|node| net.part(&name(leader), &format!("n{node}")));
    ends_well(begin(&scene, &["plugin", "disable", "@nocobase/plugin-map"]));
    net.heal_all();
    // The other way round: agents and clients reach it, the members do not.
    let leader = scene.fleet.leader();
    (0..3).filter(|at| *at != leader).for_each(|at| net.part(&name(leader), &name(at)));
    ends_well(begin(&scene, &["run", "--solo", "--", "true"]));
    net.heal_all();
    let verdict = ends_good(scene);
    assert!(verdict.windows >= 3, "{verdict:?}");
}
