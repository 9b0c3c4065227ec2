//! `soloist lock`.

use clap::Subcommand;
use soloist_core::ids::FleetId;
use soloist_proto::v1;

use crate::{
    commands::{Context, me},
    error::{CtlError, Kind, Result},
    render::{status, table},
};

/// Show the maintenance lock, or take it away from a lost holder
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Who holds it, since when, and why
    Status,
    /// Take it away; make sure first that the holder's work has ended
    Release(ReleaseArgs),
}

#[derive(Debug, clap::Args)]
struct ReleaseArgs {
    /// Yes, take it away: its holder is refused from then on, and the fleet is brought back
    #[arg(long, required = true)]
    force: bool,
    /// Why; kept with the event
    #[arg(long)]
    reason: String,
}

/// Shows or takes away the lock.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    match args.command {
        Command::Status => {
            let (view, fresh) = context.status(&fleet).await?;
            let request = view.current.as_ref().map(|operation| operation.request.as_str());
            context.ui.data(&view.lock, || {
                format!("{}{}\n", status::stale(&fresh), table::lock(&view.lock, request))
            })
        }
        Command::Release(release) => force(context, &fleet, &release).await,
    }
}

async fn force(context: &Context, fleet: &FleetId, release: &ReleaseArgs) -> Result<()> {
    let (view, _) = context.status(fleet).await?;
    let Some(token) = view.lock.token.filter(|_| view.lock.held) else {
        return Err(CtlError::new(Kind::Refused, format!("the lock of fleet \"{fleet}\" is free")));
    };
    let request = v1::ForceReleaseRequest {
        fleet: fleet.to_string(),
        token: token.0,
        by: me(),
        reason: release.reason.clone(),
    };
    let reply = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.force_release(request).await }
    });
    let reply = reply.await?;
    let was = table::lock(&view.lock, None);
    context.ui.hint("the lock is free once the fleet is back; see soloist status --follow");
    context.ui.data(&serde_json::json!({ "token": reply.token }), || {
        format!(
            "taken away (it was {was}); token {token} is refused from now on, the new one is {}\n",
            reply.token
        )
    })
}
