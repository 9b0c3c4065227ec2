//! What happens to a member's disk and store.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rustix::process::Signal;
use soloist_tests::faults::disks::{Filler, SlowSync};
use soloist_tests::faults::nemesis::revive;
use soloist_tests::faults::store::{Harm, rejoin, spoil};
use soloist_tests::harness::{Held, until};

use super::support::{begin, changing, ends_good, ends_well, scene};

#[test]
fn harmed_stores_are_refused_and_new_members_take_their_place() {
    let mut scene = scene("Stores are shortened, changed and swapped; new members take their place");
    let mut rng = SmallRng::seed_from_u64(7);
    for harm in [Harm::Truncate, Harm::Swap, Harm::Flip] {
        let at = (scene.fleet.leader() + 1) % 3;
        let (change, _) = changing(&scene);
        let said = spoil(&mut scene, at, harm, &mut rng);
        assert!(!said.is_empty(), "{harm:?}");
        ends_well(change);
        rejoin(&mut scene, at);
        ends_well(begin(&scene, &["plugin", "disable", "@nocobase/plugin-map"]));
    }
    ends_good(scene);
}

#[test]
fn disks_that_sync_slowly_delay_changes_and_break_nothing() {
    let mut scene = scene("The leader's disk syncs slowly, then those of both followers");
    let leader = scene.fleet.leader();
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    for (turn, slow) in [&[leader][..], &followers].into_iter().enumerate() {
        let disks = slow.iter().map(|at| {
            let member = scene.fleet.members[*at].as_ref().expect("it runs");
            SlowSync::new(member.pid(), &scene.fleet.folder.join(format!("syncs-{turn}-{at}")))
                .expect("it runs")
        });
        let disks: Vec<SlowSync> = disks.collect();
        let (change, _) = changing(&scene);
        ends_well(change);
        for disk in &disks {
            until(
                "a slow sync",
                Duration::from_secs(30),
                || scene.fleet.logs(),
                || (disk.count() > 0).then_some(()),
            );
        }
        drop(disks);
        ends_well(begin(&scene, &["plugin", "disable", "@nocobase/plugin-map"]));
    }
    assert!(scene.fleet.members.iter_mut().all(|member| member.as_mut().is_some_and(|member| member.runs())));
    ends_good(scene);
}

/// Whoever decides stops in the middle of decisions; that is no answer to a holder, who asks the next one.
#[test]
fn a_holder_keeps_its_lock_when_the_disk_of_the_leader_is_full() {
    let mut scene = scene("The disk of the leader is full while a holder works");
    let held = Held::begin(&scene.fleet, "solo", &scene.sign("solo"));
    let full = scene.fleet.leader();
    let filler = Filler::new(&scene.fleet.folder.join(format!("member-{}", full + 1)));
    let mut ended = scene.fleet.members[full].take().expect("it runs");
    // It ends with the first write that has no room, most likely a renewal; its file has room for some, which took 50 s once.
    assert!(!ended.wait(Duration::from_secs(180)).success(), "{}", ended.log());
    let another = |status: &serde_json::Value| {
        let leads = status["freshness"]["leader"].as_u64();
        status["current"]["granted"] == true && leads.is_some_and(|leads| leads != full as u64 + 1)
    };
    scene.fleet.until("another leader", 30, another);
    // For longer than the lease.
    let until_renewed = scene.sign_count() + 80;
    let renewed = || (scene.sign_count() >= until_renewed).then_some(());
    until("the holder to go on", Duration::from_secs(60), || scene.fleet.logs(), renewed);
    let _ = held.let_go().expect(0);
    drop(filler);
    scene.fleet.start_member(full);
    ends_good(scene);
}

#[test]
fn a_full_disk_ends_a_member_and_a_follower_that_lags_misleads_no_agent() {
    let mut scene = scene("A member's disk is full; a follower stands still with agents on it");
    let full = (scene.fleet.leader() + 1) % 3;
    let filler = Filler::new(&scene.fleet.folder.join(format!("member-{}", full + 1)));
    let (change, _) = changing(&scene);
    ends_well(change);
    drop(filler);
    revive(&mut scene);
    scene.fleet.until_whole();

    // Every agent lives at this follower.
    let net = scene.net();
    let lags = (scene.fleet.leader() + 1) % 3;
    let name = |at: usize| format!("m{}", at + 1);
    let others: Vec<usize> = (0..3).filter(|at| *at != lags).collect();
    for node in 1..=3 {
        others.iter().for_each(|at| net.part(&name(*at), &format!("n{node}")));
    }
    let there = || {
        let at = |node: usize| {
            scene.fleet.agent_status(node).is_some_and(|status| {
                status.to_string().contains(&format!("\"member\":{}", scene.fleet.member_id(lags)))
            })
        };
        (0..3).all(at).then_some(())
    };
    until("all agents at the follower", Duration::from_secs(30), || scene.fleet.logs(), there);
    let change = begin(&scene, &["plugin", "disable", "@nocobase/plugin-map"]);
    let follower = scene.fleet.members[lags].as_ref().expect("it runs");
    for _ in 0..3 {
        follower.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(1500));
        follower.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(500));
    }
    net.heal_all();
    ends_well(change);
    ends_good(scene);
}
