//! Runs any range of seeds of the simulated world, with any one safety rule switched off.
//!
//! `cargo run -p soloist-tests --bin sim -- --seeds 0..2000`

use std::process::ExitCode;

use clap::Parser;
use soloist_core::rule::Rule;
use soloist_tests::sim::{Summary, World};

#[derive(Parser)]
#[command(about = "Runs seeds of Soloist's simulated world")]
struct Args {
    /// First and last seed plus one, as in 0..2000.
    #[arg(long, default_value = "0..2000", value_parser = range)]
    seeds: (u64, u64),
    /// Switch one safety rule off: the run should then find a failure.
    #[arg(long, value_parser = rule)]
    break_rule: Option<Rule>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (low, high) = text.split_once("..").ok_or("give a range such as 0..2000")?;
    let number = |part: &str| part.parse::<u64>().map_err(|error| format!("{part}: {error}"));
    Ok((number(low)?, number(high)?))
}

fn rule(text: &str) -> Result<Rule, String> {
    let names = || Rule::ALL.map(|rule| format!("{rule:?}")).join(", ");
    Rule::ALL
        .into_iter()
        .find(|rule| format!("{rule:?}") == text)
        .ok_or_else(|| format!("the rules are {}", names()))
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn main() -> ExitCode {
    let args = Args::parse();
    let work = || {
        let mut total = Summary::default();
        for seed in args.seeds.0..args.seeds.1 {
            let world = World::new(seed);
            let world = if args.trace { world.traced() } else { world };
            match world.run() {
                Ok(summary) => total += summary,
                Err(failure) => {
                    println!("{failure}");
                    return ExitCode::FAILURE;
                }
            }
        }
        println!("seeds {}..{}: all promises kept; {total:?}", args.seeds.0, args.seeds.1);
        ExitCode::SUCCESS
    };
    match args.break_rule {
        None => work(),
        Some(rule) => rule.broken(work),
    }
}
