//! What HAProxy's answers say. Columns are found by their names, never by their places.
//!
//! What counts as under way is `scur` and `qcur` of `show stat`. HAProxy raises `scur` when a request (or, once upgraded, its
//! connection) goes to a server and lowers it when that is through; `qcur` has the requests that wait for a free place at this
//! server. Idle connections that are kept for later, the client's and the server's, are in neither: they are in `srv_icur`.
//! The columns of `show servers conn` mix both kinds, and the manual calls them a debugging tool.

use std::collections::BTreeMap;

use super::super::error::BalancerError;

/// A server's place in HAProxy.
pub(super) type Place = (String, String);

/// Maintenance that was asked for at the socket.
const FORCED_MAINT: u32 = 0x01;
/// Draining that was asked for at the socket.
const FORCED_DRAIN: u32 = 0x08;
/// Anything that keeps requests away: forced, inherited from a tracked server, or an address that cannot be resolved. What the
/// configuration file says of maintenance (0x04) is kept for the record only, and no longer counts once a server was set ready.
const AWAY: u32 = 0x01 | 0x02 | 0x20 | DRAINING;
/// Draining, forced or inherited.
const DRAINING: u32 = 0x08 | 0x10;

/// One server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    admin: u32,
    /// It is up, as far as health checks know.
    up: bool,
    /// Requests and connections that are under way or wait for this server.
    pub(super) in_flight: u64,
}

impl Server {
    #[cfg(test)]
    pub(super) fn new(admin: u32, in_flight: u64) -> Self {
        Self { admin, up: admin & FORCED_MAINT == 0, in_flight }
    }

    pub(super) fn forced_maint(self) -> bool {
        self.admin & FORCED_MAINT != 0
    }

    pub(super) fn forced_drain(self) -> bool {
        self.admin & FORCED_DRAIN != 0
    }

    /// It gets no new requests, but those of clients that stick to it.
    pub(super) fn drains(self) -> bool {
        self.up && self.admin & AWAY != 0 && self.admin & AWAY & !DRAINING == 0
    }

    /// It gets requests.
    pub(super) fn serves(self) -> bool {
        self.up && self.admin & AWAY == 0
    }
}

/// All servers of one HAProxy process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) servers: BTreeMap<Place, Server>,
    /// The dump of the servers' state as HAProxy wrote it.
    pub(super) state: String,
}

/// Asks for both lists in one exchange: the two cannot come from different processes, whatever is reloaded meanwhile.
pub(super) const VIEW: &str = "show servers state;show stat -1 4 -1";
/// Asks for the counters of all servers.
pub(super) const COUNTERS: &str = "show stat -1 4 -1";

impl View {
    /// Reads the answer to [`VIEW`].
    pub(super) fn read(answer: &str) -> Result<Self, BalancerError> {
        let strange = |what: &str| BalancerError::Strange { command: VIEW.to_owned(), what: what.to_owned() };
        let at = answer.find(CSV_HEAD).ok_or_else(|| strange("the counters are missing"))?;
        let (state, counters) = answer.split_at(at);
        let in_flight = in_flight(counters).ok_or_else(|| strange("the counters have no scur and qcur"))?;
        let mut lines = state.lines().filter(|line| !line.trim().is_empty());
        if lines.next().map(str::trim) != Some("1") {
            return Err(strange("the state of the servers is not of version 1"));
        }
        let head = lines.next().unwrap_or_default().trim_start_matches('#');
        let column = |name: &str| {
            head.split_whitespace()
                .position(|found| found == name)
                .ok_or_else(|| strange(&format!("there is no column {name}")))
        };
        let (backend, server) = (column("be_name")?, column("srv_name")?);
        let (op, admin) = (column("srv_op_state")?, column("srv_admin_state")?);
        let mut servers = BTreeMap::new();
        for line in lines.filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let text = |at: usize| fields.get(at).copied().unwrap_or_default();
            let number = |at: usize| {
                text(at).parse::<u32>().map_err(|_| strange(&format!("\"{}\" is not a number", text(at))))
            };
            let place = (text(backend).to_owned(), text(server).to_owned());
            let in_flight = in_flight.get(&place).copied().unwrap_or_default();
            // 1 is warming up, 2 running; 0 is down, and 3 is on its way down.
            let up = matches!(number(op)?, 1 | 2);
            servers.insert(place, Server { admin: number(admin)?, up, in_flight });
        }
        Ok(Self { servers, state: state.trim_end().to_owned() + "\n" })
    }

    /// The dump without what changes with every second and every health check.
    pub(super) fn lasting(&self) -> Vec<String> {
        const PASSING: std::ops::RangeInclusive<usize> = 9..=14;
        let without = |line: &str| {
            let fields = line.split_whitespace().enumerate().filter(|(at, _)| !PASSING.contains(at));
            fields.map(|(_, field)| field).collect::<Vec<_>>().join(" ")
        };
        self.state.lines().map(without).collect()
    }
}

/// How the counters begin.
const CSV_HEAD: &str = "# pxname,";

