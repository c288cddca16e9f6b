//! What chance might leave out: every command in every state, every value from every callback, every bit of a
//! negotiation alone, every call in every callback.

use super::{
    Trial,
    conversation::{Connection, Conversation, Delivery, offer, packet},
    plan::{ACCEPT, ALL_OPTS, CONTINUE, Callback, Deed, Modification, NOREPLY, Plan, REJECT, Step, TEMPFAIL, Text},
};

/// All trials, in an order that does not change.
pub(super) fn trials() -> Vec<Trial> {
    [commands(), verdicts(), negotiations(), calls(), macros()].concat()
}

/// A packet for each letter; a small one stands for an unusual payload.
fn said(letters: &str) -> Vec<Vec<u8>> {
    letters.chars().map(|letter| said_once(u8::try_from(letter).expect("ASCII"))).collect()
}

fn said_once(letter: u8) -> Vec<u8> {
    let payload: &[u8] = match letter {
        b'O' => return offer(6, ALL_ACTIONS, ALL_STEPS),
        b'C' => b"host.example\x004\x04\xd2192.0.2.1\0",
        b'H' | b'U' => b"h\0",
        b'M' | b'R' => b"<a>\0SIZE=1\0",
        b'D' => b"Mi\0Q1\0",
        b'L' => b"S\0v\0",
        b'B' | b'e' => b"xx\r\n",
        b'Z' => b"abc",
        _ => b"",
    };
    packet(letter.to_ascii_uppercase(), payload)
}

fn trial(plan: Plan, commands: Vec<Vec<u8>>, delivery: Delivery) -> Trial {
    Trial { plan, conversation: Conversation { connections: vec![Connection { commands, delivery, close: false }] } }
}

const ALL_ACTIONS: u32 = 0x1ff;
const ALL_STEPS: u32 = 0x1f_ffff;
/// The nine steps with which a filter declines to reply.
const NO_REPLY: u32 = 0xf_f080;
/// Three messages, one of them aborted, with everything that a message may have.
const SESSION: &str = "CHUMRTLLNBBEAMRAMRTLNBeQ";

fn usual() -> Plan {
    Plan::with(&Callback::ALL[..12])
}

fn negotiating() -> Plan {
    Plan::with(&Callback::ALL)
}

fn every_time(callback: Callback, deed: Deed) -> Step {
    Step { callback, nth: 0, deed }
}

/// Every command in every state, and what becomes of the session then.
fn commands() -> Vec<Trial> {
    use Callback::{Abort, Close, EnvFrom, EnvRcpt, Eom, Header, Unknown};
    const STATES: [&str; 27] = [
        "",
        "O",
        "OC",
        "OCH",
        "OCHM",
        "OCHMR",
        "OCHMRT",
        "OCHMRTL",
        "OCHMRTLN",
        "OCHMRTLNB",
        "OCHMRTLNBE",
        "OCHMRTLNBEA",
        "OCHMA",
        "OCHMRTLA",
        "OCU",
        "OCHU",
        "OCHMU",
        "OCHMRU",
        "OCHMRTU",
        "OCHMRTLU",
        "OCHMRTLNU",
        "OCHMRTLNBU",
        "OCHMRTLNBEU",
        "OCHMRTLNBEK",
        "OK",
        "OCHMK",
        "OCHMRTLNBEQ",
    ];
    let plans = [
        usual(),
        Plan::with(&[EnvFrom, EnvRcpt, Eom, Abort, Close]),
        Plan::with(&[Header, Eom, Abort, Close, Unknown]),
        Plan::with(&[Eom]),
    ];
    let mut trials = Vec::new();
    for state in STATES {
        for command in "OCHMRTLNBEeAQKUDZ".chars() {
            for (plan, delivery) in plans.iter().zip([Delivery::InStep, Delivery::Whole].into_iter().cycle()) {
                let session = format!("{state}{command}RLMRTLNBEUQ");
                trials.push(trial(plan.clone(), said(&session), delivery));
            }
        }
    }
    trials
}

