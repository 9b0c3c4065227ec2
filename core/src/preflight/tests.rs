use super::*;
use crate::assignment::{DatabaseFacts, DbSession};
use crate::ids::Version;
use crate::operation::HoldMode;

const GIB: u64 = 1024 * 1024 * 1024;

fn node(at: usize) -> NodeId {
    NodeId::new(format!("node-{at}")).unwrap()
}

fn release(product: &str, major: u32) -> Release {
    Release { product: product.into(), major, text: format!("{major}.1") }
}

fn settings(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(pairs.iter().map(|(key, print)| ((*key).to_owned(), (*print).to_owned())).collect())
}

/// Three nodes of one healthy fleet.
fn healthy() -> Nodes {
    let seen: BTreeMap<NodeId, Vec<String>> =
        (1..=3).map(|at| (node(at), vec![format!("nonce-{at}"), format!("before-{at}")])).collect();
    let told = |at: usize| Told {
        facts: NodeFacts {
            code: Some(Version("2.2.15".into())),
            settings: settings(&[("APP_KEY", "aa"), ("TZ", "bb"), ("CACHE_REDIS_URL", "cc")]),
            node: Some(release("node", 20)),
            storage: Some(StorageFacts {
                nonce: format!("nonce-{at}"),
                before: Some(format!("before-{at}")),
                age: Millis::from_secs(300),
                seen: seen.clone(),
            }),
            database: Some(DatabaseFacts {
                identity: "7/shop".into(),
                version: Some(Version("2.2.15".into())),
                empty: false,
            }),
            server: Some(release("PostgreSQL", 15)),
            dump: Some(release("pg_dump", 15)),
            spaces: [Place::Storage, Place::App, Place::Data]
                .map(|place| Space { place, path: "/x".into(), free: 9 * GIB })
                .into(),
            searched: true,
            sub_apps: Some(0),
            ..NodeFacts::default()
        },
        age: Millis::from_secs(1),
        sent_wall_ms: 1_000_000,
        heard_wall_ms: 1_000_150,
    };
    (1..=3).map(|at| (node(at), Some(told(at)))).collect()
}

fn with(at: usize, change: impl FnOnce(&mut Told)) -> Nodes {
    let mut nodes = healthy();
    change(nodes.get_mut(&node(at)).unwrap().as_mut().unwrap());
    nodes
}

