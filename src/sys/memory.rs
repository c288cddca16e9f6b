//! The allocator of the library: the C library's, with a reserve for the moment when that has nothing left.
//!
//! Rust ends the process when an allocation fails that its caller does not expect to fail: a queue that grows, the
//! start of a thread, a new session. Sendmail's library loses one session there. So where `malloc` fails, a small
//! request is served from memory that was set aside, [`RESERVE_SIZE`] bytes that cost nothing until they are used. Large
//! requests are refused, and whoever makes one has to expect that: what is as large as a peer or a filter wants goes
//! through [`is_available`] and `try_reserve`.
//!
//! While the reserve is in use and memory is short, no connection is accepted ([`is_short`]), and threads are started only
//! where there is memory for them ([`has_room_for_thread`]).
//! The system log gets a line when that begins, and one when the reserve is used up, too, which may end the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::SystemTime;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator { reserve: Reserve::new() };

/// Bytes of one chunk of the reserve. A request takes a whole number of them.
const CHUNK: usize = 1024;

/// Chunks that one word of the map stands for, and the most that one request gets.
const CHUNKS_PER_WORD: usize = u64::BITS as usize;

/// Words of the map.
const WORDS: usize = 16;

/// Bytes set aside.
const RESERVE_SIZE: usize = WORDS * CHUNKS_PER_WORD * CHUNK;

/// Requests of up to so many bytes are not tried out beforehand while the reserve is untouched.
const SMALL: usize = 16 * 1024;

/// From so many bytes on a request is tried out by mapping memory: `malloc` would do the same, and learn from it when to keep
/// memory, for the whole program.
const LARGE: usize = 64 * 1024;

/// What has to be available before connections are accepted again, in bytes: the largest receive buffer.
const ROOM_FOR_SESSION: usize = 128 * 1024;

/// What has to be available before a thread is started, in bytes. It allocates without a way to fail: most of all
/// parking_lot, up to 384 bytes for each thread in the process, in one piece that may be too large for the reserve.
const ROOM_FOR_THREAD: usize = 1024 * 1024;

/// Seconds without a line before the same trouble is worth another one.
const QUIET_PERIOD: u64 = 60;

/// Whether `bytes` that a peer or a filter wants can be had, without touching what is left of the reserve for the rest
/// of the process.
#[inline]
pub(crate) fn is_available(bytes: usize) -> bool {
    let used = ALLOCATOR.reserve.used.load(Relaxed);
    (used == 0 && bytes <= SMALL) || is_allocatable(bytes) || (bytes <= CHUNK && used < RESERVE_SIZE / CHUNK / 2)
}

/// Whether memory is so short that no new session should begin.
pub(crate) fn is_short() -> bool {
    ALLOCATOR.reserve.used.load(Relaxed) > 0 && !is_allocatable(ROOM_FOR_SESSION)
}

/// Whether there is memory for one more thread.
pub(crate) fn has_room_for_thread() -> bool {
    is_allocatable(ROOM_FOR_THREAD)
}

/// Whether the C library has so much at this moment.
#[cold]
fn is_allocatable(bytes: usize) -> bool {
    if bytes >= LARGE {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use, and nobody else has it.
        return unsafe {
            let memory = libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0);
            memory != libc::MAP_FAILED && libc::munmap(memory, bytes) == 0
        };
    }
    // SAFETY: any size may be asked for, and what the call gives, NULL included, may be freed.
    unsafe {
        // Without the black box the compiler would leave both calls out and take the first for a success.
        let memory = black_box(libc::malloc(bytes.max(1)));
        libc::free(memory);
        !memory.is_null()
    }
}

struct Allocator {
    reserve: Reserve,
}

// SAFETY: every block comes from `System` or from the reserve, is as large and aligned as its layout says, and goes back
// to where it came from; `Reserve::owns` tells the two apart. Nothing here unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this method, which is that of `System`.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { self.reserve.allocate(layout) } else { memory }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let mut memory = unsafe { System.alloc_zeroed(layout) };
        if memory.is_null() {
            memory = self.reserve.allocate(layout);
            if !memory.is_null() {
                // SAFETY: the block is new and has the size of the layout.
                unsafe { memory.write_bytes(0, layout.size()) };
            }
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if self.reserve.owns(memory) {
            self.reserve.release(memory, layout);
        } else {
            // SAFETY: the caller has the block and its layout from this allocator, and it is not the reserve's.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let shrinks = new_size <= layout.size();
        if self.reserve.owns(memory) {
            if shrinks {
                self.reserve.shrink(memory, layout, new_size);
                return memory;
            }
        } else {
            // SAFETY: as in `dealloc`; the caller sees to it that `new_size` is valid for the alignment.
            let moved = unsafe { System.realloc(memory, layout, new_size) };
            if !moved.is_null() {
                return moved;
            }
            // Nobody expects that a block cannot be made smaller, and a larger one does as well.
            if shrinks {
                return memory;
            }
        }
        // SAFETY: the old block is as it was; the rest as above.
        unsafe { self.move_block(memory, layout, new_size) }
    }
}

