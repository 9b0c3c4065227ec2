//! `soloist run`: a command of one's own under the lock.
//!
//! ```text
//!   submit ──► wait for the grant ──► accept it ──► the command runs ──► release ──► the fleet comes back
//!                                        └── renew the lease every third of it ──┘
//! ```
//!
//! | what happens | what is done |
//! |---|---|
//! | interrupted before the grant | the operation is aborted |
//! | a signal while the command runs | it is passed on |
//! | somebody asks to abort | the command is stopped, then released |
//! | the lease cannot be renewed in time, or is refused | the command is stopped before the lease ends |
//! | the command leaves processes behind | they are stopped before the lock is released |

mod child;
mod hold;
mod lease;
pub mod nested;
mod program;
mod signals;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use soloist_core::{
    ids::{FleetId, NodeId, OperationId, Token},
    operation::Step,
    view::OperationView,
};

pub(crate) use self::signals::Signals;
use self::{child::Command, hold::Held};
use crate::{
    commands::{
        Context,
        operate::{Asking, finish, new_id, submit},
        operation::abort,
        request::HoldRequest,
    },
    error::{CtlError, Kind, Result},
    follow::{Follow, Progress, verdict},
};

/// How long the end of an operation that was aborted before its grant is waited for.
const ABORT_WAIT: Duration = Duration::from_secs(120);

/// Run a command while one node runs, or none
///
/// The command runs without a shell, in a process group of its own (unless it reads from a terminal), with SOLOIST_FLEET,
/// SOLOIST_OPERATION, SOLOIST_FENCING_TOKEN, SOLOIST_SOLO_NODE and SOLOIST_LEASE_DEADLINE (unix seconds) in its environment.
/// What it leaves running is stopped when it ends. Its exit status is passed on; if it is 0 and the fleet does not come back
/// afterwards, the exit status is 1. Inside another `soloist run` of the same fleet the command runs under that one's lock.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: HoldRequest,
    /// How it is asked for.
    #[command(flatten)]
    asking: Asking,
    /// Do not wait until the fleet is back after the command's end
    #[arg(long)]
    detach_after: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command and returns its status.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode> {
    // Before anything is stopped for it.
    let command = program::find(&args.command)?;
    let fleet = context.fleet().await?;
    let mut signals = Signals::new()?;
    if let Some(outer) = nested::outer(context, &fleet).await? {
        nested::check(&outer, &args.request)?;
        context.ui.note(&format!("runs under the lock of {}, token {}", outer.operation, outer.token));
        return nested::run(&command, &outer, &mut signals).await;
    }
    context.check_node(&fleet, args.request.on.as_ref()).await?;
    let id = new_id("run")?;
    let request = args.request.request();
    submit(context, &fleet, &id, &request, &args.asking).await?;
    let progress = Progress::new(context.ui);
    progress.line(&format!("{request}: asked for as {id}"));
    let mut follow = Follow::new(&context.client, &fleet, &id, progress);
    let grant = granted(context, &fleet, &id, &mut follow, &mut signals).await?;
    let held = Held { context, fleet: &fleet, grant: &grant };
    let ended = held.run(&command, &mut follow, &mut signals).await?;
    after(context, &args, (&fleet, &id), &mut follow, &mut signals, ended).await
}

/// The right to work.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) operation: OperationId,
    pub(crate) token: Token,
    pub(crate) solo: Option<NodeId>,
}

/// How the work under the lock ended, once the lock was released.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The command ended with this status.
    Status(u8),
    /// It was stopped because somebody asked to abort the operation; why.
    Aborted(String),
}

/// Whether the operation waits for its holder.
fn waits_for_holder(operation: &OperationView) -> bool {
    let released = Step::Released.to_string();
    operation.granted
        && !operation.ended
        && operation.steps.iter().any(|step| step.state == "now" && step.step == released)
}

/// Waits for the grant.
async fn granted(
    context: &Context,
    fleet: &FleetId,
    id: &OperationId,
    follow: &mut Follow,
    signals: &mut Signals,
) -> Result<Grant> {
    let mut waited = String::new();
    loop {
        // Cancel-safe: what `next` misses comes again.
        let operation = tokio::select! {
            operation = follow.next() => operation?,
            signal = signals.next() => return Err(withdrawn(context, fleet, id, follow, signals, signal).await),
        };
        if operation.ended {
            return Err(not_granted(&operation, &waited));
        }
        if let Some(token) = operation.token.filter(|_| waits_for_holder(&operation)) {
            return Ok(Grant { operation: id.clone(), token, solo: operation.solo.clone() });
        }
        waited = reasons(&operation);
    }
}

