/* The record of the recorder, and the library's syslog messages in it. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "recorder.h"

enum {
	JOURNAL = 250,          /* far from the numbers a program gets by itself */
	RUN = 64                /* longer repetitions of one octet are abbreviated */
};

void journal_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

	if (fd < 0 || dup3(fd, JOURNAL, O_CLOEXEC) < 0)
		fail("%s: %s", path, strerror(errno));
	close(fd);
}

int journal_descriptor(void)
{
	return JOURNAL;
}

static void reserve(struct line *line, size_t more)
{
	if (line->used + more < line->room)
		return;
	line->room = (line->used + more) * 2 + 128;
	line->text = realloc(line->text, line->room);
	if (line->text == NULL)
		abort();
}

static void add(struct line *line, const char *format, va_list arguments)
{
	va_list again;
	int length;

	va_copy(again, arguments);
	length = vsnprintf(NULL, 0, format, arguments);
	if (length < 0)
		abort();
	reserve(line, (size_t) length + 1);
	vsnprintf(line->text + line->used, (size_t) length + 1, format, again);
	line->used += (size_t) length;
	va_end(again);
}

void line_add(struct line *line, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	add(line, format, arguments);
	va_end(arguments);
}

static void add_octet(struct line *line, unsigned char octet)
{
	if (octet == '"' || octet == '\\')
		line_add(line, "\\%c", octet);
	else if (octet == '\n')
		line_add(line, "\\n");
	else if (octet == '\r')
		line_add(line, "\\r");
	else if (octet < 128 && isprint(octet))
		line_add(line, "%c", octet);
	else
		line_add(line, "\\x%02x", octet);
}

void line_add_text(struct line *line, const char *text, size_t length)
{
	size_t at, same = 0;

	if (text == NULL) {
		line_add(line, " NULL");
		return;
	}
	while (same < length && text[same] == text[0])
		same++;
	line_add(line, " \"");
	for (at = 0; at < (same == length && same > RUN ? 1 : length); at++)
		add_octet(line, (unsigned char) text[at]);
	line_add(line, "\"");
	if (same == length && same > RUN)
		line_add(line, "*%zu", same);
}

void line_add_string(struct line *line, const char *string)
{
	line_add_text(line, string, string == NULL ? 0 : strlen(string));
}

void line_end(struct line *line)
{
	int kept = errno;

	line_add(line, "\n");
	if (write(JOURNAL, line->text, line->used) != (ssize_t) line->used)
		abort();
	free(line->text);
	errno = kept;
}

void record(const char *format, ...)
{
	struct line line = EMPTY_LINE;
	va_list arguments;

	va_start(arguments, format);
	add(&line, format, arguments);
	va_end(arguments);
	line_end(&line);
}

/*
 * The program's own definitions of the syslog functions take the place of the C library's for the
 * shared objects it loads too, because they are in its dynamic symbol table (-rdynamic).
 */

static void capture(int priority, const char *format, va_list arguments)
{
	struct line line = EMPTY_LINE;
	char *text;
	int length = vasprintf(&text, format, arguments);

	if (length < 0)
		abort();
	line_add(&line, "log %d", priority & 7);
	line_add_text(&line, text, (size_t) length);
	free(text);
	line_end(&line);
}

void vsyslog(int priority, const char *format, va_list arguments)
{
	capture(priority, format, arguments);
}

void syslog(int priority, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	capture(priority, format, arguments);
	va_end(arguments);
}

/* The names that glibc's fortified headers substitute. */
void __syslog_chk(int priority, int flag, const char *format, ...);
void __vsyslog_chk(int priority, int flag, const char *format, va_list arguments);

void __syslog_chk(int priority, int flag, const char *format, ...)
{
	va_list arguments;

	(void) flag;
	va_start(arguments, format);
	capture(priority, format, arguments);
	va_end(arguments);
}

void __vsyslog_chk(int priority, int flag, const char *format, va_list arguments)
{
	(void) flag;
	capture(priority, format, arguments);
}
