//! `soloist cluster move`.

use soloist_proto::v1;

use crate::{commands::Context, error::Result};

/// Tell the others that a member is at another address now
///
/// Stop it, change listen and advertise in its configuration, start it with its old data folder, then give this command. The
/// others must have a quorum without it meanwhile.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id
    id: u64,
    /// Where it is now, host:port
    address: String,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let Args { id, address } = args;
    let request = v1::MoveMemberRequest { member: id, address: address.clone(), forwarded: false };
    let done = context.client.call_cluster(|mut stub| {
        let request = request.clone();
        async move { stub.move_member(request).await }
    });
    let _ = done.await?;
    let value = serde_json::json!({ "member": id, "address": address });
    context.ui.data(&value, || format!("member {id} is at {address}\n"))?;
    context.ui.hint(super::NAMES);
    Ok(())
}
