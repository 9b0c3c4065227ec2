//! `soloist restore`.

use std::io::{self, IsTerminal as _};

use clap::ArgGroup;
use soloist_core::{ids::BackupId, operation::Request};

use crate::{
    clock,
    commands::{
        Context, backup,
        operate::{self, operate},
    },
    error::{CtlError, Kind, Result},
    render::json::Backup,
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
    let typed = match args.confirm {
        Some(confirm) => confirm.to_string(),
        None => ask(context, &found)?,
    };
    if typed != backup.as_str() {
        return Err(CtlError::new(
            Kind::Usage,
            format!("\"{typed}\" is not the name of the backup: nothing was done"),
        ));
    }
    operate(context, &fleet, "restore", Request::Restore { backup }, &args.options).await
}

fn ask(context: &Context, found: &Backup) -> Result<String> {
    let (name, made) = (&found.backup, clock::local(found.wall_ms));
    let loss = format!("everything that was written after {made} will be lost");
    if !io::stdin().is_terminal() {
        let hint = format!("to go on, add --confirm {name}");
        return Err(CtlError::new(Kind::Usage, loss).hint(hint));
    }
    context.ui.note(&format!("{loss}; type the backup's name ({name}) to go on:"));
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(|error| CtlError::failed(format!("cannot read the answer: {error}")))?;
    Ok(line.trim().to_owned())
}
