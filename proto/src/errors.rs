//! How a refusal travels as a gRPC error.
//!
//! A [`Problem`] is a word for programs, a sentence for people, and what to do about it. On the wire it is a
//! `google.rpc.ErrorInfo`, so any gRPC client can read it; [`Problem::from`] reads every error there can be, also those
//! that no Soloist server made.

use std::{collections::HashMap, fmt};

use soloist_core::Rejection;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::convert::FieldError;

/// The `domain` of Soloist's error details.
pub const DOMAIN: &str = "soloist";
/// No member that leads could be reached in time: nothing can be decided at the moment.
pub const NO_LEADER: &str = "no_leader";
/// The call must go to the leader.
pub const NOT_LEADER: &str = "not_leader";
/// It is not known whether the request took effect; the same request may be sent again.
pub const UNKNOWN_OUTCOME: &str = "unknown_outcome";
/// The server could not be reached, or the connection broke.
pub const UNREACHABLE: &str = "unreachable";
/// A difference between the nodes stands in the way of the operation.
pub const PREFLIGHT: &str = "preflight";
/// The call took too long.
pub const DEADLINE: &str = "deadline";
/// The member that calls was removed from the cluster.
pub const REMOVED: &str = "removed";
/// The call is for another member, or another cluster.
pub const WRONG_MEMBER: &str = "wrong_member";
/// The server is stopping.
pub const STOPPING: &str = "stopping";
/// Something broke in the server.
pub const INTERNAL: &str = "internal";

/// Key of the hint in an error's metadata.
const HINT: &str = "hint";
/// Longest message and hint on the wire, in characters: error details travel in a header.
const TEXT_MAX: usize = 1500;

/// Why a call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The gRPC code.
    pub code: Code,
    /// A word of low cardinality for programs: [`Rejection::reason`], or one of this module's constants.
    pub reason: String,
    /// What is wrong, for people.
    pub message: String,
    /// What to do about it, for people; may be empty.
    pub hint: String,
}

impl Problem {
    /// A problem that is not a rejection.
    pub fn new(code: Code, reason: &str, message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { code, reason: reason.to_owned(), message: message.into(), hint: hint.into() }
    }

    /// Whether the same request may succeed a moment later, here or at another member.
    pub fn is_transient(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::DeadlineExceeded | Code::Aborted)
    }
}

/// The error of a refusal, as a server sends it.
pub fn to_status(rejection: &Rejection) -> Status {
    Problem::from(rejection).into()
}

/// What an error says, as a client reads it.
pub fn from_status(status: &Status) -> Problem {
    Problem::from(status)
}

