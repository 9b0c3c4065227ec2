//! PostgreSQL: a node's login role is locked in the transaction that checks the order's number; then its sessions are ended until
//! none is found.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use soloist_core::agent::{is_done, may_act};
use soloist_core::fence::FenceOrder;
use soloist_core::ids::{Generation, NodeId};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use super::config::DatabaseFenceConfig;
use super::{DEADLINE, EMPTY_FOR, Fence};
use crate::profile::nocobase::session_name;

/// Where the numbers are kept: in a database of the fence's own, which no restore of the app's touches.
const TABLE: &str = "create table soloist_fence (role text primary key, generation bigint not null, \
     up boolean not null, seen boolean not null default false)";

/// A node's login role.
#[derive(Debug)]
pub(super) struct PostgresFence {
    config: DatabaseFenceConfig,
    /// How the node's app names its sessions.
    application: String,
    role: String,
    /// Since when nobody was seen inside.
    empty_since: Option<Instant>,
}

impl PostgresFence {
    pub(super) fn new(config: DatabaseFenceConfig, node: &NodeId, role: String) -> Self {
        Self { config, application: session_name("soloist", node), role, empty_since: None }
    }

    async fn look(&self) -> Result<(), String> {
        let mut session = open(&self.config).await?;
        let client = &mut session.client;
        let role = client
            .query_opt(
                "select rolsuper, rolcreaterole, rolcanlogin from pg_roles where rolname = $1",
                &[&self.role],
            )
            .await
            .map_err(|error| describe(&error))?
            .ok_or_else(|| format!("there is no role {} at the server", self.role))?;
        if role.get::<_, bool>(0) || role.get::<_, bool>(1) {
            return Err(format!(
                "role {} is a superuser or may create roles: it could let itself in again",
                self.role
            ));
        }
        self.permitted(client, role.get(2)).await?;
        self.used(client).await
    }

    /// Whether this login may lock the role and end its sessions: tried, and taken back.
    async fn permitted(&self, client: &mut Client, can_login: bool) -> Result<(), String> {
        let trial = client.transaction().await.map_err(|error| describe(&error))?;
        let tried = trial.batch_execute(&alter(&self.role, can_login)).await;
        let taken_back = trial.rollback().await;
        tried.map_err(|error| format!("the fence may not lock role {}: {}", self.role, describe(&error)))?;
        taken_back.map_err(|error| describe(&error))?;
        let may = "select pg_has_role(current_user, $1::text, 'usage') or pg_has_role(current_user, 'pg_signal_backend', 'usage')";
        let row = client.query_one(may, &[&self.role]).await.map_err(|error| describe(&error))?;
        if row.get(0) { Ok(()) } else { Err(format!("the fence may not end sessions of role {}", self.role)) }
    }

