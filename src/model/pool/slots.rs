//! Where sessions lie while they are idle.

use std::collections::TryReserveError;
use std::time::{Duration, Instant};

/// Names a session in events and in the queue. A slot is used again after its session ended, under another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    slot: u32,
    generation: u32,
}

impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        (u64::from(token.generation) << 32) | u64::from(token.slot)
    }
}

impl From<u64> for Token {
    fn from(value: u64) -> Token {
        Token { slot: value as u32, generation: (value >> 32) as u32 }
    }
}

struct Slot<S> {
    generation: u32,
    content: Content<S>,
}

enum Content<S> {
    Free,
    Idle(Idle<S>),
    /// Somebody serves the session; `Some` says that there is news for it, and whether the news is a hang-up.
    Busy(Option<bool>),
}

struct Idle<S> {
    session: S,
    since: Instant,
    /// Neighbours in the list of idle sessions.
    before: Option<u32>,
    after: Option<u32>,
}

/// All sessions of a pool. Those in their slots form a list, the one that has been silent for longest first.
pub(super) struct Slots<S> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    first: Option<u32>,
    last: Option<u32>,
}

impl<S> Slots<S> {
    pub(super) fn new() -> Self {
        Slots { slots: Vec::new(), free: Vec::new(), first: None, last: None }
    }

