//! What the coordinators say to users through this agent, and until when it counts.

use std::time::Duration;

use soloist_core::Notice;
use tokio::time::Instant;

/// How long a notice counts without contact to the coordinators.
const KEPT_MAX: Duration = Duration::from_secs(600);
/// An expected end that moves by less than this is no news.
const DRIFT: Duration = Duration::from_secs(15);

/// How long the last reason is still given after users were let in: a load balancer takes a moment to send them there, and whoever
/// comes here meanwhile comes because of it.
const LINGERS: Duration = Duration::from_secs(5);

/// What was told last.
#[derive(Debug, Clone, Default)]
pub struct Told {
    notice: Option<(Notice, Option<Instant>)>,
    heard: Option<Instant>,
    /// The reason that does not count any more, and since when.
    last: Option<(String, Instant)>,
}

/// What users are told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Why, for people.
    pub reason: String,
    /// How long it may still take.
    pub remaining: Option<Duration>,
}

impl Told {
    /// Takes what a coordinator says; whether that is news to somebody who waits.
    pub fn hear(&mut self, notice: Option<Notice>, now: Instant) -> bool {
        self.heard = Some(now);
        let Some(notice) = notice else {
            let Some((before, _)) = self.notice.take() else { return false };
            self.last = Some((before.reason, now));
            return true;
        };
        let ends = notice.remaining.map(|remaining| now + Duration::from_millis(remaining.0));
        let Some((before, expected)) = &mut self.notice else {
            self.notice = Some((notice, ends));
            return true;
        };
        if *before == notice {
            // The coordinators' time moves with their log only: the same length again is the same end as before.
            return false;
        }
        let moved = match (*expected, ends) {
            (Some(one), Some(other)) => one.max(other).duration_since(one.min(other)) >= DRIFT,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        let news = moved || before.reason != notice.reason;
        (*before, *expected) = (notice, ends);
        news
    }

    /// What users are told now; `None` if nothing keeps them away as far as is known, nor did a moment ago.
    #[must_use]
    pub fn now(&self, now: Instant) -> Option<Current> {
        if self.is_over() {
            let lingers = |(_, since): &&(String, Instant)| now.duration_since(*since) <= LINGERS;
            let (reason, _) = self.last.as_ref().filter(lingers)?;
            return Some(Current { reason: reason.clone(), remaining: None });
        }
        let fresh = self.heard.is_some_and(|heard| now.duration_since(heard) <= KEPT_MAX);
        let (notice, ends) = self.notice.as_ref().filter(|_| fresh)?;
        let remaining = ends.map(|ends| ends.saturating_duration_since(now));
        Some(Current {
            reason: notice.reason.clone(),
            remaining: remaining.filter(|remaining| !remaining.is_zero()),
        })
    }

    /// Whether the coordinators have said that users are not kept away any more, or never were.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.heard.is_some() && self.notice.is_none()
    }
}

#[cfg(test)]
mod tests {
    use soloist_core::time::Millis;

    use super::*;

    fn notice(reason: &str, secs: Option<u64>) -> Option<Notice> {
        Some(Notice { reason: reason.into(), remaining: secs.map(Millis::from_secs) })
    }

    #[test]
    fn only_what_matters_is_news() {
        let (mut told, at) = (Told::default(), Instant::now());
        let after = |secs| at + Duration::from_secs(secs);
        assert!(!told.hear(None, at), "nothing was told before");
        assert!(told.hear(notice("upgrade", Some(100)), at));
        assert!(!told.hear(notice("upgrade", Some(100)), after(30)), "the log has not moved");
        assert_eq!(told.now(after(30)).unwrap().remaining, Some(Duration::from_secs(70)));
        assert!(!told.hear(notice("upgrade", Some(60)), after(31)), "a little earlier or later");
        assert!(told.hear(notice("upgrade", Some(90)), after(31)));
        assert!(told.hear(notice("upgrade", None), after(32)));
        assert!(told.hear(notice("restore", None), after(32)));
        assert!(!told.is_over());
        assert!(told.hear(None, after(33)));
        assert!(told.is_over());
        assert_eq!(
            told.now(after(34)),
            Some(Current { reason: "restore".into(), remaining: None }),
            "it lingers"
        );
        assert!(!told.hear(None, after(35)), "nothing new, and it does not linger for longer");
        assert_eq!(told.now(after(39)), None);
    }

    #[test]
    fn without_contact_it_counts_for_a_while() {
        let (mut told, at) = (Told::default(), Instant::now());
        assert!(!told.is_over(), "nobody has said anything");
        told.hear(notice("upgrade", Some(100)), at);
        let late = at + Duration::from_secs(200);
        assert_eq!(told.now(late), Some(Current { reason: "upgrade".into(), remaining: None }));
        assert_eq!(told.now(at + KEPT_MAX + Duration::from_secs(1)), None);
        assert!(!told.is_over(), "silence is no evidence that users are back");
    }
}
