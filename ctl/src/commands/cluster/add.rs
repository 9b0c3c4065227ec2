//! `soloist cluster add`.

use std::time::Duration;

use serde::Serialize;
use soloist_proto::v1;
use tokio::time::{Instant, sleep};

use crate::{
    cli::duration,
    commands::Context,
    error::{CtlError, Kind, Result},
};

/// Between two looks at how far a new member came.
const LOOK: Duration = Duration::from_millis(300);
/// Between two lines about it where nobody watches a terminal.
const LINE: Duration = Duration::from_secs(5);

/// Take a new member in: first as a learner until it has the log, then as a voter
///
/// It must run already, with an empty data folder and an id that was never used: soloist-coordinator --join --id ID --listen
/// ADDRESS. A dead member is removed before a new one is added.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// Where the others reach it, host:port
    address: String,
    /// Leave it a learner: it receives the log and does not vote
    #[arg(long)]
    learner: bool,
    /// How long it may take to receive the log
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    wait: Duration,
}

/// The member that was added.
#[derive(Debug, Serialize)]
struct Added {
    member: u64,
    address: String,
    voter: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let Args { id, address, learner, wait } = args;
    let request = v1::AddMemberRequest { member: id, address: address.clone(), learner, forwarded: false };
    let deadline = Instant::now() + wait;
    let mut said: Option<(Instant, String)> = None;
    loop {
        let reply = context.client.call_cluster(|mut stub| {
            let request = request.clone();
            async move { stub.add_member(request).await }
        });
        let v1::AddMemberReply { done, matched, last_log } = reply.await?;
        if done {
            break;
        }
        let progress = format!("member {id} has {matched} of {last_log} entries");
        if Instant::now() >= deadline {
            let waited = humantime::format_duration(wait);
            let text = format!("{progress} after {waited}: it did not catch up, and stays a learner");
            return Err(CtlError::new(Kind::Failed, text)
                .hint("look at its log; then give the same command again, which goes on from there")
                .hint(format!("or let it go again: soloist cluster remove {id}")));
        }
        let quiet = if context.ui.is_live() { LOOK } else { LINE };
        if said.as_ref().is_none_or(|(at, text)| at.elapsed() >= quiet && *text != progress) {
            context.ui.note(&progress);
            said = Some((Instant::now(), progress));
        }
        sleep(LOOK).await;
    }
    let added = Added { member: id, address, voter: !learner };
    context.ui.data(&added, || {
        let what = if learner { "a learner" } else { "a voter" };
        format!("member {id} at {} is {what}\n", added.address)
    })?;
    context.ui.hint(super::NAMES);
    Ok(())
}
