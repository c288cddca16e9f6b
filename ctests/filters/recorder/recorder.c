/* Usage: recorder PLAN RECORD [SOCKET], or recorder --serve RECORD PATH */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

#include "recorder.h"

const char *program_path, *journal_path;

enum event {
	CONNECT, HELO, ENVFROM, ENVRCPT, HEADER, EOH, BODY, EOM, ABORT, CLOSE, UNKNOWN, DATA, NEGOTIATE, EVENTS
};

static const char *const event_names[EVENTS] = {
	"connect", "helo", "envfrom", "envrcpt", "header", "eoh", "body", "eom", "abort", "close", "unknown",
	"data", "negotiate"
};

/* Of all processes together: some models serve sessions in children. */
static atomic_ulong *calls;

static void start_counting(void)
{
	calls = mmap(NULL, EVENTS * sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (calls == MAP_FAILED)
		fail("no memory");
}

/* Runs the steps planned for this call of the callback. */
static sfsistat perform(SMFICTX *context, enum event event, unsigned long **outputs)
{
	struct scene scene = { context, outputs, SMFIS_CONTINUE };
	const struct step *step;
	unsigned long call;

	call = atomic_fetch_add(&calls[event], 1) + 1;
	for (step = plan.steps; step != NULL; step = step->next)
		if (strcmp(step->event, event_names[event]) == 0 && (step->nth == 0 || step->nth == call))
			step_run(step, &scene);
	return (sfsistat) scene.verdict;
}

/* What the library passes may be written to; overwriting it shows when it is used again. */
static void scribble(char *text, size_t length)
{
	memset(text, '~', length);
}

static void record_texts(enum event event, char **texts)
{
	struct line line = EMPTY_LINE;
	size_t at;

	line_add(&line, "%s", event_names[event]);
	for (at = 0; texts[at] != NULL; at++)
		line_add_string(&line, texts[at]);
	line_end(&line);
	for (at = 0; texts[at] != NULL; at++)
		scribble(texts[at], strlen(texts[at]));
}

static void add_address(struct line *line, const _SOCK_ADDR *address)
{
	static const unsigned char zero[8];
	const struct sockaddr_in *inet = (const void *) address;
	const struct sockaddr_in6 *inet6 = (const void *) address;
	const struct sockaddr_un *local = (const void *) address;
	char text[INET6_ADDRSTRLEN];

	if (address == NULL) {
		line_add(line, " NULL");
	} else if (address->sa_family == AF_INET) {
		line_add(line, " inet %d %s%s", ntohs(inet->sin_port),
		    inet_ntop(AF_INET, &inet->sin_addr, text, sizeof text),
		    memcmp(inet->sin_zero, zero, sizeof zero) == 0 ? "" : " padded");
	} else if (address->sa_family == AF_INET6) {
		line_add(line, " inet6 %d %s", ntohs(inet6->sin6_port),
		    inet_ntop(AF_INET6, &inet6->sin6_addr, text, sizeof text));
		if (inet6->sin6_flowinfo != 0 || inet6->sin6_scope_id != 0)
			line_add(line, " flow %u scope %u", inet6->sin6_flowinfo, inet6->sin6_scope_id);
	} else if (address->sa_family == AF_UNIX) {
		line_add(line, " unix");
		line_add_string(line, local->sun_path);
	} else {
		line_add(line, " family %d", address->sa_family);
	}
}

static sfsistat on_connect(SMFICTX *context, char *host, _SOCK_ADDR *address)
{
	struct line line = EMPTY_LINE;

	line_add(&line, "connect");
	line_add_string(&line, host);
	add_address(&line, address);
	line_end(&line);
	scribble(host, strlen(host));
	if (address != NULL)
		scribble((char *) address, sizeof *address);
	return perform(context, CONNECT, NULL);
}

static sfsistat on_helo(SMFICTX *context, char *name)
{
	char *texts[] = { name, NULL };

	record_texts(HELO, texts);
	return perform(context, HELO, NULL);
}

static sfsistat on_envfrom(SMFICTX *context, char **arguments)
{
	record_texts(ENVFROM, arguments);
	arguments[0] = NULL;
	return perform(context, ENVFROM, NULL);
}

static sfsistat on_envrcpt(SMFICTX *context, char **arguments)
{
	record_texts(ENVRCPT, arguments);
	arguments[0] = NULL;
	return perform(context, ENVRCPT, NULL);
}

static sfsistat on_header(SMFICTX *context, char *name, char *value)
{
	char *texts[] = { name, value, NULL };

	record_texts(HEADER, texts);
	return perform(context, HEADER, NULL);
}

static sfsistat on_body(SMFICTX *context, unsigned char *data, size_t length)
{
	struct line line = EMPTY_LINE;

	line_add(&line, "body");
	line_add_text(&line, (char *) data, length);
	line_end(&line);
	scribble((char *) data, length);
	return perform(context, BODY, NULL);
}

static sfsistat on_unknown(SMFICTX *context, const char *command)
{
	struct line line = EMPTY_LINE;

	line_add(&line, "unknown");
	line_add_string(&line, command);
	line_end(&line);
	return perform(context, UNKNOWN, NULL);
}

static sfsistat plain(SMFICTX *context, enum event event)
{
	record("%s", event_names[event]);
	return perform(context, event, NULL);
}

static sfsistat on_eoh(SMFICTX *context)
{
	return plain(context, EOH);
}

static sfsistat on_eom(SMFICTX *context)
{
	return plain(context, EOM);
}

static sfsistat on_abort(SMFICTX *context)
{
	return plain(context, ABORT);
}

static sfsistat on_close(SMFICTX *context)
{
	return plain(context, CLOSE);
}

static sfsistat on_data(SMFICTX *context)
{
	return plain(context, DATA);
}

static sfsistat on_negotiate(SMFICTX *context, unsigned long f0, unsigned long f1, unsigned long f2,
    unsigned long f3, unsigned long *pf0, unsigned long *pf1, unsigned long *pf2, unsigned long *pf3)
{
	unsigned long *outputs[] = { pf0, pf1, pf2, pf3 };

	record("negotiate f0=%lx f1=%lx f2=%lx f3=%lx *p0=%lx *p1=%lx *p2=%lx *p3=%lx", f0, f1, f2, f3, *pf0,
	    *pf1, *pf2, *pf3);
	return perform(context, NEGOTIATE, outputs);
}

static int wanted(enum event event)
{
	struct line name = EMPTY_LINE;
	int found;

	if (plan.callbacks == NULL)
		return event != NEGOTIATE;
	line_add(&name, " %s ", event_names[event]);
	found = strstr(plan.callbacks, name.text) != NULL;
	free(name.text);
	return found;
}

struct smfiDesc filter_descriptor(void)
{
	struct smfiDesc filter;

	memset(&filter, 0, sizeof filter);
	filter.xxfi_name = plan.name == NULL ? NULL : strdup(plan.name);
	filter.xxfi_version = plan.version;
	filter.xxfi_flags = plan.flags;
	filter.xxfi_connect = wanted(CONNECT) ? on_connect : NULL;
	filter.xxfi_helo = wanted(HELO) ? on_helo : NULL;
	filter.xxfi_envfrom = wanted(ENVFROM) ? on_envfrom : NULL;
	filter.xxfi_envrcpt = wanted(ENVRCPT) ? on_envrcpt : NULL;
	filter.xxfi_header = wanted(HEADER) ? on_header : NULL;
	filter.xxfi_eoh = wanted(EOH) ? on_eoh : NULL;
	filter.xxfi_body = wanted(BODY) ? on_body : NULL;
	filter.xxfi_eom = wanted(EOM) ? on_eom : NULL;
	filter.xxfi_abort = wanted(ABORT) ? on_abort : NULL;
	filter.xxfi_close = wanted(CLOSE) ? on_close : NULL;
	filter.xxfi_unknown = wanted(UNKNOWN) ? on_unknown : NULL;
	filter.xxfi_data = wanted(DATA) ? on_data : NULL;
	filter.xxfi_negotiate = wanted(NEGOTIATE) ? on_negotiate : NULL;
	return filter;
}

/* Runs the steps of an event outside of callbacks; says whether there were any. */
static int run_steps(const char *event)
{
	struct scene scene = { NULL, NULL, 0 };
	const struct step *step;
	int found = 0;

	for (step = plan.steps; step != NULL; step = step->next)
		if (strcmp(step->event, event) == 0) {
			found = 1;
			step_run(step, &scene);
		}
	return found;
}

/* The usual order of calls, for plans that do not say "start". */
static int run_usual(const char *socket)
{
	run_steps("before");
	if (smfi_setconn((char *) socket) != MI_SUCCESS || smfi_register(filter_descriptor()) != MI_SUCCESS ||
	    smfi_opensocket(0) != MI_SUCCESS)
		fail("the library refuses %s", socket);
	record("ready");
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}

int main(int argc, char **argv)
{
	static char none[] = "";
	char *socket = argc == 4 ? argv[3] : none;
	int passed = getenv("LISTEN_FDS") != NULL ? atoi(getenv("LISTEN_FDS")) : 0;

	if (argc == 3 && strcmp(argv[1], "--inherited") == 0)
		return report_inheritance(argv[2]);
	if (argc < 3 || argc > 4)
		fail("usage: recorder PLAN RECORD [SOCKET] or recorder --serve RECORD PATH");
	/* Whatever the program that started us has left open; not what a service manager passes on. */
	close_range(3 + (passed > 0 && passed < 100 ? passed : 0), ~0U, 0);
	program_path = argv[0];
	journal_path = argv[2];
	if (strcmp(argv[1], "--serve") == 0) {
		const char *inherited;

		journal_open(journal_path);
		inherited = serve(socket);
		start_counting();
		return run_usual(inherited);
	}
	plan_read(argv[1], socket);
	journal_open(journal_path);
	start_counting();
	return run_steps("start") ? 0 : run_usual(socket);
}
