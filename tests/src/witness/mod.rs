//! The second witness: who has sessions in the fleet's database, asked of the server itself.
//!
//! The process monitor sees processes of one machine; this one sees what reaches the data, from wherever. Both count time from
//! an [`Instant`], so [`agreement`] can hold one against the other.
//!
//! It connects to the maintenance database or to none, never to the fleet's: a session there would be in the way of a restore
//! that drops it, and would be one more session that nobody can explain.

pub mod agreement;
mod mariadb;
mod postgres;
mod sightings;

pub use agreement::{Disagreement, Tolerance, disagreements};
pub use sightings::{Sessions, Sightings};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sightings::Watch;

/// An answer that takes longer is no answer: the witness is blind until the next one.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How many sessions there are, by the name that their client gave.
type Counts = BTreeMap<String, usize>;

/// A server on this machine, as deploy/lab starts it, and an account that sees all sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL, which trusts the user postgres.
    Postgres,
    /// MariaDB with its performance schema, in which each node has a login of its own.
    Mariadb,
}

/// Where and how often the witness looks.
#[derive(Debug, Clone)]
pub struct WitnessOptions {
    /// The kind of server.
    pub server: Server,
    /// Its port.
    pub port: u16,
    /// The fleet's database.
    pub database: String,
    /// The time from one look to the next.
    pub period: Duration,
}

impl WitnessOptions {
    /// Every 20 ms.
    #[must_use]
    pub fn new(server: Server, port: u16, database: impl Into<String>) -> Self {
        Self { server, port, database: database.into(), period: Duration::from_millis(20) }
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
    /// When the thread cannot be started.
    pub fn start(options: WitnessOptions) -> anyhow::Result<Self> {
        let shared =
            Arc::new(Shared { epoch: Instant::now(), stop: AtomicBool::new(false), watch: Mutex::default() });
        let watched = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("database-witness".to_owned()).spawn(move || {
            runtime.block_on(async {
                while !watched.stopped() {
                    // An error means blind, and that is in the recording; try again.
                    let _ = look(&watched, &options).await;
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
async fn look(shared: &Shared, options: &WitnessOptions) -> anyhow::Result<()> {
    match options.server {
        Server::Postgres => postgres::look(shared, options).await,
        Server::Mariadb => mariadb::look(shared, options).await,
    }
}

/// Asks again and again until told to stop, or until there is no answer.
async fn sample(
    shared: &Shared,
    period: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Counts>,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.stopped() {
        ticks.tick().await;
        let seen = tokio::time::timeout(ANSWER_WITHIN, ask()).await??;
        shared.watch().sample(shared.epoch.elapsed(), &seen);
    }
    Ok(())
}
