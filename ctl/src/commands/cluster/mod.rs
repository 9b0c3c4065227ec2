//! `soloist cluster`: the coordinators' own cluster. One file per command.

mod add;
mod backup;
mod finalize;
mod relocate;
mod remove;
mod restore;
mod status;
mod transfer;

use clap::Subcommand;
use soloist_proto::v1;

use crate::{commands::Context, error::Result};

/// Look at the coordinators, let members come, go, move and lead, and back their state up
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Args),
    Add(add::Args),
    Remove(remove::Args),
    Transfer(transfer::Args),
    Move(relocate::Args),
    Finalize(finalize::Args),
    Backup(backup::Args),
    Restore(restore::Args),
}

/// Looks at the cluster or changes it.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    match args.command {
        Command::Status(args) => status::run(args, context).await,
        Command::Add(args) => add::run(args, context).await,
        Command::Remove(args) => remove::run(args, context).await,
        Command::Transfer(args) => transfer::run(args, context).await,
        Command::Move(args) => relocate::run(args, context).await,
        Command::Finalize(args) => finalize::run(args, context).await,
        Command::Backup(args) => backup::run(args, context).await,
        Command::Restore(args) => restore::run(&args, context),
    }
}

/// The members as the leader sees them; if nobody reaches it, as one that is left sees them.
async fn members(context: &Context) -> Result<v1::MembersReply> {
    let ask = |mut stub: crate::client::ClusterStub| async move {
        stub.members(v1::MembersRequest::default()).await
    };
    let freshness = |reply: &v1::MembersReply| {
        let own = reply.members.iter().find(|info| info.member == reply.member);
        let led = reply.members.iter().any(|info| info.reachable && info.role == "leader");
        v1::Freshness { stale: !led, applied: own.map_or(0, |own| own.applied), ..v1::Freshness::default() }
    };
    context.client.cluster_fresh(ask, freshness).await
}

/// What to tell a person whose configurations name the members.
const NAMES: &str = "agents learn the members by themselves; name them in SOLOIST_ENDPOINTS, and in the agents' configuration when it is \
    written next";
