/*
 * replace_body - frees messages of attachments: of the parts of a multipart/mixed message only the first one stays.
 *
 *   cc replace_body.c -o replace_body $(pkg-config --cflags --libs milter)
 *   ./replace_body unix:/tmp/replace_body.sock &
 *   milter-probe send --connect unix:/tmp/replace_body.sock message.eml
 */

#define _GNU_SOURCE /* memmem, strcasestr */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include <libmilter/mfapi.h>

/* A multipart/mixed message; others have no private data. */
struct message {
	char delimiter[80];	/* a line of two dashes and the boundary, which has up to 70 characters */
	FILE *collector;	/* fills body, which begins with a line end for the first delimiter */
	char *body;
	size_t length;
};

static sfsistat
forget(SMFICTX *ctx)
{
	struct message *msg = smfi_getpriv(ctx);

	if (msg != NULL) {
		fclose(msg->collector);
		free(msg->body);
		free(msg);
		(void)smfi_setpriv(ctx, NULL);
	}
	return SMFIS_CONTINUE;
}

static sfsistat
header(SMFICTX *ctx, char *name, char *value)
{
	char *boundary = strcasestr(value, "boundary=");
	struct message *msg;

	if (smfi_getpriv(ctx) != NULL || strcasecmp(name, "Content-Type") != 0 ||
	    strncasecmp(value, "multipart/mixed", 15) != 0 || boundary == NULL)
		return SMFIS_CONTINUE;
	boundary += boundary[9] == '"' ? 10 : 9;
	if ((msg = calloc(1, sizeof *msg)) == NULL ||
	    (msg->collector = open_memstream(&msg->body, &msg->length)) == NULL) {
		free(msg);
		return SMFIS_TEMPFAIL;
	}
	snprintf(msg->delimiter, sizeof msg->delimiter, "\r\n--%.*s\r\n", (int)strcspn(boundary, "\"; \t\n"), boundary);
	(void)fputs("\r\n", msg->collector);
	(void)smfi_setpriv(ctx, msg);
	return SMFIS_CONTINUE;
}

static sfsistat
body(SMFICTX *ctx, unsigned char *piece, size_t length)
{
	struct message *msg = smfi_getpriv(ctx);

	if (msg != NULL)
		(void)fwrite(piece, 1, length, msg->collector); /* ferror tells of failures, at the end */
	return SMFIS_CONTINUE;
}

static sfsistat
finish(SMFICTX *ctx)
{
	struct message *msg = smfi_getpriv(ctx);
	size_t length = msg == NULL ? 0 : strlen(msg->delimiter);
	int failed = msg != NULL && (fflush(msg->collector) == EOF || ferror(msg->collector));
	char *first = msg == NULL || failed ? NULL : memmem(msg->body, msg->length, msg->delimiter, length);
	char *second = first == NULL ? NULL
	             : memmem(first + 2, msg->body + msg->length - first - 2, msg->delimiter, length);

	/* Two dashes instead of a line end make the second delimiter the last one. The calls add up to one body. */
	if (second != NULL)
		failed = smfi_replacebody(ctx, (unsigned char *)msg->body + 2, second + length - 4 - msg->body) < 0 ||
		    smfi_replacebody(ctx, (unsigned char *)"--\r\n", 4) < 0;
	(void)forget(ctx);
	return failed ? SMFIS_TEMPFAIL : SMFIS_CONTINUE;
}

int
main(int argc, char **argv)
{
	struct smfiDesc filter = { "replace_body", SMFI_VERSION, SMFIF_CHGBODY, NULL, NULL, NULL, NULL, header, NULL, body,
		finish, forget, forget, NULL, NULL, NULL };

	openlog("replace_body", LOG_PERROR, LOG_MAIL);
	if (argc != 2)
		syslog(LOG_ERR, "usage: replace_body SOCKET");
	return argc == 2 && smfi_register(filter) == MI_SUCCESS && smfi_setconn(argv[1]) == MI_SUCCESS &&
	    smfi_opensocket(1) == MI_SUCCESS && smfi_main() == MI_SUCCESS ? 0 : 1;
}
