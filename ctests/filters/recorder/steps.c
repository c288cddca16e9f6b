/* The calls of the library that a plan can ask for. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "recorder.h"

char *text(const struct word *words, int count, int at)
{
	return at < count ? words[at].text : NULL;
}

long number(const struct word *words, int count, int at)
{
	if (at >= count)
		fail("plan: '%s' lacks argument %d", words[0].text, at);
	return word_number(&words[at]);
}

/* Calls that take a context. */

static void step_setreply(struct scene *scene, const struct word *words, int count)
{
	record("setreply %d", smfi_setreply(scene->context, text(words, count, 1), text(words, count, 2),
	    text(words, count, 3)));
}

static void step_setmlreply(struct scene *scene, const struct word *words, int count)
{
	char *l[40];
	int at;

	for (at = 0; at < 40; at++)
		l[at] = text(words, count, at + 3);
	/* Everything from the first null pointer on is never read. */
	record("setmlreply %d", smfi_setmlreply(scene->context, text(words, count, 1), text(words, count, 2),
	    l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7], l[8], l[9], l[10], l[11], l[12], l[13], l[14],
	    l[15], l[16], l[17], l[18], l[19], l[20], l[21], l[22], l[23], l[24], l[25], l[26], l[27], l[28],
	    l[29], l[30], l[31], l[32], l[33], l[34], l[35], l[36], l[37], l[38], l[39], (char *) NULL));
}

static void step_addheader(struct scene *scene, const struct word *words, int count)
{
	record("addheader %d", smfi_addheader(scene->context, text(words, count, 1), text(words, count, 2)));
}

static void step_insheader(struct scene *scene, const struct word *words, int count)
{
	record("insheader %d", smfi_insheader(scene->context, (int) number(words, count, 1),
	    text(words, count, 2), text(words, count, 3)));
}

static void step_chgheader(struct scene *scene, const struct word *words, int count)
{
	record("chgheader %d", smfi_chgheader(scene->context, text(words, count, 1),
	    (int) number(words, count, 2), text(words, count, 3)));
}

static void step_chgfrom(struct scene *scene, const struct word *words, int count)
{
	record("chgfrom %d", smfi_chgfrom(scene->context, text(words, count, 1), text(words, count, 2)));
}

static void step_addrcpt(struct scene *scene, const struct word *words, int count)
{
	record("addrcpt %d", smfi_addrcpt(scene->context, text(words, count, 1)));
}

static void step_addrcpt_par(struct scene *scene, const struct word *words, int count)
{
	record("addrcpt_par %d", smfi_addrcpt_par(scene->context, text(words, count, 1), text(words, count, 2)));
}

static void step_delrcpt(struct scene *scene, const struct word *words, int count)
{
	record("delrcpt %d", smfi_delrcpt(scene->context, text(words, count, 1)));
}

static void step_replacebody(struct scene *scene, const struct word *words, int count)
{
	int length = count > 2 ? (int) number(words, count, 2) : count > 1 ? (int) words[1].length : 0;

	record("replacebody %d", smfi_replacebody(scene->context, (unsigned char *) text(words, count, 1),
	    length));
}

static void step_quarantine(struct scene *scene, const struct word *words, int count)
{
	record("quarantine %d", smfi_quarantine(scene->context, text(words, count, 1)));
}

static void step_progress(struct scene *scene, const struct word *words, int count)
{
	(void) words, (void) count;
	record("progress %d", smfi_progress(scene->context));
}

static void step_getsymval(struct scene *scene, const struct word *words, int count)
{
	struct line line = EMPTY_LINE;
	char *value = smfi_getsymval(scene->context, text(words, count, 1));

	line_add(&line, "getsymval");
	line_add_string(&line, text(words, count, 1));
	line_add_string(&line, value);
	line_end(&line);
}

static void step_setpriv(struct scene *scene, const struct word *words, int count)
{
	void *value = text(words, count, 1) == NULL ? NULL : (void *) number(words, count, 1);

	record("setpriv %d", smfi_setpriv(scene->context, value));
}

static void step_getpriv(struct scene *scene, const struct word *words, int count)
{
	(void) words, (void) count;
	record("getpriv %ld", (long) smfi_getpriv(scene->context));
}

static void step_setsymlist(struct scene *scene, const struct word *words, int count)
{
	record("setsymlist %d", smfi_setsymlist(scene->context, (int) number(words, count, 1),
	    text(words, count, 2)));
}

/* Calls that take none. */

static void step_register(struct scene *scene, const struct word *words, int count)
{
	(void) scene, (void) words, (void) count;
	record("register %d", smfi_register(filter_descriptor()));
}

static void step_setconn(struct scene *scene, const struct word *words, int count)
{
	char *description = text(words, count, 1);
	char *copy = description == NULL ? NULL : strdup(description);

	(void) scene;
	record("setconn %d", smfi_setconn(description));
	if (copy != NULL && strcmp(copy, description) != 0)
		record("the caller's description was changed");
	free(copy);
}

