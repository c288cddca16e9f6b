//! amavisd-milter, with an amavis that wants every change there is.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use ctests::{Backend, MailServer, Program, TempDir, mailbag::letter, skip};

use crate::{behind_postfix, behind_sendmail, fate, recipients, same_fates};

/// Word in the message, and what amavis answers to it.
const ANSWERS: [(&str, &str); 5] = [
    ("not-wanted", "setreply=554 5.7.0 Reject,%20id=12345%20-%20spam\r\nreturn_value=reject\r\n"),
    ("not-now", "setreply=451 4.5.0 Error%20in%20processing\r\nreturn_value=tempfail\r\n"),
    ("doubtful", "quarantine=a%20good%20reason\r\nreturn_value=continue\r\n"),
    ("accept-it", "return_value=accept\r\n"),
    (
        "",
        "delrcpt=<watch@harbour.example>\r\naddrcpt=<watch+spam@harbour.example>\r\n\
         delheader=1 X-Same\r\nchgheader=1 Subject Changed%0A%20and%20folded\r\n\
         insheader=0 X-Top at%20the%20top\r\naddheader=X-Amavis yes%0A%09it%20is\r\nreturn_value=continue\r\n",
    ),
];

/// Answers requests of AM.PDP until the client hangs up. It adds what it was told.
fn amavis(stream: &UnixStream) -> std::io::Result<()> {
    let mut writer = stream;
    let mut attributes = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if !line.is_empty() {
            attributes.extend(line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
            continue;
        }
        let file = attributes.iter().find(|(name, _)| name == "mail_file");
        let (_, file) = file.ok_or_else(|| std::io::Error::other("no mail"))?;
        let mail = fs::read(decoded(file))?;
        let text = String::from_utf8_lossy(&mail);
        let (_, answer) = ANSWERS.iter().find(|(word, _)| text.contains(word)).expect("the last one fits all");
        let mut reply = format!("version_server=2\r\n{answer}addheader=X-Size {}\r\n", mail.len());
        let same_each_time = |name: &str| !["tempdir", "mail_file"].contains(&name);
        for (name, value) in attributes.iter().filter(|(name, _)| same_each_time(name)) {
            let _ = write!(reply, "addheader=X-Saw {name}:%20{value}\r\n");
        }
        writer.write_all(reply.as_bytes())?;
        writer.write_all(b"\r\n")?;
        attributes.clear();
    }
    Ok(())
}

/// Without the percent signs of AM.PDP; a file's name has nothing but ASCII.
fn decoded(value: &str) -> String {
    let mut pieces = value.split('%');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        text.push(char::from(u8::from_str_radix(code, 16).expect("two hexadecimal digits")));
        text.push_str(rest);
    }
    text
}

#[test]
fn changes_and_refuses_behind_postfix() {
    behind_postfix("amavisd-milter behind Postfix", changes_and_refuses);
}

#[test]
fn changes_and_refuses_behind_sendmail() {
    behind_sendmail("amavisd-milter behind Sendmail", changes_and_refuses);
}

fn changes_and_refuses(test: &str, mta: &dyn MailServer) {
    let Some(filter) = Program::installed("amavisd-milter") else {
        skip(test, "amavisd-milter");
        return;
    };
    let place = TempDir::new();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o750)).expect("our own");
    let _amavis = Backend::listen(place.join("amavis"), amavis);
    let letters = ["not-wanted", "not-now", "doubtful", "accept-it"].map(|word| (word, letter(word)));
    let fates = same_fates(test, mta, &letters, |setting, directory| {
        let socket = directory.join("filter");
        let (address, amavis, pid) = (socket.display(), place.join("amavis"), place.join("pid"));
        let _ = fs::remove_file(&pid);
        let words = [
            "-f".to_owned(),
            format!("-s{address}"),
            format!("-S{}", amavis.display()),
            format!("-w{}", place.path().display()),
            format!("-p{}", pid.display()),
        ];
        filter.serve(setting, &socket, &words.each_ref().map(String::as_str))
    });
    assert_eq!(fate(&fates, "not-wanted").answer, "554 5.7.0 Reject, id=12345 - spam");
    assert_eq!(fate(&fates, "not-now").answer, "451 4.5.0 Error in processing");
    // It does not ask for the right to quarantine, so the library refuses to.
    assert_eq!(fate(&fates, "doubtful").answer, "451 4.6.0 Content scanner malfunction");
    let several = fate(&fates, "several recipients").delivery.as_ref().expect("it arrives");
    let recipients = recipients(fate(&fates, "several recipients"));
    assert_eq!(recipients, ["<ferry@pier.example>", "<otto@harbour.example>", "<watch+spam@harbour.example>"]);
    assert_eq!(several.header("Subject"), ["Changed and folded"], "{several:?}");
    assert_eq!(several.header("X-Top"), ["at the top"], "{several:?}");
    assert_eq!(several.header("X-Amavis"), ["yes it is"], "{several:?}");
    assert!(several.header("X-Saw").contains(&"sender: <mathilde@lighthouse.example>".to_owned()), "{several:?}");
}
