//! Which of the offered actions and steps a session uses.

use std::fmt;

use bytes::Buf;

use crate::callback::Offer;
use crate::engine::Profile;
use crate::flags::{Actions, Callbacks, Steps};

/// Highest protocol version spoken (`SMFI_PROT_VERSION`).
pub const VERSION: u32 = 6;

/// Lowest protocol version understood.
pub const OLDEST_VERSION: u32 = 2;

/// API version from which a filter takes larger payloads (`SMFI_VERSION_MDS`).
const LARGE_DATA_API: i32 = 0x0100_0002;

/// What `xxfi_negotiate` returns to take everything that is offered (`SMFIS_ALL_OPTS`).
pub const ALL_OPTIONS: i32 = 10;

/// What `xxfi_negotiate` returns to take what it wrote into its arguments (`SMFIS_CONTINUE`).
const CHOSEN_OPTIONS: i32 = 0;

/// Sizes an MTA can offer, largest first, and the payload limit each stands for (`MILTER_MDS_*`).
const SIZES: [(Steps, usize); 2] = [(Steps::SIZE_1M, 1_048_575), (Steps::SIZE_256K, 262_143)];

/// Why MTA and filter cannot work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegotiationError {
    /// The offer is too short; holds its length.
    Short(usize),
    /// The MTA's protocol version is too old.
    OldVersion(i32),
    /// The negotiation callback refused; its return value, and what the MTA offered.
    Refused {
        /// Return value of `xxfi_negotiate`.
        value: i32,
        /// Steps offered.
        steps: u32,
        /// Actions offered.
        actions: u32,
    },
    /// The MTA lacks actions that the filter needs.
    Actions {
        /// Actions offered.
        offered: u32,
        /// Actions required.
        required: u32,
    },
    /// The MTA lacks protocol steps that the filter needs.
    Steps {
        /// Steps offered.
        offered: u32,
        /// Steps required.
        required: u32,
    },
    /// The answer, with the macros that the filter requests, is larger than a packet may be.
    LongAnswer {
        /// Its length in octets.
        len: usize,
        /// Largest payload allowed.
        limit: usize,
    },
}

impl fmt::Display for NegotiationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NegotiationError::Short(len) => write!(f, "len too short {len} < {}", MtaOffer::LEN),
            NegotiationError::OldVersion(version) => {
                write!(f, "protocol version too old {version} < {OLDEST_VERSION}")
            }
            NegotiationError::Refused { value, steps, actions } => {
                write!(f, "xxfi_negotiate returned {value} (protocol options=0x{steps:x}, actions=0x{actions:x})")
            }
            NegotiationError::Actions { offered, required } => {
                write!(f, "0x{offered:x} does not fulfill action requirements 0x{required:x}")
            }
            NegotiationError::Steps { offered, required } => {
                write!(f, "0x{offered:x} does not fulfill protocol requirements 0x{required:x}")
            }
            NegotiationError::LongAnswer { len, limit } => {
                write!(f, "answer of {len} octets is beyond the limit of {limit}, request fewer macros")
            }
        }
    }
}

/// The MTA's offer, put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtaOffer {
    version: u32,
    actions: Actions,
    /// Without the internal bits, but with the one size that both sides can use.
    steps: Steps,
}

/// What a session has agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Version to answer with.
    pub version: u32,
    /// Actions the filter may use.
    pub actions: Actions,
    /// Steps as the filter sees them.
    pub steps: Steps,
    /// Steps as the MTA is told.
    pub wire_steps: Steps,
    /// No-reply steps the filter relies on but the MTA lacks: the library sends CONTINUE in the filter's place.
    pub emulated: Steps,
    /// Payload limit, if a larger one was agreed on.
    pub limit: Option<usize>,
}

impl MtaOffer {
    const LEN: usize = 12;

    /// Reads the payload of OPTNEG; surplus octets are ignored.
    pub fn parse(mut payload: &[u8], profile: &Profile) -> Result<Self, NegotiationError> {
        if payload.len() < Self::LEN {
            return Err(NegotiationError::Short(payload.len()));
        }
        let version = payload.get_i32();
        let actions = Actions::from_bits_retain(payload.get_u32());
        let offered = Steps::from_bits_retain(payload.get_u32());
        let version = match u32::try_from(version) {
            Ok(version) if version >= OLDEST_VERSION => version.min(VERSION),
            _ => return Err(NegotiationError::OldVersion(version)),
        };
        let size = match SIZES.iter().find(|(size, _)| offered.contains(*size)) {
            Some((size, _)) if profile.version >= LARGE_DATA_API => *size,
            _ => Steps::empty(),
        };
        let or_oldest = |offered: Steps| if offered.is_empty() { Steps::VERSION_1 } else { offered };
        Ok(MtaOffer {
            version,
            actions: if actions.is_empty() { Actions::VERSION_1 } else { actions },
            steps: (or_oldest(offered) - Steps::INTERNAL) | size,
        })
    }

    /// The steps on offer.
    pub fn steps(&self) -> Steps {
        self.steps
    }

