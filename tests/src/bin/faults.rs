//! Breaks a real fleet at random and judges what became of it, or judges the record of an earlier run again.
//!
//! `cargo build && cargo run -p soloist-tests --bin faults -- --seed 7 --minutes 20 --report target/faults` (as root)

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use soloist_tests::faults::nemesis::Fault;
use soloist_tests::faults::report;
use soloist_tests::faults::schedule::{Plan, run};

#[derive(Parser)]
#[command(about = "Breaks a real fleet at random, and judges what became of it")]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Decides what is broken, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long things are broken.
    #[arg(long, default_value_t = 20.0)]
    minutes: f64,
    /// How many agents without hosts take part.
    #[arg(long, default_value_t = 64)]
    swarm: usize,
    /// Breaks only these, by their names; all of them unless given.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    only: Vec<Fault>,
    /// Folder for the report.
    #[arg(long, default_value = "target/faults")]
    report: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Computes the verdict of a report again, from its raw record.
    Check {
        /// The report's folder.
        folder: PathBuf,
    },
}

fn fault(text: &str) -> Result<Fault, String> {
    let names = || Fault::ALL.map(|fault| fault.to_string()).join(", ");
    let found = Fault::ALL.into_iter().find(|fault| fault.to_string() == text);
    found.ok_or_else(|| format!("the faults are {}", names()))
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn main() -> ExitCode {
    let args = Args::parse();
    let verdict = match args.command {
        Some(Command::Check { folder }) => match report::check(&folder) {
            Ok((verdict, true)) => verdict,
            Ok((_, false)) => {
                println!("the verdict in the folder is not the one that follows from its record");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                println!("{error:#}");
                return ExitCode::FAILURE;
            }
        },
        None => {
            let faults = if args.only.is_empty() { Fault::ALL.to_vec() } else { args.only };
            let length = Duration::from_secs_f64(args.minutes * 60.0);
            let plan = Plan { seed: args.seed, length, swarm: args.swarm, faults };
            let record = run(&plan, |text| println!("{text}"));
            match report::write(&args.report, &record) {
                Ok(verdict) => verdict,
                Err(error) => {
                    println!("{error:#}");
                    return ExitCode::FAILURE;
                }
            }
        }
    };
    println!("{}", report::summary(&verdict));
    if verdict.good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
