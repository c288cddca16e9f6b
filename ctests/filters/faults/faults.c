/*
 * Preloaded into a filter: lets calls that libmilter makes fail, allocations as well as system calls, when a test asks
 * for it. Calls of the program, of the C library and of the loader are never touched: what counts is where the call
 * returns to. A call that the C library makes on its own, as for a thread's stack, fails as the function that was asked
 * for it.
 *
 * The test and the processes of the filter share the file that FAULTS_CONTROL names; `struct control` is what is in it.
 * It is mapped, so closing descriptors does no harm, and forked processes go on counting in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Every call that can fail, by the name that the test knows it by. The first stands for all that allocate. */
#define EVERY_CALL(X) \
	X(alloc) X(accept) X(accept4) X(bind) X(close) X(connect) X(epoll_create1) X(epoll_ctl) \
	X(epoll_wait) X(eventfd) X(fchmodat) X(fchownat) X(fcntl) X(fork) X(fstat) X(fstatat) X(futex) X(getcwd) \
	X(getrandom) X(getsockname) X(getsockopt) X(linkat) X(listen) X(lseek) X(madvise) \
	X(mkdirat) X(mmap) X(munmap) X(open) X(openat) X(pidfd_open) X(pipe) X(pipe2) X(poll) \
	X(pthread_create) X(pthread_sigmask) X(read) X(read_file) X(readlink) X(readlinkat) X(realpath) X(recv) \
	X(recvmsg) X(renameat) X(sched_getaffinity) X(send) X(sendmsg) X(sendto) X(setsockopt) X(shutdown) \
	X(sigaction) X(sigwait) X(socket) X(socketpair) X(stat) X(statx) X(timerfd_create) \
	X(timerfd_settime) X(unlinkat) X(waitid) X(write) X(write_file) X(writev) X(writev_file)

enum call_number {
#define NUMBER(name) CALL_##name,
	EVERY_CALL(NUMBER)
	CALLS
};

enum { NAME = 24, FRAMES = 48 };

enum mode {
	OFF,                    /* nothing fails */
	ONE,                    /* the `nth` call of `target` fails */
	ALL                     /* each call of `target` fails */
};

struct call {
	char name[NAME];
	atomic_uint_fast64_t count;     /* calls so far */
};

struct control {
	atomic_uint_fast64_t mode;
	uint64_t error;                 /* as errno */
	uint64_t nth;                   /* from 1 */
	uint64_t target;                /* the number of a call */
	atomic_uint_fast64_t seen;      /* calls of `target` while the mode was not OFF */
	atomic_uint_fast64_t failed;    /* of these */
	uint64_t depth;                 /* where the first one failed: return addresses, */
	uint64_t frames[FRAMES];        /* relative to the library, or 0 outside of it */
	uint64_t known;                 /* how many calls there are */
	struct call calls[CALLS];
};

static struct control *control;
static uintptr_t base, low, high;

static int find_library(struct dl_phdr_info *info, size_t size, void *data)
{
	int at;

	(void) size;
	(void) data;
	if (strstr(info->dlpi_name, "/libmilter.so") == NULL)
		return 0;
	base = info->dlpi_addr;
	for (at = 0; at < info->dlpi_phnum; at++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[at];

		if (header->p_type == PT_LOAD && (header->p_flags & PF_X) != 0) {
			low = base + header->p_vaddr;
			high = low + header->p_memsz;
		}
	}
	return 1;
}

static const char *const names[] = {
#define TEXT(name) #name,
	EVERY_CALL(TEXT)
};

__attribute__((constructor)) static void prepare(void)
{
	const char *path = getenv("FAULTS_CONTROL");
	void *first[1], *mapped;
	int at, fd;

	if (path == NULL || (fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
		return;
	mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	/* The first call of it allocates. */
	backtrace(first, 1);
	if (mapped == MAP_FAILED || dl_iterate_phdr(find_library, NULL) == 0)
		return;
	control = mapped;
	control->known = CALLS;
	for (at = 0; at < CALLS; at++)
		strcpy(control->calls[at].name, names[at]);
}

static void note_place(void)
{
	void *frames[FRAMES];
	int at, depth = backtrace(frames, FRAMES);

	for (at = 0; at < depth; at++) {
		uintptr_t frame = (uintptr_t) frames[at];

		control->frames[at] = frame >= low && frame < high ? frame - base : 0;
	}
	control->depth = (uint64_t) depth;
}

/* Whether this call, which returns to `caller`, has to fail; then errno is set. */
static int fails(enum call_number call, void *caller)
{
	uintptr_t place = (uintptr_t) caller;
	uint64_t seen, mode;

	if (control == NULL || place < low || place >= high)
		return 0;
	atomic_fetch_add(&control->calls[call].count, 1);
	mode = atomic_load(&control->mode);
	if (mode == OFF || control->target != call)
		return 0;
	seen = atomic_fetch_add(&control->seen, 1) + 1;
	if (mode == ONE && seen != control->nth)
		return 0;
	if (atomic_fetch_add(&control->failed, 1) == 0)
		note_place();
	errno = (int) control->error;
	return 1;
}

#define FAILS(call) fails(CALL_##call, __builtin_return_address(0))

/* Allocations. The C library's own names: dlsym allocates. */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t size)
{
	return FAILS(alloc) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return FAILS(alloc) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	return FAILS(alloc) ? NULL : __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return FAILS(alloc) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size)
{
	int kept = errno;
	void *made = FAILS(alloc) ? NULL : __libc_memalign(alignment, size);

	errno = kept;
	if (made == NULL)
		return ENOMEM;
	*result = made;
	return 0;
}

/* System calls. */

#define REAL(name) ({ \
	static typeof(&name) real; \
	if (real == NULL) \
		real = (typeof(&name)) dlsym(RTLD_NEXT, #name); \
	real; \
})

