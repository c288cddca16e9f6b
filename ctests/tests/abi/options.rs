//! The options, which the library's source, libmilter(7) and README.md have to tell alike. README's table is made of the
//! manual's list.

use crate::manual::{part, source, words};
use ctests::workspace_dir;
use std::collections::BTreeSet;
use std::fs;

/// The entries of the manual's list: option, values, and what lines say about it.
fn entries(page: &str) -> Vec<(String, String, Vec<&str>)> {
    let lines = part(page, ".Sh ENVIRONMENT");
    let list = lines.split(|line| *line == "The options are:").nth(1).expect("a list of options");
    let mut entries = Vec::new();
    for line in list.iter().skip(1).take_while(|line| **line != ".El") {
        match line.strip_prefix(".It Cm ") {
            Some(head) => {
                let (name, values) = head.split_once(" Ns = Ns ").expect("an option has values");
                entries.push((name.to_owned(), values.to_owned(), Vec::new()));
            }
            None => entries.last_mut().expect("an entry").2.push(*line),
        }
    }
    entries
}

/// Part of a line, with what encloses it in Markdown.
struct Span {
    frame: &'static str,
    text: String,
    is_apart: bool,
}

/// A line of the manual as Markdown, with a blank before it unless it is punctuation.
fn markdown(line: &str) -> String {
    let Some(request) = line.strip_prefix('.') else { return format!(" {}", line.replace(r"\&", "")) };
    let mut spans: Vec<Span> = Vec::new();
    let (mut frame, mut is_apart) = ("", true);
    let words = words(request);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "Ns" => is_apart = false,
            "Cm" | "Dv" | "Ql" => frame = "`",
            "Ar" => frame = "*",
            "Xr" => {
                let page = words.next().expect("a reference has a page");
                spans.push(Span { frame: "`", text: page.to_owned(), is_apart: true });
                assert!(words.next().is_some_and(|section| section.parse::<u32>().is_ok()), "{line}");
            }
            "|" => spans.push(Span { frame: "", text: ",".into(), is_apart: false }),
            "." | "," | ":" | ";" => spans.push(Span { frame: "", text: word.to_owned(), is_apart: false }),
            _ => {
                assert!(!frame.is_empty(), "a macro without meaning in Markdown: {line}");
                match spans.last_mut().filter(|last| !is_apart && last.frame == frame) {
                    Some(last) => last.text += word,
                    None => spans.push(Span { frame, text: word.to_owned(), is_apart }),
                }
                is_apart = true;
            }
        }
    }
    let shown = spans.iter().map(|Span { frame, text, is_apart }| {
        let blank = if *is_apart { " " } else { "" };
        format!("{blank}{frame}{text}{frame}")
    });
    shown.collect()
}

fn table(entries: &[(String, String, Vec<&str>)]) -> String {
    let row = |(name, values, lines): &(String, String, Vec<&str>)| {
        let values = markdown(&format!(".{values}"));
        let text: String = lines.iter().map(|line| markdown(line)).collect();
        format!("| `{name}` |{values} |{text} |\n")
    };
    let rows: String = entries.iter().map(row).collect();
    format!("| option | values | what |\n|---|---|---|\n{rows}")
}

#[test]
fn the_manual_has_those_of_the_source() {
    let source_of_options = workspace_dir().join("src/server/options.rs");
    let rows = fs::read_to_string(source_of_options).expect("the options are there");
    let rows = rows.lines().filter_map(|line| line.trim().strip_prefix("name: \"")?.strip_suffix("\","));
    let rows: BTreeSet<String> = rows.map(str::to_owned).collect();
    let page = source("libmilter", "7");
    let entries: BTreeSet<String> = entries(&page).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(entries, rows);
    assert!(rows.contains("drain"), "{rows:?}");
}

/// `UPDATE_README=1` writes the table instead of complaining about it.
#[test]
fn the_table_in_the_readme_is_up_to_date() {
    const BEGIN: &str =
        "<!-- options: made of libmilter(7) by UPDATE_README=1 cargo test -p ctests --test abi options -->\n\n";
    const END: &str = "\n<!-- end of options -->\n";
    let path = workspace_dir().join("README.md");
    let readme = fs::read_to_string(&path).expect("it is there");
    let (before, rest) = readme.split_once(BEGIN).expect("the table has a beginning");
    let (old, after) = rest.split_once(END).expect("the table has an end");
    let page = source("libmilter", "7");
    let new = table(&entries(&page));
    if std::env::var_os("UPDATE_README").is_some_and(|value| value == "1") {
        fs::write(&path, [before, BEGIN, &new, END, after].concat()).expect("it can be written");
    } else {
        assert!(old == new, "README.md is out of date: run this with UPDATE_README=1");
    }
}

#[test]
fn lines_become_markdown() {
    for (line, expected) in [
        ("plain \\& text", " plain  text"),
        (".Cm pool ;", " `pool`;"),
        (".Dv SIGHUP , SIGTERM", " `SIGHUP`, `SIGTERM`"),
        (".Xr smfi_setconn 3", " `smfi_setconn`"),
        (".Cm model Ns = Ns Cm fork", " `model=fork`"),
        (".Cm off | Ar path | Cm unix: Ns Ar path", " `off`, *path*, `unix:`*path*"),
        (".Ql \"a=1, b=2\" .", " `a=1, b=2`."),
    ] {
        assert_eq!(markdown(line), expected, "{line}");
    }
}