/// What is under way at each server, from an answer to [`COUNTERS`]; `None` if it is no such answer.
pub(super) fn in_flight(answer: &str) -> Option<BTreeMap<Place, u64>> {
    let mut lines = answer.lines().skip_while(|line| !line.starts_with(CSV_HEAD));
    let head: Vec<&str> = lines.next()?.trim_start_matches(['#', ' ']).split(',').collect();
    let column = |name: &str| head.iter().position(|found| *found == name);
    // These stand before all columns that may hold a comma.
    let (backend, server) = (column("pxname")?, column("svname")?);
    let (current, queued) = (column("scur")?, column("qcur")?);
    let mut found = BTreeMap::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let text = |at: usize| fields.get(at).copied().unwrap_or_default();
        let count = text(current).parse::<u64>().ok()?.saturating_add(text(queued).parse().unwrap_or(0));
        found.insert((text(backend).to_owned(), text(server).to_owned()), count);
    }
    Some(found)
}

/// Process ids of the workers that a reload has left behind, from `show proc`.
pub(super) fn earlier_workers(answer: &str) -> Vec<u32> {
    let lines = answer.lines().skip_while(|line| line.trim() != "# old workers").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let pid = fields.next()?.parse().ok()?;
            (fields.next()? == "worker").then_some(pid)
        })
        .collect()
}

/// Ids of the sessions at a server, from `show sess`.
pub(super) fn sessions<'a>(answer: &'a str, (backend, server): &Place) -> Vec<&'a str> {
    let (backend, server) = (format!("be={backend}"), format!("srv={server}"));
    let at = |line: &&str| {
        let has = |wanted: &str| line.split_whitespace().any(|word| word == wanted);
        line.starts_with("0x") && has(&backend) && has(&server)
    };
    answer.lines().filter(at).filter_map(|line| line.split(':').next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From HAProxy 2.6, its counters shortened.
    const ANSWER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
        srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
        bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr \
        srv_agent_port\n\
        3 nocobase 1 app1 127.0.0.1 2 8 1 1 0 1 0 2 0 0 0 0 - 9101 - 0 0 - - 0\n\
        3 nocobase 2 app2 127.0.0.1 0 1 1 1 2 1 0 2 0 0 0 0 - 9102 - 0 0 - - 0\n\
        3 nocobase 3 app3 127.0.0.1 2 4 1 1 2 1 0 2 0 0 0 0 - 9103 - 0 0 - - 0\n\n\
        # pxname,svname,qcur,qmax,scur,smax,slim,status,\n\
        nocobase,app1,1,0,2,2,,DRAIN,\nnocobase,app2,0,0,0,2,,MAINT,\nnocobase,app3,0,0,5,9,,no check,\n\n";

    #[test]
    fn servers_and_what_is_under_way() {
        let view = View::read(ANSWER).unwrap();
        let of = |name: &str| view.servers[&("nocobase".to_owned(), name.to_owned())];
        assert_eq!((of("app1").in_flight, of("app1").drains(), of("app1").serves()), (3, true, false));
        assert!(of("app2").forced_maint() && !of("app2").drains() && !of("app2").serves());
        assert!(of("app3").serves(), "the file's maintenance is over once a server was set ready");
        assert!(view.state.starts_with("1\n# be_id") && view.state.ends_with("- 0\n"), "{}", view.state);
    }

    #[test]
    fn time_alone_does_not_change_the_state() {
        let view = View::read(ANSWER).unwrap();
        let later = View::read(&ANSWER.replace("1 1 2 1 0 2 0 0 0 0", "1 1 99 6 3 4 6 0 0 0")).unwrap();
        assert_ne!(view.state, later.state);
        assert_eq!(view.lasting(), later.lasting());
        let other = View::read(&ANSWER.replace("127.0.0.1 2 8", "127.0.0.1 2 0")).unwrap();
        assert_ne!(view.lasting(), other.lasting());
    }

    #[test]
    fn other_answers_are_refused() {
        for (from, to) in [
            ("# pxname", "#"),
            ("1\n# be_id", "2\n# be_id"),
            ("srv_admin", "x"),
            ("2 8 1", "2 x 1"),
            (",scur", ",s"),
        ] {
            let error = View::read(&ANSWER.replace(from, to)).unwrap_err();
            assert!(matches!(error, BalancerError::Strange { .. }), "{error}");
        }
        assert!(View::read("Unknown command.\n").is_err());
    }

    #[test]
    fn workers_of_before_a_reload() {
        let answer = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
            29703           master          1 [failed: 0]   0d00h00m05s     2.6.12\n# workers\n\
            29970           worker          0               0d00h00m02s     2.6.12\n# old workers\n\
            29745           worker          1               0d00h00m04s     2.6.12\n\
            29746           program         1               0d00h00m04s     2.6.12\n# programs\n\
            12              worker          1               -               -\n\n";
        assert_eq!(earlier_workers(answer), [29745]);
        assert!(earlier_workers("# workers\n1 worker 0 - -\n").is_empty());
        let sessions_of = "0x561251c507e0: proto=tcpv4 src=127.0.0.1:49076 fe=f be=nocobase srv=app1 ts=00 epoch=0\n\
            0x561251c507e1: proto=tcpv4 src=127.0.0.1:49077 fe=f be=nocobase srv=app10 ts=00\n\
            0x7fe97c041fd0: proto=sockpair src=unix:2 fe=GLOBAL be=<NONE> srv=<none> ts=00\n\n";
        let place = ("nocobase".to_owned(), "app1".to_owned());
        assert_eq!(sessions(sessions_of, &place), ["0x561251c507e0"]);
    }
}
