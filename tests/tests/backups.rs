//! Backups by programs of the operator's own, with the stand-in app: its database is one file.

use std::process::Stdio;
use std::time::Duration;

use soloist_tests::harness::{Fleet, FleetOptions, get, marked, until};

/// The backup's program waits for the file `go`, and notes each of its beginnings.
const TABLES: &str = r#"
[backup.external]
create = ["/bin/sh", "-c", "echo $$ >> DATABASE.begun; until [ -e DATABASE.go ]; do sleep 0.05; done; cp DATABASE DATABASE.$SOLOIST_BACKUP"]
check = ["/bin/sh", "-c", "test -s DATABASE.$SOLOIST_BACKUP || { echo the copy is empty >&2; exit 1; }"]
restore = ["/bin/sh", "-c", "test ! -e DATABASE.broken && cp DATABASE.$SOLOIST_BACKUP DATABASE"]
remove = ["/bin/rm", "-f", "DATABASE.none"]
"#;

fn fleet() -> Fleet {
    let fleet = Fleet::start(&FleetOptions { agent_tables: TABLES.into(), ..FleetOptions::default() });
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    fleet
}

fn begun(fleet: &Fleet) -> Vec<u32> {
    let text = std::fs::read_to_string(fleet.folder.join("database.json.begun")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn loaded(fleet: &Fleet, at: usize) -> bool {
    get(fleet.apps[at], "/api/map-configuration:get?type=amap").is_some_and(|(status, _)| status != 404)
}

#[test]
fn a_backup_goes_on_after_its_agent_was_killed_and_a_restore_takes_everything_back() {
    let mut fleet = fleet();
    let mut command = fleet.cli().command(&["backup", "--on", "node-2"]);
    let command = command.stderr(Stdio::piped()).spawn().expect("the command line can be started");
    let limit = Duration::from_secs(60);
    until("the program begun", limit, || fleet.logs(), || (begun(&fleet).len() == 1).then_some(()));
    let first = begun(&fleet)[0];
    fleet.agents[1] = None;
    fleet.start_agent(1);
    // What the killed agent left behind ends before it is begun anew.
    until("the program begun anew", limit, || fleet.logs(), || (begun(&fleet).len() == 2).then_some(()));
    let children = marked(&format!("SOLOIST_BACKUP_OF={}/node-2", fleet.name));
    assert!(!children.is_empty() && !children.contains(&first), "{children:?}");
    std::fs::write(fleet.folder.join("database.json.go"), "").expect("a file can be written");
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fleet.until_whole();

    let list = fleet.cli().run(&["backup", "list", "-o", "json"]).expect(0).json();
    let backup = list[0]["backup"].as_str().expect("a backup").to_owned();
    assert_eq!(list[0]["node"], "node-2");
    let _ = fleet.cli().run(&["plugin", "enable", "map"]).expect(0);
    assert!((0..3).all(|at| loaded(&fleet, at)));
    let plan = fleet.cli().run(&["plan", "restore", &backup]).expect(0).stdout;
    assert!(plan.contains("stop node-1, node-2, node-3") && plan.contains("restore on node-2"), "{plan}");
    let _ = fleet.cli().run(&["restore", &backup, "--confirm", &backup]).expect(0);
    fleet.until_whole();
    assert!((0..3).all(|at| !loaded(&fleet, at)), "the plugin is as it was at the time of the backup");
}

#[test]
fn a_backup_that_fails_its_check_does_not_count_and_half_a_restore_stays_stopped() {
    let fleet = fleet();
    let go = fleet.folder.join("database.json.go");
    std::fs::write(&go, "").expect("a file can be written");
    let _ = fleet.cli().run(&["backup"]).expect(0);
    let list = fleet.cli().run(&["backup", "list", "-o", "json"]).expect(0).json();
    let backup = list[0]["backup"].as_str().expect("a backup").to_owned();
    let copy = fleet.folder.join(format!("database.json.{backup}"));

    // Damaged before the restore: its check finds that, and nothing is stopped.
    let good = std::fs::read(&copy).expect("the backup can be read");
    std::fs::write(&copy, "").expect("a file can be written");
    let refused = fleet.cli().run(&["restore", &backup, "--confirm", &backup]);
    assert!(refused.code == 1 && refused.stderr.contains("the copy is empty"), "{refused:?}");
    fleet.until_whole();
    std::fs::write(&copy, good).expect("a file can be written");

    // A restore that fails: nothing is started on what may be half.
    let broken = fleet.folder.join("database.json.broken");
    std::fs::write(&broken, "").expect("a file can be written");
    let failed = fleet.cli().run(&["restore", &backup, "--confirm", &backup]);
    assert!(failed.code == 1 && failed.stderr.contains("waits for a person"), "{failed:?}");
    let status = fleet.until("the block", 60, |status| status["current"]["cause"] == "task_failed");
    let operation = status["current"]["id"].as_str().expect("an operation").to_owned();
    let _ = fleet.cli().run(&["operation", "abort", &operation, "--reason", "the copy is gone"]);
    fleet.until("the end", 60, |status| status["lock"]["held"] == false);
    let start = fleet.cli().run(&["start"]);
    assert!(start.code == 77 && start.stderr.contains("may be half"), "{start:?}");
    let _ = fleet.cli().run(&["restore", "--accept-database", "--reason", "mended by hand"]).expect(0);
    let _ = fleet.cli().run(&["start"]).expect(0);
    fleet.until_whole();
}