/// What the operation waits for.
fn reasons(operation: &OperationView) -> String {
    match operation.status.as_str() {
        "blocked" => return operation.detail.clone(),
        "queued" | "confirming" => return "its turn".to_owned(),
        _ => {}
    }
    let each = operation.waits.iter().map(|wait| match &wait.node {
        Some(node) => format!("{node}: {}", wait.what),
        None => wait.what.clone(),
    });
    each.collect::<Vec<_>>().join("; ")
}

fn not_granted(operation: &OperationView, waited: &str) -> CtlError {
    let mut error = match verdict(operation) {
        Err(error) => error,
        Ok(()) => CtlError::failed("the operation has ended without this client"),
    };
    if !waited.is_empty() && !error.message.contains(waited) {
        error.message = format!("{}; it waited for: {waited}", error.message);
    }
    error
}

/// Aborts an operation that was not granted yet, because of a signal.
async fn withdrawn(
    context: &Context,
    fleet: &FleetId,
    id: &OperationId,
    follow: &mut Follow,
    signals: &mut Signals,
    signal: i32,
) -> CtlError {
    let error = CtlError::new(Kind::Signal(signal), "interrupted before the grant");
    follow.progress().line("interrupted: the operation is aborted");
    if let Err(why) = abort(context, fleet, id, "interrupted by its client").await {
        let text = format!("interrupted, and the operation could not be aborted: {why}");
        return CtlError { message: text, ..error }
            .hint(format!("abort it with soloist operation abort {id}"));
    }
    let end = async {
        while let Ok(operation) = follow.next().await {
            if operation.ended {
                return true;
            }
        }
        false
    };
    // Cancel-safe: nothing more is asked for.
    let ended = tokio::select! {
        ended = tokio::time::timeout(ABORT_WAIT, end) => ended.unwrap_or(false),
        _ = signals.next() => false,
    };
    if ended {
        error
    } else {
        error.hint(format!("the fleet is being brought back; see soloist operation show {id}"))
    }
}

/// Follows until the fleet is back, and makes the exit status.
async fn after(
    context: &Context,
    args: &Args,
    (fleet, id): (&FleetId, &OperationId),
    follow: &mut Follow,
    signals: &mut Signals,
    ended: Ended,
) -> Result<ExitCode> {
    let status = match &ended {
        Ended::Status(status) => *status,
        Ended::Aborted(_) => Kind::Failed.code(),
    };
    if !args.detach_after {
        let back = back(context, (fleet, id), follow, signals).await;
        match (back, &ended) {
            // The command's own failure says more than what came of the fleet.
            (Err(error), Ended::Status(0)) => return Err(error),
            (Err(error), Ended::Status(_)) => context.ui.error(&error),
            _ => {}
        }
    }
    match ended {
        Ended::Aborted(why) => Err(CtlError::failed(format!("the command was stopped: {why}"))),
        Ended::Status(_) => Ok(ExitCode::from(status)),
    }
}

/// Follows until the fleet is back.
async fn back(
    context: &Context,
    (fleet, id): (&FleetId, &OperationId),
    follow: &mut Follow,
    signals: &mut Signals,
) -> Result<()> {
    let show = format!("look at it with soloist operation show {id}");
    loop {
        // Cancel-safe: what `next` misses comes again.
        let operation = tokio::select! {
            operation = follow.next() => operation?,
            signal = signals.next() => {
                let text = "the command has ended; the fleet is still being brought back";
                return Err(CtlError::new(Kind::Signal(signal), text).hint(show));
            }
        };
        if operation.ended {
            return finish(context, fleet, follow, &operation).await;
        }
        if operation.status == "blocked"
            && !context.ui.is_live()
            && !crate::follow::goes_on_by_itself(&operation)
        {
            let mut error = CtlError::failed(format!("the fleet does not come back: {}", operation.detail));
            error.hints = operation.choices;
            return Err(error.hint(show));
        }
    }
}

/// The environment that tells a command under which lock it runs.
pub(crate) fn environment(command: &mut Command, fleet: &FleetId, grant: &Grant, deadline_secs: u64) {
    command.set("SOLOIST_FLEET", fleet.as_str());
    command.set("SOLOIST_OPERATION", grant.operation.as_str());
    command.set("SOLOIST_FENCING_TOKEN", &grant.token.to_string());
    command.set("SOLOIST_SOLO_NODE", grant.solo.as_ref().map_or("", NodeId::as_str));
    command.set("SOLOIST_LEASE_DEADLINE", &deadline_secs.to_string());
}
