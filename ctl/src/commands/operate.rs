//! Asking for an operation, and following it to its end: what `start`, `stop` and `plugin` share.

use std::time::Duration;

use soloist_core::{
    command::Submission,
    ids::{FleetId, MachineId, OperationId},
    operation::{Blocked, Request},
    time::Millis,
    view::OperationView,
};
use soloist_proto::v1;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{
    cli::duration,
    commands::{Context, machine, me, run::nested, upgrade::nothing_to_do},
    error::{CtlError, Kind, Result},
    evidence::{self, Shown},
    follow::{Follow, Progress, goes_on_by_itself, verdict},
    render::{length, status},
};

/// Options of commands that ask for an operation.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How it is asked for.
    #[command(flatten)]
    pub asking: Asking,
    /// Print the operation's id and do not follow it
    #[arg(long)]
    pub detach: bool,
    /// Without a terminal: how long to stay with an operation that waits for a person
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub blocked_timeout: Duration,
}

/// How an operation is asked for.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Asking {
    /// Why; kept with the operation, and shown to users whom it keeps away (the maintenance page)
    #[arg(long, default_value = "")]
    pub reason: String,
    /// End the operation if it is not granted by then (exit code 75), for example 5m [default: the fleet's policy]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Ask for it although preflight finds a problem that stands in its way
    #[arg(long)]
    pub skip_preflight: bool,
}

/// A new id for an operation: a word and eight random digits.
pub fn new_id(word: &str) -> Result<OperationId> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let short: String = random.chars().take(8).collect();
    OperationId::new(format!("{word}-{short}")).map_err(|error| CtlError::failed(error.to_string()))
}

/// Asks for an operation. Asking again with the same id is asking once.
pub async fn submit(
    context: &Context,
    fleet: &FleetId,
    id: &OperationId,
    request: &Request,
    asking: &Asking,
) -> Result<()> {
    let submission = Submission {
        by: me(),
        reason: asking.reason.clone(),
        wait: asking.wait.map(|wait| Millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))),
        machine: MachineId(machine()),
    };
    let request = v1::SubmitRequest {
        fleet: fleet.to_string(),
        operation: id.to_string(),
        request: Some(request.clone().into()),
        submission: Some(submission.into()),
        skip_preflight: asking.skip_preflight,
    };
    let submitted = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.submit(request).await }
    });
    submitted.await.map(|_| ()).map_err(|error| match error.kind {
        Kind::Unavailable => error.hint(format!(
            "it is not certain that it was not asked for: when they answer again, see soloist operation show {id}"
        )),
        _ => error,
    })
}

/// Asks for an operation and follows it to its end, unless told otherwise.
pub async fn operate(
    context: &Context,
    fleet: &FleetId,
    word: &str,
    request: Request,
    options: &Options,
) -> Result<()> {
    nested::refuse_inside(context, fleet, &request.to_string()).await?;
    let id = new_id(word)?;
    submit(context, fleet, &id, &request, &options.asking).await?;
    if options.detach {
        context
            .ui
            .hint(&format!("see how it goes with soloist operation show {id}, or soloist status --follow"));
        return context.ui.data(&serde_json::json!({ "operation": id }), || id.to_string());
    }
    let progress = Progress::new(context.ui);
    progress.line(&format!("{request}: asked for as {id}"));
    let mut follow = Follow::new(&context.client, fleet, &id, progress);
    let operation = to_the_end(context, &mut follow, &id, options.blocked_timeout).await?;
    if operation.status == "succeeded"
        && operation.steps.is_empty()
        && let Some(text) = nothing_to_do(fleet, &request)
    {
        follow.progress().line(&text);
    }
    finish(context, fleet, &mut follow, &operation).await
}

/// Follows until the operation has ended; with an error when a person interrupts, or must do something.
async fn to_the_end(
    context: &Context,
    follow: &mut Follow,
    id: &OperationId,
    blocked_timeout: Duration,
) -> Result<OperationView> {
    let broken = |error: std::io::Error| CtlError::failed(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut blocked: Option<(Instant, OperationView)> = None;
    loop {
        let patience = async {
            match &blocked {
                Some((since, _)) => tokio::time::sleep_until(*since + blocked_timeout).await,
                None => std::future::pending().await,
            }
        };
        // Cancel-safe: what `next` misses comes again.
        let operation = tokio::select! {
            operation = follow.next() => operation?,
            _ = interrupt.recv() => return Err(detached(id, SignalKind::interrupt())),
            _ = terminate.recv() => return Err(detached(id, SignalKind::terminate())),
            () = patience => return Err(waits_for_a_person(blocked.map(|(_, operation)| operation), id)),
        };
        if operation.ended {
            return Ok(operation);
        }
        if operation.cause == Blocked::Approval.word() {
            // Whoever approves takes longer than anybody watches.
            return Err(waits_for_a_person(Some(operation), id));
        }
        let stuck = operation.status == "blocked" && !goes_on_by_itself(&operation) && !context.ui.is_live();
        blocked = stuck.then(|| (blocked.map_or_else(Instant::now, |(since, _)| since), operation));
    }
}

fn detached(id: &OperationId, signal: SignalKind) -> CtlError {
    CtlError::new(Kind::Signal(signal.as_raw_value()), "no longer followed; the operation goes on")
        .hint(format!("look at it with soloist operation show {id}"))
        .hint(format!("end it early with soloist operation abort {id}"))
}

fn waits_for_a_person(operation: Option<OperationView>, id: &OperationId) -> CtlError {
    let (detail, choices) =
        operation.map(|operation| (operation.detail, operation.choices)).unwrap_or_default();
    let mut error =
        CtlError::failed(format!("blocked: {detail}; the operation keeps the lock and waits for a person"));
    error.hints = choices;
    error.hint(format!("look at it with soloist operation show {id}"))
}

/// Says how it ended, what users had of it, and what is proven about it.
pub async fn finish(
    context: &Context,
    fleet: &FleetId,
    follow: &mut Follow,
    operation: &OperationView,
) -> Result<()> {
    for line in operation.outage.iter().flat_map(status::outage) {
        follow.progress().line(&line);
    }
    let evidence = evidence::settled(&context.client, fleet, operation).await;
    for line in evidence.iter().flat_map(|evidence| &evidence.lines) {
        follow.progress().line(line);
    }
    verdict(operation)?;
    let text = format!("{}: {} in {}", operation.request, operation.status, length(operation.age));
    follow.progress().line(&text);
    if context.ui.is_json() {
        let shown = Shown { operation, evidence: evidence.as_ref() };
        return context.ui.data(&shown, || status::operation(operation));
    }
    Ok(())
}
