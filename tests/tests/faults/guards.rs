//! The suite itself must be able to fail: an app that somebody starts beside a grant turns the verdict red.

use std::process::{Command, Stdio};
use std::time::Duration;

use soloist_tests::faults::record::STRAY;
use soloist_tests::faults::verdict::judge;
use soloist_tests::harness::{bin, free_ports, until};

use super::support::{begin, granted, scene};

#[test]
fn an_app_that_is_started_behind_its_back_turns_the_verdict_red() {
    let scene = scene("Somebody starts the app by hand beside a holder");
    let command = scene.holder("solo", 30);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let held = begin(&scene, &[&["run", "--solo", "--"][..], &words].concat());
    granted(&scene);
    let signs = scene.signs();
    until("the holder at work", Duration::from_secs(20), String::new, || signs.exists().then_some(()));
    let path = |name: &str| scene.fleet.folder.join(name).to_string_lossy().into_owned();
    let mut planted = Command::new(bin("soloist"))
        .args(["stand-in", "start", "--port", &free_ports(1)[0].to_string()])
        .args(["--database", &path("database.json"), "--storage", &path("storage"), "--node", "planted"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the stand-in can be started");
    std::thread::sleep(Duration::from_secs(1));
    planted.kill().expect("it runs");
    let _ = planted.wait();
    drop(held.wait_with_output());
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
