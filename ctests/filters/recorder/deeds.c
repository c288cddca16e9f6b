/* What a plan can ask for besides calls of the library. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "recorder.h"

/* The callback's own answer. */

static void step_return(struct scene *scene, const struct word *words, int count)
{
	static const struct {
		const char *name;
		long value;
	} verdicts[] = {
		{ "CONTINUE", SMFIS_CONTINUE }, { "REJECT", SMFIS_REJECT }, { "DISCARD", SMFIS_DISCARD },
		{ "ACCEPT", SMFIS_ACCEPT }, { "TEMPFAIL", SMFIS_TEMPFAIL }, { "NOREPLY", SMFIS_NOREPLY },
		{ "SKIP", SMFIS_SKIP }, { "ALL_OPTS", SMFIS_ALL_OPTS }
	};
	size_t at;

	for (at = 0; at < sizeof verdicts / sizeof verdicts[0]; at++)
		if (count > 1 && words[1].text != NULL && strcmp(words[1].text, verdicts[at].name) == 0) {
			scene->verdict = verdicts[at].value;
			return;
		}
	scene->verdict = number(words, count, 1);
}

/* output N VALUE: one of the four results of xxfi_negotiate. */
static void step_output(struct scene *scene, const struct word *words, int count)
{
	if (scene->outputs == NULL)
		fail("plan: 'output' outside of negotiate");
	*scene->outputs[number(words, count, 1)] = strtoul(text(words, count, 2), NULL, 0);
}

/* Deeds of a callback or of the program. */

static void step_sleep(struct scene *scene, const struct word *words, int count)
{
	long left = number(words, count, 1);
	struct timespec time = { left / 1000, left % 1000 * 1000000 };

	(void) scene;
	while (nanosleep(&time, &time) != 0 && errno == EINTR)
		continue;
}

static void step_note(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	record("note %s", text(words, count, 1));
}

static void step_exit(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	exit((int) number(words, count, 1));
}

static void step_crash(struct scene *scene, const struct word *words, int count)
{
	(void) scene, (void) words, (void) count;
	abort();
}

static void say(void *what)
{
	record("%s", (const char *) what);
}

static pthread_key_t last_words;

static void make_last_words(void)
{
	pthread_key_create(&last_words, say);
}

/* exit-thread, cancel-thread: the callback does not return. */
static void step_end_thread(struct scene *scene, const struct word *words, int count)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void) scene, (void) count;
	pthread_once(&once, make_last_words);
	pthread_setspecific(last_words, "thread over");
	pthread_cleanup_push(say, "cleanup");
	if (strcmp(words[0].text, "exit-thread") == 0)
		pthread_exit(NULL);
	pthread_cancel(pthread_self());
	pthread_testcancel();
	pthread_cleanup_pop(0);
	record("still here");
}

static void step_process(struct scene *scene, const struct word *words, int count)
{
	(void) scene, (void) words, (void) count;
	record("process %ld", (long) getpid());
}

/* Leaves a line in the buffer of the standard output. */
static void step_print(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	printf("%s\n", text(words, count, 1));
}

/* Uses that many octets of stack. */
static void step_stack(struct scene *scene, const struct word *words, int count)
{
	size_t size = (size_t) number(words, count, 1), at;
	volatile unsigned char *memory = __builtin_alloca(size);

	(void) scene;
	for (at = 0; at < size; at += 1024)
		memory[size - 1 - at] = 1;
	record("stack %zu", size);
}

static void record_signals(void)
{
	static const struct {
		int number;
		const char *name;
	} watched[] = { { SIGHUP, "HUP" }, { SIGINT, "INT" }, { SIGTERM, "TERM" }, { SIGUSR1, "USR1" },
	    { SIGALRM, "ALRM" }, { SIGCHLD, "CHLD" }, { SIGPIPE, "PIPE" } };
	struct line line = EMPTY_LINE;
	struct sigaction pipe;
	sigset_t mask;
	size_t at;

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	sigaction(SIGPIPE, NULL, &pipe);
	line_add(&line, "signals blocked:");
	for (at = 0; at < sizeof watched / sizeof watched[0]; at++)
		if (sigismember(&mask, watched[at].number))
			line_add(&line, " %s", watched[at].name);
	line_add(&line, ", PIPE %s", pipe.sa_handler == SIG_IGN ? "ignored" : "not ignored");
	line_end(&line);
}

