//! What MTA and filter agree on.

use super::plan::{ALL_OPTS, CONTINUE, Callback, Plan};

/// The nine steps with which a filter declines to reply.
const NO_REPLY: u32 = 0x000f_f080;
const SKIP: u32 = 0x400;
const RESERVED: u32 = 0x7000_0000;

/// The steps that a filter without these callbacks does not need.
pub(super) fn own_steps(plan: &Plan) -> u32 {
    const TABLE: [(Callback, u32); 9] = [
        (Callback::Connect, 0x1),
        (Callback::Helo, 0x2),
        (Callback::EnvFrom, 0x4),
        (Callback::EnvRcpt, 0x8),
        (Callback::Body, 0x10),
        (Callback::Header, 0x20),
        (Callback::Eoh, 0x40),
        (Callback::Unknown, 0x100),
        (Callback::Data, 0x200),
    ];
    TABLE.iter().filter(|(callback, _)| !plan.calls(*callback)).fold(0, |steps, (_, step)| steps | step)
}

/// The step with which a filter declines to reply to a command.
pub(super) fn no_reply_step(letter: u8) -> u32 {
    match letter {
        b'C' => 0x1000,
        b'H' => 0x2000,
        b'M' => 0x4000,
        b'R' => 0x8000,
        b'T' => 0x1_0000,
        b'U' => 0x2_0000,
        b'L' => 0x80,
        b'N' => 0x4_0000,
        b'B' => 0x8_0000,
        _ => 0,
    }
}

/// What an MTA offers.
pub(super) struct Offer {
    version: u32,
    actions: u32,
    steps: u32,
}

/// The four results of xxfi_negotiate.
pub(super) type Outputs = [u64; 4];

/// What came of an offer.
pub(super) struct Agreement {
    version: u32,
    pub(super) actions: u32,
    /// As the session goes by them.
    pub(super) steps: u32,
    /// As the MTA is told.
    told: u32,
    /// Steps without a reply that the MTA does not know.
    pub(super) emulated: u32,
}

fn widened(number: u32, signed: bool) -> u64 {
    if signed { i64::from(number as i32) as u64 } else { number.into() }
}

impl Offer {
    pub(super) fn read(payload: &[u8]) -> Option<Offer> {
        let number = |at: usize| payload.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let (version, actions, steps) = (number(0)?, number(4)?, number(8)?);
        let version = u32::try_from(version as i32).ok().filter(|version| *version >= 2)?.min(6);
        Some(Offer {
            version,
            actions: if actions == 0 { 0xf } else { actions },
            steps: if steps == 0 { 0x3f } else { steps & !RESERVED },
        })
    }

    /// Whether sign extension shows.
    pub(super) fn is_wide(&self) -> bool {
        (self.actions | self.steps) >> 31 != 0
    }

    fn skip(&self) -> u32 {
        self.steps & SKIP
    }

    pub(super) fn outputs(&self, plan: &Plan, wide: bool) -> Outputs {
        [widened(self.actions, wide), (own_steps(plan) | self.skip()).into(), 0, 0]
    }

    pub(super) fn record(&self, [p0, p1, p2, p3]: &Outputs, wide: bool) -> String {
        let (f0, f1) = (widened(self.actions, wide), widened(self.steps | NO_REPLY, wide));
        format!("negotiate f0={f0:x} f1={f1:x} f2=0 f3=0 *p0={p0:x} *p1={p1:x} *p2={p2:x} *p3={p3:x}")
    }

    /// `choice` is what xxfi_negotiate returned and left in its outputs.
    pub(super) fn settle(&self, plan: &Plan, choice: Option<(i32, Outputs)>) -> Option<Agreement> {
        let own = own_steps(plan);
        let (actions, steps, mut told) = match choice {
            None => (plan.flags, own, own),
            Some((ALL_OPTS, _)) => (self.actions, own, own | self.skip()),
            Some((CONTINUE, outputs)) => (outputs[0] as u32, outputs[1] as u32, outputs[1] as u32),
            Some(_) => return None,
        };
        let emulated = steps & NO_REPLY & !self.steps;
        told &= !emulated;
        // What an old MTA never sends it need not leave out.
        told &= self.steps | !0x300;
        let agreed = actions & !self.actions == 0 && told & !self.steps == 0;
        agreed.then_some(Agreement { version: self.version, actions, steps, told, emulated })
    }
}

impl Agreement {
    /// Version, actions and steps, as the MTA is told.
    pub(super) fn numbers(&self) -> [u32; 3] {
        [self.version, self.actions, self.told]
    }
}

/// The payload of the reply to an offer.
pub(super) fn reply(numbers: [u32; 3], symbol_lists: &[Option<Vec<u8>>; 7]) -> Vec<u8> {
    let mut payload = numbers.map(u32::to_be_bytes).concat();
    for (stage, list) in (0u32..).zip(symbol_lists) {
        if let Some(list) = list {
            payload.extend(stage.to_be_bytes());
            payload.extend_from_slice(list);
            payload.push(0);
        }
    }
    payload
}
