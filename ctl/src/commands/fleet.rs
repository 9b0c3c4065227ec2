//! `soloist fleet`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Subcommand;
use serde::Serialize;
use soloist_core::{ids::FleetId, policy::Policy};
use soloist_proto::{convert::nested, v1};

use crate::{
    client::ClusterStub,
    commands::{Context, me},
    error::{CtlError, Kind, Result},
    policy_file,
    render::{Fresh, policy, status},
};

/// How long a change waits for a leader.
const ELECTION: Duration = Duration::from_secs(5);

/// Look at what is wanted of the fleet, or change it: lengths of time, checks, backups
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the policy as a file that can be edited and applied again
    Show,
    /// Make the policy what a file says; prints the difference
    Apply {
        /// TOML, or JSON if its name ends with .json
        file: PathBuf,
        /// Only print the difference
        #[arg(long)]
        dry_run: bool,
        /// Why; kept with the event
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let it go on after its coordinators were restored from a backup, when nothing of what was under way goes on
    Resume {
        /// What you have looked at; kept with the event
        #[arg(long)]
        reason: String,
    },
}

impl Args {
    /// Whether a file is printed.
    pub fn shows(&self) -> bool {
        matches!(self.command, Command::Show)
    }
}

/// What a file changes.
#[derive(Debug, Serialize)]
struct Applied {
    fleet: FleetId,
    /// The policy's version, afterwards if it was changed.
    version: u64,
    /// A line each.
    changes: Vec<String>,
    /// Whether it was changed.
    applied: bool,
}

/// Shows or changes the policy.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    match args.command {
        Command::Show => show(context, &fleet).await,
        Command::Resume { reason } => resume(context, &fleet, reason).await,
        Command::Apply { file, dry_run, reason } => apply(context, fleet, &file, dry_run, reason).await,
    }
}

async fn resume(context: &Context, fleet: &FleetId, reason: String) -> Result<()> {
    let request = v1::ResumeRequest { fleet: fleet.to_string(), by: me(), reason };
    let ask = |mut stub: ClusterStub| {
        let request = request.clone();
        async move { stub.resume(request).await }
    };
    context.client.call_cluster(ask).await?;
    let text = format!("fleet {fleet} goes on as soon as its agents have taken note\n");
    context.ui.data(&serde_json::json!({ "resumed": fleet }), || text)
}

async fn show(context: &Context, fleet: &FleetId) -> Result<()> {
    let (found, version, fresh) = get(context, fleet).await?;
    if fresh.stale {
        context.ui.note(status::stale(&fresh).trim_end());
    }
    context.ui.data(&policy::value(&found), || match context.ui.is_toml() {
        true => policy::file(fleet, &found, version),
        false => policy::table(&found),
    })
}

async fn apply(context: &Context, fleet: FleetId, file: &Path, dry_run: bool, reason: String) -> Result<()> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CtlError::new(Kind::Usage, format!("cannot read {}: {error}", file.display())))?;
    let wanted = policy_file::read(file, &text)?;
    // An election lasts about a second; nobody should have to ask again because of it.
    let newest = || async {
        let (found, seen, fresh) = get(context, &fleet).await?;
        if fresh.stale {
            let text = format!("the policy may have been changed meanwhile: {}", fresh.reason);
            return Err(CtlError::new(Kind::Unavailable, text));
        }
        Ok((found, seen))
    };
    let (found, seen) = context.client.insist(ELECTION, newest).await?;
    let changes = policy::changes(&found, &wanted);
    let applied = !changes.is_empty() && !dry_run;
    let version = if applied {
        let request = v1::SetPolicyRequest {
            fleet: fleet.to_string(),
            policy: Some(wanted.into()),
            seen,
            by: me(),
            reason,
            changes: changes.clone(),
        };
        let set = context.client.call(|mut stub| {
            let request = request.clone();
            async move { stub.set_policy(request).await }
        });
        set.await?.version
    } else {
        seen
    };
    let done = Applied { fleet, version, changes, applied };
    context.ui.data(&done, || match done.changes.is_empty() {
        true => "nothing to change\n".to_owned(),
        false => done.changes.iter().map(|change| format!("{change}\n")).collect(),
    })?;
    if done.applied {
        context.ui.note(&format!("the policy of fleet {} has version {version} now", done.fleet));
    }
    Ok(())
}

async fn get(context: &Context, fleet: &FleetId) -> Result<(Policy, u64, Fresh)> {
    let request = v1::GetPolicyRequest { fleet: fleet.to_string() };
    let reply = context.client.call_fresh(
        |mut stub| {
            let request = request.clone();
            async move { stub.get_policy(request).await }
        },
        |reply: &v1::GetPolicyReply| reply.freshness.clone().unwrap_or_default(),
    );
    let reply = reply.await?;
    let fresh = Fresh::from(reply.freshness.unwrap_or_default());
    Ok((nested("policy", reply.policy)?, reply.version, fresh))
}
