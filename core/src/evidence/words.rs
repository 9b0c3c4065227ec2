//! A proof in words.

use super::{Finding, GrantProof, Proof, Sampling, Verdict};
use crate::time::Millis;

impl Proof {
    /// What is proven, and what is not, a line each; `time` writes a moment of the coordinators' clock.
    #[must_use]
    pub fn lines(&self, time: impl Fn(u64) -> String) -> Vec<String> {
        self.grants.iter().flat_map(|grant| grant.lines(&time)).collect()
    }
}

impl GrantProof {
    fn lines(&self, time: &impl Fn(u64) -> String) -> Vec<String> {
        let mut lines = vec![self.sentence(time)];
        let groups = [("BROKEN", &self.broken), ("not proven", &self.missing), ("note", &self.remarks)];
        for (title, findings) in groups {
            lines.extend(findings.iter().map(|finding| format!("  {title}: {}", finding.line(time))));
        }
        lines
    }

    fn sentence(&self, time: &impl Fn(u64) -> String) -> String {
        let to = self.to_wall_ms.map_or("now".to_owned(), time);
        let stretch = format!("from {} to {to}", time(self.from_wall_ms));
        let who = self.solo.as_ref().map_or("no node".to_owned(), |solo| format!("only {solo}"));
        let mut text = match self.verdict {
            Verdict::Proven => format!("{stretch} {who} ran"),
            Verdict::SoFar => format!("{stretch} {who} has run so far"),
            Verdict::Unproven => format!("{stretch} it is not proven that {who} ran"),
            Verdict::Broken => format!("{stretch} it is NOT true that {who} ran"),
        };
        let expected = self.connected.iter().all(|node| self.solo.as_ref() == Some(node));
        if let Some(samples) = self.samples.filter(|_| expected) {
            let connected = match (&self.solo, self.connected.is_empty()) {
                (Some(solo), false) => format!("only {solo} was"),
                (Some(_) | None, _) => "no node was".to_owned(),
            };
            let every = Millis(samples.every_ms);
            text = format!(
                "{text}, {connected} connected ({}, every {every}; {})",
                count(samples, "sample"),
                gap(samples)
            );
        }
        if let Some(looks) = self.looks {
            text = format!("{text}; processes: {}, {}", count(looks, "look"), gap(looks));
        }
        match self.bound_ms {
            Some(bound) => format!("{text}; clocks to within {}", Millis(bound.max(1))),
            None => format!("{text}; no agent compared its clock"),
        }
    }
}

fn count(sampling: Sampling, what: &str) -> String {
    let s = if sampling.count == 1 { "" } else { "s" };
    format!("{} {what}{s}", sampling.count)
}

fn gap(sampling: Sampling) -> String {
    let tenths = sampling.gap_ms.div_ceil(100);
    format!("longest gap {}.{} s", tenths / 10, tenths % 10)
}

impl Finding {
    fn line(&self, time: &impl Fn(u64) -> String) -> String {
        let node = self.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
        let stretch = match (self.from_wall_ms, self.to_wall_ms) {
            (Some(from), Some(to)) => format!(", from {} to {}", time(from), time(to)),
            (Some(from), None) => format!(", from {}", time(from)),
            (None, Some(to)) => format!(", until {}", time(to)),
            (None, None) => String::new(),
        };
        format!("{node}{}{stretch}", self.what)
    }
}
