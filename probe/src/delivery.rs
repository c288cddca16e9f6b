//! A message with the changes of a filter, put together the way the MTA does it.

use milter_protocol::Modification;

use crate::envelope::{self, Envelope, Mailbox};
use crate::mail::{self, Header, Mail};
use crate::mta::Mta;

/// A change that a filter made, in the order in which it asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A header appended.
    AddHeader(Header),
    /// A header inserted at a position; 0 is above the MTA's own `Received`.
    InsertHeader(u32, Header),
    /// The n-th header of a name changed; the old one, if it was there.
    ChangeHeader(u32, Header, Option<Header>),
    /// The n-th header of a name deleted; the old one, if it was there.
    DeleteHeader(u32, Vec<u8>, Option<Header>),
    /// Another sender.
    ChangeSender(Mailbox),
    /// One more recipient.
    AddRecipient(Mailbox),
    /// One recipient less, and whether it was there.
    DeleteRecipient(Mailbox, bool),
    /// Another body: octets as sent, and packets it came in.
    ReplaceBody(usize, usize),
    /// The message put on hold, and why.
    Quarantine(Vec<u8>),
}

/// One place in the list of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    /// The `Received` header that the MTA itself puts on top. Filters do not see it, but it has a position.
    Trace,
    /// A header.
    Field(Header),
    /// A header that Sendmail has deleted: it is not delivered any more but goes on being counted.
    Deleted(Vec<u8>),
}

impl Slot {
    fn has_name(&self, name: &[u8]) -> bool {
        match self {
            Slot::Trace => false,
            Slot::Field(header) => header.is(name),
            Slot::Deleted(deleted) => deleted.eq_ignore_ascii_case(name),
        }
    }
}

/// A message on its way to delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    mta: Mta,
    /// Whether header values travel with the blank after the colon.
    spaced: bool,
    slots: Vec<Slot>,
    original: Mail,
    new_body: Option<Vec<u8>>,
    body_packets: usize,
    /// Who sends it, and to whom.
    pub envelope: Envelope,
    /// Why the message is held, if it is.
    pub quarantine: Option<Vec<u8>>,
    /// What the filter asked for.
    pub changes: Vec<Change>,
}

impl Delivery {
    /// The message as it was received. `spaced`: values of headers travel with the blank after the colon.
    pub fn new(mta: Mta, spaced: bool, mail: &Mail, envelope: &Envelope) -> Self {
        let fields = mail.headers.iter().cloned().map(Slot::Field);
        Delivery {
            mta,
            spaced,
            slots: std::iter::once(Slot::Trace).chain(fields).collect(),
            original: mail.clone(),
            new_body: None,
            body_packets: 0,
            envelope: envelope.clone(),
            quarantine: None,
            changes: Vec::new(),
        }
    }

    /// Carries one change out.
    pub fn apply(&mut self, modification: &Modification<'_>) {
        let change = match *modification {
            Modification::AddHeader { name, value } => {
                let header = Header::new(name, value, self.spaced);
                self.add_header(header.clone());
                Change::AddHeader(header)
            }
            Modification::InsertHeader { index, name, value } => {
                let header = Header::new(name, value, self.spaced);
                let at = usize::try_from(index).unwrap_or(usize::MAX).min(self.slots.len());
                self.slots.insert(at, Slot::Field(header.clone()));
                Change::InsertHeader(index, header)
            }
            Modification::ChangeHeader { index, name, value: b"" } => {
                Change::DeleteHeader(index, name.to_vec(), self.delete_header(index, name))
            }
            Modification::ChangeHeader { index, name, value } => {
                let header = Header::new(name, value, self.spaced);
                Change::ChangeHeader(index, header.clone(), self.change_header(index, header))
            }
            Modification::ChangeSender { address, arguments } => {
                let sender = mailbox(address, arguments);
                self.envelope.sender = sender.clone();
                Change::ChangeSender(sender)
            }
            Modification::AddRecipient { address } => self.add_recipient(mailbox(address, None)),
            Modification::AddRecipientWithArguments { address, arguments } => {
                self.add_recipient(mailbox(address, arguments))
            }
            Modification::DeleteRecipient { address } => {
                let recipient = mailbox(address, None);
                let before = self.envelope.recipients.len();
                self.envelope.recipients.retain(|known| !known.address.eq_ignore_ascii_case(&recipient.address));
                Change::DeleteRecipient(recipient, self.envelope.recipients.len() < before)
            }
            Modification::Quarantine { reason } => {
                self.quarantine = Some(reason.to_vec());
                Change::Quarantine(reason.to_vec())
            }
        };
        self.changes.push(change);
    }

    /// Takes one more piece of a replacement body.
    pub fn replace_body(&mut self, piece: &[u8]) {
        let body = self.new_body.get_or_insert_default();
        body.extend_from_slice(piece);
        self.body_packets += 1;
        let change = Change::ReplaceBody(body.len(), self.body_packets);
        match self.changes.iter_mut().find(|change| matches!(change, Change::ReplaceBody(..))) {
            Some(known) => *known = change,
            None => self.changes.push(change),
        }
    }

