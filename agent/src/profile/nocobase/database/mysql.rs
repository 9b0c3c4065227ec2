//! MySQL and MariaDB.
//!
//! Sessions of strangers are not told: the app's driver gives its sessions no name there, so nobody can say whose a session is.
//! An app that was started by hand on a host with an agent is found among the processes all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder};
use soloist_core::assignment::DatabaseFacts;
use soloist_core::evidence::{APP_PREFIX, Naming, Sessions as Connected, session_name};
use soloist_core::ids::{NodeId, Version};
use soloist_core::preflight::Release;
use tokio::time::{sleep, timeout};

use super::work::{Names, Row, tables};
use super::{GOODBYE, Kind, PLUGINS_MAX, Told, package_column, table_name};
use crate::profile::Survey;
use crate::profile::nocobase::environment::Environment;
use crate::work::Unfinished;

const IDENTITY: &str = "show variables where variable_name in ('server_uuid', 'server_uid', 'hostname')";

/// Reads the facts.
pub(super) async fn read(environment: &Environment, name: &str, place: &str) -> Result<Told, String> {
    let mut session = open(environment, name).await.map_err(|error| error.to_string())?;
    let facts = ask(&mut session, environment, place).await;
    close(session).await;
    facts.map(|facts| (facts, Vec::new())).map_err(|error| error.to_string())
}

/// Reads what preflight asks beside the facts.
pub(super) async fn survey(environment: &Environment, name: &str) -> Result<Survey, String> {
    let mut session = open(environment, name).await.map_err(|error| error.to_string())?;
    let found = look_around(&mut session, environment).await;
    close(session).await;
    found.map_err(|error| error.to_string())
}

/// Reads what is unfinished in the whole fleet.
pub(super) async fn unfinished(environment: &Environment, name: &str) -> Result<Unfinished, String> {
    let mut session = open(environment, name).await.map_err(|error| error.to_string())?;
    let found = look_for_work(&mut session, environment).await;
    close(session).await;
    found.map_err(|error| error.to_string())
}

async fn look_for_work(
    session: &mut Conn,
    environment: &Environment,
) -> Result<Unfinished, mysql_async::Error> {
    let columns = "select table_name, column_name from information_schema.columns \
                   where table_schema = database() and table_name in (?, ?, ?, ?, ?)";
    let [a, b, c, d, e] = tables(environment);
    let rows: Vec<(String, String)> = session.exec(columns, (a, b, c, d, e)).await?;
    let names = Names::new(environment, Kind::Mysql, rows.into_iter());
    let mut found = Unfinished::default();
    if let Some(query) = names.executions() {
        let rows: Vec<Row> = session.query(query).await?;
        found.executions = rows.into_iter().map(Into::into).collect();
    }
    if let Some(query) = names.tasks() {
        let rows: Vec<Row> = session.query(query).await?;
        found.tasks = rows.into_iter().map(Into::into).collect();
    }
    Ok(found)
}

async fn open(environment: &Environment, name: &str) -> Result<Conn, mysql_async::Error> {
    let options = OptsBuilder::default()
        .ip_or_hostname(environment.get("DB_HOST"))
        .tcp_port(environment.get("DB_PORT").parse().unwrap_or(3306))
        .user(Some(environment.get("DB_USER")))
        .pass(Some(environment.get("DB_PASSWORD")))
        .db_name(Some(environment.get("DB_DATABASE")))
        // For whoever looks at the sessions: performance_schema.session_connect_attrs has it.
        .connect_attributes([("program_name".to_owned(), name.to_owned())].into())
        // The app comes over the network too, and so finds the same server.
        .prefer_socket(false);
    Conn::new(options).await
}

async fn close(session: Conn) {
    // The session ends with its connection in any case.
    let _ = timeout(GOODBYE, session.disconnect()).await;
}

async fn ask(
    session: &mut Conn,
    environment: &Environment,
    place: &str,
) -> Result<DatabaseFacts, mysql_async::Error> {
    let table = table_name(environment, "applicationVersion", "application_version");
    let variables: BTreeMap<String, String> = session.query(IDENTITY).await?.into_iter().collect();
    let mut identity = match server_id(&variables) {
        Some(id) => format!("{id}/{}", environment.get("DB_DATABASE")),
        None => place.to_owned(),
    };
    let prefix = environment.get("DB_TABLE_PREFIX");
    if !prefix.is_empty() {
        identity = format!("{identity}/{prefix}");
    }
    let query = "select count(*), count(case when table_name = ? then 1 end) from information_schema.tables \
                 where table_schema = database()";
    let (count, installed): (u64, u64) = session.exec_first(query, (&table,)).await?.unwrap_or_default();
    let version = if installed > 0 {
        let query = format!("select value from {} limit 1", quote(&table));
        session.query_first::<Option<String>, _>(query).await?.flatten().map(Version)
    } else {
        None
    };
    Ok(DatabaseFacts { identity, version, empty: count == 0 })
}

/// Sessions of the app's own login in its database, with the name of the program that each gave; and whether the server keeps such
/// names at all.
const CONNECTED: &str = "select p.id, a.attr_value, p.id = connection_id() from information_schema.processlist p \
     left join performance_schema.session_account_connect_attrs a \
     on a.processlist_id = p.id and a.attr_name = 'program_name' \
     where p.db = database() and p.user = substring_index(user(), '@', 1)";

