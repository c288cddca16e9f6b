/*
 * minimal - the least that makes a filter: one callback, and four calls that start it. It refuses one sender.
 *
 *   cc minimal.c -o minimal $(pkg-config --cflags --libs milter)
 *   ./minimal unix:/tmp/minimal.sock &
 *   milter-probe send --connect unix:/tmp/minimal.sock --from spammer@example.com message.eml
 */

#include <stdio.h>
#include <strings.h>
#include <syslog.h>

#include <libmilter/mfapi.h>

static sfsistat
refuse_sender(SMFICTX *ctx, char **argv)
{
	/* The sender is argv[0], in angle brackets; ESMTP parameters follow it. */
	if (strcasecmp(argv[0], "<spammer@example.com>") != 0)
		return SMFIS_CONTINUE;
	/* If this fails, the MTA finds words of its own. */
	(void)smfi_setreply(ctx, "550", "5.7.1", "Your mail is not welcome here");
	return SMFIS_REJECT;
}

int
main(int argc, char **argv)
{
	struct smfiDesc filter = {
		.xxfi_name = "minimal",
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_NONE,
		.xxfi_envfrom = refuse_sender,
	};

	if (argc != 2) {
		fprintf(stderr, "usage: minimal SOCKET, such as unix:/tmp/minimal.sock or inet:8890@localhost\n");
		return 2;
	}
	/* The library reports to syslog; LOG_PERROR shows that here, too. */
	openlog("minimal", LOG_PERROR, LOG_MAIL);
	if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS ||
	    smfi_opensocket(1) != MI_SUCCESS)
		return 1;
	/* Serves until SIGTERM. */
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