    fn own_steps(profile: &Profile) -> Steps {
        profile.callbacks.unneeded_steps()
    }

    fn skip(&self) -> Steps {
        self.steps & Steps::SKIP
    }

    /// What the negotiation callback is shown.
    pub fn for_filter(&self, profile: &Profile) -> Offer {
        Offer {
            actions: self.actions.bits(),
            steps: (self.steps | Steps::NO_REPLY).bits(),
            wanted_actions: self.actions.bits(),
            wanted_steps: (Self::own_steps(profile) | self.skip()).bits(),
        }
    }

    /// Settles a session of a filter without negotiation callback.
    pub fn settle(&self, profile: &Profile) -> Result<Agreement, NegotiationError> {
        let own = Self::own_steps(profile);
        self.agree(profile, profile.actions, own, own)
    }

    /// Settles a session with the return value of the negotiation callback and what it wrote.
    pub fn settle_with(&self, profile: &Profile, value: i32, wanted: &Offer) -> Result<Agreement, NegotiationError> {
        let own = Self::own_steps(profile);
        let (actions, steps, wire) = match value {
            ALL_OPTIONS => (self.actions, own, own | self.skip()),
            CHOSEN_OPTIONS => {
                let steps = Steps::from_bits_retain(wanted.wanted_steps);
                (Actions::from_bits_retain(wanted.wanted_actions), steps, steps)
            }
            _ => return Err(self.refused(value)),
        };
        self.agree(profile, actions, steps, wire)
    }

    /// The filter takes nothing of it: its callback returned `value`.
    pub fn refused(&self, value: i32) -> NegotiationError {
        NegotiationError::Refused { value, steps: self.steps.bits(), actions: self.actions.bits() }
    }

    fn agree(
        &self,
        profile: &Profile,
        actions: Actions,
        steps: Steps,
        wire: Steps,
    ) -> Result<Agreement, NegotiationError> {
        let steps = steps | profile.promised;
        let wire = wire | profile.promised;
        let emulated = (wire & Steps::NO_REPLY) - self.steps;
        let wire = wire - emulated;
        if !self.actions.contains(actions) {
            return Err(NegotiationError::Actions { offered: self.actions.bits(), required: actions.bits() });
        }
        // Version 2 MTAs know neither DATA nor UNKNOWN; they cannot leave out what they never send.
        let wire = wire - ((Steps::NO_DATA | Steps::NO_UNKNOWN) - self.steps);
        if !self.steps.contains(wire) {
            return Err(NegotiationError::Steps { offered: self.steps.bits(), required: wire.bits() });
        }
        let size = SIZES.iter().find(|(size, _)| self.steps.contains(*size));
        let wire_steps = (wire - Steps::INTERNAL) | size.map_or(Steps::empty(), |(size, _)| *size);
        let limit = size.map(|(_, limit)| *limit);
        Ok(Agreement { version: self.version, actions, steps, wire_steps, emulated, limit })
    }
}

