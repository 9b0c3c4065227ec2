//! What users see: the page as HTML, and the answers that NocoBase's client understands.
//!
//! The reason is written by people and read by everybody: it is text, wherever it goes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use serde_json::json;

use super::config::PageConfig;
use super::told::Current;

/// Users try again after so many seconds at the least.
pub(super) const RETRY_MIN: u64 = 5;
/// And after so many at the most.
pub(super) const RETRY_MAX: u64 = 3600;
/// An open page looks again after so many seconds at the most: it may be over earlier than expected.
const RELOAD_MAX: u64 = 30;
/// Largest template in bytes.
const TEMPLATE_MAX: u64 = 256 * 1024;
/// Most steps of a template's instructions for one page: one that never ends must not hold the others up.
const FUEL_MAX: u64 = 200_000;
/// The page that comes with the agent.
const BUILT_IN: &str = include_str!("page.html");
const BUILT_IN_NAME: &str = "built-in";
const OWN_NAME: &str = "own";
/// What is said when the coordinators have said nothing.
const NOT_AVAILABLE: &str = "The system is not available at this moment";

/// A template that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It cannot be read.
    #[error("the template cannot be read: {0}; put it there, or remove the key template from [page]")]
    Unreadable(std::io::Error),
    /// It is too large.
    #[error("the template has more than {TEMPLATE_MAX} bytes: make it smaller")]
    Large,
    /// It is not a template, or does not give a page.
    #[error(
        "the template does not work: {what}; it may use reason, text, remaining, remaining_seconds, retry_after_seconds, \
         reload_seconds and ends_at"
    )]
    Broken {
        /// Where.
        line: usize,
        /// Why.
        what: String,
    },
}

impl TemplateError {
    /// The line that is wrong.
    #[must_use]
    pub fn line(&self) -> usize {
        match self {
            Self::Unreadable(_) | Self::Large => 1,
            Self::Broken { line, .. } => *line,
        }
    }
}

/// Everything that does not change from one visitor to the next.
#[derive(Debug)]
pub struct Face {
    templates: Environment<'static>,
    text: String,
    retry_after_secs: u64,
    /// Whether the own template has failed: that is logged once.
    failed: AtomicBool,
}

impl Face {
    /// Reads the template, and tries it with and without an estimate.
    ///
    /// # Errors
    /// When it cannot be read or does not give a page.
    pub fn new(config: &PageConfig) -> Result<Self, TemplateError> {
        let mut templates = Environment::new();
        // Everything is escaped, whatever the file is called; a misspelt variable is an error.
        templates.set_auto_escape_callback(|_| AutoEscape::Html);
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_fuel(Some(FUEL_MAX));
        templates.add_template(BUILT_IN_NAME, BUILT_IN).map_err(|error| broken(&error))?;
        if let Some(path) = &config.template {
            templates.add_template_owned(OWN_NAME, read(path)?).map_err(|error| broken(&error))?;
        }
        let (text, retry_after_secs) = (config.text.clone(), config.retry_after_secs);
        let face = Self { templates, text, retry_after_secs, failed: AtomicBool::new(false) };
        let name = if config.template.is_some() { OWN_NAME } else { BUILT_IN_NAME };
        let current = |remaining| Current { reason: "The system is being upgraded".to_owned(), remaining };
        for current in [None, Some(current(None)), Some(current(Some(Duration::from_secs(90))))] {
            face.render(name, current.as_ref()).map_err(|error| broken(&error))?;
        }
        Ok(face)
    }

    /// Seconds after which to try again.
    #[must_use]
    pub fn retry_after(&self, current: Option<&Current>) -> u64 {
        let remaining = current.and_then(|current| current.remaining);
        remaining.map_or(self.retry_after_secs, |remaining| secs(remaining).clamp(RETRY_MIN, RETRY_MAX))
    }

