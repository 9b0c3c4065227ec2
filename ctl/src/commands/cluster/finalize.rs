//! `soloist cluster finalize`.

use soloist_proto::v1;

use crate::{
    commands::{
        Context,
        confirm::{Loss, confirm},
        me,
    },
    error::Result,
};

/// End an upgrade of the coordinators: let the cluster do what only the new version knows
///
/// Until then each member can go back to the version before; afterwards none can. Refused unless every member answers and knows
/// the level.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The cluster's name, in place of typing it
    #[arg(long, value_name = "CLUSTER")]
    confirm: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let cluster = super::members(context).await?.cluster;
    let text = format!("after this, no member of cluster \"{cluster}\" can go back to the version before");
    confirm(context, &Loss { what: "cluster", name: cluster, text }, args.confirm.as_deref())?;
    let request = v1::FinalizeRequest { by: me(), forwarded: false };
    let done = context.client.call_cluster(|mut stub| {
        let request = request.clone();
        async move { stub.finalize(request).await }
    });
    let v1::FinalizeReply { level, raised } = done.await?;
    let value = serde_json::json!({ "level": level, "raised": raised });
    context.ui.data(&value, || match raised {
        true => format!("the cluster is at feature level {level}\n"),
        false => {
            format!("the cluster is at feature level {level} already, and no member knows a higher one\n")
        }
    })
}