impl Profile {
    /// Whether the filter takes part in negotiation.
    pub(crate) fn negotiates(&self) -> bool {
        self.callbacks.contains(Callbacks::NEGOTIATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(callbacks: Callbacks) -> Profile {
        Profile { version: 0x0100_0001, actions: Actions::VERSION_6, callbacks, promised: Steps::empty() }
    }

    fn offer(version: u32, actions: u32, steps: u32, profile: &Profile) -> Result<MtaOffer, NegotiationError> {
        let payload = [version.to_be_bytes(), actions.to_be_bytes(), steps.to_be_bytes()].concat();
        MtaOffer::parse(&payload, profile)
    }

    #[test]
    fn an_offer_has_three_words_at_least() {
        let filter = profile(Callbacks::all());
        let payload = [6, 0x1ff, 0x37f, 0xffff_ffff].map(u32::to_be_bytes).concat();
        for len in 0..MtaOffer::LEN {
            assert_eq!(MtaOffer::parse(&payload[..len], &filter), Err(NegotiationError::Short(len)));
        }
        for len in MtaOffer::LEN..payload.len() {
            assert_eq!(MtaOffer::parse(&payload[..len], &filter), offer(6, 0x1ff, 0x37f, &filter));
        }
    }

    #[test]
    fn sizes_are_for_filters_that_know_them() {
        let mut filter = profile(Callbacks::all());
        let both = 0x1f_ffff | 0x3000_0000;
        assert_eq!(offer(6, 0x1ff, both, &filter).unwrap().settle(&filter).unwrap().limit, None);
        filter.version = LARGE_DATA_API;
        let agreement = offer(6, 0x1ff, both, &filter).unwrap().settle(&filter).unwrap();
        assert_eq!((agreement.limit, agreement.wire_steps), (Some(1_048_575), Steps::SIZE_1M));
        let agreement = offer(6, 0x1ff, 0x1f_ffff | 0x1000_0000, &filter).unwrap().settle(&filter).unwrap();
        assert_eq!((agreement.limit, agreement.wire_steps), (Some(262_143), Steps::SIZE_256K));
        assert_eq!(offer(6, 0x1ff, 0, &filter).unwrap().settle(&filter).unwrap().limit, None);
    }

    #[test]
    fn no_reply_steps_are_emulated_for_mtas_without_them() {
        let filter = profile(Callbacks::all());
        let offer = offer(6, 0x1ff, 0x37f, &filter).unwrap();
        let mut wanted = offer.for_filter(&filter);
        assert_eq!(wanted.steps, 0xff3ff);
        wanted.wanted_steps = Steps::NO_REPLY.bits();
        let agreement = offer.settle_with(&filter, 0, &wanted).unwrap();
        assert_eq!(agreement.emulated, Steps::NO_REPLY);
        assert_eq!(agreement.wire_steps, Steps::empty());
        assert_eq!(agreement.steps, Steps::NO_REPLY);
    }

    #[test]
    fn a_filter_is_shown_what_is_offered_and_what_it_wants_itself() {
        let filter = profile(Callbacks::all() - Callbacks::HELO);
        let shown = offer(6, 0x1ff, 0x1f_ffff | 0x4000_0000, &filter).unwrap().for_filter(&filter);
        let wanted_steps = (Steps::NO_HELO | Steps::SKIP).bits();
        assert_eq!(shown, Offer { actions: 0x1ff, steps: 0x1f_ffff, wanted_actions: 0x1ff, wanted_steps });
        let shown = offer(2, 0, 0, &filter).unwrap().for_filter(&filter);
        assert_eq!((shown.actions, shown.steps, shown.wanted_steps), (0xf, 0xff0bf, Steps::NO_HELO.bits()));
    }

    #[test]
    fn promised_steps_need_no_callback() {
        let steps = Steps::NR_HEADER | Steps::NR_BODY;
        for callbacks in [Callbacks::all() - Callbacks::NEGOTIATE, Callbacks::all()] {
            let filter = Profile { promised: steps, ..profile(callbacks) };
            let settle = |offered| {
                let offer = offer(6, 0x1ff, offered, &filter).unwrap();
                let wanted =
                    Offer { wanted_steps: (Steps::NR_EOH | Steps::NR_BODY).bits(), ..offer.for_filter(&filter) };
                (offer.settle(&filter).unwrap(), offer.settle_with(&filter, 0, &wanted).unwrap())
            };
            let (settled, negotiated) = settle(Steps::VERSION_6.bits());
            assert_eq!((settled.wire_steps, settled.emulated), (steps, Steps::empty()));
            assert_eq!((negotiated.wire_steps, negotiated.emulated), (steps | Steps::NR_EOH, Steps::empty()));
            let (settled, negotiated) = settle(0x37f);
            assert_eq!((settled.wire_steps, settled.emulated), (Steps::empty(), steps));
            assert_eq!((negotiated.wire_steps, negotiated.emulated), (Steps::empty(), steps | Steps::NR_EOH));
        }
    }

    #[test]
    fn a_filter_that_takes_everything_gets_what_is_offered() {
        let filter = Profile { actions: Actions::ADD_HEADERS, ..profile(Callbacks::all() - Callbacks::HELO) };
        for (offered, skip) in [(0x1f_ffff, Steps::SKIP), (0x7f, Steps::empty())] {
            let offer = offer(6, 0x3f, offered, &filter).unwrap();
            let agreement = offer.settle_with(&filter, ALL_OPTIONS, &offer.for_filter(&filter)).unwrap();
            assert_eq!(agreement.actions.bits(), 0x3f);
            assert_eq!(agreement.steps, Steps::NO_HELO);
            assert_eq!((agreement.wire_steps, agreement.emulated), (Steps::NO_HELO | skip, Steps::empty()));
        }
    }

    #[test]
    fn what_the_mta_lacks_is_an_error() {
        let filter = profile(Callbacks::all());
        let with = |steps| {
            let offer = offer(6, 0x1ff, 0x7f, &filter).unwrap();
            let wanted = Offer { wanted_steps: steps, ..offer.for_filter(&filter) };
            offer.settle_with(&filter, 0, &wanted)
        };
        for steps in [Steps::SKIP, Steps::REJECTED_RCPT, Steps::LEADING_SPACE, Steps::SIZE_1M] {
            assert!(matches!(with(steps.bits()), Err(NegotiationError::Steps { .. })), "{steps:?}");
        }
        assert!(with(0x8000_0000).is_err());
        assert!(with((Steps::NO_DATA | Steps::NO_UNKNOWN).bits()).is_ok());
    }

    #[test]
    fn negative_and_old_versions_are_refused() {
        let filter = profile(Callbacks::all());
        assert_eq!(offer(0x8000_0006, 0x1ff, 0, &filter), Err(NegotiationError::OldVersion(-2_147_483_642)));
        assert_eq!(offer(1, 0x1ff, 0, &filter), Err(NegotiationError::OldVersion(1)));
        assert_eq!(offer(9, 0x1ff, 0x7f, &filter).unwrap().version, 6);
    }
}
