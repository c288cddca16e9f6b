//! What became of a message, for programs.

use std::path::Path;

use serde_json::{Value, json};

use crate::delivery::Change;
use crate::envelope::{Envelope, Mailbox};
use crate::failure::stage_name;
use crate::mail::Header;
use crate::mta::Mta;
use crate::outcome::Outcome;
use crate::target::Target;

/// One message as a JSON object. Octets that are no UTF-8 become U+FFFD.
pub fn document(target: &Target, mta: Mta, path: &Path, envelope: &Envelope, outcome: &Outcome) -> Value {
    let delivery = &outcome.delivery;
    let refused = outcome.refused.iter().map(|(recipient, reply)| {
        let mut refused = mailbox(recipient);
        refused["reply"] = json!(reply.lines);
        refused
    });
    json!({
        "socket": target.to_string(),
        "mta": mta.name(),
        "file": path.display().to_string(),
        "envelope": addresses(envelope),
        "verdict": outcome.fate.to_string(),
        "stage": stage_name(outcome.stage),
        "reply": outcome.reply.lines,
        "refused": Value::from_iter(refused),
        "changes": Value::from_iter(delivery.changes.iter().map(change)),
        "remarks": outcome.remarks,
        "delivered": outcome.is_delivered().then(|| json!({
            "envelope": addresses(&delivery.envelope),
            "message": text(&delivery.mail().render()),
        })),
    })
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn mailbox(mailbox: &Mailbox) -> Value {
    json!({
        "address": text(&mailbox.address),
        "arguments": Value::from_iter(mailbox.arguments.iter().map(|argument| text(argument))),
    })
}

fn addresses(envelope: &Envelope) -> Value {
    let recipients = envelope.recipients.iter().map(mailbox);
    json!({"from": mailbox(&envelope.sender), "to": Value::from_iter(recipients)})
}

fn change(change: &Change) -> Value {
    let value = |header: &Header| text(header.unspaced_value());
    let old = |header: &Option<Header>| header.as_ref().map(value);
    match change {
        Change::AddHeader(header) => {
            json!({"change": "add header", "name": text(&header.name), "value": value(header)})
        }
        Change::InsertHeader(index, header) => json!({
            "change": "insert header", "index": index, "name": text(&header.name), "value": value(header),
        }),
        Change::ChangeHeader(index, header, before) => json!({
            "change": "change header", "index": index, "name": text(&header.name), "value": value(header),
            "before": old(before),
        }),
        Change::DeleteHeader(index, name, before) => {
            json!({"change": "delete header", "index": index, "name": text(name), "before": old(before)})
        }
        Change::ChangeSender(sender) => json!({"change": "change sender", "to": mailbox(sender)}),
        Change::AddRecipient(recipient) => json!({"change": "add recipient", "recipient": mailbox(recipient)}),
        Change::DeleteRecipient(recipient, found) => {
            json!({"change": "delete recipient", "recipient": mailbox(recipient), "found": found})
        }
        Change::ReplaceBody(octets, packets) => {
            json!({"change": "replace body", "octets": octets, "packets": packets})
        }
        Change::Quarantine(reason) => json!({"change": "quarantine", "reason": text(reason)}),
    }
}
