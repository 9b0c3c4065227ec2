//! The NocoBase profile against a real installation. Runs where `SOLOIST_TEST_NOCOBASE` names its folder, with
//! `KEY=VALUE` settings of a database in `SOLOIST_TEST_NOCOBASE_ENV` (separated by commas).

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use soloist_agent::driver::{AppSeen, Driver, LaunchPlan, StopHow, StopOutcome};
use soloist_agent::host::{ScanQuery, scan};
use soloist_agent::keeper::LogBounds;
use soloist_agent::probe::{Prober, Verdict};
use soloist_agent::profile::{NocoBaseConfig, NodeContext, Profile, ProfileConfig};
use soloist_agent::task::{TaskEnd, TaskLimits, Tasks};
use soloist_core::assignment::{RunMode, Task, TaskKey, TaskPhase, TaskResult};
use soloist_core::ids::{Launch, OperationId, Right};
use support::Node;

const START: Duration = Duration::from_secs(120);

#[tokio::test]
async fn install_plugin_stop_and_plain_start() {
    let Ok(folder) = std::env::var("SOLOIST_TEST_NOCOBASE") else { return };
    let node = Node::new();
    let credential = node.temp.path().join("credential");
    std::fs::write(&credential, "account = \"admin@nocobase.com\"\npassword = \"admin123\"\n").unwrap();
    std::fs::set_permissions(&credential, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = std::env::var("SOLOIST_TEST_NOCOBASE_ENV").unwrap_or_default();
    let mut env: BTreeMap<String, String> = settings
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.into(), v.into()))
        .collect();
    env.insert("STORAGE_PATH".into(), node.temp.path().join("storage").display().to_string());
    let config = NocoBaseConfig {
        app_folder: folder.into(),
        env,
        node: None,
        credential: Some(credential),
        plugin_routes: BTreeMap::new(),
    };
    let context =
        NodeContext { fleet: node.fleet.clone(), node: node.node.clone(), data_folder: node.data() };
    let profile = Profile::new(ProfileConfig::NocoBase(config), context).unwrap();

    let before = profile.facts().await;
    let code = before.code.clone().unwrap();
    assert_eq!((&before.refusal, &before.database_error), (&None, &None), "{before:?}");
    assert!(before.database.unwrap().empty, "the test needs an empty database");

    run(&node, &profile, 1, RunMode::Migrate(Right(1)), &code).await;
    assert_eq!(node.marked().len(), 1, "the app is exactly one process");
    let query = ScanQuery { fleet: node.fleet.clone(), marker: node.marker(), app: profile.pattern().await };
    assert!(scan(&query).unwrap().foreign.is_empty());
    let facts = profile.facts().await;
    assert_eq!(facts.database.unwrap().version, Some(code.clone()));

    let api = profile.api().await.unwrap().unwrap();
    let tasks = Tasks::new(api, profile.routes().clone(), TaskLimits::default());
    for plugin in ["map", "departments", "public-forms", "embed", "localization"] {
        for name in ["plugin-enable", "plugin-disable", "plugin-enable"] {
            let begun = Instant::now();
            let end = tasks.perform(&task(name, plugin)).await;
            assert_eq!(end, TaskEnd::Ended(TaskResult::Done), "{name} {plugin}");
            eprintln!("{name} {plugin}: {} ms", begun.elapsed().as_millis());
        }
    }
    stop(&node).await;
    run(&node, &profile, 2, RunMode::Plain, &code).await;
    stop(&node).await;
}

async fn run(node: &Node, profile: &Profile, launch: u64, mode: RunMode, code: &soloist_core::ids::Version) {
    let launch = Launch(launch);
    let command = profile.command(mode).await.unwrap();
    node.ticket(Some(launch));
    let plan = LaunchPlan {
        launch,
        generation: None,
        command,
        grace: Duration::from_secs(10),
        log: LogBounds::default(),
    };
    node.driver.start(plan).await.unwrap();
    let (begun, mut prober, mut last) = (Instant::now(), Prober::default(), String::new());
    loop {
        match profile.look(&mut prober, Some(code)).await.1 {
            Verdict::Serving => break,
            Verdict::NotYet(why) => {
                if why != last {
                    eprintln!("{} ms: {why}", begun.elapsed().as_millis());
                }
                last = why;
            }
            Verdict::Failed(why) => panic!("{why}"),
        }
        assert!(begun.elapsed() < START && node.seen().await.runs(), "does not serve: {last}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!("serving after {} ms", begun.elapsed().as_millis());
}

async fn stop(node: &Node) {
    node.ticket(None);
    let begun = Instant::now();
    let outcome = node.driver.stop(Duration::from_secs(30), true).await.unwrap();
    eprintln!("stopped after {} ms", begun.elapsed().as_millis());
    assert_eq!(outcome, StopOutcome::Stopped { how: StopHow::Ended });
    assert!(matches!(node.seen().await, AppSeen::NotRunning { .. }));
}

fn task(name: &str, plugin: &str) -> Task {
    let key = TaskKey { operation: OperationId::new("op").unwrap(), step: 1, attempt: 1 };
    let params = [("plugin".to_owned(), plugin.to_owned())].into();
    Task { key, phase: TaskPhase::Run, name: name.into(), params }
}
