//! Installs and upgrades: several steps, each recorded in the database, each noticing who else is on it.
//!
//! What goes wrong when two run at once follows from how each step is written, as it does in NocoBase: the decision to install
//! is taken once, at the start, so two processes that both saw an empty database both write the settings row.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::app::App;
use super::database::{Content, SettingsRow};
use super::plugins;

const INSTALL_STEPS: [&str; 4] =
    ["create tables", "install plugins", "write the settings", "record the version"];
const UPGRADE_STEPS: [&str; 4] = ["before load", "sync tables", "after load", "record the version"];

/// Installs, seen from `found`, the content as it was when the start decided.
pub(super) async fn install(app: &Arc<App>, found: &Content) -> anyhow::Result<()> {
    let write_settings = found.system_settings.is_empty();
    for (index, step) in INSTALL_STEPS.into_iter().enumerate() {
        announce(app, format!("install: {step}, {}/{}", index + 1, INSTALL_STEPS.len())).await?;
        let (node, code) = (app.options.node.clone(), app.code.clone());
        app.update(move |content| {
            match index {
                1 => {
                    for (name, row) in plugins::preset_rows() {
                        content.plugins.entry(name).or_insert(row);
                    }
                }
                2 if write_settings => write_settings_row(content, &node),
                3 => {
                    if content.version.is_some() {
                        bail!("Validation error");
                    }
                    content.version = Some(code);
                }
                _ => {}
            }
            content.migrations.push(format!("install: {step} ({node})"));
            Ok(())
        })
        .await??;
    }
    Ok(())
}

fn write_settings_row(content: &mut Content, node: &str) {
    let id = content.system_settings.iter().map(|row| row.id).max().unwrap_or(0) + 1;
    content.system_settings.push(SettingsRow { id, by: node.to_owned() });
    if id > 1 {
        content.add_damage(&[format!(
            "systemSettings has {id} rows: two installs overlapped, the last by {node}"
        )]);
    }
}

/// Upgrades from `from`, which may equal the code's version: NocoBase runs an upgrade then, too.
pub(super) async fn upgrade(app: &Arc<App>, from: &str) -> anyhow::Result<()> {
    let broken = app.options.broken_version.as_deref() == Some(app.code.as_str()) && from != app.code;
    for (index, step) in UPGRADE_STEPS.into_iter().enumerate() {
        announce(app, format!("upgrade: {step}, {}/{}", index + 1, UPGRADE_STEPS.len())).await?;
        if broken && index == UPGRADE_STEPS.len() / 2 {
            bail!("Migration {}-broken/stand-in (up) failed", app.code);
        }
        let (node, code, from) = (app.options.node.clone(), app.code.clone(), from.to_owned());
        app.update(move |content| {
            content.migrations.push(format!("upgrade {from} to {code}: {step} ({node})"));
            if index + 1 < UPGRADE_STEPS.len() {
                return Ok(());
            }
            if content.version.as_deref() != Some(from.as_str()) {
                bail!("Validation error");
            }
            if older(&code, &from) {
                content.add_damage(&[format!("{node} with code {code} wrote the version back from {from}")]);
            }
            content.version = Some(code);
            Ok(())
        })
        .await??;
    }
    Ok(())
}

/// Shows a step, lets its share of the time pass, and meets the others on the database.
async fn announce(app: &Arc<App>, message: String) -> anyhow::Result<()> {
    app.progress("start", message);
    tokio::time::sleep(Duration::from_millis(app.options.migrate_delay_ms / 4)).await;
    app.register(true).await
}

/// Whether version `a` is older than `b`, number by number.
fn older(a: &str, b: &str) -> bool {
    let numbers =
        |text: &str| -> Vec<u64> { text.split(['.', '-']).map_while(|part| part.parse().ok()).collect() };
    numbers(a) < numbers(b)
}

