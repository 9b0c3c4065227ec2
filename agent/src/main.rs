//! The agent's program. `soloist-agent keep …` is the app keeper, which must stay small: it is dispatched before
//! anything else is set up.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("keep") => soloist_agent::keeper::main(args),
        _ => ExitCode::from(soloist_agent::keeper::EXIT_USAGE),
    }
}
