//! HAProxy: what a person has got wrong, and what breaks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use soloist_agent::balancer::{Balancer, BalancerConfig, BalancerError, HaproxyConfig, Seen};

use crate::haproxy::World;
use crate::{IN, LONG, drive_until, drive_until_error, id, wanted};

/// Names the socket for the part of a test that runs under another account.
const SOCKET: &str = "SOLOIST_TEST_SOCKET";
/// An account without rights, on every Linux.
const NOBODY: u32 = 65534;

fn with(config: &HaproxyConfig, change: impl FnOnce(&mut HaproxyConfig)) -> Balancer {
    let mut config = config.clone();
    change(&mut config);
    Balancer::new(&BalancerConfig::Haproxy(config))
}

async fn fails(config: &HaproxyConfig, change: impl FnOnce(&mut HaproxyConfig)) -> BalancerError {
    with(config, change).drive(&wanted(IN, IN)).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_mistake_is_named() {
    let world = World::start().await;
    let config = world.config();
    let error = fails(&config, |config| config.socket = "/nonexistent/admin.sock".into()).await.to_string();
    assert!(
        error.contains("no socket at /nonexistent/admin.sock") && error.contains("correct socket"),
        "{error}"
    );
    let mut balancer = with(&config, |config| config.workers = Some("/nonexistent/workers".into()));
    let error = balancer.drive(&wanted(LONG, IN)).await.unwrap_err().to_string();
    assert!(error.contains("correct workers in [balancer]"), "{error}");
    let error = fails(&config, |config| config.backends.push("other".into())).await.to_string();
    assert!(
        error.contains("no backend \"other\"") && error.contains("it has maintenance, nocobase"),
        "{error}"
    );
    let error = fails(&config, |config| {
        config.servers.insert(id("node-2"), "app9".into());
    })
    .await
    .to_string();
    assert!(error.contains("no server \"app9\"") && error.contains("it has app1, app2, page"), "{error}");
    let mut balancer = world.balancer();
    let before = world.one.requests();
    drive_until(&mut balancer, &wanted(IN, IN), Seen::In, Seen::In).await;
    assert_eq!(world.one.requests(), before, "the driver itself asks no node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_socket_without_rights_is_named() {
    let mut world = World::start().await;
    let path = world.folder.path().join("haproxy.cfg");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("level admin", "level operator")).unwrap();
    drop(world.haproxy.take());
    world.launch().await;
    let error = world.balancer().drive(&wanted(LONG, IN)).await.unwrap_err();
    assert!(matches!(error, BalancerError::Level { .. }), "{error}");
    assert!(error.to_string().contains("level admin"), "{error}");
}

/// The second half runs in a process of its own under another account, because nothing is forbidden to root.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_socket_of_another_account_is_named() {
    if let Some(socket) = std::env::var_os(SOCKET) {
        let config = HaproxyConfig {
            socket: socket.into(),
            workers: None,
            backends: vec!["nocobase".into()],
            servers: [(id("node-1"), "app1".into()), (id("node-2"), "app2".into())].into(),
            state_file: None,
        };
        let error = fails(&config, |_| {}).await;
        assert!(matches!(error, BalancerError::Forbidden { .. }), "{error}");
        assert!(error.to_string().contains("mode 660"), "{error}");
        return;
    }
    let world = World::start().await;
    let socket = world.config().socket;
    let test = world.folder.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&test, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(&test);
    command.args(["--exact", "haproxy_trouble::a_socket_of_another_account_is_named"]).env(SOCKET, &socket);
    if rustix::process::getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    } else {
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let output =
        tokio::task::spawn_blocking(move || command.current_dir("/").output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hung_or_ended_haproxy_is_said_so_and_found_again() {
    let mut world = World::start().await;
    let mut balancer = world.balancer();
    drive_until(&mut balancer, &wanted(LONG, IN), Seen::Out { cut: 0 }, Seen::In).await;
    let worker = i32::try_from(world.worker().await.unwrap()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(worker, Signal::STOP).unwrap();
    // It may still answer once, until all its threads have stopped.
    let is_silent = |error: &BalancerError| matches!(error, BalancerError::Silent { .. });
    drive_until_error(&mut balancer, &wanted(LONG, IN), is_silent).await;
    kill_process(worker, Signal::CONT).unwrap();
    drive_until(&mut balancer, &wanted(LONG, IN), Seen::Out { cut: 0 }, Seen::In).await;

    drop(world.haproxy.take());
    let is_away =
        |error: &BalancerError| matches!(error, BalancerError::Deaf { .. } | BalancerError::NoSocket { .. });
    drive_until_error(&mut balancer, &wanted(LONG, IN), is_away).await;
    world.launch().await;
    drive_until(&mut balancer, &wanted(LONG, IN), Seen::Out { cut: 0 }, Seen::In).await;
}
