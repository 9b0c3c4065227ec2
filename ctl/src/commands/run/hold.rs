//! The time under the lock: the command runs, the lease is renewed, and one of them ends first.

use std::{process::ExitStatus, time::Duration};

use soloist_core::{ids::FleetId, view::OperationView};
use soloist_proto::v1;

use super::{
    Ended, Grant,
    child::{self, Child, Command, GRACE},
    environment,
    lease::Lease,
    signals::Signals,
};
use crate::{
    clock,
    commands::Context,
    error::{CtlError, Kind, Result},
    follow::Follow,
};

/// How long a release is tried.
const RELEASE_WITHIN: Duration = Duration::from_secs(60);

/// A granted operation.
pub(super) struct Held<'a> {
    pub(super) context: &'a Context,
    pub(super) fleet: &'a FleetId,
    pub(super) grant: &'a Grant,
}

/// What ended first.
enum First {
    Child(ExitStatus),
    Lease(CtlError),
    Abort(String),
}

impl Held<'_> {
    /// Accepts the grant, runs the command, and releases.
    pub(super) async fn run(
        &self,
        command: &Command,
        follow: &mut Follow,
        signals: &mut Signals,
    ) -> Result<Ended> {
        let mut lease = match Lease::accept(&self.context.client, self.fleet, self.grant).await {
            Ok(lease) => lease,
            Err(error) if error.is("not_holder") || error.is("lease_lost") => {
                return Err(self.lost(&error, ""));
            }
            Err(error) => return Err(error),
        };
        let mut command = command.clone();
        let deadline = clock::unix_seconds() + lease.standing().left().as_secs();
        environment(&mut command, self.fleet, self.grant, deadline);
        follow.progress().line(&format!("granted, token {}: the command runs", self.grant.token));
        follow.progress().pause();
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                self.release("the command could not be started").await?;
                return Err(error);
            }
        };
        let first = self.first(&mut child, &mut lease, follow, signals).await;
        let ended = self.end(first?, &mut child, &lease, follow).await;
        follow.progress().resume();
        ended
    }

    async fn first(
        &self,
        child: &mut Child,
        lease: &mut Lease,
        follow: &mut Follow,
        signals: &mut Signals,
    ) -> Result<First> {
        loop {
            // Cancel-safe: each arm only waits; what `follow` misses comes again.
            tokio::select! {
                status = child.wait() => return Ok(First::Child(status?)),
                error = lease.lost() => return Ok(First::Lease(error)),
                signal = signals.next() => child.forward(signal),
                news = follow.next() => match news {
                    Ok(operation) => if let Some(why) = self.end_asked(&operation) { return Ok(First::Abort(why)) },
                    // Whether to go on without coordinators is the lease's business.
                    Err(error) if error.kind == Kind::Unavailable => follow.again(),
                    Err(error) => return Ok(First::Lease(error)),
                },
            }
        }
    }

    /// Why the operation is to end, if somebody asked for it.
    fn end_asked(&self, operation: &OperationView) -> Option<String> {
        let asked = operation.status == "aborting" && operation.token == Some(self.grant.token);
        asked.then(|| format!("the operation is being ended early {}", operation.detail))
    }

    async fn end(
        &self,
        first: First,
        child: &mut Child,
        lease: &Lease,
        follow: &mut Follow,
    ) -> Result<Ended> {
        match first {
            First::Child(status) => {
                if child.left_over() {
                    follow.progress().line("the command has left processes behind: they are stopped");
                    if !child.stop(GRACE).await {
                        return Err(self.stays());
                    }
                }
                let words = child::words(status);
                follow.progress().line(&format!("the command ended: {words}"));
                self.release(&words).await.map_err(|error| self.unreleased(error, &words))?;
                Ok(Ended::Status(child::code(status)))
            }
            First::Abort(why) => {
                follow.progress().line(&format!("{why}: the command is stopped"));
                if !child.stop(GRACE).await {
                    return Err(self.stays());
                }
                self.release("stopped, because the operation is being ended early").await?;
                Ok(Ended::Aborted(why))
            }
            First::Lease(error) => {
                follow.progress().line(&format!("the lock is lost ({error}): the command is stopped"));
                let margin = lease.standing().margin();
                if !child.stop(GRACE.min(margin * 2 / 3)).await {
                    return Err(self.stays());
                }
                // Its work has ended, and the fleet may come back; if the lock is somebody else's, nothing is left to do.
                let released = self.release("lease lost; the command was stopped").await;
                let after = if released.is_ok() { "; the fleet is being brought back" } else { "" };
                Err(self.lost(&error, &format!("; the command was stopped{after}")))
            }
        }
    }

    fn lost(&self, error: &CtlError, after: &str) -> CtlError {
        let text = format!("the lock was lost: {}{after}", error.message);
        CtlError::new(Kind::LockLost, text)
            .hint(format!("see soloist operation show {}", self.grant.operation))
    }

    fn stays(&self) -> CtlError {
        let text = "a process of the command does not end; the lock was not released";
        CtlError::new(Kind::LockLost, text)
            .hint("end it, then: soloist lock release --force --reason \"...\"".to_owned())
    }

    fn unreleased(&self, error: CtlError, words: &str) -> CtlError {
        if error.kind == Kind::Unavailable {
            let text = format!("the command ended ({words}), but no coordinator took the release: {error}");
            return CtlError { message: text, ..error }.hint(format!(
                "see soloist operation show {}; then soloist lock release --force",
                self.grant.operation
            ));
        }
        self.lost(&error, &format!("; the command had ended ({words})"))
    }

    /// Says that the work has ended, until somebody hears it.
    async fn release(&self, outcome: &str) -> Result<()> {
        let request = v1::ReleaseRequest {
            fleet: self.fleet.to_string(),
            operation: self.grant.operation.to_string(),
            token: self.grant.token.0,
            outcome: outcome.to_owned(),
        };
        let client = &self.context.client;
        let release = || {
            client.call(|mut stub| {
                let request = request.clone();
                async move { stub.release(request).await }
            })
        };
        client.insist(RELEASE_WITHIN, release).await.map(|_| ())
    }
}