static void step_opensocket(struct scene *scene, const struct word *words, int count)
{
	/* As an int: the header's bool may be one octet wide, the callee has to cope with both. */
	int (*open)(int) = (int (*)(int)) (void *) smfi_opensocket;

	(void) scene;
	record("opensocket %d", open(count > 1 ? (int) number(words, count, 1) : 0));
}

static void step_setbacklog(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	record("setbacklog %d", smfi_setbacklog((int) number(words, count, 1)));
}

static void step_settimeout(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	record("settimeout %d", smfi_settimeout((int) number(words, count, 1)));
}

static void step_setdbg(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	record("setdbg %d", smfi_setdbg((int) number(words, count, 1)));
}

static void step_setmaxdatasize(struct scene *scene, const struct word *words, int count)
{
	(void) scene;
	record("setmaxdatasize %zu", smfi_setmaxdatasize((size_t) number(words, count, 1)));
}

static void step_version(struct scene *scene, const struct word *words, int count)
{
	unsigned int major = 77, minor = 77, patch = 77;
	int result = smfi_version(&major, &minor, &patch);

	(void) scene, (void) words, (void) count;
	record("version %d %u.%u.%u", result, major, minor, patch);
	record("version of nothing %d", smfi_version(NULL, NULL, NULL));
}

static void step_stop(struct scene *scene, const struct word *words, int count)
{
	(void) scene, (void) words, (void) count;
	record("stop %d", smfi_stop());
}

static void step_main(struct scene *scene, const struct word *words, int count)
{
	int result;

	(void) scene, (void) words, (void) count;
	errno = 0;
	result = smfi_main();
	record("main %d errno %s", result, errno == 0 ? "0" : "set");
}

static void step_without_context(struct scene *scene, const struct word *words, int count)
{
	struct scene nothing = { NULL, NULL, 0 };
	static char v[] = "v", code[] = "550";

	(void) scene, (void) count;
	if (words[1].text != NULL && strcmp(words[1].text, "setsymlist") == 0) {
		record("setsymlist %d", smfi_setsymlist(NULL, 0, v));
		return;
	}
	record("getpriv %s", smfi_getpriv(NULL) == NULL ? "NULL" : "not NULL");
	record("setpriv %d", smfi_setpriv(NULL, v));
	record("getsymval %s", smfi_getsymval(NULL, v) == NULL ? "NULL" : "not NULL");
	record("setreply %d", smfi_setreply(NULL, code, NULL, v));
	record("setmlreply %d", smfi_setmlreply(NULL, code, NULL, v, (char *) NULL));
	record("addheader %d", smfi_addheader(NULL, v, v));
	record("insheader %d", smfi_insheader(NULL, 0, v, v));
	record("chgheader %d", smfi_chgheader(NULL, v, 0, v));
	record("chgfrom %d", smfi_chgfrom(NULL, v, v));
	record("addrcpt %d", smfi_addrcpt(NULL, v));
	record("addrcpt_par %d", smfi_addrcpt_par(NULL, v, v));
	record("delrcpt %d", smfi_delrcpt(NULL, v));
	record("replacebody %d", smfi_replacebody(NULL, (unsigned char *) v, 1));
	record("quarantine %d", smfi_quarantine(NULL, v));
	step_progress(&nothing, words, 1);
}

static const struct named_action calls[] = {
	{ "setreply", step_setreply }, { "setmlreply", step_setmlreply }, { "addheader", step_addheader },
	{ "insheader", step_insheader }, { "chgheader", step_chgheader }, { "chgfrom", step_chgfrom },
	{ "addrcpt", step_addrcpt }, { "addrcpt_par", step_addrcpt_par }, { "delrcpt", step_delrcpt }, { "replacebody", step_replacebody },
	{ "quarantine", step_quarantine }, { "progress", step_progress }, { "getsymval", step_getsymval },
	{ "setpriv", step_setpriv }, { "getpriv", step_getpriv }, { "setsymlist", step_setsymlist },
	{ "register", step_register }, { "setconn", step_setconn }, { "opensocket", step_opensocket },
	{ "setbacklog", step_setbacklog }, { "settimeout", step_settimeout }, { "setdbg", step_setdbg },
	{ "setmaxdatasize", step_setmaxdatasize }, { "version", step_version }, { "stop", step_stop },
	{ "main", step_main }, { "without-context", step_without_context },
	{ NULL, NULL }
};

static action *find(const struct named_action *table, const char *name)
{
	for (; table->name != NULL; table++)
		if (strcmp(name, table->name) == 0)
			return table->run;
	return NULL;
}

void step_run(const struct step *step, struct scene *scene)
{
	const char *name = step->words[0].text == NULL ? "NULL" : step->words[0].text;
	action *run = find(calls, name);

	if (run == NULL)
		run = find(deeds, name);
	if (run == NULL)
		fail("plan: unknown step '%s'", name);
	run(scene, step->words, step->count);
}
