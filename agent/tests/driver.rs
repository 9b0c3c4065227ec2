//! The driver contract: what must hold whoever crashes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use soloist_agent::driver::{AppSeen, Driver, DriverError, StopHow, StopOutcome};
use soloist_agent::ending::end_soon;
use soloist_agent::host::ProcessId;
use soloist_agent::keeper::{ExitHow, LogBounds};
use soloist_agent::let_go::Sessions;
use soloist_core::ids::{Generation, Launch};
use support::{Node, PATIENCE, until};
use tokio::time::timeout;

const GRACE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);
/// Ends on SIGTERM like a healthy app.
const POLITE: &str = "trap 'echo bye; exit 0' TERM\necho $$ > $OUT/up\nwhile :; do sleep 0.05; done\n";
const DEAF: &str = "trap '' TERM\necho $$ > $OUT/up\nwhile :; do sleep 0.05; done\n";

fn stopped(how: StopHow) -> StopOutcome {
    StopOutcome::Stopped { how }
}

#[tokio::test]
async fn starts_and_stops() {
    let node = Node::new();
    assert_eq!(node.seen().await, AppSeen::NotRunning { last_exit: None });
    let launch = node.start(POLITE).await.unwrap();
    let pid: u32 = node.file("up").await.parse().unwrap();
    match node.seen().await {
        AppSeen::Running { main, launch: seen, generation, keeper_alive, started_unix_ms, pids } => {
            assert_eq!(main.unwrap().pid, pid);
            assert_eq!((seen, generation), (Some(launch), Some(Generation(launch.0 + 100))));
            assert!(keeper_alive && started_unix_ms > 0 && pids.contains(&pid));
        }
        other => panic!("{other:?}"),
    }
    assert!(!node.data().join("launch.json").exists(), "secrets do not stay");
    node.ticket(None);
    assert_eq!(node.driver.stop(GRACE, true).await.unwrap(), stopped(StopHow::Ended));
    let AppSeen::NotRunning { last_exit: Some(exit) } = node.seen().await else { panic!("still runs") };
    assert_eq!((exit.launch, exit.how, exit.asked), (launch, ExitHow::Code(0), true));
    assert!(node.marked().is_empty() && !node.keeper().alive());
    assert!(std::fs::read_to_string(node.driver.files().log()).unwrap().contains("bye"));
    assert_eq!(node.driver.stop(GRACE, true).await.unwrap(), stopped(StopHow::NothingRan));
}

#[tokio::test]
async fn an_exit_is_noticed_and_recorded() {
    let node = Node::new();
    let launch =
        node.start("echo 1 > $OUT/up\nwhile [ ! -e $OUT/go ]; do sleep 0.02; done\nexit 7\n").await.unwrap();
    node.file("up").await;
    let seen = node.seen().await;
    std::fs::write(node.temp.path().join("go"), "").unwrap();
    timeout(PATIENCE, node.driver.changed(&seen)).await.unwrap();
    let AppSeen::NotRunning { last_exit: Some(exit) } = node.seen().await else { panic!("still runs") };
    assert_eq!((exit.launch, exit.how, exit.asked), (launch, ExitHow::Code(7), false));
}

#[tokio::test]
async fn an_app_that_ignores_sigterm_is_killed_only_if_allowed() {
    let node = Node::new();
    node.start(DEAF).await.unwrap();
    node.file("up").await;
    node.ticket(None);
    let main = node.main().await;
    match node.driver.stop(SHORT, false).await.unwrap() {
        StopOutcome::StillRunning { pids } => assert!(pids.contains(&main.pid)),
        other => panic!("{other:?}"),
    }
    assert!(main.alive());
    assert_eq!(node.driver.stop(SHORT, true).await.unwrap(), stopped(StopHow::Killed));
    assert!(node.marked().is_empty());
}

#[tokio::test]
async fn a_daemonized_grandchild_belongs_to_the_app() {
    let node = Node::new();
    // The grandchild leaves session and parent and forgets its environment; the main process ends.
    let script = "setsid env -i /bin/sh -c 'trap \"\" TERM HUP; echo on > \"$1\"; while :; do sleep 0.05; done' sh $OUT/deaf &
        echo $! > $OUT/up
        exit 0\n";
    node.start(script).await.unwrap();
    let child: u32 = node.file("up").await.parse().unwrap();
    node.file("deaf").await;
    until(|| ProcessId::of(child).filter(|id| id.alive())).await;
    let begun = Instant::now();
    loop {
        match node.seen().await {
            AppSeen::Running { main: None, keeper_alive: true, pids, .. } => {
                assert!(pids.contains(&child), "{pids:?}");
                break;
            }
            _ => assert!(begun.elapsed() < PATIENCE, "the lingering child is not seen"),
        }
    }
    node.ticket(None);
    assert!(matches!(node.driver.stop(SHORT, false).await.unwrap(), StopOutcome::StillRunning { .. }));
    assert!(matches!(node.driver.stop(SHORT, true).await.unwrap(), StopOutcome::Stopped { .. }));
    assert!(ProcessId::of(child).is_none_or(|id| !id.alive()));
}

