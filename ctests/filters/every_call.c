/*
 * A filter with every callback that makes every call of the interface and tells in the message
 * what it saw.
 *
 *   usage: every_call SOCKET [quarantine]
 *
 * A client that says HELO stop makes it call smfi_stop, the sender leave@... ends the thread.
 */

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <netinet/in.h>
#include <arpa/inet.h>

#include <libmilter/mfapi.h>

#define PARAGRAPH "This line stands in place of what was here before.\r\n"
#define LARGE	  100000	/* octets: more than one packet */

/* What a session has told so far, as one line of text. */
struct notes {
	char *text;
	size_t length;
	unsigned messages;
	unsigned long body;
};

static int quarantine;
static const char *failed;

/* Remembers the first call that did not give what it should. */
#define CHECK(condition) \
	do { \
		if (!(condition) && failed == NULL) \
			failed = #condition; \
	} while (0)

static void
note(SMFICTX *ctx, const char *format, ...)
{
	struct notes *notes = smfi_getpriv(ctx);
	char piece[512];
	size_t length;
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(piece, sizeof piece, format, arguments);
	va_end(arguments);
	length = strlen(piece);
	notes->text = realloc(notes->text, notes->length + length + 1);
	if (notes->text == NULL)
		abort();
	memcpy(notes->text + notes->length, piece, length + 1);
	notes->length += length;
}

static void
forget(SMFICTX *ctx)
{
	struct notes *notes = smfi_getpriv(ctx);

	/* A connection that said nothing has none. */
	if (notes != NULL) {
		free(notes->text);
		free(notes);
	}
	CHECK(smfi_setpriv(ctx, NULL) == MI_SUCCESS);
}

static void
note_list(SMFICTX *ctx, const char *what, char **words)
{
	note(ctx, "%s", what);
	for (; *words != NULL; words++)
		note(ctx, " %s", *words);
	note(ctx, "; ");
}

static const char *
macro(SMFICTX *ctx, char *name)
{
	char *value = smfi_getsymval(ctx, name);

	return value != NULL ? value : "unset";
}

static sfsistat
on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps,
    unsigned long reserved1, unsigned long reserved2,
    unsigned long *wanted, unsigned long *unwanted,
    unsigned long *answer1, unsigned long *answer2)
{
	(void)reserved1, (void)reserved2;
	*wanted = actions;
	/* Every callback and every reply, and what filters may have besides. */
	*unwanted = steps & (SMFIP_SKIP | SMFIP_RCPT_REJ);
	*answer1 = *answer2 = 0;
	if (actions & SMFIF_SETSYMLIST) {
		CHECK(smfi_setsymlist(ctx, SMFIM_CONNECT, "j _ {daemon_name} v") == MI_SUCCESS);
		CHECK(smfi_setsymlist(ctx, SMFIM_HELO, "") == MI_SUCCESS);
		CHECK(smfi_setsymlist(ctx, SMFIM_ENVFROM, "i {mail_addr} {mail_mailer}") == MI_SUCCESS);
		CHECK(smfi_setsymlist(ctx, SMFIM_ENVRCPT, "{rcpt_addr}") == MI_SUCCESS);
		CHECK(smfi_setsymlist(ctx, SMFIM_DATA, "i") == MI_SUCCESS);
		CHECK(smfi_setsymlist(ctx, SMFIM_EOH, "i") == MI_SUCCESS);
		CHECK(smfi_setsymlist(ctx, SMFIM_EOM, "i {msg_id}") == MI_SUCCESS);
		CHECK(smfi_setsymlist(ctx, SMFIM_EOM, "i") == MI_FAILURE);
	}
	return SMFIS_CONTINUE;
}

static sfsistat
on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
	struct notes *notes = calloc(1, sizeof *notes);
	char text[INET6_ADDRSTRLEN] = "none";

	if (notes == NULL)
		return SMFIS_TEMPFAIL;
	CHECK(smfi_getpriv(ctx) == NULL);
	CHECK(smfi_setpriv(ctx, notes) == MI_SUCCESS);
	if (address != NULL && address->sa_family == AF_INET) {
		struct sockaddr_in *internet = (struct sockaddr_in *)address;

		inet_ntop(AF_INET, &internet->sin_addr, text, sizeof text);
	} else if (address != NULL && address->sa_family == AF_INET6) {
		struct sockaddr_in6 *internet = (struct sockaddr_in6 *)address;

		inet_ntop(AF_INET6, &internet->sin6_addr, text, sizeof text);
	}
	note(ctx, "connect %s %s for %s (%s); ", host, text,
	    macro(ctx, "j"), macro(ctx, "{daemon_name}"));
	return SMFIS_CONTINUE;
}

