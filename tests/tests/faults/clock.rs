//! Wall clocks that jump: no decision reads them, so nobody may notice. The members run under Debian's `faketime`, which shows them
//! another wall clock and the real monotonic one; the machine's own clock is not touched.

use std::path::{Path, PathBuf};

use soloist_tests::faults::scene::Scene;
use soloist_tests::harness::{Daemon, FleetOptions, Held, bin};

use super::support::ends_good_but_for;

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let files = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    files.into_iter().find(|file| file.exists()).expect("faketime is missing: install it, as ./check does")
}

/// The file that says by how much a member's wall clock is off.
fn offset(scene: &Scene, at: usize) -> PathBuf {
    scene.fleet.folder.join(format!("clock-{}", at + 1))
}

fn jump(scene: &Scene, at: usize, by: &str) {
    // In one piece: the member reads it at each look at its clock.
    let (file, fresh) = (offset(scene, at), scene.fleet.folder.join("clock-fresh"));
    std::fs::write(&fresh, by).expect("a file in a temporary folder can be written");
    std::fs::rename(fresh, file).expect("a file can be replaced");
}

/// Starts a member again, with a wall clock of its own.
fn with_clock(scene: &mut Scene, at: usize) {
    jump(scene, at, "+0");
    scene.fleet.members[at] = None;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let preload = format!("LD_PRELOAD={}", library().display());
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", offset(scene, at).display());
    let program = text(&bin("soloist-coordinator"));
    let config = text(&scene.fleet.folder.join(format!("coordinator-{}.toml", at + 1)));
    let args =
        [&preload, &file, "FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1", &program, "--config", &config];
    let log = scene.fleet.folder.join(format!("coordinator-{}.log", at + 1));
    let place = scene.fleet.place(&format!("m{}", at + 1));
    scene.fleet.members[at] = Some(Daemon::start_at(&place, Path::new("env"), &args, &log));
}

#[test]
fn wall_clocks_jump_by_hours_and_no_lease_or_deadline_ends() {
    let mut scene = Scene::start("Wall clocks of the members jump", None, FleetOptions::default());
    for at in 0..3 {
        with_clock(&mut scene, at);
        scene.fleet.until_whole();
    }
    let held = Held::begin(&scene.fleet, "all-stopped", &scene.sign("all-stopped"));
    let leader = scene.fleet.leader();
    let before = scene.fleet.cli().run(&["events", "-o", "json"]).expect(0).stdout;
    for by in ["+5h", "-3h"] {
        jump(&scene, leader, by);
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    // With another clock, the next leader goes on where this one stood.
    (0..3).filter(|at| *at != leader).for_each(|at| jump(&scene, at, "+20d"));
    scene.fleet.members[leader] = None;
    scene.fleet.until("the next leader", 30, |status| status["current"]["granted"] == true);
    let _ = held.let_go().expect(0);
    with_clock(&mut scene, leader);
    scene.fleet.until_whole();
    let events = scene.fleet.cli().run(&["events", "-o", "json"]).expect(0).stdout;
    let walls = |text: &str| -> Vec<u64> {
        let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        events.filter_map(|event| event["wall_ms"].as_u64()).collect()
    };
    // Whoever leads at the end need not be the one that took over.
    let (first, last) = (walls(&before).pop().unwrap_or(0), walls(&events).into_iter().max().unwrap_or(0));
    assert!(last > first + 19 * 24 * 3_600_000, "the clock of the next leader was not another one");
    assert!(!events.contains("holder_lost"), "{events}");
    // Times of events are those of clocks that jumped; the holder's own signs of life are of the machine's clock.
    let verdict = ends_good_but_for(scene, |record| record.events.clear());
    assert_eq!(verdict.windows, 1, "{verdict:?}");
}
