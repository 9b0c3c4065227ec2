//! The agent's program. `soloist-agent keep …` is the app keeper, which must stay small: it is dispatched before
//! anything else is set up.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use soloist_agent::glass;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Exit code for a configuration that cannot be used (EX_CONFIG of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// Keeps one NocoBase node in the state that Soloist's coordinators assign.
#[derive(Parser)]
#[command(name = "soloist-agent", version)]
struct Args {
    /// The configuration file.
    #[arg(long, env = "SOLOIST_AGENT_CONFIG", default_value = "/etc/soloist/agent.toml")]
    config: PathBuf,
    /// Read the configuration, say whether it can be used, and end.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Do what the coordinators cannot be asked for, on this host, while its agent runs
    #[command(subcommand)]
    BreakGlass(BreakGlass),
}

#[derive(clap::Subcommand)]
enum BreakGlass {
    /// Let users in, whatever the coordinators said last: on a node, /ready says so while its app serves; beside a load balancer, every node is
    /// given to users
    Traffic {
        /// on, or off to follow the coordinators again
        #[arg(value_enum)]
        what: Switch,
        /// Why; told to the coordinators and to people
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Breaks the glass, or mends it; what to tell, or what is wrong.
fn break_glass(data_dir: &std::path::Path, what: Switch, reason: &str) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("{}: {error}", data_dir.display());
    if what == Switch::Off {
        let broken = glass::mend(data_dir).map_err(cannot)?;
        return Ok(
            if broken { "the agent follows the coordinators again" } else { "the glass is whole" }.into()
        );
    }
    if reason.trim().is_empty() {
        return Err("say why, with --reason: those who come later must know".into());
    }
    if !data_dir.is_dir() {
        return Err(format!(
            "{} is no folder: does the agent of this configuration run here?",
            data_dir.display()
        ));
    }
    let glass = glass::Glass::now(reason);
    glass::smash(data_dir, &glass).map_err(cannot)?;
    Ok(glass.text())
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("keep") {
        return soloist_agent::keeper::main(args);
    }
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("SOLOIST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = match soloist_agent::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if args.check {
        tracing::info!("{} can be used", args.config.display());
        return ExitCode::SUCCESS;
    }
    if let Some(Command::BreakGlass(BreakGlass::Traffic { what, reason })) = args.command {
        return match break_glass(&config.data_dir, what, &reason) {
            Ok(text) => {
                tracing::warn!("{text}");
                ExitCode::SUCCESS
            }
            Err(why) => {
                tracing::error!("{why}");
                ExitCode::FAILURE
            }
        };
    }
    // One thread is enough for one node, and keeps the agent small.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let asked = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            asked.cancel();
        });
        soloist_agent::run(config, stop).await
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            let config = error.downcast_ref::<soloist_agent::ledger::LedgerError>().is_some();
            if config { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}