    /// Postfix appends; Sendmail puts a header above the first one of its name, if there is one.
    fn add_header(&mut self, header: Header) {
        let at = match self.mta {
            Mta::Postfix => None,
            Mta::Sendmail => self.slots.iter().position(|slot| slot.has_name(&header.name)),
        };
        self.slots.insert(at.unwrap_or(self.slots.len()), Slot::Field(header));
    }

    /// The place of the n-th header of a name, from 1; 0 counts as 1. Headers that the filter added count, the MTA's
    /// own `Received` does not (Postfix since 3.8.4).
    fn find(&self, index: u32, name: &[u8]) -> Option<usize> {
        let nth = usize::try_from(index.max(1) - 1).ok()?;
        self.slots.iter().enumerate().filter(|(_, slot)| slot.has_name(name)).nth(nth).map(|(at, _)| at)
    }

    fn change_header(&mut self, index: u32, header: Header) -> Option<Header> {
        match self.find(index, &header.name) {
            Some(at) => match std::mem::replace(&mut self.slots[at], Slot::Field(header)) {
                Slot::Field(old) => Some(old),
                _ => None,
            },
            None => {
                self.add_header(header);
                None
            }
        }
    }

    fn delete_header(&mut self, index: u32, name: &[u8]) -> Option<Header> {
        let at = self.find(index, name)?;
        let old = match self.mta {
            Mta::Postfix => self.slots.remove(at),
            Mta::Sendmail => std::mem::replace(&mut self.slots[at], Slot::Deleted(name.to_vec())),
        };
        match old {
            Slot::Field(header) => Some(header),
            _ => None,
        }
    }

    /// Both MTAs deliver once to a recipient that is named twice.
    fn add_recipient(&mut self, recipient: Mailbox) -> Change {
        if !self.envelope.recipients.iter().any(|known| known.address.eq_ignore_ascii_case(&recipient.address)) {
            self.envelope.recipients.push(recipient.clone());
        }
        Change::AddRecipient(recipient)
    }

    /// Where the MTA's own `Received` header stands among the delivered headers.
    pub fn trace_position(&self) -> usize {
        let above = self.slots.iter().take_while(|slot| **slot != Slot::Trace);
        above.filter(|slot| matches!(slot, Slot::Field(_))).count()
    }

    /// The message as it is delivered, without the MTA's own `Received`.
    pub fn mail(&self) -> Mail {
        let headers = self.slots.iter().filter_map(|slot| match slot {
            Slot::Field(header) => Some(header.clone()),
            Slot::Trace | Slot::Deleted(_) => None,
        });
        let body = match &self.new_body {
            Some(body) => mail::with_crlf(body),
            None => self.original.body.clone(),
        };
        Mail { headers: headers.collect(), body, line_end: self.original.line_end }
    }
}

