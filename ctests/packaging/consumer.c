/*
 * Succeeds with the library of this project only: sendmail's has no options. MFAPI_BARE chooses the way of including
 * the header.
 */
#ifdef MFAPI_BARE
#include <mfext.h>
#else
#include <libmilter/mfext.h>
#endif

int main(void)
{
	return smfi_setopt("model", "threads") != MI_SUCCESS;
}