    /// How many sessions there are, in their slots or out of them.
    pub(super) fn sessions(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Makes room for one more session. Fails when there is no memory.
    pub(super) fn make_room(&mut self) -> Result<(), TryReserveError> {
        if self.free.is_empty() {
            self.slots.try_reserve(1)?;
            // Every slot gets free at some time, when nothing may fail.
            self.free.try_reserve(self.slots.len() + 1)?;
        }
        Ok(())
    }

    /// A slot for a session that is out of it.
    pub(super) fn reserve(&mut self) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, content: Content::Free });
            u32::try_from(self.slots.len() - 1).expect("there are fewer descriptors than that")
        });
        let entry = &mut self.slots[slot as usize];
        entry.content = Content::Busy(None);
        Token { slot, generation: entry.generation }
    }

    fn content(&mut self, token: Token) -> Option<&mut Content<S>> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        (slot.generation == token.generation).then_some(&mut slot.content)
    }

    /// Whether this may be said of a session: of one that is out of its slot nobody knows, one that is over is nothing.
    pub(super) fn may_be(&mut self, token: Token, what: impl Fn(&S) -> bool) -> bool {
        match self.content(token) {
            Some(Content::Idle(idle)) => what(&idle.session),
            Some(Content::Busy(_)) => true,
            Some(Content::Free) | None => false,
        }
    }

    /// Takes a session out of its slot. If it is out already, notes that there is news for it.
    pub(super) fn claim(&mut self, token: Token, hang_up: bool) -> Option<S> {
        let content = self.content(token)?;
        match std::mem::replace(content, Content::Busy(None)) {
            Content::Idle(idle) => Some(self.unlink(idle)),
            Content::Busy(news) => {
                *content = Content::Busy(Some(hang_up || news.unwrap_or(false)));
                None
            }
            Content::Free => {
                *content = Content::Free;
                None
            }
        }
    }

    /// Takes the news that came for a session since it was claimed.
    pub(super) fn take_news(&mut self, token: Token) -> Option<bool> {
        match self.content(token) {
            Some(Content::Busy(news)) => news.take(),
            _ => None,
        }
    }

    /// What has come for a session since it was claimed, if it is out of its slot.
    #[cfg(test)]
    pub(super) fn news(&self, token: Token) -> Option<Option<bool>> {
        match self.slots[token.slot as usize].content {
            Content::Busy(news) => Some(news),
            Content::Idle(_) | Content::Free => None,
        }
    }

    /// Puts a session back into its slot, where it has been silent since `now`.
    pub(super) fn put_back(&mut self, token: Token, session: S, now: Instant) {
        let before = self.last;
        if let Some(content) = self.content(token) {
            *content = Content::Idle(Idle { session, since: now, before, after: None });
            *self.after(before) = Some(token.slot);
            self.last = Some(token.slot);
        }
    }

    /// Gives up the slot of a session that is over.
    pub(super) fn free(&mut self, token: Token) {
        let slot = &mut self.slots[token.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.content = Content::Free;
        self.free.push(token.slot);
    }

    /// Since when the session that has been silent for longest has been so.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        match &self.slots[self.first? as usize].content {
            Content::Idle(idle) => Some(idle.since),
            Content::Busy(_) | Content::Free => None,
        }
    }

    /// Takes a session out of its slot that has been silent for `timeout`.
    pub(super) fn claim_silent(&mut self, now: Instant, timeout: Duration) -> Option<(Token, S)> {
        let slot = self.first?;
        let token = Token { slot, generation: self.slots[slot as usize].generation };
        if now < self.silent_since()? + timeout {
            return None;
        }
        self.claim(token, false).map(|session| (token, session))
    }

    /// Takes what has left its slot out of the list.
    fn unlink(&mut self, idle: Idle<S>) -> S {
        *self.after(idle.before) = idle.after;
        *self.before(idle.after) = idle.before;
        idle.session
    }

    /// What follows a session in the list; what comes first without one.
    fn after(&mut self, slot: Option<u32>) -> &mut Option<u32> {
        match slot.map(|slot| &mut self.slots[slot as usize].content) {
            Some(Content::Idle(idle)) => &mut idle.after,
            _ => &mut self.first,
        }
    }

    /// What precedes a session in the list; what comes last without one.
    fn before(&mut self, slot: Option<u32>) -> &mut Option<u32> {
        match slot.map(|slot| &mut self.slots[slot as usize].content) {
            Some(Content::Idle(idle)) => &mut idle.before,
            _ => &mut self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn slots(count: usize, now: Instant) -> (Slots<usize>, Vec<Token>) {
        let mut slots = Slots::new();
        let tokens: Vec<Token> = (0..count).map(|_| slots.reserve()).collect();
        tokens.iter().enumerate().for_each(|(session, token)| slots.put_back(*token, session, now));
        (slots, tokens)
    }

    #[test]
    fn a_session_is_claimed_once_and_news_wait_for_it() {
        let now = Instant::now();
        let (mut slots, tokens) = slots(1, now);
        assert_eq!(slots.claim(tokens[0], false), Some(0));
        assert_eq!(slots.take_news(tokens[0]), None);
        assert_eq!(slots.claim(tokens[0], true), None);
        assert_eq!(slots.claim(tokens[0], false), None);
        assert_eq!(slots.take_news(tokens[0]), Some(true));
        assert_eq!(slots.take_news(tokens[0]), None);
        slots.put_back(tokens[0], 0, now);
        assert_eq!(slots.claim(tokens[0], false), Some(0));
    }

    #[test]
    fn an_event_of_an_ended_session_means_nothing_to_the_next() {
        let now = Instant::now();
        let (mut slots, tokens) = slots(1, now);
        slots.claim(tokens[0], false);
        slots.free(tokens[0]);
        assert_eq!(slots.sessions(), 0);
        assert_eq!(slots.claim(tokens[0], false), None);
        let next = slots.reserve();
        assert_eq!(next.slot, tokens[0].slot);
        assert_eq!(slots.claim(tokens[0], true), None);
        assert_eq!(slots.take_news(next), None);
        assert_eq!(Token::from(u64::from(next)), next);
    }

    #[test]
    fn only_silent_sessions_are_claimed_and_at_their_time() {
        let start = Instant::now();
        let (mut slots, tokens) = slots(3, start);
        let later = start + TIMEOUT / 2;
        slots.claim(tokens[0], false);
        slots.put_back(tokens[0], 0, later);
        slots.claim(tokens[1], false);
        assert_eq!(slots.silent_since(), Some(start));
        assert_eq!(slots.claim_silent(start + TIMEOUT - Duration::from_millis(1), TIMEOUT), None);
        assert_eq!(slots.claim_silent(start + TIMEOUT, TIMEOUT), Some((tokens[2], 2)));
        assert_eq!(slots.claim_silent(start + TIMEOUT, TIMEOUT), None);
        slots.put_back(tokens[1], 1, start + TIMEOUT);
        assert_eq!(slots.claim_silent(later + TIMEOUT, TIMEOUT), Some((tokens[0], 0)));
        assert_eq!(slots.silent_since(), Some(start + TIMEOUT));
        assert_eq!(slots.claim(tokens[1], false), Some(1));
        assert_eq!(slots.silent_since(), None);
    }

    #[test]
    fn the_list_is_in_order_of_silence_whatever_leaves_it() {
        let start = Instant::now();
        let (mut slots, tokens) = slots(5, start);
        for (turn, session) in [2, 4, 0, 2, 1, 3, 3].into_iter().enumerate() {
            let session = slots.claim(tokens[session], false).unwrap();
            slots.put_back(tokens[session], session, start + Duration::from_secs(turn as u64 + 1));
        }
        let order: Vec<usize> = std::iter::from_fn(|| slots.claim_silent(start + 2 * TIMEOUT, TIMEOUT))
            .map(|(_, session)| session)
            .collect();
        assert_eq!(order, [4, 0, 2, 1, 3]);
        assert_eq!((slots.first, slots.last), (None, None));
    }
}
