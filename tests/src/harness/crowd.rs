//! Everybody who uses a fleet at once: somebody without a cookie, somebody with one, and many open tabs.

use super::Cli;
use super::balancer::{Balancer, Kind, cut};
use super::sockets::Sockets;
use super::users::Users;

/// How many tabs are open.
const TABS: usize = 50;

/// All of them.
#[derive(Debug)]
pub struct Crowd {
    users: Users,
    sticky: Users,
    tabs: Sockets,
    /// How many connections had been cut before.
    cut: u64,
}

impl Crowd {
    /// Begins when every tab is open. What the app says at this path has the mark in it.
    ///
    /// # Panics
    /// When the tabs cannot be opened.
    #[must_use]
    pub fn start(balancer: &Balancer, cli: &Cli, (path, mark): (&'static str, &'static str)) -> Self {
        let port = balancer.port;
        let (users, sticky) = (Users::start(port, path, mark), Users::start_sticky(port, path, mark));
        Self { users, sticky, tabs: Sockets::start(port, TABS), cut: cut(cli) }
    }

    /// Reloads the load balancer. No tab may have been closed before, or by it.
    ///
    /// # Panics
    /// When one was.
    pub fn reload(&self, balancer: &Balancer) {
        balancer.reload();
        assert_eq!(self.tabs.tally().closed, 0, "the reload came too late, or has cut something");
    }

    /// Ends it. Every request must have been answered by the app; every tab must have been cut by the load balancer's agent, and be
    /// open again. Gives what there is to say about it.
    ///
    /// # Panics
    /// When it is not so. `nodes` is how many nodes have been stopped at least.
    #[must_use]
    pub fn nobody_has_noticed(self, balancer: &Balancer, cli: &Cli, nodes: usize) -> String {
        self.tabs.until_all_open();
        let cut = cut(cli) - self.cut;
        let (users, sticky, tabs) = (self.users.stop(), self.sticky.stop(), self.tabs.stop());
        let text = format!("users: {users}\n    sticky: {sticky}\n    cut {cut}: {tabs:?}");
        let (kind, log) = (balancer.kind, balancer.log());
        assert!(users.is_app_only(), "{kind}: {text}\n{log}");
        assert!(sticky.is_app_only(), "{kind}: {text}\n{log}");
        assert_eq!((tabs.open, tabs.answered), (TABS, TABS), "{kind}: {text}\n{log}");
        assert!(tabs.closed >= TABS && tabs.failed.is_empty(), "{kind}: {text}\n{log}");
        match kind {
            Kind::Haproxy => {
                assert!(cut >= tabs.closed as u64, "not all were cut by the agent: {text}\n{log}");
                assert!(sticky.servers().len() > 1, "who has a cookie was moved: {text}\n{log}");
            }
            Kind::Nginx => {
                assert!(cut >= nodes as u64, "a worker process at each drain: {text}\n{log}");
                assert!(sticky.servers().is_empty(), "there is no cookie: {text}\n{log}");
            }
        }
        text
    }
}
