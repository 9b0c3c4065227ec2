//! Probes, proofs and tasks against an imitation of NocoBase's API.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "support/fake.rs"]
mod fake;

use std::time::Duration;

use fake::{EMBED, Fake, MAP, Mode};
use soloist_agent::probe::{ApiClient, ApiError, Health, Loaded, Prober, Proofs, Verdict};
use soloist_agent::task::{TaskEnd, TaskLimits, Tasks};
use soloist_core::assignment::{Needs, Proof, Task, TaskKey, TaskPhase, TaskResult};
use soloist_core::ids::{Generation, OperationId, Version};

fn task(phase: TaskPhase, name: &str, plugin: &str) -> Task {
    let key = TaskKey { operation: OperationId::new("op").unwrap(), step: 1, attempt: 1 };
    Task {
        key,
        phase,
        needs: Needs::Serving,
        name: name.into(),
        params: [("plugin".to_owned(), plugin.to_owned())].into(),
        checks: Vec::new(),
    }
}

fn tasks(fake: &Fake) -> Tasks {
    let limits = TaskLimits { request: Duration::from_secs(5), quiet: Duration::from_secs(5) };
    Tasks::new(fake.client(), fake.proofs(), limits)
}

async fn perform(tasks: &Tasks, phase: TaskPhase, name: &str, plugin: &str) -> TaskResult {
    match tasks.perform(&task(phase, name, plugin)).await {
        TaskEnd::Ended(result) => result,
        TaskEnd::UnderWay(why) => panic!("under way: {why}"),
    }
}

fn failed(result: TaskResult) -> String {
    match result {
        TaskResult::Failed(why) => why,
        other => panic!("not failed: {other:?}"),
    }
}

#[tokio::test]
async fn every_process_is_asked() {
    let fake = Fake::start().await;
    let both = vec![MAP.to_owned(), EMBED.to_owned()];
    fake.set(|app| {
        app.plugins = [(MAP.to_owned(), true), (EMBED.to_owned(), true)].into();
        (app.loaded, app.other) = (both.clone(), Some((None, Vec::new())));
    });
    let (api, proofs) = (fake.client().of_processes(2), fake.proofs());
    for plugin in [MAP, EMBED] {
        assert_eq!(proofs.loaded(&api, plugin).await.unwrap(), Loaded::Partly);
        let why = proofs.require(&api, plugin, true).await.unwrap_err();
        assert!(why.contains("only some of the app's processes"), "{why}");
        assert!(proofs.require(&api, plugin, false).await.is_err());
    }
    let mut prober = Prober::default();
    assert_eq!(prober.look(&api, None).await, (Health::Ok, Verdict::Serving));
    let starting = Some(("APP_COMMANDING".to_owned(), "load plugin".to_owned()));
    fake.set(|app| app.other = Some((starting, both.clone())));
    for _ in 0..3 {
        assert_eq!(prober.look(&api, None).await.1, Verdict::NotYet("load plugin".into()));
    }
    fake.set(|app| app.other = Some((None, both.clone())));
    assert_eq!(prober.look(&api, None).await.1, Verdict::Serving);
    for plugin in [MAP, EMBED] {
        assert_eq!(proofs.require(&api, plugin, true).await, Ok(()));
    }
}

