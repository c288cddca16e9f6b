/* One plan after another, each followed by a process of its own that inherits the listening socket. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "recorder.h"

enum { LISTENER = 251 };

static void listen_at(const char *path)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(&address, 0, sizeof address);
	address.sun_family = AF_UNIX;
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof address) != 0 || listen(fd, 16) != 0 ||
	    dup3(fd, LISTENER, O_CLOEXEC) < 0)
		fail("%s: %s", path, strerror(errno));
	close(fd);
}

/* Fills the buffer; false at the end of the orders. */
static int receive(void *buffer, size_t size)
{
	char *at = buffer;

	while (size > 0) {
		ssize_t got = read(STDIN_FILENO, at, size);

		if (got <= 0)
			return 0;
		at += got;
		size -= (size_t) got;
	}
	return 1;
}

/* The child reads the plan and goes on with the usual calls; orders and answers are not its concern. */
static void become_filter(char *text, size_t size)
{
	FILE *file = fmemopen(text, size, "r");
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (file == NULL || nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		fail("no plan: %s", strerror(errno));
	close(nothing);
	plan_parse(file, NULL);
}

/* Says with one octet whether the child lived until it was killed. */
static int answer_end_of(pid_t child)
{
	int status = 0;
	char well;

	kill(child, SIGKILL);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	well = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	return write(STDOUT_FILENO, &well, 1) == 1;
}

const char *serve(const char *path)
{
	static char description[16];
	uint32_t size;

	listen_at(path);
	if (write(STDOUT_FILENO, "", 1) != 1)
		fail("nobody gives orders");
	while (receive(&size, sizeof size)) {
		char *text = malloc(size + 1);
		pid_t child;

		if (text == NULL || !receive(text, size))
			break;
		child = fork();
		if (child < 0)
			fail("fork: %s", strerror(errno));
		if (child == 0) {
			become_filter(text, size);
			snprintf(description, sizeof description, "fd:%d", LISTENER);
			return description;
		}
		free(text);
		/* Anything more, or the end of the orders, ends the child. */
		if (!receive(&size, 1)) {
			kill(child, SIGKILL);
			break;
		}
		if (!answer_end_of(child))
			break;
	}
	exit(0);
}
