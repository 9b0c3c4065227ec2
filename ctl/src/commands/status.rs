//! `soloist status`.

use crate::{
    commands::Context,
    error::Result,
    render::{json, status},
    watch::{Sight, Watch},
};

/// Show a fleet: lock, nodes, operations, what they wait for and what can be done
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on, whenever something changes
    #[arg(long, short)]
    follow: bool,
}

/// Shows a fleet.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    if !args.follow {
        let (view, fresh) = context.status(&fleet).await?;
        let value = json::Status { view: &view, freshness: &fresh };
        return context.ui.data(&value, || status::fleet(&view, &fresh));
    }
    let mut watch = Watch::new(&context.client, &fleet);
    loop {
        match watch.next().await? {
            Sight::View(view, fresh) => {
                context.ui.clear()?;
                let value = json::Status { view: &view, freshness: &fresh };
                context.ui.item(&value, || format!("{}\n", status::fleet(&view, &fresh)))?;
            }
            Sight::Silent(silent) => {
                context
                    .ui
                    .note(&format!("no coordinator that can decide answers for {} s", silent.as_secs()));
            }
        }
    }
}