#[tokio::test]
async fn a_new_agent_sees_the_same_app() {
    let mut node = Node::new();
    node.start(POLITE).await.unwrap();
    let main = node.main().await;
    node.driver = node.another_driver();
    assert_eq!(node.main().await, main);
    node.ticket(None);
    assert_eq!(node.driver.stop(GRACE, true).await.unwrap(), stopped(StopHow::Ended));
}

#[tokio::test]
async fn the_app_outlives_its_keeper_and_can_be_stopped() {
    for (script, kill, how) in [(POLITE, false, StopHow::Ended), (DEAF, true, StopHow::Killed)] {
        let node = Node::new();
        node.start(script).await.unwrap();
        node.file("up").await;
        let before = node.seen().await;
        let main = node.main().await;
        let keeper = node.keeper();
        keeper.signal(Signal::KILL).unwrap();
        timeout(PATIENCE, node.driver.changed(&before)).await.unwrap();
        match node.seen().await {
            AppSeen::Running { main: seen, keeper_alive: false, .. } => assert_eq!(seen, Some(main)),
            other => panic!("{other:?}"),
        }
        let refused = node.start(POLITE).await.unwrap_err().to_string();
        assert!(refused.contains("still run"), "{refused}");
        node.ticket(None);
        let grace = if kill { SHORT } else { GRACE };
        assert_eq!(node.driver.stop(grace, kill).await.unwrap(), stopped(how));
        assert!(node.marked().is_empty() && !main.alive());
        let AppSeen::NotRunning { last_exit: Some(exit) } = node.seen().await else { panic!("still runs") };
        assert_eq!(exit.how, ExitHow::Unseen);
    }
}

#[tokio::test]
async fn a_stuck_keeper_does_not_prevent_a_stop() {
    let node = Node::new();
    node.start(POLITE).await.unwrap();
    node.file("up").await;
    node.keeper().signal(Signal::STOP).unwrap();
    node.ticket(None);
    assert_eq!(node.driver.stop(GRACE, true).await.unwrap(), stopped(StopHow::Ended));
    assert!(node.marked().is_empty());
    until(|| (!node.keeper().alive()).then_some(())).await;
}

#[tokio::test]
async fn a_slow_keeper_finds_that_a_stop_came_first() {
    let node = Node::new();
    let plan = node.plan(POLITE);
    node.ticket(Some(plan.launch));
    // The keeper is ready to execute and waits for the exec lock, which the stop holds.
    let held = node.driver.files().exec_lock().unwrap();
    let driver = node.driver.clone();
    let start = tokio::spawn(async move { driver.start(plan).await });
    until(|| node.data().join("keeper.sock").exists().then_some(())).await;
    node.write_ticket(None);
    drop(held);
    assert_eq!(node.driver.stop(GRACE, true).await.unwrap(), stopped(StopHow::NothingRan));
    let refused = start.await.unwrap().unwrap_err();
    assert!(matches!(&refused, DriverError::Refused(why) if why.contains("does not permit")), "{refused}");
    assert!(!node.temp.path().join("up").exists() && node.marked().is_empty());
    let kept = std::fs::read_to_string(node.data().join("refused.json")).unwrap();
    assert!(kept.contains("does not permit"), "{kept}");
}

#[tokio::test]
async fn a_ticket_of_another_boot_starts_nothing() {
    let node = Node::new();
    let plan = node.plan(POLITE);
    node.ticket(Some(plan.launch));
    std::fs::write(&node.host.boot_id, "boot-2\n").unwrap();
    let refused = node.driver.start(plan).await.unwrap_err();
    assert!(matches!(refused, DriverError::Refused(_)), "{refused}");
    assert!(node.marked().is_empty());
}

