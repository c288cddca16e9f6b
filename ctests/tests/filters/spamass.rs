//! spamass-milter, which asks spamd by way of spamc, and a spamd that knows two words.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
};

use ctests::{
    Backend, MailServer, Program, TempDir,
    mailbag::{RECIPIENT, letter},
    skip,
};

use crate::{behind_postfix, behind_sendmail, fate, recipients, same_fates};

/// Answers one request, as in SpamAssassin's description of its protocol: the whole message comes back,
/// changed where it is spam.
fn spamd(stream: &UnixStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok(),
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut message = vec![0; length.ok_or_else(|| std::io::Error::other("no length"))?];
    reader.read_exact(&mut message)?;
    let text: String = message.iter().map(|octet| char::from(*octet)).collect();
    let score = match text {
        _ if text.contains("certain-spam") => 25,
        _ if text.contains("likely-spam") => 15,
        _ => 1,
    };
    let (verdict, answer) = if score >= 5 { ("True", "Yes") } else { ("False", "No") };
    let level = "*".repeat(score);
    let mut judged = format!(
        "X-Spam-Checker-Version: spamd of a test\nX-Spam-Level: {level}\n\
         X-Spam-Status: {answer}, score={score}.0 required=5.0 tests=WORDS,\n\tLIGHT autolearn=no\n"
    );
    if score >= 5 {
        judged.push_str("X-Spam-Flag: YES\nX-Spam-Report: it has\n\t* the word\n");
        // spamc sends what the filter gave it, CRLF and all.
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        judged.push_str(&head.replace("Subject: ", "Subject: *SPAM* ").replace("text/plain", "text/x-report"));
        judged.push_str("\r\n\r\nThis was spam.\r\n");
    } else {
        judged.push_str(&text);
    }
    let octets: Vec<u8> = judged.chars().map(|octet| u8::try_from(octet).expect("made of octets")).collect();
    let mut writer = stream;
    let spam =
        format!("SPAMD/1.1 0 EX_OK\r\nContent-length: {}\r\nSpam: {verdict} ; {score}.0 / 5.0\r\n\r\n", octets.len());
    writer.write_all(spam.as_bytes())?;
    writer.write_all(&octets)
}

#[test]
fn marks_and_refuses_behind_postfix() {
    behind_postfix("spamass-milter behind Postfix", marks_and_refuses);
}

#[test]
fn marks_and_refuses_behind_sendmail() {
    behind_sendmail("spamass-milter behind Sendmail", marks_and_refuses);
}

fn marks_and_refuses(test: &str, mta: &dyn MailServer) {
    let (Some(filter), Some(_)) = (Program::installed("spamass-milter"), Program::installed("spamc")) else {
        skip(test, "spamass-milter and spamc");
        return;
    };
    let letters = [("likely", letter("likely-spam")), ("certain", letter("certain-spam"))];
    let directory = TempDir::new();
    let daemon = directory.join("spamd");
    let _daemon = Backend::listen(&daemon, spamd);
    let daemon = daemon.to_str().expect("a path of ours");
    let fates = same_fates(test, mta, &letters, |setting, directory| {
        let socket = directory.join("filter");
        let address = socket.to_str().expect("a path of ours");
        filter.serve(setting, &socket, &["-p", address, "-r", "20", "-b", "bucket@harbour.example", "--", "-U", daemon])
    });
    let likely = fate(&fates, "likely").delivery.as_ref().expect("it is below the limit");
    assert_eq!(likely.header("X-Spam-Flag"), ["YES"], "{likely:?}");
    assert_eq!(likely.header("Subject"), ["*SPAM* likely-spam"], "{likely:?}");
    assert_eq!(likely.header("Content-Type"), ["text/x-report; charset=us-ascii"], "{likely:?}");
    assert_eq!(likely.body(), "This was spam.\n", "{likely:?}");
    assert_eq!(recipients(fate(&fates, "likely")), ["<bucket@harbour.example>"]);
    assert!(fate(&fates, "certain").answer.starts_with("550 5.7.1 "), "{:?}", fate(&fates, "certain"));
    let plain = fate(&fates, "plain").delivery.as_ref().expect("it is no spam");
    assert_eq!(
        plain.header("X-Spam-Status"),
        ["No, score=1.0 required=5.0 tests=WORDS, LIGHT autolearn=no"],
        "{plain:?}"
    );
    assert_eq!(recipients(fate(&fates, "plain")), [RECIPIENT]);
}
