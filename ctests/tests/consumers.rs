//! The tables of `docs/consumers.md` say what installed filters do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use ctests::{skip, workspace_dir};

/// The rows of the table whose first heading is `heading`, each as its cells.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let start = format!("| {heading} |");
    let rows: Vec<Vec<String>> = text
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(rows.len() > 2, "no table of {heading}s");
    rows
}

fn text() -> String {
    fs::read_to_string(workspace_dir().join("docs/consumers.md")).expect("the document is there")
}

/// What the document says that each package calls.
fn documented(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = table(text, "function");
    let mut calls: BTreeMap<String, BTreeSet<String>> =
        rows[0][1..].iter().map(|package| (package.clone(), BTreeSet::new())).collect();
    for row in &rows[2..] {
        assert_eq!(row.len(), rows[0].len(), "{row:?}");
        for (package, _) in rows[0].iter().zip(row).skip(1).filter(|(_, mark)| *mark == "x") {
            calls.get_mut(package).expect("a column").insert(row[0].trim_matches('`').to_owned());
        }
    }
    calls
}

/// The functions of libmilter that a program expects from others.
fn called(file: &Path) -> BTreeSet<String> {
    let output = Command::new("nm").args(["-D", "--undefined-only"]).arg(file).output().expect("nm");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .filter(|name| ["smfi_", "mi_", "sm_"].iter().any(|prefix| name.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn installed_filters_call_what_is_documented() {
    let text = text();
    let mut documented = documented(&text);
    for row in &table(&text, "package")[2..] {
        let (package, file) = (&row[0], row[1].trim_matches('`'));
        let calls = documented.remove(package).unwrap_or_else(|| panic!("{package} has no column"));
        if Path::new(file).exists() {
            assert_eq!(called(Path::new(file)), calls, "docs/consumers.md is out of date: {package} calls the first");
        } else {
            skip(&format!("calls of {file}"), package);
        }
    }
    assert_eq!(documented.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "columns without a package");
}

#[test]
fn every_function_has_a_row() {
    let header = fs::read_to_string(workspace_dir().join("include/libmilter/mfapi.h")).expect("the header is there");
    let rows: BTreeSet<String> =
        table(&text(), "function")[2..].iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let declared: BTreeSet<String> = header
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("smfi_") && *word != "smfi_str")
        .map(str::to_owned)
        .collect();
    assert_eq!(rows, declared);
}

#[test]
fn the_tests_named_exist() {
    let mut named = 0;
    for row in &table(&text(), "package")[2..] {
        for path in row[2].split(", ").filter(|entry| *entry != "not run").map(|entry| entry.trim_matches('`')) {
            assert!(workspace_dir().join("ctests").join(path).is_file(), "{}: {path} does not exist", row[0]);
            named += 1;
        }
    }
    assert!(named > 0);
}
