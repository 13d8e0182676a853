//! Replays a scenario: reads it with its configuration, starts a VM, and runs its cases.

mod case;
mod report;

use std::path::Path;

use crate::host::{LogLevel, Module, Node, Settings, StartFailure, Vm};
use crate::plugin::Plugin;
use crate::scenario::Scenario;
use crate::session::{Session, format_log};
use crate::yaml;

pub use case::CaseResult;
pub use report::Report;

use case::CaseRunner;

/// A scenario with the settings of its VM.
pub struct Replay {
    scenario: Scenario,
    settings: Settings,
}

impl Replay {
    /// Reads a scenario and the files that it names.
    pub fn read(file: &Path) -> Result<Self, yaml::Error> {
        let scenario: Scenario = yaml::read(file)?;
        match (&scenario.configuration_error, &scenario.cases) {
            (Some(error), Some(_)) => {
                let reason = "expected `cases` or `configuration_error`, but found both";
                return Err(yaml::Error::at(file, error.referenced, reason));
            }
            (None, None) => {
                let reason = "expected the key `cases`, but found none".into();
                return Err(yaml::Error { file: file.to_owned(), position: Some((1, 1)), reason });
            }
            _ => {}
        }
        let plugin = Plugin::of_scenario(&scenario, file)?;
        let mut environment = plugin.environment;
        environment.retain(|(name, _)| !scenario.environment.contains_key(name));
        environment.extend(scenario.environment.clone());
        let settings = Settings {
            configuration: plugin.configuration,
            node: Node {
                id: scenario.node.id.clone(),
                cluster: scenario.node.cluster.clone(),
                metadata: scenario.node.metadata.clone(),
            },
            environment,
            clusters: scenario.clusters.clone(),
            without_cel: !scenario.cel,
            seed: scenario.seed,
            now_ns: scenario.time.0,
            ..Settings::default()
        };
        Ok(Self { scenario, settings })
    }

    /// Runs all cases in one VM. An error means that the module is unusable.
    pub fn run(&self, module: &Module) -> anyhow::Result<Vec<CaseResult>> {
        let started = module.start(&self.settings)?;
        let expected_error =
            self.scenario.configuration_error.as_ref().map(|error| error.value.as_str());
        let (name, failure) = match (started, expected_error) {
            (Ok(vm), None) => return Ok(self.run_cases(vm)),
            (Err(failure), Some(text)) => (REFUSED, missing_refusal(&failure, text)),
            (Ok(_), Some(_)) => {
                let problem = "expected the filter to refuse the configuration, but it accepted it";
                (REFUSED, Some(problem.to_owned()))
            }
            (Err(failure), None) => {
                let cause = failure.trap.map(|trap| trap.to_string());
                let problem = format!(
                    "expected a valid configuration, but {}\n{}",
                    cause.as_deref().unwrap_or("the filter refused it"),
                    format_log(&failure.log)
                );
                (ACCEPTED, Some(problem))
            }
        };
        Ok(vec![CaseResult::new(name, failure)])
    }

    fn run_cases(&self, vm: Vm) -> Vec<CaseResult> {
        let session = match Session::new(vm) {
            Ok(session) => session,
            Err(trap) => return vec![CaseResult::new(ACCEPTED, Some(trap.to_string()))],
        };
        let mut runner = CaseRunner::new(session, self.settings.now_ns);
        self.scenario.cases.iter().flatten().map(|case| runner.run(case)).collect()
    }
}

/// Returns why a VM that did not start fails its scenario: the filter must log an error with `text`.
fn missing_refusal(failure: &StartFailure, text: &str) -> Option<String> {
    if let Some(trap) = &failure.trap {
        return Some(format!("expected the filter to refuse the configuration, but {trap}"));
    }
    let is_logged =
        failure.log.iter().any(|line| line.level >= LogLevel::Error && line.message.contains(text));
    (!is_logged).then(|| {
        let log = format_log(&failure.log);
        format!("expected an error in the log with {text:?}, but found\n{log}")
    })
}

/// Names of the one result of a scenario whose cases do not run.
const ACCEPTED: &str = "configuration is accepted";
const REFUSED: &str = "configuration is refused";
