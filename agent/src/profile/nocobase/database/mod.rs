//! What the database says, read by the agent itself: also while no app runs.

mod mysql;
mod postgres;
mod work;

use std::collections::BTreeSet;
use std::time::Duration;

use soloist_core::assignment::{DatabaseFacts, DbSession};
use soloist_core::evidence::Sessions as Connected;
use soloist_core::ids::NodeId;
use tokio::time::timeout;

use super::environment::Environment;
use crate::let_go::Sessions;
use crate::profile::Survey;
use crate::work::Unfinished;

/// How long connecting and reading may take together.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long the server may take to hear that the session ends.
const GOODBYE: Duration = Duration::from_millis(500);
/// Most sessions of strangers that are told: one is enough to block.
const SESSIONS_MAX: i64 = 4;

/// Most plugins that are read.
const PLUGINS_MAX: usize = 1000;

/// What the database says: about itself, and which sessions belong to no node.
type Told = (DatabaseFacts, Vec<DbSession>);

/// Kinds of databases that can be read.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Postgres,
    /// MySQL or MariaDB: for reading they are alike.
    Mysql,
}

/// Reads the facts; the reason of an error is for people. The session is closed again: an open one would count as
/// somebody who still uses the database.
pub(super) async fn facts(
    environment: &Environment,
    application_name: &str,
    known: &[String],
) -> Result<Told, String> {
    let (kind, place) = reachable(environment)?;
    match kind {
        Kind::Postgres => bounded(&place, postgres::read(environment, application_name, known, &place)).await,
        Kind::Mysql => bounded(&place, mysql::read(environment, application_name, &place)).await,
    }
}

/// Reads what preflight asks beside the facts.
pub(super) async fn survey(environment: &Environment, application_name: &str) -> Result<Survey, String> {
    let (kind, place) = reachable(environment)?;
    match kind {
        Kind::Postgres => bounded(&place, postgres::survey(environment, application_name)).await,
        Kind::Mysql => bounded(&place, mysql::survey(environment, application_name)).await,
    }
}

/// Package names of the plugins that the database says are enabled; none before an install.
pub(super) async fn enabled(
    environment: &Environment,
    application_name: &str,
) -> Result<BTreeSet<String>, String> {
    let (kind, place) = reachable(environment)?;
    match kind {
        Kind::Postgres => bounded(&place, postgres::enabled(environment, application_name)).await,
        Kind::Mysql => bounded(&place, mysql::enabled(environment, application_name)).await,
    }
}

/// Notes that a plugin, by its package's name, is not enabled.
pub(super) async fn plugin_off(
    environment: &Environment,
    application_name: &str,
    plugin: &str,
) -> Result<(), String> {
    let (kind, place) = reachable(environment)?;
    match kind {
        Kind::Postgres => bounded(&place, postgres::plugin_off(environment, application_name, plugin)).await,
        Kind::Mysql => bounded(&place, mysql::plugin_off(environment, application_name, plugin)).await,
    }
}

/// Reads what is unfinished in the whole fleet.
pub(super) async fn unfinished(
    environment: &Environment,
    application_name: &str,
) -> Result<Unfinished, String> {
    let (kind, place) = reachable(environment)?;
    match kind {
        Kind::Postgres => bounded(&place, postgres::unfinished(environment, application_name)).await,
        Kind::Mysql => bounded(&place, mysql::unfinished(environment, application_name)).await,
    }
}

/// How many sessions may be those of the app that names them `app`.
pub(super) async fn sessions(
    environment: &Environment,
    application_name: &str,
    app: &str,
    known: &[String],
) -> Sessions {
    match reachable(environment) {
        Ok((Kind::Postgres, place)) => {
            let count = bounded(&place, postgres::sessions(environment, application_name, app, known)).await;
            count.map_or(Sessions::Unknown, Sessions::Count)
        }
        Ok((Kind::Mysql, _)) => Sessions::Nameless,
        Err(_) => Sessions::Unknown,
    }
}

/// Who is connected.
pub(super) async fn connected(
    environment: &Environment,
    application_name: &str,
    node: &NodeId,
    known: &[String],
) -> Result<Connected, String> {
    let (kind, place) = reachable(environment)?;
    match kind {
        Kind::Postgres => bounded(&place, postgres::connected(environment, application_name, known)).await,
        Kind::Mysql => bounded(&place, mysql::connected(environment, application_name, node)).await,
    }
}

/// Which kind of database it is, and where, for people, if this agent can read it at all.
fn reachable(environment: &Environment) -> Result<(Kind, String), String> {
    let kind = match environment.get("DB_DIALECT") {
        "postgres" => Kind::Postgres,
        "mysql" | "mariadb" => Kind::Mysql,
        other => {
            let shown = if other.is_empty() { "none" } else { other };
            return Err(format!(
                "the database dialect {shown} is not supported, only postgres, mysql and mariadb are"
            ));
        }
    };
    if environment
        .vars
        .iter()
        .any(|(key, value)| key.starts_with("DB_DIALECT_OPTIONS_SSL_") && !value.is_empty())
    {
        return Err("the app's settings ask for TLS to the database (DB_DIALECT_OPTIONS_SSL_…), which this agent cannot do yet".into());
    }
    let place = format!(
        "{}:{}/{}",
        environment.get("DB_HOST"),
        environment.get("DB_PORT"),
        environment.get("DB_DATABASE")
    );
    Ok((kind, place))
}

async fn bounded<T>(place: &str, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(DEADLINE, work).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(why)) => Err(format!("the database {place} cannot be read: {why}")),
        Err(_) => Err(format!("the database {place} does not answer within {} s", DEADLINE.as_secs())),
    }
}

/// The column with package names in the table of plugins, as the app's settings have it.
fn package_column(environment: &Environment) -> &'static str {
    if environment.get("DB_UNDERSCORED") == "true" { "package_name" } else { "packageName" }
}

/// A table of NocoBase by its name and the one with underscores, as the app's settings have it.
fn table_name(environment: &Environment, name: &str, underscored: &str) -> String {
    let name = if environment.get("DB_UNDERSCORED") == "true" { underscored } else { name };
    format!("{}{name}", environment.get("DB_TABLE_PREFIX"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::ApiClient;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let vars = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let api = ApiClient::new("http://127.0.0.1:1/api/", None).unwrap();
        Environment { vars, api, processes: 1, folder: "/".into() }
    }

    #[tokio::test]
    async fn reasons_say_what_and_where() {
        let oracle = environment(&[("DB_DIALECT", "oracle")]);
        assert!(facts(&oracle, "x", &[]).await.unwrap_err().contains("oracle is not supported"));
        for dialect in ["postgres", "mariadb"] {
            says_where(dialect).await;
        }
    }

    async fn says_where(dialect: &str) {
        let away = [
            ("DB_DIALECT", dialect),
            ("DB_HOST", "127.0.0.1"),
            ("DB_PORT", "1"),
            ("DB_DATABASE", "d"),
            ("DB_USER", "u"),
            ("DB_PASSWORD", "hush"),
        ];
        let error = facts(&environment(&away), "x", &[]).await.unwrap_err();
        assert!(error.contains("127.0.0.1:1/d") && !error.contains("hush"), "{error}");
    }
}
