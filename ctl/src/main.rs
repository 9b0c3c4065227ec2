//! The program `soloist`.

use std::process::ExitCode;

fn main() -> ExitCode {
    soloist::cli::main(std::env::args_os())
}
