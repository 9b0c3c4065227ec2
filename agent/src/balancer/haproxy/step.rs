//! What is to be done with one server, and what is so: decisions without any exchange.

use std::fmt;

use super::super::Seen;
use super::answer::Server;

/// One change of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It gets requests again.
    Ready,
    /// It gets no new clients. Health checks go on, and clients with its cookie still come.
    Drain,
    /// It gets nothing.
    Maint,
    /// What it still has under way ends now.
    Cut,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::Cut => "cut",
        })
    }
}

impl Step {
    /// HAProxy's words for it.
    pub(super) fn command(self, backend: &str, server: &str) -> String {
        match self {
            Self::Ready | Self::Drain | Self::Maint => format!("set server {backend}/{server} state {self}"),
            Self::Cut => format!("shutdown sessions server {backend}/{server}"),
        }
    }
}

/// The next step. `overdue` is `None` for a server that is wanted in, else whether its deadline is over.
pub(super) fn step(overdue: Option<bool>, server: Server) -> Option<Step> {
    let Some(overdue) = overdue else {
        return (server.forced_maint() || server.forced_drain()).then_some(Step::Ready);
    };
    if server.forced_maint() {
        // Only now: in maintenance nothing comes any more, so what is counted is what is cut.
        (overdue && server.in_flight > 0).then_some(Step::Cut)
    } else if server.forced_drain() {
        (overdue || server.in_flight == 0).then_some(Step::Maint)
    } else {
        Some(Step::Drain)
    }
}

/// A server, and what workers of before a reload have under way at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) server: Server,
    pub(super) left_behind: u64,
}

/// A node that is wanted out is out when all its servers are. `cut` is how many of its connections were ended.
pub(super) fn seen_out(all: &[Standing], cut: u64) -> Seen {
    let in_flight = all.iter().map(|standing| standing.server.in_flight + standing.left_behind).sum();
    if all.iter().any(|standing| !standing.server.forced_maint() && !standing.server.forced_drain()) {
        Seen::In
    } else if in_flight == 0 && all.iter().all(|standing| standing.server.forced_maint()) {
        Seen::Out { cut }
    } else {
        Seen::Draining { in_flight }
    }
}

/// A node that is wanted in is in when all its servers are.
pub(super) fn seen_in(all: &[Standing]) -> Seen {
    if all.iter().all(|standing| standing.server.serves()) {
        Seen::In
    } else if all.iter().all(|standing| standing.server.serves() || standing.server.drains()) {
        Seen::Draining { in_flight: all.iter().map(|standing| standing.server.in_flight).sum() }
    } else {
        Seen::Out { cut: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: u32 = 0;
    const DRAIN: u32 = 0x08;
    const MAINT: u32 = 0x01;

    #[test]
    fn one_step_at_a_time() {
        let next = |overdue, admin, in_flight| step(overdue, Server::new(admin, in_flight));
        assert_eq!(next(None, READY, 5), None);
        assert_eq!(next(None, DRAIN, 5), Some(Step::Ready));
        assert_eq!(next(None, MAINT, 0), Some(Step::Ready));
        assert_eq!(
            next(Some(false), READY, 0),
            Some(Step::Drain),
            "no short cut: a client may come just now"
        );
        assert_eq!(next(Some(false), DRAIN, 1), None);
        assert_eq!(next(Some(false), DRAIN, 0), Some(Step::Maint));
        assert_eq!(next(Some(true), DRAIN, 1), Some(Step::Maint));
        assert_eq!(next(Some(false), MAINT, 1), None);
        assert_eq!(next(Some(true), MAINT, 1), Some(Step::Cut));
        assert_eq!(next(Some(true), MAINT, 0), None);
        assert_eq!(Step::Maint.command("b", "s"), "set server b/s state maint");
        assert_eq!(Step::Cut.command("b", "s"), "shutdown sessions server b/s");
    }

    #[test]
    fn out_is_said_only_when_everything_is() {
        let at =
            |admin, in_flight, left_behind| Standing { server: Server::new(admin, in_flight), left_behind };
        assert_eq!(seen_out(&[at(MAINT, 0, 0), at(MAINT, 0, 0)], 2), Seen::Out { cut: 2 });
        assert_eq!(seen_out(&[at(MAINT, 0, 0), at(READY, 0, 0)], 0), Seen::In);
        assert_eq!(seen_out(&[at(MAINT, 0, 0), at(DRAIN, 3, 0)], 0), Seen::Draining { in_flight: 3 });
        assert_eq!(seen_out(&[at(DRAIN, 0, 0)], 0), Seen::Draining { in_flight: 0 });
        assert_eq!(seen_out(&[at(MAINT, 0, 1)], 0), Seen::Draining { in_flight: 1 });
    }

    #[test]
    fn in_is_said_only_when_everything_is() {
        let at = |admin| Standing { server: Server::new(admin, 1), left_behind: 0 };
        assert_eq!(seen_in(&[at(READY), at(READY)]), Seen::In);
        assert_eq!(seen_in(&[at(READY), at(0x10)]), Seen::Draining { in_flight: 2 });
        assert_eq!(seen_in(&[at(READY), at(0x20)]), Seen::Out { cut: 0 });
        assert_eq!(seen_in(&[at(READY), at(MAINT)]), Seen::Out { cut: 0 });
    }
}
