//! Sendmail::Milter, Perl's binding, with a script that makes every change.

use std::process::Command;

use ctests::{MailServer, Program, mailbag::letter, skip};

use crate::{behind_postfix, behind_sendmail, fate, field, recipients, same_fates};

#[test]
fn every_change_behind_postfix() {
    behind_postfix("Sendmail::Milter behind Postfix", every_change);
}

#[test]
fn every_change_behind_sendmail() {
    behind_sendmail("Sendmail::Milter behind Sendmail", every_change);
}

fn every_change(test: &str, mta: &dyn MailServer) {
    // Debian's Perl: that is where Debian's module is.
    let Some(perl) = Program::installed("/usr/bin/perl").filter(|perl| {
        let load = Command::new(perl.path()).args(["-MSendmail::Milter", "-e", "1"]).output();
        load.is_ok_and(|output| output.status.success())
    }) else {
        skip(test, "libsendmail-milter-perl");
        return;
    };
    let letters = ["reject", "tempfail"].map(|word| (word, letter(word)));
    let fates = same_fates(test, mta, &letters, |setting, directory| {
        let script = directory.write("every_change.pl", include_str!("every_change.pl"));
        let socket = directory.join("filter");
        let address = format!("local:{}", socket.display());
        perl.serve(setting, &socket, &[script.to_str().expect("a path of ours"), &address])
    });
    assert!(fate(&fates, "reject").answer.starts_with("55"), "{:?}", fate(&fates, "reject"));
    assert_eq!(fate(&fates, "tempfail").answer, "451 4.7.8 Postponed as asked");
    let several = fate(&fates, "several recipients");
    assert!(several.answer.contains("\n550 5.7.9 "), "{several:?}");
    assert!(several.answer.ends_with("The ferry takes no mail"), "{several:?}");
    assert_eq!(recipients(several), ["<archive@harbour.example>", "<otto@harbour.example>"]);
    let delivery = several.delivery.as_ref().expect("it arrives");
    assert_eq!(delivery.header("Subject"), ["Changed"], "{several:?}");
    assert_eq!(delivery.body(), "Another body\n", "{several:?}");
    let unmarked: Vec<_> = field(&fates, "X-Added").into_iter().filter(|(_, it)| it.len() != 1).collect();
    assert_eq!(unmarked, []);
}
