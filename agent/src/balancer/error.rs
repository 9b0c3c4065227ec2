//! Why a balancer could not be steered, and what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The balancer is not as it must be, or cannot be asked. Nothing of this ends the attempt: the next call tries again.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// There is no such socket.
    #[error(
        "HAProxy has no socket at {path}: start HAProxy, or correct {key} in [balancer] so that it names {what}",
        path = path.display()
    )]
    NoSocket {
        /// Where it was looked for.
        path: PathBuf,
        /// The key of the configuration.
        key: &'static str,
        /// What the key must name.
        what: &'static str,
    },
    /// This process may not write to the socket.
    #[error(
        "HAProxy's socket {path} may not be used by this agent's account: give the socket a group and mode 660, and the account \
         that group",
        path = path.display()
    )]
    Forbidden {
        /// Which one.
        path: PathBuf,
    },
    /// Nobody listens at the socket.
    #[error("nobody listens at HAProxy's socket {path}: start HAProxy", path = path.display())]
    Deaf {
        /// Which one.
        path: PathBuf,
    },
    /// No answer in time.
    #[error(
        "HAProxy took longer than {} s to answer \"{command}\" at {path}: is it overloaded, or stopped with a signal?",
        deadline.as_secs(),
        path = path.display()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        command: String,
        /// How long it was waited.
        deadline: Duration,
    },
    /// The exchange broke.
    #[error("the exchange with HAProxy at {path} broke: {source}", path = path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// The socket does not let servers be changed.
    #[error(
        "HAProxy's socket {path} does not allow \"{command}\": write `stats socket {path} level admin` in its configuration",
        path = path.display()
    )]
    Level {
        /// Which one.
        path: PathBuf,
        /// What was refused.
        command: String,
    },
    /// HAProxy says no.
    #[error("HAProxy answered \"{command}\" with: {answer}")]
    Refused {
        /// The command.
        command: String,
        /// HAProxy's words, shortened.
        answer: String,
    },
    /// The answer is not what HAProxy's manual says.
    #[error("HAProxy's answer to \"{command}\" is not understood: {what}; it needs HAProxy 2.4 or later")]
    Strange {
        /// The command.
        command: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// The configuration names a backend that HAProxy does not have.
    #[error(
        "HAProxy has no backend \"{backend}\" with servers; it has {existing}: correct backends in [balancer]"
    )]
    NoBackend {
        /// The one that is missing.
        backend: String,
        /// The ones that are there.
        existing: String,
    },
    /// A backend has no server of this name.
    #[error(
        "HAProxy's backend \"{backend}\" has no server \"{server}\" for the node; it has {existing}: correct servers in \
         [balancer], or HAProxy's configuration"
    )]
    NoServer {
        /// The backend.
        backend: String,
        /// The server that is missing.
        server: String,
        /// The ones that are there.
        existing: String,
    },
    /// A node is to be steered that has no address in nginx's configuration.
    #[error("there is no address for {node}: add it to servers in [balancer]; it has {existing}")]
    NoAddress {
        /// The node.
        node: String,
        /// The nodes that have one.
        existing: String,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// nginx does not accept its configuration.
    #[error("nginx does not accept its configuration: {why}; {path} is as it was before, and nothing was reloaded", path = path.display())]
    Test {
        /// The file that was put back.
        path: PathBuf,
        /// nginx's words, shortened.
        why: String,
    },
    /// nginx could not be reloaded.
    #[error("nginx was not reloaded: {why}; is it running? Its configuration is in order")]
    Reload {
        /// The program's words, shortened.
        why: String,
    },
    /// Nobody tells which nodes get requests.
    #[error(
        "nginx does not tell at http://{address}/generation which nodes it sends requests to: {why}; is it running, and does its \
         http block include {include}?",
        include = include.display()
    )]
    Status {
        /// Where it was asked.
        address: SocketAddr,
        /// What came instead.
        why: String,
        /// The file that has it.
        include: PathBuf,
    },
    /// nginx was reloaded, and still works as before.
    #[error(
        "nginx was reloaded {} s ago and still works with an earlier {include} (generation {found} instead of {wanted}): its error \
         log says why",
        since.as_secs(),
        include = include.display()
    )]
    Stale {
        /// Time since the reload.
        since: Duration,
        /// The file.
        include: PathBuf,
        /// What the file has.
        wanted: String,
        /// What is in force.
        found: String,
    },
    /// nginx's processes cannot be found.
    #[error("nginx's processes cannot be found: {path}: {why}; correct pid_file in [balancer]", path = path.display())]
    Pid {
        /// The pid file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A worker of nginx could not be ended.
    #[error(
        "cannot end nginx's worker process {pid}: {source}; run this agent as root or as nginx's own account"
    )]
    Signal {
        /// Its process id.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
}

/// Most names that a message lists.
const LISTED_MAX: usize = 20;

/// Names for a message.
pub(super) fn list<T: std::fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    let mut all: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    let more = all.len().saturating_sub(LISTED_MAX);
    all.truncate(LISTED_MAX);
    match (all.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => all.join(", "),
        (false, more) => format!("{} and {more} more", all.join(", ")),
    }
}
