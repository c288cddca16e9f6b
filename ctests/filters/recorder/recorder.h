/*
 * The recorder: a filter that does what a plan says and records what happens to it.
 * ctests/README.md describes the language of plans and the lines of the record.
 */
#ifndef RECORDER_H
#define RECORDER_H

#include <stddef.h>
#include <stdio.h>
#include <libmilter/mfapi.h>

/* journal.c: the record, one line per event, written at once and in order. */

struct line {
	char *text;
	size_t used, room;
};

#define EMPTY_LINE { NULL, 0, 0 }

void journal_open(const char *path);
/* The descriptor that closing all descriptors has to spare. */
int journal_descriptor(void);
void line_add(struct line *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A quoted string, or NULL. */
void line_add_text(struct line *, const char *text, size_t length);
void line_add_string(struct line *, const char *string);
/* Writes the line and releases it. */
void line_end(struct line *);
void record(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* plan.c: what to do when. */

struct word {
	char *text;             /* NUL-terminated; the null pointer for the word NULL */
	size_t length;
};

enum { WORDS = 48 };

struct step {
	const char *event;      /* "before", "start", or the callback */
	unsigned long nth;      /* only in the n-th call of that callback; 0: in each */
	struct word words[WORDS];
	int count;
	struct step *next;
};

struct plan {
	const char *name;
	int version;
	unsigned long flags;
	const char *callbacks;  /* each between two blanks; NULL: all but negotiate */
	struct step *steps;
};

extern struct plan plan;

/* Words of the form $socket stand for `socket`. */
void plan_read(const char *path, char *socket);
/* Reads the file to its end and closes it. */
void plan_parse(FILE *, char *socket);
long word_number(const struct word *);
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* steps.c: the library calls a plan can ask for; deeds.c: what else it can. */

/* What a step may need from the callback it runs in. */
struct scene {
	SMFICTX *context;       /* the null pointer outside of callbacks */
	unsigned long **outputs; /* the four of xxfi_negotiate, or the null pointer */
	long verdict;           /* what the callback will return */
};

typedef void action(struct scene *, const struct word *, int count);

struct named_action {
	const char *name;
	action *run;
};

extern const struct named_action deeds[];       /* ends with a null name */

void step_run(const struct step *, struct scene *);
/* Argument `at` of a step; a missing one is NULL as text and an error as number. */
char *text(const struct word *, int count, int at);
long number(const struct word *, int count, int at);
/* What an exec'd child reports about the state it inherited. */
int report_inheritance(const char *journal);

/* serve.c: returns, in a new process for each plan, the description of the socket to serve. */
const char *serve(const char *path);

/* recorder.c */

/* The descriptor made from the plan. */
struct smfiDesc filter_descriptor(void);
extern const char *program_path, *journal_path;

#endif
