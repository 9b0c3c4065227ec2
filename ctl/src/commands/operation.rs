//! `soloist operation`.

use clap::Subcommand;
use soloist_core::{
    command::Decision,
    ids::{FleetId, OperationId},
    view::OperationView,
};
use soloist_proto::{
    convert::{each, nested},
    v1,
};

use crate::{
    clock,
    commands::{
        Context,
        confirm::{Loss, confirm},
        me,
    },
    error::Result,
    evidence::{self, Shown},
    names,
    render::{Fresh, json::Operations, status, table},
};

/// Look at operations, end one early, try again, or decide what an upgrade waits for
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List operations, newest first
    List {
        /// At most so many; 0 for all that are remembered
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one in full
    Show {
        /// Its id
        id: OperationId,
    },
    /// End one early: what was stopped is started again. Asked twice, what does not come back is left out
    Abort {
        /// Its id
        id: OperationId,
        /// Why; kept with the event
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Try the step again for which it waits
    Retry {
        /// Its id
        id: OperationId,
    },
    /// What an upgrade has verified on one node is good: go on with the others
    Approve {
        /// Its id
        id: OperationId,
        /// Why; kept with the event
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// It is not good: go back to the old version
    Reject {
        /// Its id
        id: OperationId,
        /// Why; kept with the event
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a blocked upgrade go back to the old version
    Rollback {
        /// Its id
        id: OperationId,
        /// Also if users may have written since the backup: give that up
        #[arg(long)]
        lose_writes: bool,
        /// With --lose-writes: the operation's id again, instead of typing it when asked
        #[arg(long, value_name = "ID", requires = "lose_writes")]
        confirm: Option<OperationId>,
        /// Why; kept with the event
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Looks at operations, or ends or retries one.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    match args.command {
        Command::List { limit } => {
            let list = list(context, &fleet, limit).await?;
            context.ui.data(&list, || {
                format!("{}{}", status::stale(&list.freshness), table::operations(&list.operations))
            })
        }
        Command::Show { id } => {
            let shown = show(context, &fleet, &id).await;
            suggested(context, &fleet, &id, shown).await
        }
        Command::Abort { id, reason } => {
            let aborted = abort(context, &fleet, &id, &reason).await;
            suggested(context, &fleet, &id, aborted).await?;
            context.ui.note(&format!("{id} is being ended early; see soloist operation show {id}"));
            Ok(())
        }
        Command::Retry { id } => {
            let retried = retry(context, &fleet, &id).await;
            suggested(context, &fleet, &id, retried).await?;
            context.ui.note(&format!("{id} tries again; see soloist operation show {id}"));
            Ok(())
        }
        Command::Approve { id, reason } => {
            let decided = decide(context, &fleet, &id, Decision::Approve, &reason).await;
            suggested(context, &fleet, &id, decided).await?;
            context.ui.note(&format!("{id} goes on; see soloist operation show {id}"));
            Ok(())
        }
        Command::Reject { id, reason } => {
            let decided = decide(context, &fleet, &id, Decision::Reject, &reason).await;
            suggested(context, &fleet, &id, decided).await?;
            context.ui.note(&format!("{id} goes back; see soloist operation show {id}"));
            Ok(())
        }
        Command::Rollback { id, lose_writes, confirm, reason } => {
            if lose_writes {
                let agreed = agree(context, &fleet, &id, confirm.as_ref()).await;
                suggested(context, &fleet, &id, agreed).await?;
            }
            let decision = Decision::Rollback { lose_writes };
            let decided = decide(context, &fleet, &id, decision, &reason).await;
            suggested(context, &fleet, &id, decided).await?;
            context.ui.note(&format!("{id} goes back; see soloist operation show {id}"));
            Ok(())
        }
    }
}

/// Has a person agree that what users wrote is lost.
async fn agree(
    context: &Context,
    fleet: &FleetId,
    id: &OperationId,
    given: Option<&OperationId>,
) -> Result<()> {
    let operation = crate::follow::get(&context.client, fleet, id).await?;
    let since = operation.writes_since_wall_ms.map_or("the backup".to_owned(), clock::local);
    let loss = Loss {
        what: "operation",
        name: id.to_string(),
        text: format!("everything that users wrote since {since} will be lost"),
    };
    confirm(context, &loss, given.map(OperationId::as_str))
}

async fn decide(
    context: &Context,
    fleet: &FleetId,
    id: &OperationId,
    decision: Decision,
    reason: &str,
) -> Result<()> {
    let request = v1::DecideRequest {
        fleet: fleet.to_string(),
        operation: id.to_string(),
        decision: Some(decision.into()),
        by: me(),
        reason: reason.to_owned(),
    };
    let decided = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.decide(request).await }
    });
    decided.await.map(|_| ())
}

/// Operations, newest first; all that are remembered with the limit 0.
pub async fn list(context: &Context, fleet: &FleetId, limit: u32) -> Result<Operations> {
    let request = v1::ListOperationsRequest { fleet: fleet.to_string(), limit };
    let reply = context.client.call_fresh(
        |mut stub| {
            let request = request.clone();
            async move { stub.list_operations(request).await }
        },
        |reply: &v1::ListOperationsReply| reply.freshness.clone().unwrap_or_default(),
    );
    let reply = reply.await?;
    let freshness = Fresh::from(reply.freshness.unwrap_or_default());
    Ok(Operations { operations: each("operations", reply.operations)?, freshness })
}

async fn show(context: &Context, fleet: &FleetId, id: &OperationId) -> Result<()> {
    let request = v1::GetOperationRequest { fleet: fleet.to_string(), operation: id.to_string() };
    let reply = context.client.call_fresh(
        |mut stub| {
            let request = request.clone();
            async move { stub.get_operation(request).await }
        },
        |reply: &v1::GetOperationReply| reply.freshness.clone().unwrap_or_default(),
    );
    let reply = reply.await?;
    let fresh = Fresh::from(reply.freshness.unwrap_or_default());
    let operation: OperationView = nested("operation", reply.operation)?;
    // An older coordinator has no evidence.
    let found = evidence::now(&context.client, fleet, id).await.ok().flatten();
    let shown = Shown { operation: &operation, evidence: found.as_ref() };
    context.ui.data(&shown, || {
        let proven = found.as_ref().map(|found| status::evidence(&found.lines)).unwrap_or_default();
        format!("{}{}{proven}", status::stale(&fresh), status::operation(&operation))
    })
}

/// Asks to end an operation early.
pub async fn abort(context: &Context, fleet: &FleetId, id: &OperationId, reason: &str) -> Result<()> {
    let request = v1::AbortRequest {
        fleet: fleet.to_string(),
        operation: id.to_string(),
        by: me(),
        reason: reason.to_owned(),
    };
    let aborted = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.abort(request).await }
    });
    aborted.await.map(|_| ())
}

async fn retry(context: &Context, fleet: &FleetId, id: &OperationId) -> Result<()> {
    let operation = crate::follow::get(&context.client, fleet, id).await?;
    let request = v1::RetryRequest {
        fleet: fleet.to_string(),
        operation: id.to_string(),
        attempt: operation.attempt,
        by: me(),
    };
    let retried = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.retry(request).await }
    });
    retried.await.map(|_| ())
}

/// Adds to an unknown id what was probably meant.
async fn suggested<T>(context: &Context, fleet: &FleetId, id: &OperationId, result: Result<T>) -> Result<T> {
    match result {
        Err(error) if error.is("unknown_operation") => {
            let Ok(known) = list(context, fleet, 0).await else { return Err(error) };
            let known: Vec<String> =
                known.operations.iter().map(|operation| operation.id.to_string()).collect();
            Err(names::suggest(error, id.as_str(), &known))
        }
        result => result,
    }
}
