//! The command line: global options, and one file under [`commands`] for each command.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, error::ErrorKind};
use soloist_core::ids::FleetId;

use crate::{
    client::Client,
    commands::{
        self, backup, cluster, demo, events, evidence, fleet, freeze, heal, lock, migrate, node, operation,
        plan, plugin, preflight, restart, restore, rollback, run, stand_in, start, status, stop, upgrade,
        verify,
    },
    error::{CtlError, Kind, Result},
    ui::{Format, Ui},
};

/// Keeps a NocoBase fleet safe while it changes.
#[derive(Debug, Parser)]
#[command(name = "soloist", version, propagate_version = true, after_help = CODES)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

const CODES: &str = "Exit codes: 0 done, 1 ended early, waits for a person or found a problem, 64 usage, 69 no coordinator can be reached or \
decide, 75 lock not granted in time, 76 lock lost, 77 refused; `run` passes on the status of its command.";

/// Options of every command.
#[derive(Debug, clap::Args)]
pub struct Globals {
    /// The coordinators, host:port; any of them will do
    #[arg(
        long,
        global = true,
        env = "SOLOIST_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403"
    )]
    pub endpoints: Vec<String>,
    /// The fleet; may be left out while there is only one
    #[arg(long, global = true, env = "SOLOIST_FLEET")]
    pub fleet: Option<FleetId>,
    /// How data is written to stdout; toml only by `fleet show`, which does so by default [default: table]
    #[arg(long, short, global = true, env = "SOLOIST_OUTPUT", value_enum)]
    pub output: Option<Format>,
    /// How long one request to the coordinators may take, for example 5s
    #[arg(long, global = true, value_parser = duration, default_value = "20s")]
    pub timeout: Duration,
}

/// Parses a length of time such as `90s` or `5m`.
pub fn duration(text: &str) -> std::result::Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Args),
    Plan(plan::Args),
    Start(start::Args),
    Stop(stop::Args),
    Run(run::Args),
    Plugin(plugin::Args),
    Upgrade(upgrade::Args),
    Migrate(migrate::Args),
    Rollback(rollback::Args),
    Restart(restart::Args),
    Heal(heal::Args),
    Verify(verify::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Fleet(fleet::Args),
    Preflight(preflight::Args),
    Freeze(freeze::Args),
    Unfreeze(freeze::EndArgs),
    Lock(lock::Args),
    Operation(operation::Args),
    Node(node::Args),
    Cluster(cluster::Args),
    Events(events::Args),
    Evidence(evidence::Args),
    Demo(demo::Args),
    #[command(hide = true)]
    StandIn(stand_in::Args),
}

impl Cli {
    fn format(&self) -> Result<Format> {
        let file = matches!(&self.command, Command::Fleet(args) if args.shows());
        match self.globals.output {
            Some(Format::Toml) if !file => {
                Err(CtlError::new(Kind::Usage, "only fleet show writes toml").hint("use -o table or -o json"))
            }
            Some(format) => Ok(format),
            None if file => Ok(Format::Toml),
            None => Ok(Format::Table),
        }
    }
}

/// Runs the program with these arguments and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, mistakes to stderr; what cannot be written is lost.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(Kind::Usage.code()),
            };
        }
    };
    let format = cli.format();
    let ui = Ui::new(*format.as_ref().unwrap_or(&Format::Table));
    if let Err(error) = format {
        ui.error(&error);
        return error.exit_code();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui.error(&CtlError::failed(format!("cannot start: {error}")));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(cli, ui)) {
        Ok(code) => code,
        Err(error) => {
            ui.error(&error);
            error.exit_code()
        }
    }
}

async fn dispatch(cli: Cli, ui: Ui) -> Result<ExitCode> {
    let Cli { globals, command } = cli;
    let command = match command {
        Command::StandIn(args) => return stand_in::run(args).await,
        Command::Demo(args) => return demo::run(args, ui).await,
        other => other,
    };
    let client = Client::new(&globals.endpoints, globals.timeout)?;
    let context = commands::Context { client, fleet: globals.fleet, ui };
    let done = match command {
        Command::Status(args) => status::run(args, &context).await,
        Command::Plan(args) => plan::run(args, &context).await,
        Command::Start(args) => start::run(args, &context).await,
        Command::Stop(args) => stop::run(args, &context).await,
        Command::Run(args) => return context.explained(run::run(args, &context).await).await,
        Command::Plugin(args) => plugin::run(args, &context).await,
        Command::Upgrade(args) => upgrade::run(args, &context).await,
        Command::Rollback(args) => rollback::run(args, &context).await,
        Command::Restart(args) => restart::run(args, &context).await,
        Command::Migrate(args) => migrate::run(args, &context).await,
        Command::Heal(args) => heal::run(args, &context).await,
        Command::Verify(args) => verify::run(args, &context).await,
        Command::Fleet(args) => fleet::run(args, &context).await,
        Command::Freeze(args) => freeze::run(args, &context).await,
        Command::Unfreeze(args) => freeze::end(args, &context).await,
        Command::Backup(args) => backup::run(args, &context).await,
        Command::Restore(args) => restore::run(args, &context).await,
        Command::Preflight(args) => preflight::run(args, &context).await,
        Command::Lock(args) => lock::run(args, &context).await,
        Command::Operation(args) => operation::run(args, &context).await,
        Command::Node(args) => node::run(args, &context).await,
        Command::Cluster(args) => cluster::run(args, &context).await,
        Command::Events(args) => events::run(args, &context).await,
        Command::Evidence(args) => evidence::run(args, &context).await,
        Command::Demo(_) | Command::StandIn(_) => Ok(()),
    };
    context.explained(done).await.map(|()| ExitCode::SUCCESS)
}
