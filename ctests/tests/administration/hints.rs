//! Advice about what filters do wrong: once each, and only if it is asked for.

use ctests::{Filter, Setting, TempDir};

use crate::{OFFER, launch, patiently, stop};

/// One of every mistake, twice, and what looks like one.
const PLAN: &str = r#"
start opensocket 0
start note opened
start main
callbacks helo envfrom eom
flags 27
on helo addheader "X" "y"
on helo replacebody "b"
on envfrom setmlreply "550" "5.7.1" "a\nb" "c"
on envfrom setreply "5x0" "5.7.1" "a"
on eom delrcpt "<b>"
on eom quarantine "why"
on eom addheader "X-Folded" "a\n\x09b"
on eom addheader "X-Broken" "a\nBcc: c"
on eom chgheader "Y" 2 ""
on eom chgheader "Y" 1 ""
on eom chgheader "Z" 1 ""
on eom chgheader "z" 2 ""
"#;

const ADVICE: [&str; 5] = [
    "smfi_addheader has no effect: messages can be changed at their end only, in xxfi_eom",
    "smfi_setmlreply has no effect: a line holds a line break",
    "smfi_quarantine has no effect: SMFIF_QUARANTINE was not negotiated: set it in xxfi_flags",
    "smfi_addheader was given a CR, or a LF without a blank behind it",
    "smfi_chgheader deletes fields z by rising index",
];

fn warnings(setting: &Setting, options: &str) -> Vec<String> {
    let mut filter: Filter = launch(setting, options, PLAN, TempDir::new());
    filter.wait_for("note opened");
    for _ in 0..2 {
        let mut mta = patiently(filter.socket().as_path());
        assert!(mta.ask(OFFER).starts_with("OPTNEG"));
        for command in ["HELO h", "MAIL <a>", "RCPT <b>"] {
            assert_eq!(mta.ask(command), "CONTINUE");
        }
        mta.command("BODYEOB");
        while mta.reply() != "CONTINUE" {}
        assert_eq!(mta.ask("QUIT"), "EOF");
    }
    stop(&mut filter);
    filter.lines().into_iter().filter(|line| line.starts_with("log 4 ")).collect()
}

#[test]
fn each_is_given_once() {
    for model in ["pool", "threads", "fork"] {
        let told = warnings(&Setting::model(model), "hints=on");
        assert_eq!(told.len(), ADVICE.len(), "{model}: {told:#?}");
        for (told, wanted) in told.iter().zip(ADVICE) {
            assert!(told.contains(&format!("hint: {wanted}")), "{model}: {told}");
        }
    }
}

#[test]
fn nobody_is_advised_unasked() {
    assert_eq!(warnings(&Setting::ours(), ""), [""; 0]);
}
