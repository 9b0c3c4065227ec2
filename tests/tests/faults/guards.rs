//! The suite itself must be able to fail: an app that somebody starts beside a grant turns the verdict red.

use std::process::{Command, Stdio};
use std::time::Duration;

use soloist_tests::faults::record::STRAY;
use soloist_tests::faults::verdict::judge;
use soloist_tests::harness::{Held, bin, free_ports, until};

use super::support::scene;

#[test]
fn an_app_that_is_started_behind_its_back_turns_the_verdict_red() {
    let scene = scene("Somebody starts the app by hand beside a holder");
    let held = Held::begin(&scene.fleet, "solo", &scene.sign("solo"));
    let path = |name: &str| scene.fleet.folder.join(name).to_string_lossy().into_owned();
    let mut planted = Command::new(bin("soloist"))
        .args(["stand-in", "start", "--port", &free_ports(1)[0].to_string()])
        .args(["--database", &path("database.json"), "--storage", &path("storage"), "--node", "planted"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the stand-in can be started");
    let seen = || scene.has_seen(STRAY).then_some(());
    until("the monitor to see it", Duration::from_secs(30), || scene.fleet.logs(), seen);
    let before = scene.sign_count();
    let more = || (scene.sign_count() >= before + 5).then_some(());
    until("the holder's signs of life beside it", Duration::from_secs(30), || scene.fleet.logs(), more);
    planted.kill().expect("it runs");
    let _ = planted.wait();
    drop(held.let_go());
    scene.fleet.until_whole();
    let record = scene.end();
    let verdict = judge(&record);
    assert!(!verdict.good && verdict.overlaps >= 2, "by the grant and by the holder's own word: {verdict:?}");
    assert!(verdict.problems.iter().any(|problem| problem.contains(STRAY)), "{verdict:?}");
    // Without what was planted, nothing is wrong with the same run.
    let mut clean = record;
    clean.trees.retain(|tree| tree.node != STRAY);
    assert!(judge(&clean).good, "{:?}", judge(&clean));
}
