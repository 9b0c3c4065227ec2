//! PostgreSQL.

use std::collections::BTreeSet;

use soloist_core::assignment::{DatabaseFacts, DbSession};
use soloist_core::evidence::{Naming, Sessions as Connected};
use soloist_core::ids::Version;
use soloist_core::preflight::Release;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use super::work::{Names, Row, tables};
use super::{DEADLINE, GOODBYE, Kind, PLUGINS_MAX, SESSIONS_MAX, Told, package_column, table_name};
use crate::profile::Survey;
use crate::profile::nocobase::environment::Environment;
use crate::work::Unfinished;

/// Sessions of the app's own role in the app's database that carry neither a name that Soloist gives (`soloist-…`, on every
/// node) nor a known one. An app that somebody starts elsewhere signs in with this role; sessions of other roles are
/// not those of an app, and their names would not be visible to it.
const STRANGERS: &str = "select pid, usename::text, coalesce(host(client_addr), 'local'), coalesce(application_name, '') \
     from pg_stat_activity where datname = current_database() and usename = session_user \
     and backend_type = 'client backend' and pid <> pg_backend_pid() \
     and application_name not like 'soloist-%' and not application_name = any($1) order by backend_start limit $2";

/// Reads the facts.
pub(super) async fn read(
    environment: &Environment,
    name: &str,
    known: &[String],
    place: &str,
) -> Result<Told, String> {
    let work = async {
        let session = open(environment, name).await?;
        let told = ask(&session.client, environment, known, place).await;
        session.close().await;
        told
    };
    work.await.map_err(|error| describe(&error))
}

/// An open session. Without a goodbye, its task ends with it, also in the middle of a query.
struct Session {
    client: Client,
    driver: Closed,
}

impl Session {
    /// Says goodbye to the server.
    async fn close(self) {
        let Session { client, mut driver } = self;
        // Without its client the connection says goodbye and ends.
        drop(client);
        let _ = timeout(GOODBYE, &mut driver.0).await;
    }
}

async fn open(environment: &Environment, name: &str) -> Result<Session, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(environment.get("DB_HOST"))
        .user(environment.get("DB_USER"))
        .dbname(environment.get("DB_DATABASE"));
    config.password(environment.get("DB_PASSWORD")).application_name(name).connect_timeout(DEADLINE);
    config.port(environment.get("DB_PORT").parse().unwrap_or(5432));
    let (client, connection) = config.connect(NoTls).await?;
    let driver = Closed(tokio::spawn(async move {
        // Its error is the error of the query that waits for it.
        let _ = connection.await;
    }));
    let session = Session { client, driver };
    // Where each node signs in with a role of its own and acts as the owner of the data (docs/fences.md), only the role itself sees
    // its own sessions.
    session.client.batch_execute("set role none").await?;
    Ok(session)
}

/// Reads what preflight asks beside the facts.
pub(super) async fn survey(environment: &Environment, name: &str) -> Result<Survey, String> {
    let work = async {
        let session = open(environment, name).await?;
        let found = look_around(&session.client, environment).await;
        session.close().await;
        found
    };
    work.await.map_err(|error| describe(&error))
}

/// Reads what is unfinished in the whole fleet.
pub(super) async fn unfinished(environment: &Environment, name: &str) -> Result<Unfinished, String> {
    let work = async {
        let session = open(environment, name).await?;
        let found = look_for_work(&session.client, environment).await;
        session.close().await;
        found
    };
    work.await.map_err(|error| describe(&error))
}

async fn look_for_work(
    client: &Client,
    environment: &Environment,
) -> Result<Unfinished, tokio_postgres::Error> {
    let columns = "select table_name::text, column_name::text from information_schema.columns \
                   where table_schema = $1 and table_name = any($2)";
    let rows = client.query(columns, &[&schema(environment), &tables(environment).as_slice()]).await?;
    let names = Names::new(environment, Kind::Postgres, rows.iter().map(|row| (row.get(0), row.get(1))));
    let mut found = Unfinished::default();
    if let Some(query) = names.executions() {
        found.executions = client.query(&query, &[]).await?.iter().map(|row| of(row).into()).collect();
    }
    if let Some(query) = names.tasks() {
        found.tasks = client.query(&query, &[]).await?.iter().map(|row| of(row).into()).collect();
    }
    Ok(found)
}