static void step_signals(struct scene *scene, const struct word *words, int count)
{
	(void) scene, (void) words, (void) count;
	record_signals();
}

static int entries(const char *directory, struct line *line, int spared)
{
	DIR *listing = opendir(directory);
	struct dirent *entry;
	int found = 0;

	if (listing == NULL)
		fail("%s: %s", directory, strerror(errno));
	while ((entry = readdir(listing)) != NULL) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] == '.' || fd == dirfd(listing) || fd == spared)
			continue;
		found++;
		if (line != NULL)
			line_add(line, " %s", entry->d_name);
	}
	closedir(listing);
	return found;
}

static void step_threads(struct scene *scene, const struct word *words, int count)
{
	(void) scene, (void) words, (void) count;
	record("threads %d", entries("/proc/self/task", NULL, -1));
}

static void step_descriptors(struct scene *scene, const struct word *words, int count)
{
	struct line line = EMPTY_LINE;

	(void) scene, (void) words, (void) count;
	line_add(&line, "descriptors");
	entries("/proc/self/fd", &line, journal_descriptor());
	line_end(&line);
}

int report_inheritance(const char *journal)
{
	struct line line = EMPTY_LINE;

	line_add(&line, "child descriptors");
	entries("/proc/self/fd", &line, -1);
	journal_open(journal);
	line_end(&line);
	record_signals();
	return 0;
}