static sfsistat
on_helo(SMFICTX *ctx, char *name)
{
	note(ctx, "helo %s; ", name);
	if (strcmp(name, "stop") == 0)
		CHECK(smfi_stop() == MI_SUCCESS);
	return SMFIS_CONTINUE;
}

static sfsistat
on_unknown(SMFICTX *ctx, const char *command)
{
	note(ctx, "unknown %s; ", command);
	CHECK(smfi_setreply(ctx, "500", "5.5.1", "What is that?") == MI_SUCCESS);
	return SMFIS_REJECT;
}

static sfsistat
on_envfrom(SMFICTX *ctx, char **words)
{
	struct notes *notes = smfi_getpriv(ctx);

	notes->messages++;
	notes->body = 0;
	note_list(ctx, "from", words);
	note(ctx, "sender %s; ", macro(ctx, "{mail_addr}"));
	if (strncasecmp(words[0], "<later@", 7) == 0) {
		CHECK(smfi_setreply(ctx, "451", NULL, "Come back later") == MI_SUCCESS);
		return SMFIS_TEMPFAIL;
	}
	if (strncasecmp(words[0], "<leave@", 7) == 0) {
		forget(ctx);
		pthread_exit(NULL);
	}
	return SMFIS_CONTINUE;
}

static sfsistat
on_envrcpt(SMFICTX *ctx, char **words)
{
	note_list(ctx, "to", words);
	note(ctx, "recipient %s; ", macro(ctx, "{rcpt_addr}"));
	if (strncasecmp(words[0], "<never@", 7) == 0) {
		CHECK(smfi_setmlreply(ctx, "550", "5.7.1", "Never.", "Not on a Sunday, not on a Monday.",
		    "Do not ask again.", (char *)NULL) == MI_SUCCESS);
		return SMFIS_REJECT;
	}
	return SMFIS_CONTINUE;
}

static sfsistat
on_data(SMFICTX *ctx)
{
	note(ctx, "data; ");
	return SMFIS_CONTINUE;
}

static sfsistat
on_header(SMFICTX *ctx, char *name, char *value)
{
	note(ctx, "header %s %lu; ", name, (unsigned long)strlen(value));
	return SMFIS_CONTINUE;
}

static sfsistat
on_eoh(SMFICTX *ctx)
{
	/* Too early for any of these. */
	CHECK(smfi_addheader(ctx, "X-Early", "yes") == MI_FAILURE);
	CHECK(smfi_quarantine(ctx, "early") == MI_FAILURE);
	note(ctx, "eoh; ");
	return SMFIS_CONTINUE;
}

static sfsistat
on_body(SMFICTX *ctx, unsigned char *piece, size_t length)
{
	struct notes *notes = smfi_getpriv(ctx);
	size_t at;

	/* Readable to the last octet, and ours to scribble on. */
	for (at = 0; at < length; at++)
		piece[at] ^= 0x20;
	notes->body += length;
	return SMFIS_CONTINUE;
}

static void
change_recipients(SMFICTX *ctx)
{
	CHECK(smfi_addrcpt(ctx, "<added@harbour.example>") == MI_SUCCESS);
	/* Not every MTA lets a filter give arguments. */
	if (smfi_addrcpt_par(ctx, "<silent@harbour.example>", "NOTIFY=NEVER") != MI_SUCCESS)
		CHECK(smfi_addrcpt(ctx, "<silent@harbour.example>") == MI_SUCCESS);
	CHECK(smfi_delrcpt(ctx, "<removed@harbour.example>") == MI_SUCCESS);
}