/// The only finding of these nodes.
fn only(nodes: &Nodes) -> Finding {
    let mut findings = compare(nodes);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

fn is(finding: &Finding, severity: Severity, check: &str, at: &[usize]) {
    let nodes: Vec<NodeId> = at.iter().map(|at| node(*at)).collect();
    assert_eq!(
        (finding.severity, finding.check.as_str(), &finding.nodes),
        (severity, check, &nodes),
        "{finding:#?}"
    );
    assert!(!finding.remedy.is_empty());
}

use Severity::{Problem, Warning};

#[test]
fn a_healthy_fleet_agrees_on_every_check() {
    assert_eq!(compare(&healthy()), []);
    assert_eq!(checks(&healthy()).len(), 14);
}

#[test]
fn what_an_app_cannot_tell_is_not_compared() {
    let nodes: Nodes = (1..=2).map(|at| (node(at), Some(Told::default()))).collect();
    assert_eq!(compare(&nodes), []);
    assert_eq!(checks(&nodes), [check::CONTACT, check::CLOCK, check::UPGRADING]);
    assert_eq!(compare(&Nodes::new()), []);
}

#[test]
fn silence_and_old_facts_are_findings() {
    let mut nodes = healthy();
    nodes.insert(node(2), None);
    is(&only(&nodes), Problem, check::CONTACT, &[2]);
    let old = with(2, |told| told.age = Millis(FACTS_OLD.0 + 1));
    is(&only(&old), Problem, check::CONTACT, &[2]);
}

#[test]
fn code() {
    let finding = only(&with(3, |told| told.facts.code = Some(Version("2.2.14".into()))));
    is(&finding, Problem, check::CODE, &[3]);
    assert!(finding.text.contains("2.2.15 on node-1, node-2; 2.2.14 on node-3"), "{}", finding.text);
}

#[test]
fn settings_are_named_without_values() {
    let finding = only(&with(2, |told| {
        told.facts.settings = settings(&[("APP_KEY", "dd"), ("TZ", "bb"), ("CACHE_REDIS_URL", "cc")])
    }));
    is(&finding, Problem, check::SETTINGS, &[2]);
    assert_eq!(finding.text, "APP_KEY differs: one value on node-1, node-3; another on node-2");
    // Unset is a value of its own.
    let finding = only(&with(1, |told| {
        told.facts.settings = settings(&[("APP_KEY", "aa"), ("CACHE_REDIS_URL", "cc")])
    }));
    is(&finding, Problem, check::SETTINGS, &[1]);
    assert!(finding.text.contains("none on node-1"), "{}", finding.text);
    let finding = only(&with(1, |told| {
        told.facts.settings = settings(&[("APP_KEY", "aa"), ("TZ", "bb"), ("CACHE_REDIS_URL", "zz")])
    }));
    is(&finding, Warning, check::SETTINGS, &[1]);
    // What may differ is not named, even if an agent told it.
    let free = with(1, |told| {
        told.facts.settings.as_mut().unwrap().insert("WORKER_MODE".into(), "ee".into());
    });
    assert_eq!(compare(&free), []);
}

#[test]
fn without_a_majority_all_are_named() {
    let mut nodes = with(2, |told| told.facts.code = Some(Version("2.2.14".into())));
    nodes.remove(&node(3));
    is(&only(&nodes), Problem, check::CODE, &[1, 2]);
}

#[test]
fn node_version() {
    assert_eq!(
        compare(
            &with(1, |told| told.facts.node = Some(Release { text: "20.9".into(), ..release("node", 20) }))
        ),
        []
    );
    is(
        &only(&with(1, |told| told.facts.node = Some(release("node", 22)))),
        Problem,
        check::NODE_VERSION,
        &[1],
    );
}

#[test]
fn failures_are_findings() {
    for check in
        [check::CODE, check::SETTINGS, check::NODE_VERSION, check::STORAGE, check::DATABASE, check::SPACE]
    {
        let nodes = with(2, |told| {
            told.facts.failed.insert(check.into(), "it hangs".into());
        });
        let finding = only(&nodes);
        is(&finding, Problem, check, &[2]);
        assert_eq!(finding.text, "node-2: it hangs");
    }
}

#[test]
fn several_storages() {
    let nodes = with(3, |told| {
        let own = told.facts.storage.as_mut().unwrap();
        own.seen.retain(|name, _| *name == node(3));
    });
    // The others still open what node 3 left: it only cannot read.
    let finding = only(&nodes);
    is(&finding, Problem, check::STORAGE, &[3]);
    assert!(finding.text.contains("node-3 cannot open what node-1, node-2 left"), "{}", finding.text);
    let mut nodes = nodes;
    for at in 1..=2 {
        let told = nodes.get_mut(&node(at)).unwrap().as_mut().unwrap();
        told.facts.storage.as_mut().unwrap().seen.remove(&node(3));
    }
    let finding = only(&nodes);
    is(&finding, Problem, check::STORAGE, &[3]);
    assert!(finding.text.contains("node-1, node-2 | node-3"), "{}", finding.text);
}

#[test]
fn a_copied_storage_shows_old_nonces() {
    let nodes = with(2, |told| {
        let seen = &mut told.facts.storage.as_mut().unwrap().seen;
        seen.insert(node(1), vec!["older-1".into(), "before-1".into()]);
        seen.insert(node(3), vec!["older-3".into()]);
    });
    let finding = only(&nodes);
    assert!(finding.text.contains("node-2 cannot open"), "{}", finding.text);
}

#[test]
fn a_new_nonce_is_waited_for() {
    // Node 2 has left a new nonce 10 s ago; node 1 still sees the one before.
    let fresh = |seen: Vec<String>| {
        let mut nodes = with(2, |told| {
            let own = told.facts.storage.as_mut().unwrap();
            (own.nonce, own.before) = ("new".into(), Some("nonce-2".into()));
            own.age = Millis::from_secs(10);
            own.seen.insert(node(2), vec!["new".into()]);
        });
        for (at, seen) in [(1, seen), (3, vec!["new".into(), "nonce-2".into()])] {
            let other = nodes.get_mut(&node(at)).unwrap().as_mut().unwrap();
            other.facts.storage.as_mut().unwrap().seen.insert(node(2), seen);
        }
        nodes
    };
    assert_eq!(compare(&fresh(vec!["nonce-2".into()])), []);
    // Seeing something else is not a difference yet either.
    assert_eq!(compare(&fresh(vec![])), []);
    let mut late = fresh(vec!["nonce-2".into()]);
    late.get_mut(&node(2)).unwrap().as_mut().unwrap().facts.storage.as_mut().unwrap().age =
        Millis::from_secs(90);
    is(&only(&late), Problem, check::STORAGE, &[1]);
}

#[test]
fn new_nonces_that_nobody_sees_are_a_warning_at_first() {
    let mut nodes = healthy();
    for told in nodes.values_mut().flatten() {
        let own = told.facts.storage.as_mut().unwrap();
        own.age = Millis::from_secs(5);
        own.seen.clear();
    }
    is(&only(&nodes), Warning, check::STORAGE, &[1, 2, 3]);
}

#[test]
fn a_reader_that_looked_later_has_no_excuse() {
    // Left 10 s before facts that are 100 s old, so 110 s ago; node 1 looked a second ago.
    let mut nodes = with(2, |told| {
        told.age = Millis::from_secs(100);
        told.facts.storage.as_mut().unwrap().age = Millis::from_secs(10);
    });
    let other = nodes.get_mut(&node(1)).unwrap().as_mut().unwrap();
    other.facts.storage.as_mut().unwrap().seen.remove(&node(2));
    is(&only(&nodes), Problem, check::STORAGE, &[1]);
}

#[test]
fn several_databases() {
    let nodes = with(1, |told| told.facts.database.as_mut().unwrap().identity = "7/test".into());
    let finding = only(&nodes);
    is(&finding, Problem, check::DATABASE, &[1]);
    assert!(finding.text.contains("7/test on node-1"), "{}", finding.text);
}

#[test]
fn dump_clients() {
    // Newer than the server is fine.
    assert_eq!(compare(&with(1, |told| told.facts.dump = Some(release("pg_dump", 17)))), []);
    let finding = only(&with(1, |told| told.facts.dump = Some(release("pg_dump", 14))));
    is(&finding, Warning, check::DUMP_CLIENT, &[1]);
    assert!(
        finding.text.contains("pg_dump 14.1 is older than the server, PostgreSQL 15.1"),
        "{}",
        finding.text
    );
    assert!(finding.remedy.contains("pg_dump 15 or newer"));
    let mut nodes = healthy();
    nodes.values_mut().flatten().for_each(|told| told.facts.dump = None);
    let findings = compare(&nodes);
    assert_eq!(findings.len(), 3);
    is(&findings[0], Problem, check::DUMP_CLIENT, &[1]);
    // Programs of the operator's own need none.
    nodes.values_mut().flatten().for_each(|told| told.facts.own_backups = true);
    assert_eq!(compare(&nodes), []);
    nodes.values_mut().flatten().for_each(|told| told.facts.own_backups = false);
    // Of MySQL's clients, any will do.
    for told in nodes.values_mut().flatten() {
        told.facts.server = Some(release("MySQL", 8));
        told.facts.dump = Some(release("mariadb-dump", 0));
    }
    assert_eq!(compare(&nodes), []);
}

#[test]
fn space() {
    let low = |place: usize, free: u64| with(2, |told| told.facts.spaces[place].free = free);
    is(&only(&low(0, GIB)), Warning, check::SPACE, &[2]);
    is(&only(&low(1, GIB / 8)), Problem, check::SPACE, &[2]);
    is(&only(&low(2, GIB / 8)), Warning, check::SPACE, &[2]);
    assert_eq!(compare(&low(2, GIB)), []);
}

#[test]
fn clocks() {
    let off = |ms: i64| with(2, |told| told.sent_wall_ms = told.sent_wall_ms.saturating_add_signed(ms));
    assert_eq!(compare(&off(1_900)), []);
    let finding = only(&off(2_500));
    is(&finding, Warning, check::CLOCK, &[2]);
    assert!(finding.text.contains("2.5 s ahead"), "{}", finding.text);
    let finding = only(&off(-31_000));
    is(&finding, Problem, check::CLOCK, &[2]);
    assert!(finding.text.contains("31.0 s behind"), "{}", finding.text);
    // The leader's own clock does not matter.
    let mut nodes = healthy();
    nodes.values_mut().flatten().for_each(|told| told.heard_wall_ms += 3_600_000);
    assert_eq!(compare(&nodes), []);
}

#[test]
fn what_stands_for_itself() {
    is(&only(&with(3, |told| told.facts.upgrading = true)), Problem, check::UPGRADING, &[3]);
    is(
        &only(&with(3, |told| told.facts.commercial = vec!["a license".into()])),
        Warning,
        check::COMMERCIAL_PLUGINS,
        &[3],
    );
    let finding = only(&with(3, |told| told.facts.sub_apps = Some(2)));
    is(&finding, Problem, check::SUB_APPS, &[3]);
    assert!(finding.text.contains("2 sub-apps"));
    is(
        &only(&with(1, |told| told.facts.supervisors = vec!["systemd unit x".into()])),
        Problem,
        check::SUPERVISOR,
        &[1],
    );
}

#[test]
fn a_stranger_is_named_once() {
    let session =
        DbSession { pid: 7, role: "noco".into(), client: "10.0.0.9".into(), application: "psql".into() };
    let mut nodes = healthy();
    nodes.values_mut().flatten().for_each(|told| told.facts.sessions = vec![session.clone()]);
    let finding = only(&nodes);
    is(&finding, Problem, check::SESSIONS, &[1, 2, 3]);
    assert!(
        finding.text.contains("database session 7 of role noco from 10.0.0.9 (psql)"),
        "{}",
        finding.text
    );
}

#[test]
fn problems_come_first_and_only_they_block() {
    let nodes = with(2, |told| {
        told.facts.dump = None;
        told.facts.supervisors = vec!["pm2".into()];
    });
    let findings = compare(&nodes);
    assert_eq!(findings.iter().map(|found| found.severity).collect::<Vec<_>>(), [Problem, Warning]);
    let hold = Request::Hold { mode: HoldMode::Solo, on: None };
    assert_eq!(blocking(&findings, &hold), findings.first());
    assert_eq!(blocking(&findings[1..], &hold), None);
    assert_eq!(blocking(&findings, &Request::Stop), None, "nobody is kept from stopping a fleet");
}
