//! The agent's program. `soloist-agent keep …` is the app keeper, which must stay small: it is dispatched before
//! anything else is set up.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use soloist_agent::config::Config;
use soloist_agent::glass;
use soloist_agent::host::Host;
use soloist_agent::ledger::{self, LedgerFile};
use soloist_core::agent::Hand;
use soloist_core::command::Role;
use soloist_core::ids::BootId;
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
    /// Start the app plainly and keep it running, while no coordinator can be asked
    ///
    /// It ends by itself when a coordinator can be asked and wants the app to run.
    Start {
        /// Why; told to the coordinators and to people
        #[arg(long, default_value = "")]
        reason: String,
        /// The node's name: needed where the coordinators said last that the app must be stopped
        #[arg(long, value_name = "NODE")]
        confirm: Option<String>,
    },
    /// Stop the app and keep it stopped, whatever the coordinators say
    Stop {
        /// Why; told to the coordinators and to people
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let the coordinators decide about the app again
    Follow,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Breaks the glass, or mends it; what to tell, or what is wrong.
fn break_glass(config: &Config, what: BreakGlass) -> Result<String, String> {
    let data_dir = config.data_dir.as_path();
    let cannot = |error: std::io::Error| format!("{}: {error}", data_dir.display());
    let host = Host { boot_id: config.boot_id_file.clone(), ..Host::default() };
    let boot = || host.boot_id().map_err(|error| format!("which boot this is cannot be read: {error}"));
    let (reason, hand, confirm) = match what {
        BreakGlass::Traffic { what: Switch::Off, .. } => {
            let broken = glass::mend(data_dir).map_err(cannot)?;
            let text = if broken { "the agent follows the coordinators again" } else { "the glass is whole" };
            return Ok(text.into());
        }
        BreakGlass::Follow => {
            let taken = glass::follow(data_dir).map_err(cannot)?;
            let text =
                if taken { "the coordinators decide about the app again" } else { "nobody else decides" };
            return Ok(text.into());
        }
        BreakGlass::Traffic { what: Switch::On, reason } => (reason, None, None),
        BreakGlass::Start { reason, confirm } => (reason, Some(Hand::Start), confirm),
        BreakGlass::Stop { reason } => (reason, Some(Hand::Stop), None),
    };
    if reason.trim().is_empty() {
        return Err("say why, with --reason: those who come later must know".into());
    }
    if !data_dir.is_dir() {
        return Err(format!(
            "{} is no folder: does the agent of this configuration run here?",
            data_dir.display()
        ));
    }
    if hand.is_some() && config.role() == Role::Balancer {
        return Err("this agent steers a load balancer: there is no app to start or stop".into());
    }
    if hand == Some(Hand::Start) {
        is_sure(config, &boot()?, confirm.as_deref())?;
    }
    let glass = glass::Glass::now(&reason);
    match hand {
        Some(hand) => glass::take(data_dir, hand, boot()?, glass).map_err(cannot),
        None => glass::smash(data_dir, &glass).map(|()| glass.text()).map_err(cannot),
    }
}

/// Whether somebody who starts the app knows that the coordinators wanted it stopped.
fn is_sure(config: &Config, boot: &BootId, confirmed: Option<&str>) -> Result<(), String> {
    let ledger = ledger::read(&LedgerFile::path_in(&config.data_dir)).map_err(|error| error.to_string())?;
    // After a reboot it asks first: somebody may have said meanwhile that the machine is off.
    let last = ledger.filter(|ledger| ledger.boot == *boot).and_then(|ledger| ledger.assignment);
    if last.as_ref().is_some_and(|last| last.spec.run.plainly()) {
        return Ok(());
    }
    let node = config.node.as_str();
    match confirmed {
        Some(given) if given == node => Ok(()),
        Some(given) => Err(format!("\"{given}\" is not the name of this node: nothing was done")),
        None => Err(format!(
            "the coordinators said last that the app of {node} must be stopped, or nothing since this host was booted: another node may be changing the \
             database at this moment; make sure that it is not, then add --confirm {node}"
        )),
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("keep") {
        return soloist_agent::keeper::main(args);
    }
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("SOLOIST_LOG").unwrap_or_else(|_| EnvFilter::new("info,h2=error"));
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
    if let Some(Command::BreakGlass(what)) = args.command {
        return match break_glass(&config, what) {
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
