//! Where a program runs: on this machine as it is, or on a host of its own, which is a network namespace.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network in which programs are started and sockets are opened.
#[derive(Debug, Clone, Default)]
pub struct Place(Option<PathBuf>);

impl Place {
    /// A named network namespace.
    #[must_use]
    pub fn namespace(name: &str) -> Self {
        Self(Some(Path::new("/run/netns").join(name)))
    }

    /// A command that runs a program there. The program has the process id that the command is started with.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let Some(namespace) = &self.0 else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.display())).arg("--").arg(program);
        command
    }

    /// Moves this thread there, with all sockets that it opens from now on.
    ///
    /// # Panics
    /// When the namespace is gone.
    pub fn enter(&self) {
        let Some(path) = &self.0 else { return };
        let namespace = File::open(path).expect("a namespace that this test made");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may enter a network namespace");
    }

    /// Does something there, in a thread of its own.
    ///
    /// # Panics
    /// When the work does.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let there = || {
                self.enter();
                work()
            };
            scope.spawn(there).join().expect("what was done in another place ended well")
        })
    }
}
