//! nginx: what a person has got wrong, and what breaks.

use std::fs;

use soloist_agent::balancer::{Balancer, BalancerConfig, BalancerError, NginxConfig, Seen};

use crate::client::{Asker, get};
use crate::nginx::World;
use crate::{IN, LONG, drive_until, drive_until_error, wanted};

fn with(config: &NginxConfig, change: impl FnOnce(&mut NginxConfig)) -> Balancer {
    let mut config = config.clone();
    change(&mut config);
    Balancer::new(&BalancerConfig::Nginx(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_does_not_pass_its_test_is_put_back() {
    let (world, mut balancer) = World::start(&[]).await;
    let anyone = Asker::start(world.port, "", false);
    let (include, workers) = (world.path("soloist/nocobase.conf"), world.workers());
    let before = fs::read_to_string(&include).unwrap();
    let mut bad = world.balancer(&["no_such_directive 7"]);
    // More than once: it is not tried again at once, and says the same.
    for _ in 0..3 {
        let error = bad.drive(&wanted(LONG, IN)).await.unwrap_err();
        assert!(matches!(error, BalancerError::Test { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("unknown directive \"no_such_directive\"") && text.contains("nothing was reloaded"),
            "{text}"
        );
        assert_eq!(fs::read_to_string(&include).unwrap(), before);
    }
    assert_eq!(fs::read_dir(world.path("soloist")).unwrap().count(), 1, "nothing else stays there");
    assert_eq!(world.workers(), workers, "nothing was reloaded");

    // Somebody else's mistake is told likewise.
    let site = fs::read_to_string(world.path("site.conf")).unwrap();
    fs::write(world.path("site.conf"), format!("{site}\nbroken\n")).unwrap();
    let error = balancer.drive(&wanted(LONG, IN)).await.unwrap_err().to_string();
    assert!(error.contains("site.conf"), "{error}");
    assert_eq!(fs::read_to_string(&include).unwrap(), before);
    fs::write(world.path("site.conf"), site).unwrap();
    anyone.all_well().await;
    let mut balancer = world.balancer(&[]);
    drive_until(&mut balancer, &wanted(LONG, IN), Seen::Out { cut: 0 }, Seen::In).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reload_without_effect_is_noticed() {
    let (world, _balancer) = World::start(&[]).await;
    let mut balancer = with(&world.config(&[]), |config| config.reload = vec!["true".into()]);
    let stale = |error: &BalancerError| matches!(error, BalancerError::Stale { .. });
    let error = drive_until_error(&mut balancer, &wanted(LONG, IN), stale).await.to_string();
    assert!(error.contains("still works with an earlier"), "{error}");
    // Reloaded by hand, it is found in force, and nothing else is needed.
    let mut balancer = world.balancer(&[]);
    drive_until(&mut balancer, &wanted(LONG, IN), Seen::Out { cut: 0 }, Seen::In).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_its_status_nothing_is_known() {
    let (mut world, mut balancer) = World::start(&[]).await;
    // The file is not where nginx looks.
    let elsewhere = world.folder.path().join("elsewhere.conf");
    let mut lost = with(&world.config(&[]), |config| {
        config.include = elsewhere;
        config.status.set_port(1);
    });
    let error = lost.drive(&wanted(IN, IN)).await.unwrap_err();
    assert!(matches!(error, BalancerError::Status { .. }), "{error}");
    assert!(error.to_string().contains("include") && error.to_string().contains("elsewhere.conf"), "{error}");
    // A wrong pid file is found before anything is changed.
    let mut unknown = with(&world.config(&[]), |config| config.pid_file = "/nonexistent/nginx.pid".into());
    let error = unknown.drive(&wanted(LONG, IN)).await.unwrap_err();
    assert!(matches!(error, BalancerError::Pid { .. }), "{error}");

    drop(world.nginx.take());
    let away =
        |error: &BalancerError| matches!(error, BalancerError::Reload { .. } | BalancerError::Status { .. });
    drive_until_error(&mut balancer, &wanted(IN, IN), away).await;
    world.launch().await;
    drive_until(&mut balancer, &wanted(IN, IN), Seen::In, Seen::In).await;
    assert_eq!(get(world.port, "/").await.status, 200);
}
