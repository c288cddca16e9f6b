//! What the pool has learnt about kinds of callbacks: which of them tend to block.
//!
//! Two rules, each for what the other cannot see. A kind that mostly takes longer than the pool's patience blocks. So
//! does one that sleeps for a shorter time, but nearly always: noticing that by the clock each time would cost more than
//! the sleep. A callback that computes for such a time stays in line. What is known fades with every further callback,
//! and is kept without a lock: a lost update does no harm.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::state::PATIENCE;

/// A kind of callback that takes longer than this on average is asked whether it sleeps; that takes two system calls.
const LONG: Duration = Duration::from_micros(50);

/// When a kind of callback sleeps for longer than this on average, the loop is handed over before it.
const SLEEPY: Duration = Duration::from_micros(100);

/// What is known about one kind of callback.
#[derive(Default)]
pub(super) struct Habit {
    /// How many in a thousand took longer than the patience.
    late: Mean<32>,
    /// Duration in microseconds.
    duration: Mean<16>,
    /// Duration of those that slept, in microseconds; of the others 0.
    sleep: Mean<16>,
}

impl Habit {
    /// Whether the loop is better handed over before such a callback.
    pub(super) fn blocks(&self) -> bool {
        self.late.get() > 500 || self.sleep.get() > microseconds(SLEEPY)
    }

    /// Whether it is worth finding out if such a callback sleeps.
    pub(super) fn is_long(&self) -> bool {
        self.duration.get() > microseconds(LONG)
    }

    /// Notes one callback.
    pub(super) fn note(&self, duration: Duration, slept: bool) {
        self.late.add(if duration >= PATIENCE { 1000 } else { 0 });
        // How much longer than the patience is of no interest, and would take long to fade.
        let duration = microseconds(duration.min(PATIENCE));
        self.duration.add(duration);
        self.sleep.add(if slept { duration } else { 0 });
    }
}

fn microseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// A mean in which the newest value counts one in `N`, in 256ths.
#[derive(Default)]
struct Mean<const N: i64>(AtomicU32);

impl<const N: i64> Mean<N> {
    fn get(&self) -> u32 {
        self.0.load(Relaxed) >> 8
    }

    fn add(&self, value: u32) {
        let mean = i64::from(self.0.load(Relaxed));
        let next = mean + ((i64::from(value) << 8) - mean) / N;
        self.0.store(next as u32, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(callbacks: usize, duration: Duration, slept: bool) -> Habit {
        let habit = Habit::default();
        (0..callbacks).for_each(|_| habit.note(duration, slept));
        habit
    }

    #[test]
    fn what_mostly_takes_long_blocks() {
        let habit = after(40, Duration::from_secs(3600), false);
        assert!(habit.blocks() && habit.is_long());
        (0..40).for_each(|_| habit.note(Duration::from_micros(5), false));
        assert!(!habit.blocks());
    }

    #[test]
    fn what_mostly_sleeps_blocks() {
        assert!(after(20, Duration::from_micros(500), true).blocks());
        assert!(!after(20, Duration::from_micros(60), true).blocks());
    }

    #[test]
    fn what_computes_stays_in_line() {
        let habit = after(1000, Duration::from_micros(900), false);
        assert!(habit.is_long() && !habit.blocks());
        assert!(!after(1000, Duration::from_micros(10), false).is_long());
    }

    #[test]
    fn one_in_a_hundred_is_no_habit() {
        let habit = Habit::default();
        for callback in 0..1000 {
            habit.note(Duration::from_millis(if callback % 100 == 0 { 20 } else { 0 }), callback % 100 == 0);
            assert!(!habit.blocks(), "{callback}");
        }
    }
}
