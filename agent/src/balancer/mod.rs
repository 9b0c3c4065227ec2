//! The load balancer beside this agent: which nodes get requests.
//!
//! The agent says what is wanted of each node's server, again and again; [`Balancer::drive`] looks at the balancer, changes what
//! differs, takes at most one step per server, and says what is so now. It waits for nobody's requests: those that are under
//! way are counted by the next call.
//!
//! ```text
//!            Out wanted              nothing under way, or the deadline
//!   In ───────────────────► Draining ───────────────────────────────────► Out
//!    ▲                       │  at the deadline: what is left is cut        │
//!    └───────────────────────┴──────────────── In wanted ──────────────────┘
//! ```
//!
//! A balancer that is reloaded or restarted may forget. What it really does is read first in every call, so it is made so again,
//! and until then nobody is told that a node is out.
//!
//! What a driver remembers is only since when a server drains and how many connections were cut; an agent that was restarted
//! begins anew with what the balancer says, and a drain then has its whole time again.

mod config;
mod error;
mod haproxy;
mod nginx;

use std::collections::BTreeMap;
use std::time::Duration;

use soloist_core::ids::NodeId;

pub use config::{BalancerConfig, HaproxyConfig, NginxConfig};
pub use error::BalancerError;

use haproxy::Haproxy;
use nginx::Nginx;

/// What is wanted of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// It gets requests.
    In,
    /// It gets none.
    Out {
        /// How long requests and connections that are under way may go on before they are cut.
        within: Duration,
    },
}

/// What is wanted of all servers. Servers of the balancer that are not named are left alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Generation of the assignment that says so. It goes into the log only: an assignment that changes nothing for the
    /// balancer must not reload it.
    pub number: u64,
    /// Per node.
    pub servers: BTreeMap<NodeId, Want>,
}

/// What is so at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It gets requests.
    In,
    /// It gets no new ones; some are under way.
    Draining {
        /// How many: requests and connections for HAProxy, worker processes that still have some for nginx.
        in_flight: u64,
    },
    /// It gets none, and none is under way.
    Out {
        /// How many were ended at the deadline, counted as `in_flight`; with 0 nobody noticed.
        cut: u64,
    },
}

/// The driver of one balancer.
#[derive(Debug)]
pub struct Balancer(Driver);

#[derive(Debug)]
enum Driver {
    Haproxy(Haproxy),
    Nginx(Box<Nginx>),
}

impl Balancer {
    /// A driver that knows nothing yet. The configuration has no [`BalancerConfig::problem`].
    #[must_use]
    pub fn new(config: &BalancerConfig) -> Self {
        Self(match config {
            BalancerConfig::Haproxy(config) => Driver::Haproxy(Haproxy::new(config.clone())),
            BalancerConfig::Nginx(config) => Driver::Nginx(Box::new(Nginx::new(config.clone()))),
        })
    }

    /// Brings the balancer nearer to what is wanted, and says what is so now, for every wanted node. Takes a moment, and some
    /// seconds when the balancer hangs. It may be dropped half-way and called again.
    ///
    /// A node that is wanted in counts as [`Seen::In`] only when the balancer really sends it requests: its health checks, if
    /// there are any, have found it too. Until then it is [`Seen::Out`].
    ///
    /// # Errors
    /// When the balancer cannot be asked or does not obey; then nothing is known of any node.
    pub async fn drive(&mut self, wanted: &Wanted) -> Result<BTreeMap<NodeId, Seen>, BalancerError> {
        match &mut self.0 {
            Driver::Haproxy(haproxy) => haproxy.drive(wanted).await,
            Driver::Nginx(nginx) => nginx.drive(wanted).await,
        }
    }
}
