/*
 * A filter for measurements: bench MODE[=MICROSECONDS] SOCKET
 *
 *   noop      every callback, nothing done in any
 *   nr        the same, but no answer before the end of the message
 *   skipall   no callback but the one for the end
 *   headers   ten small changes at the end: headers and recipients
 *   modify    the same and a new body of 1 MiB
 *   slow=N    the end of each message sleeps so long, as a look-up in the network does
 *   cpu=N     every callback computes so long
 *
 * When smfi_main returns, the time on the monotonic clock is printed in seconds.
 */
#define _POSIX_C_SOURCE 200809L

#include <libmilter/mfapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NEW_BODY (1024 * 1024)
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static long micros;	  /* that every callback computes */
static long sleep_micros; /* that the end of a message sleeps */
static unsigned char *new_body;

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static sfsistat compute(void)
{
	if (micros > 0) {
		double end = seconds() + (double)micros * 1e-6;

		while (seconds() < end)
			;
	}
	return SMFIS_CONTINUE;
}

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
	(void)ctx, (void)host, (void)address;
	return compute();
}

static sfsistat on_text(SMFICTX *ctx, char *text)
{
	(void)ctx, (void)text;
	return compute();
}

static sfsistat on_address(SMFICTX *ctx, char **arguments)
{
	(void)ctx, (void)arguments;
	return compute();
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
	(void)ctx, (void)name, (void)value;
	return compute();
}

static sfsistat on_step(SMFICTX *ctx)
{
	(void)ctx;
	return compute();
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *piece, size_t length)
{
	(void)ctx, (void)piece, (void)length;
	return compute();
}

static sfsistat on_unknown(SMFICTX *ctx, const char *command)
{
	(void)ctx, (void)command;
	return compute();
}

static sfsistat on_end_of_session(SMFICTX *ctx)
{
	(void)ctx;
	return SMFIS_CONTINUE;
}

/* With a promise not to answer, callbacks return SMFIS_NOREPLY. */

static sfsistat quiet_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long reserved2,
				unsigned long reserved3, unsigned long *my_actions, unsigned long *my_steps,
				unsigned long *my_reserved2, unsigned long *my_reserved3)
{
	const unsigned long quiet = SMFIP_NR_CONN | SMFIP_NR_HELO | SMFIP_NR_MAIL | SMFIP_NR_RCPT | SMFIP_NR_DATA |
				    SMFIP_NR_UNKN | SMFIP_NR_HDR | SMFIP_NR_EOH | SMFIP_NR_BODY;

	(void)ctx, (void)actions, (void)reserved2, (void)reserved3;
	*my_actions = 0;
	*my_steps = steps & quiet;
	*my_reserved2 = *my_reserved3 = 0;
	return SMFIS_CONTINUE;
}

static sfsistat quiet_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
	(void)ctx, (void)host, (void)address;
	return SMFIS_NOREPLY;
}

static sfsistat quiet_text(SMFICTX *ctx, char *text)
{
	(void)ctx, (void)text;
	return SMFIS_NOREPLY;
}

static sfsistat quiet_address(SMFICTX *ctx, char **arguments)
{
	(void)ctx, (void)arguments;
	return SMFIS_NOREPLY;
}

static sfsistat quiet_header(SMFICTX *ctx, char *name, char *value)
{
	(void)ctx, (void)name, (void)value;
	return SMFIS_NOREPLY;
}

static sfsistat quiet_step(SMFICTX *ctx)
{
	(void)ctx;
	return SMFIS_NOREPLY;
}

static sfsistat quiet_body(SMFICTX *ctx, unsigned char *piece, size_t length)
{
	(void)ctx, (void)piece, (void)length;
	return SMFIS_NOREPLY;
}

static sfsistat quiet_unknown(SMFICTX *ctx, const char *command)
{
	(void)ctx, (void)command;
	return SMFIS_NOREPLY;
}

static sfsistat sleeping_end(SMFICTX *ctx)
{
	struct timespec time;

	(void)ctx;
	time.tv_sec = sleep_micros / 1000000;
	time.tv_nsec = sleep_micros % 1000000 * 1000;
	nanosleep(&time, NULL);
	return SMFIS_CONTINUE;
}

