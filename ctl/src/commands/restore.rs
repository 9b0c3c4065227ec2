//! `soloist restore`.

use clap::ArgGroup;
use soloist_core::{ids::BackupId, operation::Request};

use crate::{
    clock,
    commands::{
        Context, backup,
        confirm::{Loss, confirm},
        operate::{self, operate},
    },
    error::Result,
};

/// Bring the fleet back to a backup: everything written since is lost
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("what").required(true).args(["backup", "accept_database"])))]
pub struct Args {
    /// The backup's name; see soloist backup list
    backup: Option<BackupId>,
    /// Restore nothing: say that the database is whole, mended by hand after a restore that did not end
    #[arg(long, requires = "reason")]
    accept_database: bool,
    /// The same name again, instead of typing it when asked
    #[arg(long, value_name = "BACKUP")]
    confirm: Option<BackupId>,
    #[command(flatten)]
    options: operate::Options,
}

/// Restores the fleet.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    let Some(backup) = args.backup else {
        return operate(context, &fleet, "accept", Request::AcceptDatabase, &args.options).await;
    };
    let found = backup::find(context, &fleet, &backup).await?;
    let loss = Loss {
        what: "backup",
        name: found.backup,
        text: format!("everything that was written after {} will be lost", clock::local(found.wall_ms)),
    };
    confirm(context, &loss, args.confirm.as_ref().map(BackupId::as_str))?;
    operate(context, &fleet, "restore", Request::Restore { backup, code: false }, &args.options).await
}
