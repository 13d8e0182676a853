//! Replays a scenario: reads it with its configuration, starts a VM, and runs case after case.

use std::path::Path;

use crate::host::{LogLevel, Module, Node, Settings, StartFailure, Vm};
use crate::plugin::Plugin;
use crate::report::log_text;
use crate::scenario::Scenario;
use crate::session::Session;
use crate::yaml::{self, Refused};

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    pub name: String,
    /// What was wrong, in as many lines as it takes; `None`: nothing.
    pub failure: Option<String>,
    /// `None` where the module is not metered, or the case did not run to its end.
    pub instructions: Option<Instructions>,
}

/// WebAssembly instructions that a case executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Instructions {
    /// In the callbacks of its requests.
    pub requests: u64,
    /// In ticks and answers to calls.
    pub ticks: u64,
}

/// A scenario that was read, with its configuration.
pub struct Loaded {
    scenario: Scenario,
    settings: Settings,
}

impl Loaded {
    /// Reads a scenario and the files that it names.
    pub fn read(file: &Path) -> Result<Self, Refused> {
        let scenario: Scenario = yaml::read(file)?;
        match (&scenario.configuration_error, &scenario.cases) {
            (Some(error), Some(_)) => {
                let reason = "expected `cases` or `configuration_error`, but found both";
                return Err(Refused::at(file, error.referenced, reason));
            }
            (None, None) => {
                let reason = "expected the key `cases`, but found none".into();
                return Err(Refused { file: file.to_owned(), place: Some((1, 1)), reason });
            }
            _ => {}
        }
        let plugin = Plugin::of(&scenario, file)?;
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

    /// Runs all cases in one VM. An error means that the module itself is of no use.
    pub fn run(&self, module: &Module) -> anyhow::Result<Vec<CaseResult>> {
        let started = module.start(&self.settings)?;
        let expected_error =
            self.scenario.configuration_error.as_ref().map(|error| error.value.as_str());
        Ok(match (started, expected_error) {
            (Err(failure), Some(text)) => {
                vec![CaseResult::new("configuration is refused", refusal_problem(&failure, text))]
            }
            (Ok(_), Some(_)) => {
                let problem =
                    "expected the filter to refuse the configuration, but it took it".to_owned();
                vec![CaseResult::new("configuration is refused", Some(problem))]
            }
            (Err(failure), None) => {
                let cause = failure
                    .fault
                    .map_or("the filter refused it".to_owned(), |fault| fault.to_string());
                let problem = format!(
                    "expected a configuration that works, but {cause}\n{}",
                    log_text(&failure.log)
                );
                vec![CaseResult::new("configuration is taken", Some(problem))]
            }
            (Ok(vm), None) => self.run_cases(vm),
        })
    }

    fn run_cases(&self, vm: Vm) -> Vec<CaseResult> {
        let mut session = match Session::new(vm, self.settings.now_ns) {
            Ok(session) => session,
            Err(fault) => {
                return vec![CaseResult::new("configuration is used", Some(fault.to_string()))];
            }
        };
        let mut broken: Option<String> = None;
        let cases = self.scenario.cases.iter().flatten();
        let results = cases.map(|case| {
            if let Some(earlier) = &broken {
                let problem = format!("not run: the module trapped in the case `{earlier}`");
                return CaseResult::new(&case.name, Some(problem));
            }
            match session.run(case) {
                Ok(failure) => CaseResult {
                    instructions: session.instructions(),
                    ..CaseResult::new(&case.name, failure)
                },
                Err(fault) => {
                    broken = Some(case.name.clone());
                    let problem = format!("{fault}\n{}", log_text(&session.take_log()));
                    CaseResult::new(&case.name, Some(problem))
                }
            }
        });
        results.collect()
    }
}

impl CaseResult {
    fn new(name: &str, failure: Option<String>) -> Self {
        Self { name: name.to_owned(), failure, instructions: None }
    }
}

fn refusal_problem(failure: &StartFailure, text: &str) -> Option<String> {
    if let Some(fault) = &failure.fault {
        return Some(format!("expected the filter to refuse the configuration, but {fault}"));
    }
    let logged =
        failure.log.iter().any(|line| line.level >= LogLevel::Error && line.message.contains(text));
    (!logged).then(|| {
        format!("expected an error in the log with {text:?}, but found\n{}", log_text(&failure.log))
    })
}
