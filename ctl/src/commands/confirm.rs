//! A typed confirmation of what cannot be undone.

use std::io::{self, IsTerminal as _};

use crate::{
    commands::Context,
    error::{CtlError, Kind, Result},
};

/// What is given up, and the name that a person types to agree.
#[derive(Debug, Clone)]
pub struct Loss {
    /// What the name belongs to: a backup, an operation.
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// What will be lost, in one sentence.
    pub text: String,
}

/// Goes on only if the name was given with `--confirm`, or is typed now.
pub fn confirm(context: &Context, loss: &Loss, given: Option<&str>) -> Result<()> {
    let typed = match given {
        Some(given) => given.to_owned(),
        None => ask(context, loss)?,
    };
    if typed == loss.name {
        return Ok(());
    }
    let text = format!("\"{typed}\" is not the name of the {}: nothing was done", loss.what);
    Err(CtlError::new(Kind::Usage, text))
}

fn ask(context: &Context, loss: &Loss) -> Result<String> {
    let Loss { what, name, text } = loss;
    if !io::stdin().is_terminal() {
        let hint = format!("to go on, add --confirm {name}");
        return Err(CtlError::new(Kind::Usage, text).hint(hint));
    }
    context.ui.note(&format!("{text}; type the {what}'s name ({name}) to go on:"));
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(|error| CtlError::failed(format!("cannot read the answer: {error}")))?;
    Ok(line.trim().to_owned())
}
