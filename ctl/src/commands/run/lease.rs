//! The holder's lease: renewed every third of its length, and over when it was not.
//!
//! The coordinators count from when they apply a renewal, the holder from when it sent the request: so the holder always
//! believes that its lease ends first. It counts the time in which its host sleeps.

use std::time::Duration;

use soloist_core::ids::FleetId;
use soloist_proto::v1;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::Grant;
use crate::{
    client::Client,
    clock,
    error::{CtlError, Kind, Result},
};

/// Between two attempts while no coordinator answers.
const PAUSE: Duration = Duration::from_millis(500);
/// How long accepting a grant is tried while no coordinator can decide.
const ACCEPT: Duration = Duration::from_secs(60);
/// Between two looks at whether the lease has come to its margin: a host that slept wakes up late.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// Time to stop the command before the lease ends; less for a short lease.
const MARGIN: Duration = Duration::from_secs(7);

/// How a lease stands.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// When it ends, as time since boot.
    pub(super) until: Duration,
    /// How long it is.
    pub(super) length: Duration,
    /// Why it is not renewed any more.
    pub(super) refused: Option<CtlError>,
}

impl Standing {
    /// The time that is kept to stop the command.
    pub(super) fn margin(&self) -> Duration {
        MARGIN.min(self.length / 3)
    }

    /// Whether the command must be stopped now.
    pub(super) fn is_short(&self) -> bool {
        clock::since_boot() + self.margin() >= self.until
    }

    /// How long it still is.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_sub(clock::since_boot())
    }
}

/// A lease that is renewed until this is dropped.
pub(super) struct Lease {
    standing: watch::Receiver<Standing>,
    task: JoinHandle<()>,
}

impl Lease {
    /// Accepts the grant. The coordinators may be choosing a leader at this very moment: then it is tried again, as a grant that has
    /// been withdrawn meanwhile is refused.
    pub(super) async fn accept(client: &Client, fleet: &FleetId, grant: &Grant) -> Result<Lease> {
        let first = client.insist(ACCEPT, || renew(client, fleet, grant)).await?;
        let (to, standing) = watch::channel(first);
        let task = tokio::spawn(keep(client.clone(), fleet.clone(), grant.clone(), to));
        Ok(Lease { standing, task })
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Waits until it is refused, or too short to go on. Cancel-safe.
    pub(super) async fn lost(&mut self) -> CtlError {
        loop {
            let standing = self.standing.borrow_and_update().clone();
            if let Some(refused) = standing.refused {
                return refused;
            }
            if standing.is_short() {
                let text = "the lease could not be renewed in time";
                return CtlError::new(Kind::LockLost, text);
            }
            // A change, or the time for another look.
            let _ = timeout(LOOK, self.standing.changed()).await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Renews once.
async fn renew(client: &Client, fleet: &FleetId, grant: &Grant) -> Result<Standing> {
    let sent = clock::since_boot();
    let request = v1::RenewRequest {
        fleet: fleet.to_string(),
        operation: grant.operation.to_string(),
        token: grant.token.0,
    };
    let reply = client.call(|mut stub| {
        let request = request.clone();
        async move { stub.renew(request).await }
    });
    let length = Duration::from_millis(reply.await?.lease_ms);
    Ok(Standing { until: sent + length, length, refused: None })
}

async fn keep(client: Client, fleet: FleetId, grant: Grant, to: watch::Sender<Standing>) {
    loop {
        let (length, left) = {
            let standing = to.borrow();
            (standing.length, standing.left())
        };
        // Two thirds of it are left when it is renewed in time.
        let early = left.saturating_sub(length * 2 / 3);
        tokio::time::sleep(early.max(PAUSE.min(length / 10))).await;
        match renew(&client, &fleet, &grant).await {
            Ok(standing) => {
                to.send_replace(standing);
            }
            // Nobody has decided anything: tried again elsewhere, until the lease is too short.
            Err(error) if matches!(error.kind, Kind::Unavailable | Kind::Failed) => client.move_on(),
            Err(error) => {
                to.send_modify(|standing| standing.refused = Some(error));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_fits_into_a_short_lease() {
        let standing = |length: u64, left: u64| Standing {
            until: clock::since_boot() + Duration::from_secs(left),
            length: Duration::from_secs(length),
            refused: None,
        };
        assert_eq!(standing(30, 30).margin(), MARGIN);
        assert_eq!(standing(6, 6).margin(), Duration::from_secs(2));
        assert!(standing(30, 7).is_short() && !standing(30, 9).is_short());
        assert!(standing(30, 0).is_short());
    }
}
