//! Releases of an app that is not NocoBase: fetched, checked, made current; and programs of one's own.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use soloist_agent::host::ProcessId;
use soloist_agent::profile::{NodeContext, Profile, ProfileConfig};
use soloist_agent::release::ReleaseConfig;
use soloist_agent::task::Output;
use soloist_agent::task::release::ReleaseTasks;
use soloist_core::assignment::{Needs, Task, TaskKey, TaskPhase, TaskResult};
use soloist_core::ids::{FleetId, NodeId, OperationId};
use tokio::sync::watch;

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(20);

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Fills the folder that it is told: a complete release. Runs in the shell of [`Place::fetch`].
const FETCHES: &str = "echo \"$1\" >\"$2/version\"; mkdir \"$2/bin\"; echo app >\"$2/bin/app\"";

struct Place {
    temp: tempfile::TempDir,
    fleet: FleetId,
}

impl Place {
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let fleet = FleetId::new(format!("release-{}-{number}", std::process::id())).unwrap();
        let place = Self { temp: tempfile::tempdir().unwrap(), fleet };
        place.put("1");
        std::os::unix::fs::symlink(place.at("releases/1"), place.at("current")).unwrap();
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn put(&self, version: &str) {
        fs::create_dir_all(self.at("releases").join(version)).unwrap();
        fs::write(self.at("releases").join(version).join("version"), format!("{version}\n")).unwrap();
    }

    /// Tasks with folders and a link, and with a shell script as `fetch` where it is not empty.
    fn folders(&self, fetch: &str) -> ReleaseTasks {
        let fetch = if fetch.is_empty() { String::new() } else { format!("fetch = {:?}\n", shell(fetch)) };
        let (folder, current) = (self.at("releases"), self.at("current"));
        self.tasks(&format!("folder = {folder:?}\ncurrent = {current:?}\n{fetch}"))
    }

    fn tasks(&self, config: &str) -> ReleaseTasks {
        let config: ReleaseConfig = toml::from_str(config).unwrap();
        assert_eq!(config.problem(), None);
        ReleaseTasks::new(Arc::new(self.profile()), Some(&config), self.fleet.clone(), node())
    }

    /// An app that tells the version that is current.
    fn profile(&self) -> Profile {
        let facts = shell("printf '{\"code\":\"%s\"}' \"$(cat \"$CURRENT/version\")\"");
        let text = format!(
            "profile = \"generic\"\ncommand = [\"true\"]\ncwd = \"/\"\nfacts_command = {facts:?}\nenv = {{ CURRENT = {:?} }}\n",
            self.at("current")
        );
        let config: ProfileConfig = toml::from_str(&text).unwrap();
        let (fleet, data_folder) = (self.fleet.clone(), self.at("data"));
        Profile::new(config, NodeContext { fleet, node: node(), data_folder, releases: None }).unwrap()
    }

    fn is(&self, version: &str) -> bool {
        self.at("current").canonicalize().unwrap()
            == self.at("releases").join(version).canonicalize().unwrap()
    }

    fn nothing_partial(&self) {
        let names = fs::read_dir(self.at("releases")).unwrap().map(|entry| entry.unwrap().file_name());
        let partial: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".partial")).collect();
        assert!(partial.is_empty(), "{partial:?}");
    }
}

fn node() -> NodeId {
    NodeId::new("n1").unwrap()
}

/// A script with its further arguments as `$1`, `$2`.
fn shell(script: &str) -> [&str; 4] {
    ["/bin/sh", "-c", script, "sh"]
}

fn task(name: &str, phase: TaskPhase, version: &str) -> Task {
    Task {
        key: TaskKey { operation: OperationId::new("op-7").unwrap(), step: 1, attempt: 1 },
        phase,
        needs: Needs::Stopped,
        name: name.into(),
        params: [("version".to_owned(), version.to_owned())].into(),
        checks: Vec::new(),
    }
}

async fn perform(tasks: &ReleaseTasks, task: &Task) -> Result<Output, String> {
    match tasks.perform(task, &watch::channel(String::new()).0).await {
        (TaskResult::Done, output) => Ok(output),
        (TaskResult::Failed(why), _) => Err(why),
        (TaskResult::Interrupted, _) => panic!("interrupted"),
    }
}

