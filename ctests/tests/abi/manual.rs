//! The manual pages in `man/`: complete, in agreement with headers, options and tables, and well-formed.

use crate::symbols::NAMES;
use ctests::stage::{build, exists, make, output};
use ctests::{TempDir, skip, workspace_dir};
use milter_probe::Mta;
use milter_protocol::Stage;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Functions that are exported for configure scripts and for programs built with sendmail's library, and are no part of the
/// interface.
const INTERNAL: [&str; 6] = ["mi_stop", "sm_errstring", "sm_strlcat", "sm_strlcat2", "sm_strlcpy", "sm_strlcpyn"];

/// Pages of the system that ours refer to.
const FOREIGN: [&str; 9] = [
    "_exit 2",
    "execve 2",
    "listen 2",
    "openlog 3",
    "pthread_create 3",
    "pthread_exit 3",
    "syslog 3",
    "umask 2",
    "vfork 2",
];

/// Names and sections of the pages, in order.
pub(crate) fn pages() -> BTreeSet<(String, String)> {
    let entries = fs::read_dir(workspace_dir().join("man")).expect("there is a manual");
    let names = entries.map(|entry| entry.expect("the directory stays").file_name().into_string().expect("UTF-8"));
    let pages = names.filter_map(|name| name.rsplit_once('.').map(|(name, end)| (name.to_owned(), end.to_owned())));
    pages.filter(|(_, section)| section.len() == 1 && section.as_bytes()[0].is_ascii_digit()).collect()
}

