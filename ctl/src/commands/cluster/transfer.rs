//! `soloist cluster transfer`.

use soloist_proto::v1;

use crate::{commands::Context, error::Result};

/// Let another member lead, for example before its host is restarted
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Who is to lead; without it the voter that is most up to date
    id: Option<u64>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let request = v1::TransferLeaderRequest { member: args.id.unwrap_or(0), forwarded: false };
    let done = context.client.call_cluster(|mut stub| async move { stub.transfer_leader(request).await });
    let v1::TransferLeaderReply { member } = done.await?;
    let value = serde_json::json!({ "leader": member });
    context.ui.data(&value, || format!("member {member} leads\n"))
}
