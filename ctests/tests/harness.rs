//! The harness notices what is wrong: in a dialogue, and in what a filter does.

use std::time::Duration;

use ctests::{
    Compile, Filter, Library, Setting, TempDir,
    conversation::{self, Script, Step},
    dialogue, verdict,
};

const GOOD: &str = r#"
case good a short session
  why the expectations below differ from this one
  callbacks helo close
  on helo setreply "550" "5.7.1" "no"
  on helo return REJECT
  > OPTNEG 6 1ff 1fffff
  < OPTNEG 6 1ff 37d
  > HELO h
  ! helo "h" ; setreply 0
  < REPLYCODE "550 5.7.1 no"
  shutdown
  ! close
"#;

fn differences(text: &str) -> Vec<String> {
    let setting = Setting::ours();
    let case = dialogue::parse(text).expect("a readable dialogue").remove(0);
    let origin = setting.library.origin();
    let transcript = conversation::run(case.plan(), &case.script(origin), &setting);
    verdict::differences(&case.expectation(origin), &transcript)
}

#[test]
fn a_good_case_has_no_differences() {
    assert_eq!(differences(GOOD), [""; 0]);
}

/// The case by which CONTRIBUTING.md explains dialogues.
#[test]
fn the_case_for_newcomers_has_no_differences() {
    let text = include_str!("../../CONTRIBUTING.md");
    let case: String = text
        .lines()
        .skip_while(|line| !line.starts_with("    case "))
        .take_while(|line| line.starts_with("    "))
        .map(|line| line[4..].to_owned() + "\n")
        .collect();
    assert!(case.lines().count() > 10, "{case}");
    assert_eq!(differences(&case), [""; 0]);
}

#[test]
fn wrong_expectations_are_noticed() {
    let wrong = [
        ("37d", "37c", "expected reply OPTNEG 6 1ff 37c, found OPTNEG 6 1ff 37d"),
        ("5.7.1 no\"\n  shut", "5.7.1 No\"\n  shut", "expected reply REPLYCODE"),
        ("! helo \"h\"", "! helo \"g\"", "expected event helo \"g\", found helo \"h\""),
        ("setreply 0", "setreply -1", "expected event setreply -1, found setreply 0"),
        ("  ! close\n", "", "event that nothing expects: close"),
        ("  ! close\n", "  ! close ; close\n", "expected event close, found no more"),
        ("  ! close\n", "  ! close ; log 3\n", "expected 1 log messages of severity 3, found 0"),
        ("  shutdown\n", "  < EOF\n", "expected reply EOF, found silence"),
    ];
    for (old, new, message) in wrong {
        let text = GOOD.replace(old, new);
        assert_ne!(text, GOOD, "{old}");
        let found = differences(&text);
        assert!(found.first().is_some_and(|line| line.contains(message)), "{new}: {found:?}");
    }
}

#[test]
fn surplus_replies_are_noticed() {
    let text = GOOD.replace("  on helo return REJECT\n", "  on helo return REJECT\n  on close progress\n");
    let found = differences(&text.replace("  ! close\n", "  ! close ; progress 0\n"));
    assert!(found[0].contains("expected reply EOF, found PROGRESS"), "{found:?}");
}

#[test]
fn a_crash_is_noticed() {
    let found = differences(&GOOD.replace("  on helo return", "  on close crash\n  on helo return"));
    assert!(found[0].contains("died"), "{found:?}");
}

#[test]
fn dialogues_that_break_the_rules_are_refused() {
    let refused = [
        ("  why the expectations below differ from this one\n", "", "'why ...' is missing"),
        ("  < OPTNEG", "  ours: < OPTNEG", "'defect N'"),
        ("  shutdown\n", "  defect 7\n", "'defect N'"),
        ("  shutdown\n", "  ours: > DATA\n", "only replies"),
        ("  shutdown\n", "  < EOF\n  < CONTINUE\n", "after its end"),
        ("> HELO h", "> HALLO h", "unknown packet HALLO"),
        ("> HELO h", "> frame H", "letter and a payload"),
        ("> HELO h", "> hex 123", "half an octet"),
        ("> HELO h", "> HELO \"h", "missing quote"),
        ("< REPLYCODE", "< HELO", "unknown packet HELO"),
        ("  shutdown\n", "  sleep\n", "not a word of dialogues"),
        ("case good", "", "no case yet"),
    ];
    for (old, new, message) in refused {
        let error = dialogue::parse(&GOOD.replace(old, new)).expect_err(new);
        assert!(error.contains(message), "{new}: {error}");
    }
}

#[test]
fn scripts_in_other_pieces() {
    let script = Script {
        steps: vec![
            Step::Connect,
            Step::Send(b"ab".to_vec()),
            Step::Await(1),
            Step::Send(b"c".to_vec()),
            Step::Await(2),
            Step::Connect,
            Step::Send(b"d".to_vec()),
            Step::AwaitEnd,
        ],
    };
    let shape = |script: &Script| format!("{:?}", script.steps);
    assert_eq!(
        shape(&script.in_one_segment()),
        "[Connect, Send([97, 98, 99]), Await(1), Await(2), Connect, Send([100]), AwaitEnd]"
    );
    assert_eq!(
        shape(&script.in_octets()),
        "[Connect, Send([97]), Send([98]), Await(1), Send([99]), Await(2), Connect, Send([100]), AwaitEnd]"
    );
}

#[test]
fn a_filter_with_another_library_is_noticed() {
    let Some(reference) = Setting::reference("a_filter_with_another_library_is_noticed") else { return };
    let mut filter = Filter::start(&reference, "");
    let process = filter.process();
    process.assert_uses(reference.library);
    let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| process.assert_uses(Library::ours())));
    assert!(wrong.is_err());
}

#[test]
fn compilers_that_complain_are_noticed() {
    let directory = TempDir::new();
    let warns = directory.write("warns.c", "int main(void) { int unused; return 0; }\n");
    let compile = || Compile::c(Library::ours()).source(&warns).flag("-Wall");
    assert!(compile().succeeds(directory.join("program")));
    assert!(std::panic::catch_unwind(|| compile().to(directory.join("program"))).is_err());
    let fails = directory.write("fails.c", "int main(void) { return smfi_no_such_call(); }\n");
    assert!(!Compile::c(Library::ours()).source(fails).flag("-w").succeeds(directory.join("program")));
}

#[test]
fn processes_and_their_children_end_with_the_test() {
    let plan = "start setconn $socket\nstart register\nstart opensocket\nstart fork\nstart main\n";
    let mut filter = Filter::launch(&Setting::ours(), plan, TempDir::new());
    filter.wait_for("opensocket 0");
    let mut mta = filter.connect();
    assert!(mta.ask("OPTNEG 6 1ff 1fffff").starts_with("OPTNEG"));
    assert!(filter.process().is_alive());
    drop(filter);
    assert_eq!(mta.receive(Duration::from_secs(5)).to_string(), "EOF");
}

#[test]
fn temporary_directories_disappear() {
    let directory = TempDir::new();
    let path = directory.path().to_path_buf();
    assert!(path.exists());
    drop(directory);
    assert!(!path.exists());
}
