//! `soloist demo`: three coordinators, three agents and a stand-in app as real processes on this machine's loopback.
//!
//! ```text
//!   stage (temporary folder, ports, processes; its drop ends and removes all of it)
//!     └── play: first start ──► plugin change ──kill -9 the leader──► the change goes on ──► all nodes serve
//!           └── monitor: a witness of its own that watches the process table ──► timeline and verdict
//! ```

mod files;
mod judge;
mod play;
mod ports;
mod stage;
mod sweep;

use std::process::ExitCode;

use crate::{
    commands::run::Signals,
    error::{CtlError, Kind, Result},
    ui::Ui,
};

use self::{play::Play, stage::Stage};

/// Show all of it on this machine: three coordinators, three agents, a stand-in app, and a leader that is killed
///
/// Needs nothing else: all processes run on the loopback, in a temporary folder. It ends with a timeline and the verdict of an
/// independent monitor that watched the processes themselves; the exit status is 0 only if the verdict is clean. Nothing is
/// left behind, also after Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave it running at the end, until Ctrl-C, to be tried
    #[arg(long)]
    keep: bool,
}

/// Plays the demo.
pub async fn run(args: Args, ui: Ui) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut stage = Stage::new()?;
    let mut play = Play::new(ui, &mut stage)?;
    // Cancel-safe: whatever is dropped here, the stage ends every process of it.
    let clean = tokio::select! {
        clean = play.perform() => clean,
        signal = signals.next() => Err(CtlError::new(Kind::Signal(signal), "interrupted; nothing is left behind")),
    };
    let clean = match clean {
        Ok(clean) => clean,
        Err(error) if matches!(error.kind, Kind::Signal(_)) => return Err(error),
        Err(error) => {
            let folder = stage.keep_folder();
            return Err(error.hint(format!("the logs of all processes are in {}", folder.display())));
        }
    };
    if args.keep {
        stage.explain(ui)?;
        signals.next().await;
        ui.note("ended; nothing is left behind");
    }
    if clean {
        return Ok(ExitCode::SUCCESS);
    }
    let folder = stage.keep_folder();
    Err(CtlError::failed("the verdict is not clean")
        .hint(format!("the logs of all processes are in {}", folder.display())))
}
