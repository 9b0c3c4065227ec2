//! Following one operation to its end: news of it, its confirmation, and what people see of it.
//!
//! ```text
//!   watch ──► find it in the view, or ask for it ──► confirm if it must be ──► progress ──► the caller
//! ```

mod progress;
mod story;

use soloist_core::{
    ids::{FleetId, NodeId, OperationId},
    operation::Blocked,
    view::{FleetView, NodeView, OperationView},
};
use soloist_proto::{convert::nested, v1};

pub use progress::Progress;

use crate::{
    client::Client,
    error::{CtlError, Kind, Result},
    watch::{Sight, Watch},
};

/// An operation that is followed.
pub struct Follow {
    client: Client,
    fleet: FleetId,
    id: OperationId,
    watch: Watch,
    progress: Progress,
}

impl Follow {
    /// Begins to follow.
    pub fn new(client: &Client, fleet: &FleetId, id: &OperationId, progress: Progress) -> Follow {
        let watch = Watch::new(client, fleet);
        Follow { client: client.clone(), fleet: fleet.clone(), id: id.clone(), watch, progress }
    }

    /// Where the operation stands, once there is news of the fleet. May be dropped at any time: what it missed comes again.
    ///
    /// An error of the kind [`Kind::Unavailable`] says that it was given up; the operation goes on without this client.
    pub async fn next(&mut self) -> Result<OperationView> {
        loop {
            match self.watch.next().await {
                Ok(Sight::Silent(silent)) => self.progress.silent(silent),
                Ok(Sight::View(_, fresh)) if fresh.stale => {}
                Ok(Sight::View(view, _)) => {
                    let Some(operation) = self.find(&view).await? else { continue };
                    if operation.status == "confirming" {
                        self.confirm().await?;
                    }
                    self.progress.show(&operation, &view.nodes);
                    return Ok(operation);
                }
                Err(error) if error.kind == Kind::Unavailable => {
                    return Err(
                        error.hint(format!("the operation goes on; see soloist operation show {}", self.id))
                    );
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins a new watch after the last one was given up.
    pub fn again(&mut self) {
        self.watch = Watch::new(&self.client, &self.fleet);
    }

    /// What people see of it.
    pub fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    async fn find(&self, view: &FleetView) -> Result<Option<OperationView>> {
        let known = view.current.iter().chain(&view.queue).find(|operation| operation.id == self.id);
        if let Some(operation) = known {
            return Ok(Some(operation.clone()));
        }
        match get(&self.client, &self.fleet, &self.id).await {
            Ok(operation) => Ok(Some(operation)),
            Err(error) if error.kind == Kind::Unavailable => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn confirm(&self) -> Result<()> {
        let request = v1::ConfirmRequest { fleet: self.fleet.to_string(), operation: self.id.to_string() };
        let confirmed = self.client.call(|mut stub| {
            let request = request.clone();
            async move { stub.confirm(request).await }
        });
        match confirmed.await {
            // Tried again with the next news; they also say if it has ended meanwhile.
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::Unavailable || error.is("ended") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// One operation as it stands.
pub async fn get(client: &Client, fleet: &FleetId, id: &OperationId) -> Result<OperationView> {
    let request = v1::GetOperationRequest { fleet: fleet.to_string(), operation: id.to_string() };
    let reply = client.call(|mut stub| {
        let request = request.clone();
        async move { stub.get_operation(request).await }
    });
    Ok(nested("operation", reply.await?.operation)?)
}

/// Whether a blocked operation goes on without a person when its cause is gone.
pub fn goes_on_by_itself(operation: &OperationView) -> bool {
    Blocked::passes(&operation.cause)
}

/// What an operation that has ended means for the exit code.
pub fn verdict(operation: &OperationView) -> Result<()> {
    if operation.status == "succeeded" {
        return Ok(());
    }
    let how = match operation.status.as_str() {
        "rolled_back" => "was rolled back, and the old version runs again",
        _ => "was ended early",
    };
    let text = format!("{} {how}: {}", operation.request, operation.detail);
    let kind = if operation.cause == "not_granted" { Kind::NotGranted } else { Kind::Failed };
    let show = format!("see soloist operation show {}", operation.id);
    Err(CtlError::new(kind, text).hint(show))
}

/// The state of a node that an operation waits for.
fn node<'a>(nodes: &'a [NodeView], name: Option<&NodeId>) -> Option<&'a NodeView> {
    let name = name?;
    nodes.iter().find(|node| node.node == *name)
}

#[cfg(test)]
mod tests {
    use soloist_core::{
        Command, Entry, State, apply,
        command::{FEATURE_LEVEL, Submission},
        operation::{Request, Status},
        state::Fleet,
        time::Time,
        view::operation_view,
    };

    use super::*;

    /// An operation of the core that is blocked for this reason, as people see it.
    fn blocked(why: Blocked) -> OperationView {
        let (fleet, id) = (FleetId::new("shop").unwrap(), OperationId::new("op").unwrap());
        let mut state = State::default();
        state.fleets.insert(fleet.clone(), Fleet::default());
        let submission = Submission::default();
        let command = Command::Submit {
            fleet: fleet.clone(),
            operation: id.clone(),
            request: Request::Stop,
            submission,
        };
        apply(&mut state, 1, &Entry { time: Time(1), wall_ms: 0, feature_level: FEATURE_LEVEL, command });
        let fleet = state.fleets.get(&fleet).unwrap();
        let mut operation = fleet.operation(&id).unwrap().clone();
        operation.status = Status::Blocked(why);
        operation_view(&state, fleet, &operation)
    }

    #[test]
    fn the_core_says_which_blocks_go_on_by_themselves() {
        let node = || NodeId::new("node-1").unwrap();
        for why in [
            Blocked::Unreachable(vec![node()]),
            Blocked::Breach(node(), "x".into()),
            Blocked::Refused(node(), "x".into()),
        ] {
            assert!(goes_on_by_itself(&blocked(why)));
        }
        for why in [
            Blocked::TaskFailed(node(), "x".into()),
            Blocked::HolderLost,
            Blocked::Overdue,
            Blocked::Approval,
            Blocked::WritesAtStake("x".into()),
        ] {
            assert!(!goes_on_by_itself(&blocked(why)));
        }
    }

    #[test]
    fn an_operation_that_came_too_late_is_75() {
        let mut operation = blocked(Blocked::Overdue);
        (operation.status, operation.ended) = ("aborted".into(), true);
        operation.cause = "not_granted".into();
        assert_eq!(verdict(&operation).unwrap_err().kind, Kind::NotGranted);
        operation.cause = String::new();
        assert_eq!(verdict(&operation).unwrap_err().kind, Kind::Failed);
        operation.status = "rolled_back".into();
        let error = verdict(&operation).unwrap_err();
        assert_eq!(error.kind.code(), 1);
        assert!(error.message.contains("was rolled back, and the old version runs again"), "{error}");
        operation.status = "succeeded".into();
        assert!(verdict(&operation).is_ok());
    }
}
