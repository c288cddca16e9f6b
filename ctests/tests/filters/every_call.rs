//! A C filter that makes every call of the interface, on a socket of each kind.

use std::net::{Ipv6Addr, SocketAddr};

use ctests::{
    Library, MailServer, Postfix, Program, Sendmail, Setting,
    comparison::{assert_untroubled, same_with_each, stop},
    free_port, has_ipv6,
    mailbag::{self, Fate},
    skip,
};

use crate::{behind_postfix, behind_sendmail, field, same_fates};

#[test]
fn every_call_behind_postfix() {
    behind_postfix("a C filter behind Postfix", every_call);
}

#[test]
fn every_call_behind_sendmail() {
    behind_sendmail("a C filter behind Sendmail", every_call);
}

fn compiled(test: &str, mta: &dyn MailServer) -> Program {
    let compiler = Library::reference_or_skip(test).unwrap_or(Library::ours());
    Program::compiled("ctests/filters/every_call.c", compiler, mta.directory())
}

fn every_call(test: &str, mta: &dyn MailServer) {
    let filter = compiled(test, mta);
    let socket = mta.filter_socket();
    let address = format!("unix:{}", socket.display());
    let fates = same_fates(test, mta, &[], |setting, _| filter.serve(setting, &socket, &[&address]));
    assert_changed(&fates);
    let first_notes = |name| field(&fates, "X-Notes").into_iter().find(|(message, _)| *message == name);
    let plain = first_notes("plain").expect("it arrives").1.concat();
    assert!(plain.starts_with("connect ") && plain.contains(" 127.0.0.1 for "), "{plain}");
    if has_ipv6() {
        let notes = first_notes("over IPv6").expect("it arrives").1.concat();
        assert!(notes.starts_with("connect ") && notes.contains(" ::1 for "), "{notes}");
    }
}

fn assert_changed(fates: &[Fate]) {
    for fate in fates {
        let delivery = fate.delivery.as_ref().unwrap_or_else(|| panic!("it does not arrive: {fate:?}"));
        assert_eq!(delivery.header("X-Failed"), ["nothing"], "a call did not give what it should");
        assert_eq!(delivery.header("X-First"), ["in front"], "{fate:?}");
    }
}

/// The filter listens at ::1, and the client comes from there.
fn over_tcp6(test: &str, start: impl FnOnce(u16) -> Option<Box<dyn MailServer>>) {
    if !has_ipv6() {
        return skip(test, "an IPv6 loopback address");
    }
    let port = free_port();
    let Some(mta) = start(port) else { return };
    let mta = &*mta;
    let filter = compiled(test, mta);
    let fates = same_with_each(test, mta.sink(), |setting: &Setting| {
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let words = [format!("inet6:{port}@[::1]")];
        let filter = filter.serve_tcp(setting, address, mta.directory(), &words.each_ref().map(String::as_str));
        let mut fates = mailbag::play(mta);
        fates.push(mailbag::pass(mta, mta.smtp_over_ipv6(), "over IPv6", &mailbag::letter("Over IPv6")));
        stop(setting, filter);
        fates
    });
    assert_untroubled(test, mta);
    assert_changed(&fates);
    let notes = field(&fates, "X-Notes").pop().expect("all arrive").1.concat();
    assert!(notes.contains(" ::1 for "), "{notes}");
}

#[test]
fn over_tcp6_behind_postfix() {
    let test = "a filter at ::1 behind Postfix";
    over_tcp6(test, |port| {
        let filter = format!("inet:[::1]:{port}");
        let parameters = mailbag::PARAMETERS.map(|(name, value)| match name {
            "smtpd_milters" => (name, filter.as_str()),
            _ => (name, value),
        });
        Some(Box::new(Postfix::start_or_skip(test, &parameters)?))
    });
}

#[test]
fn over_tcp6_behind_sendmail() {
    let test = "a filter at ::1 behind Sendmail";
    over_tcp6(test, |port| Some(Box::new(Sendmail::start_or_skip(test, &format!("inet6:{port}@::1"))?)));
}
