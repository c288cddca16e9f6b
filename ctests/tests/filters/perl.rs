//! Sendmail::Milter, Perl's binding, with a script that makes every change.

use std::process::Command;

use ctests::{Program, mailbag::letter, skip};

use crate::{fate, field, same_fates};

#[test]
fn every_change() {
    let test = "Sendmail::Milter makes every change";
    // Debian's Perl: that is where Debian's module is.
    let Some(perl) = Program::installed("/usr/bin/perl").filter(|perl| {
        let load = Command::new(perl.path()).args(["-MSendmail::Milter", "-e", "1"]).output();
        load.is_ok_and(|output| output.status.success())
    }) else {
        skip(test, "libsendmail-milter-perl");
        return;
    };
    let letters = ["reject", "tempfail"].map(|word| (word, letter(word)));
    let Some(fates) = same_fates(test, &letters, |setting, directory| {
        let script = directory.write("every_change.pl", include_str!("every_change.pl"));
        let socket = directory.join("filter");
        let address = format!("local:{}", socket.display());
        perl.serve(setting, &socket, &[script.to_str().expect("a path of ours"), &address])
    }) else {
        return;
    };
    assert_eq!(fate(&fates, "reject").answer, "550 5.7.1 Command rejected");
    assert_eq!(fate(&fates, "tempfail").answer, "451 4.7.8 Postponed as asked");
    let several = fate(&fates, "several recipients");
    assert!(several.answer.contains("\n550 5.7.9 The ferry takes no mail"), "{several:?}");
    let delivery = several.delivery.as_ref().expect("it arrives");
    let recipients: Vec<&str> = delivery.recipients.iter().filter_map(|it| it.split(' ').next()).collect();
    assert_eq!(recipients, ["<archive@harbour.example>", "<otto@harbour.example>"]);
    assert_eq!(delivery.header("Subject"), ["Changed"], "{several:?}");
    assert_eq!(delivery.body(), "Another body\n", "{several:?}");
    let unmarked: Vec<_> = field(&fates, "X-Added").into_iter().filter(|(_, it)| it.len() != 1).collect();
    assert_eq!(unmarked, []);
}