static sfsistat changing_end(SMFICTX *ctx)
{
	static char value[] = "what a filter has to say about a message is often as long as this";
	int i, failed = 0;

	for (i = 0; i < 5; i++)
		failed |= smfi_addheader(ctx, (char *)"X-Bench", value);
	failed |= smfi_insheader(ctx, 0, (char *)"X-Bench-First", value);
	failed |= smfi_chgheader(ctx, (char *)"Subject", 1, value);
	failed |= smfi_chgheader(ctx, (char *)"X-Mailer", 1, NULL);
	failed |= smfi_addrcpt(ctx, (char *)"<added@example.net>");
	failed |= smfi_delrcpt(ctx, (char *)"<user0@example.net>");
	if (new_body != NULL)
		failed |= smfi_replacebody(ctx, new_body, NEW_BODY);
	return failed == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

int main(int argc, char **argv)
{
	static const char *const modes[] = { "noop", "nr", "skipall", "headers", "modify", "slow", "cpu" };
	struct smfiDesc filter;
	char *mode, *number;
	size_t known = 0;
	int result;

	if (argc != 3) {
		fprintf(stderr, "usage: bench MODE[=MICROSECONDS] SOCKET\n");
		return 2;
	}
	mode = argv[1];
	number = strchr(mode, '=');
	if (number != NULL) {
		*number = '\0';
		micros = atol(number + 1);
	}
	while (known < COUNT(modes) && strcmp(mode, modes[known]) != 0)
		known++;
	if (known == COUNT(modes)) {
		fprintf(stderr, "bench: there is no mode %s\n", mode);
		return 2;
	}

	memset(&filter, 0, sizeof filter);
	filter.xxfi_name = (char *)"bench";
	filter.xxfi_version = SMFI_VERSION;
	filter.xxfi_eom = on_step;
	if (strcmp(mode, "skipall") != 0) {
		filter.xxfi_connect = on_connect;
		filter.xxfi_helo = on_text;
		filter.xxfi_envfrom = on_address;
		filter.xxfi_envrcpt = on_address;
		filter.xxfi_data = on_step;
		filter.xxfi_header = on_header;
		filter.xxfi_eoh = on_step;
		filter.xxfi_body = on_body;
		filter.xxfi_unknown = on_unknown;
		filter.xxfi_abort = on_end_of_session;
		filter.xxfi_close = on_end_of_session;
	}
	if (strcmp(mode, "nr") == 0) {
		filter.xxfi_negotiate = quiet_negotiate;
		filter.xxfi_connect = quiet_connect;
		filter.xxfi_helo = quiet_text;
		filter.xxfi_envfrom = quiet_address;
		filter.xxfi_envrcpt = quiet_address;
		filter.xxfi_data = quiet_step;
		filter.xxfi_header = quiet_header;
		filter.xxfi_eoh = quiet_step;
		filter.xxfi_body = quiet_body;
		filter.xxfi_unknown = quiet_unknown;
	} else if (strcmp(mode, "slow") == 0) {
		filter.xxfi_eom = sleeping_end;
		sleep_micros = micros;
		micros = 0;
	} else if (strcmp(mode, "headers") == 0 || strcmp(mode, "modify") == 0) {
		filter.xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_ADDRCPT | SMFIF_DELRCPT | SMFIF_CHGBODY;
		filter.xxfi_eom = changing_end;
		if (strcmp(mode, "modify") == 0) {
			new_body = malloc(NEW_BODY);
			if (new_body == NULL)
				return 1;
			memset(new_body, 'x', NEW_BODY);
		}
	}

	if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[2]) != MI_SUCCESS ||
	    smfi_opensocket(0) != MI_SUCCESS) {
		fprintf(stderr, "bench: cannot listen on %s\n", argv[2]);
		return 1;
	}
	result = smfi_main();
	printf("%.6f\n", seconds());
	fflush(stdout);
	/* Sessions may still be open. */
	_exit(result == MI_SUCCESS ? 0 : 1);
}
