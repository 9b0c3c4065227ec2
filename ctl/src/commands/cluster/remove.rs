//! `soloist cluster remove`.

use soloist_proto::v1;

use crate::{
    commands::{
        Context,
        confirm::{Loss, confirm},
    },
    error::Result,
};

/// Take a member out, for good: its id is never used again
///
/// Refused if the others could not decide any more. A leader hands over first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id
    id: u64,
    /// Its id again, in place of typing it
    #[arg(long, value_name = "ID")]
    confirm: Option<u64>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let Args { id, confirm: given } = args;
    let text = format!(
        "member {id} will leave the cluster, and neither its data folder nor its id can be used again; to come back it needs an empty folder \
         and another id"
    );
    confirm(
        context,
        &Loss { what: "member", name: id.to_string(), text },
        given.map(|id| id.to_string()).as_deref(),
    )?;
    let request = v1::RemoveMemberRequest { member: id, forwarded: false };
    let done = context.client.call_cluster(|mut stub| async move { stub.remove_member(request).await });
    let _ = done.await?;
    let value = serde_json::json!({ "member": id, "removed": true });
    context.ui.data(&value, || format!("member {id} is removed: stop its coordinator\n"))?;
    context.ui.hint(super::NAMES);
    Ok(())
}