#[tokio::test]
async fn after_a_reboot_old_process_ids_mean_nothing() {
    let node = Node::new();
    let launch = node.start("exec sleep 60\n").await.unwrap();
    let main = node.main().await;
    node.keeper().signal(Signal::KILL).unwrap();
    main.signal(Signal::KILL).unwrap();
    until(|| (!main.alive()).then_some(())).await;
    // The same numbers now belong to somebody else.
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let mut record = node.driver.files().read_keeper().unwrap().unwrap();
    record.app = ProcessId::of(other.id());
    record.keeper = record.app.unwrap();
    std::fs::write(node.data().join("keeper.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    std::fs::write(&node.host.boot_id, "boot-2\n").unwrap();
    let seen = node.seen().await;
    other.kill().unwrap();
    other.wait().unwrap();
    let AppSeen::NotRunning { last_exit: Some(exit) } = seen else { panic!("{seen:?}") };
    assert_eq!((exit.launch, exit.how), (launch, ExitHow::Unseen));
}

#[tokio::test]
async fn two_starts_at_once_are_one_app() {
    let node = Node::new();
    let script = "echo $$ >> $OUT/up\nexec sleep 60\n";
    let plan = node.plan(script);
    node.ticket(Some(plan.launch));
    let other = node.another_driver();
    let (a, b) = tokio::join!(node.driver.start(plan.clone()), other.start(plan));
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    assert_eq!(node.file("up").await.lines().count(), 1);
    assert_eq!(node.marked().len(), 1);
}

#[tokio::test]
async fn a_launch_runs_once() {
    let node = Node::new();
    let plan = node.plan("echo $$ >> $OUT/up\n");
    node.ticket(Some(plan.launch));
    node.driver.start(plan.clone()).await.unwrap();
    until(|| (!node.keeper().alive()).then_some(())).await;
    let refused = node.driver.start(plan).await.unwrap_err().to_string();
    assert!(refused.contains("once"), "{refused}");
    assert_eq!(node.file("up").await.lines().count(), 1);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_clear_refusal() {
    let node = Node::new();
    let mut plan = node.plan("");
    plan.command.argv = vec!["/nonexistent/program".into()];
    node.ticket(Some(plan.launch));
    let text = node.driver.start(plan).await.unwrap_err().to_string();
    assert!(text.contains("/nonexistent/program"), "{text}");
    assert!(!node.seen().await.runs());
    assert_ne!(Launch(0), node.start("exec sleep 60\n").await.unwrap(), "the next launch works");
}

#[tokio::test]
async fn a_told_keeper_ends_its_app_and_the_log_stays_bounded() {
    let node = Node::new();
    let line = "x".repeat(1000);
    let script = format!("trap 'exit 5' TERM\necho 1 > $OUT/up\nwhile :; do echo {line}; done\n");
    let mut plan = node.plan(&script);
    plan.log = LogBounds { max_bytes: 100_000, keep: 1 };
    plan.grace = GRACE;
    node.ticket(Some(plan.launch));
    node.driver.start(plan).await.unwrap();
    let old = node.data().join("app.log.1");
    until(|| old.exists().then_some(())).await;
    let seen = node.seen().await;
    node.keeper().signal(Signal::TERM).unwrap();
    timeout(PATIENCE, node.driver.changed(&seen)).await.unwrap();
    let AppSeen::NotRunning { last_exit: Some(exit) } = node.seen().await else { panic!("still runs") };
    assert_eq!((exit.how, exit.asked), (ExitHow::Code(5), true));
    assert!(std::fs::metadata(old).unwrap().len() <= 200_000);
}

/// Like NocoBase with an open websocket: it is asked to end, closes everything, and stays.
const CLINGING: &str = "trap 'echo 1 > $OUT/asked' TERM\necho $$ > $OUT/up\nwhile :; do sleep 0.05; done\n";

#[tokio::test]
async fn an_app_that_holds_on_to_nothing_is_not_waited_for() {
    let node = Node::new();
    // The port is this test's own, so that it closes when the test says so.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    let sessions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1));
    node.start(CLINGING).await.unwrap();
    node.file("up").await;
    node.ticket(None);
    let (driver, counted) = (node.another_driver(), sessions.clone());
    let grace = PATIENCE * 3;
    let stop = tokio::spawn(async move {
        let count = || async { Sessions::Count(counted.load(std::sync::atomic::Ordering::Relaxed)) };
        end_soon(&driver, Some(address), count, grace, true).await
    });
    node.file("asked").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(node.seen().await.runs(), "it still listens");
    drop(port);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(node.seen().await.runs(), "its sessions are there");
    let begun = Instant::now();
    sessions.store(0, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(stop.await.unwrap().unwrap(), stopped(StopHow::Killed));
    assert!(begun.elapsed() >= Duration::from_millis(200), "two looks");
    assert!(begun.elapsed() < Duration::from_secs(5), "long before its grace is over");
    assert!(node.marked().is_empty());
}

#[tokio::test]
async fn an_app_that_never_listened_has_its_grace() {
    let node = Node::new();
    node.start(CLINGING).await.unwrap();
    node.file("up").await;
    node.ticket(None);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let begun = Instant::now();
    let none = || async { Sessions::Count(0) };
    let grace = Duration::from_secs(2);
    let outcome = end_soon(&node.driver, Some(address), none, grace, true).await.unwrap();
    assert_eq!(outcome, stopped(StopHow::Killed));
    assert!(begun.elapsed() >= grace);
}
