/*
 * A filter that passes the verdict which the message itself asks for.
 *
 *   usage: verdicts SOCKET
 *
 * In the name of a recipient: reject, later, discard.  In the header field X-Verdict: at which of
 * header, eoh, body or eom, and which of reject, later, discard, accept, quarantine or shut.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <libmilter/mfapi.h>

struct request {
	char stage[16];
	char verdict[16];
};

static struct request *
request(SMFICTX *ctx)
{
	struct request *request = smfi_getpriv(ctx);

	if (request == NULL && (request = calloc(1, sizeof *request)) != NULL)
		smfi_setpriv(ctx, request);
	return request;
}

static sfsistat
pass(SMFICTX *ctx, const char *verdict)
{
	if (strcmp(verdict, "reject") == 0) {
		smfi_setmlreply(ctx, "554", "5.7.1", "This is refused:", "100%% of it", "for good", (char *)NULL);
		return SMFIS_REJECT;
	}
	if (strcmp(verdict, "later") == 0) {
		smfi_setreply(ctx, "450", "4.7.1", "Not now");
		return SMFIS_TEMPFAIL;
	}
	if (strcmp(verdict, "shut") == 0) {
		smfi_setreply(ctx, "421", "4.7.0", "Closing");
		return SMFIS_TEMPFAIL;
	}
	if (strcmp(verdict, "discard") == 0)
		return SMFIS_DISCARD;
	if (strcmp(verdict, "accept") == 0)
		return SMFIS_ACCEPT;
	if (strcmp(verdict, "quarantine") == 0)
		return smfi_quarantine(ctx, "asked for") == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
	return SMFIS_CONTINUE;
}

static sfsistat
at(SMFICTX *ctx, const char *stage)
{
	struct request *wanted = request(ctx);

	if (wanted == NULL)
		return SMFIS_TEMPFAIL;
	return strcmp(wanted->stage, stage) == 0 ? pass(ctx, wanted->verdict) : SMFIS_CONTINUE;
}

static sfsistat
on_envfrom(SMFICTX *ctx, char **words)
{
	struct request *wanted = request(ctx);

	(void)words;
	if (wanted == NULL)
		return SMFIS_TEMPFAIL;
	memset(wanted, 0, sizeof *wanted);
	return SMFIS_CONTINUE;
}

static sfsistat
on_envrcpt(SMFICTX *ctx, char **words)
{
	char name[16];

	return sscanf(words[0], "<%15[a-z]@", name) == 1 ? pass(ctx, name) : SMFIS_CONTINUE;
}

static sfsistat
on_header(SMFICTX *ctx, char *name, char *value)
{
	struct request *wanted = request(ctx);

	if (wanted != NULL && strcasecmp(name, "X-Verdict") == 0 &&
	    sscanf(value, "%15s %15s", wanted->stage, wanted->verdict) != 2)
		return SMFIS_TEMPFAIL;
	return at(ctx, "header");
}

static sfsistat
on_eoh(SMFICTX *ctx)
{
	return at(ctx, "eoh");
}

static sfsistat
on_body(SMFICTX *ctx, unsigned char *piece, size_t length)
{
	(void)piece, (void)length;
	return at(ctx, "body");
}

static sfsistat
on_eom(SMFICTX *ctx)
{
	smfi_addheader(ctx, "X-Judged", "yes");
	return at(ctx, "eom");
}

static sfsistat
on_close(SMFICTX *ctx)
{
	free(smfi_getpriv(ctx));
	smfi_setpriv(ctx, NULL);
	return SMFIS_CONTINUE;
}

static struct smfiDesc verdicts = {
	"verdicts", SMFI_VERSION, SMFIF_ADDHDRS | SMFIF_QUARANTINE,
	NULL, NULL, on_envfrom, on_envrcpt, on_header, on_eoh, on_body, on_eom,
	NULL, on_close, NULL, NULL, NULL
};

int
main(int argc, char **argv)
{
	if (argc != 2 || smfi_setconn(argv[1]) != MI_SUCCESS ||
	    smfi_register(verdicts) != MI_SUCCESS || smfi_opensocket(1) != MI_SUCCESS) {
		fprintf(stderr, "usage: %s SOCKET\n", argv[0]);
		return 64;
	}
	return smfi_main() == MI_SUCCESS ? 0 : 70;
}
