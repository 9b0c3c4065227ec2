//! `soloist plan`.

use clap::Subcommand;
use soloist_core::{ids::BackupId, operation::Request};
use soloist_proto::v1;

use crate::{
    commands::{
        Context, plugin,
        request::{BackupRequest, Change, HoldRequest, PluginRequest, StartRequest},
    },
    error::Result,
    render::{Fresh, json, status},
};

/// Print the steps that a command would take now; changes nothing
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Of a start
    Start(StartRequest),
    /// Of a stop
    Stop,
    /// Of a plugin change
    Plugin {
        /// What to do with it
        #[arg(value_enum)]
        change: Change,
        #[command(flatten)]
        request: PluginRequest,
    },
    /// Of a command under the lock
    Run(HoldRequest),
    /// Of a backup
    Backup(BackupRequest),
    /// Of a restore
    Restore {
        /// The backup's name
        backup: BackupId,
    },
}

/// Prints the steps.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    let request = match args.what {
        What::Start(start) => start.request(),
        What::Stop => Request::Stop,
        What::Plugin { change, request } => {
            context.check_node(&fleet, request.on.as_ref()).await?;
            let package = plugin::package(context, &fleet, &request).await?;
            request.request(change, package)
        }
        What::Run(hold) => {
            context.check_node(&fleet, hold.on.as_ref()).await?;
            hold.request()
        }
        What::Backup(backup) => {
            context.check_node(&fleet, backup.on.as_ref()).await?;
            backup.request()
        }
        What::Restore { backup } => Request::Restore { backup },
    };
    let request = v1::PlanRequest { fleet: fleet.to_string(), request: Some(request.into()) };
    let reply = context.client.call_fresh(
        |mut stub| {
            let request = request.clone();
            async move { stub.plan(request).await }
        },
        |reply: &v1::PlanReply| reply.freshness.clone().unwrap_or_default(),
    );
    let reply = reply.await?;
    let plan = json::Plan { steps: reply.steps, freshness: Fresh::from(reply.freshness.unwrap_or_default()) };
    context.ui.data(&plan, || {
        let steps = plan.steps.iter().enumerate();
        let lines: String = steps.map(|(at, step)| format!("{:>2}  {step}\n", at + 1)).collect();
        format!("{}{lines}", status::stale(&plan.freshness))
    })
}
