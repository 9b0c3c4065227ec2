//! Verifying a node against an imitation of NocoBase's API.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "support/fake.rs"]
mod fake;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fake::{EMBED, Fake, MAP};
use soloist_agent::host::ProcessId;
use soloist_agent::profile::{NodeContext, Profile, ProfileConfig};
use soloist_agent::task::Output;
use soloist_agent::task::verify::VerifyTasks;
use soloist_core::assignment::{Needs, Task, TaskKey, TaskPhase, TaskResult};
use soloist_core::check::{Check, Expected, What};
use soloist_core::ids::{FleetId, NodeId, OperationId};
use soloist_core::time::Millis;
use tokio::sync::watch;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A node whose app is the imitation, in version 2.2.15.
struct Place {
    fake: Fake,
    temp: tempfile::TempDir,
    /// Of its own: a node's tasks end what carries its mark.
    fleet: FleetId,
    commands: BTreeMap<String, Vec<String>>,
}

impl Place {
    async fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let fleet = FleetId::new(format!("verify-{}-{number}", std::process::id())).unwrap();
        let (fake, temp) = (Fake::start().await, tempfile::tempdir().unwrap());
        let place = Self { fake, temp, fleet, commands: BTreeMap::new() };
        place.facts("2.2.15", "2.2.15");
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn facts(&self, code: &str, database: &str) {
        let text = format!(
            "{{\"code\":\"{code}\",\"database\":{{\"identity\":\"d\",\"version\":\"{database}\",\"empty\":false}}}}"
        );
        std::fs::write(self.at("facts"), text).unwrap();
    }

    fn command(&mut self, name: &str, script: &str) {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        self.commands.insert(name.to_owned(), argv.to_vec());
    }

    fn tasks(&self) -> VerifyTasks {
        let text = format!(
            "profile = \"generic\"\ncommand = [\"true\"]\ncwd = \"/\"\napi_url = {:?}\ncredential = {:?}\n\
             facts_command = [\"cat\", {:?}]\n",
            self.fake.base,
            self.fake.credential(),
            self.at("facts")
        );
        let config: ProfileConfig = toml::from_str(&text).unwrap();
        let (fleet, node) = (self.fleet.clone(), NodeId::new("n1").unwrap());
        let context = NodeContext {
            fleet: fleet.clone(),
            node: node.clone(),
            data_folder: self.at("data"),
            releases: None,
        };
        let profile = Arc::new(Profile::new(config, context).unwrap());
        VerifyTasks::new(profile, self.commands.clone(), fleet, node)
    }

    async fn verify(&self, version: Option<&str>, checks: &[Check]) -> Result<Output, String> {
        let task = Task {
            key: TaskKey { operation: OperationId::new("op-7").unwrap(), step: 1, attempt: 1 },
            phase: TaskPhase::Run,
            needs: Needs::Serving,
            name: "verify".into(),
            params: version.map(|version| ("version".to_owned(), version.to_owned())).into_iter().collect(),
            checks: checks.to_vec(),
        };
        match self.tasks().perform(&task, &watch::channel(String::new()).0).await {
            (TaskResult::Done, output) => Ok(output),
            (TaskResult::Failed(why), _) => Err(why),
            (TaskResult::Interrupted, _) => panic!("interrupted"),
        }
    }

    async fn fails(&self, check: Check) -> String {
        self.verify(None, &[check]).await.unwrap_err()
    }
}

/// A check with one try.
fn check(name: &str, what: What) -> Check {
    Check { name: name.into(), what, timeout: Millis(5_000), tries: 1 }
}

fn http(path: &str) -> What {
    What::Http { path: path.into(), status: 200, header: None, json: None }
}

fn json(path: &str, at: &str, is: &str) -> What {
    let json = Some(Expected { at: at.into(), is: is.into() });
    What::Http { path: path.into(), status: 200, header: None, json }
}

fn command(name: &str) -> What {
    What::Command { command: name.into() }
}

#[tokio::test]
async fn the_wanted_version_serves() {
    let place = Place::new().await;
    assert_eq!(place.verify(Some("2.2.15"), &[]).await.unwrap()["checks"], "0");
    let (other, none) = tokio::join!(place.verify(Some("2.2.99"), &[]), async {
        let place = Place::new().await;
        place.fake.set(|app| app.health = Some(("APP_ERROR".into(), "Validation error".into())));
        place.verify(None, &[]).await
    });
    let error = other.unwrap_err();
    assert!(error.contains("version 2.2.99 is expected, and the code has version 2.2.15"), "{error}");
    assert!(none.unwrap_err().contains("Validation error"));
    place.facts("2.2.15", "2.2.14");
    let error = place.verify(Some("2.2.15"), &[]).await.unwrap_err();
    assert!(error.contains("the database has version 2.2.14"), "{error}");
}

