//! Upgrades of the stand-in app: what must hold whoever is killed, and when it goes back.

use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use soloist_tests::harness::{Fleet, FleetOptions, head, marked, until};

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";
const BROKEN: &str = "1.9.0";

/// A backup is a copy of the stand-in's database.
const TABLES: &str = r#"
[backup.external]
create = ["/bin/sh", "-c", "cp DATABASE DATABASE.$SOLOIST_BACKUP"]
check = ["/bin/sh", "-c", "test -s DATABASE.$SOLOIST_BACKUP && test ! -e DATABASE.damaged || { echo the copy is damaged >&2; exit 1; }"]
restore = ["/bin/sh", "-c", "cp DATABASE.$SOLOIST_BACKUP DATABASE"]
remove = ["/bin/rm", "-f", "DATABASE.none"]

[checks]
smoke = ["/bin/sh", "-c", "test ! -e DATABASE.smoke || { echo smoke on $SOLOIST_NODE_NAME >&2; exit 1; }"]
slow = ["/bin/sh", "-c", "sleep 0.4"]
"#;

const READY: &str = "traffic = \"ready\"\nstart_timeout = \"30s\"\nstop_timeout = \"20s\"\ntask_timeout = \"2m\"\n\
                     contact_timeout = \"4s\"\nlease = \"6s\"\naccept_timeout = \"5s\"\ngather_timeout = \"5s\"\n\
                     pre_grant_timeout = \"60s\"\n[[checks]]\nname = \"smoke\"\ncommand = \"smoke\"\ntries = 2\n\
                     [[checks]]\nname = \"slow\"\ncommand = \"slow\"\n[[checks]]\nname = \"answers\"\n\
                     http = { path = \"/api/app:getInfo\" }\n";

fn fleet() -> Fleet {
    fleet_of(3)
}

/// Another version is made on the spot, but for one that nobody has.
const FETCH: &str = r#"["/bin/sh", "-c", "test $1 != 7.7.7 || { echo there is no $1 >&2; exit 1; }; echo $1 >$2/version", "fetch"]"#;

fn fleet_of(nodes: usize) -> Fleet {
    let mut options = FleetOptions {
        agent_tables: TABLES.into(),
        nodes,
        releases: [OLD, NEW, BROKEN].map(String::from).into(),
        fetch: FETCH.into(),
        ..FleetOptions::default()
    };
    options.app_args.extend(["--broken-version".into(), BROKEN.into()]);
    let fleet = Fleet::start(&options);
    apply(&fleet, READY);
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    fleet
}

fn apply(fleet: &Fleet, policy: &str) {
    let file = fleet.folder.join("policy.toml");
    std::fs::write(&file, policy).expect("a file can be written");
    let _ = fleet.cli().run(&["fleet", "apply", &file.to_string_lossy()]).expect(0);
}

fn begin(fleet: &Fleet, args: &[&str]) -> Child {
    let mut command = fleet.cli().command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command line can be started")
}

