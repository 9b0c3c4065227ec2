//! The app keeper: `soloist-agent keep --dir DIR --launch N`, a small parent process of the app.
//!
//! The agent may crash, be stopped or be replaced while the app runs; the keeper stays. It starts the app at most
//! once, owns the tree of its processes, keeps its output bounded, records how it ended, and stops it on request.
//!
//! ```text
//! agent                           keeper (own session, clean environment)             app
//!   │ ledger: launch N may run      │                                                   │
//!   │ launch.json ─── spawn ───────►│ keeper.lock (one keeper per node, for its life)   │
//!   │                               │ exec.lock { ledger still says N? N not used?      │
//!   │                               │   no marked process? keeper.json; exec ──────────►│
//!   │◄── one line on stderr ────────│ }                                                 │
//!   │ keeper.sock: status, stop ───►│ SIGTERM, grace, SIGKILL, proof ──────────────────►│
//!   │                               │ exit.json ◄───────────────────────────────────────┘
//! ```
//!
//! A stop takes the ledger's ticket away under the same exec lock: a keeper that was slow to start finds none and
//! ends. A launch is used up by its first exec, so that a second keeper of the same launch never runs it again.
//!
//! The app writes straight into its log file, not through a pipe: it does not notice when its keeper dies.
//! The keeper is plain single-threaded code without an async runtime and stays small for months.

mod exec;
mod files;
mod log;
pub mod protocol;
mod run;
pub(crate) mod socket;
mod stop;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use soloist_core::ids::Launch;

pub(crate) use files::VERSION;
pub use files::{EXEC_PATIENCE, ExitHow, ExitInfo, KeeperFiles, KeeperRecord, LaunchFile, LogBounds};
pub use protocol::{KeeperState, Started};
pub(crate) use stop::everything;

/// Exit status of a keeper that did not start the app.
pub const EXIT_REFUSED: u8 = 3;
/// Exit status of a keeper that was called with wrong arguments.
pub const EXIT_USAGE: u8 = 64;

/// Runs a keeper with the arguments after `keep`, until the app's process tree is empty.
///
/// Standard error carries exactly one line of JSON ([`Started`]) for the agent that waits for it.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    let (dir, launch) = match parse(args) {
        Ok(parsed) => parsed,
        Err(why) => {
            tell(&Started::Refused { reason: why });
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let files = KeeperFiles::new(dir);
    match run::keep(&files, launch, tell) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            let reason = refusal.to_string();
            // Kept for people; the agent has the line on standard error.
            let _ = files.write_refusal(launch, &reason);
            tell(&Started::Refused { reason });
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

fn tell(started: &Started) {
    let mut line = serde_json::to_vec(started).unwrap_or_default();
    line.push(b'\n');
    // The agent may be gone already; then nobody waits for the line.
    let _ = std::io::stderr().write_all(&line);
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<(PathBuf, Launch), String> {
    let (mut dir, mut launch) = (None, None);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--dir" => dir = Some(PathBuf::from(value)),
            "--launch" => {
                launch = Some(Launch(value.parse().map_err(|_| format!("{value} is not a launch number"))?))
            }
            _ => {
                return Err(format!(
                    "unknown argument {arg}; usage: soloist-agent keep --dir DIR --launch N"
                ));
            }
        }
    }
    dir.zip(launch).ok_or_else(|| "usage: soloist-agent keep --dir DIR --launch N".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let of = |line: &str| parse(line.split_whitespace().map(str::to_owned));
        assert_eq!(of("--dir /d --launch 7").unwrap(), (PathBuf::from("/d"), Launch(7)));
        assert!(of("--dir /d").is_err());
        assert!(of("--dir /d --launch x").is_err());
        assert!(of("--dir /d --other 1").is_err());
    }
}
