//! `soloist cluster restore`: a restore is done on the coordinator's own host, while no coordinator runs; this says how.

use std::path::PathBuf;

use crate::{commands::Context, error::Result};

/// How a cluster that is lost is made again from a backup
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What soloist cluster backup has written
    file: PathBuf,
}

/// Prints the steps.
pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let file = args.file.display();
    let steps = [
        "stop every coordinator, and see to it that none of them starts again".to_owned(),
        "move their data folders away".to_owned(),
        format!("on one host: soloist-coordinator --config /etc/soloist/coordinator.toml restore {file}"),
        "start that coordinator: it refuses while a member of before answers".to_owned(),
        "start the others with empty data folders, ids that were never used, and join = true in place of members; take each in: \
         soloist cluster add ID HOST:PORT"
            .to_owned(),
        "look at each fleet when its agents have reported; the apps go on meanwhile, and nothing is changed: soloist status".to_owned(),
        "let it go on: soloist fleet resume --reason \"...\"".to_owned(),
    ];
    context.ui.data(&serde_json::json!({ "steps": steps }), || {
        let each = steps.iter().enumerate();
        each.map(|(at, step)| format!("{}. {step}\n", at + 1)).collect()
    })
}
