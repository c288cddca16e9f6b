/*
 * libmilter/mfext.h: what this library offers beyond libmilter/mfapi.h, which it includes.
 *
 * Generated from src/capi/mfext.rs. Licence: MIT OR Apache-2.0.
 */
#ifndef _LIBMILTER_MFEXT_H
#define _LIBMILTER_MFEXT_H 1

#include "libmilter/mfapi.h"

#ifdef __cplusplus
extern "C" {
#endif


/**
 * The actions of protocol version 2.
 */
#define SMFIF_ALLOPTS_V2 SMFI_V2_ACTS

/**
 * The actions that protocol version 6 has and version 2 has not.
 */
#define SMFIF_ALLOPTS_V6 (SMFI_CURR_ACTS ^ SMFI_V2_ACTS)

/**
 * All actions of both versions.
 */
#define SMFIF_ALLOPTS (SMFIF_ALLOPTS_V2 | SMFIF_ALLOPTS_V6)

/**
 * The protocol steps of protocol version 2.
 */
#define SMFIP_ALLPROTOS_V2 SMFI_V2_PROT

/**
 * The protocol steps that protocol version 6 has and version 2 has not.
 */
#define SMFIP_ALLPROTOS_V6 (SMFI_CURR_PROT ^ SMFI_V2_PROT)

/**
 * All protocol steps of both versions.
 */
#define SMFIP_ALLPROTOS (SMFIP_ALLPROTOS_V2 | SMFIP_ALLPROTOS_V6)

/**
 * Sets one of the library's own options, which libmilter(7) lists.
 *
 * Call it before smfi_opensocket() and smfi_main(). The texts are copied. The administrator may set the same options in
 * the environment variable LIBMILTER_OPTIONS, and wins; only "noreply" is for the program alone.
 *
 * @param __name the option, for instance "model".
 * @param __value its value, for instance "threads".
 * @return MI_SUCCESS, or MI_FAILURE if there is no such option or value, or if a text is NULL: the log says why.
 */
LIBMILTER_API int smfi_setopt(const char *__name, const char *__value);

#ifdef __cplusplus
}
#endif

#endif /* _LIBMILTER_MFEXT_H */
