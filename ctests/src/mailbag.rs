//! Mail of every kind that filters have trouble with, in sessions as clients hold them.

use std::fmt;

use crate::{Delivery, MailServer, SmtpClient};

/// The sender of everything in the bag.
pub const SENDER: &str = "<mathilde@lighthouse.example>";
/// Who gets it.
pub const RECIPIENT: &str = "<otto@harbour.example>";
/// A recipient whom [`PARAMETERS`] make Postfix refuse.
pub const NOWHERE: &str = "<nowhere@harbour.example>";
/// A message as people write them.
pub const PLAIN: &str = include_str!("../mail/plain.eml");

/// What Postfix has to be configured with for the bag, as in [`crate::Postfix::start_or_skip`].
pub const PARAMETERS: [(&str, &str); 4] = [
    ("mynetworks", "127.0.0.0/8 [::1]/128 192.0.2.0/24 [2001:db8::]/32"),
    ("smtpd_authorized_xclient_hosts", "127.0.0.1"),
    ("smtpd_recipient_restrictions", "check_recipient_access inline:{{nowhere@harbour.example=550 5.1.1 Unknown}}"),
    ("smtpd_milters", "$filter"),
];

/// What became of one message.
#[derive(Clone, PartialEq, Eq)]
pub struct Fate {
    /// Which message it was.
    pub name: &'static str,
    /// The answer of the MTA, with NAME for the message's name in the queue.
    pub answer: String,
    /// How it arrived, if it did; [`Delivery::stable`].
    pub delivery: Option<Delivery>,
}

impl fmt::Debug for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.answer)?;
        let Some(delivery) = &self.delivery else { return Ok(()) };
        writeln!(f, "  from {} to {:?}", delivery.sender, delivery.recipients)?;
        // Megabytes help nobody.
        for line in delivery.message.lines().take(60) {
            writeln!(f, "  {}", line.chars().take(120).collect::<String>())?;
        }
        Ok(())
    }
}

/// The plain message with another subject.
#[must_use]
pub fn letter(subject: &str) -> String {
    PLAIN.replace("Fog signal out of order", subject)
}

/// Passes the whole bag through an MTA.
pub fn play(mta: &dyn MailServer) -> Vec<Fate> {
    let mut fates = Vec::new();
    let mut pass = |client: &mut SmtpClient, name: &'static str, sender: &str, to: &[&str], text: &[u8]| {
        let answer = transaction(client, sender, to, text);
        let delivery = answer.starts_with("250").then(|| mta.next().stable());
        fates.push(Fate { name, answer, delivery });
    };

    let mut client = mta.smtp();
    pass(&mut client, "plain", SENDER, &[RECIPIENT], PLAIN.as_bytes());
    pass(&mut client, "eight bits", &format!("{SENDER} BODY=8BITMIME"), &[RECIPIENT], &eight_bits());
    let several = [RECIPIENT, "<watch@harbour.example>", NOWHERE, "<ferry@pier.example>"];
    pass(&mut client, "several recipients", SENDER, &several, letter("To several").as_bytes());
    client.envelope("<somebody@elsewhere.example>", &[RECIPIENT]);
    client.expect("RSET", "250");
    client.expect("MAIL FROM:<somebody@elsewhere.example>", "250");
    client.expect("RSET", "250");
    pass(&mut client, "after a reset", SENDER, &[RECIPIENT], letter("After a reset").as_bytes());
    client.expect("EHLO again.example", "250");
    pass(&mut client, "from nobody", "<>", &[RECIPIENT], letter("From nobody").as_bytes());
    client.expect(&format!("MAIL FROM:{SENDER}"), "250");
    client.expect(&format!("RCPT TO:{NOWHERE}"), "550");
    client.expect("RSET", "250");
    client.expect("QUIT", "221");

    let mut client = mta.smtp();
    client.envelope(SENDER, &[RECIPIENT]);
    client.expect("DATA", "354");
    client.send("Subject: cut off\r\n\r\nThis message has no e");
    drop(client);

    let mut client = mta.smtp();
    for (name, text) in oddities() {
        pass(&mut client, name, SENDER, &[RECIPIENT], &text);
    }
    pass(&mut client, "five megabytes", SENDER, &[RECIPIENT], &five_megabytes());
    pass(&mut client, "the last one", SENDER, &[RECIPIENT], letter("The last one").as_bytes());
    drop(client);
    fates
}

