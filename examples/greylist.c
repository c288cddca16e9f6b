/*
 * greylist - refuses the first attempt of each client, sender and recipient with a temporary error. Mail servers try
 * again; much of what sends spam does not. The memory is shared by all sessions, so it has a lock.
 *
 *   cc greylist.c -o greylist -pthread $(pkg-config --cflags --libs milter)
 *   ./greylist unix:/tmp/greylist.sock 60 &
 *   milter-probe send --connect unix:/tmp/greylist.sock --client host.example[192.0.2.1] message.eml
 */

#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include <libmilter/mfapi.h>

enum { PLACES = 1 << 16, LIFETIME = 7 * 24 * 3600 };

/* One place for each remainder of a key; a newcomer takes the place of whoever was there. */
static struct attempt {
	uint64_t key;
	time_t first;
} attempts[PLACES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long delay;

static uint64_t
mix(uint64_t key, const void *data, size_t length)
{
	for (const unsigned char *octet = data; length-- > 0; octet++)
		key = (key ^ *octet) * UINT64_C(0x100000001b3);
	return key;
}

static sfsistat
connected(SMFICTX *ctx, char *host, struct sockaddr *address)
{
	int family = address == NULL ? AF_UNSPEC : address->sa_family;
	uint64_t *client;

	(void)host;
	/* Mail that was not received over a network comes without an address. */
	if (family != AF_INET && family != AF_INET6)
		return SMFIS_ACCEPT;
	if ((client = malloc(sizeof *client)) == NULL)
		return SMFIS_TEMPFAIL;
	*client = family == AF_INET ? mix(1, &((struct sockaddr_in *)address)->sin_addr, 4)
	                            : mix(1, &((struct sockaddr_in6 *)address)->sin6_addr, 16);
	(void)smfi_setpriv(ctx, client);
	return SMFIS_CONTINUE;
}

static sfsistat
recipient(SMFICTX *ctx, char **argv)
{
	const uint64_t *client = smfi_getpriv(ctx);
	const char *sender = smfi_getsymval(ctx, "{mail_addr}");
	uint64_t key = mix(mix(*client, argv[0], strlen(argv[0])), sender, sender ? strlen(sender) : 0);
	struct attempt *known = &attempts[key % PLACES];
	time_t now = time(NULL);
	int is_new, is_early;

	pthread_mutex_lock(&lock);
	is_new = known->key != key || now - known->first > LIFETIME;
	if (is_new)
		*known = (struct attempt){ key, now };
	is_early = now - known->first < delay;
	pthread_mutex_unlock(&lock);
	if (!is_new && !is_early)
		return SMFIS_CONTINUE;
	(void)smfi_setreply(ctx, "451", "4.7.1", "Greylisted, please try again later");
	return SMFIS_TEMPFAIL;
}

static sfsistat
closed(SMFICTX *ctx)
{
	free(smfi_getpriv(ctx));
	(void)smfi_setpriv(ctx, NULL);
	return SMFIS_CONTINUE;
}

int
main(int argc, char **argv)
{
	struct smfiDesc filter = { .xxfi_name = "greylist", .xxfi_version = SMFI_VERSION, .xxfi_connect = connected,
		.xxfi_envrcpt = recipient, .xxfi_close = closed };

	openlog("greylist", LOG_PERROR, LOG_MAIL);
	if (argc != 3)
		syslog(LOG_ERR, "usage: greylist SOCKET SECONDS");
	delay = argc == 3 ? atol(argv[2]) : 0;
	return argc == 3 && smfi_register(filter) == MI_SUCCESS && smfi_setconn(argv[1]) == MI_SUCCESS &&
	    smfi_opensocket(1) == MI_SUCCESS && smfi_main() == MI_SUCCESS ? 0 : 1;
}
