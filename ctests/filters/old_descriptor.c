/*
 * A filter built as if against the headers of milter versions 2, 3 and 4, whose descriptor ended
 * earlier: what lies behind it on the stack is garbage.  Usage: old_descriptor VERSION SOCKET
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct smfi_str SMFICTX;

extern int smfi_setconn(char *);
extern int smfi_opensocket(int);
extern int smfi_main(void);

#define FIELDS \
	char *name; \
	int version; \
	unsigned long flags; \
	int (*connect)(SMFICTX *, char *, void *); \
	int (*helo)(SMFICTX *, char *); \
	int (*envfrom)(SMFICTX *, char **); \
	int (*envrcpt)(SMFICTX *, char **); \
	int (*header)(SMFICTX *, char *, char *); \
	int (*eoh)(SMFICTX *); \
	int (*body)(SMFICTX *, unsigned char *, size_t); \
	int (*eom)(SMFICTX *); \
	int (*abort)(SMFICTX *); \
	int (*close)(SMFICTX *);

struct version2 { FIELDS };
struct version3 { FIELDS int (*unknown)(SMFICTX *, const char *); };
struct version4 { FIELDS int (*unknown)(SMFICTX *, const char *); int (*data)(SMFICTX *); };

static int on_helo(SMFICTX *context, char *name)
{
	(void) context, (void) name;
	return 0;
}

static int on_unknown(SMFICTX *context, const char *command)
{
	(void) context, (void) command;
	return 1;
}

static int on_data(SMFICTX *context)
{
	(void) context;
	return 4;
}

/*
 * Each version had its own prototype of this function.  A second argument of class memory follows
 * the descriptor on the stack, where the callee of today expects the rest of it.
 */
extern int smfi_register();

struct garbage {
	unsigned long words[8];
};

static int enrol(int version)
{
	struct version2 two = { 0 };
	struct version3 three = { 0 };
	struct version4 four = { 0 };
	struct garbage garbage;

	memset(&garbage, 0x5a, sizeof garbage);
	two.name = three.name = four.name = "old";
	two.version = three.version = four.version = version;
	two.helo = three.helo = four.helo = on_helo;
	three.unknown = four.unknown = on_unknown;
	four.data = on_data;
	switch (version) {
	case 2:
		return ((int (*)(struct version2, struct garbage)) smfi_register)(two, garbage);
	case 3:
		return ((int (*)(struct version3, struct garbage)) smfi_register)(three, garbage);
	default:
		return ((int (*)(struct version4, struct garbage)) smfi_register)(four, garbage);
	}
}

int main(int argc, char **argv)
{
	if (argc != 3 || smfi_setconn(argv[2]) != 0 || enrol(atoi(argv[1])) != 0 || smfi_opensocket(0) != 0)
		return 2;
	puts("ready");
	fflush(stdout);
	return smfi_main() == 0 ? 0 : 1;
}