    /// The page.
    #[must_use]
    pub fn html(&self, current: Option<&Current>) -> String {
        if self.templates.get_template(OWN_NAME).is_ok() {
            match self.render(OWN_NAME, current) {
                Ok(page) => return page,
                Err(error) => {
                    if !self.failed.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "the template of the maintenance page failed; the built-in page is shown");
                    }
                }
            }
        }
        // The built-in page was tried when the agent started.
        self.render(BUILT_IN_NAME, current).unwrap_or_else(|_| format!("{NOT_AVAILABLE}\n"))
    }

    fn render(&self, name: &str, current: Option<&Current>) -> Result<String, minijinja::Error> {
        let remaining = current.and_then(|current| current.remaining);
        let retry_after = self.retry_after(current);
        let values: Value = context! {
            reason => current.map_or("", |current| current.reason.as_str()),
            text => self.text.as_str(),
            remaining => remaining.map(words),
            remaining_seconds => remaining.map(secs),
            retry_after_seconds => retry_after,
            reload_seconds => retry_after.min(RELOAD_MAX),
            ends_at => remaining.and_then(|remaining| rfc_3339(SystemTime::now() + remaining)),
        };
        self.templates.get_template(name)?.render(values)
    }

    /// The answer of an API.
    ///
    /// With `maintaining`, NocoBase's client shows a dialog over what is open until its websocket tells it otherwise, so that is
    /// said only while somebody knows of the maintenance and will say when it is over.
    #[must_use]
    pub fn json(&self, current: Option<&Current>) -> String {
        let body = match current {
            Some(current) => json!({ "error": {
                "status": 503,
                "code": "APP_COMMANDING",
                "maintaining": true,
                "message": sentence(current),
                "command": { "name": "Maintenance" },
            } }),
            None => json!({ "errors": [{ "code": "APP_UNAVAILABLE", "message": NOT_AVAILABLE }] }),
        };
        body.to_string()
    }
}

/// The websocket message that shows the dialog.
pub(super) fn maintaining(current: &Current) -> String {
    json!({ "type": "maintaining", "payload": {
        "code": "APP_COMMANDING",
        "message": sentence(current),
        "command": { "name": "Maintenance" },
    } })
    .to_string()
}

/// The websocket message that reloads what is open: its files may be those of an older version.
pub(super) fn back() -> String {
    json!({ "type": "maintaining", "payload": {
        "code": "APP_RUNNING",
        "message": "The system is back",
        "refresh": true,
    } })
    .to_string()
}

/// Why and for how long, in one sentence.
fn sentence(current: &Current) -> String {
    match current.remaining {
        Some(remaining) => format!("{} ({} left)", current.reason.trim_end_matches('.'), words(remaining)),
        None => current.reason.clone(),
    }
}

/// Whole seconds, rounded up.
fn secs(length: Duration) -> u64 {
    length.as_secs() + u64::from(length.subsec_nanos() > 0)
}

/// A length of time as people say it.
fn words(length: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    match length.as_secs() {
        0..45 => "less than a minute".to_owned(),
        45..90 => "about a minute".to_owned(),
        secs @ 90..1200 => format!("about {} minutes", (secs + MINUTE / 2) / MINUTE),
        secs @ 1200..5400 => format!("about {} minutes", (secs + 5 * MINUTE / 2) / (5 * MINUTE) * 5),
        secs => format!("about {} hours", (secs + HOUR / 2) / HOUR),
    }
}

/// To the second, in UTC.
fn rfc_3339(at: SystemTime) -> Option<String> {
    let secs = i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    Some(jiff::Timestamp::from_second(secs).ok()?.to_string())
}

fn read(path: &Path) -> Result<String, TemplateError> {
    let size = std::fs::metadata(path).map_err(TemplateError::Unreadable)?.len();
    if size > TEMPLATE_MAX {
        return Err(TemplateError::Large);
    }
    std::fs::read_to_string(path).map_err(TemplateError::Unreadable)
}