/// Sessions and their names are not looked at in one moment: one that begins or ends just then may seem to have none. Between two
/// looks, of which both must say so.
const AGAIN: Duration = Duration::from_millis(100);

/// Who is connected by this node's login. The app gives its sessions no name; whatever an agent runs does.
pub(super) async fn connected(
    environment: &Environment,
    name: &str,
    node: &NodeId,
) -> Result<Connected, String> {
    let mut session = open(environment, name).await.map_err(|error| error.to_string())?;
    let looks = async {
        let first: Vec<Seen> = session.query(CONNECTED).await?;
        sleep(AGAIN).await;
        Ok((first, session.query(CONNECTED).await?))
    };
    let looks: Result<(Vec<Seen>, Vec<Seen>), mysql_async::Error> = looks.await;
    close(session).await;
    let (first, second) = looks.map_err(|error| error.to_string())?;
    if !second.iter().any(|(_, program, own)| *own && program.is_some()) {
        return Err("the server keeps no names of programs (performance_schema is off), so that sessions of apps and of agents \
                    cannot be told apart"
            .into());
    }
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    for (id, program, own) in second {
        let nameless = |(other, program, _): &Seen| *other == id && program.is_none();
        let name = match program {
            _ if own => continue,
            Some(program) if program.starts_with(APP_PREFIX) => program,
            Some(program) => format!("{APP_PREFIX}program-{program}"),
            None if first.iter().any(nameless) => session_name(node),
            None => continue,
        };
        *names.entry(name).or_default() += 1;
    }
    Ok(Connected { login: environment.get("DB_USER").to_owned(), naming: Naming::Login, names })
}

/// A session: its number, the name of its program, and whether it is the one that asks.
type Seen = (u64, Option<String>, bool);

/// What tells a server from any other. MySQL's is random and kept with the data. MariaDB makes its own of the port and the
/// network card, which are alike in containers of several hosts: the host's name belongs to it.
fn server_id(variables: &BTreeMap<String, String>) -> Option<String> {
    let get = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    match (get("server_uuid"), get("server_uid"), get("hostname")) {
        (Some(id), _, _) => Some(id.clone()),
        (None, Some(id), Some(host)) => Some(format!("{host}/{id}")),
        // An older MariaDB has none: the address must do.
        _ => None,
    }
}

async fn look_around(session: &mut Conn, environment: &Environment) -> Result<Survey, mysql_async::Error> {
    let text: String = session.query_first("select version()").await?.unwrap_or_default();
    let product = if text.contains("MariaDB") { "MariaDB" } else { "MySQL" };
    let major = text.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    let plugins = table_name(environment, "applicationPlugins", "application_plugins");
    let apps = table_name(environment, "applications", "applications");
    let there = "select count(*) from information_schema.tables where table_schema = database() and table_name in (?, ?)";
    let found: Option<u64> = session.exec_first(there, (&plugins, &apps)).await?;
    let sub_apps: Option<u64> = if found == Some(2) {
        let (apps, plugins) = (quote(&apps), quote(&plugins));
        let query = format!(
            "select count(*) from {apps} where exists (select 1 from {plugins} where enabled and name = 'multi-app-manager')"
        );
        session.query_first(query).await?
    } else {
        None
    };
    let server = Release { product: product.into(), text, major };
    Ok(Survey { server, sub_apps: sub_apps.unwrap_or(0) })
}

/// Package names of the enabled plugins.
pub(super) async fn enabled(environment: &Environment, name: &str) -> Result<BTreeSet<String>, String> {
    let mut session = open(environment, name).await.map_err(|error| error.to_string())?;
    let found = enabled_in(&mut session, environment).await;
    close(session).await;
    found.map_err(|error| error.to_string())
}

async fn enabled_in(
    session: &mut Conn,
    environment: &Environment,
) -> Result<BTreeSet<String>, mysql_async::Error> {
    let plugins = table_name(environment, "applicationPlugins", "application_plugins");
    let there =
        "select count(*) from information_schema.tables where table_schema = database() and table_name = ?";
    if session.exec_first::<u64, _, _>(there, (&plugins,)).await? != Some(1) {
        return Ok(BTreeSet::new());
    }
    let (plugins, column) = (quote(&plugins), quote(package_column(environment)));
    let query =
        format!("select {column} from {plugins} where enabled and {column} is not null limit {PLUGINS_MAX}");
    Ok(session.query::<String, _>(query).await?.into_iter().collect())
}

/// Notes that a plugin is not enabled.
pub(super) async fn plugin_off(environment: &Environment, name: &str, plugin: &str) -> Result<(), String> {
    let mut session = open(environment, name).await.map_err(|error| error.to_string())?;
    let plugins = quote(&table_name(environment, "applicationPlugins", "application_plugins"));
    let column = quote(package_column(environment));
    let query = format!("update {plugins} set enabled = false where {column} = ? or name = ?");
    let done = session.exec_drop(query, (plugin, plugin)).await;
    close(session).await;
    done.map_err(|error| error.to_string())
}

pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_what_it_has() {
        let of = |pairs: &[(&str, &str)]| {
            server_id(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(of(&[("hostname", "db"), ("server_uuid", "1-2")]).as_deref(), Some("1-2"));
        assert_eq!(of(&[("hostname", "db"), ("server_uid", "x=")]).as_deref(), Some("db/x="));
        assert_eq!(of(&[("hostname", "db")]), None);
        assert_eq!(of(&[]), None);
    }
}
