//! A place for a value that signal handlers visit.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};

/// Holds a value or none. Visiting it takes a few atomic operations, so signal handlers and all threads may do it at any
/// time; taking it away waits for them.
pub(crate) struct Slot<T> {
    value: AtomicPtr<T>,
    /// Threads and handlers that may be about to use the value.
    visitors: AtomicUsize,
}

impl<T: Send + Sync> Slot<T> {
    /// One that holds nothing.
    pub(crate) const fn empty() -> Self {
        Slot { value: AtomicPtr::new(std::ptr::null_mut()), visitors: AtomicUsize::new(0) }
    }

    /// Shows the value, if there is one.
    pub(crate) fn visit<R>(&self, visit: impl FnOnce(&T) -> R) -> Option<R> {
        self.visitors.fetch_add(1, SeqCst);
        let value = self.value.load(SeqCst);
        // SAFETY: a value that is not null came from `put`, and `clear` releases it only when nobody has come in before
        // the slot was empty and is still here.
        let seen = unsafe { value.as_ref() }.map(visit);
        self.visitors.fetch_sub(1, SeqCst);
        seen
    }

    /// Puts a value in the place of what was there, which is cleared first.
    pub(crate) fn put(&self, value: Arc<T>) {
        self.clear();
        self.value.store(Arc::into_raw(value).cast_mut(), SeqCst);
    }

    /// Takes the value away.
    pub(crate) fn clear(&self) {
        let value = self.value.swap(std::ptr::null_mut(), SeqCst);
        if value.is_null() {
            return;
        }
        // A visitor that was there when this process was forked never goes away: the value is left alone then.
        for _ in 0..1000 {
            if self.visitors.load(SeqCst) == 0 {
                // SAFETY: `put` made it of an Arc and nobody else has taken it out; whoever comes in from now on finds
                // the slot empty.
                return drop(unsafe { Arc::from_raw(value) });
            }
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_and_go_while_others_look() {
        static SLOT: Slot<u64> = Slot::empty();
        assert_eq!(SLOT.visit(|value| *value), None);
        std::thread::scope(|scope| {
            let visitor =
                scope.spawn(|| (0..10_000).filter_map(|_| SLOT.visit(|value| *value)).all(|value| value == 7));
            for _ in 0..1000 {
                SLOT.put(Arc::new(7));
                SLOT.clear();
            }
            assert!(visitor.join().unwrap());
        });
        SLOT.put(Arc::new(1));
        SLOT.put(Arc::new(2));
        assert_eq!(SLOT.visit(|value| *value), Some(2));
    }
}