fn of(row: &tokio_postgres::Row) -> Row {
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

/// Sessions that are the app's by their name, or perhaps its: of its role, with no name of Soloist's and no known one.
const SESSIONS: &str = "select count(*) from pg_stat_activity where datname = current_database() and usename = session_user \
     and backend_type = 'client backend' and pid <> pg_backend_pid() and (application_name = $1 \
     or application_name not like 'soloist-%' and not application_name = any($2))";

/// Counts the sessions of the app that names them `app`.
pub(super) async fn sessions(
    environment: &Environment,
    name: &str,
    app: &str,
    known: &[String],
) -> Result<u64, String> {
    let work = async {
        let session = open(environment, name).await?;
        let counted = session.client.query_one(SESSIONS, &[&app, &known]).await;
        session.close().await;
        counted.map(|row| u64::try_from(row.get::<_, i64>(0)).unwrap_or(u64::MAX))
    };
    work.await.map_err(|error| describe(&error))
}

/// The sessions that the app's own login may see, by name. Those of other logins would have none.
const CONNECTED: &str = "select coalesce(application_name, ''), count(*) from pg_stat_activity \
     where datname = current_database() and usename = session_user and backend_type = 'client backend' \
     and pid <> pg_backend_pid() and not coalesce(application_name, '') = any($1) group by 1";

/// Who is connected.
pub(super) async fn connected(
    environment: &Environment,
    name: &str,
    known: &[String],
) -> Result<Connected, String> {
    let work = async {
        let session = open(environment, name).await?;
        let found = session.client.query(CONNECTED, &[&known]).await;
        session.close().await;
        found
    };
    let rows = work.await.map_err(|error| describe(&error))?;
    let count = |row: &tokio_postgres::Row| u32::try_from(row.get::<_, i64>(1)).unwrap_or(u32::MAX);
    let names = rows.iter().map(|row| (row.get(0), count(row))).collect();
    Ok(Connected { login: environment.get("DB_USER").to_owned(), naming: Naming::Application, names })
}

async fn look_around(client: &Client, environment: &Environment) -> Result<Survey, tokio_postgres::Error> {
    let row = client
        .query_one(
            "select current_setting('server_version'), current_setting('server_version_num')::int / 10000",
            &[],
        )
        .await?;
    let server = Release {
        product: "PostgreSQL".into(),
        text: row.get(0),
        major: u32::try_from(row.get::<_, i32>(1)).unwrap_or(0),
    };
    let plugins = table(environment, "applicationPlugins", "application_plugins");
    let apps = table(environment, "applications", "applications");
    let there = "select to_regclass($1) is not null and to_regclass($2) is not null";
    let sub_apps = if client.query_one(there, &[&plugins, &apps]).await?.get(0) {
        let query = format!(
            "select count(*) from {apps} where exists (select 1 from {plugins} where enabled and name = 'multi-app-manager')"
        );
        client.query_one(&query, &[]).await?.get::<_, i64>(0)
    } else {
        0
    };
    Ok(Survey { server, sub_apps: u64::try_from(sub_apps).unwrap_or(0) })
}

/// Package names of the enabled plugins.
pub(super) async fn enabled(environment: &Environment, name: &str) -> Result<BTreeSet<String>, String> {
    let work = async {
        let session = open(environment, name).await?;
        let found = enabled_in(&session.client, environment).await;
        session.close().await;
        found
    };
    work.await.map_err(|error| describe(&error))
}

async fn enabled_in(
    client: &Client,
    environment: &Environment,
) -> Result<BTreeSet<String>, tokio_postgres::Error> {
    let plugins = table(environment, "applicationPlugins", "application_plugins");
    if !client.query_one("select to_regclass($1) is not null", &[&plugins]).await?.get::<_, bool>(0) {
        return Ok(BTreeSet::new());
    }
    let column = quote(package_column(environment));
    let query = format!(
        "select {column}::text from {plugins} where enabled and {column} is not null limit {PLUGINS_MAX}"
    );
    let rows = client.query(&query, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Notes that a plugin is not enabled.
pub(super) async fn plugin_off(environment: &Environment, name: &str, plugin: &str) -> Result<(), String> {
    let work = async {
        let session = open(environment, name).await?;
        let plugins = table(environment, "applicationPlugins", "application_plugins");
        let column = quote(package_column(environment));
        let query = format!("update {plugins} set enabled = false where {column} = $1 or name = $1");
        let done = session.client.execute(&query, &[&plugin]).await;
        session.close().await;
        done
    };
    work.await.map(drop).map_err(|error| describe(&error))
}

/// A table of NocoBase with its schema, quoted.
fn table(environment: &Environment, name: &str, underscored: &str) -> String {
    format!("{}.{}", quote(schema(environment)), quote(&table_name(environment, name, underscored)))
}

pub(super) fn schema(environment: &Environment) -> &str {
    Some(environment.get("DB_SCHEMA")).filter(|schema| !schema.is_empty()).unwrap_or("public")
}

/// Ends the connection's task with its user, also in the middle of a query.
struct Closed(tokio::task::JoinHandle<()>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ask(
    client: &Client,
    environment: &Environment,
    known: &[String],
    place: &str,
) -> Result<Told, tokio_postgres::Error> {
    let schema = schema(environment);
    let prefix = environment.get("DB_TABLE_PREFIX");
    let table = table_name(environment, "applicationVersion", "application_version");
    let mut identity =
        match client.query_one("select system_identifier::text from pg_control_system()", &[]).await {
            Ok(row) => format!("{}/{}", row.get::<_, String>(0), environment.get("DB_DATABASE")),
            // Not permitted to this role: the address must do.
            Err(error) if error.as_db_error().is_some() => place.to_owned(),
            Err(error) => return Err(error),
        };
    if schema != "public" || !prefix.is_empty() {
        identity = format!("{identity}/{schema}/{prefix}");
    }
    let tables = "select count(*), coalesce(bool_or(c.relname = $2), false) from pg_class c \
                  join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relkind in ('r', 'p')";
    let row = client.query_one(tables, &[&schema, &table]).await?;
    let (count, installed): (i64, bool) = (row.get(0), row.get(1));
    let version = if installed {
        let query = format!("select value::text from {}.{} limit 1", quote(schema), quote(&table));
        client.query_opt(&query, &[]).await?.and_then(|row| row.get::<_, Option<String>>(0)).map(Version)
    } else {
        None
    };
    let rows = client.query(STRANGERS, &[&known, &SESSIONS_MAX]).await?;
    let sessions = rows.iter().map(|row| DbSession {
        pid: row.get::<_, i32>(0).cast_unsigned(),
        role: row.get(1),
        client: row.get(2),
        application: row.get(3),
    });
    Ok((DatabaseFacts { identity, version, empty: count == 0 }, sessions.collect()))
}

pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An error with its causes; the library's own text often is only "db error".
fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
