//! Commands inside a command that holds the lock already.

use std::process::ExitCode;

use soloist_core::{ids::FleetId, operation::Request};

use super::{
    child::{self, Command},
    signals::Signals,
};
use crate::{
    commands::{Context, request::HoldRequest},
    error::{CtlError, Kind, Result},
};

/// The holder that this program runs under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outer {
    /// Its operation.
    pub operation: String,
    /// Its token.
    pub token: u64,
    request: String,
    solo: Option<String>,
}

/// What the environment says of a holder of this fleet.
fn named(fleet: &FleetId) -> Option<(String, u64)> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if variable("SOLOIST_FLEET")? != fleet.as_str() {
        return None;
    }
    Some((variable("SOLOIST_OPERATION")?, variable("SOLOIST_FENCING_TOKEN")?.parse().ok()?))
}

/// The holder that this program runs under, if it still holds the lock.
pub async fn outer(context: &Context, fleet: &FleetId) -> Result<Option<Outer>> {
    let Some((operation, token)) = named(fleet) else { return Ok(None) };
    let (view, fresh) = context.status(fleet).await?;
    if fresh.stale {
        let text = format!("whether {operation} still holds the lock is not known: {}", fresh.reason);
        return Err(CtlError::new(Kind::Unavailable, text));
    }
    let current = view.current.filter(|current| {
        current.id.as_str() == operation && view.lock.token.is_some_and(|held| held.0 == token)
    });
    let Some(current) = current else {
        let text =
            format!("this runs under {operation}, token {token}, which does not hold the lock any more");
        return Err(CtlError::new(Kind::LockLost, text).hint(
            "stop the work; if this shell only inherited them, unset SOLOIST_OPERATION and SOLOIST_FENCING_TOKEN",
        ));
    };
    let solo = current.solo.map(|solo| solo.to_string());
    Ok(Some(Outer { operation, token, request: current.request, solo }))
}

/// Refuses what needs the lock, inside somebody who holds it: it would wait for itself.
pub async fn refuse_inside(context: &Context, fleet: &FleetId, what: &str) -> Result<()> {
    match outer(context, fleet).await? {
        None => Ok(()),
        Some(outer) => {
            let text = format!(
                "\"{what}\" needs the lock, which {} holds: it would wait for itself",
                outer.operation
            );
            Err(CtlError::new(Kind::Refused, text).hint("let the outer command end first, or do it before"))
        }
    }
}

/// Refuses a nested command that needs other nodes to run than the outer one keeps.
pub(super) fn check(outer: &Outer, request: &HoldRequest) -> Result<()> {
    let wanted: Request = request.request();
    if wanted.to_string() != outer.request {
        let text = format!("this runs inside \"{}\" and cannot be \"{wanted}\"", outer.request);
        return Err(
            CtlError::new(Kind::Refused, text).hint("ask the outer command for what the inner one needs")
        );
    }
    match (&request.on, &outer.solo) {
        (Some(on), Some(solo)) if on.as_str() != solo => {
            let text = format!("this runs inside {}, whose node is {solo}, not {on}", outer.operation);
            Err(CtlError::new(Kind::Refused, text))
        }
        _ => Ok(()),
    }
}

/// Runs the command under the outer lock: the outer one renews and releases.
pub(super) async fn run(command: &Command, _outer: &Outer, signals: &mut Signals) -> Result<ExitCode> {
    let mut child = command.spawn()?;
    loop {
        // Cancel-safe: both arms only wait.
        tokio::select! {
            status = child.wait() => return Ok(ExitCode::from(child::code(status?))),
            signal = signals.next() => child.forward(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_command_must_fit_the_outer_one() {
        let outer = Outer {
            operation: "run-1".into(),
            token: 7,
            request: "run --solo".into(),
            solo: Some("node-1".into()),
        };
        let request = |solo, on: Option<&str>| HoldRequest {
            solo,
            all_stopped: !solo,
            on: on.map(|on| on.parse().unwrap()),
        };
        assert!(check(&outer, &request(true, None)).is_ok());
        assert!(check(&outer, &request(true, Some("node-1"))).is_ok());
        assert_eq!(check(&outer, &request(true, Some("node-2"))).unwrap_err().kind, Kind::Refused);
        assert_eq!(check(&outer, &request(false, None)).unwrap_err().kind, Kind::Refused);
    }
}
