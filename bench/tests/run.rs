//! A run of the tool from start to end, on little.

use std::fs;
use std::process::Command;

use bench::results::Results;
use ctests::{Library, TempDir};

#[test]
fn a_run_compares_writes_and_draws() {
    let Some(_) = Library::reference_or_skip("a_run_compares_writes_and_draws") else { return };
    let output = TempDir::new();
    let readme =
        output.write("README.md", "before\n<!-- bench: written by `make bench PUBLISH=1` -->\n<!-- end of bench -->\n");
    let plots = output.join("plots");
    let run = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--quick", "--model=pool", "--only=f nr unix postfix", "--only=i", "--only=connections 1"])
        .args(["--only=connections 8", "--output"])
        .arg(output.path())
        .arg("--publish")
        .args([&readme, &plots])
        .output()
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{errors}");
    assert!(said.contains("pool / reference"), "{said}");

    let results: Results = serde_json::from_slice(&fs::read(output.join("results.json")).unwrap()).unwrap();
    assert_eq!(results.contestants, ["reference", "pool", "floor"]);
    for row in &results.rows {
        // On a busy machine a round may pass without a message.
        let measured = (0..results.contestants.len()).all(|one| row.value(one).is_some_and(|value| value.high > 0.0));
        assert!(measured, "{} {:?} {:?} {:?}", row.scenario, row.measure, row.samples, results.remarks);
    }
    let readme = fs::read_to_string(readme).unwrap();
    assert!(readme.starts_with("before\n") && readme.contains("| i start "), "{readme}");
    for plot in ["throughput", "latency", "cpu", "memory"] {
        assert!(fs::read_to_string(plots.join(format!("{plot}.svg"))).unwrap().contains(">pool"), "{plot}");
    }
}

#[test]
fn a_run_of_all_models_writes_what_tells_them_apart() {
    let Some(_) = Library::reference_or_skip("a_run_of_all_models_writes_what_tells_them_apart") else { return };
    let output = TempDir::new();
    let marks = "<!-- bench: written by `make bench MODELS=1 PUBLISH=1` -->\nold\n<!-- end of bench -->\n";
    let document = output.write("models.md", marks);
    let run = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--quick", "--models", "--only=c negotiation", "--output"])
        .arg(output.path())
        .arg("--publish-models")
        .arg(&document)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let progress = String::from_utf8_lossy(&run.stderr);
    assert!(progress.contains("1 of 1, ") && progress.contains(" left: c negotiation unix c8"), "{progress}");

    let written = fs::read_to_string(document).unwrap();
    let rows: Vec<Vec<&str>> = written
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let [models, cpu, connections] = &rows[..] else { panic!("{written}") };
    let ours = ["pool / reference", "threads / reference", "fork / reference", "processes / reference"];
    assert_eq!((models[2], &models[3..]), ("reference", &ours[..]));
    assert_eq!([cpu[0], cpu[1]], ["c negotiation unix c8", "CPU us/connection"]);
    assert_eq!([connections[0], connections[1]], ["c negotiation unix c8", "connections/s"]);
    assert!(!written.contains("old") && written.contains("; short run of "), "{written}");
}