/* Runs a child over fork and exec that reports what it got from us. */
static void step_child(struct scene *scene, const struct word *words, int count)
{
	pid_t child = fork();
	int status;

	(void) scene, (void) words, (void) count;
	if (child == 0) {
		execl(program_path, program_path, "--inherited", journal_path, (char *) NULL);
		_exit(98);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
		record("child failed");
}

/* in-child STEP: in a child that is forked for it. */
static void step_in_child(struct scene *scene, const struct word *words, int count)
{
	struct step step = { 0 };
	pid_t child;
	int status;

	if (count < 2)
		fail("plan: in-child STEP");
	step.count = count - 1;
	memcpy(step.words, words + 1, (size_t) step.count * sizeof *words);
	child = fork();
	if (child == 0) {
		step_run(&step, scene);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
		record("child failed");
}

/* The parent waits for its child, ends with its status, and the child goes on with the plan. */
static void step_fork(struct scene *scene, const struct word *words, int count)
{
	pid_t child = fork();
	int status = 0;

	(void) scene, (void) words, (void) count;
	if (child < 0)
		fail("fork: %s", strerror(errno));
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		return;
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 97);
}

/* supervise N: N children one after another go on with the plan; then the parent ends. */
static void step_supervise(struct scene *scene, const struct word *words, int count)
{
	long left;
	int status;

	(void) scene;
	for (left = number(words, count, 1); left > 0; left--) {
		pid_t child = fork();

		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			return;
		}
		if (child < 0 || waitpid(child, &status, 0) != child)
			fail("supervise: %s", strerror(errno));
		record("child ended %d", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
	}
	_exit(0);
}

/* glibc has had it since 2.34; a program that is to run on older ones looks for it. */
extern pid_t _Fork(void) __attribute__((weak));

/* copy [_Fork|syscall]: both processes go on with the plan. */
static void step_copy(struct scene *scene, const struct word *words, int count)
{
	const char *way = count > 1 ? words[1].text : "fork";
	long child;

	(void) scene;
	if (strcmp(way, "syscall") == 0 || (strcmp(way, "_Fork") == 0 && _Fork == NULL))
		child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	else
		child = strcmp(way, "_Fork") == 0 ? _Fork() : fork();
	if (child < 0)
		fail("fork: %s", strerror(errno));
}

/* A process without exec that does nothing, and so keeps everything open that is open here. */
static void step_helper(struct scene *scene, const struct word *words, int count)
{
	pid_t child = fork();

	(void) scene, (void) words, (void) count;
	if (child < 0)
		fail("fork: %s", strerror(errno));
	if (child == 0) {
		sleep(600);
		_exit(0);
	}
}

static int forks, forks_until_stop;

static void before_fork(void)
{
	record("fork");
	if (++forks == forks_until_stop)
		smfi_stop();
}

/* stop-at-fork N: notes each fork, and calls smfi_stop in the N-th. */
static void step_stop_at_fork(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	forks_until_stop = (int) number(words, count, 1);
	pthread_atfork(before_fork, NULL, NULL);
}

static pthread_mutex_t runtime_lock = PTHREAD_MUTEX_INITIALIZER;

static void runtime_in_child(void)
{
	static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	runtime_lock = fresh;
	pthread_mutex_lock(&runtime_lock);
}

static void program_in_child(void)
{
	pthread_mutex_unlock(&runtime_lock);
}

/* runtime: as in a program with the runtime of OCaml, whose handler for fork has the thread that forked hold the lock of the
   runtime. The program's handler, which comes later, releases it. */
static void step_runtime(struct scene *scene, const struct word *words, int count)
{
	(void) scene, (void) words, (void) count;
	pthread_atfork(NULL, NULL, runtime_in_child);
	pthread_atfork(NULL, NULL, program_in_child);
}

/* A callback that needs the runtime. */
static void step_in_runtime(struct scene *scene, const struct word *words, int count)
{
	(void) scene, (void) words, (void) count;
	pthread_mutex_lock(&runtime_lock);
	pthread_mutex_unlock(&runtime_lock);
}

/* Nobody has to wait for children. */
static void step_ignore_children(struct scene *scene, const struct word *words, int count)
{
	(void) scene, (void) words, (void) count;
	signal(SIGCHLD, SIG_IGN);
}

static int signal_number(const char *name)
{
	static const struct {
		const char *name;
		int number;
	} known[] = { { "HUP", SIGHUP }, { "INT", SIGINT }, { "TERM", SIGTERM }, { "USR1", SIGUSR1 },
	    { "SEGV", SIGSEGV }, { "KILL", SIGKILL } };
	size_t at;

	for (at = 0; at < sizeof known / sizeof known[0]; at++)
		if (name != NULL && strcmp(name, known[at].name) == 0)
			return known[at].number;
	fail("plan: unknown signal '%s'", name == NULL ? "NULL" : name);
}

/* raise-if SIGNAL MACRO VALUE: the MTA says which session it is. */
static void step_raise_if(struct scene *scene, const struct word *words, int count)
{
	const char *value = smfi_getsymval(scene->context, text(words, count, 2));

	if (value != NULL && strcmp(value, text(words, count, 3)) == 0)
		raise(signal_number(text(words, count, 1)));
}

static void step_block(struct scene *scene, const struct word *words, int count)
{
	sigset_t set;
	int at;

	(void) scene;
	sigemptyset(&set);
	for (at = 1; at < count; at++)
		sigaddset(&set, signal_number(words[at].text));
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void stopping_handler(int number)
{
	(void) number;
	smfi_stop();
}

/* A handler that calls smfi_stop. */
static void step_stop_on(struct scene *scene, const struct word *words, int count)
{
	struct sigaction action;

	(void) scene;
	memset(&action, 0, sizeof action);
	action.sa_handler = stopping_handler;
	sigaction(signal_number(text(words, count, 1)), &action, NULL);
}

static void *wait_for_signal(void *argument)
{
	sigset_t set;
	int number;

	sigemptyset(&set);
	sigaddset(&set, (int) (long) argument);
	while (sigwait(&set, &number) == 0)
		record("thread got signal");
	return NULL;
}

/* A thread of the filter's own that waits for a signal, which is blocked everywhere else. */
static void step_signal_thread(struct scene *scene, const struct word *words, int count)
{
	pthread_t thread;

	step_block(scene, words, count);
	if (pthread_create(&thread, NULL, wait_for_signal, (void *) (long) signal_number(text(words, count, 1))) != 0)
		fail("no thread");
}

struct delayed {
	struct scene scene;
	struct step step;
	long delay;
};

static void *run_delayed(void *argument)
{
	struct delayed *delayed = argument;
	struct timespec time = { delayed->delay / 1000, delayed->delay % 1000 * 1000000 };

	while (nanosleep(&time, &time) != 0 && errno == EINTR)
		continue;
	step_run(&delayed->step, &delayed->scene);
	free(delayed);
	return NULL;
}

/* later MILLISECONDS STEP: in another thread. */
static void step_later(struct scene *scene, const struct word *words, int count)
{
	struct delayed *delayed = calloc(1, sizeof *delayed);
	pthread_t thread;

	if (delayed == NULL || count < 3)
		fail("plan: later MILLISECONDS STEP");
	delayed->scene = *scene;
	delayed->delay = number(words, count, 1);
	delayed->step.count = count - 2;
	memcpy(delayed->step.words, words + 2, (size_t) (count - 2) * sizeof *words);
	if (pthread_create(&thread, NULL, run_delayed, delayed) != 0)
		fail("no thread");
	pthread_detach(thread);
}

/* Keeps the first thread of a session in its private pointer and says when another one comes. */
static void step_affinity(struct scene *scene, const struct word *words, int count)
{
	void *first = smfi_getpriv(scene->context), *self = (void *) pthread_self();

	(void) words, (void) count;
	if (first == NULL)
		smfi_setpriv(scene->context, self);
	else
		record("thread %s", first == self ? "same" : "other");
}

/* Keeps the context in a table of live sessions, and says when one is not what it was. */
static void step_identity(struct scene *scene, const struct word *words, int count)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct { SMFICTX *context; } live[1024];
	long at = (long) smfi_getpriv(scene->context), free_place = 0, other;

	pthread_mutex_lock(&lock);
	if (at == 0) {
		for (other = 1; other < 1024; other++) {
			if (live[other].context == scene->context)
				record("two live sessions have one context");
			if (free_place == 0 && live[other].context == NULL)
				free_place = other;
		}
		live[free_place].context = scene->context;
		smfi_setpriv(scene->context, (void *) free_place);
	} else if (live[at].context != scene->context) {
		record("the context of a session changed");
	}
	if (count > 1 && words[1].text != NULL && strcmp(words[1].text, "end") == 0) {
		live[(long) smfi_getpriv(scene->context)].context = NULL;
		smfi_setpriv(scene->context, NULL);
	}
	pthread_mutex_unlock(&lock);
}

/* Surroundings of the program. */

/* What the next register uses. */
static void step_use_version(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	plan.version = (int) number(words, count, 1);
}

static void step_umask(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	umask((mode_t) number(words, count, 1));
}

static void step_chdir(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	if (chdir(text(words, count, 1)) != 0)
		fail("chdir: %s", strerror(errno));
}

static void step_chroot(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	if (chroot(text(words, count, 1)) != 0 || chdir("/") != 0)
		fail("chroot: %s", strerror(errno));
}

static void step_setuid(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	if (setgid((gid_t) number(words, count, 1)) != 0 || setuid((uid_t) number(words, count, 1)) != 0)
		fail("setuid: %s", strerror(errno));
}

/* forbid CALL: from now on as if the system did not have it. */
static void step_forbid(struct scene *scene, const struct word *words, int count)
{
	int is_waitid = strcmp(text(words, count, 1), "waitid") == 0;
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, is_waitid ? SYS_waitid : SYS_pidfd_open, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	};
	struct sock_fprog program = { sizeof filter / sizeof filter[0], filter };
	struct line line = EMPTY_LINE;
	int outcome = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);

	(void) scene;
	if (outcome == 0)
		outcome = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
	line_add(&line, "forbid %d", outcome);
	line_end(&line);
}

