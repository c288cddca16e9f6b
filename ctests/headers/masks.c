/*
 * The masks of mfext.h: what version 2 had, what version 6 added, and both.
 */
#include <libmilter/mfext.h>

#if SMFIF_ALLOPTS_V2 != 0x3FL || SMFIF_ALLOPTS_V6 != 0x1C0L || SMFIF_ALLOPTS != 0x1FFL
#error "actions"
#endif
#if SMFIP_ALLPROTOS_V2 != 0x7FL || SMFIP_ALLPROTOS_V6 != 0x1FFF80L || SMFIP_ALLPROTOS != 0x1FFFFFL
#error "protocol steps"
#endif
#if (SMFIF_ALLOPTS_V2 & SMFIF_ALLOPTS_V6) || (SMFIP_ALLPROTOS_V2 & SMFIP_ALLPROTOS_V6)
#error "the versions overlap"
#endif
