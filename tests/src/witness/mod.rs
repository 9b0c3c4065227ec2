//! The second witness: who has sessions in the fleet's database, asked of PostgreSQL itself.
//!
//! The process monitor sees processes of one machine; this one sees what reaches the data, from wherever. Both count time from
//! an [`Instant`], so [`agreement`] can hold one against the other.
//!
//! It connects to the maintenance database, never to the fleet's: a session there would be in the way of a restore that drops
//! it, and would be one more session that nobody can explain.

pub mod agreement;
mod sightings;

pub use agreement::{Disagreement, Tolerance, disagreements};
pub use sightings::{Sessions, Sightings};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio_postgres::{Client, Config, NoTls};

use sightings::Watch;

/// An answer that takes longer is no answer: the witness is blind until the next one.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

const QUESTION: &str = "select application_name, count(*) from pg_stat_activity \
     where datname = $1 and backend_type = 'client backend' group by application_name";

/// Where and how often the witness looks.
#[derive(Debug, Clone)]
pub struct WitnessOptions {
    /// How to reach the server, as an account that sees all sessions: `host=… port=… user=… dbname=postgres`.
    pub server: String,
    /// The fleet's database.
    pub database: String,
    /// The time from one look to the next.
    pub period: Duration,
}

impl WitnessOptions {
    /// Every 20 ms, on a server on this machine that trusts the user postgres.
    #[must_use]
    pub fn local(port: u16, database: impl Into<String>) -> Self {
        Self {
            server: format!("host=127.0.0.1 port={port} user=postgres dbname=postgres"),
            database: database.into(),
            period: Duration::from_millis(20),
        }
    }
}

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    stop: AtomicBool,
    watch: Mutex<Watch>,
}

impl Shared {
    fn watch(&self) -> MutexGuard<'_, Watch> {
        // Every change is complete in itself.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A running witness. Dropped without [`DatabaseWitness::stop`] it ends by itself.
#[derive(Debug)]
pub struct DatabaseWitness {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl DatabaseWitness {
    /// Starts to watch on a thread of its own. A server that does not answer (yet) leaves it blind, which is recorded.
    ///
    /// # Errors
    /// When `server` is no valid description of a server, or the thread cannot be started.
    pub fn start(options: WitnessOptions) -> anyhow::Result<Self> {
        let mut config: Config =
            options.server.parse().context("cannot understand how to reach the server")?;
        config.application_name("witness").connect_timeout(ANSWER_WITHIN);
        let shared =
            Arc::new(Shared { epoch: Instant::now(), stop: AtomicBool::new(false), watch: Mutex::default() });
        let watched = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("database-witness".to_owned()).spawn(move || {
            runtime.block_on(async {
                while !watched.stopped() {
                    // An error means blind, and that is in the recording; try again.
                    let _ = look(&watched, &config, &options).await;
                    tokio::time::sleep(options.period).await;
                }
            });
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The instant from which the sightings count.
    #[must_use]
    pub fn epoch(&self) -> Instant {
        self.shared.epoch
    }

    /// What was seen so far.
    #[must_use]
    pub fn so_far(&self) -> Sightings {
        self.shared.watch().sightings(self.shared.epoch, self.shared.epoch.elapsed())
    }

    /// Ends the watch and returns what was seen.
    #[must_use]
    pub fn stop(mut self) -> Sightings {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread shows as blindness up to the end.
            let _ = thread.join();
        }
    }
}

impl Drop for DatabaseWitness {
    fn drop(&mut self) {
        self.end();
    }
}

/// Looks until told to stop, or until the connection breaks.
async fn look(shared: &Shared, config: &Config, options: &WitnessOptions) -> anyhow::Result<()> {
    let (client, connection) = tokio::time::timeout(ANSWER_WITHIN, config.connect(NoTls)).await??;
    // The connection ends with the client; its error is the error of the question.
    let connection = tokio::spawn(connection);
    let result = look_with(shared, &client, options).await;
    drop(client);
    if tokio::time::timeout(ANSWER_WITHIN, connection).await.is_err() {
        anyhow::bail!("the connection does not end");
    }
    result
}

async fn look_with(shared: &Shared, client: &Client, options: &WitnessOptions) -> anyhow::Result<()> {
    let question = tokio::time::timeout(ANSWER_WITHIN, client.prepare(QUESTION)).await??;
    let mut ticks = tokio::time::interval(options.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.stopped() {
        ticks.tick().await;
        let rows =
            tokio::time::timeout(ANSWER_WITHIN, client.query(&question, &[&options.database])).await??;
        let mut seen = BTreeMap::new();
        for row in rows {
            let application: String = row.try_get::<_, Option<String>>(0)?.unwrap_or_default();
            let count: i64 = row.try_get(1)?;
            seen.insert(application, usize::try_from(count).unwrap_or(0));
        }
        shared.watch().sample(shared.epoch.elapsed(), &seen);
    }
    Ok(())
}
