//! A filter that uses the whole interface: every callback, every call, every modification.

use ctests::{
    Delivery, MailServer, Origin, PATIENCE, Postfix, SmtpClient,
    comparison::{assert_untroubled, stop},
    mailbag::{RECIPIENT, SENDER},
};

use crate::{Candidate, same_with_each, stable};

const SOURCE: &str = "ctests/filters/every_call.c";
const REMOVED: &str = "<removed@harbour.example>";
const MESSAGE: &str = "\
X-One: 1
X-Remove: first
Subject: as it was
X-Remove: second
From: mathilde@lighthouse.example
Message-ID: <1@lighthouse.example>
Date: Tue, 14 Oct 2025 07:12:41 +0200

Some text.
.
..and more
";

/// The body that the filter puts in place.
fn replacement() -> String {
    let paragraph = "This line stands in place of what was here before.\r\n";
    let large: String = paragraph.chars().cycle().take(100_000).collect();
    (large + "\r\nThe end.\r\n").replace("\r\n", "\n")
}

fn assert_modified(delivery: &Delivery) {
    assert_eq!(delivery.header("X-Failed"), ["nothing"], "a call did not give what it should");
    assert_eq!(delivery.sender.split(' ').next(), Some("<changed@harbour.example>"));
    let recipients: Vec<&str> = delivery.recipients.iter().filter_map(|path| path.split(' ').next()).collect();
    assert_eq!(recipients, ["<added@harbour.example>", RECIPIENT, "<silent@harbour.example>"]);
    assert!(delivery.recipients[2].contains("NOTIFY=NEVER"), "{:?}", delivery.recipients);
    let names: Vec<&str> = delivery
        .message
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split(':').next())
        .collect();
    let expected = "X-First Received X-Third X-One Subject From Message-ID Date X-Absent X-Notes X-Empty X-Failed";
    assert_eq!(names.join(" "), expected);
    assert_eq!(delivery.header("Subject"), ["changed on the way"]);
    assert_eq!(delivery.header("X-First"), ["in front"]);
    assert_eq!(delivery.header("X-Third"), ["two lines"]);
    assert_eq!(delivery.header("X-Absent"), ["appears"]);
    assert_eq!(delivery.header("X-Empty"), [""]);
    assert!(delivery.body() == replacement(), "{}", delivery.body());
}

/// Two messages in one session, after everything else that may happen in one.
fn converse(client: &mut SmtpClient) -> Vec<String> {
    let replies = [
        client.ask("FROBNICATE all"),
        client.ask("MAIL FROM:<later@lighthouse.example>"),
        client.ask(&format!("MAIL FROM:{SENDER} SIZE=1000 BODY=8BITMIME")),
        client.ask("RCPT TO:<never@harbour.example>"),
        client.ask(&format!("RCPT TO:{RECIPIENT} NOTIFY=SUCCESS,FAILURE")),
        client.ask("RSET"),
    ];
    client.submit(SENDER, &[RECIPIENT, REMOVED], MESSAGE);
    client.submit(&format!("{SENDER} SIZE=1000"), &[RECIPIENT, REMOVED], MESSAGE);
    replies.map(|reply| reply.text).to_vec()
}

fn every_modification(test: &str, parameters: &[(&str, &str)]) -> Option<(Vec<String>, Vec<Delivery>)> {
    let postfix = Postfix::start_or_skip(test, parameters)?;
    let mut seen = same_with_each(test, &postfix, Candidate::each(test, SOURCE, &postfix), |candidate| {
        let filter = candidate.serve(&postfix, &[]);
        let mut client = postfix.smtp();
        let replies = converse(&mut client);
        let mut deliveries = postfix.sink().collect(2);
        deliveries.iter().for_each(assert_modified);
        // They have the same subject; the second one knows that it is.
        deliveries.sort_by_key(|delivery| delivery.header("X-Notes")[0].contains("message 4"));
        client.expect("QUIT", "221");
        stop(&candidate.setting, filter);
        vec![(replies, stable(&deliveries))]
    });
    seen.pop()
}

const NEVER: &str = "550-5.7.1 Never.\n550-5.7.1 Not on a Sunday, not on a Monday.\n550 5.7.1 Do not ask again.";