/* `result name(parameters)`, counted as `call`, gives `failure` when it fails. */
#define WRAP(call, failure, result, name, parameters, arguments) \
result name parameters \
{ \
	return FAILS(call) ? (failure) : REAL(name) arguments; \
}

WRAP(accept, -1, int, accept, (int fd, struct sockaddr *restrict a, socklen_t *restrict l), (fd, a, l))
WRAP(accept4, -1, int, accept4, (int fd, struct sockaddr *restrict a, socklen_t *restrict l, int f), (fd, a, l, f))
WRAP(bind, -1, int, bind, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l))
WRAP(connect, -1, int, connect, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l))
WRAP(epoll_create1, -1, int, epoll_create1, (int flags), (flags))
WRAP(epoll_ctl, -1, int, epoll_ctl, (int set, int op, int fd, struct epoll_event *event), (set, op, fd, event))
WRAP(eventfd, -1, int, eventfd, (unsigned int count, int flags), (count, flags))
WRAP(fchmodat, -1, int, fchmodat, (int fd, const char *path, mode_t mode, int flags), (fd, path, mode, flags))
WRAP(fchownat, -1, int, fchownat, (int fd, const char *path, uid_t u, gid_t g, int flags), (fd, path, u, g, flags))
WRAP(fork, -1, pid_t, fork, (void), ())
WRAP(fstat, -1, int, fstat, (int fd, struct stat *status), (fd, status))
WRAP(fstat, -1, int, fstat64, (int fd, struct stat64 *status), (fd, status))
WRAP(fstatat, -1, int, fstatat64, (int fd, const char *restrict path, struct stat64 *restrict status, int flags),
    (fd, path, status, flags))
WRAP(fstatat, -1, int, fstatat, (int fd, const char *restrict path, struct stat *restrict status, int flags),
    (fd, path, status, flags))
WRAP(getcwd, NULL, char *, getcwd, (char *path, size_t size), (path, size))
WRAP(getrandom, -1, ssize_t, getrandom, (void *data, size_t size, unsigned int flags), (data, size, flags))
WRAP(getsockname, -1, int, getsockname, (int fd, struct sockaddr *restrict a, socklen_t *restrict l), (fd, a, l))
WRAP(getsockopt, -1, int, getsockopt, (int fd, int level, int name, void *restrict v, socklen_t *restrict l),
    (fd, level, name, v, l))
