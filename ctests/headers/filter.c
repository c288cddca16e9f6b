/*
 * A filter that mentions every part of the C interface. It is C89 and C++98 at the same time and has to compile
 * without a warning; MFAPI chooses the way of including the header.
 */
#ifdef MFAPI_BARE
#include <mfapi.h>
#else
#include <libmilter/mfapi.h>
#endif
#include <stdio.h>

static char name[] = "filter";
static char socket_description[] = "inet:0@[127.0.0.1]";
static char text[] = "text";

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    return host != NULL && address != NULL && smfi_setpriv(ctx, text) == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_ACCEPT;
}

static sfsistat on_text(SMFICTX *ctx, char *argument)
{
    return smfi_getsymval(ctx, argument) == NULL ? SMFIS_NOREPLY : SMFIS_REJECT;
}

static sfsistat on_envelope(SMFICTX *ctx, char **arguments)
{
    if (smfi_setreply(ctx, text, text, arguments[0]) == MI_FAILURE)
        return SMFIS_TEMPFAIL;
    return smfi_setmlreply(ctx, "550", "5.7.1", "one", "two", (char *) NULL) == MI_SUCCESS ? SMFIS_REJECT : SMFIS_DISCARD;
}

static sfsistat on_header(SMFICTX *ctx, char *field, char *value)
{
    return smfi_getpriv(ctx) != NULL && field != value ? SMFIS_SKIP : SMFIS_CONTINUE;
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *chunk, size_t length)
{
    return ctx != NULL && chunk != NULL && length > 0 ? SMFIS_CONTINUE : SMFIS_SKIP;
}

static sfsistat on_event(SMFICTX *ctx)
{
    unsigned char body[] = "body";
    int results = smfi_addheader(ctx, text, text);

    results += smfi_chgheader(ctx, text, 1, NULL);
    results += smfi_insheader(ctx, 0, text, text);
    results += smfi_chgfrom(ctx, text, NULL);
    results += smfi_addrcpt(ctx, text);
    results += smfi_addrcpt_par(ctx, text, NULL);
    results += smfi_delrcpt(ctx, text);
    results += smfi_progress(ctx);
    results += smfi_replacebody(ctx, body, 4);
    results += smfi_quarantine(ctx, text);
    return results == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

static sfsistat on_unknown(SMFICTX *ctx, const char *command)
{
    return ctx != NULL && command[0] != '\0' ? SMFIS_REJECT : SMFIS_CONTINUE;
}

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long third,
    unsigned long fourth, unsigned long *wanted_actions, unsigned long *wanted_steps, unsigned long *wanted_third,
    unsigned long *wanted_fourth)
{
    *wanted_actions = actions & (unsigned long) SMFI_CURR_ACTS;
    *wanted_steps = steps & (unsigned long) (SMFIP_NR_HDR | SMFIP_SKIP);
    *wanted_third = third;
    *wanted_fourth = fourth;
    return smfi_setsymlist(ctx, SMFIM_ENVRCPT, text) == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_ALL_OPTS;
}

int main(void)
{
    struct smfiDesc descriptor = {
        name, SMFI_VERSION, SMFIF_ADDHDRS | SMFIF_CHGBODY | SMFIF_ADDRCPT | SMFIF_DELRCPT | SMFIF_CHGHDRS |
            SMFIF_QUARANTINE | SMFIF_CHGFROM | SMFIF_ADDRCPT_PAR | SMFIF_SETSYMLIST,
        on_connect, on_text, on_envelope, on_envelope, on_header, on_event, on_body, on_event, on_event, on_event,
        on_unknown, on_event, on_negotiate
    };
    SMFICTX_PTR no_session = NULL;
    smfiDesc_str copy = descriptor;
    smfiDesc_ptr pointer = &copy;
    unsigned int major, minor, patch_level;

    if (smfi_version(&major, &minor, &patch_level) != MI_SUCCESS
        || major != SM_LM_VRS_MAJOR(SMFI_VERSION) || minor != SM_LM_VRS_MINOR(SMFI_VERSION))
        return 1;
    if (smfi_setconn(socket_description) != MI_SUCCESS || smfi_register(*pointer) != MI_SUCCESS)
        return 2;
    if (smfi_settimeout(10) != MI_SUCCESS || smfi_setbacklog(5) != MI_SUCCESS || smfi_setdbg(0) != MI_SUCCESS)
        return 3;
    if (smfi_setmaxdatasize(MILTER_MAX_DATA_SIZE) != MILTER_MAX_DATA_SIZE)
        return 4;
    if (smfi_getpriv(no_session) != NULL || smfi_progress(no_session) != MI_FAILURE)
        return 5;
    if (smfi_opensocket(1) != MI_SUCCESS)
        return 6;
    /* A stop ahead of the main loop makes it return at once. */
    if (smfi_stop() != MI_SUCCESS || smfi_main() != MI_SUCCESS)
        return 7;
    printf("%u.%u.%u\n", major, minor, patch_level);
    return 0;
}