    /// Whether the node's app truly signs in with the role, directly: its sessions carry its name.
    async fn used(&self, client: &Client) -> Result<(), String> {
        let others = "select usename::text from pg_stat_activity where datname = $1 and application_name = $2 and usename <> $3 limit 1";
        let asked: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&self.config.app_database, &self.application, &self.role];
        if let Some(row) = client.query_opt(others, &asked).await.map_err(|error| describe(&error))? {
            let other: String = row.get(0);
            return Err(format!("its app signs in as {other}, not as {}: set DB_USER there", self.role));
        }
        let own = "select count(*) from pg_stat_activity where datname = $1 and application_name = $2 and usename = $3";
        let row = client.query_one(own, &asked).await.map_err(|error| describe(&error))?;
        if row.get::<_, i64>(0) > 0 {
            let note = "insert into soloist_fence (role, generation, up, seen) values ($1, 0, false, true) \
                 on conflict (role) do update set seen = true where not soloist_fence.seen";
            client.execute(note, &[&self.role]).await.map_err(|error| describe(&error))?;
            return Ok(());
        }
        let before = "select seen from soloist_fence where role = $1";
        let row = client.query_opt(before, &[&self.role]).await.map_err(|error| describe(&error))?;
        match row.is_some_and(|row| row.get(0)) {
            true => Ok(()),
            false => Err(format!(
                "its app was never seen to sign in as {}: set DB_USER there, and start it",
                self.role
            )),
        }
    }

    async fn act(&mut self, order: &FenceOrder) -> Result<bool, String> {
        let mut session = open(&self.config).await?;
        let client = &mut session.client;
        self.lock(client, order).await?;
        let inside = if order.up { self.turn_out(client).await? } else { 0 };
        let found = client
            .query_one("select rolcanlogin from pg_roles where rolname = $1", &[&self.role])
            .await
            .map_err(|error| describe(&error))?;
        let locked = !found.get::<_, bool>(0);
        let done = is_done(order, locked, inside);
        if !done || !order.up {
            self.empty_since = None;
            return Ok(done);
        }
        Ok(self.empty_since.get_or_insert_with(Instant::now).elapsed() >= EMPTY_FOR)
    }

    /// The check of the number and what it permits, in one transaction.
    async fn lock(&self, client: &mut Client, order: &FenceOrder) -> Result<(), String> {
        let number =
            i64::try_from(order.generation.0).map_err(|_| "the order's number is too large".to_owned())?;
        let change = client.transaction().await.map_err(|error| describe(&error))?;
        let work = async {
            let make = "insert into soloist_fence (role, generation, up) values ($1, 0, false) on conflict (role) do nothing";
            change.execute(make, &[&self.role]).await?;
            let last = "select generation from soloist_fence where role = $1 for update";
            let last: i64 = change.query_one(last, &[&self.role]).await?.get(0);
            let known = Generation(u64::try_from(last).unwrap_or(0));
            if !may_act(Some(known), order) {
                return Ok::<_, tokio_postgres::Error>(Err(known));
            }
            let as_it_is = "select rolcanlogin from pg_roles where rolname = $1";
            let can_login: bool = change.query_one(as_it_is, &[&self.role]).await?.get(0);
            if known != order.generation || can_login == order.up {
                let note = "update soloist_fence set generation = $2, up = $3 where role = $1";
                change.execute(note, &[&self.role, &number, &order.up]).await?;
                change.batch_execute(&alter(&self.role, !order.up)).await?;
            }
            Ok(Ok(()))
        };
        match work.await.map_err(|error| describe(&error))? {
            Ok(()) => change.commit().await.map_err(|error| describe(&error)),
            Err(known) => {
                drop(change.rollback().await);
                Err(format!("order {} comes too late: {known} was carried out here", order.generation))
            }
        }
    }

    /// Ends the role's sessions; how many there were.
    async fn turn_out(&self, client: &Client) -> Result<usize, String> {
        let end = "select pid, pg_terminate_backend(pid) from pg_stat_activity where usename = $1 and pid <> pg_backend_pid()";
        let ended = client.query(end, &[&self.role]).await.map_err(|error| describe(&error))?;
        Ok(ended.len())
    }
}

impl Fence for PostgresFence {
    fn arm(&mut self) -> BoxFuture<'_, Result<(), String>> {
        async move { self.look().await }.boxed()
    }

    fn carry<'a>(&'a mut self, order: &'a FenceOrder) -> BoxFuture<'a, Result<bool, String>> {
        self.act(order).boxed()
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }
}

fn alter(role: &str, can_login: bool) -> String {
    let quoted = role.replace('"', "\"\"");
    format!("alter role \"{quoted}\" {}", if can_login { "login" } else { "nologin" })
}

/// An open session; its task ends with it, also in the middle of a query.
struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn open(config: &DatabaseFenceConfig) -> Result<Session, String> {
    let mut options: tokio_postgres::Config =
        config.server.parse().map_err(|error| format!("server in [fences.database]: {error}"))?;
    let password = super::password(&config.password_file)?;
    options.password(password).application_name("soloist-fence").connect_timeout(DEADLINE);
    let (client, connection) = options.connect(NoTls).await.map_err(|error| describe(&error))?;
    let driver = tokio::spawn(async move {
        // Its error is the error of the query that waits for it.
        let _ = connection.await;
    });
    let session = Session { client, driver };
    let there = "select to_regclass('soloist_fence') is not null";
    let there: bool = session.client.query_one(there, &[]).await.map_err(|error| describe(&error))?.get(0);
    if !there {
        session.client.batch_execute(TABLE).await.map_err(|error| describe(&error))?;
    }
    Ok(session)
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => said.message().to_owned(),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}
