//! MySQL and MariaDB: a node's account is locked while a named lock is held in the session that has checked the order's number; then
//! its sessions are ended until none is found.
//!
//! Statements about accounts commit by themselves there, so a transaction cannot hold the check and the change together. The named
//! lock does: it belongs to the session and ends with it, and so does every statement that the session has not begun.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};
use soloist_core::agent::{is_done, may_act};
use soloist_core::fence::FenceOrder;
use soloist_core::ids::Generation;
use tokio::time::{Instant, timeout};

use super::config::DatabaseFenceConfig;
use super::{DEADLINE, EMPTY_FOR, Fence};

/// Where the numbers are kept: in a database of the fence's own, which no restore of the app's touches.
const TABLE: &str = "create table if not exists soloist_fence (role varchar(128) primary key, generation bigint unsigned not null, \
     up boolean not null, seen boolean not null default false)";
/// Name of the lock, and how long it is waited for, in seconds.
const LOCK: &str = "soloist_fence";
const LOCK_SECS: u32 = 5;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);
/// Rights at the whole server with which an account could let itself in again.
const TOO_MUCH: [&str; 4] = ["ALL PRIVILEGES ON *.*", "SUPER", "CREATE USER", "SYSTEM_USER"];

/// A node's account.
#[derive(Debug)]
pub(super) struct MysqlFence {
    config: DatabaseFenceConfig,
    user: String,
    host: String,
    /// Since when nobody was seen inside.
    empty_since: Option<Instant>,
}

impl MysqlFence {
    /// `role` is a user's name, with `@host` unless that is `%`.
    pub(super) fn new(config: DatabaseFenceConfig, role: String) -> Self {
        let (user, host) = role.split_once('@').map_or((role.as_str(), "%"), |parts| parts);
        Self { config, user: user.to_owned(), host: host.to_owned(), empty_since: None }
    }

    fn account(&self) -> String {
        // Neither name holds a quote: see the configuration.
        format!("'{}'@'{}'", self.user, self.host)
    }

    async fn look(&self) -> Result<(), String> {
        let mut session = open(&self.config).await?;
        let result = self.look_in(&mut session).await;
        close(session).await;
        result
    }

    async fn look_in(&self, session: &mut Conn) -> Result<(), String> {
        // What is tried below must not undo what another agent does at this moment.
        self.alone(session).await?;
        let locked = self.is_locked(session).await?;
        let grants: Vec<String> = said(session.query(format!("show grants for {}", self.account())).await)?;
        let everywhere = |grant: &&String| {
            let grant = grant.to_uppercase();
            grant.contains("ON *.*") && TOO_MUCH.iter().any(|right| grant.contains(right))
        };
        if let Some(grant) = grants.iter().find(everywhere) {
            return Err(format!("{} could let itself in again: {grant}", self.account()));
        }
        // Tried as it is: whether this login may do it at all.
        let tried = session.query_drop(self.alter(!locked)).await;
        tried.map_err(|error| format!("the fence may not lock {}: {error}", self.account()))?;
        let inside = "select count(*) from information_schema.processlist where user = ? and db = ?";
        let found: Option<u64> =
            said(session.exec_first(inside, (&self.user, &self.config.app_database)).await)?;
        if found.unwrap_or(0) > 0 {
            let note = "insert into soloist_fence (role, generation, up, seen) values (?, 0, false, true) on duplicate key update seen = true";
            return said(session.exec_drop(note, (self.account(),)).await);
        }
        let before = "select seen from soloist_fence where role = ?";
        let seen: Option<bool> = said(session.exec_first(before, (self.account(),)).await)?;
        match seen {
            Some(true) => Ok(()),
            _ => Err(format!(
                "its app was never seen to sign in as {}: set DB_USER there, and start it",
                self.user
            )),
        }
    }

    /// Takes the named lock, until the session ends.
    async fn alone(&self, session: &mut Conn) -> Result<(), String> {
        let held: Option<Option<u8>> =
            said(session.exec_first("select get_lock(?, ?)", (LOCK, LOCK_SECS)).await)?;
        match held.flatten() {
            Some(1) => Ok(()),
            _ => Err("another agent is at the fence of this server".into()),
        }
    }

    async fn is_locked(&self, session: &mut Conn) -> Result<bool, String> {
        let shown: Option<String> =
            said(session.query_first(format!("show create user {}", self.account())).await)?;
        let shown = shown.ok_or_else(|| format!("there is no account {} at the server", self.account()))?;
        Ok(shown.to_uppercase().contains("ACCOUNT LOCK"))
    }

    fn alter(&self, can_login: bool) -> String {
        format!("alter user {} account {}", self.account(), if can_login { "unlock" } else { "lock" })
    }

    async fn act(&mut self, order: &FenceOrder) -> Result<bool, String> {
        let mut session = open(&self.config).await?;
        let result = self.act_in(&mut session, order).await;
        close(session).await;
        let (locked, inside) = result?;
        let done = is_done(order, locked, inside);
        if !done || !order.up {
            self.empty_since = None;
            return Ok(done);
        }
        Ok(self.empty_since.get_or_insert_with(Instant::now).elapsed() >= EMPTY_FOR)
    }

    async fn act_in(&self, session: &mut Conn, order: &FenceOrder) -> Result<(bool, usize), String> {
        self.alone(session).await?;
        let last = "select generation from soloist_fence where role = ?";
        let last: Option<u64> = said(session.exec_first(last, (self.account(),)).await)?;
        let known = Generation(last.unwrap_or(0));
        if !may_act(Some(known), order) {
            return Err(format!("order {} comes too late: {known} was carried out here", order.generation));
        }
        if known != order.generation || self.is_locked(session).await? != order.up {
            let note = "insert into soloist_fence (role, generation, up) values (?, ?, ?) \
                 on duplicate key update generation = values(generation), up = values(up)";
            said(session.exec_drop(note, (self.account(), order.generation.0, order.up)).await)?;
            said(session.query_drop(self.alter(!order.up)).await)?;
        }
        let inside = if order.up { self.turn_out(session).await? } else { 0 };
        Ok((self.is_locked(session).await?, inside))
    }

    /// Ends the account's sessions; how many there were.
    async fn turn_out(&self, session: &mut Conn) -> Result<usize, String> {
        let inside = "select id from information_schema.processlist where user = ?";
        let inside: Vec<u64> = said(session.exec(inside, (&self.user,)).await)?;
        for id in &inside {
            // It may have ended meanwhile; the next look tells.
            let _ = session.query_drop(format!("kill connection {id}")).await;
        }
        Ok(inside.len())
    }
}

impl Fence for MysqlFence {
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

fn said<T>(result: Result<T, mysql_async::Error>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

async fn open(config: &DatabaseFenceConfig) -> Result<Conn, String> {
    let options =
        Opts::from_url(&config.server).map_err(|error| format!("server in [fences.database]: {error}"))?;
    let password = super::password(&config.password_file)?;
    let options = OptsBuilder::from_opts(options).pass(Some(password)).prefer_socket(false);
    let mut session = said(Conn::new(options).await)?;
    said(session.query_drop(TABLE).await)?;
    Ok(session)
}

async fn close(session: Conn) {
    // The session ends with its connection in any case.
    let _ = timeout(GOODBYE, session.disconnect()).await;
}
