//! `soloist backup`.

use clap::Subcommand;
use soloist_core::{
    ids::{BackupId, FleetId},
    operation::Request,
};
use soloist_proto::v1;

use crate::{
    commands::{
        Context,
        operate::{self, operate},
        request::BackupRequest,
    },
    error::Result,
    names,
    render::{json::Backup, table},
};

/// Back the fleet up on one node while the others rest, or look at the backups
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    request: BackupRequest,
    #[command(flatten)]
    options: operate::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the backups, newest first
    List,
    /// Show one backup
    Show {
        /// The backup's name
        backup: BackupId,
    },
    /// Delete a backup; nothing is stopped for it
    Remove {
        /// The backup's name
        backup: BackupId,
        #[command(flatten)]
        options: operate::Options,
    },
}

/// Makes, lists, shows or removes backups.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    match args.command {
        None => {
            context.check_node(&fleet, args.request.on.as_ref()).await?;
            operate(context, &fleet, "backup", args.request.request(), &args.options).await
        }
        Some(Command::List) => {
            let backups = backups(context, &fleet).await?;
            context.ui.data(&backups, || table::backups(&backups))
        }
        Some(Command::Show { backup }) => {
            let backup = find(context, &fleet, &backup).await?;
            context.ui.data(&backup, || table::backup(&backup))
        }
        Some(Command::Remove { backup, options }) => {
            find(context, &fleet, &backup).await?;
            operate(context, &fleet, "remove", Request::RemoveBackup { backup }, &options).await
        }
    }
}

/// The backups, newest first.
pub async fn backups(context: &Context, fleet: &FleetId) -> Result<Vec<Backup>> {
    let request = v1::BackupsRequest { fleet: fleet.to_string() };
    let reply = context.client.call_fresh(
        |mut stub| {
            let request = request.clone();
            async move { stub.backups(request).await }
        },
        |reply: &v1::BackupsReply| reply.freshness.clone().unwrap_or_default(),
    );
    Ok(reply.await?.backups.into_iter().map(Into::into).collect())
}

/// A backup by name.
pub async fn find(context: &Context, fleet: &FleetId, name: &BackupId) -> Result<Backup> {
    let known = backups(context, fleet).await?;
    match known.iter().find(|backup| backup.backup == name.as_str()) {
        Some(backup) => Ok(backup.clone()),
        None => {
            let names: Vec<String> = known.into_iter().map(|backup| backup.backup).collect();
            Err(names::unknown("backup", name.as_str(), &format!("of fleet \"{fleet}\""), &names))
        }
    }
}
