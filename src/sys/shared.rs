//! Values that a process and the children it forks see alike.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

use super::check;

/// A value in memory that stays shared when the process forks. What changes in it are atomics: nothing else works
/// between processes, and pointers in it would mean something else in each of them.
pub(crate) struct Shared<T: Sync>(NonNull<T>);

// SAFETY: it owns its value like a Box, and gives out nothing but shared references.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above; the value is Sync.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T: Sync> Shared<T> {
    /// Takes a page of memory and puts a value there.
    pub(crate) fn new(value: T) -> io::Result<Self> {
        const { assert!(!std::mem::needs_drop::<T>() && size_of::<T>() <= 4096 && align_of::<T>() <= 4096) };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let memory = unsafe {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), size_of::<T>(), access, kind, -1, 0)
        };
        check(if memory == libc::MAP_FAILED { -1 } else { 0 })?;
        let place = NonNull::new(memory.cast::<T>()).expect("the kernel maps nothing at address 0 by itself");
        // SAFETY: the mapping is writable, nobody else's, at least as large as a `T`, and aligned to a page.
        unsafe { place.write(value) };
        Ok(Shared(place))
    }
}

impl<T: Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` put a value there, and the mapping stays until `self` is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Sync> Drop for Shared<T> {
    /// Gives up this process' view; other processes keep theirs.
    fn drop(&mut self) {
        // SAFETY: `new` mapped this, and no reference outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::Shared;

    #[test]
    fn it_is_a_value() {
        let shared = Shared::new([AtomicU64::new(3), AtomicU64::new(4)]).unwrap();
        shared[1].fetch_add(1, SeqCst);
        assert_eq!((shared[0].load(SeqCst), shared[1].load(SeqCst)), (3, 5));
    }
}
