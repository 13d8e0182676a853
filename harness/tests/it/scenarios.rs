//! Every scenario of the project passes, and every file of an example is loaded by a test.

use std::path::{Path, PathBuf};

use sidespan_harness::replay::Loaded;

use crate::module;

#[test]
fn every_scenario_passes() {
    let mut failures = Vec::new();
    for scenario in scenarios(module::checkout()) {
        let results = Loaded::read(&scenario)
            .map_err(anyhow::Error::from)
            .and_then(|loaded| loaded.run(module::load()));
        match results {
            Ok(results) => failures.extend(results.into_iter().filter_map(|result| {
                let failure = result.failure?;
                Some(format!("{}: {}\n{failure}", scenario.display(), result.name))
            })),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_file_of_an_example_is_loaded() {
    assert_eq!(problems(module::checkout()), [""; 0]);
}

#[test]
fn a_file_that_no_test_loads_is_noticed() {
    let checkout = tempfile::tempdir().expect("a folder for the test");
    let write = |path: &str, text: &str| {
        let path = checkout.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for the test");
        std::fs::write(path, text).expect("a file for the test");
    };
    assert_eq!(
        problems(checkout.path()),
        [
            "examples: expected examples, but found none",
            "tests/scenarios: expected a scenario, but found none"
        ]
    );
    write("tests/scenarios/cost.yaml", "cases: []\n");
    write("examples/a/README.md", "");
    write("examples/a/plugin.yaml", "{}\n");
    write("examples/b/plugin.yaml", "{}\n");
    write("examples/b/scenario.yaml", "plugin: plugin.yaml\ncases: []\n");
    write("examples/b/gateway-scenario.yaml", "config: {}\ncases: []\n");
    write("examples/b/gateway.yaml", "{}\n");
    write("examples/b/more/plugin.yaml", "{}\n");
    assert_eq!(
        problems(checkout.path()),
        [
            "examples/a: expected a scenario, but found none",
            "examples/a/plugin.yaml: expected a file that a test loads, but none does",
            "examples/b/gateway.yaml: expected a file that a test loads, but none does",
            "examples/b/more: expected a file that a test loads, but none does",
        ]
    );
}

/// Scenarios that [`every_scenario_passes`] replays: those of the examples, and all files of
/// `tests/scenarios`.
fn scenarios(checkout: &Path) -> Vec<PathBuf> {
    let examples = entries(&checkout.join("examples"));
    let examples =
        examples.iter().flat_map(|folder| entries(folder)).filter(|file| is_scenario(file));
    examples.chain(entries(&checkout.join("tests/scenarios"))).collect()
}

/// Folders without a scenario, and files that are neither a scenario nor its plugin, nor loaded by
/// the tests in Python.
fn problems(checkout: &Path) -> Vec<String> {
    let scenarios = scenarios(checkout);
    let plugins: Vec<PathBuf> = scenarios
        .iter()
        .filter_map(|scenario| Loaded::read(scenario).ok()?.plugin().map(Path::to_owned))
        .collect();
    let mut problems = Vec::new();
    let mut report = |path: &Path, problem: &str| {
        let path = path.strip_prefix(checkout).unwrap_or(path);
        problems.push(format!("{}: {problem}", path.display()));
    };
    let examples = entries(&checkout.join("examples"));
    if examples.is_empty() {
        report(&checkout.join("examples"), "expected examples, but found none");
    }
    for folder in examples.into_iter().chain([checkout.join("tests/scenarios")]) {
        if !scenarios.iter().any(|scenario| scenario.parent() == Some(&folder)) {
            report(&folder, "expected a scenario, but found none");
        }
        for file in entries(&folder) {
            let name = file.file_name().unwrap_or_default();
            let elsewhere = LOADED_ELSEWHERE.iter().any(|known| name == *known);
            if !(elsewhere || scenarios.contains(&file) || plugins.contains(&file)) {
                report(&file, "expected a file that a test loads, but none does");
            }
        }
    }
    problems
}

fn is_scenario(file: &Path) -> bool {
    file.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.ends_with("scenario.yaml"))
}

/// What is in a folder, by name; a folder that is not there is empty.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// `tests/test_collector.py` loads the Collector's configuration of every example; `README.md` is
/// text.
const LOADED_ELSEWHERE: [&str; 2] = ["README.md", "collector.yaml"];