static void step_unlink(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	record("unlink %d", unlink(text(words, count, 1)));
}

/* As daemons do: no descriptor stays, then the standard three come back. */
static void step_close_all(struct scene *scene, const struct word *words, int count)
{
	int fd;

	(void) scene, (void) words, (void) count;
	close_range(0, ~0U, 0);
	for (fd = 0; fd < 3; fd++)
		if (open("/dev/null", O_RDWR) != fd)
			abort();
	journal_open(journal_path);
}

/* descriptor N unix PATH|inet PORT [listening]: a bound socket under that number. */
static void step_descriptor(struct scene *scene, const struct word *words, int count)
{
	union {
		struct sockaddr any;
		struct sockaddr_in inet;
		struct sockaddr_un local;
	} address;
	int is_unix = strcmp(words[2].text, "unix") == 0, on = 1;
	int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM, 0);

	(void) scene;
	memset(&address, 0, sizeof address);
	if (is_unix) {
		address.local.sun_family = AF_UNIX;
		strncpy(address.local.sun_path, words[3].text, sizeof address.local.sun_path - 1);
	} else {
		address.inet.sin_family = AF_INET;
		address.inet.sin_port = htons((unsigned short) number(words, count, 3));
		address.inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	}
	if (bind(fd, &address.any, is_unix ? sizeof address.local : sizeof address.inet) != 0 ||
	    (count > 4 && listen(fd, 5) != 0) || dup2(fd, (int) number(words, count, 1)) < 0)
		fail("descriptor: %s", strerror(errno));
	if (fd != (int) number(words, count, 1))
		close(fd);
}

