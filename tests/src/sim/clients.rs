//! People and programs that use the fleet: they ask, confirm, hold, abort, retry, and start apps by hand.

use soloist_core::ids::{NodeId, OperationId, Token};
use soloist_core::operation::{HoldMode, Request};

/// A client that has asked for an operation.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) operation: OperationId,
    pub(crate) request: Request,
    pub(crate) alive: bool,
    pub(crate) next_poll: u64,
    /// Its work as an external holder.
    pub(crate) work: Option<Work>,
    pub(crate) will_crash: bool,
    pub(crate) host: usize,
    pub(crate) done: bool,
}

/// The work of an external holder.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) token: Token,
    pub(crate) mode: HoldMode,
    /// The node that may run meanwhile.
    pub(crate) solo: Option<NodeId>,
    /// When the work is done.
    pub(crate) until: u64,
    /// The holder's own deadline, by true time: sending time of the last answered renewal plus the lease.
    pub(crate) deadline: u64,
    pub(crate) next_renewal: u64,
    /// When work that lost its client ends.
    pub(crate) orphan_until: Option<u64>,
    pub(crate) ended: bool,
}