static void
replace_body(SMFICTX *ctx)
{
	static const char paragraph[] = PARAGRAPH;
	unsigned char *large = malloc(LARGE);
	size_t at;

	if (large == NULL)
		abort();
	for (at = 0; at < LARGE; at++)
		large[at] = paragraph[at % (sizeof paragraph - 1)];
	CHECK(smfi_replacebody(ctx, large, LARGE) == MI_SUCCESS);
	free(large);
	CHECK(smfi_replacebody(ctx, NULL, 0) == MI_SUCCESS);
	CHECK(smfi_replacebody(ctx, (unsigned char *)"\r\nThe end.\r\n", 12) == MI_SUCCESS);
}

static sfsistat
on_eom(SMFICTX *ctx)
{
	struct notes *notes = smfi_getpriv(ctx);

	note(ctx, "body %lu; message %u, %s its name", notes->body, notes->messages,
	    smfi_getsymval(ctx, "i") != NULL ? "with" : "without");
	CHECK(smfi_progress(ctx) == MI_SUCCESS);
	CHECK(smfi_chgheader(ctx, "Subject", 1, "changed on the way") == MI_SUCCESS);
	CHECK(smfi_chgheader(ctx, "X-Remove", 2, "") == MI_SUCCESS);
	CHECK(smfi_chgheader(ctx, "X-Remove", 1, NULL) == MI_SUCCESS);
	CHECK(smfi_chgheader(ctx, "X-Absent", 1, "appears") == MI_SUCCESS);
	CHECK(smfi_insheader(ctx, 0, "X-First", "in front") == MI_SUCCESS);
	CHECK(smfi_insheader(ctx, 2, "X-Third", "two\n\tlines") == MI_SUCCESS);
	CHECK(smfi_addheader(ctx, "X-Notes", notes->text) == MI_SUCCESS);
	CHECK(smfi_addheader(ctx, "X-Empty", "") == MI_SUCCESS);
	CHECK(smfi_addheader(ctx, "", "nameless") == MI_FAILURE);
	CHECK(smfi_chgfrom(ctx, "<changed@harbour.example>", NULL) == MI_SUCCESS);
	change_recipients(ctx);
	replace_body(ctx);
	if (quarantine)
		CHECK(smfi_quarantine(ctx, "because it was asked for") == MI_SUCCESS);
	CHECK(smfi_addheader(ctx, "X-Failed", (char *)(failed != NULL ? failed : "nothing")) == MI_SUCCESS);
	notes->text[0] = '\0';
	notes->length = 0;
	return SMFIS_CONTINUE;
}

static sfsistat
on_abort(SMFICTX *ctx)
{
	note(ctx, "abort; ");
	return SMFIS_CONTINUE;
}

static sfsistat
on_close(SMFICTX *ctx)
{
	forget(ctx);
	return SMFIS_CONTINUE;
}

static struct smfiDesc every_call = {
	"every-call", SMFI_VERSION,
	SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_CHGBODY | SMFIF_ADDRCPT | SMFIF_ADDRCPT_PAR |
	    SMFIF_DELRCPT | SMFIF_QUARANTINE | SMFIF_CHGFROM | SMFIF_SETSYMLIST,
	on_connect, on_helo, on_envfrom, on_envrcpt, on_header, on_eoh, on_body, on_eom,
	on_abort, on_close, on_unknown, on_data, on_negotiate
};

int
main(int argc, char **argv)
{
	unsigned major, minor, patch;

	if (argc < 2) {
		fprintf(stderr, "usage: %s SOCKET [quarantine]\n", argv[0]);
		return 64;
	}
	quarantine = argc > 2;
	CHECK(smfi_version(&major, &minor, &patch) == MI_SUCCESS);
	CHECK(major == 1 && minor == 0);
	CHECK(smfi_setmaxdatasize(65535) == 65535);
	CHECK(smfi_settimeout(600) == MI_SUCCESS);
	CHECK(smfi_setbacklog(20) == MI_SUCCESS);
	CHECK(smfi_setdbg(0) == MI_SUCCESS);
	CHECK(smfi_setconn(argv[1]) == MI_SUCCESS);
	CHECK(smfi_register(every_call) == MI_SUCCESS);
	CHECK(smfi_opensocket(1) == MI_SUCCESS);
	CHECK(smfi_main() == MI_SUCCESS);
	if (failed != NULL)
		fprintf(stderr, "failed: %s\n", failed);
	return failed != NULL;
}
