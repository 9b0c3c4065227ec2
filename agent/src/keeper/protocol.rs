//! What agent and keeper say to each other: one JSON object per line over `keeper.sock`.
//!
//! A keeper may be months older than its agent, so this only ever grows: unknown fields are ignored, an unknown
//! command is answered with an error, and the version rises only if an old meaning changes.

use serde::{Deserialize, Serialize};
use soloist_core::ids::Launch;

use crate::host::ProcessId;

/// Version of the protocol.
pub const PROTOCOL: u32 = 1;
/// Longest line in bytes.
pub const LINE_MAX: usize = 16 * 1024;
/// Name of the socket in the node's data folder.
pub const SOCKET: &str = "keeper.sock";

/// What an agent asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Protocol version.
    pub v: u32,
    /// The command.
    #[serde(flatten)]
    pub cmd: Cmd,
}

/// Commands of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Cmd {
    /// Tell the state.
    Status,
    /// SIGTERM now; when the grace is over, SIGKILL if `kill`, else stop waiting. Answered at once.
    Stop {
        /// Grace in milliseconds.
        grace_ms: u64,
        /// Whether to kill afterwards.
        kill: bool,
    },
}

/// What a keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Protocol version.
    pub v: u32,
    /// The launch that it runs.
    pub launch: Launch,
    /// Its state.
    pub state: KeeperState,
    /// The app's main process, while it lives.
    #[serde(default)]
    pub app: Option<ProcessId>,
    /// All live processes of the tree, at most [`PIDS_MAX`].
    #[serde(default)]
    pub pids: Vec<u32>,
    /// Why the request was not understood.
    #[serde(default)]
    pub error: Option<String>,
}

/// Most process ids in a reply.
pub const PIDS_MAX: usize = 256;

/// What a keeper is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeeperState {
    /// The app's main process runs.
    Running,
    /// A stop is under way.
    Stopping,
    /// The main process ended, descendants of it still run.
    Lingering,
}

/// The one line that a keeper writes on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "started", rename_all = "snake_case")]
pub enum Started {
    /// The app was executed.
    Running {
        /// Its main process.
        app: ProcessId,
    },
    /// It was not.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_lines() {
        let stop = Request { v: 1, cmd: Cmd::Stop { grace_ms: 5000, kill: true } };
        let line = r#"{"v":1,"cmd":"stop","grace_ms":5000,"kill":true}"#;
        assert_eq!(serde_json::to_string(&stop).unwrap(), line);
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), stop);
        let status: Request = serde_json::from_str(r#"{"v":1,"cmd":"status","later":true}"#).unwrap();
        assert_eq!(status.cmd, Cmd::Status);
        let reply: Reply = serde_json::from_str(r#"{"v":1,"launch":7,"state":"lingering"}"#).unwrap();
        assert_eq!((reply.state, reply.app), (KeeperState::Lingering, None));
    }
}