/// Every value from every callback: replied to, not replied to, and replied to in the filter's place.
fn verdicts() -> Vec<Trial> {
    let values = (0..=23).chain([99, -1, i32::MIN, i32::MAX]);
    let replies = [None, Some(&b"550"[..]), Some(b"451")];
    let mut trials = Vec::new();
    for (callback, value) in Callback::ALL.into_iter().flat_map(|it| values.clone().map(move |value| (it, value))) {
        for reply in replies {
            let mut plan = if callback == Callback::Negotiate { negotiating() } else { usual() };
            if let Some(code) = reply {
                let line = Some(b"no".to_vec());
                plan.steps.push(every_time(callback, Deed::SetReply(Some(code.to_vec()), None, line)));
            }
            plan.steps.push(every_time(callback, Deed::Return(value)));
            trials.push(trial(plan, said(&format!("O{SESSION}")), Delivery::InStep));
        }
        for offered in [ALL_STEPS, 0x37f] {
            let mut plan = negotiating();
            plan.steps.push(every_time(Callback::Negotiate, Deed::Output(1, NO_REPLY.into())));
            let silent = |it: &Callback| !matches!(it, Callback::Eom | Callback::Negotiate) && *it != callback;
            let others = Callback::ALL.into_iter().filter(silent);
            plan.steps.extend(others.map(|it| every_time(it, Deed::Return(NOREPLY))));
            plan.steps.push(every_time(callback, Deed::Return(value)));
            let commands = [vec![offer(6, ALL_ACTIONS, offered)], said(SESSION)].concat();
            trials.push(trial(plan, commands, Delivery::InStep));
        }
    }
    trials
}

/// Every bit alone: offered, wanted by flags, wanted by xxfi_negotiate; with MTAs of all ages.
fn negotiations() -> Vec<Trial> {
    const OFFERS: [[u32; 3]; 10] = [
        [1, 0xf, 0x3f],
        [2, 0, 0],
        [2, 0x3f, 0x7f],
        [3, 0x3f, 0x17f],
        [4, 0x3f, 0x37f],
        [5, ALL_ACTIONS, ALL_STEPS],
        [6, ALL_ACTIONS, ALL_STEPS],
        [6, ALL_ACTIONS, 0x701f_ffff],
        [6, u32::MAX, u32::MAX],
        [7, ALL_ACTIONS, ALL_STEPS],
    ];
    let mut trials = Vec::new();
    let mut meet = |plan: &Plan, [version, actions, steps]: [u32; 3]| {
        let commands = [vec![offer(version, actions, steps)], said(SESSION)].concat();
        trials.push(trial(plan.clone(), commands, Delivery::InStep));
    };
    for bit in (0..32).map(|bit| 1u32 << bit) {
        let flags = Plan { flags: bit, ..usual() };
        let [mut actions, mut steps] = [negotiating(), negotiating()];
        actions.steps.push(every_time(Callback::Negotiate, Deed::Output(0, bit.into())));
        steps.steps.push(every_time(Callback::Negotiate, Deed::Output(1, bit.into())));
        for plan in [&flags, &actions, &steps] {
            OFFERS.into_iter().for_each(|offer| meet(plan, offer));
        }
        let modest = Plan { flags: 0, ..Plan::with(&[Callback::Eom, Callback::Close]) };
        let mut greedy = negotiating();
        greedy.steps.push(every_time(Callback::Negotiate, Deed::Return(ALL_OPTS)));
        for plan in [&modest, &usual(), &greedy] {
            for offer in [[6, bit, ALL_STEPS], [6, ALL_ACTIONS, bit], [6, bit, 0], [6, 0, bit]] {
                meet(plan, offer);
            }
        }
    }
    for version in [2, 3, 4, 0x0100_0000] {
        for flags in [0, 0x3f, ALL_ACTIONS] {
            OFFERS.into_iter().for_each(|offer| meet(&Plan { version, flags, ..negotiating() }, offer));
        }
    }
    trials
}