const NOTES: [&str; 29] = [
    "connect [127.0.0.1] 127.0.0.1 for mx.harbour.example (mx.harbour.example)",
    "helo client.example",
    "unknown FROBNICATE",
    "from <later@lighthouse.example>",
    "sender later@lighthouse.example",
    "from <mathilde@lighthouse.example> SIZE=1000 BODY=8BITMIME",
    "sender mathilde@lighthouse.example",
    "to <never@harbour.example>",
    "recipient never@harbour.example",
    "to <otto@harbour.example> NOTIFY=SUCCESS,FAILURE",
    "recipient otto@harbour.example",
    "abort",
    "from <mathilde@lighthouse.example>",
    "sender mathilde@lighthouse.example",
    "to <otto@harbour.example>",
    "recipient otto@harbour.example",
    "to <removed@harbour.example>",
    "recipient removed@harbour.example",
    "data",
    "header X-One 1",
    "header X-Remove 5",
    "header Subject 9",
    "header X-Remove 6",
    "header From 27",
    "header Message-ID 22",
    "header Date 31",
    "eoh",
    "body 27",
    "message 3, with its name",
];

#[test]
fn protocol_version_6() {
    let Some((replies, deliveries)) = every_modification("every call behind Postfix", &[]) else { return };
    assert_eq!(
        replies,
        ["500 5.5.1 What is that?", "451 Come back later", "250 2.1.0 Ok", NEVER, "250 2.1.5 Ok", "250 2.0.0 Ok"]
    );
    // The notes of the first message hold all that came before it.
    assert_eq!(deliveries[0].header("X-Notes")[0].split("; ").collect::<Vec<_>>(), NOTES);
    let second = &deliveries[1].header("X-Notes")[0];
    assert!(second.starts_with("from <mathilde@lighthouse.example> SIZE=1000; "), "{second}");
    assert!(second.ends_with("; body 27; message 4, with its name"), "{second}");
}

#[test]
fn protocol_version_2() {
    let parameters = [("milter_protocol", "2")];
    let Some((replies, _)) = every_modification("every call and milter_protocol=2", &parameters) else { return };
    assert_eq!(replies[1..4], ["451 Come back later", "250 2.1.0 Ok", NEVER]);
    // This version knows nothing of unknown commands.
    assert_eq!(replies[0], "500 5.5.2 Error: command not recognized");
}

#[test]
fn quarantine() {
    let test = "quarantine behind Postfix";
    let Some(postfix) = Postfix::start_or_skip(test, &[]) else { return };
    same_with_each(test, &postfix, Candidate::each(test, SOURCE, &postfix), |candidate| {
        let filter = candidate.serve(&postfix, &["quarantine"]);
        let name = postfix.smtp().submit(SENDER, &[RECIPIENT, REMOVED], MESSAGE);
        // The one before may still be on its way out of the queue.
        let mut queue = postfix.queue();
        queue.retain(|entry| entry.contains("\"queue_name\": \"hold\""));
        assert!(matches!(&queue[..], [entry] if entry.contains(&name)), "{queue:?}");
        postfix.sink().assert_empty();
        postfix.release(&name);
        let delivery = postfix.sink().next();
        assert_modified(&delivery);
        stop(&candidate.setting, filter);
        stable(&[delivery])
    });
}

/// Only with our library: the reference ends without an answer to the command during which it was
/// told to stop, and only when its five seconds are over (defects 32 and 37).
#[test]
fn stop_by_the_filter() {
    let test = "smfi_stop behind Postfix";
    let Some(postfix) = Postfix::start_or_skip(test, &[]) else { return };
    let candidates = Candidate::each(test, SOURCE, &postfix);
    let ours = candidates.into_iter().filter(|candidate| candidate.setting.library.origin() == Origin::Ours);
    for candidate in ours {
        let mut filter = candidate.serve(&postfix, &[]);
        let mut client = postfix.smtp();
        client.expect("HELO stop", "250");
        let status = filter.process().wait(PATIENCE);
        let status = status.unwrap_or_else(|| panic!("{candidate}: runs on after smfi_stop"));
        assert_eq!(status.code(), Some(0), "{candidate}: {}", filter.output());
    }
    assert_untroubled(test, &postfix);
}
