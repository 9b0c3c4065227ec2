//! `soloist stand-in`: the demo's stand-in for NocoBase, in the same file so that the demo needs nothing else.

use std::process::ExitCode;

use clap::Subcommand;
use soloist_demo::standin::{StandinFiles, StandinOptions, facts_text, run as run_standin};

use crate::error::{CtlError, Result};

/// The demo's stand-in for NocoBase
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run it until it is told to stop
    Start(StandinOptions),
    /// Print what is known of it without running it
    Facts(StandinFiles),
}

/// Runs the stand-in.
pub async fn run(args: Args) -> Result<ExitCode> {
    let done = match args.command {
        Command::Start(options) => run_standin(options).await,
        Command::Facts(files) => facts_text(&files).map(|()| ExitCode::SUCCESS),
    };
    done.map_err(|error| CtlError::failed(format!("{error:#}")))
}
