//! Errors as people and scripts meet them: a kind that decides the exit code, one message, and hints.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the operation was ended early, or waits for a person; `preflight` found a problem; or something broke |
//! | 64 | the command line is wrong |
//! | 69 | no coordinator can be reached, or none of them can decide |
//! | 75 | the lock was not granted in time |
//! | 76 | the lock was lost while the command ran |
//! | 77 | refused |
//! | 126, 127 | `run`: the command cannot be executed, or was not found; nothing was stopped for it |
//! | 128 + n | ended by signal n; an operation that was asked for goes on |
//! | other | `run`: the command's own status |

use std::process::ExitCode;

use soloist_proto::{convert::FieldError, errors::Problem};
use tonic::Code;

/// What went wrong, as far as an exit code tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ended early, waits for a person, found a problem, or broke.
    Failed,
    /// The command line is wrong.
    Usage,
    /// No coordinator can be reached, or none can decide.
    Unavailable,
    /// The lock was not granted in time.
    NotGranted,
    /// The lock was lost.
    LockLost,
    /// The answer is no.
    Refused,
    /// The command of `run` exists and cannot be executed.
    NotExecutable,
    /// The command of `run` does not exist.
    NotFound,
    /// A signal ended the wait.
    Signal(i32),
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 64,
            Kind::Unavailable => 69,
            Kind::NotGranted => 75,
            Kind::LockLost => 76,
            Kind::Refused => 77,
            Kind::NotExecutable => 126,
            Kind::NotFound => 127,
            Kind::Signal(number) => signal_code(number),
        }
    }
}

/// The exit code of a process that a signal ended, as shells write it.
pub fn signal_code(number: i32) -> u8 {
    u8::try_from(number).ok().and_then(|number| number.checked_add(128)).unwrap_or(u8::MAX)
}

/// An error of the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CtlError {
    /// Decides the exit code.
    pub kind: Kind,
    /// The server's word for a refusal; empty for errors of this side.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, a line each.
    pub hints: Vec<String>,
}

/// What the functions of the command line return.
pub type Result<T, E = CtlError> = std::result::Result<T, E>;

impl CtlError {
    /// An error without hints.
    pub fn new(kind: Kind, message: impl Into<String>) -> CtlError {
        CtlError { kind, reason: String::new(), message: message.into(), hints: Vec::new() }
    }

    /// Something broke, or ended early.
    pub fn failed(message: impl Into<String>) -> CtlError {
        CtlError::new(Kind::Failed, message)
    }

    /// The same with one more hint; an empty one is left out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> CtlError {
        let hint = hint.into();
        if !hint.is_empty() {
            self.hints.push(hint);
        }
        self
    }

    /// Whether the server refused for this reason.
    pub fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

impl From<Problem> for CtlError {
    fn from(problem: Problem) -> CtlError {
        let kind = match problem.code {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => Kind::Unavailable,
            Code::Unknown | Code::Internal | Code::DataLoss | Code::Unimplemented => Kind::Failed,
            _ => Kind::Refused,
        };
        CtlError { kind, reason: problem.reason, message: problem.message, hints: Vec::new() }
            .hint(problem.hint)
    }
}

impl From<FieldError> for CtlError {
    fn from(error: FieldError) -> CtlError {
        CtlError::failed(format!("a coordinator's answer cannot be read: {error}"))
            .hint("this program and the coordinators should have the same version")
    }
}

#[cfg(test)]
mod tests {
    use soloist_core::{Rejection, ids::Token};

    use super::*;

    #[test]
    fn a_refusal_keeps_its_reason_and_hint() {
        let error = CtlError::from(Problem::from(&Rejection::LeaseLost { token: Token(7) }));
        assert_eq!(error.kind.code(), 77);
        assert!(error.is("lease_lost"));
        assert_eq!(error.hints.len(), 1);
    }

    #[test]
    fn signals_count_from_128() {
        assert_eq!(Kind::Signal(2).code(), 130);
        assert_eq!(Kind::Signal(15).code(), 143);
        assert_eq!(Kind::Signal(9999).code(), 255);
    }
}
