//! `soloist upgrade`.

use clap::Subcommand;
use soloist_core::{
    ids::{BackupId, FleetId, Version},
    operation::Request,
};

use crate::{
    commands::{
        Context, backup,
        operate::{self, operate},
        request::{PrepareRequest, UpgradeRequest},
        rollback::bring_back,
    },
    error::{CtlError, Kind, Result},
    render::json::Backup,
};

/// Bring code and database to another version: backed up first, and back by itself if it fails
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    request: UpgradeRequest,
    /// For an older version: bring back the newest backup of it, with its code; everything written since is lost
    #[arg(long)]
    allow_downgrade: bool,
    /// With --allow-downgrade: the backup's name, instead of typing it when asked
    #[arg(long, value_name = "BACKUP", requires = "allow_downgrade")]
    confirm: Option<BackupId>,
    #[command(flatten)]
    options: operate::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch a version on every node and compare what arrived; nothing is stopped for it
    Prepare {
        #[command(flatten)]
        request: PrepareRequest,
        #[command(flatten)]
        options: operate::Options,
    },
}

/// Upgrades the fleet, or prepares for that.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    if let Some(Command::Prepare { request, options }) = &args.command {
        return operate(context, &fleet, "prepare", request.request(), options).await;
    }
    context.check_node(&fleet, args.request.on.as_ref()).await?;
    let to = args.request.to()?;
    match operate(context, &fleet, "upgrade", args.request.request()?, &args.options).await {
        Err(error) if error.is("downgrade") && args.allow_downgrade => {
            downgrade(&args, context, &fleet, &to).await
        }
        Err(error) if error.is("downgrade") => Err(error
            .hint(format!("or let the newest backup be found: soloist upgrade --to {to} --allow-downgrade"))),
        done => done,
    }
}

async fn downgrade(args: &Args, context: &Context, fleet: &FleetId, to: &Version) -> Result<()> {
    let backups = backup::backups(context, fleet).await?;
    let found = newest_of(&backups, to).ok_or_else(|| {
        let text = format!("there is no backup of version {to}, and a database cannot go back without one");
        CtlError::new(Kind::Refused, text).hint("see what there is with soloist backup list")
    })?;
    bring_back(context, fleet, found, args.confirm.as_ref(), &args.options).await
}

/// The newest backup of a version; backups come newest first.
fn newest_of<'a>(backups: &'a [Backup], version: &Version) -> Option<&'a Backup> {
    backups.iter().find(|backup| backup.version.as_deref() == Some(version.0.as_str()))
}

/// What an upgrade to the version that is there already did.
pub fn nothing_to_do(fleet: &FleetId, request: &Request) -> Option<String> {
    match request {
        Request::Upgrade { to, .. } => Some(format!("fleet {fleet} has version {to} already")),
        Request::Heal => Some(format!("every node of fleet {fleet} has loaded what it should")),
        _ => None,
    }
}