/// Passes one letter on in a session of its own. If it is put into quarantine the answer says so, and it is released.
pub fn pass(mta: &dyn MailServer, mut client: SmtpClient, name: &'static str, letter: &str) -> Fate {
    let mut answer = transaction(&mut client, SENDER, &[RECIPIENT], letter.as_bytes());
    let delivery = answer.starts_with("250").then(|| {
        if mta.release_held() {
            answer.push_str("\nheld");
        }
        mta.next().stable()
    });
    client.expect("QUIT", "221");
    Fate { name, answer, delivery }
}

/// A session of a client elsewhere, at an `address` in the words of XCLIENT.
pub fn from_afar(mta: &dyn MailServer, address: &str) -> SmtpClient {
    let mut client = mta.smtp();
    client.expect(&format!("XCLIENT NAME=far.example ADDR={address} PORT=2525"), "220");
    client.expect("EHLO far.example", "250");
    client
}

/// All answers but the good ones for sender and recipients, and the last in any case.
fn transaction(client: &mut SmtpClient, sender: &str, recipients: &[&str], text: &[u8]) -> String {
    let reply = client.ask(&format!("MAIL FROM:{sender}"));
    if reply.code() != "250" {
        return reply.text;
    }
    let replies: Vec<_> = recipients.iter().map(|recipient| client.ask(&format!("RCPT TO:{recipient}"))).collect();
    if replies.iter().all(|reply| reply.code() != "250") {
        client.expect("RSET", "250");
        return replies.into_iter().map(|reply| reply.text).collect::<Vec<_>>().join("\n");
    }
    let reply = client.data(text);
    let name = reply.queue_id().unwrap_or("NAME");
    let refused = replies.iter().filter(|reply| reply.code() != "250").map(|reply| format!("\n{}", reply.text));
    reply.text.replace(name, "NAME") + &refused.collect::<String>()
}

/// Latin-1 in the body and, which nobody should do, in a header field.
fn eight_bits() -> Vec<u8> {
    let head = "From: mathilde@lighthouse.example\nTo: otto@harbour.example\nMIME-Version: 1.0\n\
                Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n";
    [
        head.as_bytes(),
        b"Subject: L\xf6schboot f\xe4hrt\nX-Octets: \x80\xff\n\nGr\xfc\xdfe vom \xd6resund\n\xa0\xfe\xff\n",
    ]
    .concat()
}

/// Headers and lines that are not as the standards want them.
fn oddities() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: String| text.into_bytes();
    let from = "From: mathilde@lighthouse.example\nTo: otto@harbour.example\n";
    vec![
        ("folded", include_bytes!("../mail/folded.eml").to_vec()),
        ("multipart", include_bytes!("../mail/multipart.eml").to_vec()),
        (
            "empty fields",
            text(format!("{from}Subject:\nX-Empty:\nX-Blank: \nX-Folded-Empty:\n \nX-Empty: again\n\nText\n")),
        ),
        (
            "malformed fields",
            text(format!(
                "{from}subject : blank before the colon\nX-Tab:\tafter a tab\nX:y\nNo colon here\nX-Late: 1\n\nText\n"
            )),
        ),
        ("many fields", text(format!("{from}Subject: Many\n{}\nText\n", "X-Same: one of many\n".repeat(200)))),
        (
            "a long field",
            text(format!("{from}Subject: Long\nX-Long: {}\n\nText\n", "twenty octets long, \n ".repeat(1000))),
        ),
        ("a wide field", text(format!("{from}Subject: Wide\nX-Wide: {}\n\nText\n", "w".repeat(3000)))),
        ("long lines", text(format!("{from}Subject: Wide\n\n{}\n{}\n", "wide ".repeat(900), "x".repeat(20_000)))),
        ("no header", text("\nNothing but a body.\n".to_owned())),
        ("no body", text(format!("{from}Subject: No body\n"))),
        ("dots", text(format!("{from}Subject: Dots\n\n.\n..\n.hidden\n\n"))),
    ]
}

fn five_megabytes() -> Vec<u8> {
    let line = "Five megabytes of fog, and no end of it in sight from up here. ";
    let lines: String = (0..5 * 1024 * 1024 / 71).map(|number| format!("{line}{number:07}\n")).collect();
    letter("Five megabytes").into_bytes().into_iter().chain(lines.into_bytes()).collect()
}