WRAP(linkat, -1, int, linkat, (int old, const char *from, int new, const char *to, int f), (old, from, new, to, f))
WRAP(listen, -1, int, listen, (int fd, int backlog), (fd, backlog))
WRAP(lseek, -1, off64_t, lseek64, (int fd, off64_t offset, int whence), (fd, offset, whence))
WRAP(madvise, -1, int, madvise, (void *at, size_t size, int advice), (at, size, advice))
WRAP(mkdirat, -1, int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
WRAP(mmap, MAP_FAILED, void *, mmap, (void *at, size_t size, int prot, int flags, int fd, off_t offset),
    (at, size, prot, flags, fd, offset))
WRAP(mmap, MAP_FAILED, void *, mmap64, (void *at, size_t size, int prot, int flags, int fd, off64_t offset),
    (at, size, prot, flags, fd, offset))
WRAP(munmap, -1, int, munmap, (void *at, size_t size), (at, size))
WRAP(pipe, -1, int, pipe, (int ends[2]), (ends))
WRAP(pipe2, -1, int, pipe2, (int ends[2], int flags), (ends, flags))
WRAP(poll, -1, int, poll, (struct pollfd *set, nfds_t count, int limit), (set, count, limit))
WRAP(pthread_create, errno, int, pthread_create, (pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
    void *(*body)(void *), void *restrict argument), (thread, attributes, body, argument))
WRAP(pthread_sigmask, errno, int, pthread_sigmask, (int how, const sigset_t *restrict set, sigset_t *restrict old),
    (how, set, old))
WRAP(readlink, -1, ssize_t, readlink, (const char *restrict path, char *restrict data, size_t size), (path, data, size))
WRAP(readlinkat, -1, ssize_t, readlinkat, (int fd, const char *restrict path, char *restrict to, size_t size),
    (fd, path, to, size))
WRAP(realpath, NULL, char *, realpath, (const char *restrict path, char *restrict result), (path, result))
WRAP(recvmsg, -1, ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
WRAP(renameat, -1, int, renameat, (int old, const char *from, int new, const char *to), (old, from, new, to))
WRAP(sched_getaffinity, -1, int, sched_getaffinity, (pid_t id, size_t size, cpu_set_t *set), (id, size, set))
WRAP(sendmsg, -1, ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(sendto, -1, ssize_t, sendto, (int fd, const void *data, size_t size, int flags, const struct sockaddr *a,
    socklen_t l), (fd, data, size, flags, a, l))
WRAP(setsockopt, -1, int, setsockopt, (int fd, int level, int name, const void *value, socklen_t size),
    (fd, level, name, value, size))
WRAP(sigaction, -1, int, sigaction, (int number, const struct sigaction *restrict new, struct sigaction *restrict old),
    (number, new, old))
WRAP(sigwait, errno, int, sigwait, (const sigset_t *restrict set, int *restrict number), (set, number))
WRAP(shutdown, -1, int, shutdown, (int fd, int how), (fd, how))
WRAP(socket, -1, int, socket, (int family, int kind, int protocol), (family, kind, protocol))
WRAP(socketpair, -1, int, socketpair, (int family, int kind, int protocol, int ends[2]), (family, kind, protocol, ends))
WRAP(stat, -1, int, stat, (const char *restrict path, struct stat *restrict status), (path, status))
WRAP(stat, -1, int, stat64, (const char *restrict path, struct stat64 *restrict status), (path, status))
WRAP(statx, -1, int, statx, (int fd, const char *restrict path, int flags, unsigned int mask, struct statx *restrict to),
    (fd, path, flags, mask, to))
WRAP(timerfd_create, -1, int, timerfd_create, (clockid_t clock, int flags), (clock, flags))
WRAP(timerfd_settime, -1, int, timerfd_settime, (int fd, int flags, const struct itimerspec *new, struct itimerspec *old),
    (fd, flags, new, old))
WRAP(unlinkat, -1, int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
WRAP(waitid, -1, int, waitid, (idtype_t type, id_t id, siginfo_t *end, int options), (type, id, end, options))

/* Files may fail where pipes, timers and the like do not. */
static int is_file(int fd)
{
	struct stat status;

	return REAL(fstat)(fd, &status) == 0 && S_ISREG(status.st_mode);
}

#define WRAP_TRANSFER(name, parameters, arguments) \
ssize_t name parameters \
{ \
	void *caller = __builtin_return_address(0); \
 \
	if (fails(is_file(fd) ? CALL_##name##_file : CALL_##name, caller)) \
		return -1; \
	return REAL(name) arguments; \
}

WRAP_TRANSFER(read, (int fd, void *data, size_t size), (fd, data, size))
WRAP_TRANSFER(write, (int fd, const void *data, size_t size), (fd, data, size))
WRAP_TRANSFER(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))

/* As Linux does it: the descriptor is gone in any case. */
int close(int fd)
{
	int failing = FAILS(close), error = errno, result = REAL(close)(fd);

	if (!failing)
		return result;
	errno = error;
	return -1;
}

/* Those that take as many arguments as they like. What was not passed is not looked at. */

int fcntl(int fd, int command, ...)
{
	va_list arguments;
	long argument;

	va_start(arguments, command);
	argument = va_arg(arguments, long);
	va_end(arguments);
	return FAILS(fcntl) ? -1 : REAL(fcntl)(fd, command, argument);
}

#define WRAP_OPEN(call, name, parameters, ...) \
int name parameters \
{ \
	va_list arguments; \
	mode_t mode; \
 \
	va_start(arguments, flags); \
	mode = va_arg(arguments, mode_t); \
	va_end(arguments); \
	return FAILS(call) ? -1 : REAL(name)(__VA_ARGS__, mode); \
}

WRAP_OPEN(open, open, (const char *path, int flags, ...), path, flags)
WRAP_OPEN(open, open64, (const char *path, int flags, ...), path, flags)
WRAP_OPEN(openat, openat, (int fd, const char *path, int flags, ...), fd, path, flags)
WRAP_OPEN(openat, openat64, (int fd, const char *path, int flags, ...), fd, path, flags)

/* Waking others cannot fail. */
static int is_wait(long operation)
{
	long command = operation & FUTEX_CMD_MASK;

	return command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET;
}

/* The library makes some calls by their numbers. */
long syscall(long number, ...)
{
	static const struct {
		long number;
		enum call_number call;
	} known[] = {
		{ SYS_recvfrom, CALL_recv }, { SYS_sendto, CALL_send }, { SYS_epoll_pwait, CALL_epoll_wait },
		{ SYS_futex, CALL_futex }, { SYS_pidfd_open, CALL_pidfd_open }, { SYS_getrandom, CALL_getrandom },
	};
	void *caller = __builtin_return_address(0);
	long a[6];
	va_list arguments;
	size_t at;

	va_start(arguments, number);
	for (at = 0; at < 6; at++)
		a[at] = va_arg(arguments, long);
	va_end(arguments);
	for (at = 0; at < sizeof known / sizeof known[0]; at++)
		if (known[at].number == number && (number != SYS_futex || is_wait(a[1])) && fails(known[at].call, caller))
			return -1;
	return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