impl Allocator {
    /// Moves a block to a new one, or gives NULL and leaves it alone.
    ///
    /// # Safety
    ///
    /// As for `realloc`.
    #[cold]
    unsafe fn move_block(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: `realloc` is called with a size that is not 0 and, rounded up to the alignment, not beyond isize::MAX;
        // both blocks have the smaller of the two sizes, and the new one is nobody else's.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(memory, moved, layout.size().min(new_size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}

/// Memory that is set aside. No lock guards it, so that it works in a process that was forked at any moment.
struct Reserve {
    /// A bit for each chunk, set while it is in use.
    map: [AtomicU64; WORDS],
    /// Chunks in use.
    used: AtomicUsize,
    refused: Reminder,
    low: Reminder,
    exhausted: Reminder,
    memory: Chunks,
}

#[repr(align(1024))]
struct Chunks(UnsafeCell<[u8; RESERVE_SIZE]>);

// SAFETY: it is only ever handed out in blocks of which each has one owner, by `Reserve::allocate`.
unsafe impl Sync for Chunks {}

impl Reserve {
    const fn new() -> Self {
        Reserve {
            map: [const { AtomicU64::new(0) }; WORDS],
            used: AtomicUsize::new(0),
            refused: Reminder::new(),
            low: Reminder::new(),
            exhausted: Reminder::new(),
            memory: Chunks(UnsafeCell::new([0; RESERVE_SIZE])),
        }
    }

    fn start(&self) -> *mut u8 {
        self.memory.0.get().cast()
    }

    #[inline]
    fn owns(&self, memory: *mut u8) -> bool {
        memory.addr().wrapping_sub(self.start().addr()) < RESERVE_SIZE
    }

    /// A block for a request that the C library could not serve; NULL if it is too large, or too much is in use.
    #[cold]
    fn allocate(&self, layout: Layout) -> *mut u8 {
        let chunks = chunks(layout.size());
        if chunks > CHUNKS_PER_WORD || layout.align() > CHUNK {
            self.refused.write(c"out of memory: no room for %zu bytes", layout.size());
            return ptr::null_mut();
        }
        self.low
            .write(c"out of memory: no room for %zu bytes; new connections wait until there is some", layout.size());
        let block = u64::MAX >> (CHUNKS_PER_WORD - chunks);
        for (index, word) in self.map.iter().enumerate() {
            let mut first = 0;
            // What the former owner of a chunk did with it comes before what the next one does.
            let took = word.fetch_update(Acquire, Relaxed, |used| {
                first = (0..=CHUNKS_PER_WORD - chunks).find(|first| used & (block << first) == 0)?;
                Some(used | block << first)
            });
            if took.is_ok() {
                self.used.fetch_add(chunks, Relaxed);
                // SAFETY: the chunk lies within the memory.
                return unsafe { self.start().add((index * CHUNKS_PER_WORD + first) * CHUNK) };
            }
        }
        self.exhausted.write(
            c"out of memory, and the reserve is used up: the process ends if it needs these %zu bytes to go on",
            layout.size(),
        );
        ptr::null_mut()
    }

    /// Takes a block back.
    #[cold]
    fn release(&self, memory: *mut u8, layout: Layout) {
        self.free(memory, chunks(layout.size()));
    }

    /// Takes back what a block has beyond its new size.
    #[cold]
    fn shrink(&self, memory: *mut u8, layout: Layout, new_size: usize) {
        let (kept, chunks) = (chunks(new_size), chunks(layout.size()));
        if kept < chunks {
            self.free(memory.wrapping_add(kept * CHUNK), chunks - kept);
        }
    }

    fn free(&self, memory: *mut u8, chunks: usize) {
        let place = (memory.addr() - self.start().addr()) / CHUNK;
        let block = u64::MAX >> (CHUNKS_PER_WORD - chunks);
        self.map[place / CHUNKS_PER_WORD].fetch_and(!(block << (place % CHUNKS_PER_WORD)), Release);
        self.used.fetch_sub(chunks, Relaxed);
    }
}

/// How many chunks a block of so many bytes takes.
fn chunks(size: usize) -> usize {
    size.div_ceil(CHUNK).max(1)
}

/// A line for the system log that is not repeated all the time. Writing it takes no memory.
struct Reminder {
    /// When it was written last, in seconds since 1970; 0 is never.
    last: AtomicU64,
}

impl Reminder {
    const fn new() -> Self {
        Reminder { last: AtomicU64::new(0) }
    }

    /// Writes the line, a format for one number of bytes, unless that has been done lately.
    fn write(&self, format: &CStr, bytes: usize) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let last = self.last.load(Relaxed);
        let is_due = now.saturating_sub(last) >= QUIET_PERIOD || now < last;
        if is_due && self.last.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            // SAFETY: the formats above take one argument of the type size_t.
            unsafe { libc::syslog(libc::LOG_ERR, format.as_ptr(), bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn blocks_do_not_overlap_and_come_back() {
        static RESERVE: Reserve = Reserve::new();
        let reserve = &RESERVE;
        let sizes = [1, CHUNK, CHUNK + 1, 64 * CHUNK, 40 * CHUNK, 40 * CHUNK, 3];
        let mut blocks: Vec<_> = sizes.map(|size| (reserve.allocate(layout(size)), layout(size))).into();
        blocks.sort_by_key(|(block, _)| *block);
        assert!(blocks.iter().all(|(block, _)| reserve.owns(*block)));
        assert!(blocks.windows(2).all(|pair| pair[0].0.addr() + pair[0].1.size() <= pair[1].0.addr()));
        blocks.into_iter().for_each(|(block, layout)| reserve.release(block, layout));
        assert_eq!(reserve.used.load(Relaxed), 0);
        assert!(reserve.map.iter().all(|word| word.load(Relaxed) == 0));
    }

    #[test]
    fn large_requests_and_an_empty_reserve_get_nothing() {
        static RESERVE: Reserve = Reserve::new();
        let reserve = &RESERVE;
        assert!(reserve.allocate(layout(64 * CHUNK + 1)).is_null());
        assert!(reserve.allocate(Layout::from_size_align(1, 2 * CHUNK).unwrap()).is_null());
        let blocks: Vec<_> =
            std::iter::from_fn(|| Some(reserve.allocate(layout(CHUNK))).filter(|block| !block.is_null())).collect();
        assert_eq!(blocks.len(), RESERVE_SIZE / CHUNK);
        assert!(reserve.allocate(layout(1)).is_null());
        reserve.release(blocks[5], layout(CHUNK));
        assert_eq!(reserve.allocate(layout(CHUNK)), blocks[5]);
    }

    #[test]
    fn a_block_of_the_reserve_moves_with_its_content() {
        static ALLOCATOR: Allocator = Allocator { reserve: Reserve::new() };
        let allocator = &ALLOCATOR;
        let block = allocator.reserve.allocate(layout(100));
        // SAFETY: the block has 100 bytes, and is given up with the layout that it has.
        unsafe {
            block.write_bytes(7, 100);
            let moved = allocator.realloc(block, layout(100), 5000);
            assert!(!allocator.reserve.owns(moved));
            assert_eq!(std::slice::from_raw_parts(moved, 100), [7; 100]);
            allocator.dealloc(moved, layout(5000));
        }
        assert_eq!(allocator.reserve.used.load(Relaxed), 0);
    }

    #[test]
    fn a_block_of_the_reserve_shrinks_in_place() {
        static ALLOCATOR: Allocator = Allocator { reserve: Reserve::new() };
        let allocator = &ALLOCATOR;
        let block = allocator.reserve.allocate(layout(3 * CHUNK));
        // SAFETY: the block is given up with the layout that it has.
        unsafe {
            assert_eq!(allocator.realloc(block, layout(3 * CHUNK), CHUNK + 1), block);
            assert_eq!(allocator.reserve.used.load(Relaxed), 2);
            allocator.dealloc(block, layout(CHUNK + 1));
        }
        assert_eq!(allocator.reserve.used.load(Relaxed), 0);
    }

    #[test]
    fn what_is_absurd_is_not_available() {
        assert!(is_available(SMALL) && is_available(1 << 20));
        assert!(!is_available(isize::MAX as usize));
        assert!(!is_short());
    }
}
