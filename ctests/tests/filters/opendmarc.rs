//! OpenDMARC: results that others found, set against policies that it finds in a file instead of the DNS.

use ctests::{MailServer, Program, mail_server::HOST, mailbag::letter, skip};

use crate::{behind_postfix, behind_sendmail, fate, field, same_fates};

const POLICIES: &str = "\
_dmarc.lighthouse.example v=DMARC1; p=none
_dmarc.strict.example v=DMARC1; p=reject
_dmarc.doubtful.example v=DMARC1; p=quarantine
";

#[test]
fn judges_behind_postfix() {
    behind_postfix("opendmarc behind Postfix", judges);
}

#[test]
fn judges_behind_sendmail() {
    behind_sendmail("opendmarc behind Sendmail", judges);
}

fn judges(test: &str, mta: &dyn MailServer) {
    let Some(opendmarc) = Program::installed("opendmarc") else {
        skip(test, "opendmarc");
        return;
    };
    // It has no network, so it cannot ask anybody.
    let opendmarc = opendmarc.under(&["unshare", "--net"]);
    let from = |domain: &str| letter(domain).replace("<mathilde@lighthouse.example>", &format!("<m@{domain}>"));
    let signed =
        |domain: &str| format!("Authentication-Results: {HOST}; dkim=pass header.d={domain}\n{}", from(domain));
    let letters = [
        ("signed, strict", signed("strict.example")),
        ("strict", from("strict.example")),
        ("doubtful", from("doubtful.example")),
        (
            "unaligned",
            format!("Authentication-Results: {HOST}; dkim=pass header.d=else.example\n{}", from("strict.example")),
        ),
        ("two authors", format!("From: somebody@elsewhere.example\n{}", from("strict.example"))),
    ];
    let fates = same_fates(test, mta, &letters, |setting, directory| {
        let socket = directory.join("filter");
        let policies = directory.write("policies", POLICIES);
        // An address of documentation: the test's own client has to count as a stranger.
        let ignored = directory.write("ignored", "192.0.2.1\n");
        let configuration = format!(
            "Socket local:{}\nTestDNSData {}\nIgnoreHosts {}\nAuthservID {HOST}\nRejectFailures true\n\
             HoldQuarantinedMessages true\nRejectMultiValueFrom true\nSoftwareHeader true\nSyslog true\n",
            socket.display(),
            policies.display(),
            ignored.display()
        );
        let configuration = directory.write("opendmarc.conf", configuration);
        opendmarc.serve(setting, &socket, &["-f", "-c", configuration.to_str().expect("a path of ours")])
    });
    let result = |name| fate(&fates, name).delivery.as_ref().map(|it| it.header("Authentication-Results").concat());
    let found = result("plain").expect("the policy is none");
    assert!(found.contains("dmarc=fail (p=none"), "{found}");
    let found = result("signed, strict").expect("it is authentic");
    assert!(found.contains("dmarc=pass (p=reject"), "{found}");
    for refused in ["strict", "unaligned"] {
        assert_eq!(fate(&fates, refused).answer, "550 5.7.1 rejected by DMARC policy for strict.example");
    }
    assert!(fate(&fates, "doubtful").answer.ends_with("\nheld"), "{:?}", fate(&fates, "doubtful"));
    let marks = field(&fates, "DMARC-Filter");
    let unmarked: Vec<&str> = marks.iter().filter(|(_, marks)| marks.len() != 1).map(|(name, _)| *name).collect();
    assert_eq!(unmarked, ["no header"]);
}
