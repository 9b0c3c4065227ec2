//! Whether an app serves, from several answers and over time.

use std::time::{Duration, Instant};

use soloist_core::ids::Version;

use super::api::{ApiClient, ApiError};
use super::health::Health;

/// An error that lasts this long is a failure. NocoBase shows an error for moments while it recovers by itself.
pub const FAILED_AFTER: Duration = Duration::from_secs(5);

/// What a look at the app says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It serves: healthy, reaches its database, and code and database have the same version.
    Serving,
    /// It does not serve yet or not now; why, for people.
    NotYet(String),
    /// It says for a while already that it failed; its own words.
    Failed(String),
}

/// Looks at one app again and again and remembers since when it fails.
#[derive(Debug, Clone, Default)]
pub struct Prober {
    failing_since: Option<Instant>,
}

impl Prober {
    /// Forgets the past: another process of the app runs now.
    pub fn reset(&mut self) {
        self.failing_since = None;
    }

    /// Looks once, at each of the app's processes; takes at most some seconds. `code` is the version of the code on the node's disk,
    /// where known.
    pub async fn look(&mut self, api: &ApiClient, code: Option<&Version>) -> (Health, Verdict) {
        // One kind of request after the other: two in turns would always reach the same two processes.
        let mut health = api.health().await;
        for _ in 1..api.times() {
            if health == Health::Ok {
                health = api.health().await;
            }
        }
        let mut info = None;
        for _ in 0..api.times() {
            if health == Health::Ok && !matches!(info, Some(Err(_))) {
                info = Some(api.database_version().await);
            }
        }
        let verdict = self.judge(&health, info, code, Instant::now());
        (health, verdict)
    }

    /// The judgement alone. `info` is the answer of the database request, asked only of a healthy app.
    pub fn judge(
        &mut self,
        health: &Health,
        info: Option<Result<String, ApiError>>,
        code: Option<&Version>,
        now: Instant,
    ) -> Verdict {
        if let Health::Error { .. } = health {
            let since = *self.failing_since.get_or_insert(now);
            let text = health.text();
            return if now.duration_since(since) >= FAILED_AFTER {
                Verdict::Failed(text)
            } else {
                Verdict::NotYet(text)
            };
        }
        self.failing_since = None;
        match (health, info) {
            (Health::Ok, Some(Ok(database))) => match code {
                Some(code) if code.0 != database => {
                    Verdict::NotYet(format!("its code has version {code}, its database {database}"))
                }
                _ => Verdict::Serving,
            },
            (Health::Ok, Some(Err(error))) => Verdict::NotYet(format!("healthy, but {error}")),
            (other, _) => Verdict::NotYet(other.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lasting_error_is_a_failure() {
        let mut prober = Prober::default();
        let start = Instant::now();
        let error = Health::Error { code: "APP_ERROR".into(), message: "Validation error".into() };
        let at = |prober: &mut Prober, health: &Health, ms| {
            prober.judge(health, None, None, start + Duration::from_millis(ms))
        };
        assert!(matches!(at(&mut prober, &error, 0), Verdict::NotYet(_)));
        assert!(matches!(at(&mut prober, &error, 4999), Verdict::NotYet(_)));
        assert_eq!(at(&mut prober, &error, 5000), Verdict::Failed("APP_ERROR: Validation error".into()));
        assert!(matches!(at(&mut prober, &Health::Refused, 6000), Verdict::NotYet(_)));
        assert!(matches!(at(&mut prober, &error, 7000), Verdict::NotYet(_)), "counted anew");
    }

    #[test]
    fn health_alone_is_not_serving() {
        let mut prober = Prober::default();
        let code = Version("2.2.15".into());
        let mut judge = |info| prober.judge(&Health::Ok, Some(info), Some(&code), Instant::now());
        assert_eq!(judge(Ok("2.2.15".into())), Verdict::Serving);
        assert!(matches!(judge(Ok("2.2.99".into())), Verdict::NotYet(why) if why.contains("2.2.99")));
        let down = ApiError::Status { what: "app:getInfo".into(), status: 500, message: "database".into() };
        assert!(matches!(judge(Err(down)), Verdict::NotYet(why) if why.contains("app:getInfo")));
    }
}