fn mailbox(address: &[u8], arguments: Option<&[u8]>) -> Mailbox {
    let words = arguments.unwrap_or_default().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    Mailbox { address: envelope::bare(address).to_vec(), arguments: words.map(<[u8]>::to_vec).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAIL: &[u8] = b"Received: 1\nX: a\nSubject: s\nx: b\n\nbody\n";

    fn delivery(mta: Mta) -> Delivery {
        let envelope = Envelope { sender: Mailbox::parse(b"a@x"), recipients: vec![Mailbox::parse(b"b@x")] };
        Delivery::new(mta, false, &Mail::parse(MAIL), &envelope)
    }

    fn headers(mta: Mta, modifications: &[Modification<'_>]) -> String {
        let mut delivery = delivery(mta);
        modifications.iter().for_each(|modification| delivery.apply(modification));
        let text = String::from_utf8(delivery.mail().render()).unwrap();
        text.strip_suffix("\n\nbody\n").unwrap().replace('\n', "|")
    }

    fn add<'a>(name: &'a [u8], value: &'a [u8]) -> Modification<'a> {
        Modification::AddHeader { name, value }
    }

    fn change<'a>(index: u32, name: &'a [u8], value: &'a [u8]) -> Modification<'a> {
        Modification::ChangeHeader { index, name, value }
    }

    fn insert(index: u32) -> Modification<'static> {
        Modification::InsertHeader { index, name: b"I", value: b"i" }
    }

    #[test]
    fn added_headers_go_to_the_end_but_for_sendmail_to_their_like() {
        let twice = [add(b"X", b"c"), add(b"N", b"1"), add(b"N", b"2")];
        assert_eq!(headers(Mta::Postfix, &twice), "Received: 1|X: a|Subject: s|x: b|X: c|N: 1|N: 2");
        assert_eq!(headers(Mta::Sendmail, &twice), "Received: 1|X: c|X: a|Subject: s|x: b|N: 2|N: 1");
    }

    #[test]
    fn positions_count_the_received_header_of_the_mta() {
        for mta in [Mta::Postfix, Mta::Sendmail] {
            assert_eq!(headers(mta, &[insert(0)]), "I: i|Received: 1|X: a|Subject: s|x: b");
            assert_eq!(headers(mta, &[insert(1)]), "I: i|Received: 1|X: a|Subject: s|x: b");
            assert_eq!(headers(mta, &[insert(2)]), "Received: 1|I: i|X: a|Subject: s|x: b");
            assert_eq!(headers(mta, &[insert(99)]), "Received: 1|X: a|Subject: s|x: b|I: i");
            let mut above = delivery(mta);
            above.apply(&insert(0));
            assert_eq!(above.trace_position(), 1);
            above.apply(&insert(2));
            assert_eq!(above.trace_position(), 1);
        }
    }

    #[test]
    fn headers_are_changed_by_name_and_number() {
        for mta in [Mta::Postfix, Mta::Sendmail] {
            assert_eq!(headers(mta, &[change(2, b"X", b"z")]), "Received: 1|X: a|Subject: s|X: z");
            assert_eq!(headers(mta, &[change(0, b"x", b"z")]), "Received: 1|x: z|Subject: s|x: b");
            assert_eq!(headers(mta, &[change(1, b"Received", b"z")]), "Received: z|X: a|Subject: s|x: b");
            assert_eq!(headers(mta, &[change(2, b"Subject", b"")]), "Received: 1|X: a|Subject: s|x: b");
            assert_eq!(headers(mta, &[change(9, b"New", b"n")]), "Received: 1|X: a|Subject: s|x: b|New: n");
        }
    }

    #[test]
    fn deleted_headers_go_on_counting_for_sendmail() {
        let both = [change(1, b"X", b""), change(2, b"X", b"")];
        assert_eq!(headers(Mta::Postfix, &both), "Received: 1|Subject: s|x: b");
        assert_eq!(headers(Mta::Sendmail, &both), "Received: 1|Subject: s");
    }

    #[test]
    fn values_get_their_blank_unless_they_bring_it() {
        let mail = Mail::parse(MAIL);
        let mut delivery = Delivery::new(Mta::Postfix, true, &mail, &delivery(Mta::Postfix).envelope);
        delivery.apply(&change(1, b"Subject", b"tight"));
        delivery.apply(&add(b"N", b"  wide"));
        assert_eq!(delivery.mail().header(b"subject").unwrap().value, b"tight");
        assert_eq!(delivery.mail().header(b"N").unwrap().value, b"  wide");
    }

    #[test]
    fn the_envelope_changes_too() {
        let mut delivery = delivery(Mta::Postfix);
        delivery.apply(&Modification::ChangeSender { address: b"<new@x>", arguments: Some(b"RET=HDRS") });
        delivery.apply(&Modification::AddRecipient { address: b"<c@x>" });
        delivery.apply(&Modification::AddRecipient { address: b"C@X" });
        delivery.apply(&Modification::DeleteRecipient { address: b"B@x" });
        delivery.apply(&Modification::DeleteRecipient { address: b"<nobody@x>" });
        assert_eq!(delivery.envelope.sender.to_string(), "<new@x> RET=HDRS");
        assert_eq!(delivery.envelope.recipients, [Mailbox::parse(b"c@x")]);
        assert_eq!(delivery.changes[3], Change::DeleteRecipient(Mailbox::parse(b"B@x"), true));
        assert_eq!(delivery.changes[4], Change::DeleteRecipient(Mailbox::parse(b"nobody@x"), false));
    }

    #[test]
    fn a_new_body_comes_in_pieces() {
        let mut delivery = delivery(Mta::Sendmail);
        delivery.replace_body(b"one\ntw");
        delivery.apply(&insert(0));
        delivery.replace_body(b"o\r\n");
        assert_eq!(delivery.mail().body, b"one\r\ntwo\r\n");
        assert_eq!(delivery.changes.first(), Some(&Change::ReplaceBody(9, 2)));
        delivery = Delivery { new_body: Some(Vec::new()), ..delivery };
        assert_eq!(delivery.mail().body, b"", "an empty body is a body");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_by_adding(mta in prop::bool::ANY, indices in prop::collection::vec(any::<u32>(), 0..9)) {
            let mta = if mta { Mta::Postfix } else { Mta::Sendmail };
            let mut delivery = delivery(mta);
            indices.iter().for_each(|&index| delivery.apply(&insert(index % 9)));
            let headers = delivery.mail().headers;
            prop_assert_eq!(headers.len(), 4 + indices.len());
            let kept: Vec<_> = headers.into_iter().filter(|header| !header.is(b"I")).collect();
            prop_assert_eq!(kept, Mail::parse(MAIL).headers);
        }
    }
}
