//! Which command may follow which.

/// Where a session stands; the numbers order the states for [`reaches`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    #[default]
    Init,
    Options,
    Connect,
    Helo,
    Mail,
    Rcpt,
    Data,
    Header,
    Eoh,
    Body,
    Eom,
    Quit,
    Abort,
    Unknown,
    QuitNc,
}

const IN_ORDER: [State; 15] = [
    State::Init,
    State::Options,
    State::Connect,
    State::Helo,
    State::Mail,
    State::Rcpt,
    State::Data,
    State::Header,
    State::Eoh,
    State::Body,
    State::Eom,
    State::Quit,
    State::Abort,
    State::Unknown,
    State::QuitNc,
];

impl State {
    pub(super) fn of(letter: u8) -> Option<State> {
        Some(match letter {
            b'O' => State::Options,
            b'C' => State::Connect,
            b'H' => State::Helo,
            b'M' => State::Mail,
            b'R' => State::Rcpt,
            b'T' => State::Data,
            b'L' => State::Header,
            b'N' => State::Eoh,
            b'B' => State::Body,
            b'E' => State::Eom,
            b'Q' => State::Quit,
            b'A' => State::Abort,
            b'U' => State::Unknown,
            b'K' => State::QuitNc,
            _ => return None,
        })
    }

    pub(super) fn in_mail(self) -> bool {
        (State::Mail..=State::Body).contains(&self)
    }

    /// What may come next. `optional_parts`: a message may lack headers and body, which the reference does not always
    /// know (defect 4).
    fn precedes(self, next: State, optional_parts: bool) -> bool {
        use State::*;
        let next_ones: &[State] = match self {
            Init => &[Options],
            Options => &[Connect, Unknown],
            Connect | Helo => &[Helo, Mail, Unknown],
            Mail => &[Rcpt, Abort, Unknown],
            Rcpt => &[Rcpt, Data, Header, Eoh, Body, Eom, Abort, Unknown],
            Data if optional_parts => &[Header, Eoh, Body, Eom, Abort],
            Data => &[Header, Eoh, Abort],
            Header if optional_parts => &[Header, Eoh, Body, Eom, Abort],
            Header => &[Header, Eoh, Abort],
            Eoh => &[Body, Eom, Abort],
            Body => &[Body, Eom, Abort],
            Eom => &[Mail, Unknown, Quit, QuitNc],
            Quit | Abort => &[],
            Unknown => &[Helo, Mail, Rcpt, Data, Body, Abort, Unknown, Quit, QuitNc],
            QuitNc => &[Connect, Unknown],
        };
        next_ones.contains(&next)
    }
}

/// Whether `next` may follow `state` when states in `skipped` may be left out.
pub(super) fn reaches(state: State, next: State, skipped: u16, optional_parts: bool) -> bool {
    let mut at = state as usize;
    loop {
        if IN_ORDER[at].precedes(next, optional_parts) {
            return true;
        }
        at += 1;
        if at >= IN_ORDER.len() || skipped & 1 << at == 0 {
            return false;
        }
    }
}

/// States that need not be passed under these steps (`SMFIP_NO...`).
pub(super) fn skipped(steps: u32) -> u16 {
    const TABLE: [(u32, State); 9] = [
        (0x1, State::Connect),
        (0x2, State::Helo),
        (0x4, State::Mail),
        (0x8, State::Rcpt),
        (0x200, State::Data),
        (0x20, State::Header),
        (0x40, State::Eoh),
        (0x10, State::Body),
        (0x100, State::Unknown),
    ];
    TABLE.iter().filter(|(step, _)| steps & step != 0).fold(0, |set, (_, state)| set | 1 << *state as u16)
}
