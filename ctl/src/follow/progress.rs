//! What people see while an operation is followed: a living line on a terminal, a line per change elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use soloist_core::view::{NodeView, OperationView};
use tokio::time::Instant;

use super::story::{Line, Story, moment};
use crate::ui::Ui;

/// Between two frames of the spinner.
const FRAME: Duration = Duration::from_millis(120);

/// What people see of an operation.
pub struct Progress {
    ui: Ui,
    since: Instant,
    story: Story,
    bar: Option<ProgressBar>,
    /// Whether its lines are data, as in the demo.
    narrates: bool,
    paused: bool,
    silent: bool,
}

impl Progress {
    /// Live on a terminal, else line by line.
    pub fn new(ui: Ui) -> Progress {
        let bar = ui.is_live().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // A template that cannot be parsed leaves the default one, which shows the message too.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(FRAME);
            bar
        });
        let mut progress = Progress::narrated(ui, Instant::now());
        (progress.bar, progress.narrates) = (bar, false);
        progress
    }

    /// Line by line on stdout, with the time since `since`: for the demo, whose story is its data.
    pub fn narrated(ui: Ui, since: Instant) -> Progress {
        let story = Story::default();
        Progress { ui, since, story, bar: None, narrates: true, paused: false, silent: false }
    }

    /// Since it is followed.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Shows where the operation stands.
    pub fn show(&mut self, operation: &OperationView, nodes: &[NodeView]) {
        self.silent = false;
        let news = self.story.news(operation, nodes, self.elapsed());
        if self.paused {
            return;
        }
        for line in news {
            match (line, &self.bar) {
                (Line::Happened(text), _) => self.line(&text),
                (Line::Waits(text), None) => self.line(&text),
                // The living line says it.
                (Line::Waits(_), Some(_)) => {}
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_message(moment(operation, nodes));
        }
    }

    /// Shows that nothing is heard.
    pub fn silent(&mut self, silent: Duration) {
        if !std::mem::replace(&mut self.silent, true) && !self.paused {
            let seconds = silent.as_secs();
            self.line(&format!(
                "no coordinator that can decide answers for {seconds} s; the operation goes on"
            ));
        }
    }

    /// A line that stays, with the time since it is followed.
    pub fn line(&self, text: &str) {
        let text = format!("[{:6.1} s] {text}", self.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) if !self.paused => bar.println(text),
            // A story that nobody can hear is still played to its end.
            _ if self.narrates => drop(self.ui.text(&text)),
            _ => self.ui.note(&text),
        }
    }

    /// Leaves the terminal to somebody else.
    pub fn pause(&mut self) {
        self.paused = true;
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
    }

    /// Takes the terminal again.
    pub fn resume(&mut self) {
        self.paused = false;
        if let Some(bar) = &self.bar {
            bar.reset_elapsed();
            bar.reset();
            bar.enable_steady_tick(FRAME);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
