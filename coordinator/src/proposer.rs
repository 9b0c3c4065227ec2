//! From any member to the log.
//!
//! The leader stamps and writes; the others forward to it. While the leadership moves, a proposal is made again: commands
//! are built so that twice is once. Everything here ends by one deadline.

use std::time::Duration;

use soloist_core::{Command, Rejection, Reply};
use soloist_proto::errors::{INTERNAL, NOT_LEADER, Problem, STOPPING, UNKNOWN_OUTCOME, UNREACHABLE};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Status};

use crate::{
    leader::propose_here,
    metrics,
    raft::{Applied, Member, ProposeError},
    shared::Shared,
};

/// The reason of a problem: a command is larger than the log takes.
pub(crate) const TOO_LARGE: &str = "too_large";

/// How long a proposal may take altogether, from the moment this member takes it on.
pub(crate) const DEADLINE: Duration = Duration::from_secs(6);

/// How long one attempt waits for a leader to be known or promoted.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a proposal is made at most.
const ATTEMPTS_MAX: u32 = 5;

/// Between two attempts, if nothing is heard of the leadership meanwhile.
const PAUSE: Duration = Duration::from_millis(150);

/// How long this member's own state may take to follow.
const FOLLOW: Duration = Duration::from_secs(3);

impl Shared {
    /// Has a command applied, and waits until this member's own state includes it.
    ///
    /// A [`Problem`] means that nobody decided, or that it is not known whether somebody did. The same command may be
    /// proposed again.
    pub(crate) async fn propose(&self, command: Command) -> Result<Applied, Problem> {
        let name = metrics::name(&command);
        let result = self.propose_within(command, Instant::now() + DEADLINE).await;
        self.metrics.proposed(name, metrics::result(&result));
        let applied = result?;
        // A client that asks this member again sees what it did. If the log is slow, it is only told a little too early.
        self.raft.storage().wait_applied(applied.index, FOLLOW).await;
        Ok(applied)
    }

    /// Has a command applied, with a refusal as a gRPC error.
    pub(crate) async fn decide(&self, command: Command) -> Result<Reply, Status> {
        match self.propose(command).await?.reply {
            Ok(reply) => Ok(reply),
            Err(rejection) => Err(soloist_proto::errors::to_status(&rejection)),
        }
    }

    async fn propose_within(&self, command: Command, deadline: Instant) -> Result<Applied, Problem> {
        let mut last = None;
        for attempt in 0..ATTEMPTS_MAX {
            let seen = self.raft.leader();
            match self.attempt(&command, deadline).await {
                Ok(applied) => return Ok(applied),
                Err(problem) if !may_repeat(&problem) => return Err(problem),
                Err(problem) => last = Some(problem),
            }
            if Instant::now() + PAUSE >= deadline || attempt + 1 == ATTEMPTS_MAX {
                break;
            }
            let mut status = self.raft.status();
            let moved = status.wait_for(|status| status.leader != seen && status.leader.is_some());
            let _ = timeout(PAUSE, moved).await;
        }
        let last = last.map_or_else(|| "no attempt was made in time".to_owned(), |problem| problem.message);
        Err(self.no_leader(&last).await)
    }

    async fn attempt(&self, command: &Command, deadline: Instant) -> Result<Applied, Problem> {
        if self.leads().is_some() {
            if !self.has_majority() {
                return Err(repeat("this member leads, but no majority of the members answers it"));
            }
            return propose_here(self, command.clone(), PATIENCE).await.map_err(Into::into);
        }
        let mut status = self.raft.status();
        let known = timeout(PATIENCE, status.wait_for(|status| status.leader.is_some()));
        let known = timeout_at(deadline, known).await;
        let Ok(Ok(Ok(known))) =
            known.map(|known| known.map(|known| known.map(|status| status.leader.clone())))
        else {
            return Err(repeat("no leader is known"));
        };
        match known {
            Some(leader) if leader.id != self.raft.id() => {
                // A leader that stands still does not answer, nor does it break the connection.
                let moved =
                    status.wait_for(|status| status.leader.as_ref().is_some_and(|now| now.id != leader.id));
                // Cancel-safe: the request that is given up may be asked for again, as after a lost answer.
                let applied = tokio::select! {
                    applied = self.peers.propose(&leader, command, deadline) => applied?,
                    _ = moved => return Err(given_up(&leader)),
                };
                self.hearing.heard_leader(self.clock.elapsed());
                Ok(applied)
            }
            _ => Err(repeat("the leadership moves")),
        }
    }
}

/// The request was with a leader that is none any more.
fn given_up(leader: &Member) -> Problem {
    let text = format!("{leader} had the request when another member became leader");
    Problem::new(Code::Unavailable, UNKNOWN_OUTCOME, text, "")
}

fn repeat(why: &str) -> Problem {
    Problem::new(Code::Unavailable, NOT_LEADER, why, "")
}

/// Whether another attempt may help: the call met no leader, or none that could finish it.
fn may_repeat(problem: &Problem) -> bool {
    [NOT_LEADER, UNREACHABLE, UNKNOWN_OUTCOME, soloist_proto::errors::DEADLINE, STOPPING]
        .contains(&problem.reason.as_str())
}

impl From<ProposeError> for Problem {
    fn from(error: ProposeError) -> Problem {
        let text = error.to_string();
        match error {
            ProposeError::NotLeader { .. } => {
                Problem::new(Code::Unavailable, NOT_LEADER, text, "ask the leader, or try again in a moment")
            }
            ProposeError::Changing => {
                Problem::new(Code::Unavailable, UNREACHABLE, text, "try again in a moment")
            }
            ProposeError::Unavailable { .. } => {
                Problem::new(Code::Unavailable, UNKNOWN_OUTCOME, text, "send the same request again")
            }
            ProposeError::TooLarge { .. } => {
                Problem::new(Code::ResourceExhausted, TOO_LARGE, text, "make the request smaller")
            }
            ProposeError::Refused { .. } => {
                Problem::new(Code::FailedPrecondition, "refused", text, "see soloist cluster status")
            }
            // No answer to the request: another member can give one.
            ProposeError::Fatal { .. } => {
                Problem::new(Code::Unavailable, STOPPING, text, "see this member's log, then start it again")
            }
        }
    }
}

/// The answer to a command of which only one reply makes sense.
pub(crate) fn unexpected(reply: &Reply) -> Status {
    Problem::new(
        Code::Internal,
        INTERNAL,
        format!("the state answered with {reply:?}"),
        "report this as a bug",
    )
    .into()
}

/// Shorthand for refusals that are found before anything is proposed.
pub(crate) fn refused(rejection: &Rejection) -> Status {
    soloist_proto::errors::to_status(rejection)
}
