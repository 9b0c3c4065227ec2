//! How a stand-in process starts: decide from the database and the right to migrate, migrate, load the plugins, serve.

use std::sync::Arc;
use std::time::Duration;

use super::app::{App, Phase};
use super::database::Content;
use super::migrate;

/// What a start does, decided once from the database as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Load the plugins and serve.
    Plain,
    /// Bring the database from nothing, or from half an install, to the code's version.
    Install,
    /// Bring the database from another version to the code's.
    Upgrade { from: String },
    /// End at 503 with this message.
    Refuse { message: String },
}

impl Plan {
    /// `may_migrate` is `--quickstart`, or the marker on the storage.
    pub(super) fn choose(content: &Content, code: &str, may_migrate: bool, skip_same: bool) -> Self {
        match &content.version {
            None if may_migrate => Self::Install,
            Some(version) if may_migrate && !(skip_same && version == code) => {
                Self::Upgrade { from: version.clone() }
            }
            Some(version) if version == code => Self::Plain,
            None if content.is_empty() => Self::Refuse {
                message: "the database is empty: install it first (start --quickstart)".to_owned(),
            },
            None => Self::Refuse {
                message: "the database holds half an install: run it again (start --quickstart)".to_owned(),
            },
            Some(version) => Self::Refuse {
                message: format!(
                    "the code is {code}, the database is at {version}: upgrade it first (start --quickstart)"
                ),
            },
        }
    }
}

/// Runs a start to its end, which is [`Phase::Running`] or [`Phase::Failed`].
pub(super) async fn boot(app: Arc<App>) {
    if let Err(error) = start(&app).await {
        app.log(&format!("the start failed: {error:#}"));
        // Whatever it was doing, it does it no longer: a signal to stop is heard again.
        if let Err(error) = app.register(false).await {
            app.log(&format!("cannot reach the database: {error:#}"));
        }
        app.set_phase(Phase::Failed { message: format!("{error:#}") });
    }
}

async fn start(app: &Arc<App>) -> anyhow::Result<()> {
    let files = &app.options.files;
    let content = app.read().await?;
    let may_migrate = app.options.quickstart || files.upgrading();
    let plan = Plan::choose(&content, &app.code, may_migrate, app.options.skip_same_version_upgrade);
    let migrates = matches!(plan, Plan::Install | Plan::Upgrade { .. });
    app.log(&format!("code {}, database {:?}: {plan:?}", app.code, content.version));
    app.register(migrates).await?;
    app.progress("start", "init plugins");
    tokio::time::sleep(port_delay(app.options.start_delay_ms)).await;
    match plan {
        Plan::Plain => {}
        Plan::Install => migrate::install(app, &content).await?,
        Plan::Upgrade { from } => migrate::upgrade(app, &from).await?,
        Plan::Refuse { message } => anyhow::bail!(message),
    }
    if migrates {
        files.clear_upgrading();
        app.register(false).await?;
    }
    load(app).await?;
    if let Some(message) = &app.options.fail_start {
        anyhow::bail!(message.clone());
    }
    app.set_phase(Phase::Running);
    app.log("serving");
    Ok(())
}

/// Loads the plugins that the database says are enabled, one after another.
async fn load(app: &Arc<App>) -> anyhow::Result<()> {
    let enabled = app.read().await?.enabled();
    let total = enabled.len().max(1);
    let rest = Duration::from_millis(app.options.start_delay_ms)
        .saturating_sub(port_delay(app.options.start_delay_ms));
    let each = rest / u32::try_from(total).unwrap_or(u32::MAX);
    for (index, name) in enabled.iter().enumerate() {
        app.progress("start", format!("load plugin [{name}], {}/{total}", index + 1));
        tokio::time::sleep(each).await;
    }
    app.set_loaded(enabled);
    Ok(())
}

/// How long the port stays closed after the start of the process.
pub(super) fn port_delay(start_delay_ms: u64) -> Duration {
    Duration::from_millis(start_delay_ms / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: Option<&str>, migrations: &[&str]) -> Content {
        Content {
            version: version.map(str::to_owned),
            migrations: migrations.iter().map(|text| (*text).to_owned()).collect(),
            ..Content::default()
        }
    }

    #[test]
    fn a_plain_start_never_migrates() {
        let refused = |content: &Content| match Plan::choose(content, "1.0.0", false, false) {
            Plan::Refuse { message } => message,
            other => panic!("{other:?}"),
        };
        assert!(refused(&at(None, &[])).contains("empty"));
        assert!(refused(&at(None, &["install: create tables"])).contains("half"));
        assert!(refused(&at(Some("0.9.0"), &[])).contains("0.9.0"));
        assert!(refused(&at(Some("2.0.0"), &[])).contains("2.0.0"));
        assert_eq!(Plan::choose(&at(Some("1.0.0"), &[]), "1.0.0", false, false), Plan::Plain);
    }

    #[test]
    fn the_right_to_migrate_is_used_whenever_it_is_there() {
        let upgrade = |from: &str| Plan::Upgrade { from: from.to_owned() };
        assert_eq!(Plan::choose(&at(None, &[]), "1.0.0", true, false), Plan::Install);
        assert_eq!(Plan::choose(&at(Some("0.9.0"), &[]), "1.0.0", true, true), upgrade("0.9.0"));
        assert_eq!(Plan::choose(&at(Some("1.0.0"), &[]), "1.0.0", true, false), upgrade("1.0.0"));
        assert_eq!(Plan::choose(&at(Some("1.0.0"), &[]), "1.0.0", true, true), Plan::Plain);
    }
}
