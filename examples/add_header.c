/*
 * add_header - marks each message with a header field, and first removes marks that somebody else has forged.
 *
 *   cc add_header.c -o add_header $(pkg-config --cflags --libs milter)
 *   ./add_header unix:/tmp/add_header.sock &
 *   milter-probe send --connect unix:/tmp/add_header.sock message.eml
 */

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <syslog.h>

#include <libmilter/mfapi.h>

static char mark[] = "X-Checked";

/* What is known about the message that a session is busy with. */
struct message {
	int marks;
};

static sfsistat
forget(SMFICTX *ctx)
{
	free(smfi_getpriv(ctx));
	(void)smfi_setpriv(ctx, NULL);
	return SMFIS_CONTINUE;
}

static sfsistat
begin(SMFICTX *ctx, char **argv)
{
	struct message *msg = calloc(1, sizeof *msg);

	(void)argv;
	(void)forget(ctx);
	if (msg == NULL)
		return SMFIS_TEMPFAIL;
	(void)smfi_setpriv(ctx, msg);
	return SMFIS_CONTINUE;
}

static sfsistat
count(SMFICTX *ctx, char *name, char *value)
{
	struct message *msg = smfi_getpriv(ctx);

	(void)value;
	if (strcasecmp(name, mark) == 0)
		msg->marks++;
	return SMFIS_CONTINUE;
}

static sfsistat
finish(SMFICTX *ctx)
{
	struct message *msg = smfi_getpriv(ctx);
	const char *host = smfi_getsymval(ctx, "j"), *id = smfi_getsymval(ctx, "i");
	char value[512];
	int number, failed = 0;

	/* From the last to the first: with Postfix a removal changes the numbers of the fields that follow it. */
	for (number = msg->marks; number > 0; number--)
		failed |= smfi_chgheader(ctx, mark, number, NULL) != MI_SUCCESS;
	snprintf(value, sizeof value, "by %s as %s", host ? host : "unknown", id ? id : "unknown");
	/* At position 1, below the Received field of this MTA. */
	failed |= smfi_insheader(ctx, 1, mark, value) != MI_SUCCESS;
	(void)forget(ctx);
	return failed ? SMFIS_TEMPFAIL : SMFIS_CONTINUE;
}

int
main(int argc, char **argv)
{
	struct smfiDesc filter = {
		.xxfi_name = "add_header",
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGHDRS,
		.xxfi_envfrom = begin,
		.xxfi_header = count,
		.xxfi_eom = finish,
		.xxfi_abort = forget,
		.xxfi_close = forget,
	};

	openlog("add_header", LOG_PERROR, LOG_MAIL);
	if (argc != 2)
		syslog(LOG_ERR, "usage: add_header SOCKET");
	return argc == 2 && smfi_register(filter) == MI_SUCCESS && smfi_setconn(argv[1]) == MI_SUCCESS &&
	    smfi_opensocket(1) == MI_SUCCESS && smfi_main() == MI_SUCCESS ? 0 : 1;
}