async fn check(tasks: &ReleaseTasks, version: &str) -> Result<Output, String> {
    perform(tasks, &task("release", TaskPhase::Check, version)).await
}

async fn run(tasks: &ReleaseTasks, version: &str) -> Result<Output, String> {
    perform(tasks, &task("release", TaskPhase::Run, version)).await
}

async fn prepare(tasks: &ReleaseTasks, version: &str) -> Result<Output, String> {
    perform(tasks, &task("prepare", TaskPhase::Check, version)).await
}

#[tokio::test]
async fn checked_then_current_then_back() {
    let place = Place::new();
    let tasks = place.folders("");
    let error = check(&tasks, "2").await.unwrap_err();
    assert!(
        error.starts_with("version 2 is not in ") && error.contains("set fetch under [release]"),
        "{error}"
    );
    assert_eq!(prepare(&tasks, "2").await.unwrap_err(), error);
    place.put("2");
    let output = check(&tasks, "2").await.unwrap();
    assert_eq!(output["digest"].len(), 16);
    assert!(place.is("1"), "a check changes nothing");
    for version in ["2", "2", "1"] {
        run(&tasks, version).await.unwrap();
        assert!(place.is(version));
    }
    let begun = task("release", TaskPhase::Run, "2");
    assert_eq!(tasks.recover(&begun).await.0, TaskResult::Interrupted);
    run(&tasks, "2").await.unwrap();
    assert_eq!(tasks.recover(&begun).await.0, TaskResult::Done);
    assert!(check(&tasks, "../2").await.unwrap_err().contains("is not a version"));
}

#[tokio::test]
async fn what_is_fetched_appears_whole() {
    let place = Place::new();
    // Left by an agent that died; of another version, too.
    fs::create_dir_all(place.at("releases/.partial-2/bin")).unwrap();
    fs::create_dir_all(place.at("releases/.partial-1.5")).unwrap();
    let tasks = place.folders(FETCHES);
    let error = check(&tasks, "2").await.unwrap_err();
    assert!(error.contains("fetch it with soloist upgrade prepare --to 2"), "{error}");
    let digest = prepare(&tasks, "2").await.unwrap();
    assert_eq!(check(&tasks, "2").await.unwrap(), digest);
    assert_eq!(fs::read_to_string(place.at("releases/2/version")).unwrap(), "2\n");
    place.nothing_partial();
    // What is there is not fetched again.
    let twice = place.folders("exit 1");
    assert_eq!(prepare(&twice, "2").await.unwrap(), digest);
    assert!(place.is("1"));
}

#[tokio::test]
async fn a_fetch_that_fails_leaves_nothing() {
    let place = Place::new();
    let error =
        prepare(&place.folders("echo half >\"$2/half\"; echo 'no route to host' >&2; exit 1"), "2").await;
    let error = error.unwrap_err();
    assert!(error.contains("version 2 was not fetched") && error.ends_with("no route to host"), "{error}");
    let error = prepare(&place.folders("echo 3 >\"$2/version\""), "2").await.unwrap_err();
    assert!(error.contains("ended well, but") && error.contains("says version 3"), "{error}");
    let config = format!("{}fetch_deadline_secs = 1\n", {
        let (folder, current) = (place.at("releases"), place.at("current"));
        let fetch = shell("sleep 60");
        format!("folder = {folder:?}\ncurrent = {current:?}\nfetch = {fetch:?}\n")
    });
    let error = prepare(&place.tasks(&config), "2").await.unwrap_err();
    assert!(error.contains("took longer than 1 s"), "{error}");
    place.nothing_partial();
    assert!(!place.at("releases/2").exists());
}

#[tokio::test]
async fn the_fetch_of_an_agent_that_died_ends_before_the_next() {
    let place = Place::new();
    let mark = format!("{}/n1", place.fleet);
    let mut left = Command::new("sleep").arg("60").env("SOLOIST_TASK_OF", &mark).spawn().unwrap();
    let id = ProcessId::of(left.id()).unwrap();
    // It must be gone before the program runs.
    let script = format!("! grep -q sleep /proc/{}/cmdline || exit 1; {FETCHES}", left.id());
    prepare(&place.folders(&script), "2").await.unwrap();
    assert!(!id.alive());
    left.wait().unwrap();
}

