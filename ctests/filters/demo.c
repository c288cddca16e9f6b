/*
 * demo - a small mail filter, the way they have been written for years.
 *
 *   usage: demo SOCKET
 *
 * It marks the subject of each message, signs the message with a header, and
 * puts a line under the text of plain messages.  Mail to nobody@ is refused.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <libmilter/mfapi.h>

#define MARK	"[demo] "
#define FOOTER	"\r\n-- \r\nChecked by a filter that was compiled against libmilter.\r\n"

struct message {
	char *subject;
	int plain;		/* no Content-Type but text/plain */
	unsigned char *body;
	size_t length;
};

static void
forget(SMFICTX *ctx)
{
	struct message *msg = smfi_getpriv(ctx);

	if (msg == NULL)
		return;
	free(msg->subject);
	free(msg->body);
	free(msg);
	smfi_setpriv(ctx, NULL);
}

static sfsistat
demo_envfrom(SMFICTX *ctx, char **argv)
{
	struct message *msg = calloc(1, sizeof *msg);

	(void)argv;
	forget(ctx);
	if (msg == NULL)
		return SMFIS_TEMPFAIL;
	msg->plain = 1;
	smfi_setpriv(ctx, msg);
	return SMFIS_CONTINUE;
}

static sfsistat
demo_envrcpt(SMFICTX *ctx, char **argv)
{
	if (strncasecmp(argv[0], "<nobody@", 8) == 0) {
		smfi_setmlreply(ctx, "550", "5.1.1", "There is nobody here.",
		    "Write to somebody instead.", NULL);
		return SMFIS_REJECT;
	}
	return SMFIS_CONTINUE;
}

static sfsistat
demo_header(SMFICTX *ctx, char *name, char *value)
{
	struct message *msg = smfi_getpriv(ctx);

	if (strcasecmp(name, "Subject") == 0 && msg->subject == NULL) {
		if ((msg->subject = strdup(value)) == NULL)
			return SMFIS_TEMPFAIL;
	}
	if (strcasecmp(name, "Content-Type") == 0)
		msg->plain = strncasecmp(value, "text/plain", 10) == 0;
	return SMFIS_CONTINUE;
}

static sfsistat
demo_body(SMFICTX *ctx, unsigned char *chunk, size_t length)
{
	struct message *msg = smfi_getpriv(ctx);
	unsigned char *body;

	if (!msg->plain)
		return SMFIS_CONTINUE;
	body = realloc(msg->body, msg->length + length + sizeof FOOTER);
	if (body == NULL)
		return SMFIS_TEMPFAIL;
	memcpy(body + msg->length, chunk, length);
	msg->body = body;
	msg->length += length;
	return SMFIS_CONTINUE;
}

static sfsistat
demo_eom(SMFICTX *ctx)
{
	struct message *msg = smfi_getpriv(ctx);
	char *id = smfi_getsymval(ctx, "i");
	char line[256];
	char *subject;
	int ok = 1;

	if (msg->subject != NULL &&
	    (subject = malloc(sizeof MARK + strlen(msg->subject))) != NULL) {
		strcat(strcpy(subject, MARK), msg->subject);
		ok = smfi_chgheader(ctx, "Subject", 1, subject) == MI_SUCCESS;
		free(subject);
	}
	if (msg->body != NULL) {
		memcpy(msg->body + msg->length, FOOTER, sizeof FOOTER - 1);
		ok = ok && smfi_replacebody(ctx, msg->body,
		    (int)(msg->length + sizeof FOOTER - 1)) == MI_SUCCESS;
	}
	snprintf(line, sizeof line, "demo saw message %s", id ? id : "without a name");
	ok = ok && smfi_addheader(ctx, "X-Demo-Filter", line) == MI_SUCCESS;
	forget(ctx);
	return ok ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

static sfsistat
demo_cleanup(SMFICTX *ctx)
{
	forget(ctx);
	return SMFIS_CONTINUE;
}

static struct smfiDesc demo = {
	"demo", SMFI_VERSION, SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_CHGBODY,
	NULL, NULL, demo_envfrom, demo_envrcpt, demo_header, NULL, demo_body,
	demo_eom, demo_cleanup, demo_cleanup, NULL, NULL, NULL
};

int
main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s unix:/path | inet:port@host\n", argv[0]);
		return 64;
	}
	if (smfi_setconn(argv[1]) != MI_SUCCESS ||
	    smfi_register(demo) != MI_SUCCESS ||
	    smfi_opensocket(1) != MI_SUCCESS) {
		fprintf(stderr, "%s: cannot listen on %s\n", argv[0], argv[1]);
		return 69;
	}
	return smfi_main() == MI_SUCCESS ? 0 : 70;
}
