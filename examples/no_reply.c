/*
 * no_reply - counts header fields and octets of the body. It arranges with the MTA not to answer them one by one, which
 * saves a round trip for each.
 *
 *   cc no_reply.c -o no_reply $(pkg-config --cflags --libs milter)
 *   ./no_reply unix:/tmp/no_reply.sock &
 *   milter-probe send --connect unix:/tmp/no_reply.sock message.eml
 */

#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>

#include <libmilter/mfapi.h>

struct message {
	unsigned long fields, octets;
};

static sfsistat
negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long unused0, unsigned long unused1,
    unsigned long *wanted_actions, unsigned long *wanted_steps, unsigned long *unused2, unsigned long *unused3)
{
	(void)ctx, (void)unused0, (void)unused1, (void)unused2, (void)unused3;
	if ((actions & SMFIF_ADDHDRS) == 0)
		return SMFIS_REJECT;
	*wanted_actions = SMFIF_ADDHDRS;
	/*
	 * *wanted_steps holds the stages without callback already. For an MTA that does not know these steps the
	 * library sends the answers, so SMFIS_NOREPLY is right below in any case.
	 */
	*wanted_steps |= steps & (SMFIP_NR_HDR | SMFIP_NR_BODY);
	return SMFIS_CONTINUE;
}

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
header(SMFICTX *ctx, char *name, char *value)
{
	struct message *msg = smfi_getpriv(ctx);

	(void)name, (void)value;
	msg->fields++;
	return SMFIS_NOREPLY;
}

static sfsistat
body(SMFICTX *ctx, unsigned char *piece, size_t length)
{
	struct message *msg = smfi_getpriv(ctx);

	(void)piece;
	msg->octets += length;
	return SMFIS_NOREPLY;
}

static sfsistat
finish(SMFICTX *ctx)
{
	struct message *msg = smfi_getpriv(ctx);
	char text[80];

	snprintf(text, sizeof text, "%lu fields, %lu octets", msg->fields, msg->octets);
	(void)forget(ctx);
	return smfi_addheader(ctx, "X-Counted", text) == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

int
main(int argc, char **argv)
{
	struct smfiDesc filter = { "no_reply", SMFI_VERSION, SMFIF_ADDHDRS, NULL, NULL, begin, NULL, header, NULL, body,
		finish, forget, forget, NULL, NULL, negotiate };

	openlog("no_reply", LOG_PERROR, LOG_MAIL);
	if (argc != 2)
		syslog(LOG_ERR, "usage: no_reply SOCKET");
	return argc == 2 && smfi_register(filter) == MI_SUCCESS && smfi_setconn(argv[1]) == MI_SUCCESS &&
	    smfi_opensocket(1) == MI_SUCCESS && smfi_main() == MI_SUCCESS ? 0 : 1;
}