static char *kept;

/* keep NAME: remembers where the value of a macro is. */
static void step_keep(struct scene *scene, const struct word *words, int count)
{
	kept = smfi_getsymval(scene->context, text(words, count, 1));
}

/* kept NAME: what is there now, and whether the macro is still at the same place. */
static void step_kept(struct scene *scene, const struct word *words, int count)
{
	struct line line = EMPTY_LINE;

	line_add(&line, "kept");
	line_add_string(&line, kept);
	line_add(&line, smfi_getsymval(scene->context, text(words, count, 1)) == kept ? " same" : " other");
	line_end(&line);
}

const struct named_action deeds[] = {
	{ "return", step_return }, { "output", step_output }, { "sleep", step_sleep },
	{ "note", step_note }, { "exit", step_exit }, { "crash", step_crash }, { "raise-if", step_raise_if },
	{ "process", step_process }, { "print", step_print }, { "stack", step_stack },
	{ "signals", step_signals }, { "threads", step_threads }, { "descriptors", step_descriptors },
	{ "child", step_child }, { "in-child", step_in_child }, { "fork", step_fork }, { "supervise", step_supervise },
	{ "copy", step_copy }, { "helper", step_helper }, { "ignore-children", step_ignore_children },
	{ "stop-at-fork", step_stop_at_fork }, { "runtime", step_runtime }, { "in-runtime", step_in_runtime },
	{ "block", step_block }, { "stop-on", step_stop_on }, { "signal-thread", step_signal_thread },
	{ "later", step_later }, { "exit-thread", step_end_thread }, { "cancel-thread", step_end_thread },
	{ "affinity", step_affinity }, { "identity", step_identity }, { "keep", step_keep }, { "kept", step_kept },
	{ "use-version", step_use_version }, { "umask", step_umask }, { "chdir", step_chdir },
	{ "chroot", step_chroot }, { "setuid", step_setuid }, { "unlink", step_unlink },
	{ "forbid", step_forbid },
	{ "close-all", step_close_all }, { "descriptor", step_descriptor },
	{ NULL, NULL }
};