pub(crate) fn source(name: &str, section: &str) -> String {
    let path = workspace_dir().join(format!("man/{name}.{section}"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn header(name: &str) -> String {
    fs::read_to_string(workspace_dir().join("include/libmilter").join(name)).expect("the header is there")
}

/// The lines of one part of a page, from `begin` to the next line that starts with the same macro.
pub(crate) fn part<'a>(page: &'a str, begin: &str) -> Vec<&'a str> {
    let kind = begin.split_whitespace().next().expect("a macro");
    let mut lines = page.lines().skip_while(|line| *line != begin);
    assert!(lines.next().is_some(), "no {begin}");
    lines.take_while(|line| !line.starts_with(".Sh ") && line.split_whitespace().next() != Some(kind)).collect()
}

/// The words of a macro line; quoted ones may hold blanks.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, piece) in line.split('"').enumerate() {
        if number % 2 == 1 {
            words.push(piece.to_owned());
        } else {
            words.extend(piece.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// C source as tokens with one blank between them.
fn tokens(text: &str) -> String {
    let mut tokens = String::new();
    let mut in_word = false;
    for character in text.chars() {
        let is_word = character.is_alphanumeric() || "_.".contains(character);
        if !(tokens.is_empty() || tokens.ends_with(' ') || is_word && in_word) {
            tokens.push(' ');
        }
        if !character.is_whitespace() {
            tokens.push(character);
        }
        in_word = is_word;
    }
    tokens.trim_end().to_owned()
}

/// A prototype: what is returned, what it is called, the parameters; each as tokens.
type Prototype = (String, String, Vec<String>);

/// The functions that the headers declare; the underlines in front of their parameters only keep macros of programs away.
fn declared() -> Vec<Prototype> {
    let text = (header("mfapi.h") + &header("mfext.h")).replace(" __", " ").replace("*__", "*");
    let statements = text.split(';').filter_map(|statement| statement.rsplit_once("LIBMILTER_API "));
    let functions = statements.filter_map(|(_, declaration)| {
        let (front, parameters) = declaration.split_once('(')?;
        let front = tokens(front);
        let (result, name) = front.rsplit_once(' ')?;
        let parameters = parameters.trim_end().strip_suffix(')')?;
        Some((result.to_owned(), name.to_owned(), parameters.split(',').map(tokens).collect()))
    });
    functions.collect()
}

/// The callbacks of `struct smfiDesc`, with the types of their parameters.
fn callbacks() -> Vec<Prototype> {
    let text = header("mfapi.h");
    let members = text.split(';').filter_map(|member| member.rsplit_once("(*xxfi_").map(|(_, rest)| rest));
    let callbacks = members.filter_map(|member| {
        let (name, parameters) = member.split_once(")(")?;
        let parameters = parameters.strip_suffix(')')?.split(',').map(tokens).collect();
        Some(("sfsistat".to_owned(), format!("xxfi_{name}"), parameters))
    });
    callbacks.collect()
}

/// The prototype in a page.
fn documented(page: &str) -> Prototype {
    let mut result = String::new();
    let mut name = String::new();
    let mut parameters = Vec::new();
    for line in part(page, ".Sh SYNOPSIS") {
        let mut line = words(line).into_iter();
        match line.next().as_deref() {
            Some(".Ft") => result = tokens(&line.collect::<Vec<_>>().join(" ")),
            Some(".Fn" | ".Fo") => {
                name = line.next().expect("a function has a name");
                parameters.extend(line.map(|parameter| tokens(&parameter)));
            }
            Some(".Fa") => parameters.extend(line.map(|parameter| tokens(&parameter))),
            Some(".In" | ".Fc") => {}
            other => panic!("{other:?} in the synopsis"),
        }
    }
    (result, name, parameters)
}

#[test]
fn every_function_and_callback_has_its_page_and_no_page_is_left_over() {
    let functions = NAMES.into_iter().filter(|name| !INTERNAL.contains(name)).map(str::to_owned);
    let callbacks = callbacks().into_iter().map(|(_, name, _)| name);
    let wanted: BTreeSet<_> = functions.chain(callbacks).map(|name| (name, "3".to_owned())).collect();
    let others =
        [("libmilter", "7"), ("milter-probe", "1")].map(|(name, section)| (name.to_owned(), section.to_owned()));
    assert_eq!(pages(), wanted.into_iter().chain(others).collect());
}

#[test]
fn pages_have_the_names_of_their_files_and_the_usual_parts() {
    for (name, section) in pages() {
        let page = source(&name, &section);
        assert!(page.contains(&format!("\n.Dt {} {section}\n", name.to_uppercase())), "{name}");
        assert!(part(&page, ".Sh NAME").contains(&format!(".Nm {name}").as_str()), "{name}");
        if section == "3" {
            for wanted in [".Sh DESCRIPTION", ".Sh RETURN VALUES", ".Sh SEE ALSO"] {
                assert!(!part(&page, wanted).is_empty(), "{name}: {wanted}");
            }
        }
    }
}

#[test]
fn prototypes_are_those_of_the_headers() {
    let functions = declared();
    assert_eq!(functions.len(), NAMES.len() - INTERNAL.len());
    for function in functions {
        assert_eq!(documented(&source(&function.1, "3")), function);
    }
    for (result, name, types) in callbacks() {
        let (documented_result, documented_name, parameters) = documented(&source(&name, "3"));
        assert_eq!((documented_result, documented_name), (result, format!("(*{name})")));
        // In the header they have no names.
        let without_names = parameters.iter().map(|parameter| parameter.rsplit_once(' ').map_or("", |(kind, _)| kind));
        assert_eq!(without_names.collect::<Vec<_>>(), types, "{name}");
    }
}

#[test]
fn constants_are_explained() {
    let page = source("libmilter", "7");
    let explained: BTreeSet<&str> = page.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let text = header("mfapi.h") + &header("mfdef.h") + &header("mfext.h");
    let defined = text.lines().filter_map(|line| line.trim_start().strip_prefix("#define ")?.split_whitespace().next());
    let public = ["SMFIS_", "SMFIF_", "SMFIP_", "SMFIM_", "MI_SUCCESS", "MI_FAILURE"];
    let wanted: BTreeSet<&str> = defined.filter(|name| public.iter().any(|start| name.starts_with(start))).collect();
    assert!(wanted.len() > 50, "{wanted:?}");
    let missing: Vec<_> = wanted.difference(&explained).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The table of macros in libmilter(7) is the one by which the probe plays MTAs.
#[test]
fn macros_are_those_that_mtas_send() {
    let page = source("libmilter", "7");
    let lines = part(&page, ".Ss Macros");
    let entries = lines.windows(2).filter_map(|pair| Some((pair[0].strip_prefix(".It ")?.split_once(", ")?, pair[1])));
    let is_mta = |name: &str| [Mta::Sendmail, Mta::Postfix].iter().any(|mta| mta.name() == name);
    let rows: Vec<[String; 3]> = entries
        .filter(|((_, mta), _)| is_mta(mta))
        .map(|((stage, mta), macros)| [stage, mta, macros].map(str::to_owned))
        .collect();
    let none = |names: String| if names.is_empty() { "none".to_owned() } else { names };
    let mut wanted = Vec::new();
    for (stage, name) in [
        (Stage::Connect, "connect"),
        (Stage::Helo, "helo"),
        (Stage::Mail, "mail"),
        (Stage::Rcpt, "rcpt"),
        (Stage::Data, "data"),
        (Stage::Eoh, "eoh"),
        (Stage::Eom, "eom"),
    ] {
        for mta in [Mta::Sendmail, Mta::Postfix] {
            wanted.push([name.to_owned(), mta.name().to_owned(), none(mta.default_macros(stage).join(" "))]);
        }
    }
    assert_eq!(rows, wanted);
}

#[test]
fn references_lead_somewhere() {
    let known: BTreeSet<String> = pages().into_iter().map(|(name, section)| format!("{name} {section}")).collect();
    for (name, section) in pages() {
        let page = source(&name, &section);
        let references = page.lines().filter_map(|line| line.split_once("Xr ").map(|(_, reference)| words(reference)));
        for reference in references {
            let reference = reference[..2].join(" ");
            assert!(known.contains(&reference) || FOREIGN.contains(&reference.as_str()), "{name}: {reference}");
        }
    }
}

/// C source in the examples of a page; several displays are several files.
fn examples(page: &str) -> Vec<String> {
    if !page.contains("\n.Sh EXAMPLES\n") {
        return Vec::new();
    }
    let mut examples: Vec<String> = Vec::new();
    let mut inside = false;
    for line in part(page, ".Sh EXAMPLES") {
        match line {
            line if line.starts_with(".Bd -literal") => {
                inside = true;
                examples.push("#include <stddef.h>\n#include <libmilter/mfext.h>\n".to_owned());
            }
            ".Ed" => inside = false,
            line if inside => *examples.last_mut().expect("a display has begun") += &(line.replace("\\e", "\\") + "\n"),
            _ => {}
        }
    }
    examples
}

#[test]
fn examples_compile() {
    let directory = TempDir::new();
    let include = workspace_dir().join("include");
    let mut count = 0;
    for (name, section) in pages() {
        for example in examples(&source(&name, &section)) {
            count += 1;
            let file = directory.write(format!("{name}.c"), &example);
            let mut flags = vec!["-c".to_owned(), format!("-I{}", include.display())];
            // Examples are parts of programs.
            let warnings = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-Wno-unused-function"];
            flags.extend(warnings.map(str::to_owned));
            build("cc", &file, &flags, &directory.join("object"))
                .unwrap_or_else(|error| panic!("{name}({section}):\n{example}\n{error}"));
        }
    }
    assert!(count > 15, "only {count} examples found");
}

#[test]
fn mandoc_has_nothing_to_complain_about() {
    if !exists("mandoc") {
        return skip("manual pages with mandoc", "mandoc");
    }
    let directory = workspace_dir().join("man");
    let files = pages().into_iter().map(|(name, section)| format!("{name}.{section}"));
    let mut lint = Command::new("mandoc");
    assert_eq!(output(lint.args(["-Tlint", "-Wwarning"]).args(files).current_dir(directory)), "");
}

/// Debian shows manual pages with it.
#[test]
fn groff_has_nothing_to_complain_about() {
    if !exists("groff") {
        return skip("manual pages with groff", "groff");
    }
    for (name, section) in pages() {
        let mut groff = Command::new("groff");
        groff.args(["-mandoc", "-Tutf8", "-rLL=78n"]).arg(workspace_dir().join(format!("man/{name}.{section}")));
        let shown = groff.output().expect("groff is there");
        assert!(shown.stderr.is_empty(), "{name}({section}): {}", String::from_utf8_lossy(&shown.stderr));
    }
}

#[test]
fn mandoc_would_complain() {
    if !exists("mandoc") {
        return skip("a manual page with a mistake", "mandoc");
    }
    let directory = TempDir::new();
    let page = directory.write("bad.3", ".Dd November 22, 2026\n.Dt BAD 3\n.Os\n.Sh NAME\n.Nm bad\n");
    let lint = Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(page).output().expect("mandoc is there");
    assert!(!lint.status.success() && !lint.stdout.is_empty());
}

#[test]
fn the_manual_is_rendered_for_browsers() {
    if !exists("mandoc") {
        return skip("make html", "mandoc");
    }
    let directory = TempDir::new();
    output(make().arg("html").env("CARGO_TARGET_DIR", directory.path()));
    let html = directory.join("html");
    let index = fs::read_to_string(html.join("index.html")).expect("there is an index");
    for (name, section) in pages() {
        assert!(index.contains(&format!("<a href=\"{name}.{section}.html\">{name}({section})</a>")), "{name}");
    }
    for entry in fs::read_dir(&html).expect("the directory is there") {
        let path = entry.expect("the directory stays").path();
        let text = fs::read_to_string(&path).expect("everything is text");
        let links = text.split("href=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(link, _)| link);
        for link in links.filter(|link| !link.starts_with("https://") && !link.starts_with('#')) {
            let file = link.split('#').next().expect("split gives one");
            assert!(html.join(file).is_file(), "{}: {link}", path.display());
        }
    }
}