/// A good string, none, an empty one, and those of the two sizes around the limit of a packet that has `others` more
/// octets.
fn texts(good: &str, others: usize) -> [Text; 5] {
    let long = |size: usize| Some(vec![b'v'; size - others]);
    [Some(good.into()), None, Some(Vec::new()), long(65_535), long(65_536)]
}

/// Every call that changes a message, with every kind of each argument.
fn modifications() -> Vec<Modification> {
    use Modification::{
        AddHeader, AddRcpt, AddRcptPar, ChgFrom, ChgHeader, DelRcpt, InsHeader, Quarantine, ReplaceBody,
    };
    let good = |text: &str| -> Text { Some(text.into()) };
    let mut all = Vec::new();
    all.extend(texts("X", 4).map(|name| AddHeader(name, good("vv"))));
    all.extend(texts("vv", 3).map(|value| AddHeader(good("X"), value)));
    for at in [0, 1, 70_000, i32::MAX, -1, i32::MIN] {
        all.extend([InsHeader(at, good("X"), good("v")), ChgHeader(good("X"), at, good("v"))]);
    }
    all.extend(texts("X", 8).map(|name| InsHeader(1, name, good("vv"))));
    all.extend(texts("vv", 7).map(|value| InsHeader(1, good("X"), value)));
    all.extend(texts("X", 8).map(|name| ChgHeader(name, 1, good("vv"))));
    all.extend(texts("vv", 7).map(|value| ChgHeader(good("X"), 1, value)));
    all.extend(texts("<x@y>", 1).map(|address| ChgFrom(address, None)));
    all.extend(texts("SIZE=1", 5).map(|arguments| ChgFrom(good("<x>"), arguments)));
    all.extend(texts("<c>", 1).map(AddRcpt));
    all.extend(texts("<c>", 1).map(|address| AddRcptPar(address, None)));
    all.extend(texts("NOTIFY=NEVER", 5).map(|arguments| AddRcptPar(good("<c>"), arguments)));
    all.extend(texts("<c>", 1).map(DelRcpt));
    all.extend(texts("why", 1).map(Quarantine));
    all.extend(
        [(None, 0), (None, 1), (None, -1), (good("x"), 0), (good("x"), 1), (good("x"), -1)]
            .map(|(octets, length)| ReplaceBody(octets, length)),
    );
    all.extend([65_535, 65_536, 131_070, 131_071].map(|size| ReplaceBody(Some(vec![b'r'; size]), size as i32)));
    all
}

/// Every call, with every kind of each argument.
fn deeds() -> Vec<Deed> {
    let line = |size: usize| Some(vec![b'x'; size]);
    let good = |text: &str| -> Text { Some(text.into()) };
    let mut all: Vec<Deed> = modifications().into_iter().map(Deed::Modify).collect();
    all.extend([Deed::Progress, Deed::GetPriv, Deed::SetPriv(5), Deed::GetPriv]);
    for name in [None, good(""), good("i"), good("{i}"), line(300)] {
        all.push(Deed::GetSymVal(name));
    }
    for stage in -1..=8 {
        all.push(Deed::SetSymList(stage, good("i j")));
    }
    all.extend([None, good("")].map(|names| Deed::SetSymList(6, names)));
    for code in [None, good(""), good("4"), good("399"), good("600"), good("5500"), good("451"), good("550")] {
        all.push(Deed::SetReply(code.clone(), None, good("text")));
        all.push(Deed::SetMlReply(code, None, vec![b"text".to_vec()]));
    }
    for status in
        [None, good(""), good("5"), good("5.7"), good("5.7.1234"), good("5.7.1.1"), good("4.7.1"), good("5.7.1")]
    {
        all.push(Deed::SetMlReply(good("550"), status.clone(), vec![b"one".to_vec(), b"two".to_vec()]));
        all.push(Deed::SetReply(good("550"), status, good("text")));
    }
    for text in [None, good(""), line(980), line(981), good("a\r"), good("\nb")] {
        all.push(Deed::SetMlReply(good("451"), None, text.clone().into_iter().collect()));
        all.push(Deed::SetReply(good("550"), good("5.7.1"), text));
    }
    all.extend([32, 33].map(|count| Deed::SetMlReply(good("451"), None, vec![b"line".to_vec(); count])));
    all
}

