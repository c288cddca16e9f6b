/* Reading plans. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recorder.h"

struct plan plan = { "recorder", 0x01000001, 0x1ff, NULL, NULL };

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(99);
}

static char *grow(size_t size)
{
	char *memory = malloc(size);

	if (memory == NULL)
		fail("out of memory");
	return memory;
}

static int unescape(const char **at)
{
	char digits[3] = { 0, 0, 0 };

	switch (*(*at)++) {
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case '"':
		return '"';
	case '\\':
		return '\\';
	case 'x':
		if (!isxdigit((unsigned char) (*at)[0]) || !isxdigit((unsigned char) (*at)[1]))
			fail("plan: \\x needs two digits");
		memcpy(digits, *at, 2);
		*at += 2;
		return (int) strtol(digits, NULL, 16);
	default:
		fail("plan: unknown escape \\%c", (*at)[-1]);
	}
}

/* "text", or "text"*3 for three copies. */
static struct word quoted(const char **at)
{
	char *text = grow(strlen(*at) + 1);
	size_t length = 0, copy, copies = 1;
	struct word word;

	for (++*at; **at != '"'; ) {
		if (**at == '\0')
			fail("plan: missing quote");
		if (**at == '\\') {
			++*at;
			text[length++] = (char) unescape(at);
		} else {
			text[length++] = *(*at)++;
		}
	}
	++*at;
	if (**at == '*')
		copies = strtoul(*at + 1, (char **) at, 10);
	word.length = length * copies;
	word.text = grow(word.length + 1);
	for (copy = 0; copy < copies; copy++)
		memcpy(word.text + copy * length, text, length);
	word.text[word.length] = '\0';
	free(text);
	return word;
}

static struct word bare(const char **at, char *socket)
{
	const char *start = *at;
	struct word word;

	while (**at != '\0' && !isspace((unsigned char) **at))
		++*at;
	word.length = (size_t) (*at - start);
	word.text = strndup(start, word.length);
	if (strcmp(word.text, "NULL") == 0) {
		word.text = NULL;
		word.length = 0;
	} else if (strcmp(word.text, "$socket") == 0) {
		word.text = socket;
		word.length = strlen(socket);
	}
	return word;
}

static int split(const char *text, struct word *words, char *socket)
{
	int count = 0;

	for (;;) {
		while (isspace((unsigned char) *text))
			text++;
		if (*text == '\0' || *text == '#')
			return count;
		if (count == WORDS)
			fail("plan: more than %d words in a line", WORDS);
		words[count++] = *text == '"' ? quoted(&text) : bare(&text, socket);
	}
}

static char *joined(const struct word *words, int count)
{
	struct line line = EMPTY_LINE;
	int at;

	line_add(&line, " ");
	for (at = 0; at < count; at++)
		line_add(&line, "%s ", words[at].text);
	return line.text;
}

static void add_step(char *event, const struct word *words, int count)
{
	static struct step **end = &plan.steps;
	struct step *step = calloc(1, sizeof *step);
	char *number = strchr(event, '#');

	if (step == NULL || count < 1)
		fail("plan: '%s' without a step", event);
	if (number != NULL) {
		*number = '\0';
		step->nth = strtoul(number + 1, NULL, 10);
	}
	step->event = event;
	step->count = count;
	memcpy(step->words, words, (size_t) count * sizeof *words);
	*end = step;
	end = &step->next;
}

long word_number(const struct word *word)
{
	char *end;
	long number;

	if (word->text == NULL)
		fail("plan: NULL is not a number");
	number = strtol(word->text, &end, 0);
	if (end == word->text || *end != '\0')
		fail("plan: '%s' is not a number", word->text);
	return number;
}

void plan_read(const char *path, char *socket)
{
	FILE *file = fopen(path, "re");

	if (file == NULL)
		fail("%s: %s", path, strerror(errno));
	plan_parse(file, socket);
}

void plan_parse(FILE *file, char *socket)
{
	struct word words[WORDS];
	char *text = NULL;
	size_t room = 0;

	while (getline(&text, &room, file) > 0) {
		int count = split(text, words, socket);

		if (count == 0)
			continue;
		if (count > 1 && (strcmp(words[0].text, "start") == 0 || strcmp(words[0].text, "before") == 0))
			add_step(words[0].text, words + 1, count - 1);
		else if (count > 2 && strcmp(words[0].text, "on") == 0)
			add_step(words[1].text, words + 2, count - 2);
		else if (count == 2 && strcmp(words[0].text, "name") == 0)
			plan.name = words[1].text;
		else if (count == 2 && strcmp(words[0].text, "version") == 0)
			plan.version = (int) word_number(&words[1]);
		else if (count == 2 && strcmp(words[0].text, "flags") == 0)
			plan.flags = (unsigned long) word_number(&words[1]);
		else if (strcmp(words[0].text, "callbacks") == 0)
			plan.callbacks = joined(words + 1, count - 1);
		else
			fail("plan: cannot read '%s'", text);
	}
	free(text);
	fclose(file);
}
