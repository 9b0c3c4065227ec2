//! A stand-in for NocoBase: one process that behaves like a NocoBase node where it matters to whoever starts, stops, probes and
//! upgrades it, and that needs neither Node.js nor a database server.
//!
//! | of NocoBase | here |
//! |---|---|
//! | the shared PostgreSQL database | a JSON file, changed atomically under a file lock ([`database`]) |
//! | the shared storage with its `.upgrading` marker | a folder |
//! | the version of the installed packages | `--code-version`, or the first line of `--code-file` |
//! | the port opens late, then 503 with moving progress, then 200 | the same |
//! | plugins are loaded per process, when it starts or when it enables one itself | the same |
//! | a plain start never upgrades, `--quickstart` or `.upgrading` does | the same |
//! | a failed node stays at 503 `APP_ERROR` for ever, its process alive | the same |
//! | an open websocket keeps a stopped process alive | the same |
//! | two installs or upgrades at once damage the database | the same, and the damage is written down |
//!
//! That last row is the point: the database file says afterwards, in words, what went wrong ([`Database::damage`]). A run of
//! Soloist that leaves damage behind has failed, whatever it printed.

pub mod database;

mod app;
mod boot;
mod facts;
mod http;
mod migrate;
mod options;
mod plugins;
mod sockets;

pub use database::Database;
pub use facts::{facts, facts_text};
pub use options::{StandinFiles, StandinOptions};

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use app::{App, Phase};

/// Runs the stand-in until it is told to stop (SIGTERM or SIGINT). Like NocoBase it does not hear those while it migrates.
///
/// # Errors
/// When the port cannot be bound or the database file cannot be reached at the start.
pub async fn run(options: StandinOptions) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let app = Arc::new(App::new(options)?);
    let mut serving = Box::pin(http::serve(Arc::clone(&app)));
    let booting = tokio::spawn(boot::boot(Arc::clone(&app)));
    loop {
        tokio::select! {
            result = &mut serving => {
                booting.abort();
                app.leave().await;
                result?;
                anyhow::bail!("the HTTP server ended by itself");
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if !app.is_migrating() {
            break;
        }
        app.log("a signal to stop is ignored during an install or an upgrade");
    }
    booting.abort();
    app.set_phase(Phase::Stopped);
    // The server keeps answering (503) during the drain.
    let _ = tokio::time::timeout(Duration::from_millis(app.options.drain_ms), &mut serving).await;
    // With its end the port closes.
    drop(serving);
    app.leave().await;
    app.sockets.all_closed().await;
    app.log("stopped");
    Ok(ExitCode::SUCCESS)
}