#[tokio::test]
async fn serving_needs_health_database_and_version() {
    let fake = Fake::start().await;
    let api = fake.client();
    let code = Version("2.2.15".into());
    let mut prober = Prober::default();
    assert_eq!(prober.look(&api, Some(&code)).await, (Health::Ok, Verdict::Serving));
    fake.set(|app| app.version = "2.2.99".into());
    let (_, verdict) = prober.look(&api, Some(&code)).await;
    assert!(matches!(&verdict, Verdict::NotYet(why) if why.contains("2.2.99")), "{verdict:?}");
    fake.set(|app| app.database_up = false);
    let (health, verdict) = prober.look(&api, Some(&code)).await;
    assert_eq!(health, Health::Ok);
    assert!(matches!(&verdict, Verdict::NotYet(why) if why.contains("database is away")), "{verdict:?}");
    fake.set(|app| app.health = Some(("APP_COMMANDING".into(), "load plugin [ai], 48/77".into())));
    let (_, verdict) = prober.look(&api, Some(&code)).await;
    assert_eq!(verdict, Verdict::NotYet("load plugin [ai], 48/77".into()));
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_silence() {
    let fake = Fake::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/api/", listener.local_addr().unwrap());
    assert_eq!(ApiClient::new(&silent, None).unwrap().health().await, Health::Silent);
    drop(listener);
    assert_eq!(ApiClient::new(&silent, None).unwrap().health().await, Health::Refused);
    let error = ApiClient::new(&fake.base, None).unwrap().plugins().await.unwrap_err();
    assert!(matches!(error, ApiError::NoCredential { .. }), "{error}");
}

#[tokio::test]
async fn a_token_is_kept_and_renewed() {
    let fake = Fake::start().await;
    let api = fake.client();
    api.plugins().await.unwrap();
    api.plugins().await.unwrap();
    assert_eq!(fake.app.lock().unwrap().sign_ins, 1);
    fake.set(|app| app.token = "second".into());
    api.plugins().await.unwrap();
    assert_eq!(fake.app.lock().unwrap().sign_ins, 2);
    assert!(!format!("{api:?}").contains("second"), "tokens do not show");
}

#[tokio::test]
async fn enabling_and_disabling_is_verified_and_idempotent() {
    let fake = Fake::start().await;
    let tasks = tasks(&fake);
    assert_eq!(perform(&tasks, TaskPhase::Check, "plugin-enable", "map").await, TaskResult::Done);
    assert_eq!(fake.app.lock().unwrap().commands, 0, "a check changes nothing");
    fake.set(|app| app.mode = Mode::Slow(Duration::from_millis(300)));
    assert_eq!(perform(&tasks, TaskPhase::Run, "plugin-enable", "map").await, TaskResult::Done);
    assert_eq!(perform(&tasks, TaskPhase::Run, "plugin-enable", MAP).await, TaskResult::Done);
    assert_eq!(fake.app.lock().unwrap().commands, 1, "done already");
    assert_eq!(perform(&tasks, TaskPhase::Run, "plugin-disable", MAP).await, TaskResult::Done);
    assert!(fake.app.lock().unwrap().loaded.is_empty());
}

#[tokio::test]
async fn failures_carry_the_apps_own_words() {
    let fake = Fake::start().await;
    let tasks = tasks(&fake);
    fake.set(|app| app.mode = Mode::Fails);
    let why = failed(perform(&tasks, TaskPhase::Run, "plugin-enable", "map").await);
    assert!(why.contains("plugin load error"), "{why}");
    fake.set(|app| app.mode = Mode::Unloaded);
    let why = failed(perform(&tasks, TaskPhase::Run, "plugin-enable", "map").await);
    assert!(why.contains("has not loaded"), "{why}");
    let why = failed(perform(&tasks, TaskPhase::Check, "plugin-enable", "mapp").await);
    assert!(why.contains("did you mean @nocobase/plugin-map?"), "{why}");
    let why = failed(perform(&tasks, TaskPhase::Check, "plugin-enable", "a;b").await);
    assert!(why.contains("not a plugin's package name"), "{why}");
    let why = failed(perform(&tasks, TaskPhase::Run, "shell", "map").await);
    assert!(why.contains("no task"), "{why}");
}

#[tokio::test]
async fn a_request_that_outlives_its_client_is_waited_for() {
    let fake = Fake::start().await;
    fake.set(|app| app.mode = Mode::Slow(Duration::from_millis(1500)));
    let short = TaskLimits { request: Duration::from_millis(200), quiet: Duration::from_millis(200) };
    let hasty = Tasks::new(fake.client(), fake.proofs(), short);
    let asked = task(TaskPhase::Run, "plugin-enable", MAP);
    assert!(matches!(hasty.perform(&asked).await, TaskEnd::UnderWay(_)));
    // The agent dies here; the next one only looks.
    assert_eq!(tasks(&fake).recover(&asked).await, TaskEnd::Ended(TaskResult::Done));
    assert_eq!(fake.app.lock().unwrap().commands, 1);
}

#[tokio::test]
async fn what_never_began_is_interrupted() {
    let fake = Fake::start().await;
    let asked = task(TaskPhase::Run, "plugin-enable", MAP);
    assert_eq!(tasks(&fake).recover(&asked).await, TaskEnd::Ended(TaskResult::Interrupted));
    assert_eq!(fake.app.lock().unwrap().commands, 0);
}

#[tokio::test]
async fn proofs() {
    let fake = Fake::start().await;
    let api = fake.client();
    let proofs = fake.proofs();
    let proof = |plugin: &str, loaded, since| Proof { plugin: plugin.into(), loaded, since };
    assert_eq!(proofs.loaded(&api, MAP).await.unwrap(), Loaded::No);
    assert_eq!(proofs.prove(&api, &proof(MAP, false, None), false).await, Ok(()));
    assert!(proofs.prove(&api, &proof(MAP, true, None), false).await.unwrap_err().contains("not enabled"));
    // Enabled by another node: the list says yes, this process does not have it.
    fake.set(|app| app.plugins.insert(MAP.into(), true).map_or((), drop));
    assert!(proofs.prove(&api, &proof(MAP, true, None), false).await.unwrap_err().contains("not loaded"));
    fake.set(|app| app.loaded.push(MAP.into()));
    let since = Some(Generation(9));
    assert!(
        proofs.prove(&api, &proof(MAP, true, since), false).await.unwrap_err().contains("not been restarted")
    );
    assert_eq!(proofs.prove(&api, &proof(MAP, true, since), true).await, Ok(()));
    // Without a route its texts tell, and only the process has them.
    assert_eq!(proofs.prove(&api, &proof(EMBED, false, None), false).await, Ok(()));
    fake.set(|app| app.plugins.insert(EMBED.into(), true).map_or((), drop));
    assert!(proofs.prove(&api, &proof(EMBED, true, None), false).await.unwrap_err().contains("not loaded"));
    fake.set(|app| app.loaded.push(EMBED.into()));
    assert_eq!(proofs.prove(&api, &proof(EMBED, true, None), false).await, Ok(()));
    fake.set(|app| app.plugins.insert(EMBED.into(), false).map_or((), drop));
    assert!(
        proofs.prove(&api, &proof(EMBED, false, None), false).await.unwrap_err().contains("still loaded")
    );
    let none = Proofs::new([], false);
    let why = none.prove(&api, &proof(EMBED, false, None), false).await.unwrap_err();
    assert!(why.contains("nothing here can tell") && why.contains("plugin_routes"), "{why}");
    fake.set(|app| app.health = Some(("APP_ERROR".into(), "broken".into())));
    assert!(proofs.loaded(&api, MAP).await.is_err(), "an app that is down proves nothing");
}
