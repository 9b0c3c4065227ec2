//! The coordinator's process: configuration, log output, signals, exit status.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use soloist_coordinator::{
    Config, Flags,
    config::{ConfigError, LogFormat},
    run, server,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Exit status for a configuration that cannot be used (`EX_CONFIG`).
const EX_CONFIG: u8 = 78;
/// Threads of the runtime: a coordinator mostly waits for its disk and its peers.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let config = match Config::load(&flags) {
        Ok(config) => config,
        Err(error) => return fail(EX_CONFIG, &error),
    };
    if let Err(error) = start_log(&config) {
        return fail(EX_CONFIG, &error);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    match runtime.block_on(run(config, asked_to_stop())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", server::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong before there is a log.
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    use std::io::Write as _;
    // Without a standard error there is nobody to tell; the exit status remains.
    let _ = writeln!(std::io::stderr(), "soloist-coordinator: {}", server::chain(error));
    ExitCode::from(code)
}

fn start_log(config: &Config) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| ConfigError {
        at: "log".to_owned(),
        problem: format!("\"{}\" is not a log filter: {error}", config.log),
        hint: "write a level, for example info, or soloist_coordinator=debug,info".to_owned(),
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Human => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

async fn asked_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without signals, it can only be killed; which it must survive anyway.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
