/*
 * What no library can beat: floor MODE SOCKET
 *
 * One thread, one epoll set, one recv for all that has come, one send for all that is due, nothing parsed but lengths
 * and letters, nothing kept. It answers every command with "continue"; the modes are those of bench.c:
 *
 *   noop      every command is wanted and answered
 *   nr        no answer before the end of the message
 *   skipall   no command is wanted but the end of the message
 *
 * SOCKET is unix:/path or inet:port@127.0.0.1. It is a yardstick, not a filter: peers are trusted.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HEADER 5
#define READ_AT_ONCE (256 * 1024)
#define SEND_AT_MOST (64 * 1024)

/* Steps of the protocol, in the answer to the MTA's offer. */
#define NO_COMMANDS 0x37f
#define NO_ANSWERS 0xff080

struct session {
	uint32_t skip;		    /* octets of payload that are still to come */
	uint8_t held, head[HEADER]; /* the start of a packet */
	int fd;
};

static char in[READ_AT_ONCE], out[SEND_AT_MOST];
static size_t due;
static uint32_t steps;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void say(const void *octets, size_t length)
{
	if (due + length > sizeof out)
		exit(1);
	memcpy(out + due, octets, length);
	due += length;
}

static void answer_offer(void)
{
	static const uint8_t start[] = { 0, 0, 0, 13, 'O', 0, 0, 0, 6, 0, 0, 0, 0 };
	uint32_t mine = htonl(steps);

	say(start, sizeof start);
	say(&mine, sizeof mine);
}

/* Answers one command; nonzero at the end of the session. */
static int answer(uint8_t command)
{
	static const uint8_t go_on[] = { 0, 0, 0, 1, 'c' };

	switch (command) {
	case 'O':
		answer_offer();
		return 0;
	case 'Q':
		return 1;
	case 'D':
	case 'A':
		return 0;
	default:
		if (command == 'E' || steps != NO_ANSWERS)
			say(go_on, sizeof go_on);
		return 0;
	}
}

/* Takes what has come; nonzero at the end of the session. */
static int take(struct session *session, const char *octets, size_t length)
{
	while (length > 0) {
		size_t missing = session->held < HEADER ? (size_t)(HEADER - session->held) : session->skip;
		size_t some = length < missing ? length : missing;

		if (session->held < HEADER) {
			memcpy(session->head + session->held, octets, some);
			session->held = (uint8_t)(session->held + some);
			if (session->held == HEADER) {
				uint32_t packet;

				memcpy(&packet, session->head, sizeof packet);
				session->skip = ntohl(packet) - 1;
			}
		} else {
			session->skip -= (uint32_t)some;
		}
		octets += some;
		length -= some;
		if (session->held == HEADER && session->skip == 0) {
			session->held = 0;
			if (answer(session->head[4]))
				return 1;
		}
	}
	return 0;
}

static int listening(const char *where)
{
	struct sockaddr_un local;
	struct sockaddr_in inet;
	int fd, one = 1;

	if (strncmp(where, "unix:", 5) == 0) {
		memset(&local, 0, sizeof local);
		local.sun_family = AF_UNIX;
		snprintf(local.sun_path, sizeof local.sun_path, "%s", where + 5);
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (fd < 0 || bind(fd, (struct sockaddr *)&local, sizeof local) < 0)
			fail(where);
	} else {
		memset(&inet, 0, sizeof inet);
		inet.sin_family = AF_INET;
		inet.sin_port = htons((uint16_t)atoi(where + strlen("inet:")));
		inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
		    bind(fd, (struct sockaddr *)&inet, sizeof inet) < 0)
			fail(where);
	}
	if (listen(fd, 4096) < 0)
		fail(where);
	return fd;
}

static void accept_all(int listener, int set)
{
	int fd, one = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct session *session = calloc(1, sizeof *session);
		struct epoll_event event;

		if (session == NULL)
			fail("calloc");
		/* Fails on Unix sockets, which do not need it. */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		session->fd = fd;
		event.events = EPOLLIN;
		event.data.ptr = session;
		if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0)
			fail("epoll_ctl");
	}
}

static void serve(struct session *session)
{
	ssize_t length = recv(session->fd, in, sizeof in, 0);
	int end;

	due = 0;
	end = length <= 0 || take(session, in, (size_t)length);
	if (due > 0 && send(session->fd, out, due, MSG_NOSIGNAL) != (ssize_t)due)
		end = 1;
	if (end) {
		close(session->fd);
		free(session);
	}
}

int main(int argc, char **argv)
{
	struct epoll_event events[256], event;
	int listener, set, count;

	if (argc != 3) {
		fprintf(stderr, "usage: floor MODE SOCKET\n");
		return 2;
	}
	if (strcmp(argv[1], "nr") == 0)
		steps = NO_ANSWERS;
	else if (strcmp(argv[1], "skipall") == 0)
		steps = NO_COMMANDS;
	else if (strcmp(argv[1], "noop") != 0) {
		fprintf(stderr, "floor: there is no mode %s\n", argv[1]);
		return 2;
	}
	listener = listening(argv[2]);
	set = epoll_create1(EPOLL_CLOEXEC);
	event.events = EPOLLIN;
	event.data.ptr = NULL;
	if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) < 0)
		fail("epoll");
	for (;;) {
		count = epoll_wait(set, events, 256, -1);
		while (count-- > 0) {
			if (events[count].data.ptr == NULL)
				accept_all(listener, set);
			else
				serve(events[count].data.ptr);
		}
	}
}
