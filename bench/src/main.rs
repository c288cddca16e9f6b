//! Measures this libmilter beside the installed reference, and shows the results.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bench::contestant::{Contestant, MODELS};
use bench::filter::{Filter, Socket};
use bench::machine::{self, Machine};
use bench::results::Results;
use bench::{choice, plot, readme, rounds, scenario, table};
use clap::Parser;
use ctests::{Library, TempDir};

/// Measures this libmilter beside the installed reference, in one run: ratios, figures reached, plots.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Arguments {
    /// A run of less than three minutes
    #[arg(long)]
    quick: bool,

    /// Only scenarios whose names begin so; repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// Only these models of this library; repeatable [default: all that it has, in a short run pool and threads]
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,

    /// Only what tells the models apart, with all of them and without the bare server
    #[arg(long, conflicts_with_all = ["model", "noise"])]
    models: bool,

    /// Compare the reference with a copy of itself instead, to see the noise
    #[arg(long, conflicts_with = "model")]
    noise: bool,

    /// Where results and plots go
    #[arg(short, long, value_name = "DIRECTORY", default_value = "target/bench")]
    output: PathBuf,

    /// Show these results instead of measuring
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "model", "noise"])]
    results: Option<PathBuf>,

    /// Also put the figures to reach into this file, between its marks, and the plots into a directory beside it
    #[arg(long, value_names = ["FILE", "DIRECTORY"], num_args = 2, conflicts_with = "models")]
    publish: Vec<PathBuf>,

    /// Also put what tells the models apart into this file, between its marks
    #[arg(long, value_name = "FILE", requires = "models")]
    publish_models: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bench: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let in_output = |error: io::Error| format!("{}: {error}", arguments.output.display());
    fs::create_dir_all(&arguments.output).map_err(in_output)?;
    let results = match &arguments.results {
        Some(path) => load(path)?,
        None => measure(arguments)?,
    };
    plot::all(&results, &arguments.output).map_err(in_output)?;
    if let [readme, plots] = &arguments.publish[..] {
        let written = fs::create_dir_all(plots).and_then(|()| plot::all(&results, plots));
        written.map_err(|error| format!("{}: {error}", plots.display()))?;
        publish(readme, "PUBLISH=1", &table::targets(&results), &results)?;
    }
    if let Some(document) = &arguments.publish_models {
        publish(document, "MODELS=1 PUBLISH=1", &table::choice(&results), &results)?;
    }
    println!("{}", if arguments.models { table::choice(&results) } else { table::all(&results) });
    println!("Ratios are medians of the rounds, quartiles in parentheses.\n");
    if !arguments.noise && !arguments.models {
        println!("{}", table::targets(&results));
    }
    print!("{}", table::machine(&results));
    results.remarks.iter().for_each(|remark| println!("not measured: {remark}"));
    println!("Results and plots are in {}.", arguments.output.display());
    Ok(())
}

fn publish(document: &Path, variables: &str, table: &str, results: &Results) -> Result<(), String> {
    readme::publish(document, variables, &format!("{table}\n{}", table::machine(results)))
        .map_err(|error| format!("{}: {error}", document.display()))
}

fn load(path: &Path) -> Result<Results, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn measure(arguments: &Arguments) -> Result<Results, String> {
    let reference = Library::reference()
        .ok_or("there is no reference to compare with: install libmilter-dev, or set LIBMILTER_REFERENCE")?;
    let files = machine::raise_file_limit();
    let directory = TempDir::new();
    let mut remarks = Vec::new();
    let mut contestants = vec![Contestant::reference(reference, &directory)];
    if arguments.noise {
        contestants.push(Contestant::copy_of(reference, &directory));
    } else {
        let wanted = |model: &str| match &arguments.model[..] {
            [] => arguments.models || !arguments.quick || model == "pool" || model == "threads",
            models => models.iter().any(|wanted| wanted == model),
        };
        for (model, options) in MODELS.into_iter().filter(|(model, _)| wanted(model)) {
            let contestant = Contestant::ours(model, options, &directory);
            match Filter::listening(&contestant, "noop", Socket::Unix) {
                Ok(_) => contestants.push(contestant),
                Err(reason) => remarks.push(format!("model {model}: {reason}")),
            }
        }
        if !arguments.models {
            contestants.push(Contestant::floor(&directory));
        }
    }
    let mut scenarios = scenario::all(arguments.quick);
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|start| name.starts_with(start));
    scenarios.retain(|scenario| wanted(&scenario.name) && (!arguments.models || choice::has_scenario(&scenario.name)));
    if scenarios.is_empty() || contestants.len() < 2 {
        return Err("there is nothing to compare".to_owned());
    }
    // A filter has as many descriptors as the load generator.
    scenarios.retain(|scenario| {
        let fits = scenario.connections as u64 + 100 < files;
        if !fits {
            remarks.push(format!("{}: the system allows {files} open files only", scenario.name));
        }
        fits
    });
    let path = arguments.output.join("results.json");
    let mut keep = |results: &Results| fs::write(&path, serde_json::to_vec(results)?);
    let measured = rounds::measure(&scenarios, &contestants, Machine::describe(reference), arguments.quick, &mut keep);
    let mut results = measured.map_err(|error| format!("{}: {error}", path.display()))?;
    results.remarks.splice(..0, remarks);
    keep(&results).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(results)
}
