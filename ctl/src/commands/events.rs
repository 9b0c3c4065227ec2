//! `soloist events`.

use std::time::Duration;

use soloist_core::ids::{FleetId, OperationId};
use soloist_proto::{errors::Problem, v1};
use tokio::time::Instant;

use crate::{
    client::goes_on,
    commands::Context,
    error::{Kind, Result},
    render::{json::Event, table},
    watch::GIVE_UP_AFTER,
};

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);

/// Show what happened
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on with what happens
    #[arg(long, short)]
    follow: bool,
    /// Also what the coordinators' state has forgotten: as much as the answering member has archived
    #[arg(long)]
    all: bool,
    /// Only events of this operation
    #[arg(long)]
    operation: Option<OperationId>,
}

/// How far the events were told: several can share an index, and a stream can break between them.
#[derive(Debug, Default)]
struct Told {
    index: u64,
    count: usize,
}

impl Told {
    /// The index after which a new stream must begin.
    fn after(&self) -> u64 {
        self.index.saturating_sub(1)
    }

    fn note(&mut self, index: u64) {
        if index == self.index {
            self.count += 1;
        } else {
            *self = Told { index, count: 1 };
        }
    }
}

/// Shows events.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    let mut told = Told::default();
    let mut heard = Instant::now();
    loop {
        match stream(&args, context, &fleet, &mut told).await {
            Ok(true) if !args.follow => return Ok(()),
            // The stream broke, or its member stops: another one knows the same events.
            Ok(whole) => {
                if whole {
                    heard = Instant::now();
                }
                context.client.move_on();
            }
            Err(error) if error.kind != Kind::Unavailable => return Err(error),
            Err(error) if !args.follow || heard.elapsed() > GIVE_UP_AFTER => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tells the events of one stream; `true` if something answered and came to an end.
async fn stream(args: &Args, context: &Context, fleet: &FleetId, told: &mut Told) -> Result<bool> {
    let request = v1::EventsRequest {
        fleet: fleet.to_string(),
        after_index: told.after(),
        follow: args.follow,
        older: args.all,
    };
    let opened = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.events(request).await }
    });
    let mut events = opened.await?;
    let mut again = if told.index > 0 { told.count } else { 0 };
    let index = told.index;
    loop {
        match events.message().await {
            Ok(Some(event)) if event.index == index && again > 0 => again -= 1,
            Ok(Some(event)) => {
                told.note(event.index);
                tell(args, context, event.into())?;
            }
            Ok(None) => return Ok(true),
            Err(status) => {
                let problem = Problem::from(&status);
                return if args.follow && goes_on(&problem) { Ok(false) } else { Err(problem.into()) };
            }
        }
    }
}

fn tell(args: &Args, context: &Context, event: Event) -> Result<()> {
    let other = args.operation.as_ref().is_some_and(|id| event.operation.as_deref() != Some(id.as_str()));
    if other { Ok(()) } else { context.ui.item(&event, || table::event(&event)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_share_an_index_are_counted() {
        let mut told = Told::default();
        for index in [4, 7, 7, 7] {
            told.note(index);
        }
        assert_eq!((told.after(), told.count), (6, 3));
    }
}
