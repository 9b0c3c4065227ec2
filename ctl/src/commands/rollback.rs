//! `soloist rollback`.

use soloist_core::{
    ids::{BackupId, FleetId},
    operation::Request,
    view::OperationView,
};

use crate::{
    clock,
    commands::{
        Context, backup,
        confirm::{Loss, confirm},
        operate::{self, operate},
        operation,
    },
    error::{CtlError, Kind, Result},
    render::json::Backup,
};

/// Go back to a backup with its code, by default to the one before the last upgrade: everything written since is lost
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup's name; see soloist backup list
    backup: Option<BackupId>,
    /// The backup's name, instead of typing it when asked
    #[arg(long, value_name = "BACKUP")]
    confirm: Option<BackupId>,
    #[command(flatten)]
    options: operate::Options,
}

/// Brings database and code back.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    let found = find(context, &fleet, args.backup.as_ref()).await?;
    bring_back(context, &fleet, &found, args.confirm.as_ref(), &args.options).await
}

/// The backup that is named, or the one that the last upgrade made.
pub async fn find(context: &Context, fleet: &FleetId, named: Option<&BackupId>) -> Result<Backup> {
    if let Some(named) = named {
        return backup::find(context, fleet, named).await;
    }
    let operations = operation::list(context, fleet, 0).await?.operations;
    let backups = backup::backups(context, fleet).await?;
    choose(&operations, &backups).cloned()
}

/// The backup of the newest upgrade that has one. One that was rolled back counts last: the fleet is where it was before it.
fn choose<'a>(operations: &[OperationView], backups: &'a [Backup]) -> Result<&'a Backup> {
    let upgrades = || operations.iter().filter(|operation| operation.request.starts_with("upgrade --to "));
    if let Some(open) = upgrades().find(|operation| !operation.ended) {
        let text = format!("{} has not ended: {}", open.id, open.request);
        return Err(CtlError::new(Kind::Refused, text)
            .hint(format!("let it go back itself: soloist operation rollback {}", open.id))
            .hint("or name a backup, see soloist backup list"));
    }
    let made =
        |operation: &OperationView| backups.iter().find(|backup| backup.backup == operation.id.as_str());
    let standing = upgrades().filter(|operation| operation.status != "rolled_back").find_map(made);
    standing.or_else(|| upgrades().find_map(made)).ok_or_else(|| {
        CtlError::new(Kind::Refused, "no upgrade is remembered whose backup is still there")
            .hint("name the backup; see soloist backup list")
    })
}

/// Brings back a backup with its code, once a person has confirmed what is lost.
pub async fn bring_back(
    context: &Context,
    fleet: &FleetId,
    found: &Backup,
    confirmed: Option<&BackupId>,
    options: &operate::Options,
) -> Result<()> {
    let version = found.version.as_ref();
    let code = version.map(|version| format!("the code goes back to {version}, and ")).unwrap_or_default();
    let made = clock::local(found.wall_ms);
    let loss = Loss {
        what: "backup",
        name: found.backup.clone(),
        text: format!("{code}everything written since {made} will be lost"),
    };
    confirm(context, &loss, confirmed.map(BackupId::as_str))?;
    operate(context, fleet, "rollback", request(found)?, options).await
}

/// What going back asks for.
pub fn request(found: &Backup) -> Result<Request> {
    let backup = BackupId::new(&found.backup).map_err(|error| CtlError::failed(error.to_string()))?;
    Ok(Request::Restore { backup, code: true })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::render::example;

    fn upgrade(id: &str, status: &str) -> OperationView {
        let ended = status != "blocked";
        let id = id.parse().unwrap();
        OperationView { id, request: "upgrade --to 2.2.16".into(), status: status.into(), ended, ..example() }
    }

    fn backup(name: &str) -> Backup {
        Backup {
            backup: name.into(),
            node: "node-1".into(),
            wall_ms: 0,
            version: Some("2.2.15".into()),
            facts: BTreeMap::new(),
        }
    }

    fn chosen(operations: &[OperationView]) -> Result<String> {
        let backups = ["upgrade-3", "upgrade-2", "backup-1", "upgrade-1"].map(backup);
        choose(operations, &backups).map(|backup| backup.backup.clone())
    }

    #[test]
    fn the_newest_upgrade_that_stands_has_the_backup() {
        let [newest, older] = [upgrade("upgrade-3", "rolled_back"), upgrade("upgrade-2", "succeeded")];
        assert_eq!(chosen(&[newest.clone(), older]).unwrap(), "upgrade-2");
        assert_eq!(chosen(&[newest]).unwrap(), "upgrade-3");
        let gone = upgrade("upgrade-9", "succeeded");
        assert_eq!(chosen(&[gone.clone(), upgrade("upgrade-1", "aborted")]).unwrap(), "upgrade-1");
        assert_eq!(chosen(&[gone]).unwrap_err().kind, Kind::Refused);
    }

    #[test]
    fn an_upgrade_that_has_not_ended_goes_back_itself() {
        let error = chosen(&[upgrade("upgrade-3", "blocked")]).unwrap_err();
        assert!(error.hints[0].contains("soloist operation rollback upgrade-3"), "{error:?}");
        let stop = OperationView { request: "stop".into(), ..upgrade("stop-1", "blocked") };
        assert_eq!(chosen(&[stop, upgrade("upgrade-2", "succeeded")]).unwrap(), "upgrade-2");
    }
}
