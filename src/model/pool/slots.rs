//! Where sessions lie while they are idle.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Names a session in events and in the queue. A slot is used again after its session ended, under another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Token {
    slot: u32,
    generation: u32,
}

impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        u64::from(token.generation) << 32 | u64::from(token.slot)
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
    /// A session that nobody serves, silent since.
    Idle(S, Instant),
    /// Somebody serves the session; `Some` says that there is news for it, and whether the news is a hang-up.
    Busy(Option<bool>),
}

/// All sessions of a pool.
pub(super) struct Slots<S> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    /// By session, a time before which it cannot expire; looked at when that time has come.
    deadlines: BinaryHeap<Reverse<(Instant, Token)>>,
}

impl<S> Slots<S> {
    pub(super) fn new() -> Self {
        Slots { slots: Vec::new(), free: Vec::new(), deadlines: BinaryHeap::new() }
    }

    /// How many sessions there are, in their slots or out of them.
    pub(super) fn sessions(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A slot for a session that is out of it.
    pub(super) fn reserve(&mut self, now: Instant, timeout: Option<Duration>) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, content: Content::Free });
            u32::try_from(self.slots.len() - 1).expect("there are fewer descriptors than that")
        });
        let entry = &mut self.slots[slot as usize];
        entry.content = Content::Busy(None);
        let token = Token { slot, generation: entry.generation };
        if let Some(timeout) = timeout {
            self.deadlines.push(Reverse((now + timeout, token)));
        }
        token
    }

    fn content(&mut self, token: Token) -> Option<&mut Content<S>> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        (slot.generation == token.generation).then_some(&mut slot.content)
    }

    /// Takes a session out of its slot. If it is out already, notes that there is news for it.
    pub(super) fn claim(&mut self, token: Token, hang_up: bool) -> Option<S> {
        let content = self.content(token)?;
        match std::mem::replace(content, Content::Busy(None)) {
            Content::Idle(session, _) => Some(session),
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

    /// Puts a session back into its slot.
    pub(super) fn put_back(&mut self, token: Token, session: S, now: Instant) {
        if let Some(content) = self.content(token) {
            *content = Content::Idle(session, now);
        }
    }

    /// Gives up the slot of a session that is over.
    pub(super) fn free(&mut self, token: Token) {
        let slot = &mut self.slots[token.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.content = Content::Free;
        self.free.push(token.slot);
    }

    /// A time until which no session can expire.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Takes a session out of its slot that has been silent for `timeout`.
    pub(super) fn claim_expired(&mut self, now: Instant, timeout: Duration) -> Option<(Token, S)> {
        while let Some(&Reverse((deadline, token))) = self.deadlines.peek()
            && deadline <= now
        {
            self.deadlines.pop();
            let deadline = match self.content(token) {
                Some(Content::Idle(_, since)) => *since + timeout,
                Some(Content::Busy(_)) => now + timeout,
                Some(Content::Free) | None => continue,
            };
            if deadline > now {
                self.deadlines.push(Reverse((deadline, token)));
            } else if let Some(session) = self.claim(token, false) {
                return Some((token, session));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn slots(count: usize, now: Instant) -> (Slots<usize>, Vec<Token>) {
        let mut slots = Slots::new();
        let tokens: Vec<Token> = (0..count).map(|_| slots.reserve(now, Some(TIMEOUT))).collect();
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
        let next = slots.reserve(now, None);
        assert_eq!(next.slot, tokens[0].slot);
        assert_eq!(slots.claim(tokens[0], true), None);
        assert_eq!(slots.take_news(next), None);
        assert_eq!(Token::from(u64::from(next)), next);
    }

    #[test]
    fn only_silent_sessions_expire_and_at_their_time() {
        let start = Instant::now();
        let (mut slots, tokens) = slots(2, start);
        let later = start + TIMEOUT / 2;
        slots.claim(tokens[1], false);
        slots.put_back(tokens[1], 1, later);
        assert_eq!(slots.claim_expired(start + TIMEOUT - Duration::from_millis(1), TIMEOUT), None);
        assert_eq!(slots.claim_expired(start + TIMEOUT, TIMEOUT), Some((tokens[0], 0)));
        assert_eq!(slots.claim_expired(start + TIMEOUT, TIMEOUT), None);
        assert_eq!(slots.next_deadline(), Some(later + TIMEOUT));
        assert_eq!(slots.claim_expired(later + TIMEOUT, TIMEOUT), Some((tokens[1], 1)));
        assert_eq!(slots.next_deadline(), None);
    }
}
