//! A command under the lock that works until its test lets it go, however slow the machine is.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::{Fleet, Output, until};

/// It ends by itself after this many tenths of a second, should nobody let it go.
const TENTHS_MAX: u32 = 3000;

/// A command that is at work under the lock. It ends when this is dropped, or the folder of its fleet is gone.
#[derive(Debug)]
pub struct Held {
    child: Option<Child>,
    end: PathBuf,
}

impl Held {
    /// Begins it and waits until it is at work. `mode` is `solo` or `all-stopped`; `beat` is run by a shell ten times a second.
    ///
    /// # Panics
    /// When it is not at work within 60 seconds.
    #[must_use]
    pub fn begin(fleet: &Fleet, mode: &str, beat: &str) -> Self {
        let file = |name: &str| fleet.folder.join(format!("held-{name}"));
        let (begun, end) = (file("begun"), file("end"));
        for file in [&begun, &end] {
            // There is one only after an earlier holder.
            let _ = std::fs::remove_file(file);
        }
        let script = format!(
            "touch '{0}' || exit 1; for i in $(seq {TENTHS_MAX}); do [ -e '{0}' ] && [ ! -e '{1}' ] || break; {beat} || exit 1; sleep 0.1; done",
            begun.display(),
            end.display()
        );
        let mut command = fleet.cli().command(&["run", &format!("--{mode}"), "--", "sh", "-c", &script]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let held = Self { child: Some(child.expect("the command line can be started")), end };
        until(
            "the holder at work",
            Duration::from_secs(60),
            || fleet.logs(),
            || begun.exists().then_some(()),
        );
        held
    }

    /// Lets it go, and waits for its end.
    ///
    /// # Panics
    /// When the folder of its fleet is gone.
    pub fn let_go(mut self) -> Output {
        std::fs::write(&self.end, "").expect("a file in a temporary folder can be written");
        let child = self.child.take().expect("it is let go once");
        let output = child.wait_with_output().expect("the command line ends");
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGKILL leaves what it runs: that sees the file. Both may have ended.
            let _ = std::fs::write(&self.end, "");
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