#[tokio::test]
async fn requests_to_the_app() {
    let place = Place::new().await;
    let good = [
        check("health", http("/api/__health_check")),
        check("version", json("/api/app:getInfo", "/data/version", "2.2.15")),
        check("whole", json("/api/app:getInfo", "/data", "{\"version\":\"2.2.15\"}")),
        check("absent", What::Http { path: "/nothing".into(), status: 404, header: None, json: None }),
    ];
    let output = place.verify(Some("2.2.15"), &good).await.unwrap();
    assert_eq!((output["checks"].as_str(), output.len()), ("4", 5));
    assert!(output["version"].starts_with("ok, ") && output["version"].ends_with(" ms, try 1"), "{output:?}");

    let error = place.fails(check("login", http("/nothing"))).await;
    assert!(error.starts_with("check \"login\" failed: GET http://127.0.0.1:"), "{error}");
    assert!(error.contains("expected status 200, found 404"), "{error}");
    let error = place.fails(check("v", json("/api/app:getInfo", "/data/version", "2.2.99"))).await;
    assert!(error.ends_with("expected \"2.2.99\" at /data/version, found \"2.2.15\""), "{error}");
    let error = place.fails(check("v", json("/api/app:getInfo", "/data/else", "1"))).await;
    assert!(error.ends_with("found nothing"), "{error}");
    let header = Some(Expected { at: "Content-Type".into(), is: "text/html".into() });
    let page = What::Http { path: "/api/__health_check".into(), status: 200, header, json: None };
    let error = place.fails(check("page", page)).await;
    assert!(
        error.contains("expected \"text/html\" in the header Content-Type, found \"text/plain"),
        "{error}"
    );
}

#[tokio::test]
async fn a_check_is_tried_again() {
    let mut place = Place::new().await;
    // The first try leaves a note, and the second one finds it.
    place.command("second", &format!("[ -e {0:?} ] || {{ : >{0:?}; exit 1; }}", place.at("note")));
    let check = Check { tries: 2, ..check("slow", command("second")) };
    let output = place.verify(None, std::slice::from_ref(&check)).await.unwrap();
    assert!(output["slow"].ends_with("try 2"), "{output:?}");
    std::fs::remove_file(place.at("note")).unwrap();
    let error = place.fails(Check { tries: 1, ..check }).await;
    assert!(error.starts_with("check \"slow\" failed: /bin/sh failed"), "{error}");
}

#[tokio::test]
async fn commands_know_what_they_look_at() {
    let mut place = Place::new().await;
    let note = place.at("env");
    let names = "$SOLOIST_FLEET $SOLOIST_NODE_NAME $SOLOIST_OPERATION $SOLOIST_VERSION $SOLOIST_APP_URL";
    place.command("smoke", &format!("echo {names} >{note:?}"));
    place.command("broken", "echo 'one thing' >&2; echo 'table users is empty' >&2; exit 4");
    place.verify(Some("2.2.15"), &[check("smoke", command("smoke"))]).await.unwrap();
    let url = place.fake.base.trim_end_matches("/api/");
    assert_eq!(std::fs::read_to_string(note).unwrap(), format!("{} n1 op-7 2.2.15 {url}\n", place.fleet));
    let error = place.fails(check("data", command("broken"))).await;
    assert_eq!(error, "check \"data\" failed: /bin/sh failed: table users is empty");
    let error = place.fails(check("data", command("smok"))).await;
    assert!(error.contains("\"smok\" is not configured") && error.contains("has broken, smoke"), "{error}");
}

#[tokio::test]
async fn a_command_that_hangs_is_ended_with_its_children() {
    let mut place = Place::new().await;
    let note = place.at("pid");
    place.command("hang", &format!("sleep 60 & echo $! >{note:?}; wait"));
    let began = Instant::now();
    let error = place.fails(Check { timeout: Millis(2_000), ..check("hang", command("hang")) }).await;
    assert!(error.contains("took longer than 2 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20));
    let pid = std::fs::read_to_string(note).unwrap().trim().parse().unwrap();
    // Without memory it does nothing any more, but for a moment it may still be there.
    while ProcessId::of(pid).is_some_and(ProcessId::alive) {
        assert!(began.elapsed() < Duration::from_secs(20), "its child is alive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn plugins_must_be_loaded() {
    let place = Place::new().await;
    place.fake.set(|app| {
        app.plugins.insert(MAP.into(), true);
        app.plugins.insert(EMBED.into(), true);
        app.loaded.push(MAP.into());
    });
    let plugin = |name: &str| check("plugin", What::Plugin { plugin: name.into() });
    place.verify(None, &[plugin("map")]).await.unwrap();
    place.fake.set(|app| app.loaded.clear());
    let error = place.fails(plugin(MAP)).await;
    assert!(error.contains(&format!("has not loaded {MAP}")), "{error}");
}

#[tokio::test]
async fn the_output_is_bounded_and_keeps_its_own_names() {
    let place = Place::new().await;
    let mut checks: Vec<Check> =
        (0..20).map(|number| check(&format!("c{number:02}"), http("/api/__health_check"))).collect();
    checks[0].name = "digest".into();
    checks[1].name = "checks".into();
    let output = place.verify(None, &checks).await.unwrap();
    assert_eq!((output.len(), output["checks"].as_str()), (16, "20"));
    assert!(output.contains_key("check digest") && output.contains_key("check checks"), "{output:?}");
    assert!(!output.contains_key("digest"), "that name means something to the coordinators");
}
