//! Machines that are switched off by a program of the operator's: IPMI, a hypervisor, a smart plug.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use soloist_core::fence::FenceOrder;
use soloist_core::ids::Generation;

use super::Fence;
use super::config::MachineFenceConfig;
use crate::host::child::Program;

/// Variables that programs of the operator's get from the agent's own environment.
const VARIABLES: [&str; 3] = ["PATH", "HOME", "LANG"];
/// Longest answer that is quoted, in characters.
const QUOTE_MAX: usize = 100;

/// A machine.
#[derive(Debug)]
pub(super) struct MachineFence {
    config: MachineFenceConfig,
    mark: String,
    /// The order by which it was found off: it is switched off once for each.
    off: Option<Generation>,
}

impl MachineFence {
    pub(super) fn new(config: MachineFenceConfig, mark: String) -> Self {
        Self { config, mark, off: None }
    }

    async fn run(&self, argv: &[String]) -> Result<String, String> {
        let set = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok()?));
        let env: BTreeMap<String, String> = VARIABLES.iter().filter_map(set).collect();
        let deadline = Duration::from_secs(self.config.timeout_secs);
        let program = Program { argv: argv.to_vec(), env, mark: self.mark.clone(), deadline };
        program.run(|_| {}).await.map_err(|error| error.to_string())
    }

    /// Whether the machine is off.
    async fn is_off(&self) -> Result<bool, String> {
        let answer = self.run(&self.config.check).await?;
        Ok(answer.contains(&self.config.off_says))
    }
}

impl Fence for MachineFence {
    fn arm(&mut self) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let answer = self.run(&self.config.check).await?;
            if answer.trim().is_empty() {
                return Err(format!("{} says nothing", self.config.check[0]));
            }
            Ok(())
        }
        .boxed()
    }

    fn carry<'a>(&'a mut self, order: &'a FenceOrder) -> BoxFuture<'a, Result<bool, String>> {
        async move {
            if !order.up || self.off == Some(order.generation) {
                return Ok(true);
            }
            if !self.is_off().await? {
                self.run(&self.config.off).await?;
                if !self.is_off().await? {
                    let answer: String =
                        self.run(&self.config.check).await?.trim().chars().take(QUOTE_MAX).collect();
                    return Err(format!("it was switched off, and its check says \"{answer}\""));
                }
            }
            self.off = Some(order.generation);
            Ok(true)
        }
        .boxed()
    }

    fn deadline(&self) -> Duration {
        // Four runs at most.
        Duration::from_secs(self.config.timeout_secs.saturating_mul(4).saturating_add(1))
    }
}