/// Every call in every callback: allowed by flags, or not; and by one flag alone, or by all but one.
fn calls() -> Vec<Trial> {
    let mut flags = vec![(Callback::Eom, 0)];
    flags.extend((0..9).flat_map(|bit| [(Callback::Eom, 1 << bit), (Callback::Eom, ALL_ACTIONS & !(1 << bit))]));
    flags.extend(Callback::ALL.into_iter().flat_map(|callback| [(callback, 0), (callback, ALL_ACTIONS)]));
    let deeds = deeds();
    let mut trials = Vec::new();
    for (callback, flags) in flags {
        for verdict in [CONTINUE, REJECT, TEMPFAIL, ACCEPT] {
            // Each call by itself is seen by its result and its packet; of stored replies the last one counts.
            let mut plan = if callback == Callback::Negotiate { negotiating() } else { usual() };
            plan.flags = flags;
            plan.steps.extend(deeds.iter().map(|deed| Step { callback, nth: 1, deed: deed.clone() }));
            if callback == Callback::Negotiate {
                plan.steps.push(every_time(callback, Deed::Output(0, flags.into())));
            } else {
                plan.steps.push(every_time(callback, Deed::Return(verdict)));
            }
            trials.push(trial(plan, said(&format!("O{SESSION}")), Delivery::InStep));
        }
    }
    trials
}

/// Macros of every stage asked for in every callback, over messages, after RSET, and by the next client.
fn macros() -> Vec<Trial> {
    let names = ["i", "{c}", "{h}", "{m}", "{r}", "{t}", "{n}", "{e}", "x", "{x}"];
    let asked = |callback| names.iter().map(move |name| every_time(callback, Deed::GetSymVal(Some((*name).into()))));
    let sets = |stage: u8, value: &str| {
        let own = char::from(stage.to_ascii_lowercase());
        format!("{}i\0{value}-{own}\0{{{own}}}\0{value}\0{{x}}\0\0", char::from(stage)).into_bytes()
    };
    let mut trials = Vec::new();
    for (order, session) in
        ["CHMRRTLNBEMRTLNBEQ", "CHMRTLAMRTNEHMREQ", "CHMREKCHMRLNEQ", "CHUMURUTULUNUBUEUMRQ"].into_iter().enumerate()
    {
        for omitted in *b"-CHMRTNE" {
            let mut plan = usual();
            plan.steps.extend(Callback::ALL[..12].iter().flat_map(|callback| asked(*callback)));
            let mut commands = said("O");
            for (at, letter) in session.bytes().enumerate() {
                if b"CHMRTNE".contains(&letter) && letter != omitted {
                    commands.push(packet(b'D', &sets(letter, &format!("{order}.{at}"))));
                }
                commands.push(said_once(letter));
            }
            trials.push(trial(plan, commands, Delivery::InStep));
        }
    }
    trials
}

#[cfg(test)]
mod tests {
    use super::{super::prediction::Predictions, *};

    #[test]
    fn callbacks_that_make_every_call_are_called() {
        for Trial { plan, conversation } in calls() {
            let callback = plan.steps.first().expect("there are calls").callback;
            let ours = Predictions::new(&plan, &conversation).ours;
            let called = |event: &String| event.split(' ').next() == Some(callback.name());
            assert!(ours.events.iter().any(called), "{}", callback.name());
            let calls = plan.steps.iter().filter(|step| step.nth == 1).count();
            assert!(ours.events.len() > calls, "{}: {} events", callback.name(), ours.events.len());
        }
    }
}