fn broken(error: &minijinja::Error) -> TemplateError {
    let kind = error.kind().to_string();
    let what = error.detail().map_or(kind.clone(), |detail| format!("{kind}: {detail}"));
    TemplateError::Broken { line: error.line().unwrap_or(1), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(template: Option<&Path>) -> PageConfig {
        PageConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            template: template.map(Path::to_owned),
            text: "Call <us> & ask".to_owned(),
            retry_after_secs: 40,
        }
    }

    fn current(reason: &str, secs: Option<u64>) -> Current {
        Current { reason: reason.to_owned(), remaining: secs.map(Duration::from_secs) }
    }

    #[test]
    fn what_people_wrote_stays_text() {
        let face = Face::new(&config(None)).unwrap();
        let evil = current("<script>alert(\"1\")</script>", Some(61));
        let page = face.html(Some(&evil));
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;&#x2f;script&gt;"), "{page}");
        assert!(page.contains("Call &lt;us&gt; &amp; ask") && !page.contains("<script>alert"), "{page}");
        let answer: serde_json::Value = serde_json::from_str(&face.json(Some(&evil))).unwrap();
        assert_eq!(
            answer["error"]["message"], "<script>alert(\"1\")</script> (about a minute left)",
            "JSON carries it as it is"
        );
        assert_eq!(
            (&answer["error"]["maintaining"], &answer["error"]["status"]),
            (&json!(true), &json!(503))
        );
    }

    #[test]
    fn the_page_says_what_is_known() {
        let face = Face::new(&config(None)).unwrap();
        let page = face.html(Some(&current("Upgrade", Some(200))));
        assert!(page.contains("Upgrade") && page.contains("about 3 minutes"), "{page}");
        assert!(page.contains("content=\"30\""), "it looks again earlier than that: {page}");
        let page = face.html(Some(&current("Upgrade", None)));
        assert!(page.contains("Upgrade") && !page.contains("minutes"), "{page}");
        let page = face.html(None);
        assert!(page.contains("Not available") && !page.contains("aintenance"), "{page}");
    }

    #[test]
    fn who_comes_again_comes_neither_at_once_nor_never() {
        let face = Face::new(&config(None)).unwrap();
        for (remaining, secs) in [(None, 40), (Some(1), 5), (Some(61), 61), (Some(100_000), 3600)] {
            assert_eq!(face.retry_after(Some(&current("", remaining))), secs);
        }
        let begun = Current { reason: String::new(), remaining: Some(Duration::from_millis(60_001)) };
        assert_eq!(face.retry_after(Some(&begun)), 61);
        assert_eq!(face.retry_after(None), 40);
    }

    #[test]
    fn lengths_are_told_as_people_say_them() {
        let told = [(3, "less than a minute"), (60, "about a minute"), (100, "about 2 minutes")];
        let more = [
            (1199, "about 20 minutes"),
            (4000, "about 65 minutes"),
            (6000, "about 2 hours"),
            (40_000, "about 11 hours"),
        ];
        for (secs, text) in told.into_iter().chain(more) {
            assert_eq!(words(Duration::from_secs(secs)), text);
        }
    }

    #[test]
    fn a_template_of_ones_own_is_tried_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        let new = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Face::new(&config(Some(&path)))
        };
        let good =
            "{{ reason }}, {{ text }}, {{ remaining_seconds }}, {{ retry_after_seconds }}, {{ ends_at }}";
        let page = new(good).unwrap().html(Some(&current("<b>", Some(7))));
        assert!(page.starts_with("&lt;b&gt;, Call &lt;us&gt; &amp; ask, 7, 7, 20"), "{page}");
        let error = new("<h1>\n{{ reson }}").unwrap_err();
        assert_eq!(error.line(), 2);
        assert!(error.to_string().contains("undefined"), "{error}");
        let error = new("one\n\n{% if reason %}").unwrap_err();
        assert!(error.line() == 3 && error.to_string().contains("end of input"), "{error}");
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}.{% endfor %}{% endfor %}";
        assert!(new(endless).unwrap_err().to_string().contains("fuel"), "it would never end");
        std::fs::remove_file(&path).unwrap();
        let error = Face::new(&config(Some(&path))).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn a_template_that_fails_later_gives_way_to_the_built_in_page() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        std::fs::write(&path, "{% if reason == 'no' %}{{ nothing }}{% endif %}mine").unwrap();
        let face = Face::new(&config(Some(&path))).unwrap();
        assert_eq!(face.html(Some(&current("yes", None))), "mine");
        assert!(face.html(Some(&current("no", None))).contains("<html"));
    }
}
