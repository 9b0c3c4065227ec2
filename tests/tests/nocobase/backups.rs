//! Backups of the real thing.

use std::process::Stdio;

use soloist_demo::monitor::Window;

use crate::scenarios::{exclusive, last_index, solo};
use crate::world::{NODES, VERSION, World};

const ROWS: &str = "select string_agg(word, ',' order by word) from soloist_test_words";

/// A backup is made while one node runs, and restored while none does; the agent that restores is killed in the middle.
pub(crate) fn backup_and_restore(world: &mut World) {
    world.ensure_whole();
    let table = "drop table if exists soloist_test_words; create table soloist_test_words (word text); \
                 insert into soloist_test_words values ('kept')";
    world.sql("nocobase", table);
    let upload = world.lab.join("fleet/storage/uploads/soloist-test.txt");
    std::fs::write(&upload, "of a user").expect("the storage can be written");
    let from = last_index(world);
    let _ = world.cli.run(&["backup", "--on", "node-2", "--reason", "before the test"]).expect(0);
    world.until_whole();
    let (grant, end) = exclusive(world, from);
    let seen = world.seen();
    let window = seen.window(grant, end);
    assert_eq!(
        nodes(&seen.processes.labels(window)),
        [solo(world)],
        "{}",
        seen.processes.timeline(window, 80)
    );

    let list = world.cli.run(&["backup", "list", "-o", "json"]).expect(0).json();
    let backup = list[0]["backup"].as_str().expect("a backup").to_owned();
    assert_eq!((list[0]["node"].as_str(), list[0]["version"].as_str()), (Some("node-2"), Some(VERSION)));
    let facts = &list[0]["facts"];
    assert_eq!(facts["checked"], "restored into a scratch database", "{list}");
    assert!(facts["uploads"].as_str().is_some_and(|text| text.contains(" files, ")), "{list}");
    let scratch = "select count(*) from pg_database where datname like '%soloist_check%'";
    assert_eq!(world.sql("postgres", scratch), "0", "the scratch database is dropped");
    std::fs::remove_file(&upload).expect("the storage can be written");

    // What comes after the backup must be gone again: rows, tables, a plugin.
    world.sql(
        "nocobase",
        "insert into soloist_test_words values ('lost'); create table soloist_test_later (id int)",
    );
    let unconfirmed = world.cli.run(&["restore", &backup]);
    assert!(unconfirmed.code == 64 && unconfirmed.stderr.contains("will be lost"), "{unconfirmed:?}");
    assert_eq!(world.sql("nocobase", ROWS), "kept,lost", "nothing was done");

    let from = last_index(world);
    let command = world
        .cli
        .command(&["restore", &backup, "--confirm", &backup])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    world.until("the restore under way", 120, |status| {
        let steps = status["current"]["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().any(|step| step["state"] == "now" && step["step"] == "restore on node-2")
    });
    drop(world.agents[1].take());
    world.start_agent(1);
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.until_whole();
    assert_eq!(world.sql("nocobase", ROWS), "kept");
    assert_eq!(std::fs::read_to_string(&upload).expect("the upload is back"), "of a user");
    let later = "select count(*) from information_schema.tables where table_name = 'soloist_test_later'";
    assert_eq!(world.sql("nocobase", later), "0", "what came after the backup is gone");
    assert_eq!(world.sql("nocobase", "select count(*) from \"systemSettings\""), "1");
    let (grant, end) = exclusive(world, from);
    let seen = world.seen();
    let window: Window = seen.window(grant, end);
    assert!(nodes(&seen.processes.labels(window)).is_empty(), "{}", seen.processes.timeline(window, 80));
    assert_eq!(world.app_pids(0).len() + world.app_pids(1).len() + world.app_pids(2).len(), NODES);

    let _ = world.cli.run(&["backup", "remove", &backup]).expect(0);
    assert_eq!(world.cli.run(&["backup", "list", "-o", "json"]).expect(0).json(), serde_json::json!([]));
    let gone = world.cli.run(&["restore", &backup, "--confirm", &backup]);
    assert_eq!(gone.code, 77, "{gone:?}");
}

fn nodes<'a>(labels: &[&'a str]) -> Vec<&'a str> {
    labels.iter().copied().filter(|label| label.starts_with("node-")).collect()
}
