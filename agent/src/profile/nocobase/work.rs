//! What runs inside NocoBase by itself, how long it may take to stop, and what it holds on to.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use soloist_core::evidence::Sessions as Connected;

use super::environment::Environment;
use super::{NocoBaseProfile, database};
use crate::let_go::Sessions;
use crate::work::{Unfinished, log_has_lines};

/// Time between SIGTERM and SIGKILL for a node that serves requests: it ends within a second unless a workflow runs.
const GRACE: Duration = Duration::from_secs(90);
/// The same for a worker, which drains its queue first.
const GRACE_WORKER: Duration = Duration::from_secs(300);

impl NocoBaseProfile {
    /// Time between SIGTERM and SIGKILL where nobody says anything else.
    pub(in crate::profile) async fn grace(&self) -> Duration {
        let environment = self.computed(false).await;
        grace(environment.as_ref().map_or("", |environment| environment.get("WORKER_MODE")))
    }

    /// What is unfinished in the whole fleet.
    pub(in crate::profile) async fn unfinished(&self) -> Result<Unfinished, String> {
        let environment = self.computed(false).await.map_err(|error| error.to_string())?;
        database::unfinished(&environment, &self.pgappname("soloist-agent")).await
    }

    /// Whether the app's output has a line for each execution that begins.
    pub(in crate::profile) async fn log_has_lines(&self) -> bool {
        let environment = self.computed(false).await;
        environment.is_ok_and(|environment| {
            log_has_lines(environment.get("LOGGER_TRANSPORT"), environment.get("LOGGER_LEVEL"))
        })
    }

    /// Where the app listens.
    pub(in crate::profile) async fn listener(&self) -> Option<SocketAddr> {
        let environment = self.computed(false).await.ok()?;
        let url = reqwest::Url::parse(environment.api.base()).ok()?;
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        (host.trim_matches(['[', ']']), port).to_socket_addrs().ok()?.next()
    }

    /// How many database sessions may be the app's.
    pub(in crate::profile) async fn sessions(&self) -> Sessions {
        let Ok(environment) = self.computed(false).await else { return Sessions::Unknown };
        let (own, app) = (self.pgappname("soloist-agent"), self.pgappname("soloist"));
        database::sessions(&environment, &own, &app, &self.config.known_sessions).await
    }
}

impl NocoBaseProfile {
    /// Who is connected to the app's database.
    pub(in crate::profile) async fn connected(&self) -> Result<Connected, String> {
        let environment = self.computed(false).await.map_err(|error| error.to_string())?;
        let own = self.pgappname("soloist-agent");
        database::connected(&environment, &own, &self.node.node, &self.config.known_sessions).await
    }
}

fn grace(worker_mode: &str) -> Duration {
    match worker_mode {
        // `!` serves requests only, and `-` does nothing by itself.
        "" | "!" | "-" => GRACE,
        _ => GRACE_WORKER,
    }
}

/// What is unfinished in the database of an app with these settings.
///
/// # Errors
/// When the database cannot be read; the reason is for people.
pub async fn unfinished(vars: BTreeMap<String, String>, session: &str) -> Result<Unfinished, String> {
    let environment = Environment::of(vars, "/".into(), None).map_err(|error| error.to_string())?;
    database::unfinished(&environment, session).await
}

/// How many sessions in the database of an app with these settings may be the app's, which names them `app`.
///
/// # Errors
/// When the settings name no database.
pub async fn sessions(
    vars: BTreeMap<String, String>,
    session: &str,
    app: &str,
    known: &[String],
) -> Result<Sessions, String> {
    let environment = Environment::of(vars, "/".into(), None).map_err(|error| error.to_string())?;
    Ok(database::sessions(&environment, session, app, known).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_have_longer() {
        assert_eq!((grace(""), grace("!")), (GRACE, GRACE));
        assert_eq!((grace("*"), grace("workflow:process,plugin")), (GRACE_WORKER, GRACE_WORKER));
    }
}
