//! The coordinator's process: configuration, log output, signals, exit status.

use std::{io::IsTerminal as _, path::Path, process::ExitCode};

use clap::Parser as _;
use soloist_coordinator::{
    Config, Flags,
    config::{Command, ConfigError, LogFormat},
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
    if let Some(Command::Restore { file }) = &flags.command {
        return restore(&config, file);
    }
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
            let text = server::chain(&error);
            tracing::error!("{text}{}", advice(&text));
            ExitCode::FAILURE
        }
    }
}

/// Makes a new data folder from a backup.
fn restore(config: &Config, file: &Path) -> ExitCode {
    match soloist_coordinator::restore(config, file) {
        Err(error) => fail(1, &error),
        Ok((header, index)) => {
            let staleness = if header.stale { ", which may lack the last decisions" } else { "" };
            say(&format!(
                "restored a backup of cluster {:?} at index {}{staleness}, into {}. Member {} is its only one, and goes on after index {index}. \
                 Next: start it; take others in under ids that were never used, with empty data folders and \"join = true\" (soloist \
                 cluster add); look at each fleet, and let it go on: soloist fleet resume",
                header.cluster,
                header.index,
                config.data.display(),
                config.id
            ));
            ExitCode::SUCCESS
        }
    }
}

/// What to do about a disk that is full: the error itself comes from whatever was written first.
fn advice(text: &str) -> &'static str {
    if !text.contains("(os error 28)") {
        return "";
    }
    ". The disk is full: make room, or move the data folder to a larger one. Nothing that was acknowledged is lost; the other members go on, and \
     this one does when it is started again and can write, which its supervisor tries by itself"
}

/// Says what is wrong before there is a log.
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    say(&format!("soloist-coordinator: {}", server::chain(error)));
    ExitCode::from(code)
}

fn say(text: &str) {
    use std::io::Write as _;
    // Without a standard error there is nobody to tell; the exit status remains.
    let _ = writeln!(std::io::stderr(), "{text}");
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
