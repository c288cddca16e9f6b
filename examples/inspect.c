/*
 * inspect - prints every stage of every session with its arguments, and the macros that the MTA sends with it. It changes
 * nothing: put it beside other filters to see what they are given.
 *
 *   cc inspect.c -o inspect $(pkg-config --cflags --libs milter)
 *   ./inspect unix:/tmp/inspect.sock &
 *   milter-probe send --connect unix:/tmp/inspect.sock message.eml
 */

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <arpa/inet.h>
#include <sys/un.h>

#include <libmilter/mfapi.h>

#define CALLBACK(name, ...) static sfsistat name(SMFICTX *ctx, __VA_ARGS__)
#define PLAIN_CALLBACK(name, macros) \
	static sfsistat name(SMFICTX *ctx) { return show(ctx, none, macros, "%s", #name); }

/* What Sendmail and Postfix send unless told otherwise; those of earlier stages can still be looked up. */
static char *at_connect[] = { "j", "v", "_", "{daemon_name}", "{daemon_addr}", "{if_name}", "{if_addr}", NULL };
static char *at_helo[] = { "{tls_version}", "{cipher}", "{cipher_bits}", "{cert_subject}", "{cert_issuer}", NULL };
static char *at_mail[] = { "i", "{auth_type}", "{auth_authen}", "{auth_ssf}", "{auth_author}", "{mail_mailer}",
	"{mail_host}", "{mail_addr}", NULL };
static char *at_rcpt[] = { "i", "{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}", NULL };
static char *at_data[] = { "i", NULL }, *at_eom[] = { "i", "{msg_id}", NULL }, *none[] = { NULL };

/* Prints a stage, the words of a list, and macros that have a value. Other sessions print at the same time. */
static sfsistat
show(SMFICTX *ctx, char *words[], char *macros[], const char *format, ...)
{
	const char *value;
	va_list arguments;

	flockfile(stdout);
	printf("%p ", (void *)ctx);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	for (; *words != NULL; words++)
		printf(" \"%s\"", *words);
	for (; *macros != NULL; macros++)
		if ((value = smfi_getsymval(ctx, *macros)) != NULL)
			printf(" [%s=%s]", *macros, value);
	putchar('\n');
	fflush(stdout);
	funlockfile(stdout);
	return SMFIS_CONTINUE;
}

CALLBACK(negotiate, unsigned long actions, unsigned long steps, unsigned long a, unsigned long b,
    unsigned long *c, unsigned long *d, unsigned long *e, unsigned long *f)
{
	(void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)show(ctx, none, none, "negotiate actions=%#lx steps=%#lx", actions, steps);
	return SMFIS_ALL_OPTS;
}

CALLBACK(connected, char *host, struct sockaddr *address)
{
	int family = address == NULL ? AF_UNSPEC : address->sa_family;
	char text[INET6_ADDRSTRLEN] = "no address";

	if (family == AF_INET)
		inet_ntop(family, &((struct sockaddr_in *)address)->sin_addr, text, sizeof text);
	else if (family == AF_INET6)
		inet_ntop(family, &((struct sockaddr_in6 *)address)->sin6_addr, text, sizeof text);
	return show(ctx, none, at_connect, "connect \"%s\" %s", host,
	    family == AF_UNIX ? ((struct sockaddr_un *)address)->sun_path : text);
}

CALLBACK(helo, char *name) { return show(ctx, none, at_helo, "helo \"%s\"", name); }
CALLBACK(envfrom, char **argv) { return show(ctx, argv, at_mail, "envfrom"); }
CALLBACK(envrcpt, char **argv) { return show(ctx, argv, at_rcpt, "envrcpt"); }
PLAIN_CALLBACK(data, at_data)
CALLBACK(header, char *name, char *value) { return show(ctx, none, none, "header \"%s\" \"%s\"", name, value); }
PLAIN_CALLBACK(eoh, none)
CALLBACK(body, unsigned char *piece, size_t length)
{
	return show(ctx, none, none, "body %lu octets, first 0x%02x", (unsigned long)length, length ? piece[0] : 0);
}
PLAIN_CALLBACK(eom, at_eom)
PLAIN_CALLBACK(aborted, none)
PLAIN_CALLBACK(closed, none)
CALLBACK(unknown, const char *line) { return show(ctx, none, none, "unknown \"%s\"", line); }

int
main(int argc, char **argv)
{
	struct smfiDesc filter = { "inspect", SMFI_VERSION, 0, connected, helo, envfrom, envrcpt, header, eoh, body, eom,
		aborted, closed, unknown, data, negotiate };

	openlog("inspect", LOG_PERROR, LOG_MAIL);
	if (argc != 2)
		syslog(LOG_ERR, "usage: inspect SOCKET");
	return argc == 2 && smfi_register(filter) == MI_SUCCESS && smfi_setconn(argv[1]) == MI_SUCCESS &&
	    smfi_opensocket(1) == MI_SUCCESS && smfi_main() == MI_SUCCESS ? 0 : 1;
}
