//! What happens to nodes: a reboot, a lost ledger, a full disk, keepers and apps that die, a storage that hangs, and a database that
//! falls back.

use std::time::Duration;

use rustix::process::Signal;
use soloist_tests::faults::disks::{Filler, Mount};
use soloist_tests::faults::nemesis::{reboot, revive};
use soloist_tests::faults::record::wall_ms;
use soloist_tests::faults::targets::{apps, keepers};
use soloist_tests::harness::{Fleet, until};

use super::support::{begin, changing, ends_good, ends_well, scene, some};

/// Removes everything that an agent remembers.
fn forget(fleet: &Fleet, at: usize) {
    let folder = fleet.folder.join(format!("agent-{}", at + 1));
    for entry in std::fs::read_dir(folder).expect("an agent has a folder").flatten() {
        let path = entry.path();
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.expect("what an agent wrote can be removed");
    }
}

#[test]
fn hosts_are_rebooted_and_a_ledger_is_lost_in_a_change() {
    let mut scene = scene("The solo node's host is rebooted; a resting node loses its ledger");
    let (change, solo) = changing(&scene);
    let rests = (solo + 1) % 3;
    scene.fleet.agents[rests] = None;
    forget(&scene.fleet, rests);
    scene.fleet.start_agent(rests);
    reboot(&mut scene, solo);
    scene.fleet.start_agent(solo);
    // The task was cut off: whether it is done again by itself or by a person, nothing may run beside it.
    let status = scene.fleet.until("an end, or a question", 60, |status| {
        status["current"].is_null() || status["current"]["status"] == "blocked"
    });
    if let Some(id) = status["current"]["id"].as_str() {
        let _ = scene.fleet.cli().run(&["operation", "retry", id]);
        let settled = scene.fleet.until("an end, or the same question", 60, |status| {
            status["current"].is_null() || status["current"]["status"] == "blocked"
        });
        if !settled["current"].is_null() {
            let _ = scene.fleet.cli().run(&["operation", "abort", id, "--reason", "it does not go on"]);
        }
    }
    drop(change.wait_with_output());
    scene.fleet.until("a free lock", 60, |status| status["lock"]["held"] == false);
    if scene.fleet.cli().status().is_some_and(|status| some(&status, |node| node["wanted"] == "stop")) {
        ends_well(begin(&scene, &["start"]));
    }
    ends_good(scene);
}

#[test]
fn a_ledger_without_room_and_a_storage_that_hangs_delay_and_break_nothing() {
    let mut scene = scene("The disk of a node is full; then the shared storage hangs");
    let filler = Filler::new(&scene.fleet.folder.join("agent-2"));
    let change = begin(&scene, &["plugin", "enable", "@nocobase/plugin-map"]);
    // What cannot be written down is not acknowledged, so nothing is granted.
    scene.fleet.until("the change to wait for the node", 30, |status| {
        status["current"]["waits"].to_string().contains("node-2")
    });
    std::thread::sleep(Duration::from_secs(2));
    let status = scene.fleet.cli().status().expect("the coordinators answer");
    assert_eq!(status["current"]["granted"], false, "{status}");
    drop(filler);
    revive(&mut scene);
    ends_well(change);
    scene.fleet.until_whole();

    let storage = Mount::hanging(&scene.fleet.folder.join("storage"));
    let restart = begin(&scene, &["restart", "--nodes", "node-3"]);
    // The agent does not hang with it, and says what does.
    scene.fleet.until("the restart to say why it waits", 60, |status| {
        status["current"]["status"] == "blocked"
            && status["current"]["detail"].to_string().contains("does its disk or mount hang?")
    });
    drop(storage);
    // A person has it tried again.
    let cli = scene.fleet.cli();
    let settled = || {
        let status = cli.status()?;
        if status["current"]["status"] == "blocked" {
            let _ = cli.run(&["operation", "retry", status["current"]["id"].as_str()?]);
        }
        status["lock"]["held"].as_bool().filter(|held| !held)
    };
    until("the end of the restart", Duration::from_secs(90), || scene.fleet.logs(), settled);
    drop(restart.wait_with_output());
    ends_good(scene);
}

#[test]
fn keepers_apps_and_agents_stop_and_the_database_falls_back_a_second() {
    let scene = scene("A keeper and an app die, an agent stands still, the database falls back");
    keepers(&scene, 0).iter().for_each(|keeper| keeper.signal(Signal::KILL));
    apps(&scene, 1).iter().for_each(|app| app.signal(Signal::KILL));
    scene.fleet.until_whole();
    // A holder is granted only when the agent that stands still goes on.
    let agent = scene.fleet.agents[2].as_ref().expect("it runs");
    agent.signal(Signal::STOP);
    let command = scene.holder("solo", 10);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let held = begin(&scene, &[&["run", "--solo", "--"][..], &words].concat());
    scene
        .fleet
        .until("the holder to wait", 30, |status| status["current"]["waits"].to_string().contains("node-3"));
    agent.signal(Signal::CONT);
    ends_well(held);
    scene.fleet.until_whole();

    // The database is replaced by a copy from before a plugin was enabled.
    let path = scene.fleet.folder.join("database.json");
    let copy = scene.fleet.folder.join("database.copy");
    std::fs::copy(&path, &copy).expect("the database can be copied");
    let (change, solo) = changing(&scene);
    let from = wall_ms();
    until(
        "the plugin in the database",
        Duration::from_secs(20),
        || scene.fleet.logs(),
        || (scene.fleet.database()["plugins"]["map"]["enabled"] == true).then_some(()),
    );
    std::fs::rename(copy, path).expect("the database can be replaced");
    scene.book.trouble("database-back", &format!("while node-{} changes it", solo + 1), from);
    // How it ends is for the product to say; that it ends is not.
    drop(change.wait_with_output());
    scene.fleet.until("a free lock", 90, |status| {
        if status["current"]["status"] == "blocked"
            && let Some(id) = status["current"]["id"].as_str()
        {
            let _ = scene.fleet.cli().run(&["operation", "abort", id, "--reason", "it does not go on"]);
        }
        status["lock"]["held"] == false
    });
    // Whatever it ended with: once every app has read the database anew, it can be asked for again.
    ends_well(begin(&scene, &["restart"]));
    ends_well(begin(&scene, &["plugin", "enable", "@nocobase/plugin-map"]));
    assert_eq!(scene.fleet.database()["plugins"]["map"]["enabled"], true);
    let verdict = ends_good(scene);
    assert!(verdict.windows >= 4, "the holder's own word, and three grants: {verdict:?}");
}