impl From<&Rejection> for Problem {
    fn from(rejection: &Rejection) -> Problem {
        Problem {
            code: code(rejection),
            reason: rejection.reason().to_owned(),
            message: rejection.to_string(),
            hint: rejection.hint(),
        }
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Problem {
        Problem::new(Code::InvalidArgument, "malformed", error.to_string(), "correct it and try again")
    }
}

impl From<FieldError> for Status {
    fn from(error: FieldError) -> Status {
        Problem::from(error).into()
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let metadata = HashMap::from([(HINT.to_owned(), shortened(&problem.hint))]);
        let details = ErrorDetails::with_error_info(problem.reason, DOMAIN, metadata);
        Status::with_error_details(problem.code, shortened(&problem.message), details)
    }
}

impl From<&Status> for Problem {
    fn from(status: &Status) -> Problem {
        let info = status.get_error_details().error_info().cloned().filter(|info| info.domain == DOMAIN);
        let (reason, hint) = match info {
            Some(mut info) => {
                let hint = info.metadata.remove(HINT).unwrap_or_default();
                (info.reason, hint)
            }
            None => (word(status.code()).to_owned(), String::new()),
        };
        let message = if status.message().is_empty() { status.code().to_string() } else { sentence(status) };
        Problem { code: status.code(), reason, message, hint }
    }
}

/// The message, with the cause where the transport only says that something went wrong.
fn sentence(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// The word for an error without details.
fn word(code: Code) -> &'static str {
    match code {
        Code::Unavailable => UNREACHABLE,
        Code::DeadlineExceeded | Code::Cancelled => DEADLINE,
        Code::Unimplemented => "unimplemented",
        Code::InvalidArgument => "malformed",
        _ => INTERNAL,
    }
}

fn code(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::UnknownFleet { .. }
        | Rejection::UnknownNode { .. }
        | Rejection::UnknownOperation { .. }
        | Rejection::UnknownBackup { .. } => Code::NotFound,
        Rejection::IdInUse { .. } => Code::AlreadyExists,
        Rejection::Full { .. } => Code::ResourceExhausted,
        Rejection::NoReason | Rejection::Malformed { .. } => Code::InvalidArgument,
        Rejection::NotActive { .. }
        | Rejection::FleetStopped { .. }
        | Rejection::AlreadyInstalled { .. }
        | Rejection::NodesDiffer { .. }
        | Rejection::Frozen { .. }
        | Rejection::Restored { .. }
        | Rejection::Resuming { .. }
        | Rejection::StillWorks { .. }
        | Rejection::NobodyDrains { .. }
        | Rejection::StillHeard { .. }
        | Rejection::NeededBy { .. }
        | Rejection::NoFence { .. }
        | Rejection::NotStopped { .. }
        | Rejection::Removed { .. }
        | Rejection::OtherRole { .. }
        | Rejection::OtherAgent { .. }
        | Rejection::OtherMachine { .. }
        | Rejection::Rival { .. }
        | Rejection::Superseded { .. }
        | Rejection::NotHolder { .. }
        | Rejection::LeaseLost { .. }
        | Rejection::Ended { .. }
        | Rejection::NoRetry { .. }
        | Rejection::HolderUnsettled { .. }
        | Rejection::RestoreUnfinished { .. }
        | Rejection::TaskRuns { .. }
        | Rejection::Downgrade { .. }
        | Rejection::WritesAtStake { .. }
        | Rejection::PolicyMoved { .. }
        | Rejection::NotAsked { .. } => Code::FailedPrecondition,
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

impl fmt::Display for crate::v1::Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<&Rejection> for crate::v1::Refused {
    fn from(rejection: &Rejection) -> Self {
        Problem::from(rejection).into()
    }
}

impl From<Problem> for crate::v1::Refused {
    fn from(problem: Problem) -> Self {
        let Problem { reason, message, hint, .. } = problem;
        Self { reason, message, hint }
    }
}

#[cfg(test)]
mod tests {
    use soloist_core::ids::{FleetId, OperationId};

    use super::*;

    #[test]
    fn a_rejection_survives_the_wire() {
        let rejection = Rejection::UnknownFleet { fleet: FleetId::new("shop").unwrap(), known: Vec::new() };
        let problem = from_status(&to_status(&rejection));
        assert_eq!(problem, Problem::from(&rejection));
        assert_eq!(problem.code, Code::NotFound);
        assert_eq!(problem.reason, "unknown_fleet");
        assert!(problem.hint.contains("start an agent"));
    }

    #[test]
    fn another_servers_error_is_still_a_problem() {
        let problem = from_status(&Status::unavailable("connection refused"));
        assert_eq!((problem.reason.as_str(), problem.message.as_str()), (UNREACHABLE, "connection refused"));
        assert!(problem.is_transient());
    }

    #[test]
    fn a_long_hint_is_shortened() {
        let known = (0..5000).map(|n| FleetId::new(format!("fleet-{n}")).unwrap()).collect();
        let rejection = Rejection::UnknownFleet { fleet: FleetId::new("shop").unwrap(), known };
        assert!(from_status(&to_status(&rejection)).hint.chars().count() <= TEXT_MAX + 1);
    }

    #[test]
    fn an_id_in_use_exists_already() {
        let rejection = Rejection::IdInUse { operation: OperationId::new("a").unwrap() };
        assert_eq!(to_status(&rejection).code(), Code::AlreadyExists);
    }
}