fn ended(command: Child) -> (Option<i32>, String) {
    let output = command.wait_with_output().expect("the command line ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What must hold when everything has ended: one version everywhere, and nothing half.
fn is_at(fleet: &Fleet, version: &str) {
    fleet.until_whole();
    assert_eq!(fleet.database()["version"], version, "{}", fleet.database());
    for at in 0..fleet.apps.len() {
        assert_eq!(fleet.code(at), version, "the code of node-{}", at + 1);
    }
    let damage = std::fs::read_to_string(fleet.folder.join("database.json.damage")).unwrap_or_default();
    assert!(damage.trim().is_empty(), "{damage}");
}

fn last(fleet: &Fleet) -> Value {
    let list = fleet.cli().run(&["operation", "list", "-o", "json"]).expect(0).json();
    let list = list["operations"].as_array().expect("a list");
    let newest = list.iter().max_by_key(|operation| operation["submitted_wall_ms"].as_u64());
    newest.expect("an operation").clone()
}

#[test]
fn an_upgrade_ends_on_three_nodes_and_its_outage_adds_up() {
    let fleet = fleet();
    let plan = fleet.cli().run(&["plan", "upgrade", "--to", NEW]).expect(0).stdout;
    assert!(plan.contains("stop node-1, node-2, node-3") && plan.contains("backup on"), "{plan}");
    let command = begin(&fleet, &["upgrade", "--to", NEW, "--approve"]);
    let status =
        fleet.until("the question for approval", 60, |status| status["current"]["cause"] == "approval");
    let at = number(&status["current"]["solo"]);
    assert_eq!(head(fleet.agent_http[at], "/ready"), Some(503), "users are kept out until it is approved");
    let id = status["current"]["id"].as_str().expect("an operation").to_owned();
    let _ = fleet.cli().run(&["operation", "approve", &id]).expect(0);
    let (_, told) = ended(command);
    is_at(&fleet, NEW);
    assert_eq!(head(fleet.agent_http[at], "/ready"), Some(200));
    let operation = last(&fleet);
    assert_eq!(operation["status"], "succeeded", "{operation}\n{told}");
    let outage = &operation["outage"];
    let parts: Vec<u64> =
        outage["parts"].as_array().expect("parts").iter().filter_map(|part| part[1].as_u64()).collect();
    assert_eq!(Some(parts.iter().sum()), outage["took"].as_u64(), "{outage}");
    assert!(outage["over"] == true && parts.len() > 4, "{outage}");

    // The same again is done already; an older one is refused without a backup of it.
    let again = fleet.cli().run(&["upgrade", "--to", NEW]).expect(0);
    assert!(again.stderr.contains(NEW), "{again:?}");
    let back = fleet.cli().run(&["upgrade", "--to", OLD]);
    assert!(back.code != 0 && back.stderr.contains("rollback"), "{back:?}");

    // Back by hand, with the name of the backup as confirmation.
    let backup = operation["id"].as_str().expect("an id").to_owned();
    let unsure = fleet.cli().run(&["rollback"]);
    assert!(unsure.code != 0, "{unsure:?}");
    let _ = fleet.cli().run(&["rollback", "--confirm", &backup]).expect(0);
    is_at(&fleet, OLD);
}

#[test]
fn a_broken_release_goes_back_by_itself() {
    let fleet = fleet();
    let before = fleet.database();
    let upgrade = fleet.cli().run(&["upgrade", "--to", BROKEN]).expect(1);
    assert!(upgrade.stderr.contains("rolled back"), "{upgrade:?}");
    is_at(&fleet, OLD);
    assert_eq!(last(&fleet)["status"], "rolled_back");
    assert_eq!(fleet.database()["migrations"], before["migrations"], "nothing of the attempt is left");

    // A release that comes up and fails a check, and one that a person refuses.
    std::fs::write(fleet.folder.join("database.json.smoke"), "").expect("a file can be written");
    let verify = fleet.cli().run(&["verify"]).expect(1);
    assert!(verify.stderr.contains("smoke on node-"), "{verify:?}");
    let upgrade = fleet.cli().run(&["upgrade", "--to", NEW]);
    assert!(upgrade.code == 1 && upgrade.stderr.contains("smoke"), "{upgrade:?}");
    // The way back is verified too, and stays where it is when that fails.
    let status = fleet.until("the block", 60, |status| status["current"]["cause"] == "task_failed");
    let id = status["current"]["id"].as_str().expect("an operation").to_owned();
    std::fs::remove_file(fleet.folder.join("database.json.smoke")).expect("the file is there");
    let _ = fleet.cli().run(&["operation", "retry", &id]).expect(0);
    fleet.until("the end", 90, |status| status["lock"]["held"] == false);
    is_at(&fleet, OLD);
    let _ = fleet.cli().run(&["verify"]).expect(0);

    let command = begin(&fleet, &["upgrade", "--to", NEW, "--approve"]);
    let status =
        fleet.until("the question for approval", 60, |status| status["current"]["cause"] == "approval");
    let id = status["current"]["id"].as_str().expect("an operation").to_owned();
    let _ = fleet.cli().run(&["operation", "reject", &id, "--reason", "looks odd"]);
    let _ = ended(command);
    fleet.until("the end", 90, |status| status["lock"]["held"] == false);
    is_at(&fleet, OLD);
    assert_eq!(last(&fleet)["status"], "rolled_back");
}

#[test]
fn nothing_is_touched_when_a_node_lacks_the_version_or_the_backup_is_damaged() {
    let fleet = fleet();
    std::fs::remove_dir_all(fleet.releases(1).join(NEW)).expect("the release is there");
    let pids: Vec<Vec<u32>> = (0..3).map(|at| marked(&fleet.marker(at))).collect();
    let upgrade = fleet.cli().run(&["upgrade", "--to", NEW]).expect(1);
    assert!(upgrade.stderr.contains("node-2") && upgrade.stderr.contains(NEW), "{upgrade:?}");
    fleet.until_whole();
    let now: Vec<Vec<u32>> = (0..3).map(|at| marked(&fleet.marker(at))).collect();
    assert_eq!(now, pids, "no app was stopped");

    // Files that differ are seen before anything is stopped.
    fleet.add_release(1, NEW);
    std::fs::write(fleet.releases(1).join(NEW).join("more"), "x").expect("a file can be written");
    let upgrade = fleet.cli().run(&["upgrade", "prepare", "--to", NEW]).expect(1);
    assert!(upgrade.stderr.contains("same files"), "{upgrade:?}");
    std::fs::remove_file(fleet.releases(1).join(NEW).join("more")).expect("the file is there");
    let _ = fleet.cli().run(&["upgrade", "prepare", "--to", NEW]).expect(0);

    std::fs::write(fleet.folder.join("database.json.damaged"), "").expect("a file can be written");
    let upgrade = fleet.cli().run(&["upgrade", "--to", NEW]).expect(1);
    assert!(upgrade.stderr.contains("the copy is damaged"), "{upgrade:?}");
    is_at(&fleet, OLD);
    assert_eq!(fleet.cli().run(&["backup", "list", "-o", "json"]).expect(0).json(), serde_json::json!([]));
}

#[test]
fn a_version_is_fetched_on_every_node_ahead_of_time() {
    let fleet = fleet();
    let early = fleet.cli().run(&["upgrade", "--to", "1.2.0"]).expect(1);
    assert!(early.stderr.contains("1.2.0") && early.stderr.contains("upgrade prepare"), "{early:?}");
    let unknown = fleet.cli().run(&["upgrade", "prepare", "--to", "7.7.7"]).expect(1);
    assert!(unknown.stderr.contains("there is no 7.7.7"), "{unknown:?}");
    let _ = fleet.cli().run(&["upgrade", "prepare", "--to", "1.2.0"]).expect(0);
    for at in 0..3 {
        let mut there: Vec<_> = std::fs::read_dir(fleet.releases(at))
            .expect("releases")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        there.sort();
        assert_eq!(there, [OLD, NEW, "1.2.0", BROKEN], "what could not be fetched leaves nothing");
    }
    assert_eq!(fleet.code(0), OLD, "nothing is switched yet");
    let _ = fleet.cli().run(&["upgrade", "--to", "1.2.0"]).expect(0);
    is_at(&fleet, "1.2.0");
}

#[test]
fn writes_of_users_are_not_given_up_by_themselves() {
    let fleet = fleet();
    apply(&fleet, &READY.replace("\"ready\"", "\"direct\""));
    let upgrade = fleet.cli().run(&["upgrade", "--to", BROKEN]).expect(1);
    assert!(upgrade.stderr.contains("users may have written since"), "{upgrade:?}");
    let status = fleet.until("the block", 60, |status| status["current"]["cause"] == "writes_at_stake");
    let id = status["current"]["id"].as_str().expect("an operation").to_owned();
    assert!(status["current"]["writes_since_wall_ms"].as_u64().is_some_and(|since| since > 0), "{status}");
    let abort = fleet.cli().run(&["operation", "abort", &id, "--reason", "enough"]);
    assert!(abort.code != 0 && abort.stderr.contains("--lose-writes"), "{abort:?}");
    let refused = fleet.cli().run(&["operation", "rollback", &id]);
    assert!(refused.code != 0, "{refused:?}");
    let _ = fleet.cli().run(&["operation", "rollback", &id, "--lose-writes", "--confirm", &id]);
    fleet.until("the end", 90, |status| status["lock"]["held"] == false);
    is_at(&fleet, OLD);
}

/// Whom to kill.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Leader,
    AgentAndKeeper,
}

/// The number of a node, less one.
fn number(node: &Value) -> usize {
    let number = node.as_str().and_then(|node| node.trim_start_matches("node-").parse::<usize>().ok());
    number.map_or(0, |number| number - 1)
}

#[expect(clippy::print_stdout, reason = "which step it was, for whoever wants to know")]
/// Kills whenever an upgrade comes to another step, one step per upgrade, until every step had its turn.
fn killed_at_each_step(victim: Victim) {
    let mut fleet = fleet_of(2);
    let mut before = OLD.to_owned();
    let mut at_step = 0;
    loop {
        let next = format!("2.{at_step}.0");
        (0..2).for_each(|at| fleet.add_release(at, &next));
        let mut command = begin(&fleet, &["upgrade", "--to", &next]);
        let step = until(
            "a step",
            Duration::from_secs(90),
            || fleet.logs(),
            || {
                if command.try_wait().expect("it can be waited for").is_some() {
                    return Some(None);
                }
                let status = fleet.cli().status()?;
                let steps = status["current"]["steps"].as_array()?;
                let now = steps.iter().position(|step| step["state"] == "now")?;
                let name = steps[now]["step"].as_str()?.to_owned();
                (now >= at_step).then(|| Some((now, name, steps.len(), number(&status["current"]["solo"]))))
            },
        );
        let Some((now, name, steps, at)) = step else {
            // The last steps were over before anybody looked.
            assert!(at_step > 9, "the upgrade ended before its step {at_step} was seen");
            return;
        };
        match victim {
            Victim::Leader => {
                let leader = fleet.leader();
                fleet.members[leader] = None;
                fleet.start_member(leader);
            }
            Victim::AgentAndKeeper => {
                fleet.agents[at] = None;
                kill_keeper(&fleet, at);
                fleet.start_agent(at);
            }
        }
        let (code, told) = ended(command);
        fleet.until("the end", 120, |status| status["lock"]["held"] == false);
        let operation = last(&fleet);
        let text = format!("{victim:?} killed at \"{name}\": {code:?}, {}\n{told}", operation["status"]);
        println!("{victim:?} killed at step {} of {steps}, {name}: {}", now + 1, operation["status"]);
        match operation["status"].as_str() {
            Some("succeeded") => {
                is_at(&fleet, &next);
                before = next;
            }
            // The right was spent, and nobody can say what the app did before its keeper was killed: it may not even have begun.
            Some("rolled_back") if name.contains("with the right") => is_at(&fleet, &before),
            _ => panic!("{text}"),
        }
        at_step = now + 1;
        if at_step >= steps {
            return;
        }
    }
}

#[test]
fn the_leader_is_killed_at_each_step() {
    killed_at_each_step(Victim::Leader);
}

#[test]
fn agent_and_keeper_of_the_solo_node_are_killed_at_each_step() {
    killed_at_each_step(Victim::AgentAndKeeper);
}

/// Kills the keeper of a node's app, if there is one.
fn kill_keeper(fleet: &Fleet, at: usize) {
    let record = fleet.folder.join(format!("agent-{}/keeper.json", at + 1));
    let record: Option<Value> =
        std::fs::read(record).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let pid = record.and_then(|record| i32::try_from(record["keeper"]["pid"].as_i64()?).ok());
    let is_keeper = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("keep"))
    };
    // It may have ended with its app.
    if let Some(pid) = pid.filter(is_keeper).and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[test]
fn a_power_cut_in_the_middle_of_a_migration_leaves_nothing_half() {
    let mut fleet = fleet();
    let command = begin(&fleet, &["upgrade", "--to", NEW]);
    fleet.until("the migration", 60, |status| {
        let nodes = status["nodes"].as_array();
        nodes.is_some_and(|nodes| {
            nodes.iter().any(|node| node["wanted"] == "migrate" && node["app"] == "starting")
        })
    });
    fleet.power_cut();
    (0..3).for_each(|at| fleet.start_member(at));
    (0..3).for_each(|at| fleet.start_agent(at));
    let _ = ended(command);
    fleet.until("the end", 120, |status| status["lock"]["held"] == false);
    let status = last(&fleet)["status"].as_str().unwrap_or_default().to_owned();
    is_at(&fleet, if status == "succeeded" { NEW } else { OLD });
}
