//! `soloist plan`.

use clap::Subcommand;
use soloist_core::{
    ids::{BackupId, FleetId, NodeId},
    operation::{PluginChange, Request},
    preview::PlannedStep,
};
use soloist_proto::{convert::each, v1};

use crate::{
    commands::{
        Context,
        package::{PutRequest, RemoveRequest},
        plugin,
        request::{
            BackupRequest, HoldRequest, MigrateRequest, PluginRequest, PrepareRequest, RestartRequest,
            StartRequest, UpgradeRequest,
        },
        rollback,
    },
    error::Result,
    render::{Fresh, json, plan, status},
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
    #[command(subcommand)]
    Plugin(PluginPart),
    /// Of a command under the lock
    Run(HoldRequest),
    /// Of a backup
    Backup(BackupRequest),
    /// Of a restore
    Restore {
        /// The backup's name
        backup: BackupId,
    },
    /// Of an upgrade, or of preparing for it
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Upgrade {
        #[command(subcommand)]
        part: Option<UpgradePart>,
        #[command(flatten)]
        request: UpgradeRequest,
    },
    /// Of going back to a backup with its code
    Rollback {
        /// The backup's name; by default the one before the last upgrade
        backup: Option<BackupId>,
    },
    /// Of running the fleet's checks
    Verify,
    /// Of restarting nodes one after the other
    Restart(RestartRequest),
    /// Of running the migrations that are due
    Migrate(MigrateRequest),
    /// Of restarting the nodes that have not loaded what they should
    Heal,
    /// Of removing a node from the fleet
    #[command(subcommand)]
    Node(NodePart),
}

#[derive(Debug, Subcommand)]
enum PluginPart {
    /// Of enabling it
    Enable(PluginRequest),
    /// Of disabling it
    Disable(PluginRequest),
    /// Of adding packages
    Add {
        #[command(flatten)]
        request: PutRequest,
        /// Enable them in the same outage
        #[arg(long)]
        enable: bool,
    },
    /// Of bringing packages to another version
    Update(PutRequest),
    /// Of removing packages
    Remove(RemoveRequest),
}

impl PluginPart {
    async fn request(self, context: &Context, fleet: &FleetId) -> Result<Request> {
        let (on, request) = match &self {
            PluginPart::Enable(request) | PluginPart::Disable(request) => {
                let enable = matches!(self, PluginPart::Enable(_));
                let change = if enable { PluginChange::Enable } else { PluginChange::Disable };
                let package = plugin::package(context, fleet, request).await?;
                (&request.on, request.request(change, package))
            }
            PluginPart::Add { request, enable } => (&request.on, request.request(*enable)?),
            PluginPart::Update(request) => (&request.on, request.request(false)?),
            PluginPart::Remove(request) => (&request.on, request.request()),
        };
        context.check_node(fleet, on.as_ref()).await?;
        Ok(request)
    }
}

#[derive(Debug, Subcommand)]
enum NodePart {
    /// Of removing it
    Remove {
        /// Its name
        node: NodeId,
    },
}

#[derive(Debug, Subcommand)]
enum UpgradePart {
    /// Of fetching a version
    Prepare(PrepareRequest),
}

/// Prints the steps.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    let request = match args.what {
        What::Start(start) => start.request(),
        What::Stop => Request::Stop,
        What::Plugin(part) => part.request(context, &fleet).await?,
        What::Run(hold) => {
            context.check_node(&fleet, hold.on.as_ref()).await?;
            hold.request()
        }
        What::Backup(backup) => {
            context.check_node(&fleet, backup.on.as_ref()).await?;
            backup.request()
        }
        What::Restore { backup } => Request::Restore { backup, code: false },
        What::Upgrade { part: Some(UpgradePart::Prepare(prepare)), .. } => prepare.request(),
        What::Upgrade { part: None, request } => {
            context.check_node(&fleet, request.on.as_ref()).await?;
            request.request()?
        }
        What::Rollback { backup } => {
            rollback::request(&rollback::find(context, &fleet, backup.as_ref()).await?)?
        }
        What::Verify => Request::Verify,
        What::Migrate(migrate) => {
            context.check_node(&fleet, migrate.on.as_ref()).await?;
            migrate.request()
        }
        What::Restart(restart) => restart.request(),
        What::Heal => Request::Heal,
        What::Node(NodePart::Remove { node }) => Request::Remove { node },
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
    let steps: Vec<PlannedStep> = each("steps", reply.steps)?;
    let freshness = Fresh::from(reply.freshness.unwrap_or_default());
    let planned = json::Plan { known: plan::known(&steps), steps, freshness };
    context.ui.data(&planned, || format!("{}{}", status::stale(&planned.freshness), plan::steps(&planned)))
}