#[cfg(test)]
mod tests {
    use super::super::app::{App, Phase};
    use super::super::boot::boot;
    use super::super::options::StandinOptions;
    use super::*;

    async fn started(options: StandinOptions) -> (Arc<App>, Phase) {
        let app = Arc::new(App::new(options).unwrap());
        boot(Arc::clone(&app)).await;
        let phase = app.phase();
        (app, phase)
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(older("1.9.0", "1.10.0"));
        assert!(!older("2.0.0", "2.0.0"));
    }

    #[tokio::test]
    async fn one_after_another_leaves_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = StandinOptions::for_test(folder.path(), "node-1");
        first.quickstart = true;
        let (app, phase) = started(first).await;
        assert_eq!(phase, Phase::Running);
        assert!(!app.is_migrating());
        let (second, phase) = started(StandinOptions::for_test(folder.path(), "node-2")).await;
        assert_eq!(phase, Phase::Running);
        assert!(second.is_loaded("acl") && !second.is_loaded("map"));
        let content = app.read().await.unwrap();
        assert_eq!((content.version.as_deref(), content.system_settings.len()), (Some("1.0.0"), 1));
        assert_eq!(app.database.damage().unwrap(), Vec::<String>::new());
        assert_eq!(content.processes.len(), 2);
        app.leave().await;
        assert_eq!(app.read().await.unwrap().processes.len(), 1);
    }

    #[tokio::test]
    async fn two_installs_at_once_damage_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let options = |node: &str| {
            let mut options = StandinOptions::for_test(folder.path(), node);
            options.quickstart = true;
            options
        };
        let (one, two) = tokio::join!(started(options("node-1")), started(options("node-2")));
        let failed =
            [&one.1, &two.1].into_iter().filter(|phase| matches!(phase, Phase::Failed { .. })).count();
        assert_eq!(failed, 1, "{:?} {:?}", one.1, two.1);
        let content = one.0.read().await.unwrap();
        assert_eq!(content.system_settings.len(), 2);
        let damage = one.0.database.damage().unwrap().join("\n");
        assert!(damage.contains("at the same time") && damage.contains("2 rows"), "{damage}");
        assert_eq!(content.damage.join("\n"), damage);
    }

    #[tokio::test]
    async fn an_upgrade_beside_a_running_node_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = StandinOptions::for_test(folder.path(), "node-1");
        first.quickstart = true;
        let (app, _) = started(first).await;
        let mut second = StandinOptions::for_test(folder.path(), "node-2");
        second.files.code_version = "1.1.0".to_owned();
        std::fs::write(folder.path().join(".upgrading"), "").unwrap();
        let (_, phase) = started(second).await;
        assert_eq!(phase, Phase::Running);
        assert!(!folder.path().join(".upgrading").exists(), "a finished upgrade takes the marker away");
        let content = app.read().await.unwrap();
        assert_eq!(content.version.as_deref(), Some("1.1.0"));
        assert_eq!(content.damage.len(), 1);
        assert!(content.damage[0].contains("installs or upgrades while node-1"), "{:?}", content.damage);
    }

    #[tokio::test]
    async fn broken_code_leaves_half_an_upgrade_and_the_old_version() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = StandinOptions::for_test(folder.path(), "node-1");
        options.quickstart = true;
        let (app, _) = started(options.clone()).await;
        app.leave().await;
        options.files.code_version = "2.0.0".to_owned();
        options.broken_version = Some("2.0.0".to_owned());
        let (app, phase) = started(options).await;
        assert_eq!(
            phase,
            Phase::Failed { message: "Migration 2.0.0-broken/stand-in (up) failed".to_owned() }
        );
        assert!(!app.is_migrating());
        let content = app.read().await.unwrap();
        assert_eq!(content.version.as_deref(), Some("1.0.0"));
        assert_eq!(
            content.migrations.iter().filter(|step| step.starts_with("upgrade 1.0.0 to 2.0.0")).count(),
            2
        );
    }
}