#[tokio::test]
async fn how_far_a_fetch_is() {
    let place = Place::new();
    let go_on = place.at("go-on");
    let script =
        format!("echo 'linking, 3 of 7' >&2; until [ -e {:?} ]; do sleep 0.05; done; {FETCHES}", go_on);
    let config = {
        let (folder, current) = (place.at("releases"), place.at("current"));
        format!(
            "folder = {folder:?}\ncurrent = {current:?}\nfetch = {:?}\n",
            ["/bin/bash", "-c", &script, "sh"]
        )
    };
    let tasks = place.tasks(&config);
    let (to, mut told) = watch::channel(String::new());
    let prepare = task("prepare", TaskPhase::Check, "2");
    let hear = async {
        told.wait_for(|text| text == "fetching version 2: linking, 3 of 7").await.unwrap();
        fs::write(&go_on, "").unwrap();
    };
    let both = async { tokio::join!(tasks.perform(&prepare, &to), hear) };
    let ((result, _), ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(result, TaskResult::Done);
}

#[tokio::test]
async fn two_agents_of_one_host_fetch_once() {
    let place = Place::new();
    let count = place.at("count");
    let script = format!("echo 1 >>{count:?}; {FETCHES}");
    let (one, other) = (place.folders(&script), {
        let other = Place { temp: tempfile::tempdir().unwrap(), fleet: FleetId::new("another").unwrap() };
        let (folder, current, fetch) = (place.at("releases"), place.at("current"), shell(&script));
        let text = format!("folder = {folder:?}\ncurrent = {current:?}\nfetch = {fetch:?}\n");
        let config: ReleaseConfig = toml::from_str(&text).unwrap();
        ReleaseTasks::new(Arc::new(place.profile()), Some(&config), other.fleet, node())
    });
    let (one, other) = tokio::join!(prepare(&one, "2"), prepare(&other, "2"));
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(fs::read_to_string(&count).unwrap(), "1\n");
}

#[tokio::test]
async fn programs_of_ones_own() {
    let place = Place::new();
    place.put("2");
    let (check_it, switch) = (
        "[ -d \"$R/$1\" ] || { echo \"no $1 here\" >&2; exit 1; }; echo abc-$1; echo more",
        "ln -sfn \"$R/$1\" \"$R/../current\"; echo $SOLOIST_FLEET $SOLOIST_NODE_NAME $SOLOIST_OPERATION $SOLOIST_VERSION >\"$R/../env\"",
    );
    let with = |script: &str| format!("R={:?}; {script}", place.at("releases"));
    let (check_it, switch) = (with(check_it), with(switch));
    let config = format!("[external]\ncheck = {:?}\nswitch = {:?}\n", shell(&check_it), shell(&switch));
    let tasks = place.tasks(&config);
    assert_eq!(check(&tasks, "2").await.unwrap()["digest"], "abc-2");
    assert!(check(&tasks, "3").await.unwrap_err().ends_with("no 3 here"));
    assert_eq!(prepare(&tasks, "2").await.unwrap()["digest"], "abc-2");
    let begun = task("release", TaskPhase::Run, "2");
    assert_eq!(tasks.recover(&begun).await.0, TaskResult::Interrupted);
    run(&tasks, "2").await.unwrap();
    assert!(place.is("2"));
    assert_eq!(tasks.recover(&begun).await.0, TaskResult::Done);
    let env = fs::read_to_string(place.at("env")).unwrap();
    assert_eq!(env, format!("{} n1 op-7 2\n", place.fleet));
    // One that says that it did, and did not.
    let idle = format!("[external]\ncheck = {0:?}\nswitch = {0:?}\n", shell("true"));
    let error = run(&place.tasks(&idle), "1").await.unwrap_err();
    assert!(error.contains("the code has version 2 after the switch to 1"), "{error}");
}

#[tokio::test]
async fn without_configuration_it_says_what_to_add() {
    let place = Place::new();
    let tasks = ReleaseTasks::new(Arc::new(place.profile()), None, place.fleet.clone(), node());
    for error in [check(&tasks, "2").await, run(&tasks, "2").await, prepare(&tasks, "2").await] {
        assert!(error.unwrap_err().contains("add [release] to its configuration"));
    }
    assert!(place.is("1"));
}
