//! Starting a keeper so that it outlives the agent.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use soloist_core::ids::Launch;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{DriverError, ProcessDriverOptions};
use crate::keeper::Started;

/// Most bytes read of what a keeper (or `systemd-run`) says while it starts.
const SAID_MAX: u64 = 64 * 1024;
/// The only variables that a keeper takes from the agent.
const KEPT: [&str; 3] = ["PATH", "HOME", "LANG"];

/// Whether keepers run in a systemd scope of their own. Without one, stopping the agent's service would stop the
/// app too, unless the unit says `KillMode=process`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `systemd-run --scope`, and directly where that fails.
    Systemd,
    /// Directly.
    None,
}

impl Scope {
    /// Scopes are used where systemd runs the host.
    pub fn detect() -> Self {
        if Path::new("/run/systemd/system").is_dir() { Scope::Systemd } else { Scope::None }
    }
}

/// Starts a keeper and waits for its one line.
pub(super) async fn spawn_keeper(
    options: &ProcessDriverOptions,
    launch: Launch,
) -> Result<Started, DriverError> {
    if options.scope == Scope::Systemd {
        let unit = format!("soloist-app-{}-{}-{launch}", options.fleet, options.node);
        let mut command = Command::new("systemd-run");
        command.args(["--scope", "--quiet", "--collect", "--unit", &unit, "--"]).arg(&options.keeper);
        match run(command, options, launch).await {
            Ok(Heard::Started(started)) => return Ok(started),
            Ok(Heard::Nothing(said)) => {
                tracing::warn!(%said, "no systemd scope, the keeper is started directly")
            }
            Err(DriverError::Io { source, .. }) => {
                tracing::warn!(%source, "no systemd-run, the keeper is started directly");
            }
            Err(other) => return Err(other),
        }
    }
    // A launch runs at most once, so trying again is safe even if the first keeper did start.
    match run(Command::new(&options.keeper), options, launch).await? {
        Heard::Started(started) => Ok(started),
        Heard::Nothing(said) => {
            Err(DriverError::Refused(format!("its keeper ended without a report: {said}")))
        }
    }
}

enum Heard {
    Started(Started),
    /// It ended without its line; what it said instead.
    Nothing(String),
}

async fn run(
    mut command: Command,
    options: &ProcessDriverOptions,
    launch: Launch,
) -> Result<Heard, DriverError> {
    command.arg("keep").arg("--dir").arg(&options.folder).args(["--launch", &launch.to_string()]);
    command.current_dir(&options.folder).env_clear();
    command.envs(KEPT.iter().filter_map(|key| std::env::var_os(key).map(|value| (*key, value))));
    // Its standard error is read until its line; afterwards it says nothing. It becomes a session of its own.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(false);
    let mut child = command.spawn().map_err(DriverError::io("start the app's keeper"))?;
    let heard = timeout(options.start_deadline, listen(&mut child)).await;
    // Whenever it ends, its exit status is taken.
    tokio::spawn(async move { child.wait().await });
    heard.map_err(|_| DriverError::Slow(options.start_deadline))
}

async fn listen(child: &mut Child) -> Heard {
    let mut said = String::new();
    let Some(stderr) = child.stderr.take() else { return Heard::Nothing(said) };
    let mut lines = BufReader::new(stderr.take(SAID_MAX)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(started) = serde_json::from_str(&line) {
            return Heard::Started(started);
        }
        said.push_str(&line);
        said.push(' ');
    }
    // End of output: it ends now or has ended.
    let status = timeout(Duration::from_secs(1), child.wait()).await;
    if let Ok(Ok(status)) = status {
        said.push_str(&status.to_string());
    }
    Heard::Nothing(said)
}
