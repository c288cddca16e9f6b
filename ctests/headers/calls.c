/*
 * What the library answers to calls outside a session: refusals, defaults, and an errno that it leaves alone.
 * Prints one line for each; the test compares them with what is expected and with the reference.
 */
#include <libmilter/mfapi.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static char f[] = "F", empty[] = "", list[] = "i j";

#define SHOW(call) (errno = 77, printf("%s = %d\n", #call, (int) (call)), errno == 77 ? 0 : printf("errno %d\n", errno))
#define SHOW_NULL(call) (errno = 77, printf("%s = %s\n", #call, (call) == NULL ? "NULL" : "?"), \
    errno == 77 ? 0 : printf("errno %d\n", errno))

static sfsistat on_close(SMFICTX *ctx)
{
    return ctx == NULL ? SMFIS_TEMPFAIL : SMFIS_CONTINUE;
}

static int register_version(int version)
{
    struct smfiDesc descriptor;

    /* What a version does not cover may be anything. */
    memset(&descriptor, 0x5a, sizeof descriptor);
    memset(&descriptor, 0, offsetof(struct smfiDesc, xxfi_unknown));
    descriptor.xxfi_name = f;
    descriptor.xxfi_version = version;
    descriptor.xxfi_close = on_close;
    return smfi_register(descriptor);
}

int main(int argc, char **argv)
{
    static const int versions[] = {
        0, 1, 2, 3, 4, 5, 6, -1, 0x01000000, 0x01000001, 0x01000002, 0x0100007f, 0x010000ff, 0x01000100, 0x01800001,
        0x02000001, (int) 0x81000001
    };
    unsigned int i, a = 9, b = 9, c = 9;

    (void) argv;
    setvbuf(stdout, NULL, _IONBF, 0);
    for (i = 0; i < sizeof versions / sizeof versions[0]; i++)
        printf("register %#x = %d\n", (unsigned int) versions[i], register_version(versions[i]));

    SHOW(smfi_setconn(NULL));
    SHOW(smfi_setconn(empty));
    SHOW(smfi_opensocket(0));
    SHOW(smfi_setbacklog(0));
    SHOW(smfi_setbacklog(-1));
    SHOW(smfi_setbacklog(1));
    SHOW(smfi_settimeout(-1));
    SHOW(smfi_settimeout(7210));
    SHOW(smfi_setdbg(-1));
    SHOW(smfi_setdbg(0));
    SHOW(smfi_setmaxdatasize(70000));
    SHOW(smfi_setmaxdatasize(65535));
    SHOW(smfi_version(NULL, NULL, NULL));
    SHOW(smfi_version(&a, &b, &c));
    SHOW(a);
    SHOW(b);
    SHOW(c);

    SHOW_NULL(smfi_getpriv(NULL));
    SHOW(smfi_setpriv(NULL, f));
    SHOW_NULL(smfi_getsymval(NULL, f));
    SHOW(smfi_setreply(NULL, f, f, f));
    SHOW(smfi_setmlreply(NULL, f, f, f, f, f, f, f, (char *) NULL));
    SHOW(smfi_addheader(NULL, f, f));
    SHOW(smfi_chgheader(NULL, f, 1, f));
    SHOW(smfi_insheader(NULL, 1, f, f));
    SHOW(smfi_chgfrom(NULL, f, f));
    SHOW(smfi_addrcpt(NULL, f));
    SHOW(smfi_addrcpt_par(NULL, f, f));
    SHOW(smfi_delrcpt(NULL, f));
    SHOW(smfi_progress(NULL));
    SHOW(smfi_replacebody(NULL, NULL, 0));
    SHOW(smfi_quarantine(NULL, f));
    /* Defect 25: the reference ends the process here. */
    if (argc > 1)
        SHOW(smfi_setsymlist(NULL, SMFIM_CONNECT, list));
    return 0;
}
