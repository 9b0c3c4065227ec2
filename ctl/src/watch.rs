//! A fleet's status as it changes, over connections that break.
//!
//! A task of its own follows a stream, and another one when that breaks, falls silent, or comes from a member that has lost
//! its leader. So reading from it is cancel-safe.

use std::time::Duration;

use soloist_core::{ids::FleetId, view::FleetView};
use soloist_proto::{convert::nested, errors::Problem, v1};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tonic::Streaming;

use crate::{
    client::{Client, goes_on},
    error::{CtlError, Kind, Result},
    render::Fresh,
};

/// Without news for so long, people are told.
pub const SILENT_AFTER: Duration = Duration::from_secs(3);
/// Without news for so long, it is given up.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// A stream is abandoned when it brings nothing for so long; a member sends something every 2 s.
const STREAM_SILENCE: Duration = Duration::from_secs(6);
/// How long the answer to the first request of a stream may take.
const OPEN: Duration = Duration::from_secs(5);
/// Between two looks at the time, and between two attempts to connect.
const TICK: Duration = Duration::from_millis(250);
/// News that wait for a slow reader.
const QUEUE: usize = 8;

/// News of a fleet.
#[derive(Debug, Clone)]
pub enum Sight {
    /// How it is.
    View(Box<FleetView>, Fresh),
    /// For so long, nothing current was heard.
    Silent(Duration),
}

/// Follows a fleet's status. Ends when it is dropped.
pub struct Watch {
    news: mpsc::Receiver<Result<Sight>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to follow.
    pub fn new(client: &Client, fleet: &FleetId) -> Watch {
        let (to, news) = mpsc::channel(QUEUE);
        let task = tokio::spawn(follow(client.clone(), fleet.clone(), to));
        Watch { news, task }
    }

    /// The next news. After an error there are none. Cancel-safe.
    pub async fn next(&mut self) -> Result<Sight> {
        self.news.recv().await.unwrap_or_else(|| Err(CtlError::failed("the status is no longer followed")))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a look at the time says.
enum Patience {
    Enough,
    Tell(Duration),
    Over,
}

struct Quiet {
    since: Instant,
    told: bool,
}

impl Quiet {
    fn look(&mut self) -> Patience {
        let silent = self.since.elapsed();
        if silent >= GIVE_UP_AFTER {
            Patience::Over
        } else if silent >= SILENT_AFTER && !self.told {
            self.told = true;
            Patience::Tell(silent)
        } else {
            Patience::Enough
        }
    }
}

async fn follow(client: Client, fleet: FleetId, to: mpsc::Sender<Result<Sight>>) {
    let mut quiet = Quiet { since: Instant::now(), told: false };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_error = None;
    loop {
        let request = v1::StatusRequest { fleet: fleet.to_string(), local: false };
        let open = client.call_within(OPEN, |mut stub| {
            let request = request.clone();
            async move { stub.watch(request).await }
        });
        tokio::pin!(open);
        let opened = loop {
            // Cancel-safe: `open` goes on where it was.
            tokio::select! {
                opened = &mut open => break opened,
                _ = ticks.tick() => {}
            }
            if !tell(&mut quiet, &to, last_error.as_ref()).await {
                return;
            }
        };
        match opened {
            Ok(mut stream) => match read(&mut stream, &mut quiet, &mut ticks, &to, last_error.as_ref()).await
            {
                Broken::Gone => return,
                Broken::Again => client.move_on(),
            },
            Err(error) if error.kind == Kind::Unavailable => {
                last_error = Some(error);
                ticks.tick().await;
                if !tell(&mut quiet, &to, last_error.as_ref()).await {
                    return;
                }
            }
            Err(error) => {
                let _ = to.send(Err(error)).await;
                return;
            }
        }
    }
}

enum Broken {
    /// Nobody listens, or it was given up.
    Gone,
    /// Another stream is needed.
    Again,
}

async fn read(
    stream: &mut Streaming<v1::StatusReply>,
    quiet: &mut Quiet,
    ticks: &mut tokio::time::Interval,
    to: &mpsc::Sender<Result<Sight>>,
    last_error: Option<&CtlError>,
) -> Broken {
    let mut heard = Instant::now();
    let mut stale = 0_u32;
    loop {
        // Cancel-safe: a message that was not complete stays in the stream.
        let message = tokio::select! {
            message = stream.message() => Some(message),
            _ = ticks.tick() => None,
            () = to.closed() => return Broken::Gone,
        };
        match message {
            Some(Ok(Some(reply))) => {
                heard = Instant::now();
                match sight(reply) {
                    Ok((view, fresh)) => {
                        if fresh.stale {
                            stale += 1;
                        } else {
                            (stale, *quiet) = (0, Quiet { since: Instant::now(), told: false });
                        }
                        if to.send(Ok(Sight::View(Box::new(view), fresh))).await.is_err() {
                            return Broken::Gone;
                        }
                    }
                    Err(error) => {
                        let _ = to.send(Err(error)).await;
                        return Broken::Gone;
                    }
                }
                // A second one in a row is not a moment's election: another member may know more.
                if stale > 1 {
                    return Broken::Again;
                }
            }
            Some(Ok(None)) => return Broken::Again,
            Some(Err(status)) => {
                let problem = Problem::from(&status);
                if goes_on(&problem) {
                    return Broken::Again;
                }
                let _ = to.send(Err(problem.into())).await;
                return Broken::Gone;
            }
            None if heard.elapsed() > STREAM_SILENCE => return Broken::Again,
            None => {}
        }
        if !tell(quiet, to, last_error).await {
            return Broken::Gone;
        }
    }
}

/// Says how long it has been silent, if it is time to; `false` when it is given up.
async fn tell(quiet: &mut Quiet, to: &mpsc::Sender<Result<Sight>>, last_error: Option<&CtlError>) -> bool {
    match quiet.look() {
        Patience::Enough => !to.is_closed(),
        Patience::Tell(silent) => to.send(Ok(Sight::Silent(silent))).await.is_ok(),
        Patience::Over => {
            let text = format!("no coordinator that can decide was heard for {} s", GIVE_UP_AFTER.as_secs());
            let mut error = CtlError::new(Kind::Unavailable, text);
            if let Some(last) = last_error {
                error.message = format!("{}; last: {}", error.message, last.message);
                error.hints.clone_from(&last.hints);
            }
            let _ = to.send(Err(error)).await;
            false
        }
    }
}

/// A status reply as the core's types.
pub fn sight(reply: v1::StatusReply) -> Result<(FleetView, Fresh)> {
    Ok((nested("view", reply.view)?, reply.freshness.unwrap_or_default().into()))
}
